//! A node that is further away: a loopback proxy that holds back every byte for a while.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// Chunks of bytes that are on their way in one direction of one connection.
///
/// Each is at most [`CHUNK_BYTES`], so a line that is full holds 64 MiB: as if it had no limit.
const ON_THE_WAY_MAX: usize = 1024;

const CHUNK_BYTES: usize = 64 << 10;

/// The way to a server on this machine, made longer. Dropping it closes its connections.
pub struct Distance {
    port: u16,
    _connections: JoinSet<()>,
}

impl Distance {
    /// Puts a server `round_trip` away. It has to be on the loopback interface.
    pub async fn to(server: u16, round_trip: Duration) -> anyhow::Result<Distance> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(connect(near, server, round_trip / 2));
            }
        });
        Ok(Distance { port, _connections: accepting })
    }

    /// Where the server is now.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Carries bytes both ways until one side ends, which is what ends the other.
async fn connect(near: TcpStream, server: u16, delay: Duration) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    for stream in [&near, &far] {
        let _ = stream.set_nodelay(true);
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::join!(carry(near_read, far_write, delay), carry(far_read, near_write, delay));
}

/// Carries bytes one way, each chunk `delay` later.
async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    delay: Duration,
) {
    let (sent, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY_MAX);
    let reading = async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            if sent.send((Instant::now() + delay, chunk[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((at, chunk)) = arriving.recv().await {
            sleep_until(at).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}
