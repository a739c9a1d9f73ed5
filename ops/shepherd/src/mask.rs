//! Hiding the secret part of URLs in text that is about to be shown.
//!
//! Node providers put the API key into the path, the query or the user part of a URL. An error
//! that quotes a line of the configuration must not carry the key into a terminal's scroll-back
//! or a log collector, so a quoted line shows scheme and host and hides the rest. Every hidden
//! character is replaced by one asterisk, so that columns stay where they are.
//!
//! The line may be malformed: that is why it is quoted. So this works on plain text, and hides
//! too much rather than too little.

/// The shortest run of letters and digits that is taken for a key.
///
/// Providers' keys are 32 characters and more; words and names of variables stay readable.
const KEY_LENGTH_MIN: usize = 16;

/// The line with everything hidden that could be an endpoint's key.
pub fn mask(line: &str) -> String {
    hide_long_runs(&hide_after_hosts(line))
}

/// Hides user, path, query and fragment behind each `://`, up to a quote or a space.
fn hide_after_hosts(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, url) = rest.split_at(at + "://".len());
        shown.push_str(before);
        let ends = |c: char| c.is_whitespace() || c == '"' || c == '\'';
        let (url, after) = url.split_at(url.find(ends).unwrap_or(url.len()));
        let authority = url.find(['/', '?', '#', '\\']).unwrap_or(url.len());
        let host = url[..authority].rfind('@').map_or(0, |at| at + 1);
        shown.push_str(&stars(&url[..host]));
        shown.push_str(&url[host..authority]);
        // A variable is the name of a secret, not the secret.
        let tail = &url[authority..];
        let is_public = tail == "/" || is_variable(tail);
        shown.push_str(&if is_public { tail.to_owned() } else { stars(tail) });
        rest = after;
    }
    shown.push_str(rest);
    shown
}

/// Whether a path is one `${NAME}` and nothing else.
fn is_variable(path: &str) -> bool {
    let name = path.strip_prefix("/${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
}

/// Hides what looks like a key where no `://` gave it away.
fn hide_long_runs(line: &str) -> String {
    let is_key_part = |c: char| c.is_ascii_alphanumeric();
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(is_key_part) {
        shown.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.find(|c| !is_key_part(c)).unwrap_or(rest.len());
        let run = &rest[..end];
        let mixed = run.contains(|c: char| c.is_ascii_digit())
            && run.contains(|c: char| c.is_ascii_alphabetic());
        let is_public = run.starts_with("0x") || line.trim_start().starts_with("sha256");
        let hide = run.len() >= KEY_LENGTH_MIN && mixed && !is_public;
        shown.push_str(&if hide { stars(run) } else { run.to_owned() });
        rest = &rest[end..];
    }
    shown.push_str(rest);
    shown
}

fn stars(hidden: &str) -> String {
    "*".repeat(hidden.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_line_shows_scheme_and_host_only() {
        check(r#"endpoints = ["https://node/v2/KEY"]"#, r#"endpoints = ["https://node*******"]"#);
        check(r#"url = "wss://me:KEY@node:80/x?y#z""#, r#"url = "wss://*******node:80******""#);
        check("a = 'http://a/K', 'http://b?k=K'", "a = 'http://a**', 'http://b****'");
        check("a = 'http://a/'", "a = 'http://a/'");
        check(r#"a = "https://node/${KEY}""#, r#"a = "https://node/${KEY}""#);
        check("a = 'http://a/${A}/KEY/${B}'", "a = 'http://a**************'");
    }

    #[test]
    fn a_malformed_line_hides_its_key_too() {
        check("endpoints = [https://node/KEY]", "endpoints = [https://node*****");
        check(r#"e = ["https://node/KEY"#, r#"e = ["https://node****"#);
        check("e = ['wss:/node/0123456789abcdef']", "e = ['wss:/node/****************']");
    }

    #[test]
    fn what_is_no_secret_stays() {
        check("sha256 = '0123456789abcdef'", "sha256 = '0123456789abcdef'");
        check("address = '0x0123456789abcdef0123'", "address = '0x0123456789abcdef0123'");
        check("reorg_depth_max = -1", "reorg_depth_max = -1");
    }

    fn check(line: &str, expected: &str) {
        assert_eq!(mask(line), expected);
        assert!(!mask(line).contains("KEY") || line.contains("${KEY}"));
    }
}
