//! `endpoints`: URLs, or tables that say how each may be used.

use shepherd_rpc::{Budget, EndpointSpec, Redacted};
use toml::{Spanned, de::DeValue};

use super::{
    Variable, between, endpoint,
    reader::{Reader, Section, Wrong, expected, string},
    value,
};

/// Reads the endpoints of a chain. Never empty.
pub fn read_endpoints(
    reader: &Reader<'_>,
    chain: &mut Section<'_, '_>,
    variable: &Variable<'_>,
) -> Option<Vec<EndpointSpec>> {
    let Some(value) = chain.value("endpoints") else {
        return chain.required("endpoints", |_| Ok(Vec::new()));
    };
    let Some(array) = value.get_ref().as_array() else {
        let wrong = expected("an array of URLs or tables", value.get_ref());
        reader.wrong(value.span(), wrong.of("endpoints"));
        return None;
    };
    if array.is_empty() {
        let wrong = Wrong::new("`endpoints` is empty: a chain needs at least one node");
        reader.wrong(value.span(), wrong);
        return None;
    }
    // Collected first, so that every endpoint is looked at.
    let endpoints: Vec<Option<EndpointSpec>> =
        array.iter().map(|value| read_endpoint(reader, value, variable)).collect();
    endpoints.into_iter().collect()
}

fn read_endpoint(
    reader: &Reader<'_>,
    value: &Spanned<DeValue<'_>>,
    variable: &Variable<'_>,
) -> Option<EndpointSpec> {
    let Some(table) = value.get_ref().as_table() else {
        let url = match value.get_ref().is_str() {
            true => endpoint(value.get_ref(), variable),
            false => Err(expected("a URL or a table", value.get_ref())),
        };
        let wrong = |wrong: Wrong| reader.wrong(value.span(), wrong.of("endpoints"));
        return url.map_err(wrong).ok().map(EndpointSpec::from);
    };
    let mut section = Section::new(reader, table, value.span());
    let url = section.required("url", |value| endpoint(value, variable));
    let priority = section.optional("priority", |value| between(value, 0, 255));
    let rate_per_second = section.optional("rate_per_second", |value| between(value, 1, 100_000));
    let batch_calls_max = section.optional("batch_calls_max", |value| between(value, 1, 1000));
    let budget = read_budget(reader, &mut section);
    section.finish();
    let url: Redacted = url?;
    Some(EndpointSpec {
        priority: priority.unwrap_or(0) as u8,
        rate_per_second: rate_per_second.map(|rate| rate as u32),
        budget: budget?,
        batch_calls_max: batch_calls_max.map(|calls| calls as usize),
        ..url.into()
    })
}

/// `budget = { calls = 3000000, per = "30d" }`. The outer `None` says that something is wrong.
fn read_budget(reader: &Reader<'_>, endpoint: &mut Section<'_, '_>) -> Option<Option<Budget>> {
    let Some(value) = endpoint.value("budget") else { return Some(None) };
    let Some(table) = value.get_ref().as_table() else {
        let wrong = expected("a table", value.get_ref());
        let help = "write for example budget = { calls = 3000000, per = \"30d\" }";
        reader.wrong(value.span(), wrong.of("budget").help(help));
        return None;
    };
    let mut budget = Section::new(reader, table, value.span());
    let calls = budget.required("calls", |value| between(value, 1, u64::MAX));
    let per = budget.required("per", |value| value::duration(&string(value)?));
    budget.finish();
    Some(Some(Budget { calls: calls?, per: per? }))
}
