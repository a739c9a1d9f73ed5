//! The programs of the demo, and the signals by which it is ended.
//!
//! Ctrl-C reaches every process of a terminal's group at once, but the node must not leave
//! before the daemon that follows it. So each child has a group of its own, and this process
//! alone hears the signal and passes it on in order.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};
use std::{io, mem, ptr};

use anyhow::{Context, bail, ensure};

/// What [`Signals::wait`] waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Someone wants us to end.
    Interrupted,
    /// A child has ended; which one, its owner knows.
    ChildEnded,
    /// Nothing, for as long as was asked.
    Quiet,
}

/// Signals, received one by one when we ask instead of whenever they come.
pub struct Signals(libc::sigset_t);

impl Signals {
    /// From here on Ctrl-C ends nothing by itself. Called before any child is started.
    pub fn take_over() -> anyhow::Result<Signals> {
        // SAFETY: a signal set is plain data, made valid by `sigemptyset`; the calls write to
        // it alone, and the thread's mask is ours.
        let (set, outcome) = unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGCHLD] {
                libc::sigaddset(&mut set, signal);
            }
            (set, libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()))
        };
        ensure!(outcome == 0, "blocking signals failed with {outcome}");
        Ok(Signals(set))
    }

    /// Waits for the next signal, or until the time is over.
    pub fn wait(&self, at_most: Duration) -> Event {
        let timeout = libc::timespec {
            tv_sec: at_most.as_secs() as libc::time_t,
            tv_nsec: at_most.subsec_nanos().into(),
        };
        // SAFETY: both pointers are valid for the call, and a null one is allowed.
        match unsafe { libc::sigtimedwait(&self.0, ptr::null_mut(), &timeout) } {
            libc::SIGCHLD => Event::ChildEnded,
            -1 => Event::Quiet,
            _ => Event::Interrupted,
        }
    }
}

/// A program of the demo. It is told to terminate when we are gone, whatever ended us.
pub struct Program {
    name: &'static str,
    child: Child,
}

impl Program {
    /// Starts a program.
    pub fn start(name: &'static str, command: &mut Command) -> anyhow::Result<Program> {
        command.process_group(0);
        // SAFETY: between fork and exec only async-signal-safe functions are called.
        unsafe {
            command.pre_exec(|| {
                let mut none: libc::sigset_t = mem::zeroed();
                libc::sigemptyset(&mut none);
                // What we block is inherited, and a program that cannot hear Ctrl-C
                // would never end.
                libc::pthread_sigmask(libc::SIG_SETMASK, &none, ptr::null_mut());
                match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                }
            });
        }
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Program { name, child })
    }

    /// What people call it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The pipe from its standard output.
    pub fn stdout(&mut self) -> std::process::ChildStdout {
        self.child.stdout.take().expect("taken once, and piped by whoever starts it")
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Lets it finish what it does and leave. A second Ctrl-C, or more than `patience`, ends
    /// it at once.
    pub fn end(mut self, signals: &Signals, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        if self.ended()?.is_none() {
            self.signal(libc::SIGINT);
        }
        loop {
            if let Some(status) = self.ended()? {
                ensure!(status.success(), "{} ended with {status}", self.name);
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || signals.wait(left) == Event::Interrupted {
                bail!("{} did not end in time and was killed", self.name);
            }
        }
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: `kill` touches no memory of ours. The id is our child's until `ended` reaps
        // it, and nobody signals a program that has ended.
        let _ = unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
    }
}

impl Drop for Program {
    /// Ends it at once, if it has not ended.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;

    use super::*;

    /// One test, because the thread's signals stay taken over.
    #[test]
    fn a_program_hears_ctrl_c_though_we_do_not() {
        let signals = Signals::take_over().expect("a process may block signals");
        let mut hearing = Program::start("hearing", Command::new("sleep").arg("600")).unwrap();
        hearing.signal(libc::SIGINT);
        let mut status = None;
        while status.is_none() {
            // The end of a child is announced to a thread of the test harness, not to us.
            signals.wait(Duration::from_millis(10));
            status = hearing.ended().unwrap();
        }
        assert_eq!(status.unwrap().signal(), Some(libc::SIGINT));

        let mut deaf = Command::new("sh");
        deaf.args(["-c", "trap '' INT; echo deaf; exec sleep 600"]).stdout(Stdio::piped());
        let mut deaf = Program::start("deaf", &mut deaf).unwrap();
        let mut said = [0; 5];
        deaf.stdout().read_exact(&mut said).unwrap();
        let error = deaf.end(&signals, Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("killed"), "{error}");
    }
}
