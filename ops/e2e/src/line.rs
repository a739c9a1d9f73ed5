//! The line between Shepherd and its node, which can be cut.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use url::Url;

/// Passes connections on to the node. While it is cut, those that were open are closed and nobody
/// listens: the node is gone, as far as Shepherd can tell.
pub struct Line {
    here: SocketAddr,
    there: SocketAddr,
    connections: JoinSet<()>,
}

impl Line {
    /// A line to a port of this machine, on a free port.
    pub async fn to(port: u16) -> anyhow::Result<Line> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let mut line = Line {
            here: listener.local_addr()?,
            there: (Ipv4Addr::LOCALHOST, port).into(),
            connections: JoinSet::new(),
        };
        line.listen(listener);
        Ok(line)
    }

    /// Where Shepherd finds the node, by this scheme.
    pub fn url(&self, scheme: &str) -> anyhow::Result<Url> {
        Ok(Url::parse(&format!("{scheme}://{}", self.here))?)
    }

    /// Cuts the line. When this returns, all connections are closed.
    pub async fn cut(&mut self) {
        self.connections.shutdown().await;
    }

    /// Mends it, on the port it had.
    pub async fn mend(&mut self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.here).await?;
        self.listen(listener);
        Ok(())
    }

    fn listen(&mut self, listener: TcpListener) {
        let there = self.there;
        self.connections.spawn(async move {
            // Dropped with this task, and the connections with it.
            let mut open = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                open.spawn(async move {
                    let Ok(mut far) = TcpStream::connect(there).await else { return };
                    // An end that goes away ends the connection, and that is all there is to know.
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
                while open.try_join_next().is_some() {}
            }
        });
    }
}
