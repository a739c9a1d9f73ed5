//! Calls and notifications over a WebSocket.

use std::sync::Arc;

use alloy_primitives::B256;
use futures::{SinkExt, StreamExt};
use rand::{RngExt, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::broadcast::error::RecvError,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, Utf8Bytes},
};

use crate::{
    Lie,
    endpoint::{Endpoint, Reply},
    script::Occasion,
};

/// What becomes of a connection.
enum Next {
    Talk,
    /// It takes what is sent to it and says nothing any more.
    FallSilent,
    End,
}

/// Bytes that begin with a frame of a kind that does not exist.
const BROKEN_FRAME: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];

/// Talks until one side has had enough.
pub(crate) async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: WebSocketStream<S>,
    endpoint: Arc<Endpoint>,
) {
    let mut announcements = endpoint.oracle.announcements();
    let mut subscriptions: Vec<String> = Vec::new();
    let mut subscribed = 0_u64;
    loop {
        let next = tokio::select! {
            message = stream.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    match subscription(&text, &mut subscriptions, &mut subscribed) {
                        Some(answer) => say(&mut stream, answer).await,
                        None => reply(&mut stream, endpoint.reply(text.as_bytes()), &endpoint).await,
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => Next::End,
                Some(Ok(_)) => Next::Talk,
            },
            heads = announcements.recv() => match heads {
                Ok(heads) => announce(&mut stream, &endpoint, &subscriptions, &heads).await,
                Err(RecvError::Lagged(_)) => Next::Talk,
                Err(RecvError::Closed) => Next::End,
            },
        };
        match next {
            Next::Talk => (),
            Next::FallSilent => while let Some(Ok(_)) = stream.next().await {},
            Next::End => return,
        }
    }
}

/// Answers what is about subscriptions.
fn subscription(
    text: &str,
    subscriptions: &mut Vec<String>,
    subscribed: &mut u64,
) -> Option<String> {
    // Looked at first because messages can be large, and these never are.
    if !text.contains("scribe") {
        return None;
    }
    let call: Value = serde_json::from_str(text).ok()?;
    let result = match (call["method"].as_str()?, call["params"][0].as_str()?) {
        ("eth_subscribe", "newHeads") => {
            *subscribed += 1;
            let id = format!("{subscribed:#034x}");
            subscriptions.push(id.clone());
            json!(id)
        }
        ("eth_unsubscribe", id) => {
            let before = subscriptions.len();
            subscriptions.retain(|subscription| subscription != id);
            json!(subscriptions.len() < before)
        }
        _ => return None,
    };
    Some(json!({ "jsonrpc": "2.0", "id": call["id"], "result": result }).to_string())
}

async fn reply<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut WebSocketStream<S>,
    reply: Reply,
    endpoint: &Endpoint,
) -> Next {
    match reply {
        Reply::Text(text) => match Utf8Bytes::try_from(text) {
            Ok(text) => send(stream, Message::Text(text)).await,
            Err(_) => send(stream, Message::Binary(BROKEN_FRAME.into())).await,
        },
        Reply::Stall => Next::Talk,
        Reply::HangUp | Reply::Status(..) => Next::End,
        Reply::Half(beginning) => {
            // A text of which more is announced than comes.
            let mut frame = vec![0x81, 126, 0xff, 0xff];
            frame.extend_from_slice(&beginning[..beginning.len().min(1000)]);
            let _ = stream.get_mut().write_all(&frame).await;
            endpoint.return_buffer(beginning);
            Next::End
        }
        Reply::Huge(bytes) => say(stream, " ".repeat(bytes as usize)).await,
    }
}

/// Announces blocks to all subscriptions, or does what it does instead.
async fn announce<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut WebSocketStream<S>,
    endpoint: &Endpoint,
    subscriptions: &[String],
    heads: &[B256],
) -> Next {
    if subscriptions.is_empty() {
        return Next::Talk;
    }
    let mut late = Vec::new();
    for hash in heads {
        let Some(mut head) = head(endpoint, *hash) else { continue };
        let lie = match endpoint.liar.is_honest() {
            true => None,
            false => endpoint.liar.lie(Occasion::Notification),
        };
        let Some((lie, mut random)) = lie else {
            late.insert(0, head);
            if let Next::End = tell(stream, subscriptions, late.drain(..)).await {
                return Next::End;
            }
            continue;
        };
        endpoint.liar.told(lie, "a new head");
        let due = match lie {
            Lie::HeadMissing => Vec::new(),
            Lie::HeadTwice => vec![head.clone(), head],
            Lie::HeadLate => {
                late.push(head);
                continue;
            }
            Lie::HeadInvented => {
                invent(&mut head, &mut random);
                vec![head]
            }
            Lie::HeadForeign => {
                let nobody = ["0xdead".to_owned()];
                if let Next::End = tell(stream, &nobody, [head.clone()].into_iter()).await {
                    return Next::End;
                }
                vec![head]
            }
            Lie::BrokenFrame => {
                let _ = stream.get_mut().write_all(BROKEN_FRAME).await;
                vec![head]
            }
            Lie::HalfClosed => {
                if random.random_bool(0.5) {
                    let _ = stream.get_mut().shutdown().await;
                }
                return Next::FallSilent;
            }
            _ => unreachable!("this lie has no place here"),
        };
        if let Next::End = tell(stream, subscriptions, due.into_iter()).await {
            return Next::End;
        }
    }
    tell(stream, subscriptions, late.into_iter()).await
}

/// Notifies all subscriptions of these heads, in this order.
async fn tell<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut WebSocketStream<S>,
    subscriptions: &[String],
    heads: impl Iterator<Item = Value>,
) -> Next {
    for head in heads {
        for id in subscriptions {
            if let Next::End = say(stream, notification(id, &head)).await {
                return Next::End;
            }
        }
    }
    Next::Talk
}

/// A head as it is announced: a header without transactions.
fn head(endpoint: &Endpoint, hash: B256) -> Option<Value> {
    let chain = endpoint.oracle.chain();
    let block = chain.block(hash)?;
    let mut text = Vec::new();
    crate::render::block(&mut text, &chain, block, false);
    let mut head: Value = serde_json::from_slice(&text).expect("what is rendered is JSON");
    let members = head.as_object_mut().expect("a block is an object");
    for absent in ["transactions", "uncles", "withdrawals", "size", "totalDifficulty"] {
        members.remove(absent);
    }
    Some(head)
}

fn invent(head: &mut Value, random: &mut StdRng) {
    head["hash"] = json!(B256::from(random.random::<[u8; 32]>()));
    head["number"] = json!(format!("{:#x}", random.random_range(0..1_000_000)));
}

fn notification(subscription: &str, result: &Value) -> String {
    let params = json!({ "subscription": subscription, "result": result });
    json!({ "jsonrpc": "2.0", "method": "eth_subscription", "params": params }).to_string()
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut WebSocketStream<S>,
    text: String,
) -> Next {
    send(stream, Message::text(text)).await
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut WebSocketStream<S>,
    message: Message,
) -> Next {
    match stream.send(message).await {
        Ok(()) => Next::Talk,
        Err(_) => Next::End,
    }
}
