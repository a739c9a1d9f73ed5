//! Taking a TOML file apart, key by key, without stopping at the first mistake.
//!
//! A [`Section`] is one table. Each key is taken by name with a function that converts it, and
//! `finish` reports the keys that nobody took: so the list of known keys is the code that reads
//! them. `serde` would stop at the first wrong key; an operator wants them all at once.

use std::{cell::RefCell, collections::BTreeSet, ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    exit::{Code, Place, Problem},
    mask::mask,
};

/// A configuration file's text, and what was found wrong with it so far.
pub struct Reader<'t> {
    file: &'t Path,
    text: &'t str,
    problems: RefCell<Vec<Problem>>,
}

/// Why a value was not accepted.
pub struct Wrong {
    /// What is wrong with it.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl Wrong {
    /// Wrong, without advice.
    pub fn new(message: impl Into<String>) -> Wrong {
        Wrong { message: message.into(), help: None }
    }

    /// The same, with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Wrong {
        self.help = Some(help.into());
        self
    }

    /// The same, said of a key's value.
    #[must_use]
    pub fn of(self, key: &str) -> Wrong {
        Wrong { message: format!("`{key}`: {}", self.message), help: self.help }
    }
}

impl<'t> Reader<'t> {
    /// A reader that has found nothing yet.
    pub fn new(file: &'t Path, text: &'t str) -> Reader<'t> {
        Reader { file, text, problems: RefCell::default() }
    }

    /// The whole file, or `None` when it is not TOML: each malformed place was then reported, and
    /// what could be guessed of the rest is not worth complaints of its own.
    pub fn parse(&self) -> Option<DeTable<'t>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let wrong = Wrong::new(format!("not valid TOML: {}", error.message()));
            self.wrong(error.span().unwrap_or(0..0), wrong);
        }
        errors.is_empty().then(|| table.into_inner())
    }

    /// Reports what is wrong at a place in the text.
    pub fn wrong(&self, span: Range<usize>, wrong: Wrong) {
        let mut problem = Problem::new(Code::Configuration, wrong.message).at(self.place(span));
        problem.help = wrong.help;
        self.problems.borrow_mut().push(problem);
    }

    /// The place of a span, with its line masked.
    pub fn place(&self, span: Range<usize>) -> Place {
        let start = span.start.min(self.text.len());
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let line = self.text[line_start..line_end].trim_end_matches('\r');
        // What is meant may go on below; one line is enough to find it.
        let end = span.end.clamp(start, line_end);
        Place {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            text: mask(line).replace('\t', " "),
            width: self.text[start..end].chars().count().max(1),
        }
    }

    /// Everything that was reported, in the order of the text.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems
            .sort_by_key(|problem| problem.place.as_ref().map(|place| (place.line, place.column)));
        problems
    }
}

/// One table of the file, being taken apart.
pub struct Section<'r, 't> {
    reader: &'r Reader<'t>,
    table: &'r DeTable<'t>,
    /// Where a missing key is reported.
    span: Range<usize>,
    taken: BTreeSet<&'static str>,
}

impl<'r, 't> Section<'r, 't> {
    /// A section; `span` is where a missing key is reported.
    pub fn new(
        reader: &'r Reader<'t>,
        table: &'r DeTable<'t>,
        span: Range<usize>,
    ) -> Section<'r, 't> {
        Section { reader, table, span, taken: BTreeSet::new() }
    }

    /// The value of a key that must be there.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        convert: impl FnOnce(&DeValue<'t>) -> Result<T, Wrong>,
    ) -> Option<T> {
        if !self.table.contains_key(key) {
            self.taken.insert(key);
            self.reader.wrong(self.span.clone(), Wrong::new(format!("`{key}` is missing")));
            return None;
        }
        self.optional(key, convert)
    }

    /// The value of a key that may be left out.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        convert: impl FnOnce(&DeValue<'t>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let value = self.value(key)?;
        match convert(value.get_ref()) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.reader.wrong(value.span(), wrong.of(key));
                None
            }
        }
    }

    /// The elements of an array, each converted on its own so that each wrong one is reported.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        mut convert: impl FnMut(&DeValue<'t>) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let Some(array) = value.get_ref().as_array() else {
            let found = value.get_ref().type_str();
            let message = format!("`{key}`: expected an array, found {}", with_article(found));
            self.reader.wrong(value.span(), Wrong::new(message));
            return None;
        };
        let mut list = Vec::with_capacity(array.len());
        for element in array {
            match convert(element.get_ref()) {
                Ok(element) => list.push(element),
                Err(wrong) => self.reader.wrong(element.span(), wrong.of(key)),
            }
        }
        (list.len() == array.len()).then_some(list)
    }

    /// A key's value as it is, for what has a shape of its own.
    pub fn value(&mut self, key: &'static str) -> Option<&'r Spanned<DeValue<'t>>> {
        self.taken.insert(key);
        self.table.get(key)
    }

    /// Where a key's value is written, or the section when it is not.
    pub fn span_of(&self, key: &str) -> Range<usize> {
        self.table.get(key).map_or(self.span.clone(), Spanned::span)
    }

    /// Reports the keys that nobody took.
    pub fn finish(self) {
        let known = self.taken.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        for key in self.table.keys() {
            let name = key.get_ref();
            if self.taken.contains(name.as_ref()) {
                continue;
            }
            let wrong = Wrong::new(format!("unknown key `{name}`"));
            let help = format!("remove it or correct it; the keys known here are {known}");
            self.reader.wrong(key.span(), wrong.help(help));
        }
    }
}

/// A string.
pub fn string(value: &DeValue<'_>) -> Result<String, Wrong> {
    value.as_str().map(str::to_owned).ok_or_else(|| expected("a string", value))
}

/// Yes or no.
pub fn boolean(value: &DeValue<'_>) -> Result<bool, Wrong> {
    value.as_bool().ok_or_else(|| expected("true or false", value))
}

/// A whole number from zero.
pub fn number(value: &DeValue<'_>) -> Result<u64, Wrong> {
    let integer = value.as_integer().ok_or_else(|| expected("a whole number", value))?;
    u64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix())
        .map_err(|_| Wrong::new(format!("{integer} is not between 0 and {}", u64::MAX)))
}

/// A string that parses as `T`, whose error says what is wrong with it.
pub fn parsed<T>(value: &DeValue<'_>) -> Result<T, Wrong>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    string(value)?.parse().map_err(|error: T::Err| Wrong::new(error.to_string()))
}

/// The complaint about a value of another type.
pub fn expected(what: &str, found: &DeValue<'_>) -> Wrong {
    Wrong::new(format!("expected {what}, found {}", with_article(found.type_str())))
}

fn with_article(type_name: &str) -> String {
    let article = if type_name.starts_with(['a', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {type_name}")
}
