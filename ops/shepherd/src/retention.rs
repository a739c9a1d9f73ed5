//! Retention while the daemon runs: looks every few minutes what may go, and says what holds it up.

use std::{
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use shepherd_admin::view::RetentionView;
use shepherd_log::{Blocked, Journal, Outlook, Retained, Retention, StorageError};
use shepherd_rpc::Throttle;
use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::show::size;

/// Time between two looks. A segment is an hour of the fastest chains.
const INTERVAL: Duration = Duration::from_secs(300);

/// What is held up is spoken of this often while it stays so.
const WARNING_INTERVAL: Duration = Duration::from_secs(3600);

/// Labels of a chain.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ChainLabels {
    chain: String,
}

/// What retention did and how it stands.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    removed: Family<ChainLabels, Counter>,
    used: Family<ChainLabels, Gauge<f64, AtomicU64>>,
    alarm: Family<ChainLabels, Gauge>,
    blocked: Family<ChainLabels, Gauge>,
}

impl Metrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Metrics {
        let metrics = Metrics::default();
        registry.register(
            "shepherd_retention_removed_records",
            "Records that retention removed",
            metrics.removed.clone(),
        );
        registry.register(
            "shepherd_retention_used_ratio",
            "How much of what retention keeps lies behind the slowest reader; at 1 it is held up",
            metrics.used.clone(),
        );
        registry.register(
            "shepherd_retention_alarm",
            "1 while somebody is so far behind that retention will soon be held up",
            metrics.alarm.clone(),
        );
        registry.register(
            "shepherd_retention_blocked",
            "1 while somebody keeps retention from removing what is due",
            metrics.blocked.clone(),
        );
        metrics
    }
}

/// Applies a chain's retention at once and then every few minutes, until `shutdown`.
pub async fn keep(
    journal: Journal,
    retention: Retention,
    status: watch::Sender<Option<RetentionView>>,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), StorageError> {
    let labels = ChainLabels { chain: journal.chain().to_string() };
    let mut warnings = Throttle::new(WARNING_INTERVAL);
    loop {
        let journal = journal.clone();
        let pass = spawn_blocking(move || {
            let retained = journal.retain(&retention)?;
            Ok::<_, StorageError>((retained, journal.retention_outlook(&retention)?))
        });
        let (retained, outlook) = match pass.await {
            Ok(pass) => pass?,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        metrics.removed.get_or_create(&labels).inc_by(removed(&retained));
        metrics.used.get_or_create(&labels).set(outlook.used);
        metrics.alarm.get_or_create(&labels).set(i64::from(outlook.alarm));
        metrics.blocked.get_or_create(&labels).set(i64::from(retained.blocked.is_some()));
        say(&labels.chain, &retained, &outlook, &mut warnings);
        status.send_replace(Some(view(&retention, &retained, &outlook)));
        if shutdown.run_until_cancelled(sleep(INTERVAL)).await.is_none() {
            return Ok(());
        }
    }
}

fn removed(retained: &Retained) -> u64 {
    retained.removed.end.get() - retained.removed.start.get()
}

fn say(chain: &str, retained: &Retained, outlook: &Outlook, warnings: &mut Throttle) {
    if removed(retained) > 0 {
        let (records, bytes) = (removed(retained), size(retained.bytes));
        info!(chain, records, size = bytes, start = %outlook.start, "retention removed records");
    }
    match (&retained.blocked, &outlook.needed) {
        (Some(Blocked { by, at, wanted, .. }), _) if warnings.admit(Instant::now()).is_some() => {
            warn!(chain, by = %by, needs = %at, due = %wanted, "retention is held up");
        }
        (None, Some((by, at))) if outlook.alarm && warnings.admit(Instant::now()).is_some() => {
            let used = outlook.used;
            warn!(chain, by = %by, needs = %at, used, "retention will soon be held up");
        }
        _ => (),
    }
}

fn view(retention: &Retention, retained: &Retained, outlook: &Outlook) -> RetentionView {
    RetentionView {
        max_age_seconds: retention.max_age.map(|age| age.as_secs()),
        max_bytes: retention.max_bytes,
        start: outlook.start.into(),
        due: outlook.wanted.into(),
        used: outlook.used,
        alarm: outlook.alarm,
        blocked: retained.blocked.is_some(),
        needed_by: outlook.needed.as_ref().map(|(by, _)| by.to_string()),
        needed_from: outlook.needed.as_ref().map(|(_, at)| (*at).into()),
    }
}
