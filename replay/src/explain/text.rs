//! An explanation as text that reads from the top.

use std::fmt::{self, Write as _};

use alloy_primitives::hex;

use crate::explain::{
    EarlierLog, Explanation, Fate, Handled, Handling, Occasion,
    asked::Question,
    known::{Argument, Said, Value},
    occasion::{BlockCause, LogSeen},
    shown,
    wish::Wish,
};

/// Longest answer or value on a line, in characters.
const LINE_CHARS_MAX: usize = 200;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explanation { lane, effect, wish, block, .. } = self;
        writeln!(f, "{lane} asked for {} {}", wish.kind, wish.key)?;
        writeln!(f, "  effect {effect}, at block {} ({})", block.number, block.hash)?;
        match &self.version {
            Some(version) => {
                let from = version.from;
                writeln!(f, "  by module {}, which ran from record {from} on", version.module)?;
            }
            None => writeln!(f, "  by a module that was not written down")?,
        }
        f.write_str("\nWhat it asked for\n")?;
        write_wish(f, wish)?;
        f.write_str("\nBecause of\n")?;
        match &self.occasion {
            Some(occasion) => write_occasion(f, occasion)?,
            None => f.write_str("  a record that has been trimmed since\n")?,
        }
        if !self.earlier.is_empty() {
            f.write_str("\nWhat it was told before of the order's owner\n")?;
        }
        for earlier in &self.earlier {
            let EarlierLog { record, block, timestamp, log } = earlier;
            let time = shown::time(*timestamp).unwrap_or_else(|| timestamp.to_string());
            writeln!(f, "  record {record}: block {block} of {time}")?;
            write_log(f, log)?;
        }
        match &self.handling {
            Handled::Handling(handling) => write_handling(f, handling)?,
            Handled::NotShown(why) => {
                writeln!(f, "\nHow it was handled cannot be shown\n  {why}")?;
            }
        }
        if self.is_reproduced == Some(false) {
            f.write_str(
                "\n  What is shown is what the lane's module makes of the record now. It does not \
                 ask for\n  this effect as it is stored: the lane was rebuilt with another version \
                 since.\n",
            )?;
        }
        f.write_str("\nWhat came of it\n")?;
        writeln!(f, "  {}", fate(&self.fate))?;
        for sibling in &self.same_key {
            let words = fate(&sibling.fate);
            writeln!(
                f,
                "  also asked for as effect {}, at block {}: {words}",
                sibling.effect, sibling.block
            )?;
        }
        Ok(())
    }
}

fn write_wish(f: &mut fmt::Formatter<'_>, wish: &Wish) -> fmt::Result {
    let mut fields: Vec<(String, String)> = Vec::new();
    if let Some(destination) = &wish.destination {
        fields.push(("to".to_owned(), format!("webhook {destination}")));
    }
    fields.extend(wish.fields().into_iter().map(|field| (field.name, field.value)));
    fields.push(("may leave".to_owned(), wish.deliver.clone()));
    if let Some(time) = shown::time(wish.expires) {
        fields.push(("expires".to_owned(), time));
    }
    write_fields(f, "  ", &fields)
}

fn write_fields(
    f: &mut fmt::Formatter<'_>,
    indent: &str,
    fields: &[(String, String)],
) -> fmt::Result {
    let width = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in fields {
        writeln!(f, "{indent}{name:width$}  {}", cut(value))?;
    }
    Ok(())
}

fn write_occasion(f: &mut fmt::Formatter<'_>, occasion: &Occasion) -> fmt::Result {
    match occasion {
        Occasion::Block(cause) => write_block(f, cause),
        Occasion::Outcome { record, effect, key, result, head } => {
            writeln!(
                f,
                "  record {record}: what came of its effect {effect}, told at block {}",
                head.number
            )?;
            writeln!(f, "  {result}: {key}")
        }
        Occasion::Revert { record, ancestor, abandoned } => {
            let blocks = counted(*abandoned as u64, "block");
            writeln!(f, "  record {record}: a reorg took back {blocks} after {}", ancestor.number)
        }
    }
}

