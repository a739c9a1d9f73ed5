//! How two runs differ, as text that reads from the top.

use std::fmt;

use crate::{
    diff::{
        AnswerDifference, AspectSeen, Differences, EffectDifference, First, FuelTotals, Look,
        Place, Ran, ValueDifference,
    },
    explain::{
        shown,
        text::{answer, counted, cut, question},
    },
};

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (a, b) = (&self.sides.a, &self.sides.b);
        let verdict = if self.is_same { "the same" } else { "different" };
        let decides: Vec<&str> = self
            .aspects
            .iter()
            .filter(|seen| seen.decides)
            .map(|seen| seen.aspect.as_str())
            .collect();
        writeln!(f, "A and B are {verdict} in {}", list(&decides))?;
        write_side(f, "A", a)?;
        write_side(f, "B", b)?;
        writeln!(f, "  compared from record {} up to record {}", self.from, self.end)?;
        if a.next != b.next {
            f.write_str("  one of them ends before the other\n")?;
        }
        f.write_str("\nRecords that differ\n")?;
        self.aspects.iter().try_for_each(|seen| write_aspect(f, seen))?;
        if let Some(first) = &self.first {
            write_first(f, first)?;
        }
        self.write_effects(f)?;
        write_fuel(f, &self.fuel)?;
        self.write_state(f)
    }
}

impl Differences {
    fn write_effects(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effects = &self.effects;
        f.write_str("\nEffects\n")?;
        let rows = [
            ("asked for in A", effects.asked.a),
            ("asked for in B", effects.asked.b),
            ("the same in both", effects.common),
            ("the same, at another record", effects.moved),
            ("the same key, other fields", effects.other_fields),
            ("only in A", effects.only.a),
            ("only in B", effects.only.b),
        ];
        for (name, number) in rows {
            writeln!(f, "  {name:28} {number:>10}")?;
        }
        for (result, count) in &effects.outcomes {
            writeln!(f, "  {result:28} {:>10} in A {:>10} in B", count.a, count.b)?;
        }
        effects.listed.iter().try_for_each(|effect| write_effect(f, effect))
    }

    fn write_state(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = &self.state;
        f.write_str("\nState at the end\n")?;
        let rows = [
            ("keys only in A", state.only.a),
            ("keys only in B", state.only.b),
            ("keys with another value", state.other_value),
        ];
        for (name, number) in rows {
            writeln!(f, "  {name:28} {number:>10}")?;
        }
        state.listed.iter().try_for_each(|value| write_value(f, value))?;
        let all = state.only.a + state.only.b + state.other_value;
        let left = all.saturating_sub(state.listed.len() as u64);
        if left > 0 {
            writeln!(f, "  and {left} more")?;
        }
        Ok(())
    }
}

fn list(words: &[&str]) -> String {
    match words {
        [] => "nothing, since no aspect decides".to_owned(),
        [one] => (*one).to_owned(),
        [start @ .., last] => format!("{} and {last}", start.join(", ")),
    }
}

fn write_side(f: &mut fmt::Formatter<'_>, letter: &str, ran: &Ran) -> fmt::Result {
    let block = ran.block.map_or("no block".to_owned(), |block| format!("block {}", block.number));
    let Ran { name, lane, next, handled, .. } = ran;
    let handled = counted(*handled, "record");
    writeln!(f, "  {letter}  {name}: {lane}, at record {next}, {block}; called for {handled}")
}

fn place(place: &Place) -> String {
    let time = shown::time(place.timestamp).unwrap_or_else(|| place.timestamp.to_string());
    format!("record {}, block {} ({time})", place.record, place.block.number)
}

fn write_aspect(f: &mut fmt::Formatter<'_>, seen: &AspectSeen) -> fmt::Result {
    let AspectSeen { aspect, decides, records, first } = seen;
    write!(f, "  {:8} {records:>10}", aspect.as_str())?;
    if let Some(first) = first {
        write!(f, "  first at {}", place(first))?;
    }
    f.write_str(if *decides { "\n" } else { "  (does not decide)\n" })
}

