//! JSON-RPC over WebSocket, on alloy's transport.
//!
//! Left alone, alloy reconnects in silence, and the node behind the new connection may be on
//! another chain. [`Once`] takes that away: a broken connection ends, the next use opens a new
//! one, and that one is asked who it is.

use std::{error::Error, time::Duration};

use alloy::{
    pubsub::{ConnectionHandle, PubSubConnect, RawSubscription},
    rpc::client::RpcClient,
    transports::{
        self, TransportErrorKind, TransportResult,
        ws::{WebSocketConfig, WsConnect},
    },
};
use alloy_primitives::B256;
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use serde_json::value::RawValue;
use tokio::{sync::Mutex, time::timeout};

use crate::{Answer, Call, Failure, Options, Redacted, RpcError, in_words, wire::Reply};

/// A WebSocket endpoint: at most one connection, opened when it is needed.
pub(crate) struct Ws {
    url: Redacted,
    connect_timeout: Duration,
    request_timeout: Duration,
    body_bytes_max: u64,
    connection: Mutex<Option<RpcClient>>,
}

impl Ws {
    pub(crate) fn new(url: Redacted, options: &Options) -> Ws {
        Ws {
            url,
            connect_timeout: options.connect_timeout,
            request_timeout: options.request_timeout,
            body_bytes_max: options.body_bytes_max,
            connection: Mutex::new(None),
        }
    }

    /// A failure, safe to show.
    pub(crate) fn scrubbed(&self, failure: Failure) -> Failure {
        failure.scrubbed(&self.url)
    }

    /// Closes the connection: the next use opens a new one.
    pub(crate) async fn disconnect(&self) {
        *self.connection.lock().await = None;
    }

    /// Sends the calls one after the other, which on a WebSocket costs nothing, and waits for
    /// all answers. Together they may be as large as one.
    pub(crate) async fn send(&self, calls: &[&Call]) -> Result<Reply, Failure> {
        let client = self.connected().await?;
        timeout(self.request_timeout, self.answers(&client, calls)).await.map_err(|_| {
            Failure::TimedOut { reason: format!("no answer in {:?}", self.request_timeout) }
        })?
    }

    async fn answers(&self, client: &RpcClient, calls: &[&Call]) -> Result<Reply, Failure> {
        let asking = calls.iter().enumerate().map(|(position, call)| {
            let request = client.request::<_, Box<RawValue>>(call.method, call.params.clone());
            request.into_future().map(move |answer| (position, answer))
        });
        let mut asking: FuturesUnordered<_> = asking.collect();
        let mut reply = vec![None; calls.len()];
        let mut bytes = 0;
        while let Some((position, answer)) = asking.next().await {
            let answer = self.outcome(answer)?;
            bytes += answer.as_ref().map_or(0, |answer| answer.len_bytes() as u64);
            if bytes > self.body_bytes_max {
                return Err(Failure::TooLarge { limit_bytes: self.body_bytes_max });
            }
            reply[position] = Some(answer);
        }
        Ok(Reply::Answers(reply))
    }

    /// Subscribes to new heads.
    pub(crate) async fn subscribe(&self) -> Result<RawSubscription, Failure> {
        let client = self.connected().await?;
        let subscribed = async {
            let mut call = client.request::<_, B256>("eth_subscribe", ["newHeads"]);
            call.set_is_subscription();
            let id = call.await?;
            match client.pubsub_frontend() {
                Some(frontend) => frontend.get_subscription(id).await,
                None => Err(TransportErrorKind::pubsub_unavailable()),
            }
        };
        match timeout(self.request_timeout, subscribed).await {
            Ok(subscription) => subscription.map_err(|error| self.failure(&error)),
            Err(_) => Err(Failure::TimedOut { reason: "subscribing".to_owned() }),
        }
    }

    async fn connected(&self) -> Result<RpcClient, Failure> {
        let mut connection = self.connection.lock().await;
        if let Some(client) = &*connection {
            return Ok(client.clone());
        }
        let limit = usize::try_from(self.body_bytes_max).unwrap_or(usize::MAX);
        let config =
            WebSocketConfig::default().max_message_size(Some(limit)).max_frame_size(Some(limit));
        let connect = Once(WsConnect::new(self.url.secret().as_str()).with_config(config));
        // Connecting happens once and takes a future of many kilobytes. Inside of ours it would be
        // part of every future that asks a pool for anything, and those are nested deeply enough
        // to overflow a worker's stack where nothing is optimised.
        let connecting = Box::pin(RpcClient::connect_pubsub(connect));
        let client = timeout(self.connect_timeout, connecting)
            .await
            .map_err(|_| Failure::TimedOut { reason: "connecting".to_owned() })?
            .map_err(|error| self.failure(&error))?;
        Ok(connection.insert(client).clone())
    }

    fn outcome(
        &self,
        answer: TransportResult<Box<RawValue>>,
    ) -> Result<Result<Answer, RpcError>, Failure> {
        match answer {
            Ok(json) => Ok(Ok(Answer::from_raw(json))),
            Err(transports::RpcError::ErrorResp(error)) => Ok(Err(RpcError {
                code: error.code,
                message: self.url.scrub(&error.message),
                data: error.data.and_then(|data| serde_json::from_str(data.get()).ok()),
            })),
            Err(transports::RpcError::NullResp) => Ok(Ok(Answer::null())),
            Err(error) => Err(self.failure(&error)),
        }
    }

    fn failure(&self, error: &(dyn Error + 'static)) -> Failure {
        Failure::Unreachable { reason: self.url.scrub(&in_words(error)) }
    }
}

/// A connector that connects once.
struct Once(WsConnect);

impl PubSubConnect for Once {
    fn is_local(&self) -> bool {
        self.0.is_local()
    }

    async fn connect(&self) -> TransportResult<ConnectionHandle> {
        self.0.connect().await
    }

    async fn try_reconnect(&self) -> TransportResult<ConnectionHandle> {
        Err(TransportErrorKind::non_retryable_str("the connection ended"))
    }
}
