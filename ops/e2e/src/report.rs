//! What must be there beside what is: a Markdown page, and a verdict.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path, time::Duration};

use anyhow::{Context, bail};
use shepherd_devnet::cow::Uid;

use crate::{
    day::{BLOCK_MINUTES, Day, Due, Expected, ExpectedAlert},
    found::Found,
    hooks::Received,
    replay::Replayed,
};

/// A day's result.
pub struct Report<'d> {
    day: &'d Day,
    found: &'d Found,
    seed: u64,
    took: Duration,
    /// One row for each order of the script.
    orders: Vec<(&'d Expected, String, Vec<String>)>,
    /// One row for each kind of alert.
    alerts: Vec<(&'d ExpectedAlert, usize, Vec<String>)>,
    /// What is at the orderbook and in no script.
    strangers: Vec<Uid>,
    /// Alerts that nothing explains.
    strange_alerts: Vec<String>,
}

impl<'d> Report<'d> {
    /// Compares.
    pub fn new(day: &'d Day, found: &'d Found, seed: u64, took: Duration) -> Report<'d> {
        let orders = day.expected.iter().map(|expected| {
            let seen = found.orders.get(&expected.uid).map(|minute| Day::clock(*minute));
            (expected, seen.unwrap_or_else(|| "–".to_owned()), problems(expected, found))
        });
        let known: BTreeSet<Uid> = day.expected.iter().map(|expected| expected.uid).collect();
        let posted = found.posts.keys().chain(found.orders.keys()).copied();
        let strangers: BTreeSet<Uid> = posted.filter(|uid| !known.contains(uid)).collect();
        let mut explained = BTreeSet::new();
        let alerts = day.alerts.iter().map(|alert| {
            let matching: Vec<_> =
                found.alerts.iter().filter(|(_, received)| is_of(alert, received)).collect();
            explained.extend(matching.iter().map(|(key, _)| (*key).clone()));
            let mut problems = Vec::new();
            if matching.len() != alert.count {
                problems.push(format!("{} instead of {}", matching.len(), alert.count));
            }
            for (key, received) in &matching {
                if received.accepted != 1 || !received.is_always_the_same() {
                    problems.push(format!("`{key}` was taken {} times", received.accepted));
                }
            }
            (alert, matching.len(), problems)
        });
        let alerts = alerts.collect();
        let strange = found.alerts.keys().filter(|key| !explained.contains(*key)).cloned();
        Report {
            day,
            found,
            seed,
            took,
            orders: orders.collect(),
            alerts,
            strangers: strangers.into_iter().collect(),
            strange_alerts: strange.collect(),
        }
    }

    /// In one line.
    pub fn summary(&self) -> String {
        let due = |wanted: bool| {
            self.day.expected.iter().filter(|order| (order.due != Due::Never) == wanted).count()
        };
        let problems = self.problems().len();
        format!(
            "e2e: {} orders expected, {} must never come, {} alerts expected; {} kills, {} blocks; \
             {problems} problems; {:.0?}",
            due(true),
            due(false),
            self.day.alerts.iter().map(|alert| alert.count).sum::<usize>(),
            self.found.kills,
            self.found.blocks,
            self.took
        )
    }

    /// An error that lists every problem, if there is one.
    pub fn verdict(&self) -> anyhow::Result<()> {
        let problems = self.problems();
        if problems.is_empty() {
            return Ok(());
        }
        bail!("{}", problems.join("\n"))
    }

    fn problems(&self) -> Vec<String> {
        let orders = self.orders.iter().flat_map(|(expected, _, problems)| {
            problems.iter().map(|problem| format!("{}: {problem}", expected.what))
        });
        let alerts = self.alerts.iter().flat_map(|(alert, _, problems)| {
            problems.iter().map(|problem| format!("{}: {problem}", alert.what))
        });
        let strangers = self.strangers.iter().map(|uid| format!("nobody expects {uid}"));
        let strange = self.strange_alerts.iter().map(|key| format!("nobody expects alert {key}"));
        orders.chain(alerts).chain(strangers).chain(strange).collect()
    }

    /// Writes the page.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(file, self.page()).with_context(|| format!("writing {}", file.display()))
    }

    fn page(&self) -> String {
        let mut page = String::new();
        let problems = self.problems();
        let verdict = if problems.is_empty() {
            "**Everything that must be there is there exactly once, and nothing else.**".to_owned()
        } else {
            format!("**{} problems:**\n\n- {}", problems.len(), problems.join("\n- "))
        };
        let resent: u64 =
            self.found.posts.values().map(|order| order.posts.saturating_sub(1)).sum();
        let different = self.found.posts.values().filter(|order| order.bodies.len() > 1).count();
        let lines = [
            "# A day of the five modules".to_owned(),
            String::new(),
            format!(
                "Written by `cargo xtask e2e`, seed {}, in {:.0?}. A day of block time, one block \
                 every {BLOCK_MINUTES} minutes, on anvil with the contracts of CoW Protocol at their \
                 addresses, the stand-in for the orderbook, and a receiver of webhooks that fails \
                 at every first attempt. Times are hours of block time.",
                self.seed, self.took
            ),
            String::new(),
            verdict,
            String::new(),
            format!(
                "{} blocks, {} times kill -9. {} orders were posted, {resent} posts were \
                 repetitions, {different} orders were ever posted with different bytes.",
                self.found.blocks,
                self.found.kills,
                self.found.posts.len(),
            ),
            String::new(),
            "## Orders".to_owned(),
            String::new(),
            "| order | must be there | found | posts | answers | |".to_owned(),
            "|---|---|---|---|---|---|".to_owned(),
        ];
        for line in lines {
            page += &line;
            page.push('\n');
        }
        for (expected, seen, problems) in &self.orders {
            let window = match expected.due {
                Due::Placed { from, until } => {
                    format!("{} to {}", Day::clock(from), Day::clock(until))
                }
                Due::Indexed { from, until } => {
                    format!("{} to {}, not posted", Day::clock(from), Day::clock(until))
                }
                Due::Never => "never".to_owned(),
            };
            let posts = self.found.posts.get(&expected.uid);
            let answers = posts.map_or_else(String::new, |order| {
                let answer = |(what, times): (&String, &u64)| match times {
                    1 => what.clone(),
                    _ => format!("{what} ({times}×)"),
                };
                order.outcomes.iter().map(answer).collect::<Vec<_>>().join(", ")
            });
            let verdict = if problems.is_empty() { "ok".to_owned() } else { problems.join("; ") };
            let posts = posts.map_or(0, |order| order.posts);
            let _ = writeln!(
                page,
                "| {} | {window} | {seen} | {posts} | {answers} | {verdict} |",
                expected.what
            );
        }
        page += "\n## Alerts\n\n| alert | expected | found | |\n|---|---|---|---|\n";
        for (alert, count, problems) in &self.alerts {
            let verdict = if problems.is_empty() { "ok".to_owned() } else { problems.join("; ") };
            let _ = writeln!(page, "| {} | {} | {count} | {verdict} |", alert.what, alert.count);
        }
        page += "\n## What was answered\n\n| request | answer | times |\n|---|---|---|\n";
        for (route, answers) in &self.found.requests {
            for (answer, times) in answers {
                let _ = writeln!(page, "| {route} | {answer} | {times} |");
            }
        }
        page += "\n## The script\n\n| time | what happens |\n|---|---|\n";
        for line in &self.day.lines {
            let _ = writeln!(page, "| {} | {} |", Day::clock(line.minute), line.what);
        }
        page += "\n## The lanes, run again\n\nEach was run once more from its first record into an \
                 empty store, with nothing but its journal and its tape, in steps of random \
                 lengths, and came to the same state and the same digest.\n\n\
                 | lane | records | answers on the tape | steps | digest |\n|---|---|---|---|---|\n";
        for lane in &self.found.replayed {
            let Replayed { lane, records, steps, answers, digest } = lane;
            let _ = writeln!(page, "| {lane} | {records} | {answers} | {steps} | `{digest}` |");
        }
        page
    }
}

