//! SIGINT and SIGTERM: how people and service managers ask for an end.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::{Code, Problem};

/// A signal this soon after the first one is the same request.
///
/// Terminals, `timeout` and some init programs send it to the process and to its whole group.
/// Nobody who loses patience does so in half a second.
const ECHO_TIME: Duration = Duration::from_millis(500);

/// The two signals that ask for an end.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Both are caught from now on.
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next one, by its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    /// A signal from somebody who has lost patience since `asked`.
    pub async fn again(&mut self, asked: Instant) -> &'static str {
        loop {
            let name = self.next().await;
            if ECHO_TIME <= asked.elapsed() {
                return name;
            }
        }
    }
}

/// Cancels at the first signal. A second one ends the process on the spot.
///
/// For commands whose work is durable step by step: what was cut short is done again.
pub fn cancel_on_signal(stopping: &CancellationToken) -> Result<(), Problem> {
    let mut signals = Signals::new().map_err(|error| Problem::from_error(Code::Failed, &error))?;
    let stopping = stopping.clone();
    tokio::spawn(async move {
        signals.next().await;
        let asked = Instant::now();
        stopping.cancel();
        let name = signals.again(asked).await;
        eprintln!("error: {name} came again: ended at once; what was done so far is kept");
        std::process::exit(Code::CutShort as i32);
    });
    Ok(())
}

/// The end of a command that was asked to stop before its work was done.
pub fn stopped(how_to_go_on: &str) -> Problem {
    let message = "stopped by a signal before everything was done; what was done is kept";
    Problem::new(Code::Stopped, message).help(how_to_go_on)
}
