//! A document, as the list of what it asks its reader to do.

use anyhow::{Context, bail, ensure};

/// One block of the document.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// Its first line, from 1.
    pub line: usize,
    /// What it asks for.
    pub action: Action,
}

/// What a block asks for. Files are relative to the shell's folder.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Commands for the shell, and what their output shows.
    Run { script: String, shows: Vec<String> },
    /// Commands for the shell, again until the output shows all of this.
    Repeat { script: String, shows: Vec<String> },
    /// Commands for a new terminal, of which the last stays, and what it shows sooner or later.
    Start { terminal: String, script: String, shows: Vec<String> },
    /// Ctrl-C in a terminal.
    Interrupt { terminal: String },
    /// A new file.
    Write { file: String, text: String },
    /// Lines that a file has.
    Shows { file: String, text: String },
    /// A change of a file.
    Change { file: String, diff: String },
}

/// Everything a Markdown document asks for, in its order. What is not understood is an error.
pub fn parse(text: &str) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::<Step>::new();
    let mut lines = text.lines().zip(1..);
    while let Some((start, line)) = lines.next() {
        let at = || format!("line {line}");
        if let Some(comment) = start.trim_start().strip_prefix("<!--") {
            if let Some(asked) = comment.trim_start().strip_prefix("tutorial:") {
                let action = directive(asked).with_context(at)?;
                steps.push(Step { line, action });
            }
            continue;
        }
        let Some(info) = start.strip_prefix("```") else {
            let fence = start.trim_start();
            let hidden = fence.starts_with("```") || fence.starts_with("~~~");
            ensure!(!hidden, "line {line}: write blocks as ``` at the start of the line");
            continue;
        };
        let mut block = String::new();
        loop {
            let (inside, _) = lines.next().with_context(|| format!("line {line}: no end"))?;
            if inside == "```" {
                break;
            }
            block.push_str(inside);
            block.push('\n');
        }
        if info == "text" {
            let shows = steps.last_mut().and_then(|step| step.action.shows());
            shows.with_context(|| format!("line {line}: no command before this"))?.push(block);
        } else {
            let action = action(info, block).with_context(at)?;
            steps.push(Step { line, action });
        }
    }
    for step in &steps {
        if let Action::Repeat { shows, .. } = &step.action {
            ensure!(!shows.is_empty(), "line {}: what is repeated until?", step.line);
        }
    }
    Ok(steps)
}

impl Action {
    fn shows(&mut self) -> Option<&mut Vec<String>> {
        match self {
            Action::Run { shows, .. }
            | Action::Repeat { shows, .. }
            | Action::Start { shows, .. } => Some(shows),
            _ => None,
        }
    }
}

fn directive(comment: &str) -> anyhow::Result<Action> {
    let asked = comment.trim_end().strip_suffix("-->").context("the comment has no end")?;
    match asked.split_whitespace().collect::<Vec<_>>()[..] {
        ["ctrl-c", terminal] => Ok(Action::Interrupt { terminal: terminal.to_owned() }),
        _ => bail!("`{}` is not understood", asked.trim()),
    }
}

fn action(info: &str, block: String) -> anyhow::Result<Action> {
    let words: Vec<&str> = info.split_whitespace().collect();
    let unknown = || format!("a block of `{info}` is not understood");
    let (language, how) = words.split_first().with_context(unknown)?;
    let (how, value) = match how {
        [] => ("", ""),
        [how] => how.split_once('=').unwrap_or((how, "")),
        _ => bail!(unknown()),
    };
    let value = value.to_owned();
    Ok(match (*language, how) {
        ("sh", "") => Action::Run { script: block, shows: Vec::new() },
        ("sh", "repeat") => Action::Repeat { script: block, shows: Vec::new() },
        ("sh", "terminal") if !value.is_empty() => {
            let last = block.lines().last().unwrap_or_default();
            let simple = !last.trim().is_empty() && !last.contains(['|', '&', ';', '#']);
            ensure!(simple, "the last line is to be one program that stays: `{last}`");
            Action::Start { terminal: value, script: block, shows: Vec::new() }
        }
        ("diff", "file") => Action::Change { file: inside(value)?, diff: block },
        ("sh" | "text" | "diff", _) => bail!(unknown()),
        (_, "file") => Action::Write { file: inside(value)?, text: block },
        (_, "in") => Action::Shows { file: inside(value)?, text: block },
        _ => bail!(unknown()),
    })
}

