//! Which charts a report has, and the values they are made of.

use std::collections::BTreeMap;

use shepherd_log::{EffectResult, Trace};

use super::{
    chart::{self, Chart, Series, Values},
    format,
    summary::Summary,
    tables::TimedEffect,
    timeline::{Merge, Timeline},
};
use crate::profile::Spread;

/// Effects asked for in a slot of time, by what came of them, and effects placed in it.
#[derive(Debug, Default)]
struct Asked {
    placed: u64,
    refused: u64,
    /// Expired, cancelled, or not sent in dry run.
    dropped: u64,
    open: u64,
    abandoned: u64,
    /// Of those placed, whenever they were asked for.
    arrived: u64,
}

impl Merge for Asked {
    fn merge(&mut self, other: Asked) {
        self.placed += other.placed;
        self.refused += other.refused;
        self.dropped += other.dropped;
        self.open += other.open;
        self.abandoned += other.abandoned;
        self.arrived += other.arrived;
    }
}

/// What the handling of records took in a slot of time.
#[derive(Debug, Default)]
struct Work {
    fuel: Vec<u64>,
    logs: u64,
    reads: u64,
    writes: u64,
}

impl Merge for Work {
    fn merge(&mut self, mut other: Work) {
        self.fuel.append(&mut other.fuel);
        self.logs += other.logs;
        self.reads += other.reads;
        self.writes += other.writes;
    }
}

/// Gathers what the charts show.
#[derive(Debug, Default)]
pub(crate) struct Charts {
    asked: Timeline<Asked>,
    work: Timeline<Work>,
    latencies: BTreeMap<u64, u64>,
}

/// Columns of the latencies: so many blocks one by one, and the rest in doubling ranges.
const LATENCIES_SINGLE: u64 = 8;

impl Charts {
    /// Takes in a record of the window.
    pub fn handled(&mut self, trace: &Trace) {
        let slot = self.work.at(trace.timestamp);
        slot.fuel.push(trace.fuel);
        slot.logs += u64::from(trace.logs);
        slot.reads += u64::from(trace.reads);
        slot.writes += u64::from(trace.writes);
    }

    /// Takes in an effect of the window.
    pub fn asked(&mut self, effect: &TimedEffect) {
        let slot = self.asked.at(effect.time);
        if effect.asked.standing.abandoned {
            slot.abandoned += 1;
            return;
        }
        let result = effect.asked.outcome.as_ref().map(|outcome| &outcome.result);
        let count = match result {
            Some(EffectResult::Accepted | EffectResult::AlreadyThere) => &mut slot.placed,
            Some(EffectResult::Refused(_)) => &mut slot.refused,
            Some(_) => &mut slot.dropped,
            None => &mut slot.open,
        };
        *count += 1;
        let Some(latency) = effect.asked.latency() else { return };
        *self.latencies.entry(range_of(latency)).or_default() += 1;
        self.asked.at(effect.settled.unwrap_or(effect.time)).arrived += 1;
    }

    /// The charts that have something to show: of effects, and of what it took.
    pub fn finish(self, summary: &Summary, noun: &str) -> (Vec<Chart>, Vec<Chart>) {
        let mut charts = Vec::new();
        let mut costs = Vec::new();
        let width = self.asked.seconds();
        let slots = self.asked.finish();
        if !slots.is_empty() {
            charts.push(over_time(&slots, width, noun));
            charts.push(asked_and_placed(&slots, width, noun));
        }
        if summary.latency_blocks.count > 0 {
            charts.push(latencies(&self.latencies, summary, noun));
        }
        let width = self.work.seconds();
        let slots = self.work.finish();
        if !slots.is_empty() {
            let starts: Vec<u64> = slots.iter().map(|(start, _)| *start).collect();
            let traffic = slots
                .iter()
                .map(|(start, work)| (*start, vec![work.logs, work.reads, work.writes]))
                .collect();
            costs.push(fuel(slots, width, summary));
            costs.push(work(traffic, &starts, width));
        }
        (charts, costs)
    }
}

fn series(name: &str, class: &'static str) -> Series {
    Series { name: name.to_owned(), class }
}

fn labelled(rows: Vec<(u64, Vec<u64>)>) -> Vec<(String, Vec<u64>)> {
    rows.into_iter().map(|(start, values)| (format::minute(start), values)).collect()
}

fn ticks<T>(slots: &[(u64, T)]) -> Vec<(usize, String)> {
    let starts: Vec<u64> = slots.iter().map(|(start, _)| *start).collect();
    chart::time_ticks(&starts)
}

