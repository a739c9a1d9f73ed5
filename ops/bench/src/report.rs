//! Medians, and the page they are written to.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context;

/// What was measured so far.
pub struct Report {
    /// Runs of each measurement.
    pub runs: usize,
    sections: Vec<Section>,
}

struct Section {
    title: &'static str,
    about: String,
    rows: Vec<[String; 3]>,
}

impl Report {
    pub fn new(runs: usize) -> Report {
        Report { runs, sections: Vec::new() }
    }

    /// Starts a section; `about` says what was measured and against what.
    pub fn section(&mut self, title: &'static str, about: impl Into<String>) {
        eprintln!("\n## {title}");
        self.sections.push(Section { title, about: about.into(), rows: Vec::new() });
    }

    /// Adds a figure to the section.
    pub fn row(&mut self, what: &str, figure: String, beside: impl Into<String>) {
        let beside = beside.into();
        eprintln!("{what}: {figure} {beside}");
        let section = self.sections.last_mut().expect("a section was started");
        section.rows.push([what.to_owned(), figure, beside]);
    }

    /// Writes the page.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let mut page = String::from(
            "# Benchmarks\n\n\
             Written by `cargo xtask bench`; do not edit. Each figure is the median of the runs named \
             below, with the\nspread in brackets, beside a limit measured in the same run. The \
             machine is shared: compare ratios, not digits.\n\n",
        );
        writeln!(page, "{}\n", conditions(self.runs))?;
        for section in &self.sections {
            writeln!(page, "## {}\n\n{}\n", section.title, section.about)?;
            writeln!(page, "| what | figure | beside it |\n|---|---|---|")?;
            for [what, figure, beside] in &section.rows {
                writeln!(page, "| {what} | {figure} | {beside} |")?;
            }
            page.push('\n');
        }
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(file, page.trim_end().to_owned() + "\n")
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

fn conditions(runs: usize) -> String {
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
    format!(
        "Conditions: {date}, commit {commit}, {cores} cores ({model}), {memory} of memory, \
         Linux {kernel}, {rustc}, release build, {runs} runs each. The store lies on a virtual disk \
         and every commit is synced.",
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

/// Where a measurement that waits for another process gives up.
pub fn patience() -> impl Fn() -> anyhow::Result<()> {
    let give_up = SystemTime::now() + Duration::from_secs(120);
    move || {
        anyhow::ensure!(SystemTime::now() < give_up, "nothing happened for two minutes");
        Ok(())
    }
}
