//! What the process says about itself while it works.

use std::io::{self, IsTerminal};

use tracing_subscriber::{
    EnvFilter, Layer, fmt, layer::SubscriberExt, registry, util::SubscriberInitExt,
};

use crate::config::{Log, LogFormat};

/// Who reads the logs of `shepherd run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A program that expects one JSON object a line.
    Program,
    /// Somebody.
    Person,
}

/// Logs of `shepherd run`: on standard output, as the configuration says. RUST_LOG goes first.
pub fn for_daemon(log: &Log) -> Reader {
    let terminal = io::stdout().is_terminal();
    let reader = match log.format {
        LogFormat::Json => Reader::Program,
        LogFormat::Text => Reader::Person,
        LogFormat::Auto if terminal => Reader::Person,
        LogFormat::Auto => Reader::Program,
    };
    let lines = match reader {
        // One flat object a line: what log collectors index without being told.
        Reader::Program => fmt::layer().json().flatten_event(true).with_current_span(false).boxed(),
        Reader::Person => fmt::layer().with_ansi(terminal).with_target(false).boxed(),
    };
    registry().with(lines).with(filter(&log.level)).init();
    reader
}

/// Logs of a command that prints data: on standard error, so that pipes stay clean, and only what
/// the command does not say itself.
pub fn for_command() {
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .without_time();
    registry().with(lines).with(filter("error")).init();
}

/// Libraries that are only heard when something is wrong, unless the filter names them.
///
/// The storage engine talks about every flush. Transports, at their lower levels, print whole
/// requests, and with them the path of an endpoint's URL.
///
/// The WebSocket transport reports each lost connection as an error of its own; the pool says the
/// same once, with the endpoint's redacted name.
const QUIET: &str = "fjall=warn,lsm_tree=warn,hyper=warn,hyper_util=warn,reqwest=warn,\
                     tungstenite=warn,tokio_tungstenite=warn,rustls=warn,alloy_pubsub=off,\
                     alloy_transport=warn,alloy_transport_ws=off,alloy_rpc_client=warn,\
                     wasmtime=warn,cranelift=warn";

fn filter(level: &str) -> EnvFilter {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|asked| !asked.is_empty());
    let asked = asked.as_deref().unwrap_or(level);
    EnvFilter::try_new(format!("{QUIET},{asked}"))
        .unwrap_or_else(|_| EnvFilter::new(format!("{QUIET},{level}")))
}