/// What is wrong about an order.
fn problems(expected: &Expected, found: &Found) -> Vec<String> {
    let mut problems = Vec::new();
    let seen = found.orders.get(&expected.uid).copied();
    let posts = found.posts.get(&expected.uid);
    let accepted = posts.map_or(0, |order| order.accepted);
    if posts.is_some_and(|order| order.bodies.len() > 1) {
        problems.push("posted with different bytes".to_owned());
    }
    let within = |from: u64, until: u64| seen.is_some_and(|seen| (from..=until).contains(&seen));
    match expected.due {
        Due::Placed { from, until } => {
            if accepted != 1 {
                problems.push(format!("accepted {accepted} times"));
            }
            if !within(from, until) {
                problems.push("not there in its time".to_owned());
            }
        }
        Due::Indexed { from, until } => {
            if posts.is_some() {
                problems.push("it was posted".to_owned());
            }
            if !within(from, until) {
                problems.push("not there in its time".to_owned());
            }
        }
        Due::Never if seen.is_some() || accepted > 0 => problems.push("it is there".to_owned()),
        Due::Never => (),
    }
    problems
}

fn is_of(alert: &ExpectedAlert, received: &Received) -> bool {
    let document = received.document();
    alert.fields.iter().all(|(pointer, text)| {
        let found = document.pointer(pointer).and_then(|value| value.as_str());
        found.is_some_and(|found| found.eq_ignore_ascii_case(text))
    })
}
