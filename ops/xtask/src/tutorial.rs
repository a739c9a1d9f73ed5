//! The tutorial, followed word for word: `ops/docs/module-tutorial.md` is its own test.
//!
//! | block | what is done |
//! |---|---|
//! | `sh` | its lines run in one shell that remembers its folder and variables from block to block |
//! | `sh repeat` | the same, again and again until the `text` after it is shown |
//! | `sh terminal=NAME` | its lines run in a new terminal; the last one is a program that stays |
//! | `text` | must be in the output of the block before it; `…` stands for anything |
//! | `… file=PATH` | is written to a new file |
//! | `… in=PATH` | must be in that file |
//! | `diff file=PATH` | changes that file |
//! | `<!-- tutorial: ctrl-c NAME -->` | the program of that terminal is interrupted and must end well |
//!
//! A block that is none of these fails the run. Everything happens in `target/tutorial`, and on
//! the loopback interface.

mod change;
mod document;
mod shell;
mod shown;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use crate::children::Signals;
use document::{Action, Step};
use shell::{Shell, Terminal};

/// What is followed.
const DOCUMENT: &str = "ops/docs/module-tutorial.md";

/// How long a block may take. On a fresh machine the first ones compile for some minutes; the
/// others take seconds.
const BLOCK_TIME_MAX: Duration = Duration::from_secs(15 * 60);

/// How long something may take to be shown that is not there at once.
const SHOWN_TIME_MAX: Duration = Duration::from_secs(60);

/// How often it is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// How long a program may take to end: Shepherd's own limit is 30 seconds.
const END_TIME_MAX: Duration = Duration::from_secs(35);

/// Follows the tutorial, and fails at the first block that does not do what the document says.
pub fn follow(root: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(root.join(DOCUMENT)).context(DOCUMENT)?;
    let steps = document::parse(&text).context(DOCUMENT)?;
    let start = Instant::now();
    let place = Place::take(root)?;
    let mut reader = Reader {
        signals: Signals::take_over()?,
        shell: Shell::open(root, &place.notes)?,
        root: root.to_owned(),
        terminals: Vec::new(),
    };
    for step in &steps {
        println!("── {DOCUMENT}:{}", step.line);
        let at = || format!("{DOCUMENT}:{}", step.line);
        reader.take(step).with_context(at)?;
        reader.all_well().with_context(at)?;
    }
    while let Some(terminal) = reader.terminals.pop() {
        terminal.interrupt(&reader.signals, END_TIME_MAX)?;
    }
    let count = steps.len();
    println!("tutorial: {count} blocks followed in {} s", start.elapsed().as_secs());
    place.clear()
}

/// The folder that the tutorial works in.
struct Place {
    work: PathBuf,
    /// What the shell remembers. While this folder is there, `work` is ours to delete.
    notes: PathBuf,
    /// Held until the end: two runs would write into one folder.
    _alone: File,
}

impl Place {
    fn take(root: &Path) -> anyhow::Result<Place> {
        let target = root.join("target");
        fs::create_dir_all(&target)?;
        let alone = File::create(target.join(".tutorial-lock"))?;
        ensure!(alone.try_lock().is_ok(), "the tutorial is being followed already");
        let place =
            Place { work: target.join("tutorial"), notes: target.join(".tutorial"), _alone: alone };
        if place.notes.exists() {
            place.clear()?;
        }
        // Somebody has followed it by hand, and may want to keep what came of it.
        if place.work.exists() {
            let free = (1..).map(|n| target.join(format!("tutorial-{n}")));
            let free = free.into_iter().find(|path| !path.exists()).expect("numbers do not end");
            fs::rename(&place.work, &free)?;
            println!("tutorial: what was in target/tutorial is in {} now", free.display());
        }
        fs::create_dir(&place.notes)?;
        Ok(place)
    }

    fn clear(&self) -> anyhow::Result<()> {
        if self.work.exists() {
            fs::remove_dir_all(&self.work)?;
        }
        // Last, so that an interrupted removal is taken up again.
        Ok(fs::remove_dir_all(&self.notes)?)
    }
}

