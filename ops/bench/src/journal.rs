//! How fast the journal is read.

use shepherd_log::{Journal, Offset, RecordView};

use crate::{
    report::{Median, Report, seconds},
    synthetic::{self, Synthetic},
};

pub fn measure(report: &mut Report, journal: &Synthetic) -> anyhow::Result<()> {
    let (_store, handle) = synthetic::open(journal.path())?;
    let range = Offset::START..handle.tail().offset;
    report.section(
        "Journal scan",
        format!(
            "{} blocks with {} logs, read in offset order by one thread from the operating system's \
             page cache. The limit is the same pass without looking at the logs: checksums are \
             verified, records are not taken apart.",
            journal.blocks, journal.logs
        ),
    );
    let runs = report.runs;
    let mut bytes = 0;
    let untouched = seconds(runs, || {
        bytes = 0;
        for stored in handle.read(range.clone()) {
            bytes += stored?.encoded_bytes();
        }
        Ok(())
    })?;
    let decoded = decode(&handle, runs)?;
    let verified = seconds(runs, || {
        let verification = handle.verify(range.clone(), |_| Ok(()))?;
        anyhow::ensure!(verification.is_clean(), "the journal is clean");
        Ok(())
    })?;
    let gigabytes = bytes as f64 / 1e9;
    report.row(
        "records, logs not looked at (the limit)",
        untouched.rate(journal.blocks as f64).show("records/s"),
        untouched.rate(gigabytes).show("GB/s"),
    );
    report.row(
        "records, every log decoded in place",
        decoded.rate(journal.blocks as f64).show("records/s"),
        format!(
            "{}; {}; {:.2} of the limit",
            decoded.rate(gigabytes).show("GB/s"),
            decoded.rate(journal.logs as f64).show("logs/s"),
            untouched.median / decoded.median
        ),
    );
    report.row(
        "`journal verify` (digest chain, links, index)",
        verified.rate(journal.blocks as f64).show("records/s"),
        verified.rate(gigabytes).show("GB/s"),
    );
    Ok(())
}

/// How long it takes to decode every log of the journal and do nothing with it.
pub fn decode(handle: &Journal, runs: usize) -> anyhow::Result<Median> {
    let range = Offset::START..handle.tail().offset;
    seconds(runs, || {
        let mut seen = 0;
        for stored in handle.read(range.clone()) {
            if let RecordView::Block(block) = stored?.record() {
                seen += block.logs().map(|log| log.data.len() + log.topics().len()).sum::<usize>();
            }
        }
        anyhow::ensure!(seen > 0, "logs were seen");
        Ok(())
    })
}
