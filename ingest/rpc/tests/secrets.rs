//! That the key in an endpoint's URL shows nowhere.
//!
//! By itself in its binary: which events are logged is decided once per process, by whichever test
//! comes to them first.

mod server;

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use alloy_primitives::{Address, B256};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::json;
use server::{CHAIN_ID, Fault, Server};
use shepherd_rpc::{Call, ChainRequest, Metrics, Options, Pool};

fn options() -> Options {
    Options {
        rest_min: Duration::from_millis(1),
        rest_max: Duration::from_millis(2),
        ..Options::default()
    }
}

/// Everything that is logged.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_key_in_a_url_never_shows() {
    const KEY: &str = "s3cr3tk3y";
    const PLACES: usize = 9;
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let node = Server::start().await;
    let address = node.url().strip_prefix("http://").unwrap().to_owned();
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let mut shown = String::new();
    let places: [String; PLACES] = [
        format!("http://{address}/{KEY}"),
        format!("http://{address}/v2/{KEY}?apikey={KEY}"),
        format!("http://{KEY}@{address}/"),
        format!("http://user:{KEY}@{address}/"),
        format!("http://{closed}/{KEY}"),
        format!("http://{KEY}.invalid@{closed}/?key={KEY}"),
        format!("ws://{address}/{KEY}"),
        format!("ws://user:{KEY}@{closed}/?key={KEY}"),
        format!("wss://{address}/{KEY}"),
    ];
    for place in places {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let quick = Options { request_timeout: Duration::from_millis(300), ..options() };
        let urls = vec![place.parse().unwrap()];
        let pool = Pool::connect("devnet", CHAIN_ID, urls, quick, &metrics);
        node.play(
            "eth_getLogs",
            Fault::Body(format!(r#"{{"id":0,"error":{{"code":1,"message":"{KEY}"}}}}"#)),
        );
        node.play("eth_call", Fault::Status(502, None));
        let mut heads = pool.heads();
        for method in ["eth_getLogs", "eth_call", "eth_getCode"] {
            let call = Call { method, params: json!([]) };
            match pool.batch(&[call]).await {
                Ok(batch) => shown += &format!("{:?}", batch.answers),
                Err(error) => shown += &format!("{error} {error:?}"),
            }
        }
        node.play("eth_getBalance", Fault::Result(json!(KEY)));
        let balance = [ChainRequest::Balance(Address::ZERO)];
        shown += &format!("{:?}", pool.read(B256::ZERO, &balance).await);
        let _ = tokio::time::timeout(Duration::from_millis(20), heads.announced()).await;
        for _ in 0..2 {
            pool.distrust(pool.endpoints()[0], format!("it answered \"{KEY}\" for a block"));
        }
        shown += &format!("{:?} {:?}", pool.status(), pool.check().await);
        encode(&mut shown, &registry).unwrap();
    }
    assert!(shown.contains(&address) && shown.contains("***"), "{shown}");
    let logged = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("endpoint failed"), "{logged}");
    assert!(shown.contains("it answered \\\"***\\\" for a block"), "{shown}");
    let spoken_of = logged.matches("endpoint distrusted").count();
    assert_eq!(spoken_of, PLACES, "each is spoken of once: {logged}");
    for (what, text) in [("shown", &shown), ("logged", &logged)] {
        if let Some(at) = text.find(KEY) {
            panic!("{what}: {}", &text[at.saturating_sub(300)..text.len().min(at + 100)]);
        }
    }
}
