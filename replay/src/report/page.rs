//! `report.html`: one file for people, made from the figures and the effects that are shown.
//!
//! Everything a module, a receiver or a contract said is text in it: the template escapes it, and
//! the page's own policy lets nothing run but the one script whose hash it names.

use alloy_primitives::hex;
use askama::Template;
use base64::Engine;
use sha2::{Digest as _, Sha256};
use shepherd_host::ReadAnswer;
use shepherd_log::{EffectKey, Log, TapeEntry};

use super::{
    chart::Chart,
    charts,
    data::Cause,
    format,
    order::Order,
    summary::Summary,
    tables::{TimedEffect, deliver, readable},
};
use crate::explain::{Argument, Said, SaidValue, known};

/// What is shown of a body or a document before it is cut.
const TEXT_CHARS_MAX: usize = 4_000;

/// Logs that are shown of one record.
const LOGS_MAX: usize = 10;

/// Answers that are shown of one record.
const ANSWERS_MAX: usize = 40;

/// Arguments that are shown of a log or a revert.
const ARGUMENTS_MAX: usize = 40;

/// Bytes that are shown of a log's data or an answer.
const DATA_BYTES_MAX: usize = 96;

/// The page.
#[derive(Template)]
#[template(path = "report.html")]
pub(crate) struct Page<'a> {
    summary: &'a Summary,
    script: &'static str,
    style: &'static str,
    /// The script's hash, as the policy names it.
    script_hash: String,
    noun: &'static str,
    noun_as_title: String,
    span: String,
    verdict: String,
    tiles: Vec<Tile>,
    facts: Vec<Fact>,
    config: String,
    charts: Vec<Chart>,
    cost_charts: Vec<Chart>,
    refusals: Vec<Share>,
    calls: Vec<[String; 9]>,
    fuel: Vec<[String; 7]>,
    hottest: Vec<[String; 10]>,
    results: Vec<&'static str>,
    effects: Vec<EffectView>,
    shown: String,
    state: Vec<Fact>,
}

struct Tile {
    name: String,
    value: String,
    note: String,
    class: &'static str,
}

struct Fact {
    name: String,
    value: String,
    /// Whether it is a hash, a name or a rule rather than a sentence.
    is_code: bool,
}

struct Share {
    name: String,
    count: String,
    percent: String,
    /// In hundredths of the largest.
    width: f64,
}

struct EffectView {
    id: String,
    block: String,
    block_sort: u64,
    hash: String,
    time: String,
    what: String,
    key: String,
    key_ends: String,
    order: Option<OrderView>,
    result: &'static str,
    reason: String,
    latency: String,
    latency_sort: i128,
    settled: String,
    delivery: String,
    expires: String,
    attempts: String,
    abandoned: bool,
    body: String,
    logs: Vec<LogView>,
    logs_more: usize,
    reads: Vec<ReadView>,
    reads_more: usize,
}

