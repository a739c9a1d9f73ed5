//! Plain HTTP: every answer comes back as it was, and none is believed without bounds.

use std::time::Duration;

use shepherd_rpc::{Failure, Redacted, Web, WebAnswer, WebRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

const KEY: &str = "s3cr3tk3y";

/// A server for one connection: reads one request, answers with this text and closes. Its task
/// returns what it was sent.
async fn server(answer: String) -> (Redacted, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/{KEY}/hook", listener.local_addr().unwrap()).parse().unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"}") && !asked.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut asked).await.unwrap(), 0, "a whole request");
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(asked).unwrap()
    });
    (url, serving)
}

async fn ask(url: &Redacted, body: Option<&'static str>) -> Result<WebAnswer, Failure> {
    let request = WebRequest {
        url,
        headers: &[("Idempotency-Key", "k-1")],
        body: body.map(Into::into),
        time_max: Duration::from_secs(10),
        answer_bytes_max: 10,
    };
    Web::new().send(request).await
}

#[tokio::test]
async fn a_post_carries_its_bytes_and_its_headers() {
    let (url, serving) = server("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok".into()).await;
    let answer = ask(&url, Some(r#"{"a":  1}"#)).await.unwrap();
    assert_eq!((answer.status, &answer.body[..], answer.is_cut), (201, &b"ok"[..], false));
    let asked = serving.await.unwrap();
    assert!(asked.starts_with(&format!("POST /{KEY}/hook HTTP/1.1\r\n")), "{asked}");
    assert!(asked.to_lowercase().contains("idempotency-key: k-1\r\n"), "{asked}");
    assert!(asked.to_lowercase().contains("content-type: application/json\r\n"), "{asked}");
    assert!(asked.ends_with(r#"{"a":  1}"#), "{asked}");
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let answer = "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\n\
                  Retry-After: 9\r\nContent-Length: 0\r\n\r\n";
    let (url, _serving) = server(answer.into()).await;
    let answer = ask(&url, Some("{}")).await.unwrap();
    assert_eq!((answer.status, answer.retry_after), (307, Some(Duration::from_secs(9))));
}

#[tokio::test]
async fn a_body_without_end_is_cut() {
    let answer = format!("HTTP/1.1 400 Bad Request\r\n\r\n{}", "x".repeat(100_000));
    let (url, _serving) = server(answer).await;
    let answer = ask(&url, None).await.unwrap();
    assert_eq!((answer.status, answer.body.len(), answer.is_cut), (400, 10, true));
}

#[tokio::test]
async fn a_failure_does_not_tell_the_url() {
    let (url, _serving) = server(String::new()).await;
    let failure = ask(&url, None).await.unwrap_err();
    assert!(matches!(failure, Failure::Unreachable { .. }), "{failure:?}");
    assert!(!format!("{failure} {failure:?}").contains(KEY), "{failure:?}");
}
