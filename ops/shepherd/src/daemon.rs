//! The daemon that has our data directory open, and how it is found and asked.
//!
//! `shepherd run` writes the address of its admin server beside the store. The file may outlive
//! its process, and another process may have taken the port: what answers there is only believed
//! when it says it is the process that wrote the file.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use shepherd_admin::view::{HealthView, ProblemView};
use tokio::runtime::{self, Runtime};

use crate::exit::{Code, Problem};

/// How long the daemon may take to say who it is.
const HEALTH_TIME_MAX: Duration = Duration::from_secs(5);

/// How long it may take to answer; more than it gives itself.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(90);

/// The file's content.
#[derive(Debug, Deserialize, Serialize)]
struct Announcement {
    pid: u32,
    admin: SocketAddr,
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("daemon.json")
}

/// Says where this process can be asked. Called by the holder of the store's lock only.
pub fn announce(data_dir: &Path, admin: SocketAddr) -> io::Result<()> {
    let announcement = Announcement { pid: std::process::id(), admin };
    let text = serde_json::to_vec(&announcement).expect("a struct of plain values");
    let finished = file(data_dir);
    let unfinished = finished.with_extension(format!("{}.tmp", announcement.pid));
    fs::write(&unfinished, text)?;
    fs::rename(unfinished, finished)
}

/// Takes the announcement back.
pub fn withdraw(data_dir: &Path) {
    // What is left behind is found out by whoever asks there.
    let _ = fs::remove_file(file(data_dir));
}

/// A daemon that answered.
pub struct Daemon {
    runtime: Runtime,
    http: reqwest::Client,
    admin: SocketAddr,
}

impl Daemon {
    /// The daemon of this data directory, when one announced itself and answers.
    pub fn find(data_dir: &Path) -> Option<Daemon> {
        let text = fs::read(file(data_dir)).ok()?;
        let Announcement { pid, admin } = serde_json::from_slice(&text).ok()?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build().ok()?;
        // No TLS on loopback, but the client is not built without a provider. An error only says
        // that one is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Loopback never goes through a proxy.
        let http = reqwest::Client::builder().no_proxy().build().ok()?;
        let daemon = Daemon { runtime, http, admin };
        let health: HealthView = daemon.ask("/health", HEALTH_TIME_MAX).ok()?;
        (health.pid == pid).then_some(daemon)
    }

    /// Asks for a path and reads the view it answers with.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        self.ask(path, ANSWER_TIME_MAX)
    }

    fn ask<T: DeserializeOwned>(&self, path: &str, time_max: Duration) -> Result<T, Problem> {
        let failed = |what: &dyn std::fmt::Display| {
            let message = format!("the daemon at http://{} does not answer: {what}", self.admin);
            Problem::new(Code::Failed, message).help("its log says what it is doing")
        };
        let url = format!("http://{}{path}", self.admin);
        let answer = self.runtime.block_on(async {
            let answer = self.http.get(url).timeout(time_max).send().await?;
            let status = answer.status();
            Ok((status, answer.bytes().await?))
        });
        let (status, body) =
            answer.map_err(|error: reqwest::Error| failed(&error.without_url()))?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| failed(&error));
        }
        match serde_json::from_slice::<ProblemView>(&body) {
            Ok(problem) => Err(Problem::new(Code::Failed, problem.detail)),
            Err(_) => Err(failed(&status)),
        }
    }
}
