//! A receiver that answers from a script, and remembers what it was sent.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::{
    io::AsyncWriteExt,
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::wire::message;

/// One request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub head: String,
    pub body: String,
}

impl Received {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// A scripted server. Dropping it closes its connections.
pub struct Hook {
    address: std::net::SocketAddr,
    received: watch::Receiver<Vec<Received>>,
    answers: Arc<Semaphore>,
    _tasks: JoinSet<()>,
}

/// What makes an answer of a request.
pub type Answer = Box<dyn FnMut(&Received) -> String + Send>;

/// An answer with this status, further headers and body.
pub fn answer(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} Scripted\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
}

impl Hook {
    /// Answers with these, then with 200.
    pub async fn scripted<const N: usize>(answers: [String; N]) -> Hook {
        let mut answers = VecDeque::from(answers);
        Hook::answering(Box::new(move |_| answers.pop_front().unwrap_or(answer(200, "", "")))).await
    }

    pub async fn answering(answers: Answer) -> Hook {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (sender, received) = watch::channel(Vec::new());
        let (sender, script) = (Arc::new(sender), Arc::new(Mutex::new(answers)));
        let permits = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let answering = permits.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let (sender, script) = (sender.clone(), script.clone());
                let permits = answering.clone();
                connections.spawn(async move {
                    let mut unread = Vec::new();
                    while let Some((head, body)) = message(&mut stream, &mut unread).await {
                        let body = String::from_utf8(body).expect("text");
                        let one = Received { head, body };
                        sender.send_modify(|received| received.push(one.clone()));
                        permits.acquire().await.expect("it is never closed").forget();
                        let answer = script.lock().expect("nothing panics")(&one);
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Hook { address, received, answers: permits, _tasks: tasks }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Everything it was sent so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.borrow().clone()
    }

    /// Returns once it was sent so many requests.
    pub async fn until(&self, count: usize) -> Vec<Received> {
        let mut received = self.received.clone();
        received.wait_for(|received| count <= received.len()).await.expect("it runs").clone()
    }

    /// Answers nothing until it may.
    pub fn hold(&self) {
        self.answers.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Gives so many answers.
    pub fn release(&self, answers: usize) {
        self.answers.add_permits(answers);
    }
}