fn write_block(f: &mut fmt::Formatter<'_>, cause: &BlockCause) -> fmt::Result {
    let time = shown::time(cause.timestamp).unwrap_or_else(|| cause.timestamp.to_string());
    writeln!(f, "  record {}: block {} of {time}", cause.record, cause.block.number)?;
    if let Some(revert) = cause.taken_back_by {
        writeln!(f, "  a reorg took the block back at record {revert}")?;
    }
    let mut reasons = Vec::new();
    if !cause.logs.is_empty() {
        reasons.push(format!(
            "{} of its {}",
            cause.logs.len(),
            counted(cause.logs_in_block as u64, "log")
        ));
    }
    if cause.every_block {
        reasons.push("the block itself".to_owned());
    }
    if cause.tick {
        reasons.push("a tick of block time".to_owned());
    }
    if !reasons.is_empty() {
        writeln!(f, "  for which the module was called because of {}", reasons.join(" and "))?;
    }
    cause.logs.iter().try_for_each(|log| write_log(f, log))
}

fn write_log(f: &mut fmt::Formatter<'_>, log: &LogSeen) -> fmt::Result {
    let contract = log.contract.map(|name| format!(" ({name})")).unwrap_or_default();
    write!(f, "  log {} of {}{contract}, ", log.index, log.address)?;
    match &log.said {
        Some(said) => {
            writeln!(f, "{}", said.name)?;
            write_arguments(f, 3, &said.arguments)?;
        }
        None => {
            let topics: Vec<String> = log.topics.iter().map(ToString::to_string).collect();
            writeln!(f, "topics {}, data {}", topics.join(" "), cut(&log.data))?;
        }
    }
    writeln!(f, "    in transaction {}", log.transaction)
}

fn write_arguments(
    f: &mut fmt::Formatter<'_>,
    depth: usize,
    arguments: &[Argument],
) -> fmt::Result {
    let width = arguments.iter().map(|argument| argument.name.chars().count()).max().unwrap_or(0);
    let indent = "  ".repeat(depth.saturating_sub(1));
    for Argument { name, value } in arguments {
        match value {
            Value::One(value) => writeln!(f, "{indent}{name:width$}  {}", cut(value))?,
            Value::Struct(inner) => {
                writeln!(f, "{indent}{name}")?;
                write_arguments(f, depth + 1, inner)?;
            }
            Value::List(values) => {
                let all: Vec<String> = values.iter().map(inline).collect();
                writeln!(f, "{indent}{name:width$}  [{}]", cut(&all.join(", ")))?;
            }
        }
    }
    Ok(())
}

fn write_handling(f: &mut fmt::Formatter<'_>, handling: &Handling) -> fmt::Result {
    f.write_str("\nWhat it read\n")?;
    if handling.reads.is_empty() {
        f.write_str("  nothing\n")?;
    }
    for (call, read) in (1..).zip(&handling.reads) {
        let questions = counted(read.questions.len() as u64, "question");
        writeln!(f, "  read {call}, {questions} at block {}", read.block)?;
        read.questions.iter().try_for_each(|question| write_question(f, question))?;
    }
    f.write_str("\nWhat it changed in its state\n")?;
    if handling.changes.is_empty() {
        f.write_str("  nothing\n")?;
    }
    for change in &handling.changes {
        writeln!(f, "  {}", cut(&change.key))?;
        let value = |value: &Option<String>| value.as_deref().map_or("nothing".to_owned(), cut);
        writeln!(f, "    before  {}", value(&change.before))?;
        writeln!(f, "    after   {}", value(&change.after))?;
    }
    if handling.changes_left_out > 0 {
        writeln!(f, "  and {} more", handling.changes_left_out)?;
    }
    f.write_str("\nWhat it said\n")?;
    if handling.lines.is_empty() {
        f.write_str("  nothing\n")?;
    }
    for line in &handling.lines {
        writeln!(f, "  {:5}  {}", line.level, line.message)?;
    }
    if handling.lines_dropped > 0 {
        writeln!(f, "  and {} beyond the limit", counted(handling.lines_dropped, "line"))?;
    }
    writeln!(
        f,
        "\nIt took {} fuel and asked for {} in all",
        handling.fuel,
        counted(handling.effects.len() as u64, "effect")
    )
}

fn write_question(f: &mut fmt::Formatter<'_>, asked: &Question) -> fmt::Result {
    match &asked.asks {
        // On lines of their own when they would not fit on one.
        Some(said) if !is_short(&said.arguments) => {
            writeln!(f, "    call {}: {}", of(asked), said.name)?;
            write_arguments(f, 5, &said.arguments)?;
        }
        _ => writeln!(f, "    {}", cut(&question(asked)))?,
    }
    if is_short(&asked.says) {
        return writeln!(f, "      {}", cut(&answer(asked)));
    }
    f.write_str("      returned\n")?;
    write_arguments(f, 5, &asked.says)
}

