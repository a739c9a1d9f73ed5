//! Writing to standard output: text, JSON and tables.

use std::io::{self, Write};

use bytesize::ByteSize;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::HumanCount;
use serde::Serialize;

/// Writes to standard output.
///
/// When the reader has gone (`shepherd … | head`) nobody is left to tell: the process ends.
/// `println!` would panic.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Writes a value as indented JSON.
pub fn print_json(value: &impl Serialize) {
    let text = serde_json::to_string_pretty(value).expect("views have string keys");
    print(&format!("{text}\n"));
}

/// Writes a value as JSON on one line.
pub fn print_json_line(value: &impl Serialize) {
    let text = serde_json::to_string(value).expect("views have string keys");
    print(&format!("{text}\n"));
}

/// An empty table: columns apart by two spaces, no lines, nothing wrapped when piped.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table
}

/// Writes a table without the blanks that would end its lines.
pub fn print_table(table: &mut Table) {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for line in table.lines() {
        print(&format!("{}\n", line.trim_end()));
    }
}

/// A count and its noun: `1 block`, `2 blocks`.
pub fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// A number with its thousands apart: `1,234,567`.
pub fn grouped(number: u64) -> String {
    HumanCount(number).to_string()
}

/// A size as people read it: `1.5 GiB`.
pub fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}
