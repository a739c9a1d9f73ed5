//! HTTP and WebSocket at one port.

use std::{convert::Infallible, io, sync::Arc};

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
    upgrade,
};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};
use tokio_util::sync::CancellationToken;

use crate::{
    endpoint::{Endpoint, Reply},
    websocket,
};

type Body = BoxBody<Bytes, io::Error>;

/// Largest message that is read. Batches of a few hundred calls are some tens of kilobytes.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Of a huge body, so much is made at a time.
const HUGE_PIECE: &[u8] = &[b' '; 64 << 10];

/// Accepts connections until it is to end.
pub(crate) async fn serve(listener: TcpListener, endpoint: Arc<Endpoint>, end: CancellationToken) {
    loop {
        let Some(Ok((stream, _))) = end.run_until_cancelled(listener.accept()).await else {
            return;
        };
        // Answers are written whole; waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        let (endpoint, end) = (endpoint.clone(), end.clone());
        tokio::spawn(async move {
            end.clone().run_until_cancelled(connection(stream, endpoint, end)).await;
        });
    }
}

async fn connection(stream: TcpStream, endpoint: Arc<Endpoint>, end: CancellationToken) {
    let answer = service_fn(move |request| {
        let (endpoint, end) = (endpoint.clone(), end.clone());
        async move { Ok::<_, Infallible>(answer(request, endpoint, end).await) }
    });
    let connection =
        http1::Builder::new().serve_connection(TokioIo::new(stream), answer).with_upgrades();
    // How a client ends a connection is its own affair.
    let _ = connection.await;
}

async fn answer(
    request: Request<Incoming>,
    endpoint: Arc<Endpoint>,
    end: CancellationToken,
) -> Response<Body> {
    if let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) {
        let accept = derive_accept_key(key.as_bytes());
        tokio::spawn(async move {
            end.run_until_cancelled(upgraded(request, endpoint)).await;
        });
        return Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_ACCEPT, accept)
            .body(text(Bytes::new()))
            .expect("a key in base64 is a header");
    }
    if request.method() != Method::POST {
        return with_status(StatusCode::METHOD_NOT_ALLOWED, text(Bytes::new()));
    }
    let Ok(message) = Limited::new(request.into_body(), MESSAGE_BYTES_MAX).collect().await else {
        return with_status(StatusCode::PAYLOAD_TOO_LARGE, text(Bytes::new()));
    };
    let message = message.to_bytes();
    match endpoint.reply(&message) {
        Reply::Text(answer) => json(text(reused(answer, endpoint))),
        Reply::Status(status, retry_after) => {
            let status = StatusCode::from_u16(status).expect("scripts name statuses that exist");
            let mut response = with_status(status, text(Bytes::from_static(b"slow down")));
            if let Some(retry_after) = retry_after {
                let value = header::HeaderValue::from_static(retry_after);
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
            response
        }
        Reply::Stall => std::future::pending().await,
        Reply::HangUp => json(broken(Vec::new())),
        Reply::Half(beginning) => json(broken(beginning)),
        Reply::Huge(bytes) => {
            let pieces = bytes.div_ceil(HUGE_PIECE.len() as u64);
            let pieces = (0..pieces).map(|_| Ok(Frame::data(Bytes::from_static(HUGE_PIECE))));
            json(BodyExt::boxed(StreamBody::new(futures::stream::iter(pieces))))
        }
    }
}

async fn upgraded(request: Request<Incoming>, endpoint: Arc<Endpoint>) {
    let Ok(upgraded) = upgrade::on(request).await else { return };
    let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    websocket::talk(stream, endpoint).await;
}

/// Bytes that go back to the endpoint's buffers when they are sent.
fn reused(answer: Vec<u8>, endpoint: Arc<Endpoint>) -> Bytes {
    struct Lent {
        answer: Vec<u8>,
        endpoint: Arc<Endpoint>,
    }

    impl AsRef<[u8]> for Lent {
        fn as_ref(&self) -> &[u8] {
            &self.answer
        }
    }

    impl Drop for Lent {
        fn drop(&mut self) {
            self.endpoint.return_buffer(std::mem::take(&mut self.answer));
        }
    }

    Bytes::from_owner(Lent { answer, endpoint })
}

fn text(body: Bytes) -> Body {
    Full::new(body).map_err(|never| match never {}).boxed()
}

/// A body that begins and does not end.
fn broken(beginning: Vec<u8>) -> Body {
    let beginning = futures::stream::iter([Ok(Frame::data(Bytes::from(beginning)))]);
    let end = futures::stream::iter([Err(io::Error::other("on purpose"))]);
    BodyExt::boxed(StreamBody::new(beginning.chain(end)))
}

fn json(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn with_status(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}
