//! Wake-ups: somebody says that there is a new head.
//!
//! A subscription loses items when it lags and while it reconnects, and its node may be behind
//! the one we ask for data. So what it says is not used, only that it spoke; who waits for it
//! also looks by itself from time to time. A connection that broke without a word is silent like
//! a chain that stands still, so after a long silence it is made anew.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{broadcast::error::RecvError, watch},
    task::JoinSet,
    time::timeout,
};

use crate::{
    Backoff, Failure, Options, Redacted, Throttle,
    identity::{self, Identity},
    wire::Reply,
    ws::Ws,
};

/// Wake-ups from all WebSocket endpoints of a chain. Dropping it ends the subscriptions.
pub struct Heads {
    announced: watch::Receiver<()>,
    /// One per endpoint. They end with this set.
    subscriptions: JoinSet<()>,
}

impl Heads {
    /// Returns when a new head was announced since the last time this returned; never, on a
    /// chain without WebSocket endpoints.
    pub async fn announced(&mut self) {
        tokio::select! {
            announced = self.announced.changed() => match announced {
                Ok(()) => (),
                Err(_) => std::future::pending().await,
            },
            Some(Err(ended)) = self.subscriptions.join_next() => {
                std::panic::resume_unwind(ended.into_panic());
            }
        }
    }
}

pub(crate) fn subscribe(
    websockets: Vec<(String, Redacted)>,
    identity: &Arc<Identity>,
    options: &Options,
) -> Heads {
    let (announce, announced) = watch::channel(());
    let mut subscriptions = JoinSet::new();
    for (endpoint, url) in websockets {
        let ws = Ws::new(url, options);
        let backoff = Backoff::new(options.rest_min, options.rest_max);
        let silence_max = options.head_silence_max;
        let announce = announce.clone();
        let identity = identity.clone();
        subscriptions.spawn(async move {
            listen(&endpoint, &ws, &identity, backoff, silence_max, announce).await;
        });
    }
    Heads { announced, subscriptions }
}

/// Keeps one endpoint's subscription alive.
async fn listen(
    endpoint: &str,
    ws: &Ws,
    identity: &Identity,
    mut backoff: Backoff,
    silence_max: Duration,
    announce: watch::Sender<()>,
) {
    let mut warnings = Throttle::new(Duration::from_secs(30));
    loop {
        let failure = match subscription(ws, identity).await {
            Ok(mut heads) => {
                tracing::debug!(endpoint, "subscribed to new heads");
                // What happened before we listened is announced as one.
                announce.send_replace(());
                let is_silent = loop {
                    match timeout(silence_max, heads.recv()).await {
                        Ok(Ok(_) | Err(RecvError::Lagged(_))) => announce.send_replace(()),
                        Ok(Err(RecvError::Closed)) => break false,
                        Err(_) => break true,
                    };
                    backoff.reset();
                };
                if is_silent {
                    tracing::debug!(endpoint, ?silence_max, "no new heads; subscribing again");
                    ws.disconnect().await;
                    continue;
                }
                Failure::Unreachable { reason: "the subscription ended".to_owned() }
            }
            Err(failure) => failure,
        };
        ws.disconnect().await;
        if let Some(unsaid) = warnings.admit(Instant::now()) {
            tracing::warn!(endpoint, %failure, unsaid, "no new-head subscription; polling goes on");
        }
        tokio::time::sleep(backoff.next_wait()).await;
    }
}

/// Subscribes at an endpoint that serves our chain.
async fn subscription(
    ws: &Ws,
    identity: &Identity,
) -> Result<alloy::pubsub::RawSubscription, Failure> {
    let questions = identity::questions();
    let Reply::Answers(answers) = ws.send(&questions.iter().collect::<Vec<_>>()).await? else {
        return Err(Failure::Malformed { reason: "no answers".to_owned() });
    };
    let answers: Vec<_> = answers.into_iter().flatten().collect();
    let sighting = identity::sighting(&answers).map_err(|failure| ws.scrubbed(failure))?;
    identity.accept(&sighting).map_err(Failure::WrongChain)?;
    ws.subscribe().await
}

#[cfg(test)]
mod tests {
    use futures::{SinkExt, StreamExt};
    use serde_json::{Value, json};
    use tokio_tungstenite::{accept_async, tungstenite::Message};

    use super::*;

    #[tokio::test]
    async fn what_is_wrong_with_a_subscription_is_told_without_the_key() {
        const KEY: &str = "s3cr3tk3y";
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/{KEY}", listener.local_addr().unwrap());
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut socket = accept_async(stream).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                let call: Value = serde_json::from_slice(&message.into_data()).unwrap();
                let answer = json!({ "jsonrpc": "2.0", "id": call["id"], "result": KEY });
                socket.send(Message::text(answer.to_string())).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let ws = Ws::new(url.parse().unwrap(), &Options::default());
        let identity = Identity::new(1);
        let failure = tokio::select! {
            subscribed = subscription(&ws, &identity) => subscribed.err().unwrap(),
            () = server => unreachable!("the server goes on"),
        };
        let shown = format!("{failure} {failure:?}");
        assert!(shown.contains("***") && !shown.contains(KEY), "{shown}");
    }
}
