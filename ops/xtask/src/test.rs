//! Every check that CI runs, in the order in which a failure is cheapest to learn of.
//!
//! A failed check does not end the run: who broke the format may have broken a test too, and
//! wants to know both. What was counted is on the last line, which CI reads.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, bail, ensure};

use crate::{arrows, demo, e2e, guests, setup, shell, tutorial};

/// Sets up and runs all checks.
pub fn test(root: &Path) -> anyhow::Result<()> {
    setup::setup(root)?;
    let mut report = Report::default();
    report.check("format", || shell::run(shell::cargo(root).args(["fmt", "--all", "--check"])));
    report.check("arrows", || arrows::check(root));
    // Before whatever embeds or starts a component.
    report.check("modules", || guests::build(root).map(drop));
    report.check("clippy", || {
        let mut clippy = shell::cargo(root);
        clippy.args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]);
        shell::run(&mut clippy)
    });
    let mut counts = Counts::default();
    report.check("tests", || {
        counts = tests(root)?;
        ensure!(counts.failed == 0, "{} tests failed", counts.failed);
        ensure!(!counts.unfinished, "not all test binaries were built and ran to their end");
        ensure!(counts.passed > 0, "no test ran");
        Ok(())
    });
    report.check("demo", || demo::rehearse(root));
    report.check("e2e", || e2e::e2e(root, &root.join("target/e2e/report.md")));
    report.check("tutorial", || tutorial::follow(root));
    report.finish(counts)
}

/// Runs all tests and doc tests, showing what they print, and counts them.
fn tests(root: &Path) -> anyhow::Result<Counts> {
    let mut command = shell::cargo(root);
    command.args(["test", "--workspace", "--no-fail-fast"]).stdout(Stdio::piped());
    let mut child = command.spawn().context("starting cargo test")?;
    let mut counts = Counts::default();
    let output = BufReader::new(child.stdout.take().expect("asked for above"));
    for line in output.split(b'\n') {
        // A test may print what is no UTF-8.
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        counts.add(&line);
    }
    let status = child.wait()?;
    // A test binary that was killed prints no result, and one that does not compile has none.
    counts.unfinished = !status.success() && counts.failed == 0;
    Ok(counts)
}

/// Tests of all binaries together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    /// cargo failed though no test did.
    unfinished: bool,
}

impl Counts {
    /// Adds what a line of `cargo test` says, if it is the last one of a test binary:
    /// `test result: ok. 8 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; …`
    fn add(&mut self, line: &str) {
        let Some((_, counts)) =
            line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        let count = |what: &str| {
            let part = counts.split("; ").find_map(|part| part.strip_suffix(what));
            part.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
        };
        self.passed += count("passed");
        self.failed += count("failed");
    }
}

/// The checks so far.
#[derive(Default)]
struct Report {
    lines: Vec<String>,
    failed: u64,
}

impl Report {
    fn check(&mut self, name: &str, check: impl FnOnce() -> anyhow::Result<()>) {
        println!("── {name}");
        let start = Instant::now();
        let outcome = check();
        let seconds = start.elapsed().as_secs();
        let word = match &outcome {
            Ok(()) => "ok",
            Err(error) => {
                eprintln!("{name}: {error:#}");
                self.failed += 1;
                "FAILED"
            }
        };
        self.lines.push(format!("{name:<10} {word:<7} {seconds:>4} s"));
    }

    fn finish(self, counts: Counts) -> anyhow::Result<()> {
        println!("\n{}\n", self.lines.join("\n"));
        // A failed check counts as one, "tests" as its failed tests: a last line that says
        // "0 failed" is a promise that nothing has.
        let failed = self.failed + counts.failed.saturating_sub(1);
        println!("{} passed, {failed} failed", counts.passed);
        if failed > 0 {
            bail!("{failed} of the checks above failed");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(output: &str) -> Counts {
        let mut counts = Counts::default();
        output.lines().for_each(|line| counts.add(line));
        counts
    }

    #[test]
    fn counts_are_the_sum_over_all_test_binaries() {
        let output = "
            running 2 tests
test links ... ok
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
test result: FAILED. 11 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1s
all doctests ran in 0.21s
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(counted(output), Counts { passed: 14, failed: 3, unfinished: false });
    }

    #[test]
    fn what_a_test_prints_is_not_counted() {
        let output = "the test result: ok. 7 passed; 0 failed\ntest passed ... ok\n8 passed";
        assert_eq!(counted(output), Counts::default());
    }
}
