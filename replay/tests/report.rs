//! What a report says is what was put in, in every one of its files.

#[path = "report/sample.rs"]
mod sample;

use std::{collections::BTreeMap, fs, fs::File, path::Path};

use arrow_array::{Array, BooleanArray, StringArray, UInt64Array, cast::AsArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sample::{HOSTILE, Sample, Size};
use shepherd_replay::{
    EFFECTS_FILE, README_FILE, REPORT_FILE, STATE_FILE, STEPS_FILE, SUMMARY_FILE, Spread, Summary,
    profile, write_report,
};

const SMALL: Size = Size { seed: 0, blocks: 900, orders: 240, warm_up: 100, is_hostile: false };

/// The seed of a test, printed so that it can be repeated.
fn seed() -> u64 {
    let given = std::env::var("SHEPHERD_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("repeat with SHEPHERD_SEED={seed}");
    seed
}

fn write(sample: &Sample) -> Summary {
    write_report(&sample.run, &sample.lane, &sample.about, &sample.journal).unwrap()
}

fn read(sample: &Sample, name: &str) -> String {
    fs::read_to_string(sample.run.dir().join(name)).unwrap()
}

#[test]
fn the_figures_of_a_summary_are_what_was_put_in() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::make(dir.path(), Size { seed: seed(), ..SMALL });
    let summary = write(&sample);
    let counted = &sample.counted;

    let effects = &summary.effects;
    let of = |what: &str| counted.effects.get(what).copied().unwrap_or(0);
    let expected =
        ["accepted", "already-there", "refused", "expired", "cancelled", "open", "abandoned"];
    let found = [
        effects.accepted,
        effects.already_there,
        effects.refused,
        effects.expired,
        effects.cancelled,
        effects.open,
        effects.abandoned,
    ];
    assert_eq!(found, expected.map(of));
    assert_eq!(effects.warm_up, of("warm_up"));
    assert_eq!(effects.asked, found.iter().sum::<u64>());
    assert!(effects.accepted > 50 && effects.warm_up > 0, "{effects:?}");

    let refusals: BTreeMap<String, u64> =
        summary.refusals.iter().map(|reason| (reason.reason.clone(), reason.count)).collect();
    assert_eq!(refusals, counted.refusals);
    assert!(summary.refusals.windows(2).all(|pair| pair[0].count >= pair[1].count));

    let mut latencies = counted.latencies.clone();
    assert_eq!(summary.latency_blocks, Spread::of(&mut latencies));

    assert_eq!(summary.calls.records, counted.records);
    assert_eq!(summary.calls.logs, counted.logs);
    assert_eq!(summary.calls.fuel, counted.fuel);
    assert_eq!(summary.profile.fuel.total, counted.fuel);
    assert_eq!(summary.window.reorgs, counted.reorgs);
    assert_eq!(summary.state.entries, counted.keys.len() as u64);
    assert!(summary.run.finished);

    let file: Summary = serde_json::from_str(&read(&sample, SUMMARY_FILE)).unwrap();
    assert_eq!(file, summary);
    let profile = profile(&sample.run, &sample.lane, &sample.about, &sample.journal).unwrap();
    assert_eq!(profile, summary.profile);
}

/// A column of all rows of a table, by what `of` makes of one value.
fn column<T>(dir: &Path, file: &str, name: &str, of: impl Fn(&dyn Array, usize) -> T) -> Vec<T> {
    let file = File::open(dir.join(file)).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let mut values = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let column = batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
        values.extend((0..column.len()).map(|row| of(column.as_ref(), row)));
    }
    values
}

fn number(array: &dyn Array, row: usize) -> u64 {
    array.as_any().downcast_ref::<UInt64Array>().unwrap().value(row)
}

fn text(array: &dyn Array, row: usize) -> String {
    array.as_any().downcast_ref::<StringArray>().unwrap().value(row).to_owned()
}

fn flag(array: &dyn Array, row: usize) -> bool {
    array.as_any().downcast_ref::<BooleanArray>().unwrap().value(row)
}

