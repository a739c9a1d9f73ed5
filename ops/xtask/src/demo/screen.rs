//! What the demo shows: a few lines that are drawn again and again on a terminal, one plain
//! line at each look elsewhere.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _, stdout};

use anyhow::Context;
use serde_json::{Value, json};

use super::http;
use super::ledger::{Compared, Ledger};

/// Comparisons that are shown; all are counted.
const COMPARED_MAX: usize = 6;

/// One look at the daemon and its node.
pub struct View {
    /// The newest block of the node.
    pub node_head: u64,
    /// `/v1/chains`: our one chain.
    pub chain: Value,
    /// `/v1/cursors`.
    pub cursors: Vec<Value>,
    /// Reorgs that were journaled since Shepherd started.
    pub reorgs: u64,
}

impl View {
    /// Asks both.
    pub fn fetch(admin_port: u16, node_port: u16) -> anyhow::Result<View> {
        let head = http::call(node_port, "eth_blockNumber", json!([]))?;
        let head = head.as_str().and_then(|head| head.strip_prefix("0x"));
        let head = u64::from_str_radix(head.context("a head is a number")?, 16)?;
        let mut chains = http::get_json(admin_port, "/v1/chains")?;
        let cursors = http::get_json(admin_port, "/v1/cursors")?;
        let cursors = cursors["cursors"].as_array().context("a list of cursors")?.clone();
        let reorgs = reorgs(&http::get(admin_port, "/metrics")?);
        Ok(View { node_head: head, chain: chains["chains"][0].take(), cursors, reorgs })
    }
}

/// Where looks are shown.
pub struct Screen {
    /// Lines of the last look, which the next one is drawn over; `None` off a terminal.
    drawn: Option<usize>,
}

impl Screen {
    /// Standard output.
    pub fn new() -> Screen {
        Screen { drawn: stdout().is_terminal().then_some(0) }
    }

    /// Shows a look.
    pub fn show(&mut self, view: &View, compared: &[Compared], ledger: &Ledger, admin_port: u16) {
        let mut out = stdout().lock();
        // A reader that is gone is no reason to leave the children unattended.
        let _ = match &mut self.drawn {
            None => writeln!(out, "{}", line(view, ledger)),
            Some(lines) => {
                let text = page(view, compared, ledger, admin_port);
                let up = if *lines > 0 { format!("\x1b[{lines}A") } else { String::new() };
                *lines = text.lines().count();
                write!(out, "{up}\x1b[J{text}").and_then(|()| out.flush())
            }
        };
    }
}

/// Everything on one line.
fn line(view: &View, ledger: &Ledger) -> String {
    let mut text = format!("node at {}", view.node_head);
    for cursor in &view.cursors {
        let _ = write!(
            text,
            " · {} {} at {}, {} behind",
            word(&cursor["module"]),
            word(&cursor["state"]["name"]),
            word(&cursor["block"]["number"]),
            word(&cursor["lag_records"]),
        );
    }
    let _ = write!(text, " · {} values agree, {} do not", ledger.agreed, ledger.differences.len());
    text
}

/// Everything, with room.
fn page(view: &View, compared: &[Compared], ledger: &Ledger, admin_port: u16) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "Shepherd demo    node at block {}    journal at block {}, {} records, {}, reorgs: {}",
        view.node_head,
        word(&view.chain["head"]["number"]),
        word(&view.chain["tail"]),
        word(&view.chain["state"]["name"]),
        view.reorgs,
    );
    let _ = writeln!(
        text,
        "\n{:<26} {:<12} {:>8} {:>8} {:>8} {:>8} {:>7}",
        "lane", "state", "block", "next", "behind", "steps", "faults"
    );
    for cursor in &view.cursors {
        let _ = writeln!(
            text,
            "{:<26} {:<12} {:>8} {:>8} {:>8} {:>8} {:>7}",
            word(&cursor["lane"]),
            word(&cursor["state"]["name"]),
            word(&cursor["block"]["number"]),
            word(&cursor["next"]),
            word(&cursor["lag_records"]),
            word(&cursor["commit"]),
            word(&cursor["faults"]),
        );
        if let Some(reason) = cursor["state"]["reason"].as_str() {
            let _ = writeln!(text, "  {reason}");
        }
    }
    let _ = writeln!(
        text,
        "\n{:<34} {:>26} {:>26}",
        "at the cursor's block", "the module computed", "the chain says"
    );
    for one in compared.iter().take(COMPARED_MAX) {
        let verdict = if one.module == one.chain { "" } else { "  DIFFERENT" };
        let _ = writeln!(text, "{:<34} {:>26} {:>26}{verdict}", one.what, one.module, one.chain);
    }
    let _ = writeln!(
        text,
        "\n{} values compared so far, {} differences. Ctrl-C ends the demo.\n\
         http://127.0.0.1:{admin_port}/v1/cursors  and  /metrics",
        ledger.agreed + ledger.differences.len() as u64,
        ledger.differences.len(),
    );
    text
}

/// The counter of reorgs among all metrics; 0 until it is there.
fn reorgs(metrics: &str) -> u64 {
    let counter = metrics.lines().find(|line| line.starts_with("shepherd_chain_reorgs_total{"));
    let count = counter.and_then(|line| line.rsplit(' ').next());
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// A JSON string or number as a person writes it.
fn word(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let state = json!({ "name": "running", "reason": null });
        let block = json!({ "number": 39, "hash": "0x01" });
        View {
            node_head: 41,
            reorgs: 2,
            chain: json!({ "tail": "42", "head": { "number": 40 }, "state": state }),
            cursors: vec![json!({
                "lane": "token-ledger@devnet", "module": "token-ledger", "state": state,
                "block": block, "next": "40", "lag_records": 2, "commit": 12, "faults": 0,
            })],
        }
    }

    #[test]
    fn a_plain_line_tells_where_each_lane_is() {
        let mut ledger = Ledger::default();
        ledger.agreed += 24;
        assert_eq!(
            line(&view(), &ledger),
            "node at 41 · token-ledger running at 39, 2 behind · 24 values agree, 0 do not"
        );
    }

    #[test]
    fn a_page_marks_what_differs_and_says_why_a_lane_stands() {
        let mut view = view();
        view.cursors[0]["state"] = json!({ "name": "halted", "reason": "a trap" });
        let compared = |module| Compared { block: 39, what: "supply".to_owned(), module, chain: 7 };
        let page = page(&view, &[compared(7), compared(8)], &Ledger::default(), 7878);
        assert_eq!(page.matches("DIFFERENT").count(), 1);
        assert!(page.contains("halted") && page.contains("a trap"), "{page}");
    }

    #[test]
    fn reorgs_are_found_among_the_metrics() {
        let help = "# HELP shepherd_chain_reorgs Reorgs journaled.\n";
        let counter = "shepherd_chain_reorgs_total{chain=\"devnet\"} 3\nother 4\n";
        assert_eq!(reorgs(help), 0);
        assert_eq!(reorgs(&format!("{help}{counter}")), 3);
    }

    #[test]
    fn what_is_not_known_yet_is_a_dash() {
        assert_eq!(word(&Value::Null), "–");
        assert_eq!(word(&json!("7")), "7");
        assert_eq!(word(&json!(7)), "7");
    }
}
