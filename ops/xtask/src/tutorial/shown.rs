//! Whether an output shows what the document says.

/// Stands for anything: for any lines when it is a whole line, else for the rest of a word, a
/// number or whatever else is different each time.
const ANYTHING: char = '…';

/// Whether the lines of `expected` follow each other somewhere in the output. Lines apart by a
/// line with nothing but `…` follow sooner or later.
pub fn is_shown(output: &str, expected: &str) -> bool {
    let mut rest: &[&str] = &output.lines().map(str::trim_end).collect::<Vec<_>>();
    let expected: Vec<&str> = expected.lines().map(str::trim_end).collect();
    let anything = |line: &&str| line.chars().eq([ANYTHING]);
    for run in expected.split(anything).filter(|run| !run.is_empty()) {
        let fits = |at: &usize| {
            let lines = rest[*at..].iter().zip(run);
            lines.filter(|(line, pattern)| fits(line, pattern)).count() == run.len()
        };
        let Some(at) = (0..rest.len()).find(fits) else { return false };
        rest = &rest[at + run.len()..];
    }
    true
}

/// Whether one line is what one line of the document says.
fn fits(line: &str, pattern: &str) -> bool {
    let Some((start, pattern)) = pattern.split_once(ANYTHING) else { return line == pattern };
    let Some(mut rest) = line.strip_prefix(start) else { return false };
    let (middle, end) = pattern.rsplit_once(ANYTHING).unwrap_or(("", pattern));
    for part in middle.split(ANYTHING) {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let check = |line: &str, pattern: &str, expected: bool| {
            assert_eq!(fits(line, pattern), expected, "`{line}` `{pattern}`");
        };
        check("block 7", "block 7", true);
        check("block 77", "block 7", false);
        check("block 77", "block …", true);
        check("a block", "block …", false);
        check("a 1 b 22 c", "a … b … c", true);
        check("a 1 b 22 c d", "a … b … c", false);
        check("a 1 c 22 b", "a … b … c", false);
        check("aba", "ab…ba", false);
        check("x 1 y", "… 1 …", true);
    }

    #[test]
    fn outputs() {
        let output = "one\ntwo  \nthree\n\nfour 4\n";
        let check = |expected: &str, shown: bool| {
            assert_eq!(is_shown(output, expected), shown, "{expected}");
        };
        check("two\nthree\n", true);
        check("one\nthree\n", false);
        check("one\n…\nthree\n", true);
        check("three\n…\none\n", false);
        check("…\nfour …\n", true);
        check("four 4\nfive\n", false);
        check("one\n…\none\n", false);
        check("three\n\nfour 4\n", true);
        assert!(!is_shown("", "one\n"));
    }
}