#[test]
fn tables_hold_every_row() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::make(dir.path(), Size { seed: seed(), ..SMALL });
    let summary = write(&sample);
    let counted = &sample.counted;
    let dir = sample.run.dir();

    let results = column(dir, EFFECTS_FILE, "result", text);
    let abandoned = column(dir, EFFECTS_FILE, "abandoned", flag);
    let warm_up = column(dir, EFFECTS_FILE, "warm_up", flag);
    assert_eq!(results.len() as u64, counted.asked_in_all);
    let mut effects: BTreeMap<String, u64> = BTreeMap::new();
    for (row, result) in results.iter().enumerate() {
        let what = match (warm_up[row], abandoned[row]) {
            (true, _) => "warm_up",
            (_, true) => "abandoned",
            _ => result,
        };
        *effects.entry(what.to_owned()).or_default() += 1;
    }
    assert_eq!(effects, counted.effects);

    let warm_up = column(dir, STEPS_FILE, "warm_up", flag);
    let fuel = column(dir, STEPS_FILE, "fuel", number);
    let counted_fuel = fuel.iter().zip(&warm_up).filter(|(_, warm_up)| !**warm_up);
    assert_eq!(counted_fuel.map(|(fuel, _)| fuel).sum::<u64>(), counted.fuel);
    assert_eq!(fuel.len() as u64, counted.records_in_all);
    let offsets = column(dir, STEPS_FILE, "offset", number);
    assert!(offsets.is_sorted());

    let binary = |array: &dyn Array, row: usize| array.as_binary::<i32>().value(row).to_vec();
    let keys = column(dir, STATE_FILE, "key", binary);
    assert_eq!(keys, counted.keys.iter().cloned().collect::<Vec<_>>());

    for name in [EFFECTS_FILE, STEPS_FILE, STATE_FILE] {
        let bytes = fs::metadata(dir.join(name)).unwrap().len();
        assert_eq!(summary.files[name].bytes, bytes, "{name}");
    }
    assert_eq!(summary.files[EFFECTS_FILE].rows, counted.asked_in_all);
    let leftovers = fs::read_dir(dir).unwrap().filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".unfinished")
    });
    assert_eq!(leftovers.count(), 0);
}

#[test]
fn every_column_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::make(dir.path(), Size { blocks: 120, orders: 20, ..SMALL });
    write(&sample);
    let readme = read(&sample, README_FILE);
    for name in [EFFECTS_FILE, STEPS_FILE, STATE_FILE] {
        let (_, section) = readme.split_once(&format!("## {name}")).expect("a section");
        let section = section.split("\n## ").next().unwrap();
        let file = File::open(sample.run.dir().join(name)).unwrap();
        let schema = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().schema().clone();
        for field in schema.fields() {
            assert!(section.contains(&format!("`{}`", field.name())), "{name}: {}", field.name());
        }
    }
}

/// What a browser makes of a page: its elements with their attributes, and that all are closed.
fn elements(page: &str) -> Vec<(String, Vec<(String, String)>)> {
    const VOID: [&str; 5] = ["meta", "br", "input", "img", "link"];
    let mut elements = Vec::new();
    let mut open: Vec<String> = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a page says that it is one");
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>'), "text with a `>`: {}", &rest[..start]);
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closed in the order they were opened");
            continue;
        }
        let (name, mut attributes) = match tag.find(char::is_whitespace) {
            Some(space) => (&tag[..space], tag[space..].trim_end_matches('/').trim()),
            None => (tag.trim_end_matches('/'), ""),
        };
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "<{tag}>");
        let mut found = Vec::new();
        while !attributes.is_empty() {
            let end = attributes.find(|c: char| c == '=' || c.is_whitespace());
            let (key, after) = attributes.split_at(end.unwrap_or(attributes.len()));
            let value =
                after.strip_prefix("=\"").map(|after| after.split_once('"').expect("quoted"));
            let (value, after) = value.unwrap_or(("", after));
            found.push((key.to_owned(), value.to_owned()));
            attributes = after.trim_start();
        }
        elements.push((name.to_owned(), found));
        if matches!(name, "script" | "style") {
            let close = format!("</{name}>");
            rest = &rest[rest.find(&close).expect("it is closed") + close.len()..];
        } else if !VOID.contains(&name) && !tag.ends_with('/') {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty(), "not closed: {open:?}");
    elements
}

