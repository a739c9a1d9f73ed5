//! Other programs that are measured: how long they run, and the most memory they take.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

/// How often a running program's memory is looked at. The system keeps the peak itself.
const LOOK: Duration = Duration::from_millis(100);

/// How long a program may run. Several times what the slowest of them takes: one that hangs must
/// not keep a machine for a night.
const TIME_MAX: Duration = Duration::from_secs(30 * 60);

/// A program of ours, built beside this one.
pub fn ours(name: &str) -> anyhow::Result<PathBuf> {
    let binary = std::env::current_exe()?.with_file_name(name);
    ensure!(binary.exists(), "{} is missing: build it first", binary.display());
    Ok(binary)
}

/// A program that runs. It is killed when this is dropped.
pub struct Process {
    program: String,
    child: Child,
    started: Instant,
    peak_mib: f64,
    /// Lines that it printed and nobody took yet. Kept to its end: a program that still prints
    /// when nobody listens would end.
    lines: Option<Receiver<String>>,
}

/// What a program took until some moment.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    /// Since its start.
    pub seconds: f64,
    /// The most memory it had resident, in MiB.
    pub peak_mib: f64,
}

/// What became of a program that ended by itself.
pub struct Ended {
    pub status: ExitStatus,
    pub seconds: f64,
    /// The most memory it had resident, in MiB.
    pub peak_mib: f64,
}

impl Process {
    pub fn start(command: &mut Command) -> anyhow::Result<Process> {
        let program = command.get_program().to_string_lossy().into_owned();
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("{program} does not start"))?;
        let lines = child.stdout.take().map(|output| {
            let (sender, lines) = mpsc::channel();
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    // Nobody listens any more.
                    let _ = sender.send(line);
                }
            });
            lines
        });
        Ok(Process { program, child, started, peak_mib: 0.0, lines })
    }

    /// The next line of its standard output, which must be kept, that `wanted` makes something of.
    pub fn read_line<T>(&mut self, wanted: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        let lines = self.lines.as_ref().context("its output is kept")?;
        loop {
            let left = TIME_MAX.saturating_sub(self.started.elapsed());
            let line = lines
                .recv_timeout(left)
                .with_context(|| format!("{} did not say what was waited for", self.program))?;
            if let Some(found) = wanted(&line) {
                return Ok(found);
            }
        }
    }

    /// What it took so far.
    pub fn ran(&mut self) -> Ran {
        self.look();
        Ran { seconds: self.started.elapsed().as_secs_f64(), peak_mib: self.peak_mib }
    }

    /// What it has resident now, in MiB.
    pub fn resident_mib(&self) -> anyhow::Result<f64> {
        memory_mib(self.child.id(), "VmRSS")
    }

    /// An error once it has ended, or has run for too long.
    pub fn ensure_running(&mut self) -> anyhow::Result<()> {
        let Process { program, child, started, .. } = self;
        if let Some(status) = child.try_wait()? {
            anyhow::bail!("{program} ended: {status}");
        }
        ensure!(started.elapsed() < TIME_MAX, "{program} is not done after {TIME_MAX:?}");
        Ok(())
    }

    /// Waits until it ends.
    pub fn wait(mut self) -> anyhow::Result<Ended> {
        let status = loop {
            self.look();
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            let program = &self.program;
            ensure!(self.started.elapsed() < TIME_MAX, "{program} is not done after {TIME_MAX:?}");
            thread::sleep(LOOK);
        };
        let seconds = self.started.elapsed().as_secs_f64();
        Ok(Ended { status, seconds, peak_mib: self.peak_mib })
    }

    /// Kills it with -9 after a while, unless it has ended by then. Says whether it was killed.
    pub fn kill_after(mut self, while_: Duration) -> anyhow::Result<bool> {
        while self.started.elapsed() < while_ {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "it failed: {status}");
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.kill()?;
        Ok(true)
    }

    /// Kills it with -9.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(self) -> anyhow::Result<()> {
        let asked = Command::new("kill").arg(self.child.id().to_string()).status()?;
        ensure!(asked.success(), "{} cannot be asked to end: {asked}", self.program);
        self.wait().map(drop)
    }

    /// Notes the peak of its memory so far, while it still runs.
    fn look(&mut self) {
        // It may have ended since.
        let peak = memory_mib(self.child.id(), "VmHWM").unwrap_or_default();
        self.peak_mib = self.peak_mib.max(peak);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line of a running program's memory statistics, such as `VmHWM` for the peak, in MiB.
fn memory_mib(pid: u32, field: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(field)).context("it is listed")?;
    let kib = line.split_whitespace().nth(1).context("it has a number")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}
