//! Endpoints as people see them.

use std::time::SystemTime;

use shepherd_admin::view::{CapabilitiesView, EndpointView, time};
use shepherd_rpc::{ArchiveDepth, Capabilities, EndpointStatus, Failure, in_words};

/// An endpoint that is in use.
pub fn view(status: &EndpointStatus) -> EndpointView {
    let failed =
        |(at, failure): &(SystemTime, Failure)| format!("{} at {}", in_words(failure), time(*at));
    EndpointView {
        url: status.endpoint.clone(),
        priority: status.priority,
        state: status.state.name().to_owned(),
        health: status.health,
        latency_ms: status.latency.map(|latency| latency.as_secs_f64() * 1000.0),
        behind_blocks: status.behind_blocks,
        last_error: status.last_failure.as_ref().map(failed),
        evidence: status.evidence.as_ref().map(|evidence| {
            let at = time(evidence.at);
            format!("{} at {at}", evidence.text)
        }),
        calls: status.calls,
        calls_left: status.budget.map(|budget| budget.calls_left),
        failures_in_a_row: status.failures_in_a_row,
        capabilities: status.capabilities.map(capabilities),
    }
}

/// What an endpoint is able to do.
pub fn capabilities(capabilities: Capabilities) -> CapabilitiesView {
    let Capabilities { logs_by_hash, finalized_tag, block_receipts, batch_calls, archive_depth } =
        capabilities;
    let archive = match archive_depth {
        ArchiveDepth::Full => "full".to_owned(),
        ArchiveDepth::Blocks(blocks) => format!("{blocks} blocks"),
        ArchiveDepth::Unknown => "unknown".to_owned(),
    };
    CapabilitiesView { logs_by_hash, finalized_tag, block_receipts, batch_calls, archive }
}
