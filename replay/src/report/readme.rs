//! `README.md`: what the files of the directory are, for whoever opens it in a year.

use askama::Template;

use super::summary::Summary;

#[derive(Template)]
#[template(path = "README.md")]
struct Readme<'a> {
    summary: &'a Summary,
}

/// The text.
pub(crate) fn text(summary: &Summary) -> Result<String, askama::Error> {
    Readme { summary }.render()
}
