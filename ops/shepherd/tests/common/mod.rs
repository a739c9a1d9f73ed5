//! A folder with a configuration, and the real binary run in it.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;
use shepherd_devnet::{Anvil, Options, Process, Signal};
use tempfile::TempDir;

/// An address where nothing listens: port 1 is reserved and nobody uses it.
pub const NOWHERE: &str = "http://127.0.0.1:1";

/// Far longer than anything here takes. A test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder in which `shepherd` is run.
pub struct Folder {
    dir: TempDir,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Folder {
    /// A folder whose shepherd.toml follows one chain, `devnet`, through this endpoint.
    pub fn new(endpoint: &str) -> Folder {
        Folder::with_config(&config(endpoint))
    }

    pub fn with_config(text: &str) -> Folder {
        let folder = Folder { dir: TempDir::new().unwrap() };
        folder.write("shepherd.toml", text);
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Adds lines to shepherd.toml.
    pub fn configure(&self, more: &str) {
        let text = fs::read_to_string(self.path("shepherd.toml")).unwrap();
        self.write("shepherd.toml", text + more);
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shepherd"));
        command.args(args).current_dir(self.dir.path());
        // What the developer's shell has set must not decide a test.
        command.env_remove("RUST_LOG").env_remove("SHEPHERD_CONFIG").env_remove("RUST_BACKTRACE");
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Ended {
        let output = self.command(args).stdin(Stdio::null()).output().unwrap();
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs a command that must succeed and reads what it prints as JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let ended = self.run(args);
        assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
        serde_json::from_str(&ended.stdout).unwrap()
    }

    /// Expects a command to end with this code and exactly one error, whose message contains all
    /// of `parts`.
    #[track_caller]
    pub fn fails(&self, args: &[&str], code: i32, parts: &[&str]) -> Ended {
        let ended = self.run(args);
        assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
        let errors = ended.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, 1, "{}", ended.stderr);
        for part in parts {
            assert!(ended.stderr.contains(part), "`{part}` is not in\n{}", ended.stderr);
        }
        for noise in ["panicked", "stack backtrace", "RUST_BACKTRACE"] {
            assert!(!ended.stderr.contains(noise), "{}", ended.stderr);
        }
        ended
    }

    /// Starts `shepherd run` and returns once it is at work.
    pub fn start(&self) -> Daemon {
        Daemon::spawn(self.command(&["run"])).started()
    }
}

/// A configuration without modules whose admin server takes a free port.
pub fn config(endpoint: &str) -> String {
    format!(
        "data_dir = \"data\"
admin = {{ listen = \"127.0.0.1:0\" }}
chains.devnet.chain_id = 31337
chains.devnet.endpoints = [\"{endpoint}\"]
chains.devnet.start_block = 0
chains.devnet.poll_interval = \"50ms\"
"
    )
}

/// A running `shepherd run`, or another command that goes on. Dropping it kills it.
pub struct Daemon {
    process: Process,
    lines: Receiver<String>,
    stderr: JoinHandle<String>,
    /// Everything it has written to standard output so far, as far as it was waited for.
    pub said: String,
}

impl Daemon {
    pub fn spawn(mut command: Command) -> Daemon {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (process, pipes) = Process::spawn(command).unwrap();
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(pipes.stdout.unwrap());
        thread::spawn(move || {
            for line in stdout.lines() {
                if sender.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        let mut stderr = pipes.stderr.unwrap();
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        Daemon { process, lines, stderr, said: String::new() }
    }

    /// Itself, once it is at work.
    pub fn started(mut self) -> Daemon {
        self.wait_for("started");
        self
    }

    /// The next line it writes, or `None` when it has ended.
    pub fn next_line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                self.said += &format!("{line}\n");
                Some(line)
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("nothing came after\n{}", self.said),
        }
    }

    /// Reads its log up to the first line with this message.
    pub fn wait_for(&mut self, message: &str) -> Value {
        while let Some(line) = self.next_line() {
            let line: Value = serde_json::from_str(&line).expect("a log line is JSON");
            if line["message"] == message {
                return line;
            }
        }
        panic!("it ended before it said `{message}`:\n{}", self.said)
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end. Standard output is everything since the start.
    pub fn end(mut self) -> Ended {
        while self.next_line().is_some() {}
        let status: ExitStatus = block_on(self.process.exited());
        let stderr = self.stderr.join().unwrap();
        Ended { code: status.code(), stdout: self.said, stderr }
    }

    /// Sends SIGTERM and expects a graceful end.
    pub fn stop(self) -> Ended {
        self.signal(Signal::Terminate);
        let ended = self.end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended
    }
}

/// An anvil that mines when it is told to, on a chain of this id.
pub fn anvil(chain_id: u64) -> Anvil {
    block_on(Anvil::start(Options { chain_id, ..Options::default() })).unwrap()
}

pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    // One runtime for the whole test binary: anvil's clients live on the one they were made on.
    static RUNTIME: std::sync::LazyLock<tokio::runtime::Runtime> = std::sync::LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
    });
    RUNTIME.block_on(work)
}

/// Waits until the daemon has journaled this block, and gives its record.
pub fn journaled(folder: &Folder, number: u64) -> Value {
    let mut tail = Daemon::spawn(folder.command(&["journal", "tail", "--follow", "--json"]));
    loop {
        let Some(line) = tail.next_line() else {
            panic!("it follows for as long as the daemon runs: {:?}", tail.end());
        };
        let record: Value = serde_json::from_str(&line).unwrap();
        if record["number"] == number {
            return record;
        }
    }
}

/// The manifest of one of our modules, and the sha256 of its component.
pub fn module(name: &str) -> (PathBuf, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let manifest = root.join("modules").join(name).join("module.toml");
    let ended = Command::new(env!("CARGO_BIN_EXE_shepherd"))
        .args(["module", "inspect", "--json"])
        .arg(&manifest)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{stderr}\nrun `cargo xtask guests` first");
    let view: Value = serde_json::from_slice(&ended.stdout).unwrap();
    (manifest, view["sha256"].as_str().unwrap().to_owned())
}

/// The lines of shepherd.toml that add a module.
pub fn module_entry(name: &str) -> String {
    let (manifest, sha256) = module(name);
    format!("[[modules]]\nmanifest = {manifest:?}\nsha256 = \"{sha256}\"\n")
}
