//! `shepherd journal verify`: whether a journal is what it claims to be.
//!
//! With an earlier summary the pages end where that one ended, so that the digest there can be
//! compared: it is chained over every record before it.

use std::{
    io::{IsTerminal, stderr},
    path::Path,
    time::SystemTime,
};

use serde::Serialize;
use shepherd_admin::{
    query::VERIFY_RECORDS_MAX,
    view::{BlockRefView, OffsetView, VerifyProblemView, VerifyView, time},
};
use shepherd_log::ChainName;

use crate::{
    cli,
    config::Config,
    exit::{Code, Failure, Problem},
    show::{count, print, print_json},
    summary::{Content, Summary},
    view::{View, the_chain, the_chains},
};

/// What a whole journal came to.
#[derive(Serialize)]
struct Verified {
    chain: String,
    from: OffsetView,
    records: u64,
    blocks: u64,
    reverts: u64,
    outcomes: u64,
    logs: u64,
    bytes: u64,
    head: Option<BlockRefView>,
    digest: String,
    problems: Vec<VerifyProblemView>,
}

/// `shepherd journal verify`.
pub fn verify(config: &Config, args: &cli::Verify) -> Result<(), Failure> {
    let one_only = args.summary.is_some() || args.against.is_some();
    let chains = match one_only {
        true => vec![the_chain(config, args.chain.as_ref())?],
        false => the_chains(config, args.chain.as_ref()),
    };
    let earlier = args.against.as_deref().map(|file| earlier(file, &chains[0])).transpose()?;
    let view = View::open(config)?;
    let mut all = Vec::new();
    for chain in &chains {
        all.push(verify_chain(config, &view, chain, earlier.as_ref())?);
    }
    if args.json {
        print_json(&all);
    } else {
        all.iter().for_each(|verified| print(&verified.text()));
    }
    if let (Some(earlier), Some(file), false) = (&earlier, &args.against, args.json) {
        let Content { to, time, .. } = &earlier.content;
        print(&format!("  the records before {to} are those of {} ({time})\n", file.display()));
    }
    // Also when something does not hold: that is then what the file says.
    if let Some(file) = &args.summary {
        write_summary(config, &all[0], file, args.json)?;
    }
    let problems: usize = all.iter().map(|verified| verified.problems.len()).sum();
    if problems == 0 {
        return Ok(());
    }
    let wrong = count(problems as u64, "record");
    let message = format!("the journal cannot be trusted: {wrong} did not hold");
    let help = "stop the daemon and keep a copy of the data directory before anything else";
    Err(Problem::new(Code::Untrusted, message).help(help).into())
}

/// Reads an earlier summary, which must be of this chain.
fn earlier(file: &Path, chain: &ChainName) -> Result<Summary, Problem> {
    let summary = Summary::read(file)?;
    let of = &summary.content.chain;
    if *of != chain.as_str() {
        let message = format!("{} is of chain {of}, not of {chain}", file.display());
        return Err(Problem::new(Code::Failed, message).help("say which chain with --chain NAME"));
    }
    Ok(summary)
}

/// Verifies a chain's whole journal, page by page.
fn verify_chain(
    config: &Config,
    view: &View,
    chain: &ChainName,
    earlier: Option<&Summary>,
) -> Result<Verified, Problem> {
    let boundary = earlier.map(|earlier| earlier.content.to);
    let mut next = view.verify(config, chain, OffsetView(0), 1)?.from;
    let mut verified = Verified::new(chain.as_str(), next);
    if let Some(boundary) = boundary.filter(|boundary| *boundary <= next) {
        let message =
            format!("the journal begins at record {next}, the summary ends at {boundary}");
        let help = "retention removed what the summary was about: there is nothing to compare";
        return Err(Problem::new(Code::Failed, message).help(help));
    }
    loop {
        let limit = match boundary {
            Some(boundary) if next < boundary => VERIFY_RECORDS_MAX.min(boundary.0 - next.0),
            _ => VERIFY_RECORDS_MAX,
        };
        let page = view.verify(config, chain, next, limit)?;
        let (end, at_end) = (page.next, page.next == page.tail);
        verified.add(page)?;
        if let Some(earlier) = earlier.filter(|earlier| earlier.content.to == end) {
            verified.compare(earlier)?;
        }
        if let (Some(boundary), true) = (boundary, at_end && Some(end) < boundary) {
            let message = format!("the journal ends at record {end}, the summary at {boundary}");
            let help = "records that were verified are gone: restore a copy of the data directory";
            return Err(Problem::new(Code::Untrusted, message).help(help));
        }
        if at_end {
            return Ok(verified);
        }
        next = end;
        progress(chain.as_str(), verified.records);
    }
}

