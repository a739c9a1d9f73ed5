//! Programs that run beside us, and the signals by which we are ended.
//!
//! Ctrl-C reaches every process of a terminal's group at once, but a node must not leave
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
    /// Until this is dropped Ctrl-C ends nothing by itself. Called before any child is started.
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

impl Drop for Signals {
    /// Lets Ctrl-C end things again. What a thread blocks is inherited by whatever it starts next.
    fn drop(&mut self) {
        // SAFETY: the set is valid, and the thread's mask is ours.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &self.0, ptr::null_mut()) };
    }
}

/// A program we start. It is told to terminate when we are gone, whatever ended us.
pub struct Program {
    name: String,
    child: Child,
    /// How it ended, once that is known. From then on its id may be someone else's.
    status: Option<ExitStatus>,
}

impl Program {
    /// Starts a program.
    pub fn start(name: &str, command: &mut Command) -> anyhow::Result<Program> {
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
        Ok(Program { name: name.to_owned(), child, status: None })
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pipe from its standard output.
    pub fn stdout(&mut self) -> std::process::ChildStdout {
        self.child.stdout.take().expect("taken once, and piped by whoever starts it")
    }

    /// How it ended, if it has. What it started and left behind is ended with it.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        if self.status.is_none() && self.has_exited()? {
            self.status = Some(self.end_all()?);
        }
        Ok(self.status)
    }

    /// Whether it has exited. Its id stays its own.
    fn has_exited(&self) -> anyhow::Result<bool> {
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: the information is plain data that the call fills in, and the id is our
        // child's, which has not been waited for.
        let (outcome, information) = unsafe {
            let mut information: libc::siginfo_t = mem::zeroed();
            let id = self.child.id() as libc::id_t;
            (libc::waitid(libc::P_PID, id, &mut information, options), information)
        };
        ensure!(outcome == 0, "asking for {}: {}", self.name, io::Error::last_os_error());
        // SAFETY: this field is valid for a child, and zero when none has exited.
        Ok(unsafe { information.si_pid() } != 0)
    }

    /// Kills whatever is left of its group and waits for it.
    fn end_all(&mut self) -> anyhow::Result<ExitStatus> {
        // SAFETY: `kill` touches no memory of ours. The child has not been waited for, so the
        // group is its own.
        let _ = unsafe { libc::kill(-(self.child.id() as libc::pid_t), libc::SIGKILL) };
        Ok(self.child.wait()?)
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
        if self.status.is_none() {
            let _ = self.end_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;

    use super::*;

    #[test]
    fn what_is_started_after_signals_were_given_back_hears_them() {
        drop(Signals::take_over().expect("a process may block signals"));
        let mut child = Command::new("sleep").arg("30").spawn().expect("sleep is there");
        let id = libc::pid_t::try_from(child.id()).expect("an id fits");
        // SAFETY: `kill` touches no memory of ours, and the child is not reaped yet.
        assert_eq!(unsafe { libc::kill(id, libc::SIGTERM) }, 0);
        let status = child.wait().expect("it is our child");
        assert_eq!(status.signal(), Some(libc::SIGTERM));
    }

    #[test]
    fn a_program_hears_ctrl_c_though_we_do_not_and_leaves_nothing_behind() {
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

        let mut leaving = Command::new("sh");
        leaving.args(["-c", "sleep 600 & echo left; exec 2>&1"]).stdout(Stdio::piped());
        let mut leaving = Program::start("leaving", &mut leaving).unwrap();
        let mut output = leaving.stdout();
        while leaving.ended().unwrap().is_none() {
            signals.wait(Duration::from_millis(10));
        }
        let mut said = String::new();
        // Ends only when nobody holds the pipe any more.
        output.read_to_string(&mut said).unwrap();
        assert_eq!(said, "left\n");

        let mut deaf = Command::new("sh");
        deaf.args(["-c", "trap '' INT; echo deaf; exec sleep 600"]).stdout(Stdio::piped());
        let mut deaf = Program::start("deaf", &mut deaf).unwrap();
        let mut said = [0; 5];
        deaf.stdout().read_exact(&mut said).unwrap();
        let error = deaf.end(&signals, Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("killed"), "{error}");
    }
}