#[test]
fn the_page_is_well_formed_asks_nobody_and_runs_nothing_it_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let size = Size { seed: seed(), is_hostile: true, ..SMALL };
    let sample = Sample::make(dir.path(), size);
    let summary = write(&sample);
    let page = read(&sample, REPORT_FILE);
    assert!(summary.effects.refused > 0);
    assert!(!page.contains(HOSTILE), "what a module says is escaped");
    assert!(page.contains("&lt;/pre&gt;") || page.contains("&#60;/pre&#62;"));

    assert!(HOSTILE.contains('\u{202e}') && !page.contains('\u{202e}'), "no text is turned around");

    let elements = elements(&page);
    let count = |name: &str| elements.iter().filter(|(element, _)| element == name).count();
    assert_eq!((count("script"), count("style"), count("img"), count("link")), (1, 1, 0, 0));
    assert_eq!(count("h1"), 1);
    for (element, attributes) in &elements {
        for (name, value) in attributes {
            assert!(!name.starts_with("on"), "<{element} {name}>");
            let is_reference = matches!(name.as_str(), "src" | "href" | "action" | "srcset");
            assert!(!is_reference || value.starts_with('#'), "<{element} {name}={value}>");
            assert!(!value.contains("url("), "<{element} {name}={value}>");
        }
    }
    let style = page.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
    assert!(!style.contains("url(") && !style.contains("@import"));
    let policy = elements.iter().flat_map(|(_, attributes)| attributes);
    let mut policy = policy.filter(|(name, _)| name == "content");
    assert!(policy.any(|(_, value)| value.contains("default-src") && value.contains("none")));
}

#[test]
fn the_page_shows_a_stated_part_of_very_many_effects() {
    let dir = tempfile::tempdir().unwrap();
    let size = Size { blocks: 700, orders: 1_800, warm_up: 0, ..SMALL };
    let sample = Sample::make(dir.path(), size);
    let summary = write(&sample);
    let page = read(&sample, REPORT_FILE);
    assert!(summary.effects.asked > 1_100, "{:?}", summary.effects);
    let shown = page.matches("<tbody class=\"effect").count();
    assert_eq!(shown, 1_000);
    let refused = page.matches("data-result=\"refused\"").count() as u64;
    assert_eq!(refused, summary.effects.refused, "those one looks for are all there");
    let all = column(sample.run.dir(), EFFECTS_FILE, "offset", number).len() as u64;
    assert_eq!(all, sample.counted.asked_in_all);
    assert!(page.contains("1\u{202f}000 of"), "the page says how many it shows");
}

#[test]
fn a_report_is_written_again_when_the_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut sample = Sample::make(dir.path(), SMALL);
    let half = sample.about.window.end;
    sample.about.window.end = half.plus(10);
    let summary = write(&sample);
    assert!(!summary.run.finished);
    assert!(read(&sample, REPORT_FILE).contains("interrupted"));
    sample.about.window.end = half;
    let summary = write(&sample);
    assert!(summary.run.finished);
    assert!(!read(&sample, REPORT_FILE).contains("interrupted"));
}

#[test]
fn a_run_that_asked_for_nothing_has_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let size = Size { blocks: 40, orders: 0, warm_up: 0, ..SMALL };
    let sample = Sample::make(dir.path(), size);
    let summary = write(&sample);
    assert_eq!(summary.effects.asked, 0);
    let page = read(&sample, REPORT_FILE);
    elements(&page);
    assert!(page.contains("No orders were asked for in 40 blocks."));
}

/// Writes a week to look at into the folder that `SHEPHERD_SAMPLE` names.
#[test]
#[ignore = "makes something to look at"]
fn sample_week() {
    let folder = std::env::var_os("SHEPHERD_SAMPLE").expect("SHEPHERD_SAMPLE names a folder");
    let size = |name: &str, otherwise: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let size = Size {
        seed: size("SHEPHERD_SEED", 7),
        blocks: size("SHEPHERD_SAMPLE_BLOCKS", 50_400 + 1_200),
        orders: size("SHEPHERD_SAMPLE_ORDERS", 640),
        warm_up: 1_200,
        is_hostile: std::env::var_os("SHEPHERD_SAMPLE_HOSTILE").is_some(),
    };
    let sample = Sample::make(Path::new(&folder), size);
    let begun = std::time::Instant::now();
    let summary = write(&sample);
    println!("{:?} in {:?}", summary.effects, begun.elapsed());
}
