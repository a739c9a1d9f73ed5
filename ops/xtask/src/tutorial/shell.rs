//! The terminals of somebody who follows the tutorial.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{ChildStdout, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};

use crate::{
    children::{Event, Program, Signals},
    shell::forget_ourselves,
};

/// Ends what a person ends by Ctrl-C.
pub fn unless_interrupted(event: Event) -> anyhow::Result<()> {
    ensure!(event != Event::Interrupted, "interrupted");
    Ok(())
}

/// A shell that goes on from block to block.
///
/// Each block is a process of its own, so that it can be given up as a whole; what the next one
/// needs to know of it, its folder and its variables, is written down at its end.
pub struct Shell {
    root: PathBuf,
    /// Commands that bring back variables and the folder.
    state: PathBuf,
    /// The folder alone.
    folder: PathBuf,
}

/// How a block ended.
pub struct Ended {
    /// Whether all its commands succeeded.
    pub success: bool,
    /// What they wrote, errors included.
    pub output: String,
}

impl Shell {
    /// Opens a shell in the checkout, which keeps its notes in a folder.
    pub fn open(root: &Path, notes: &Path) -> anyhow::Result<Shell> {
        let (state, folder) = (notes.join("state"), notes.join("folder"));
        fs::write(&state, "")?;
        fs::write(&folder, root.as_os_str().as_encoded_bytes())?;
        Ok(Shell { root: root.to_owned(), state, folder })
    }

    /// A path that is relative to the shell's folder.
    pub fn path(&self, file: &str) -> anyhow::Result<PathBuf> {
        let folder = fs::read_to_string(&self.folder)?;
        Ok(Path::new(folder.trim_end_matches('\n')).join(file))
    }

    /// Runs a block to its end, showing what it prints. A block that takes longer is killed with
    /// all it has started, and an error.
    pub fn run(&self, script: &str, signals: &Signals, at_most: Duration) -> anyhow::Result<Ended> {
        self.execute(script, Output::show(""), signals, at_most)
    }

    /// The same, without showing anything.
    pub fn run_quietly(
        &self,
        script: &str,
        signals: &Signals,
        at_most: Duration,
    ) -> anyhow::Result<Ended> {
        self.execute(script, |_| (), signals, at_most)
    }

    fn execute(
        &self,
        script: &str,
        each_line: impl Fn(&str) + Send + 'static,
        signals: &Signals,
        at_most: Duration,
    ) -> anyhow::Result<Ended> {
        let script = format!(
            ". \"$TUTORIAL_STATE\"\n{script}\n\
             {{ export -p; printf 'cd %q\\n' \"$PWD\"; }} > \"$TUTORIAL_STATE\"\n\
             printf '%s\\n' \"$PWD\" > \"$TUTORIAL_FOLDER\"\n"
        );
        let mut command = bash(&self.root, &script);
        command.env("TUTORIAL_STATE", &self.state).env("TUTORIAL_FOLDER", &self.folder);
        let mut block = Program::start("the block", &mut command)?;
        let output = Output::collect(block.stdout(), each_line);
        let deadline = Instant::now() + at_most;
        let status = loop {
            if let Some(status) = block.ended()? {
                break status;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the block took longer than {} s", at_most.as_secs());
            }
            unless_interrupted(signals.wait(left.min(Duration::from_secs(1))))?;
        };
        Ok(Ended { success: status.success(), output: output.all() })
    }
}

/// A terminal of its own, with a program that stays.
pub struct Terminal {
    name: String,
    program: Program,
    output: Output,
}

impl Terminal {
    /// Opens a terminal in the checkout. It knows nothing of what other ones were told.
    pub fn open(root: &Path, name: &str, script: &str) -> anyhow::Result<Terminal> {
        let script = script.trim_end();
        let (before, last) = script.rsplit_once('\n').unwrap_or(("", script));
        // The shell becomes the program, so that a signal reaches it and we see how it ends.
        let mut command = bash(root, &format!("{before}\nexec {last}\n"));
        let mut program = Program::start(name, &mut command)?;
        let output = Output::collect(program.stdout(), Output::show(&format!("{name}: ")));
        Ok(Terminal { name: name.to_owned(), program, output })
    }

    /// What the document calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything it has shown so far.
    pub fn output(&self) -> String {
        self.output.so_far()
    }

    /// How its program ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.program.ended()
    }

    /// Presses Ctrl-C. The program must end well.
    pub fn interrupt(self, signals: &Signals, patience: Duration) -> anyhow::Result<()> {
        self.program.end(signals, patience)
    }
}

/// A shell in the checkout that stops at the first command that fails, with the environment of a
/// person's terminal.
fn bash(root: &Path, script: &str) -> Command {
    let mut command = Command::new("bash");
    command
        .args(["--noprofile", "--norc", "-c"])
        .arg(format!("set -euo pipefail\nexec 2>&1\n{script}"))
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // The document says `target/debug`, and what is compiled once is compiled.
        .env("CARGO_TARGET_DIR", root.join("target"))
        .env("CARGO_TERM_COLOR", "never");
    for ours in ["SHEPHERD_CONFIG", "RUST_LOG", "RUST_BACKTRACE", "BASH_ENV"] {
        command.env_remove(ours);
    }
    forget_ourselves(&mut command);
    command
}

/// What a program writes: passed on line by line, and kept.
struct Output {
    text: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Output {
    fn collect(pipe: ChildStdout, each_line: impl Fn(&str) + Send + 'static) -> Output {
        let text = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&text);
        let reader = thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n') {
                let Ok(line) = line else { return };
                let line = String::from_utf8_lossy(&line);
                each_line(&line);
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        Output { text, reader }
    }

    /// Shows a line to whoever follows the follower.
    fn show(prefix: &str) -> impl Fn(&str) + Send + use<> {
        let prefix = prefix.to_owned();
        // Nobody who reads along is no reason to stop.
        move |line| drop(writeln!(io::stdout(), "  {prefix}{line}"))
    }

    fn so_far(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything, once the program and all it has started have ended.
    fn all(self) -> String {
        let _ = self.reader.join();
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.clone()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_shell_remembers_and_a_terminal_stays() -> anyhow::Result<()> {
        let folder = std::env::temp_dir().join(format!("tutorial-shell-{}", std::process::id()));
        fs::create_dir_all(folder.join("in side"))?;
        let signals = Signals::take_over()?;
        let shell = Shell::open(&folder, &folder)?;
        let run = |script: &str, seconds| shell.run(script, &signals, Duration::from_secs(seconds));
        assert!(run("cd 'in side'\nexport WORD='two words'\nlocal=1", 60)?.success);
        let said = run("echo \"$WORD ${local-forgotten}\"\npwd >&2", 60)?.output;
        assert!(said.starts_with("two words forgotten\n/"), "{said}");
        assert!(said.ends_with("/in side\n"), "{said}");
        assert!(!run("cd /\nfalse\necho unseen", 60)?.success);
        assert!(shell.path("a")?.ends_with("in side/a"));
        let error = run("sleep 600", 0).err().context("it takes longer")?;
        assert!(error.to_string().contains("longer than 0 s"), "{error}");

        let script = "echo ready\nsleep 600";
        let mut terminal = Terminal::open(&folder, "beside", script)?;
        while terminal.output() != "ready\n" {
            assert_eq!(terminal.ended()?, None);
            signals.wait(Duration::from_millis(10));
        }
        let error = terminal.interrupt(&signals, Duration::from_secs(60)).unwrap_err();
        assert!(error.to_string().contains("beside ended with"), "{error}");
        Ok(fs::remove_dir_all(&folder)?)
    }
}
