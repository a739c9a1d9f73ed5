//! Which URLs a module may get.

use std::{collections::BTreeSet, net::Ipv6Addr};

use url::{Host, Url};

use crate::{
    fault::{BadRequest, Fault, OutputTooLarge},
    limits::URL_BYTES_MAX,
    lines::escape,
};

/// Longest piece of a module's text in a fault about it.
const QUOTED_BYTES_MAX: usize = 200;

/// The URL as it is fetched, if it may be: `https`, or `http` on loopback; a host that is allowed;
/// no credentials. The fragment is dropped: no server sees it.
pub(crate) fn allowed(text: &str, hosts: &BTreeSet<String>) -> Result<Url, Fault> {
    if text.len() > URL_BYTES_MAX {
        return Err(OutputTooLarge::Url { bytes: text.len() }.into());
    }
    let quoted = || escape(text, QUOTED_BYTES_MAX);
    let mut url = Url::parse(text)
        .map_err(|error| BadRequest::NotAUrl { url: quoted(), reason: error.to_string() })?;
    let scheme_allowed = match url.scheme() {
        "https" => true,
        "http" => url.host().is_some_and(|host| is_loopback(&host)),
        _ => false,
    };
    // Only after the scheme: a URL of another one may have no host.
    let Some(host) = url.host_str().filter(|_| scheme_allowed) else {
        return Err(BadRequest::Scheme { url: quoted() }.into());
    };
    // A fault goes to logs and to a page, so it does not repeat them.
    if !url.username().is_empty() || url.password().is_some() {
        return Err(BadRequest::Credentials { host: escape(host, QUOTED_BYTES_MAX) }.into());
    }
    if !hosts.contains(host) {
        return Err(BadRequest::Host { host: escape(host, QUOTED_BYTES_MAX) }.into());
    }
    url.set_fragment(None);
    Ok(url)
}

/// A host as manifests list it, in the spelling that URLs are compared in. A port has no place
/// in it: a host is allowed on all of them.
pub(crate) fn host(text: &str) -> Result<String, url::ParseError> {
    // `Host::parse` reads `127.1` and percent signs as browsers do; what comes out is what a URL
    // with the same text has.
    match text.parse::<Ipv6Addr>() {
        Ok(address) => Ok(Host::<&str>::Ipv6(address).to_string()),
        Err(_) => Ok(Host::parse(text)?.to_string()),
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> BTreeSet<String> {
        ["example.org", "BÜCHER.example", "localhost", "127.0.0.1", "[::1]", "::2"]
            .map(|text| host(text).unwrap())
            .into()
    }

    #[test]
    fn what_may_be_got_is_got_in_one_spelling() {
        let check = |text: &str, url: &str| {
            assert_eq!(allowed(text, &hosts()).unwrap().as_str(), url);
        };
        check("https://example.org", "https://example.org/");
        check("HTTPS://Example.ORG:443/a?b=c#d", "https://example.org/a?b=c");
        check("https://example.org:8443/../a", "https://example.org:8443/a");
        check("https://bücher.example/", "https://xn--bcher-kva.example/");
        check("http://localhost:3000/x", "http://localhost:3000/x");
        check("http://127.0.0.1:3000/x", "http://127.0.0.1:3000/x");
        check("http://127.1/", "http://127.0.0.1/");
        check("http://[::1]:3000/x", "http://[::1]:3000/x");
        check("https://[0:0::2]/", "https://[::2]/");
    }

    #[test]
    fn what_may_not_be_got_is_named() {
        let check = |text: &str, fault: &str| {
            let refused = allowed(text, &hosts()).unwrap_err().to_string();
            assert!(refused.contains(fault), "{text}: {refused}");
        };
        check("example.org/a", "`example.org/a` is not a URL");
        check("\x1b[2J", r"`\u{1b}[2J` is not a URL");
        check("http://example.org/", "use https, or http on loopback");
        check("ftp://example.org/", "use https, or http on loopback");
        check("file:///etc/passwd", "use https, or http on loopback");
        check("data:,x", "use https, or http on loopback");
        check("http://localhost.example.org/", "use https, or http on loopback");
        check("https://user@example.org/", "carries credentials");
        check("https://:hunter2@example.org/", "carries credentials");
        check("https://example.org@evil.example/", "carries credentials");
        check("https://evil.example/example.org", "the host `evil.example` is not among");
        check("https://sub.example.org/", "the host `sub.example.org` is not among");
        check("https://example.org./", "the host `example.org.` is not among");
        check("https://127.0.0.2/", "the host `127.0.0.2` is not among");
        check(&format!("https://example.org/{}", "x".repeat(8192)), "8212 bytes; at most 8192");
        let password = allowed("https://:hunter2@example.org/", &hosts()).unwrap_err().to_string();
        assert!(!password.contains("hunter2"), "{password}");
    }
}