fn write_first(f: &mut fmt::Formatter<'_>, first: &First) -> fmt::Result {
    let aspects: Vec<&str> = first.aspects.iter().map(|aspect| aspect.as_str()).collect();
    writeln!(f, "\nThe first that decides: {}", place(&first.place))?;
    writeln!(f, "  of kind {}, it differs in {}", first.kind, list(&aspects))?;
    match (first.handled.a, first.handled.b) {
        (true, false) => f.write_str("  only A's module was called for it\n")?,
        (false, true) => f.write_str("  only B's module was called for it\n")?,
        _ => (),
    }
    match &first.state {
        Look::Seen(values) => values.iter().try_for_each(|value| write_value(f, value))?,
        Look::NotSeen(why) => writeln!(f, "  its state and reads are not shown: {why}")?,
    }
    first.effects.iter().try_for_each(|effect| write_effect(f, effect))?;
    if let Look::Seen(reads) = &first.reads {
        reads.iter().try_for_each(|difference| write_answers(f, difference))?;
    }
    writeln!(f, "  fuel: {} in A, {} in B", first.fuel.a, first.fuel.b)
}

fn write_value(f: &mut fmt::Formatter<'_>, difference: &ValueDifference) -> fmt::Result {
    let ValueDifference { key, before, a, b } = difference;
    let value = |value: &Option<String>| value.as_deref().map_or("nothing".to_owned(), cut);
    writeln!(f, "  key {}", cut(key))?;
    if before.is_some() {
        writeln!(f, "    before  {}", value(before))?;
    }
    writeln!(f, "    A       {}", value(a))?;
    writeln!(f, "    B       {}", value(b))
}

fn write_effect(f: &mut fmt::Formatter<'_>, difference: &EffectDifference) -> fmt::Result {
    let EffectDifference { how, kind, key, a, b, fields } = difference;
    let id = |id: &Option<String>| id.clone().unwrap_or_default();
    match how.as_str() {
        "only-a" => writeln!(f, "  only in A: {kind} {key} ({})", id(a))?,
        "only-b" => writeln!(f, "  only in B: {kind} {key} ({})", id(b))?,
        "moved" => writeln!(f, "  moved: {kind} {key} (A {}, B {})", id(a), id(b))?,
        _ => writeln!(f, "  other fields: {kind} {key} (A {}, B {})", id(a), id(b))?,
    }
    for field in fields {
        let value = |value: &Option<String>| value.as_deref().map_or("nothing".to_owned(), cut);
        writeln!(f, "    {}: {} in A, {} in B", field.name, value(&field.a), value(&field.b))?;
    }
    Ok(())
}

fn write_answers(f: &mut fmt::Formatter<'_>, difference: &AnswerDifference) -> fmt::Result {
    match (&difference.a, &difference.b) {
        (Some(a), None) => {
            writeln!(f, "  only A asks: {}", cut(&question(a)))?;
            writeln!(f, "    {}", cut(&answer(a)))
        }
        (None, Some(b)) => {
            writeln!(f, "  only B asks: {}", cut(&question(b)))?;
            writeln!(f, "    {}", cut(&answer(b)))
        }
        (Some(a), Some(b)) => {
            writeln!(f, "  both ask: {}", cut(&question(a)))?;
            writeln!(f, "    A  {}", cut(&answer(a)))?;
            writeln!(f, "    B  {}", cut(&answer(b)))
        }
        (None, None) => Ok(()),
    }
}

fn write_fuel(f: &mut fmt::Formatter<'_>, fuel: &FuelTotals) -> fmt::Result {
    let (a, b) = (&fuel.sides.a, &fuel.sides.b);
    f.write_str("\nFuel                                    A               B   B / A\n")?;
    let ratio = |ratio: Option<f64>| ratio.map_or(String::new(), |ratio| format!("{ratio:.3}"));
    for (name, a, b, of) in [
        ("in all", a.total, b.total, ratio(fuel.total_ratio)),
        ("p99 of a block", a.p99_per_block, b.p99_per_block, ratio(fuel.p99_ratio)),
        ("most of a block", a.max_per_block, b.max_per_block, String::new()),
        ("blocks", a.blocks, b.blocks, String::new()),
    ] {
        writeln!(f, "{}", format!("  {name:22} {a:>15} {b:>15}   {of}").trim_end())?;
    }
    Ok(())
}
