//! The commands that print what is stored: cursors, records, state.

use shepherd_admin::{
    query::RECORDS_MAX,
    view::{
        EffectView, JournalView, OffsetView, OutboxView, OutcomeView, RecordView, UnsettledView,
        bytes,
    },
};

use crate::{
    cli,
    config::Config,
    exit::{Code, Failure, Problem},
    show::{count, print, print_json, print_json_line, print_table, table},
    view::{View, the_chain},
};

/// Longest value that a table shows whole, in bytes: two words of the EVM.
const VALUE_BYTES_SHOWN: usize = 64;

/// `shepherd cursor list`.
pub fn cursors(config: &Config, args: &cli::Json) -> Result<(), Failure> {
    let cursors = View::open(config)?.cursors()?;
    if args.json {
        print_json(&cursors);
        return Ok(());
    }
    if cursors.cursors.is_empty() {
        print("No lane has started yet.\n");
        return Ok(());
    }
    let mut rows = table(&["LANE", "STATE", "SINCE", "BLOCK", "NEXT", "TAIL", "BEHIND", "FAULTS"]);
    for cursor in &cursors.cursors {
        rows.add_row([
            cursor.lane.clone(),
            cursor.state.name.clone(),
            cursor.state.since.clone().unwrap_or_else(|| "-".to_owned()),
            cursor.block.as_ref().map_or("-".to_owned(), |block| block.number.to_string()),
            cursor.next.to_string(),
            cursor.tail.to_string(),
            behind(cursor.lag_records, cursor.lag_blocks),
            cursor.faults.to_string(),
        ]);
    }
    print_table(&mut rows);
    for cursor in &cursors.cursors {
        if let Some(reason) = &cursor.state.reason {
            print(&format!("\n{}: {reason}\n", cursor.lane));
        }
    }
    Ok(())
}

fn behind(lag_records: u64, lag_blocks: u64) -> String {
    match (lag_records, lag_blocks) {
        (0, _) => "-".to_owned(),
        // Reverts that take back what the lane has not seen yet leave it level with the head.
        (records, 0) => count(records, "record"),
        (_, blocks) => count(blocks, "block"),
    }
}

/// `shepherd journal tail`.
pub fn tail(config: &Config, args: &cli::Tail) -> Result<(), Failure> {
    let chain = the_chain(config, args.chain.as_ref())?;
    let view = View::open(config)?;
    let tail = view.records(&chain, None, 1)?.tail;
    let mut next = OffsetView(tail.0.saturating_sub(args.records));
    if !args.json {
        print(&format!("{:<10}{:<11}{:<21}{:>5}  HASH\n", "OFFSET", "BLOCK", "TIME", "LOGS"));
    }
    // As many pages as it takes to reach what was the tail; what came since is there too.
    while next < tail {
        next = print_records(view.records(&chain, Some(next), RECORDS_MAX)?, args.json);
    }
    if !args.follow {
        return Ok(());
    }
    loop {
        let Some(page) = view.wait(&chain, next) else {
            let message =
                "no daemon is running on this data directory, so nothing will be appended";
            return Err(Problem::new(Code::Failed, message).help("start `shepherd run`").into());
        };
        next = print_records(page?, args.json);
    }
}

/// Prints a page and returns where the next one starts.
fn print_records(page: JournalView, json: bool) -> OffsetView {
    for record in &page.records {
        if json {
            print_json_line(record);
        } else {
            print(&record_line(record));
        }
    }
    page.next
}

fn record_line(record: &RecordView) -> String {
    match record {
        RecordView::Block { offset, block, time, logs, abandoned_by, .. } => {
            let note = abandoned_by.as_ref().map(|by| format!("  abandoned by {by}"));
            let (number, hash) = (block.number, &block.hash);
            let note = note.unwrap_or_default();
            format!("{offset:<10}{number:<11}{time:<21}{logs:>5}  {hash}{note}\n")
        }
        RecordView::Revert { offset, ancestor, abandoned, .. } => {
            let blocks = count(*abandoned, "block");
            let (number, hash) = (ancestor.number, &ancestor.hash);
            format!("{offset:<10}revert of {blocks}, back to {number:<11}{hash}\n")
        }
        RecordView::Outcome { offset, module, outcome } => {
            let OutcomeView { effect, key, .. } = outcome;
            let result = result(outcome);
            format!("{offset:<10}outcome of effect {effect} of {module}: {result}  {key}\n")
        }
    }
}

