//! Other programs that are measured: how long they run, and the most memory they take.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

/// How often a running program's memory is looked at. The system keeps the peak itself.
const LOOK: Duration = Duration::from_millis(100);

/// A program of ours, built beside this one.
pub fn ours(name: &str) -> anyhow::Result<PathBuf> {
    let binary = std::env::current_exe()?.with_file_name(name);
    ensure!(binary.exists(), "{} is missing: build it first", binary.display());
    Ok(binary)
}

/// A line of a running program's memory statistics, such as `VmHWM` for the peak, in MiB.
pub fn memory_mib(pid: u32, field: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(field)).context("it is listed")?;
    let kib = line.split_whitespace().nth(1).context("it has a number")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}

/// A program that runs. It is killed when this is dropped.
pub struct Process {
    child: Child,
    started: Instant,
    peak_mib: f64,
    /// Kept open once it was read from: a program that still prints would end.
    output: Option<BufReader<ChildStdout>>,
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
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("{program} does not start"))?;
        Ok(Process { child, started, peak_mib: 0.0, output: None })
    }

    /// The first line of its standard output that `wanted` makes something of.
    pub fn read_line<T>(&mut self, wanted: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        let output = self.child.stdout.take().context("its output is kept")?;
        let output = self.output.insert(BufReader::new(output));
        for line in output.lines() {
            if let Some(found) = wanted(&line?) {
                return Ok(found);
            }
        }
        anyhow::bail!("it ended without saying what was waited for")
    }

    /// Waits until it ends.
    pub fn wait(mut self) -> anyhow::Result<Ended> {
        let status = loop {
            self.look();
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
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
        self.child.kill()?;
        self.child.wait()?;
        Ok(true)
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