fn write_summary(
    config: &Config,
    verified: &Verified,
    file: &Path,
    json: bool,
) -> Result<(), Problem> {
    let chain = config.chains.iter().find(|chain| chain.name.as_str() == verified.chain);
    let chain = chain.ok_or_else(|| {
        let message = format!("chain {} is not in the configuration", verified.chain);
        Problem::new(Code::Failed, message).help("a summary says its chain id and trust level")
    })?;
    let Verified { from, records, blocks, reverts, outcomes, logs, bytes, .. } = *verified;
    let summary = Summary::new(Content {
        kind: Content::kind(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        time: time(SystemTime::now()),
        chain: verified.chain.clone(),
        chain_id: chain.chain_id,
        trust: chain.follow.trust.to_string(),
        from,
        to: OffsetView(from.0 + records),
        records,
        blocks,
        reverts,
        outcomes,
        logs,
        bytes,
        head: verified.head.clone(),
        range_digest: verified.digest.clone(),
        problems: verified.problems.len() as u64,
    });
    summary.write(file)?;
    if !json {
        print(&format!("  summary {} ({})\n", file.display(), summary.digest));
    }
    Ok(())
}

impl Verified {
    fn new(chain: &str, from: OffsetView) -> Verified {
        Verified {
            chain: chain.to_owned(),
            from,
            records: 0,
            blocks: 0,
            reverts: 0,
            outcomes: 0,
            logs: 0,
            bytes: 0,
            head: None,
            digest: String::new(),
            problems: Vec::new(),
        }
    }

    /// Counts a page in, which must begin where the one before it ended.
    fn add(&mut self, page: VerifyView) -> Result<(), Problem> {
        if page.from.0 != self.from.0 + self.records {
            let from = page.from;
            let message = format!("retention removed the records before {from} meanwhile");
            return Err(Problem::new(Code::Failed, message).help("verify once more"));
        }
        self.records += page.next.0 - page.from.0;
        self.blocks += page.blocks;
        self.reverts += page.reverts;
        self.outcomes += page.outcomes;
        self.logs += page.logs;
        self.bytes += page.bytes;
        self.head = page.head;
        self.digest = page.digest;
        self.problems.extend(page.problems);
        Ok(())
    }

    /// Compares what was read so far with an earlier summary that ends here.
    fn compare(&self, earlier: &Summary) -> Result<(), Problem> {
        let Content { to, range_digest, head, .. } = &earlier.content;
        if self.digest == *range_digest && self.head == *head {
            return Ok(());
        }
        let digest = &self.digest;
        let message = format!(
            "the records before {to} are not those of the summary: their digest is {digest}, it was {range_digest}"
        );
        let help = "this is another journal, or its past was rewritten; keep a copy of both";
        Err(Problem::new(Code::Untrusted, message).help(help))
    }

    fn text(&self) -> String {
        let Verified { chain, records, blocks, reverts, logs, bytes, digest, problems, .. } = self;
        let verdict = match problems.len() as u64 {
            0 => "every one holds".to_owned(),
            wrong => format!("{wrong} {} not hold", if wrong == 1 { "does" } else { "do" }),
        };
        let from = match self.from {
            OffsetView(0) => String::new(),
            from => format!(" from {from} on"),
        };
        let mut text = format!(
            "{chain}: {}{from} ({}, {}, {}; {bytes} bytes): {verdict}\n  digest {digest}\n",
            count(*records, "record"),
            count(*blocks, "block"),
            count(*reverts, "revert"),
            count(*logs, "log"),
        );
        for problem in problems {
            text += &format!("  record {}: {}\n", problem.offset, problem.what);
        }
        text
    }
}

fn progress(chain: &str, records: u64) {
    if stderr().is_terminal() {
        eprint!("\r{chain}: {records} records\r");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(from: u64, next: u64, problems: Vec<VerifyProblemView>) -> VerifyView {
        VerifyView {
            chain: "devnet".to_owned(),
            from: OffsetView(from),
            next: OffsetView(next),
            tail: OffsetView(9),
            blocks: next - from,
            reverts: 0,
            outcomes: 0,
            logs: 1,
            bytes: 100,
            head: None,
            digest: format!("0x{next}"),
            problems,
        }
    }

    #[test]
    fn records_that_are_removed_meanwhile_are_no_part_of_a_verification() {
        let mut verified = Verified::new("devnet", OffsetView(2));
        verified.add(page(2, 5, Vec::new())).unwrap();
        let problem = verified.add(page(7, 9, Vec::new())).unwrap_err();
        assert_eq!(problem.message, "retention removed the records before 7 meanwhile");
        assert_eq!((verified.from, verified.records), (OffsetView(2), 3));
    }

    #[test]
    fn a_verification_says_what_does_not_hold() {
        let wrong = VerifyProblemView { offset: OffsetView(7), what: "it is corrupt".to_owned() };
        let mut verified = Verified::new("devnet", OffsetView(0));
        verified.add(page(0, 5, Vec::new())).unwrap();
        verified.add(page(5, 9, vec![wrong])).unwrap();
        let expected = "\
devnet: 9 records (9 blocks, 0 reverts, 2 logs; 200 bytes): 1 does not hold
  digest 0x9
  record 7: it is corrupt
";
        assert_eq!(verified.text(), expected);
    }
}
