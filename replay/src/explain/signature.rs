//! Signatures as the contracts' sources write them, names included.
//!
//! ```text
//!   roots(address owner) → (bytes32 root)
//!   Trade(address indexed owner, (uint8 scheme, bytes data)[] parts)
//! ```
//!
//! The notation that the ABI crate reads has no names inside structs, and it is the names that
//! people need. Only the tables beside this file are read, and a test reads all of them.

use alloy_json_abi::{Error, Event, EventParam, Function, Param, StateMutability};

/// An event.
pub(super) fn event(text: &str) -> Event {
    let (name, list) = head(text);
    let inputs = split(list).into_iter().map(|part| {
        let (param, is_indexed) = param(part);
        EventParam {
            ty: param.ty,
            name: param.name,
            indexed: is_indexed,
            components: param.components,
            internal_type: None,
        }
    });
    Event { name: name.to_owned(), inputs: inputs.collect(), anonymous: false }
}

/// An error.
pub(super) fn error(text: &str) -> Error {
    let (name, list) = head(text);
    Error { name: name.to_owned(), inputs: params(list) }
}

/// A function, and behind an arrow what it returns.
pub(super) fn function(text: &str) -> Function {
    let (call, returned) = text.split_once(" → ").unwrap_or((text, "()"));
    let (name, list) = head(call);
    let (_, outputs) = head(returned);
    Function {
        name: name.to_owned(),
        inputs: params(list),
        outputs: params(outputs),
        state_mutability: StateMutability::View,
    }
}

/// What stands before the parentheses, and in them.
fn head(text: &str) -> (&str, &str) {
    let (name, rest) = text.split_once('(').expect("a signature has parentheses");
    (name, rest.strip_suffix(')').expect("they are closed at its end"))
}

fn params(list: &str) -> Vec<Param> {
    split(list).into_iter().map(|part| param(part).0).collect()
}

/// One parameter, and whether it is indexed.
fn param(part: &str) -> (Param, bool) {
    let (ty, components, rest) = match part.strip_prefix('(') {
        Some(inner) => {
            let end = inner.rfind(')').expect("a struct is closed");
            let (suffix, rest) =
                inner[end + 1..].split_once(' ').unwrap_or((&inner[end + 1..], ""));
            (format!("tuple{suffix}"), params(&inner[..end]), rest)
        }
        None => {
            let (ty, rest) = part.split_once(' ').unwrap_or((part, ""));
            (ty.to_owned(), Vec::new(), rest)
        }
    };
    let (is_indexed, name) = match rest.strip_prefix("indexed ") {
        Some(name) => (true, name),
        None => (false, rest),
    };
    (Param { ty, name: name.to_owned(), components, internal_type: None }, is_indexed)
}

/// Parts between the commas that are in no parentheses.
fn split(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, character) in list.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(list[start..at].trim());
                start = at + 1;
            }
            _ => (),
        }
    }
    parts.push(list[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_and_no_part_of_the_signature() {
        let trade = event("Trade(address indexed owner, (uint8 scheme, bytes data)[] parts, bool)");
        assert_eq!(trade.signature(), "Trade(address,(uint8,bytes)[],bool)");
        let names: Vec<(&str, bool)> =
            trade.inputs.iter().map(|input| (input.name.as_str(), input.indexed)).collect();
        assert_eq!(names, [("owner", true), ("parts", false), ("", false)]);
        assert_eq!(trade.inputs[1].components[1].name, "data");

        let roots = function("roots(address owner) → (bytes32 root, (uint256 a) b)");
        assert_eq!(roots.signature(), "roots(address)");
        assert_eq!((roots.outputs[0].name.as_str(), roots.outputs.len()), ("root", 2));
        assert_eq!(function("decimals()").outputs, []);
        assert_eq!(
            error("PollTryAtBlock(uint256 n, string why)").signature(),
            "PollTryAtBlock(uint256,string)"
        );
    }
}