fn over_time(slots: &[(u64, Asked)], width: u64, noun: &str) -> Chart {
    let all = [
        (series("placed", "placed"), slots.iter().map(|(_, slot)| slot.placed).collect()),
        (series("refused", "refused"), slots.iter().map(|(_, slot)| slot.refused).collect()),
        (series("dropped", "dropped"), slots.iter().map(|(_, slot)| slot.dropped).collect()),
        (series("open", "open"), slots.iter().map(|(_, slot)| slot.open).collect()),
        (series("abandoned", "abandoned"), slots.iter().map(|(_, slot)| slot.abandoned).collect()),
    ];
    // A series that never occurs would only make the legend longer.
    let occurring: Vec<(Series, Vec<u64>)> = all
        .into_iter()
        .filter(|(_, values): &(Series, Vec<u64>)| values.iter().any(|value| *value > 0))
        .collect();
    let rows = slots
        .iter()
        .enumerate()
        .map(|(index, (start, _))| {
            (*start, occurring.iter().map(|(_, values)| values[index]).collect())
        })
        .collect();
    Values {
        id: "over-time",
        title: format!("{} over time", capital(noun)),
        caption: format!(
            "Asked for in each {} of block time, by what came of them.",
            format::seconds(width)
        ),
        x_name: "From (UTC)",
        y_name: noun.to_owned(),
        series: occurring.into_iter().map(|(series, _)| series).collect(),
        rows: labelled(rows),
        x_ticks: ticks(slots),
    }
    .stacked()
}

fn asked_and_placed(slots: &[(u64, Asked)], width: u64, noun: &str) -> Chart {
    let (mut asked, mut placed) = (0, 0);
    let mut rows = Vec::new();
    for (start, slot) in slots {
        asked += slot.placed + slot.refused + slot.dropped + slot.open;
        placed += slot.arrived;
        rows.push((*start, vec![asked, placed]));
    }
    Values {
        id: "asked-and-placed",
        title: "Due and placed".to_owned(),
        caption: format!(
            "Running totals by the end of each {}. The gap is what was refused, dropped or still \
             waits.",
            format::seconds(width)
        ),
        x_name: "From (UTC)",
        y_name: noun.to_owned(),
        series: vec![series("asked for", "asked"), series("placed", "placed")],
        rows: labelled(rows),
        x_ticks: ticks(slots),
    }
    .lines()
}

/// The start of the range that a latency belongs to.
fn range_of(latency: u64) -> u64 {
    match latency {
        ..LATENCIES_SINGLE => latency,
        _ => 1 << latency.ilog2(),
    }
}

fn latencies(counts: &BTreeMap<u64, u64>, summary: &Summary, noun: &str) -> Chart {
    let last = counts.keys().next_back().copied().unwrap_or(0);
    let single = 0..LATENCIES_SINGLE;
    let doubling = (LATENCIES_SINGLE.ilog2()..64).map(|power| 1_u64 << power);
    let starts: Vec<u64> = single.chain(doubling).take_while(|start| *start <= last).collect();
    let name = |start: u64| match start {
        ..LATENCIES_SINGLE => start.to_string(),
        _ => format!("{start}–{}", (start - 1).saturating_add(start)),
    };
    let tick = |start: u64| match start {
        ..LATENCIES_SINGLE => start.to_string(),
        _ => format!("{}+", format::short(start as f64)),
    };
    let rows: Vec<(String, Vec<u64>)> = starts
        .iter()
        .map(|start| (name(*start), vec![counts.get(start).copied().unwrap_or(0)]))
        .collect();
    let latency = &summary.latency_blocks;
    Values {
        id: "latency",
        title: "Blocks from asked to placed".to_owned(),
        caption: format!(
            "Half within {}, 99 of 100 within {}, the slowest {}.",
            latency.p50, latency.p99, latency.max
        ),
        x_name: "Blocks",
        y_name: noun.to_owned(),
        series: vec![series(noun, "placed")],
        x_ticks: starts.iter().map(|start| tick(*start)).enumerate().collect(),
        rows,
    }
    .stacked()
}

fn fuel(mut slots: Vec<(u64, Work)>, width: u64, summary: &Summary) -> Chart {
    let x_ticks = ticks(&slots);
    let rows = slots
        .iter_mut()
        .map(|(start, work)| {
            let spread = Spread::of(&mut work.fuel);
            (*start, vec![spread.max, spread.p99, spread.p50])
        })
        .collect();
    let profile = &summary.profile;
    Values {
        id: "fuel",
        title: "Fuel per record".to_owned(),
        caption: format!(
            "In each {}. One call may take {}; the hottest block took {} of that.",
            format::seconds(width),
            format::short(profile.of.fuel_limit as f64),
            format::percent(profile.share_of_limit(profile.fuel.max)),
        ),
        x_name: "From (UTC)",
        y_name: "fuel".to_owned(),
        series: vec![series("max", "max"), series("p99", "asked"), series("p50", "placed")],
        rows: labelled(rows),
        x_ticks,
    }
    .lines()
}

fn work(rows: Vec<(u64, Vec<u64>)>, starts: &[u64], width: u64) -> Chart {
    Values {
        id: "work",
        title: "Logs, reads and writes".to_owned(),
        caption: format!(
            "Handed in, asked, and written to state in each {}.",
            format::seconds(width)
        ),
        x_name: "From (UTC)",
        y_name: "count".to_owned(),
        series: vec![
            series("logs", "placed"),
            series("read calls", "asked"),
            series("keys written", "open"),
        ],
        rows: labelled(rows),
        x_ticks: chart::time_ticks(starts),
    }
    .lines()
}

/// The word as a title begins with it.
pub(crate) fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_counted_one_by_one_and_then_in_doubling_ranges() {
        let cases = [(0, 0), (7, 7), (8, 8), (15, 8), (16, 16), (1_000, 512), (u64::MAX, 1 << 63)];
        for (latency, expected) in cases {
            assert_eq!(range_of(latency), expected, "{latency}");
        }
    }
}
