//! One balance: whose it is, what is known of it, and when a change is worth telling.

use shepherd_sdk::{
    Address, Answer, Error, Request, U256,
    abi::{Erc20::balanceOfCall, call},
    alloy_sol_types::SolCall,
};

/// A balance that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Whose balance.
    pub holder: Address,
    /// Of which token. `None` is the chain's own.
    pub token: Option<Address>,
    /// How far it may move before that is told, in the smallest unit.
    pub threshold: U256,
}

/// What is remembered of a balance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// `None` until it has been read.
    pub seen: Option<Seen>,
    /// Whether the last reading failed: the token reverted, or is none.
    pub unreadable: bool,
}

/// A balance that has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The balance at the last reading.
    pub balance: U256,
    /// The balance at first sight or when a change was last told.
    pub reference: U256,
}

/// What a reading says that someone should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing.
    None,
    /// The balance has moved by the threshold.
    Changed {
        /// From the reference.
        from: U256,
        /// To this balance.
        to: U256,
    },
    /// The token no longer says.
    Unreadable,
    /// The token says again, and the balance is near the reference.
    Readable,
}

impl Watch {
    /// What to ask the chain.
    pub fn request(&self) -> Request {
        match self.token {
            None => Request::Balance(self.holder),
            Some(token) => call(token, &balanceOfCall { owner: self.holder }),
        }
    }

    /// The balance an answer says. `None` when it says none, as a token that reverts does, and an
    /// address without code.
    pub fn balance(&self, answer: &Answer) -> Option<U256> {
        match (self.token, answer) {
            (None, Answer::Balance(balance)) => Some(*balance),
            (Some(_), Answer::Returned(data)) => balanceOfCall::abi_decode_returns(data).ok(),
            _ => None,
        }
    }

    /// Where it is kept in the state.
    pub fn key(&self) -> Vec<u8> {
        match self.token {
            None => self.holder.to_vec(),
            Some(token) => [token.as_slice(), self.holder.as_slice()].concat(),
        }
    }

    /// Compares a reading with what is known. At first sight there is nothing to compare it with.
    pub fn look(&self, known: Known, balance: Option<U256>) -> (Known, News) {
        let Some(balance) = balance else {
            let news = if known.unreadable { News::None } else { News::Unreadable };
            return (Known { unreadable: true, ..known }, news);
        };
        let readable =
            |reference| Known { seen: Some(Seen { balance, reference }), unreadable: false };
        let quiet = if known.unreadable { News::Readable } else { News::None };
        let Some(Seen { reference, .. }) = known.seen else { return (readable(balance), quiet) };
        if balance.abs_diff(reference) < self.threshold {
            return (readable(reference), quiet);
        }
        (readable(balance), News::Changed { from: reference, to: balance })
    }
}

/// Follows the balance when the last reading failed.
const UNREADABLE: u8 = b'x';

impl Known {
    /// As it is stored.
    pub fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(65);
        if let Some(Seen { balance, reference }) = self.seen {
            bytes.extend(balance.to_be_bytes::<32>());
            bytes.extend(reference.to_be_bytes::<32>());
        }
        if self.unreadable {
            bytes.push(UNREADABLE);
        }
        bytes
    }

    /// Reads what is stored.
    pub fn decode(bytes: &[u8]) -> Result<Known, Error> {
        let (bytes, unreadable) = match bytes {
            [seen @ .., UNREADABLE] if seen.len() == 64 || seen.is_empty() => (seen, true),
            _ => (bytes, false),
        };
        let seen = match bytes.split_at_checked(32) {
            Some((balance, reference)) if reference.len() == 32 => Some(Seen {
                balance: U256::from_be_slice(balance),
                reference: U256::from_be_slice(reference),
            }),
            None if bytes.is_empty() && unreadable => None,
            _ => return Err(Error::new("a stored value is no balance: it has another length")),
        };
        Ok(Known { seen, unreadable })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WATCH: Watch = Watch {
        holder: Address::repeat_byte(0xa),
        token: Some(Address::repeat_byte(0x70)),
        threshold: U256::from_limbs([10, 0, 0, 0]),
    };

    fn known(balance: u64, reference: u64, unreadable: bool) -> Known {
        let seen = Seen { balance: U256::from(balance), reference: U256::from(reference) };
        Known { seen: Some(seen), unreadable }
    }

    #[track_caller]
    fn check(before: Known, balance: Option<u64>, after: Known, news: News) {
        assert_eq!(WATCH.look(before, balance.map(U256::from)), (after, news));
    }

    fn changed(from: u64, to: u64) -> News {
        News::Changed { from: U256::from(from), to: U256::from(to) }
    }

    #[test]
    fn a_change_is_measured_from_the_reference() {
        check(Known::default(), Some(100), known(100, 100, false), News::None);
        check(known(100, 100, false), Some(91), known(91, 100, false), News::None);
        check(known(91, 100, false), Some(90), known(90, 90, false), changed(100, 90));
        check(known(90, 90, false), Some(100), known(100, 100, false), changed(90, 100));
    }

    #[test]
    fn what_cannot_be_read_is_told_once_and_keeps_the_reference() {
        let never = Known { seen: None, unreadable: true };
        check(Known::default(), None, never, News::Unreadable);
        check(never, None, never, News::None);
        check(never, Some(100), known(100, 100, false), News::Readable);
        check(known(95, 100, false), None, known(95, 100, true), News::Unreadable);
        check(known(95, 100, true), None, known(95, 100, true), News::None);
        check(known(95, 100, true), Some(92), known(92, 100, false), News::Readable);
        check(known(95, 100, true), Some(80), known(80, 80, false), changed(100, 80));
    }

    #[test]
    fn what_is_known_survives_being_stored() {
        let never = Known { seen: None, unreadable: true };
        // A balance may end in the byte that marks an unreadable one.
        for known in [known(1, 2, false), known(1, 2, true), never, known(1, 0x78, false)] {
            assert_eq!(Known::decode(&known.encode()), Ok(known));
        }
    }

    #[test]
    fn a_stored_value_of_another_length_is_an_error() {
        for length in [0, 1, 32, 63, 65, 66] {
            assert!(Known::decode(&vec![0; length]).is_err(), "{length}");
        }
        assert!(Known::decode(&[UNREADABLE; 33]).is_err());
        assert!(Known::decode(&[UNREADABLE; 2]).is_err());
    }

    #[test]
    fn an_answer_is_a_balance_when_it_is_one_of_the_right_kind() {
        let native = Watch { token: None, ..WATCH };
        let word = U256::from(7).to_be_bytes::<32>();
        let check = |watch: Watch, answer: Answer, expected: Option<u64>| {
            assert_eq!(watch.balance(&answer), expected.map(U256::from), "{answer:?}");
        };
        check(native, Answer::Balance(U256::from(7)), Some(7));
        check(native, Answer::Returned(word.into()), None);
        check(WATCH, Answer::Returned(word.into()), Some(7));
        check(WATCH, Answer::Returned(Default::default()), None);
        check(WATCH, Answer::Reverted(word.into()), None);
        check(WATCH, Answer::Balance(U256::from(7)), None);
    }

    #[test]
    fn a_native_balance_and_those_of_tokens_have_keys_of_their_own() {
        assert_eq!(Watch { token: None, ..WATCH }.key(), [0xa; 20]);
        assert_eq!(WATCH.key(), [[0x70; 20], [0xa; 20]].concat());
    }
}
