//! Whether two lanes ended up in the same state.

use std::fmt;

use shepherd_log::{Entry, LaneSnapshot, StorageError};

/// The first key, in key order, that two lanes have different values under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDifference {
    /// The key.
    pub key: Vec<u8>,
    /// Its value in the lane that had the reorgs.
    pub with: Option<Vec<u8>>,
    /// Its value in the lane that had none.
    pub without: Option<Vec<u8>>,
}

impl fmt::Display for StateDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: &Option<Vec<u8>>| match value {
            Some(value) => format!("0x{}", hex::encode(value)),
            None => "not there".to_owned(),
        };
        let (key, with, without) =
            (hex::encode(&self.key), value(&self.with), value(&self.without));
        write!(f, "key 0x{key} is {with} with the reorgs, {without} without them")
    }
}

/// Where the state of a lane that had reorgs differs from that of one that had none; `None` when
/// it is the same, which it is for a correct module at the end of the same history.
pub fn same_state(
    with: &LaneSnapshot,
    without: &LaneSnapshot,
) -> Result<Option<StateDifference>, StorageError> {
    let mut left = with.entries(&[], None);
    let mut right = without.entries(&[], None);
    let (mut a, mut b) = (left.next().transpose()?, right.next().transpose()?);
    loop {
        let key = |entry: &Option<Entry>| entry.as_ref().map(|(key, _)| key.clone());
        match (key(&a), key(&b)) {
            (None, None) => return Ok(None),
            (Some(of_a), Some(of_b)) if of_a == of_b && a == b => {
                (a, b) = (left.next().transpose()?, right.next().transpose()?);
            }
            (of_a, of_b) => {
                let first = [of_a, of_b].into_iter().flatten().min();
                let key = first.expect("one of them has an entry");
                let value = |entry: Option<Entry>| {
                    entry.filter(|(of, _)| *of == key).map(|(_, value)| value)
                };
                let (with, without) = (value(a), value(b));
                return Ok(Some(StateDifference { key, with, without }));
            }
        }
    }
}
