//! Medians, and the page they are written to.

use std::{fs, path::Path, process::Command, time::Instant};

use anyhow::Context;

/// What was measured so far.
pub struct Report {
    /// Runs of each measurement.
    pub runs: usize,
    /// As of the start, when the program has just been built: others may commit while it runs.
    conditions: String,
    sections: Vec<Section>,
}

struct Section {
    title: &'static str,
    about: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    /// What is said below the table.
    notes: Vec<String>,
    /// How often it was measured.
    times: String,
}

/// What stands before the first section.
const PREFACE: &str = "# Benchmarks

Written by `cargo xtask bench`; do not edit. Each figure is the median of the runs named with it, with the spread in
brackets, beside a limit measured in the same run. The machine is shared: compare ratios, not digits.

";

/// What begins a section.
const HEADING: &str = "## ";

impl Report {
    pub fn new(runs: usize) -> Report {
        Report { runs, conditions: conditions(), sections: Vec::new() }
    }

    /// Starts a section; `about` says what was measured and against what.
    pub fn section(&mut self, title: &'static str, about: impl Into<String>) {
        self.table(title, about, &["what", "figure", "beside it"]);
    }

    /// Adds a figure to the section.
    pub fn row(&mut self, what: &str, figure: String, beside: impl Into<String>) {
        self.cells(vec![what.to_owned(), figure, beside.into()]);
    }

    /// Starts a section whose table has other columns.
    pub fn table(
        &mut self,
        title: &'static str,
        about: impl Into<String>,
        columns: &[&'static str],
    ) {
        eprintln!("\n{HEADING}{title}");
        self.sections.push(Section {
            title,
            about: about.into(),
            columns: columns.to_vec(),
            rows: Vec::new(),
            notes: Vec::new(),
            times: format!("{} runs each", self.runs),
        });
    }

    /// Adds a line to the section's table.
    pub fn cells(&mut self, cells: Vec<String>) {
        eprintln!("{}", cells.join(" | "));
        let section = self.started();
        assert_eq!(cells.len(), section.columns.len(), "a cell for each column");
        section.rows.push(cells);
    }

    /// Says something below the section's table.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        eprintln!("{note}");
        self.started().notes.push(note);
    }

    /// Says how often the section was measured, if not [`Report::runs`] times.
    pub fn times(&mut self, times: &str) {
        self.started().times = times.to_owned();
    }

    fn started(&mut self) -> &mut Section {
        self.sections.last_mut().expect("a section was started")
    }

    /// Writes the page. Sections that were not measured now stay as they were.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let mut sections: Vec<(&str, String)> = Vec::new();
        for section in &self.sections {
            sections.push((section.title, section.text(&self.conditions)));
        }
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let before = fs::read_to_string(file).unwrap_or_default();
        fs::write(file, page(&before, sections))
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

impl Section {
    fn text(&self, conditions: &str) -> String {
        let mut text = format!("{HEADING}{}\n\n{}\n\n", self.title, self.about);
        let rule = vec!["---"; self.columns.len()];
        text += &format!("| {} |\n|{}|\n", self.columns.join(" | "), rule.join("|"));
        for cells in &self.rows {
            text += &format!("| {} |\n", cells.join(" | "));
        }
        for note in &self.notes {
            text += &format!("\n{note}\n");
        }
        text + &format!("\n{conditions}, {}.\n", self.times)
    }
}

/// The page as it was, with these sections in the place of those with their titles, or at its end.
fn page(before: &str, sections: Vec<(&str, String)>) -> String {
    let mut texts: Vec<String> = before
        .split(&format!("\n{HEADING}"))
        .skip(1)
        .map(|text| format!("{HEADING}{}\n", text.trim_end()))
        .collect();
    for (title, text) in sections {
        let heading = format!("{HEADING}{title}\n");
        match texts.iter_mut().find(|text| text.starts_with(&heading)) {
            Some(old) => *old = text,
            None => texts.push(text),
        }
    }
    PREFACE.to_owned() + &texts.join("\n")
}

/// On what, with what and when.
fn conditions() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
    };
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.unwrap_or_else(|| "unknown".to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut memory = field(&read("/proc/meminfo"), "MemTotal");
    if let Some(kib) = memory.split(' ').next().and_then(|kib| kib.parse::<u64>().ok()) {
        memory = format!("{} GiB", kib >> 20);
    }
    // After the name in brackets, the nineteenth field of the whole line.
    let stat = read("/proc/self/stat");
    let nice = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(16)).unwrap_or("0");
    let nice = if nice == "0" { String::new() } else { format!(" at nice {nice}") };
    format!(
        "Conditions: {date}, commit {commit}, {cores} cores ({model}), {memory} of memory, \
         Linux {kernel}, {rustc}, release build{nice}, a store on a virtual disk and every commit synced",
        date = output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        commit = output("git", &["rev-parse", "--short", "HEAD"]),
        model = field(&read("/proc/cpuinfo"), "model name"),
        kernel = read("/proc/sys/kernel/osrelease").trim().split('-').next().unwrap_or("unknown"),
        rustc = output("rustc", &["--version"]),
    )
}

/// A median and what it lies between.
#[derive(Clone, Copy, Debug)]
pub struct Median {
    pub median: f64,
    low: f64,
    high: f64,
}

impl Median {
    pub fn of(mut samples: Vec<f64>) -> Median {
        assert!(!samples.is_empty(), "a median needs a sample");
        samples.sort_by(f64::total_cmp);
        Median {
            median: samples[samples.len() / 2],
            low: samples[0],
            high: samples[samples.len() - 1],
        }
    }

    /// The rate at which `count` things go by in these seconds.
    pub fn rate(self, count: f64) -> Median {
        Median { median: count / self.median, low: count / self.high, high: count / self.low }
    }

    /// From calls a second to microseconds a call.
    pub fn microseconds(self) -> Median {
        self.rate(1e6)
    }

    /// From calls a second to parts a second, when each call has `parts`.
    pub fn rate_of(self, parts: usize) -> Median {
        let parts = parts as f64;
        Median { median: self.median * parts, low: self.low * parts, high: self.high * parts }
    }

    /// With a unit, and the spread.
    pub fn show(self, unit: &str) -> String {
        let Median { median, low, high } = self;
        format!("{} {unit} ({}–{})", number(median), number(low), number(high))
    }
}

/// Three significant digits, and thousands apart.
fn number(value: f64) -> String {
    if value < 1000.0 {
        let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
        return format!("{value:.digits$}");
    }
    let text = format!("{value:.0}");
    let mut grouped = String::new();
    for (position, digit) in text.chars().enumerate() {
        if position > 0 && (text.len() - position).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// Seconds that `work` takes, `runs` times.
pub fn seconds<T>(
    runs: usize,
    mut work: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<Median> {
    let mut samples = Vec::with_capacity(runs);
    for _ in 0..runs {
        let started = Instant::now();
        work()?;
        samples.push(started.elapsed().as_secs_f64());
    }
    Ok(Median::of(samples))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_that_was_not_measured_stays() {
        let text = |title: &str, figure: &str| format!("## {title}\n\n| {figure} |\n");
        let both = vec![("One", text("One", "1")), ("Two", text("Two", "2"))];
        let first = page("", both);
        let second = page(&first, vec![("Two", text("Two", "7")), ("Six", text("Six", "6"))]);
        assert_eq!(first, format!("{PREFACE}{}\n{}", text("One", "1"), text("Two", "2")));
        let three = [text("One", "1"), text("Two", "7"), text("Six", "6")].join("\n");
        assert_eq!(second, format!("{PREFACE}{three}"));
    }
}
