//! Who may ask: a browser that was sent here by a foreign page may not.
//!
//! A page on the internet can point its own host name at 127.0.0.1 and have the visitor's browser
//! read what answers there (DNS rebinding). The browser then still sends that name as `Host`, so
//! only our own names are served, and that is decided before any route is looked at.

use axum::http::{
    HeaderMap, Method, StatusCode, Uri,
    header::{AsHeaderName, HOST, ORIGIN},
};

use crate::problem::Problem;

/// The names under which a loopback server is asked for.
const HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Port that a `Host` without one means.
const HTTP_PORT: u16 = 80;

/// Decides from the head of a request whether it is looked at.
pub fn admit(method: &Method, uri: &Uri, headers: &HeaderMap, port: u16) -> Result<(), Problem> {
    let host = single(headers, HOST)?.unwrap_or_default();
    if !is_ours(host, port) || uri.authority().is_some_and(|host| !is_ours(host.as_str(), port)) {
        let detail = format!("ask for this server as localhost:{port} or 127.0.0.1:{port}");
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail));
    }
    if let Some(origin) = single(headers, ORIGIN)?
        && !origin.strip_prefix("http://").is_some_and(|host| is_ours(host, port))
    {
        return Err(Problem::new(StatusCode::FORBIDDEN, "requests of other origins are refused"));
    }
    if *method != Method::GET && *method != Method::HEAD {
        let detail = "this version of the API only reads: use GET";
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail));
    }
    Ok(())
}

fn is_ours(authority: &str, port: u16) -> bool {
    let authority = authority.to_ascii_lowercase();
    HOSTS.iter().any(|host| {
        let Some(rest) = authority.strip_prefix(host) else { return false };
        rest == format!(":{port}") || rest.is_empty() && port == HTTP_PORT
    })
}

/// A header's value; sent twice, the request could mean one thing to us and another to a proxy.
fn single(headers: &HeaderMap, name: impl AsHeaderName) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(name).into_iter();
    let (first, second) = (values.next(), values.next());
    let bad = |detail| Problem::new(StatusCode::BAD_REQUEST, detail);
    match (first, second) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            value.to_str().map(Some).map_err(|_| bad("a header is not readable text"))
        }
        (Some(_), Some(_)) => Err(bad("a header was sent twice")),
    }
}

#[cfg(test)]
mod tests {
    use axum::{http::Request, response::IntoResponse};

    use super::*;

    const PORT: u16 = 7878;

    #[test]
    fn only_our_own_names_are_served() {
        for host in ["localhost:7878", "127.0.0.1:7878", "[::1]:7878", "LOCALHOST:7878"] {
            check(&[("host", host)], None);
        }
        for host in [
            "",
            "localhost",
            "localhost:80",
            "localhost:78780",
            "localhost.evil.example:7878",
            "evil.example:7878",
            "evil.example",
            "127.0.0.1.evil.example:7878",
            "127.0.0.2:7878",
            "0.0.0.0:7878",
            "[::]:7878",
            "user@localhost:7878",
        ] {
            check(&[("host", host)], Some(421));
        }
        check(&[], Some(421));
        check(&[("host", "localhost:7878"), ("host", "evil.example")], Some(400));
    }

    #[test]
    fn other_origins_are_refused() {
        let host = ("host", "localhost:7878");
        for origin in ["http://localhost:7878", "http://127.0.0.1:7878", "http://[::1]:7878"] {
            check(&[host, ("origin", origin)], None);
        }
        for origin in [
            "null",
            "",
            "http://localhost",
            "http://localhost:3000",
            "https://localhost:7878",
            "http://evil.example",
            "http://evil.example:7878",
            "http://localhost:7878.evil.example",
            "localhost:7878",
        ] {
            check(&[host, ("origin", origin)], Some(403));
        }
        let ours = ("origin", "http://localhost:7878");
        check(&[host, ours, ours], Some(400));
    }

    #[test]
    fn a_request_for_another_server_is_refused_whatever_its_host_says() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "localhost:7878".parse().unwrap());
        let uri: Uri = "http://evil.example/health".parse().unwrap();
        let refused = admit(&Method::GET, &uri, &headers, PORT).expect_err("not ours");
        assert_eq!(refused.into_response().status(), 421);
    }

    #[test]
    fn only_reading_is_allowed() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "localhost:7878".parse().unwrap());
        let uri = Uri::from_static("/v1/chains");
        assert!(admit(&Method::HEAD, &uri, &headers, PORT).is_ok());
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::CONNECT]
        {
            let refused = admit(&method, &uri, &headers, PORT).expect_err("it could change things");
            assert_eq!(refused.into_response().status(), 405);
        }
    }

    #[test]
    fn on_the_http_port_the_port_may_be_left_out() {
        assert!(is_ours("localhost", 80) && is_ours("localhost:80", 80));
        assert!(!is_ours("localhost", 7878));
    }

    fn check(headers: &[(&str, &str)], refused: Option<u16>) {
        let mut request = Request::builder().uri("/health");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let admitted = admit(&head.method, &head.uri, &head.headers, PORT);
        let status = admitted.err().map(|problem| problem.into_response().status().as_u16());
        assert_eq!(status, refused, "{headers:?}");
    }
}
