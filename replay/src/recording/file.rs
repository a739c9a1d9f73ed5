//! Recordings as files, written and read a line at a time.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::Path,
};

use shepherd_log::{LinkProblem, Record};

use super::{
    Entry, Header, Proof,
    line::{EndLine, HeaderLine, Line, LineProblem, Parsed},
};

/// A recording that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file cannot be read.
    #[error("{name} cannot be read")]
    Io {
        /// The file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A line is wrong.
    #[error(
        "{name}:{line}: {problem}. Recordings are made by `shepherd record cut`; if it was edited, \
         undo that or cut it again"
    )]
    Line {
        /// The file.
        name: String,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: Box<LineProblem>,
    },
}

/// Writes entries as lines.
pub(super) struct Writer<W> {
    out: W,
    with_headers: bool,
    pub records: u64,
    pub bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the first line.
    pub fn begin(out: W, header: &Header) -> io::Result<Writer<W>> {
        let with_headers = header.proof != Proof::Links;
        let mut writer = Writer { out, with_headers, records: 0, bytes: 0 };
        writer.write(&HeaderLine::from(header))?;
        Ok(writer)
    }

    /// Writes the next entry.
    pub fn add(&mut self, entry: Entry) -> io::Result<()> {
        self.write(&Line::new(self.records, entry, self.with_headers))?;
        self.records += 1;
        Ok(())
    }

    /// Writes the last line.
    pub fn end(mut self, outcomes_left_out: u64) -> io::Result<u64> {
        self.write(&Line::End(EndLine { records: self.records, outcomes_left_out }))?;
        self.out.flush()?;
        Ok(self.bytes)
    }

    fn write(&mut self, line: &impl serde::Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.bytes += text.len() as u64;
        self.out.write_all(&text)
    }
}

/// Reads a recording entry by entry; each line is checked by itself and against the first one.
///
/// That records follow one another is checked by the journal that they are loaded into.
pub struct Reader<R> {
    lines: R,
    name: String,
    header: Header,
    /// The line that was read last, from 1.
    line: u64,
    records: u64,
    ended: bool,
}

impl Reader<BufReader<File>> {
    /// Opens a file and reads its first line.
    pub fn open(path: &Path) -> Result<Reader<BufReader<File>>, RecordingError> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Reader::new(BufReader::new(file), name),
            Err(source) => Err(RecordingError::Io { name, source }),
        }
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads the first line. Errors call the recording `name`.
    pub fn new(lines: R, name: impl Into<String>) -> Result<Reader<R>, RecordingError> {
        let mut lines = lines;
        let name = name.into();
        let mut text = String::new();
        if let Err(source) = lines.read_line(&mut text) {
            return Err(RecordingError::Io { name, source });
        }
        match HeaderLine::parse(&text) {
            Ok(header) => Ok(Reader { lines, name, header, line: 1, records: 0, ended: false }),
            Err(problem) => Err(RecordingError::Line { name, line: 1, problem: Box::new(problem) }),
        }
    }

    /// What the first line says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What errors call the recording.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The error of a record that does not link.
    pub(super) fn not_linked(&self, record: u64, problem: LinkProblem) -> RecordingError {
        // Records begin in line 2.
        self.problem(record + 2, LineProblem::Link(Box::new(problem)))
    }

    fn problem(&self, line: u64, problem: LineProblem) -> RecordingError {
        RecordingError::Line { name: self.name.clone(), line, problem: Box::new(problem) }
    }

    fn read(&mut self) -> Result<Option<Entry>, RecordingError> {
        let mut text = String::new();
        self.lines
            .read_line(&mut text)
            .map_err(|source| RecordingError::Io { name: self.name.clone(), source })?;
        self.line += 1;
        self.parse(&text).map_err(|problem| self.problem(self.line, problem))
    }

    fn parse(&mut self, text: &str) -> Result<Option<Entry>, LineProblem> {
        if !text.ends_with('\n') {
            return Err(LineProblem::CutOff);
        }
        match Parsed::try_from(Line::parse(text)?)? {
            Parsed::End(EndLine { records: said, .. }) => {
                if said != self.records {
                    return Err(LineProblem::Count { said, found: self.records });
                }
                self.ended = true;
                match self.lines.fill_buf() {
                    Ok([]) => Ok(None),
                    _ => Err(LineProblem::AfterEnd),
                }
            }
            Parsed::Entry(found, entry) => {
                if found != self.records {
                    return Err(LineProblem::Offset { found, expected: self.records });
                }
                self.check(&entry)?;
                self.records += 1;
                Ok(Some(*entry))
            }
        }
    }

    /// Checks an entry against the first line.
    fn check(&self, entry: &Entry) -> Result<(), LineProblem> {
        let unexpected = |what: String| Err(LineProblem::Unexpected { what });
        let is_modified = !self.header.modified.is_empty();
        if let Record::Block(block) = &entry.record {
            let (found, expected) = (block.header.this, self.header.first_block);
            if self.records == 0 && found != expected {
                return Err(LineProblem::FirstBlock { found, expected });
            }
            if let Some(log) = block.logs[..block.logs.len() - entry.injected as usize]
                .iter()
                .find(|log| !self.header.logs.have(log))
            {
                return unexpected(format!("log {} matches none of the filters", log.index));
            }
            if self.header.proof == Proof::Links && !block.header.rlp.is_empty() {
                return unexpected("a header where none are kept".to_owned());
            }
            self.header.proof.check(block)?;
        }
        if !is_modified && (entry.injected > 0 || entry.instead_of.is_some()) {
            return unexpected("a change of what happened".to_owned());
        }
        let mut previous: Option<(&str, u32)> = None;
        for (module, answer) in &entry.tape {
            if !self.header.tapes.contains(module) {
                return unexpected(format!("an answer on the tape of {module}"));
            }
            let expected = match previous {
                Some((name, call)) if name == module.as_str() => call + 1,
                _ => 0,
            };
            if answer.call != expected {
                let call = answer.call;
                return unexpected(format!("answer {call} where answer {expected} belongs"));
            }
            previous = Some((module.as_str(), answer.call));
        }
        Ok(())
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Entry, RecordingError>;

    fn next(&mut self) -> Option<Result<Entry, RecordingError>> {
        if self.ended {
            return None;
        }
        let read = self.read();
        self.ended |= read.is_err();
        read.transpose()
    }
}
