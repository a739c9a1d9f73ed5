//! A child process that never outlives its owner.
//!
//! Tests are killed, time out and panic; a node that stays behind then holds a port and a core
//! until someone notices. So each child has one thread of ours that starts it, waits for it and
//! reaps it, and Linux ends the child when that thread is gone for any reason.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::{io, mem, thread};

use anyhow::Context;
use tokio::sync::watch;

/// A running child. Dropping it kills the child and returns once it is gone.
#[derive(Debug)]
pub struct Process {
    pid: libc::pid_t,
    /// Held while a signal is sent and while the child is reaped: a signal can never reach
    /// another process that was given the same id.
    reaped: Arc<Mutex<bool>>,
    exited: watch::Receiver<Option<ExitStatus>>,
    keeper: Option<JoinHandle<()>>,
}

/// The pipes of a child, as its [`Command`] asked for them.
#[derive(Debug)]
pub struct Pipes {
    /// Piped standard output.
    pub stdout: Option<std::process::ChildStdout>,
    /// Piped standard error.
    pub stderr: Option<std::process::ChildStderr>,
}

/// What a child is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C: finish and leave.
    Interrupt,
    /// What a service manager sends: finish and leave.
    Terminate,
    /// kill -9: gone at once, nothing is written any more.
    Kill,
    /// Stop running, keep memory and sockets: what a hanging node looks like from outside.
    Freeze,
    /// Go on after [`Signal::Freeze`].
    Thaw,
}

impl Process {
    /// Starts `command` in a process group of its own, so that Ctrl-C on a terminal reaches
    /// the owner alone, who then ends its children in an order that makes sense.
    pub fn spawn(mut command: Command) -> anyhow::Result<(Process, Pipes)> {
        command.process_group(0);
        die_with_parent_thread(&mut command);
        let program = command.get_program().to_owned();
        let (started, start) = std::sync::mpsc::channel();
        let (report, exited) = watch::channel(None);
        let reaped = Arc::new(Mutex::new(false));
        let keeper = thread::Builder::new().name("child-keeper".to_owned()).spawn({
            let reaped = Arc::clone(&reaped);
            move || {
                let mut child = match command.spawn() {
                    Ok(child) => child,
                    Err(error) => return drop(started.send(Err(error))),
                };
                let pid = child.id() as libc::pid_t;
                let pipes = Pipes { stdout: child.stdout.take(), stderr: child.stderr.take() };
                // The owner waits on the other end until this is sent.
                let _ = started.send(Ok((pid, pipes)));
                wait_without_reaping(pid, 0);
                let mut reaped = reaped.lock().expect("nothing panics while it is held");
                let status = child.wait().expect("our own child, not reaped before");
                *reaped = true;
                drop(reaped);
                report.send_replace(Some(status));
            }
        })?;
        let (pid, pipes) = start
            .recv()
            .expect("the keeper reports before it ends")
            .with_context(|| format!("starting {}", program.display()))?;
        Ok((Process { pid, reaped, exited, keeper: Some(keeper) }, pipes))
    }

    /// The child's process id.
    pub fn pid(&self) -> u32 {
        self.pid as u32
    }

    /// How the child ended, if it has.
    pub fn status(&self) -> Option<ExitStatus> {
        *self.exited.borrow()
    }

    /// Sends a signal to the child; a child that is already gone is left in peace. When
    /// [`Signal::Freeze`] returns, no thread of the child runs.
    pub fn signal(&self, signal: Signal) {
        let reaped = self.reaped.lock().expect("nothing panics while it is held");
        if *reaped {
            return;
        }
        // SAFETY: `kill` touches no memory of ours, and the lock keeps the id ours.
        let _ = unsafe { libc::kill(self.pid, signal.number()) };
        if signal == Signal::Freeze {
            // The threads of a child stop one after the other; only then is it frozen.
            wait_without_reaping(self.pid, libc::WSTOPPED);
        }
    }

    /// Whether the child has asked to handle a signal itself. Before that, Ctrl-C just ends it,
    /// and whatever it would have saved is lost.
    #[cfg(target_os = "linux")]
    pub fn handles(&self, signal: Signal) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid));
        status.is_ok_and(|status| caught(&status).is_some_and(|set| set & signal.bit() != 0))
    }

    /// Elsewhere there is no way to ask.
    #[cfg(not(target_os = "linux"))]
    pub fn handles(&self, _: Signal) -> bool {
        true
    }

    /// Waits until the child is gone and says how it ended.
    pub async fn exited(&mut self) -> ExitStatus {
        let status = self.exited.wait_for(Option::is_some).await;
        status.expect("the keeper reports before it ends").expect("waited for it to be there")
    }
}

impl Signal {
    fn number(self) -> libc::c_int {
        match self {
            Signal::Interrupt => libc::SIGINT,
            Signal::Terminate => libc::SIGTERM,
            Signal::Kill => libc::SIGKILL,
            Signal::Freeze => libc::SIGSTOP,
            Signal::Thaw => libc::SIGCONT,
        }
    }

    /// Its place in the kernel's signal sets, which count from one.
    fn bit(self) -> u64 {
        1 << (self.number() - 1)
    }
}

/// The signals a process handles itself, according to its `/proc/PID/status`.
fn caught(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::Kill);
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// The thread, not the process: which is why the keeper thread exists. A thread of an async
/// runtime may end long before its runtime does.
#[cfg(target_os = "linux")]
fn die_with_parent_thread(command: &mut Command) {
    // SAFETY: between fork and exec only `prctl` is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

/// Elsewhere a killed owner leaves its children behind; Linux is where CI and servers are.
#[cfg(not(target_os = "linux"))]
fn die_with_parent_thread(_: &mut Command) {}

/// Returns when the child has exited, or when something in `also` happened to it.
fn wait_without_reaping(pid: libc::pid_t, also: libc::c_int) {
    let events = libc::WEXITED | libc::WNOWAIT | also;
    loop {
        // SAFETY: `siginfo_t` is plain data for which all zeroes is a value, and `waitid`
        // writes to it alone.
        let outcome = unsafe {
            let mut info: libc::siginfo_t = mem::zeroed();
            libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, events)
        };
        if outcome == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Process {
        let mut command = Command::new("sleep");
        command.arg("600");
        Process::spawn(command).expect("sleep is on every machine").0
    }

    #[tokio::test]
    async fn a_dropped_process_is_gone() {
        let process = sleeper();
        let pid = process.pid;
        drop(process);
        // SAFETY: signal 0 only asks whether the process exists.
        assert_eq!(unsafe { libc::kill(pid, 0) }, -1);
    }

    #[tokio::test]
    async fn an_ended_process_tells_how_it_ended_as_often_as_asked() {
        let mut process = sleeper();
        assert_eq!(process.status(), None);
        process.signal(Signal::Kill);
        let status = process.exited().await;
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
        assert_eq!(process.exited().await, status);
        process.signal(Signal::Interrupt);
    }

    #[test]
    fn a_handled_signal_is_found_in_the_status() {
        let set = caught("Name:\tanvil\nSigCgt:\t0000000100004442\nThreads:\t1\n").unwrap();
        assert_ne!(set & Signal::Interrupt.bit(), 0);
        assert_ne!(set & Signal::Terminate.bit(), 0);
        assert_eq!(set & Signal::Kill.bit(), 0);
        assert_eq!(caught("Name:\tanvil\n"), None);
        assert!(!sleeper().handles(Signal::Interrupt));
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let error = Process::spawn(Command::new("no-such-program")).unwrap_err();
        assert!(error.to_string().contains("no-such-program"), "{error}");
    }
}