/// Somebody who does what the document says.
struct Reader {
    signals: Signals,
    shell: Shell,
    root: PathBuf,
    terminals: Vec<Terminal>,
}

impl Reader {
    fn take(&mut self, step: &Step) -> anyhow::Result<()> {
        match &step.action {
            Action::Run { script, shows } => {
                let output = self.run(script)?;
                for expected in shows {
                    ensure_shown(&output, expected)?;
                }
            }
            Action::Repeat { script, shows } => self.repeat(script, shows)?,
            Action::Start { terminal, script, shows } => {
                let taken = self.terminals.iter().any(|open| open.name() == terminal);
                ensure!(!taken, "there is a terminal `{terminal}` already");
                let terminal = Terminal::open(&self.root, terminal, script)?;
                self.terminals.push(terminal);
                for expected in shows {
                    self.wait_for(expected)?;
                }
            }
            Action::Interrupt { terminal } => {
                let open = self.terminals.iter().position(|open| open.name() == terminal);
                let open = open.with_context(|| format!("there is no terminal `{terminal}`"))?;
                self.terminals.remove(open).interrupt(&self.signals, END_TIME_MAX)?;
            }
            Action::Write { file, text } => {
                let path = self.shell.path(file)?;
                ensure!(!path.exists(), "{file} exists already");
                fs::write(&path, text).with_context(|| format!("writing {file}"))?;
            }
            Action::Shows { file, text } => {
                let there = self.read(file)?;
                ensure!(there.contains(text.as_str()), "{file} does not have this in it:\n{text}");
            }
            Action::Change { file, diff } => {
                let changed = change::apply(&self.read(file)?, diff);
                let changed = changed.with_context(|| format!("changing {file}"))?;
                fs::write(self.shell.path(file)?, changed)?;
            }
        }
        Ok(())
    }

    fn run(&self, script: &str) -> anyhow::Result<String> {
        let ended = self.shell.run(script, &self.signals, BLOCK_TIME_MAX)?;
        ensure!(ended.success, "the block failed:\n{script}");
        Ok(ended.output)
    }

    fn repeat(&mut self, script: &str, shows: &[String]) -> anyhow::Result<()> {
        let deadline = Instant::now() + SHOWN_TIME_MAX;
        loop {
            let ended = self.shell.run_quietly(script, &self.signals, SHOWN_TIME_MAX)?;
            let shown = shows.iter().all(|text| shown::is_shown(&ended.output, text));
            if ended.success && shown {
                println!("{}", ended.output);
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "this was never shown:\n{}\nbut at last:\n{}",
                shows.join("\n"),
                ended.output
            );
            self.pause()?;
        }
    }

    /// Waits for the newest terminal to show something.
    fn wait_for(&mut self, expected: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + SHOWN_TIME_MAX;
        loop {
            let newest = self.terminals.last().context("a terminal was opened")?;
            if shown::is_shown(&newest.output(), expected) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "this was never shown:\n{expected}");
            self.pause()?;
        }
    }

    fn pause(&mut self) -> anyhow::Result<()> {
        self.all_well()?;
        shell::unless_interrupted(self.signals.wait(LOOK_AGAIN))
    }

    /// No program has left by itself.
    fn all_well(&mut self) -> anyhow::Result<()> {
        for terminal in &mut self.terminals {
            if let Some(status) = terminal.ended()? {
                bail!("the program of terminal `{}` ended by itself: {status}", terminal.name());
            }
        }
        Ok(())
    }

    fn read(&self, file: &str) -> anyhow::Result<String> {
        fs::read_to_string(self.shell.path(file)?).with_context(|| format!("reading {file}"))
    }
}

fn ensure_shown(output: &str, expected: &str) -> anyhow::Result<()> {
    ensure!(shown::is_shown(output, expected), "the output above does not show:\n{expected}");
    Ok(())
}