fn is_short(arguments: &[Argument]) -> bool {
    let inline: usize = arguments.iter().map(|argument| named(argument).chars().count()).sum();
    inline <= LINE_CHARS_MAX
}

/// Whom a question is about.
fn of(question: &Question) -> String {
    let contract = question.contract.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    format!("{}{contract}", question.of)
}

/// A question in words.
pub(crate) fn question(question: &Question) -> String {
    let of = of(question);
    let data = question.data.as_deref().unwrap_or_default();
    match question.kind.as_str() {
        "call" => match &question.asks {
            Some(said) => format!("call {of}: {}", call(said)),
            None => format!("call {of}: {data}"),
        },
        "storage" => format!("storage of {of} at {data}"),
        "get" => format!("get {of}"),
        "app-data" => format!("app data {of}"),
        "order" => format!("order {of} at the orderbook"),
        kind => format!("{kind} of {of}"),
    }
}

fn call(said: &Said) -> String {
    let arguments: Vec<String> = said.arguments.iter().map(named).collect();
    format!("{}({})", said.name, arguments.join(", "))
}

/// An answer in words.
pub(crate) fn answer(question: &Question) -> String {
    match (question.answered.as_str(), &question.error) {
        ("returned", _) if !question.says.is_empty() => {
            let says: Vec<String> = question.says.iter().map(named).collect();
            format!("returned {}", says.join(", "))
        }
        ("returned", _) => match question.number() {
            Some(number) => format!("returned {} ({number})", question.answer),
            None => format!("returned {}", question.answer),
        },
        ("reverted", Some(error)) => format!("reverted with {}", call(error)),
        ("reverted", None) if question.answer == "0x" => "reverted without saying why".to_owned(),
        ("reverted", None) => format!("reverted with {}", question.answer),
        ("unknown", _) => "is not known there".to_owned(),
        ("is", _) => question.answer.clone(),
        (status, _) => format!("answered {status}: {}", question.answer),
    }
}

fn named(argument: &Argument) -> String {
    match argument.name.as_str() {
        "" => inline(&argument.value),
        name => format!("{name} {}", inline(&argument.value)),
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::One(value) => value.clone(),
        Value::Struct(inner) => {
            let inner: Vec<String> = inner.iter().map(named).collect();
            format!("({})", inner.join(", "))
        }
        Value::List(values) => {
            let values: Vec<String> = values.iter().map(inline).collect();
            format!("[{}]", values.join(", "))
        }
    }
}

fn fate(fate: &Fate) -> String {
    let mut words = match fate.result.as_str() {
        "waiting" => "it waits to be sent".to_owned(),
        "attempted" => "it was sent, and no answer is known yet".to_owned(),
        "orphaned" => {
            "it was sent before its block was taken back, and no answer is known".to_owned()
        }
        "taken-back" => "its block was taken back before it was sent, so it never was".to_owned(),
        "unknown" => "its outcome is no longer kept".to_owned(),
        result => result.to_owned(),
    };
    if let Some(reason) = &fate.reason {
        _ = write!(words, " ({reason})");
    }
    if let (Some(block), Some(later)) = (fate.block, fate.blocks_later) {
        _ = write!(words, ", known at block {block}, {} later", counted(later, "block"));
    }
    if let Some(attempts) = fate.attempts {
        _ = write!(words, ", after {}", counted(attempts.into(), "attempt"));
    }
    if let Some(at) = &fate.at {
        _ = write!(words, ", at {at}");
    }
    if let Some(record) = fate.record {
        _ = write!(words, " (record {record})");
    }
    if let Some(revert) = fate.taken_back_by {
        _ = write!(words, "; its block was taken back at record {revert}");
    }
    words
}

/// A number of things.
pub(crate) fn counted(number: u64, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        number => format!("{number} {thing}s"),
    }
}

/// A text short enough for a line: long hex and long text are cut and marked.
pub(crate) fn cut(text: &str) -> String {
    let length = text.chars().count();
    if length <= LINE_CHARS_MAX {
        return text.to_owned();
    }
    let start: String = text.chars().take(LINE_CHARS_MAX).collect();
    let bytes = text.strip_prefix("0x").and_then(|digits| hex::decode(digits).ok());
    match bytes {
        Some(bytes) => format!("{start}… ({} bytes)", bytes.len()),
        None => format!("{start}… ({length} characters)"),
    }
}