/// `shepherd state list`.
pub fn state(config: &Config, args: &cli::State) -> Result<(), Failure> {
    let view = View::open(config)?;
    let page = view.state(&args.lane, &args.prefix, args.after.as_ref(), args.limit as usize)?;
    if args.json {
        print_json(&page);
        return Ok(());
    }
    print(&format!("State of {} before record {}\n\n", page.lane, page.next));
    if page.entries.is_empty() {
        print("No entries.\n");
        return Ok(());
    }
    let mut rows = table(&["KEY", "VALUE"]);
    for entry in &page.entries {
        rows.add_row([entry.key.clone(), shortened(&entry.value)]);
    }
    print_table(&mut rows);
    if let Some(after) = &page.more_after {
        print(&format!("\nThere is more: --after {after}\n"));
    }
    Ok(())
}

fn shortened(value: &str) -> String {
    let digits_shown = bytes(&[0; VALUE_BYTES_SHOWN]).len();
    match value.get(..digits_shown) {
        Some(start) if value.len() > digits_shown => {
            format!("{start}… ({} bytes)", (value.len() - 2) / 2)
        }
        _ => value.to_owned(),
    }
}

/// `shepherd outbox list`.
pub fn outboxes(config: &Config, args: &cli::OutboxList) -> Result<(), Failure> {
    let view = View::open(config)?;
    let lanes = match &args.lane {
        Some(lane) => vec![lane.clone()],
        None => {
            let cursors = view.cursors()?.cursors;
            cursors.iter().map(|cursor| cursor.lane.parse().expect("lanes are named so")).collect()
        }
    };
    let mut outboxes = Vec::new();
    for lane in &lanes {
        let mut outbox = view.outbox(lane, None)?;
        // As many pages as there are. What is asked for in the meantime may be among them.
        while let Some(after) = outbox.more_after.take() {
            let page = view.outbox(lane, Some(&after))?;
            outbox.effects.extend(page.effects);
            outbox.more_after = page.more_after;
        }
        outboxes.push(outbox);
    }
    if args.json {
        print_json(&outboxes);
        return Ok(());
    }
    if outboxes.iter().all(|outbox| outbox.effects.is_empty()) {
        print("Nothing waits to be sent or answered.\n");
        return Ok(());
    }
    let mut rows = table(&["LANE", "EFFECT", "STATE", "BLOCK", "DELIVER", "EXPIRES", "KEY"]);
    for OutboxView { lane, effects, .. } in &outboxes {
        for UnsettledView { effect, key, block, state, deliver, expires } in effects {
            let block = block.number.to_string();
            rows.add_row([lane, effect, state, &block, deliver, expires, key]);
        }
    }
    print_table(&mut rows);
    Ok(())
}

/// `shepherd outbox show`.
pub fn effect(config: &Config, args: &cli::OutboxShow) -> Result<(), Failure> {
    let view = View::open(config)?.effect(&args.lane, args.effect)?;
    if args.json {
        print_json(&view);
        return Ok(());
    }
    print(&effect_text(&view));
    Ok(())
}

fn effect_text(view: &EffectView) -> String {
    let UnsettledView { effect, key, block, state, deliver, expires } = &view.effect;
    let mut text = format!(
        "Effect {effect} of {}: {state}\n\n\
         key       {key}\n\
         block     {} {}\n\
         deliver   {deliver}\n\
         expires   {expires}\n",
        view.lane, block.number, block.hash
    );
    match &view.outcome {
        Some(outcome) => {
            text += &format!(
                "result    {}\n\
                 attempts  {}\n\
                 known     {}\n",
                result(outcome),
                outcome.attempts,
                outcome.time
            );
        }
        None if state == "settled" => {
            text += "result    not looked for: its record was removed, or is too far behind\n";
        }
        None => (),
    }
    text += &format!("body      {}\n", view.body);
    if let Some(body) = &view.refusal_body {
        text += &format!("answer    {body}\n");
    }
    text
}

/// What came of an effect, in one line.
fn result(outcome: &OutcomeView) -> String {
    let OutcomeView { result, reason, refusal, .. } = outcome;
    match (reason, refusal) {
        (Some(reason), _) => format!("{result} ({reason})"),
        (None, Some(refusal)) => {
            let error_type = refusal.error_type.as_deref().unwrap_or("no error type");
            format!("{result} ({}, {error_type})", refusal.status)
        }
        (None, None) => result.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_shown_by_its_beginning() {
        let (short, long) = (bytes(&[7; 64]), bytes(&[7; 65]));
        assert_eq!(shortened(&short), short);
        assert_eq!(shortened(&long), format!("{short}… (65 bytes)"));
    }

    #[test]
    fn a_lane_is_behind_by_blocks_or_by_what_takes_them_back() {
        for (records, blocks, expected) in
            [(0, 0, "-"), (5, 4, "4 blocks"), (1, 1, "1 block"), (2, 0, "2 records")]
        {
            assert_eq!(behind(records, blocks), expected);
        }
    }
}