/// A path that does not lead out of the folder.
fn inside(path: String) -> anyhow::Result<String> {
    let inside = !path.is_empty() && !path.starts_with('/') && path.split('/').all(|p| p != "..");
    ensure!(inside, "`{path}` is not a path below the shell's folder");
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A document of these blocks, with `'''` for fences.
    fn parsed(text: &str) -> anyhow::Result<Vec<Step>> {
        parse(&text.replace("'''", "```"))
    }

    #[test]
    fn a_document_is_what_it_asks_for() {
        let text = "# Title\n'''sh\ncd a\nls\n'''\nprose\n'''text\na …\n'''\n<!-- a note -->\n\
                    '''sh terminal=node\nnode\n'''\n'''rust in=a.rs\nfn a() {}\n'''\n\
                    '''diff file=a.rs\n-a\n'''\n'''toml file=b.toml\nb = 1\n'''\n\
                    '''sh repeat\nls\n'''\n'''text\nb\n'''\n<!-- tutorial: ctrl-c node -->\n";
        let lines = |text: &str| format!("{text}\n");
        let run = Action::Run { script: lines("cd a\nls"), shows: vec![lines("a …")] };
        let start =
            Action::Start { terminal: "node".to_owned(), script: lines("node"), shows: Vec::new() };
        let shows = Action::Shows { file: "a.rs".to_owned(), text: lines("fn a() {}") };
        let change = Action::Change { file: "a.rs".to_owned(), diff: lines("-a") };
        let write = Action::Write { file: "b.toml".to_owned(), text: lines("b = 1") };
        let repeat = Action::Repeat { script: lines("ls"), shows: vec![lines("b")] };
        let interrupt = Action::Interrupt { terminal: "node".to_owned() };
        let expected = [
            (2, run),
            (11, start),
            (14, shows),
            (17, change),
            (20, write),
            (23, repeat),
            (29, interrupt),
        ];
        let expected: Vec<Step> =
            expected.into_iter().map(|(line, action)| Step { line, action }).collect();
        assert_eq!(parsed(text).unwrap(), expected);
    }

    #[test]
    fn what_is_not_understood_is_an_error_with_its_line() {
        let check = |text: &str, words: &str| {
            let error = format!("{:#}", parsed(&format!("\n{text}")).unwrap_err());
            assert!(error.contains("line 2") && error.contains(words), "{error}");
        };
        check("'''\nls\n'''", "not understood");
        check("'''rust\nfn a() {}\n'''", "not understood");
        check("'''bash\nls\n'''", "not understood");
        check("'''sh again\nls\n'''", "not understood");
        check("'''sh file=a\nls\n'''", "not understood");
        check("'''sh repeat terminal=a\nls\n'''", "not understood");
        check("'''text\na\n'''", "no command before");
        check("'''sh\nls\n", "no end");
        check("  '''sh\n  ls\n  '''", "at the start of the line");
        check("~~~sh\nls\n~~~", "at the start of the line");
        check("'''toml file=../a\n'''", "not a path below");
        check("'''toml file=\n'''", "not a path below");
        check("'''sh terminal=a\nnode | tee a\n'''", "one program that stays");
        check("'''sh terminal=a\n'''", "one program that stays");
        check("'''sh repeat\nls\n'''\n'''sh\nls\n'''\n'''text\na\n'''", "repeated until");
        check("<!-- tutorial: ctrl-d node -->", "not understood");
        check("<!-- tutorial: ctrl-c node", "no end");
    }
}
