//! A change of a file, as the document shows it.

use anyhow::{bail, ensure};

/// Applies a diff: lines that stay begin with a space, lines that go with `-`, new ones with `+`.
/// A line with nothing but `…` stands between two places of the file. What stays and goes must be
/// in the file exactly once.
pub fn apply(text: &str, diff: &str) -> anyhow::Result<String> {
    let mut lines: Vec<&str> = text.lines().collect();
    for hunk in diff.lines().collect::<Vec<_>>().split(|line| *line == "…") {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for line in hunk {
            match line.split_at_checked(1) {
                None => {
                    before.push("");
                    after.push("");
                }
                Some((" ", line)) => {
                    before.push(line);
                    after.push(line);
                }
                Some(("-", line)) => before.push(line),
                Some(("+", line)) => after.push(line),
                _ => bail!("a line of a diff begins with a space, `-` or `+`: `{line}`"),
            }
        }
        ensure!(!before.is_empty(), "a change without a line to find its place by");
        let places: Vec<usize> =
            (0..lines.len()).filter(|at| lines[*at..].starts_with(&before)).collect();
        let [place] = places[..] else {
            bail!("this is {} times in the file, not once:\n{}", places.len(), before.join("\n"));
        };
        lines.splice(place..place + before.len(), after);
    }
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "one\ntwo\n\ntwo\nthree\n";

    fn check(diff: &str, expected: &str) {
        assert_eq!(apply(TEXT, diff).unwrap(), expected, "{diff}");
    }

    #[test]
    fn lines_come_and_go_where_the_others_stay() {
        check(" one\n-two\n+2\n", "one\n2\n\ntwo\nthree\n");
        check("+zero\n one\n…\n two\n three\n+four\n", "zero\none\ntwo\n\ntwo\nthree\nfour\n");
        check(" two\n\n-two\n", "one\ntwo\n\nthree\n");
    }

    #[test]
    fn a_place_that_is_not_there_exactly_once_is_an_error() {
        let check = |diff: &str, words: &str| {
            let error = apply(TEXT, diff).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        check("-two\n", "2 times");
        check("-four\n", "0 times");
        check(" one\n three\n", "0 times");
        check("+four\n", "without a line");
        check("*one\n", "begins with");
    }
}