struct OrderView {
    owner: String,
    owner_ends: String,
    sell_amount: String,
    sell_token: String,
    buy_amount: String,
    buy_token: String,
    /// In full: name and value.
    fields: Vec<(&'static str, String)>,
    valid_to: String,
}

struct LogView {
    index: u32,
    address: String,
    /// Its name and arguments, where it is known; else empty.
    event: String,
    arguments: Vec<(String, String)>,
    /// As they are, where it is not known.
    topics: Vec<String>,
    data: String,
}

struct ReadView {
    call: u32,
    request: String,
    answers: Vec<(&'static str, String)>,
}

/// An effect that is shown, and what caused it.
pub(crate) struct Shown {
    pub effect: TimedEffect,
    pub cause: Cause,
}

impl<'a> Page<'a> {
    pub fn new(summary: &'a Summary, charts: charts::Charts, shown: &[Shown]) -> Page<'a> {
        let script = include_str!("../../templates/script.js");
        let hash = Sha256::digest(script.as_bytes());
        let script_hash = base64::engine::general_purpose::STANDARD.encode(hash);
        let only_orders =
            shown.iter().all(|shown| matches!(shown.effect.asked.effect.key, EffectKey::Order(_)));
        let noun = if only_orders { "orders" } else { "effects" };
        let effects: Vec<EffectView> = shown.iter().map(effect).collect();
        let mut results: Vec<&'static str> = effects.iter().map(|effect| effect.result).collect();
        results.sort_unstable();
        results.dedup();
        let count = effects.len() as u64;
        let all = summary.effects.asked;
        let shown = match count == all {
            true => format!("All {} are shown.", format::grouped(all)),
            false => format!(
                "{} of {} are shown: the latest that were not placed, and the latest that were. \
                 All are in effects.parquet.",
                format::grouped(count),
                format::grouped(all)
            ),
        };
        let (charts, cost_charts) = charts.finish(summary, noun);
        Page {
            summary,
            script,
            style: include_str!("../../templates/style.css"),
            script_hash,
            noun,
            noun_as_title: charts::capital(noun),
            span: span(summary),
            verdict: verdict(summary, noun),
            tiles: tiles(summary, noun),
            facts: facts(summary),
            config: cut(&serde_json::to_string_pretty(&summary.run.config).unwrap_or_default()),
            charts,
            cost_charts,
            refusals: refusals(summary),
            calls: calls(summary),
            fuel: fuel(summary),
            hottest: hottest(summary),
            results,
            effects,
            shown,
            state: state(summary),
        }
    }
}

/// Replaces characters that turn the direction of the text after them: such
/// text reads as something else than it says. The page itself has none.
pub(crate) fn without_turns(page: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    page.replace(turns, "\u{fffd}")
}

fn fact(name: &str, value: impl Into<String>) -> Fact {
    Fact { name: name.to_owned(), value: value.into(), is_code: false }
}

fn code(name: &str, value: impl Into<String>) -> Fact {
    Fact { is_code: true, ..fact(name, value) }
}

/// Which stretch of the chain it is about.
fn span(summary: &Summary) -> String {
    let window = &summary.window;
    let (Some(first), Some(last)) = (window.first_time, window.last_time) else {
        return "No blocks".to_owned();
    };
    format!(
        "{} to {} UTC, {} of block time, {} blocks",
        format::minute(first),
        format::minute(last),
        format::seconds(window.seconds()),
        format::grouped(window.blocks())
    )
}

/// The run in a sentence or three.
fn verdict(summary: &Summary, noun: &str) -> String {
    let effects = &summary.effects;
    if effects.asked == 0 {
        return format!(
            "No {noun} were asked for in {} blocks.",
            format::grouped(summary.window.blocks())
        );
    }
    let counted = effects.asked - effects.abandoned;
    let mut text = format!(
        "{} of {} {noun} were placed",
        format::grouped(effects.placed()),
        format::grouped(counted)
    );
    let others: Vec<String> = [
        (effects.refused, "refused"),
        (effects.open, "still open at the end"),
        (effects.expired, "expired"),
        (effects.cancelled, "cancelled"),
        (effects.dry_run, "not sent in dry run"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{} {what}", format::grouped(count)))
    .collect();
    if !others.is_empty() {
        text.push_str(&format!("; {}", others.join(", ")));
    }
    text.push('.');
    if effects.abandoned > 0 {
        text.push_str(&format!(
            " {} more belong to blocks that reorgs took back, and count in no figure.",
            format::grouped(effects.abandoned)
        ));
    }
    text
}

fn tiles(summary: &Summary, noun: &str) -> Vec<Tile> {
    let tile = |name: &str, value: String, note: String, class| Tile {
        name: name.to_owned(),
        value,
        note,
        class,
    };
    let effects = &summary.effects;
    let counted = effects.asked - effects.abandoned;
    let of_counted = |count: u64| match counted {
        0 => String::new(),
        counted => format!("{} of {noun} asked", format::percent(count as f64 / counted as f64)),
    };
    let latency = &summary.latency_blocks;
    let blocks = |count: u64| match count {
        1 => "1\u{a0}block".to_owned(),
        count => format!("{}\u{a0}blocks", format::grouped(count)),
    };
    let dropped = effects.expired + effects.cancelled + effects.dry_run;
    let fuel = &summary.profile.fuel;
    vec![
        tile("Placed", format::grouped(effects.placed()), of_counted(effects.placed()), "placed"),
        tile(
            "Refused",
            format::grouped(effects.refused),
            match summary.refusals.first() {
                Some(first) => format!("mostly {}", first.reason),
                None => "by nobody".to_owned(),
            },
            "refused",
        ),
        tile(
            "Open at the end",
            format::grouped(effects.open),
            match dropped {
                0 => "none was dropped".to_owned(),
                _ => format!("{} more were dropped", format::grouped(dropped)),
            },
            "open",
        ),
        tile(
            "From asked to placed",
            if latency.count == 0 { "–".to_owned() } else { blocks(latency.p50) },
            match latency.count {
                0 => "nothing was placed".to_owned(),
                _ => format!("median; p99 {}, worst {}", latency.p99, latency.max),
            },
            "",
        ),
        tile(
            "Fuel per block, p99",
            format::short(fuel.p99 as f64),
            format!(
                "{} of the limit; worst {}",
                format::percent(summary.profile.share_of_limit(fuel.p99)),
                format::percent(summary.profile.share_of_limit(fuel.max))
            ),
            "",
        ),
        tile(
            "Handled",
            blocks(fuel.count),
            format!(
                "of {}; {} logs, {} reads",
                format::grouped(summary.window.blocks()),
                format::grouped(summary.calls.logs),
                format::grouped(summary.calls.reads)
            ),
            "",
        ),
    ]
}

fn facts(summary: &Summary) -> Vec<Fact> {
    let run = &summary.run;
    let window = &summary.window;
    let mut facts = vec![
        code("Module", run.module.clone()),
        code("sha256", run.sha256.clone()),
        fact("Chain", format!("{} (id {})", run.chain, run.chain_id)),
    ];
    if let (Some(first), Some(last)) = (window.first_block, window.last_block) {
        facts.push(fact(
            "Blocks",
            format!(
                "{} to {}: {} blocks",
                format::grouped(first),
                format::grouped(last),
                format::grouped(window.blocks())
            ),
        ));
    }
    if let (Some(first), Some(last)) = (window.first_time, window.last_time) {
        facts.push(fact(
            "Time",
            format!(
                "{} to {} UTC: {}",
                format::time(first),
                format::time(last),
                format::seconds(window.seconds())
            ),
        ));
    }
    let records = format!("{} to {}", window.start, window.end);
    facts.push(fact("Records", records));
    if window.warm_up_from < window.start {
        let count = format::grouped(window.start - window.warm_up_from);
        facts.push(fact(
            "Warm-up",
            format!("{count} records before the window were run too, and count in no figure"),
        ));
    }
    facts.push(fact(
        "Reorgs",
        match window.reorgs {
            0 => "none".to_owned(),
            reorgs => format!(
                "{}, which took back {} blocks",
                format::grouped(reorgs),
                format::grouped(window.abandoned_blocks)
            ),
        },
    ));
    if !run.reads.is_empty() {
        let reads: Vec<String> = run
            .reads
            .iter()
            .map(|(source, count)| format!("{} from {source}", format::grouped(*count)))
            .collect();
        facts.push(fact("Reads", reads.join(", ")));
    }
    facts.extend(run.options.iter().map(|(name, value)| code(name, cut(value))));
    facts.push(code("Rules", cut(&run.rules)));
    facts
}

fn refusals(summary: &Summary) -> Vec<Share> {
    let most = summary.refusals.first().map_or(1, |first| first.count.max(1));
    let all = summary.effects.refused.max(1);
    let share = |reason: &super::summary::Reason| Share {
        name: reason.reason.clone(),
        count: format::grouped(reason.count),
        percent: format::percent(reason.count as f64 / all as f64),
        width: reason.count as f64 / most as f64 * 100.0,
    };
    summary.refusals.iter().map(share).collect()
}

fn calls(summary: &Summary) -> Vec<[String; 9]> {
    let row = |name: &str, calls: &super::summary::Calls| {
        [
            name.to_owned(),
            format::grouped(calls.records),
            format::grouped(calls.logs),
            format::grouped(calls.reads),
            format::grouped(calls.outcomes),
            format::grouped(calls.writes),
            format::grouped(calls.effects),
            format::short(calls.fuel as f64),
            format::micros(calls.micros),
        ]
    };
    let kinds = summary.calls_by_kind.iter().map(|(kind, calls)| row(kind, calls));
    kinds.chain([row("all", &summary.calls)]).collect()
}

fn fuel(summary: &Summary) -> Vec<[String; 7]> {
    let profile = &summary.profile;
    let fuel = &profile.fuel;
    let micros = &profile.micros;
    let figures = |name: &str, shown: &dyn Fn(u64) -> String, spread: &crate::profile::Spread| {
        let all = [spread.p50, spread.p90, spread.p99, spread.max, spread.mean(), spread.total];
        let [p50, p90, p99, max, mean, total] = all.map(shown);
        [name.to_owned(), p50, p90, p99, max, mean, total]
    };
    let mut share =
        figures("share of the limit", &|fuel| format::percent(profile.share_of_limit(fuel)), fuel);
    // A share of everything says nothing.
    share[6] = "–".to_owned();
    vec![
        figures("fuel", &|fuel| format::short(fuel as f64), fuel),
        share,
        figures("time", &format::micros, micros),
    ]
}

fn hottest(summary: &Summary) -> Vec<[String; 10]> {
    let profile = &summary.profile;
    let row = |hot: &crate::profile::HotBlock| {
        [
            format::grouped(hot.block),
            format::time(hot.timestamp),
            hot.offset.to_string(),
            format::grouped(hot.fuel),
            format::percent(profile.share_of_limit(hot.fuel)),
            format::micros(hot.micros),
            format::grouped(hot.logs),
            format::grouped(hot.reads),
            format::grouped(hot.writes),
            format::grouped(hot.effects),
        ]
    };
    profile.hottest.iter().map(row).collect()
}

fn state(summary: &Summary) -> Vec<Fact> {
    let state = &summary.state;
    vec![
        fact("Keys", format::grouped(state.entries)),
        fact(
            "Size",
            format!(
                "{} of keys, {} of values",
                format::bytes(state.key_bytes),
                format::bytes(state.value_bytes)
            ),
        ),
        code("State sum", state.sum.clone()),
        code("Lane digest", state.digest.clone()),
    ]
}

fn effect(shown: &Shown) -> EffectView {
    let TimedEffect { asked, time, settled } = &shown.effect;
    let key = asked.effect.key.to_string();
    let (what, order) = match &asked.effect.key {
        EffectKey::Order(_) => ("order".to_owned(), Order::of(&asked.effect.body).map(order)),
        EffectKey::Webhook { destination, .. } => (destination.clone(), None),
    };
    let latency = asked.latency();
    let settled = asked.outcome.as_ref().map(|outcome| {
        let at = settled.map_or_else(String::new, |time| format!(", {}", format::time(time)));
        format!("block {}{at}", format::grouped(outcome.head.number))
    });
    let due = match asked.due() {
        Some(due) if due == asked.block.number => "at once".to_owned(),
        Some(due) => {
            format!("after {}, from block {}", deliver(asked.effect.deliver), format::grouped(due))
        }
        None => "when the block is final".to_owned(),
    };
    let answers_in_all = shown.cause.tape.len();
    EffectView {
        id: asked.id.to_string(),
        block: format::grouped(asked.block.number),
        block_sort: asked.block.number,
        hash: asked.block.hash.to_string(),
        time: format::time(*time),
        what,
        key_ends: format::ends(&key),
        key,
        order,
        result: asked.result(),
        reason: cut(&asked.reason()),
        latency: latency.map_or_else(|| "–".to_owned(), format::grouped),
        latency_sort: latency.map_or(-1, i128::from),
        settled: settled.unwrap_or_default(),
        delivery: due,
        expires: format::time(asked.effect.expires),
        attempts: match asked.outcome.as_ref().map(|outcome| outcome.attempts) {
            None | Some(0) => "never sent".to_owned(),
            Some(1) => "sent once".to_owned(),
            Some(attempts) => format!("sent {} times", format::grouped(attempts.into())),
        },
        abandoned: asked.standing.abandoned,
        body: body(&asked.effect.body),
        logs: shown.cause.logs.iter().take(LOGS_MAX).map(log).collect(),
        logs_more: shown.cause.logs.len().saturating_sub(LOGS_MAX),
        reads: shown.cause.tape.iter().take(ANSWERS_MAX).map(read).collect(),
        reads_more: answers_in_all.saturating_sub(ANSWERS_MAX),
    }
}

fn order(order: Order) -> OrderView {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let whole = |field: &Option<String>| format::group_digits(&text(field));
    let valid_to = match order.valid_to {
        None => String::new(),
        Some(u32::MAX) => "for ever".to_owned(),
        Some(seconds) => format::minute(seconds.into()),
    };
    let named = [
        ("Kind", order.kind.clone()),
        ("Owner", order.from.clone()),
        ("Receiver", order.receiver.clone()),
        ("Sells", Some(format!("{} of {}", whole(&order.sell_amount), text(&order.sell_token)))),
        ("Buys", Some(format!("{} of {}", whole(&order.buy_amount), text(&order.buy_token)))),
        ("Valid to", Some(format!("{valid_to} UTC")).filter(|_| order.valid_to.is_some())),
        ("Partially fillable", order.partially_fillable.map(|yes| yes.to_string())),
        ("Signing scheme", order.signing_scheme.clone()),
        ("App data", order.signed_app_data().cloned()),
    ];
    let fields = named.into_iter().filter_map(|(name, value)| Some((name, cut(&value?)))).collect();
    let owner = text(&order.from);
    OrderView {
        owner_ends: format::ends(&owner),
        owner,
        sell_amount: format::amount(&text(&order.sell_amount)),
        sell_token: format::ends(&text(&order.sell_token)),
        buy_amount: format::amount(&text(&order.buy_amount)),
        buy_token: format::ends(&text(&order.buy_token)),
        fields,
        valid_to,
    }
}

/// A body for reading: JSON on several lines, other text as it is, other bytes in hex.
fn body(bytes: &[u8]) -> String {
    let json = serde_json::from_slice::<serde_json::Value>(bytes).ok();
    match json.and_then(|value| serde_json::to_string_pretty(&value).ok()) {
        Some(pretty) => cut(&pretty),
        None => cut(&readable(bytes).map_or_else(|| hex::encode_prefixed(bytes), str::to_owned)),
    }
}

fn log(log: &Log) -> LogView {
    let said = known::event(&log.topics, &log.data);
    let is_known = said.is_some();
    let Said { name, arguments } =
        said.unwrap_or_else(|| Said { name: String::new(), arguments: Vec::new() });
    LogView {
        index: log.index,
        address: known::named(&log.address),
        event: name,
        arguments: flat(&arguments),
        topics: log.topics.iter().filter(|_| !is_known).map(ToString::to_string).collect(),
        data: data(&log.data),
    }
}

/// Arguments one by one, those inside of others by their own names.
fn flat(arguments: &[Argument]) -> Vec<(String, String)> {
    fn add(name: &str, value: &SaidValue, to: &mut Vec<(String, String)>) {
        match value {
            SaidValue::One(text) => to.push((name.to_owned(), cut(text))),
            SaidValue::Struct(arguments) => {
                for argument in arguments {
                    add(&argument.name, &argument.value, to);
                }
            }
            SaidValue::List(values) => {
                for (index, value) in values.iter().enumerate() {
                    add(&format!("{name} {index}"), value, to);
                }
            }
        }
    }
    let mut all = Vec::new();
    for argument in arguments {
        add(&argument.name, &argument.value, &mut all);
    }
    all.truncate(ARGUMENTS_MAX);
    all
}

fn read(entry: &TapeEntry) -> ReadView {
    let answers = match shepherd_host::answers(entry) {
        Ok(answers) => answers.iter().take(ANSWERS_MAX).map(answer).collect(),
        Err(error) => vec![("unreadable", error.to_string())],
    };
    ReadView { call: entry.call, request: entry.request.to_string(), answers }
}

fn answer(answer: &ReadAnswer) -> (&'static str, String) {
    let document = |document: &Option<String>| {
        document.as_ref().map_or_else(|| "unknown".to_owned(), |document| cut(document))
    };
    match answer {
        ReadAnswer::Returned(bytes) => ("returned", data(bytes)),
        ReadAnswer::Reverted(bytes) => {
            let Some(Said { name, arguments }) = known::error(bytes) else {
                return ("reverted", data(bytes));
            };
            let arguments: Vec<String> = flat(&arguments)
                .into_iter()
                .map(|(name, value)| format!("{name}: {value}"))
                .collect();
            ("reverted", format!("{name}({})", arguments.join(", ")))
        }
        ReadAnswer::Balance(wei) => {
            ("balance", format!("{} wei", format::group_digits(&wei.to_string())))
        }
        ReadAnswer::Code(bytes) => {
            ("code", format!("{} bytes", format::grouped(bytes.len() as u64)))
        }
        ReadAnswer::Storage(value) => ("storage", value.to_string()),
        ReadAnswer::Order(order) => ("order", document(order)),
        ReadAnswer::AppData(app_data) => ("app data", document(app_data)),
        ReadAnswer::Response { status, body: bytes } => {
            ("response", format!("{status}, {} bytes: {}", bytes.len(), body(bytes)))
        }
    }
}

/// Bytes as hex with their number, cut where they are many.
fn data(bytes: &[u8]) -> String {
    let count = bytes.len();
    match count {
        0 => "no bytes".to_owned(),
        1..=DATA_BYTES_MAX => format!("{count} bytes: {}", hex::encode_prefixed(bytes)),
        _ => format!("{count} bytes: {}…", hex::encode_prefixed(&bytes[..DATA_BYTES_MAX])),
    }
}

/// Text that takes no more room than its reader has patience for.
fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => {
            format!("{}… ({} more bytes)", &text[..end], format::grouped((text.len() - end) as u64))
        }
    }
}

/// What the template calls to show values.
#[expect(clippy::unnecessary_wraps, reason = "the shape of a filter")]
mod filters {
    use super::format;

    #[askama::filter_fn]
    pub fn round(value: &f64, _: &dyn askama::Values) -> askama::Result<String> {
        let text = format!("{value:.3}");
        Ok(text.trim_end_matches('0').trim_end_matches('.').to_owned())
    }

    #[askama::filter_fn]
    pub fn grouped(value: &u64, _: &dyn askama::Values) -> askama::Result<String> {
        Ok(format::grouped(*value))
    }

    #[askama::filter_fn]
    pub fn size(value: &u64, _: &dyn askama::Values) -> askama::Result<String> {
        Ok(format::bytes(*value))
    }
}
