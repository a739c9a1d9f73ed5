//! A conditional order as the chain told it, and where it stands by itself.

use shepherd_sdk::{
    Address, B256, Error,
    alloy_sol_types::{SolValue, abi::AbiDecoderConfig},
    cow::{
        abi::{ConditionalOrderParams, StopLossData},
        addresses::STOP_LOSS,
        twap::{self, Phase},
    },
};

/// What the chain told about a conditional order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditional {
    /// The ComposableCoW that told it, and is asked.
    pub contract: Address,
    /// The transaction in which it was told.
    pub transaction: B256,
    /// The order.
    pub params: ConditionalOrderParams,
    /// Its way to the owner's merkle root; empty for an order of its own.
    pub proof: Vec<B256>,
}

/// Where an order stands at a time, as far as that follows from the order itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stand {
    /// Nothing will come of it any more, and why.
    Over(Over),
    /// When it starts is in the cabinet.
    StartUnknown,
    /// There is nothing to ask before this time.
    Closed {
        /// In seconds since 1970.
        until: u64,
    },
    /// It can be asked for an order.
    Open(Window),
}

/// While an order can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The `validTo` of the order it will answer, when that is known: a part of a TWAP.
    pub part: Option<u32>,
    /// When what was answered counts no longer: the next part begins, or the order is over.
    pub ends: u64,
    /// Whether nothing comes after it.
    pub last: bool,
}

/// Why nothing will come of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    /// Its time has passed.
    Finished,
    /// It never could become an order.
    Invalid(twap::Invalid),
}

impl Conditional {
    /// Where the order stands. `start` is what the cabinet said, or 0 while that is not known.
    pub fn stand(&self, twap_handlers: &[Address], start: u32, time: u64) -> Stand {
        if twap_handlers.contains(&self.params.handler) {
            return self.twap_stand(start, time);
        }
        // A stop-loss order is answered for ever, long after its end.
        let ends = self.stop_loss_valid_to().map_or(u64::MAX, |last| u64::from(last) + 1);
        if ends <= time {
            return Stand::Over(Over::Finished);
        }
        Stand::Open(Window { part: None, ends, last: false })
    }

    fn twap_stand(&self, start: u32, time: u64) -> Stand {
        let twap = match twap::decode(&self.params.staticInput) {
            Ok(twap) => twap,
            Err(invalid) => return Stand::Over(Over::Invalid(invalid)),
        };
        match twap::phase(&twap, B256::left_padding_from(&start.to_be_bytes()), time) {
            Phase::Invalid(invalid) => Stand::Over(Over::Invalid(invalid)),
            Phase::NotSet => Stand::StartUnknown,
            Phase::NotStarted { until } | Phase::Between { until } => Stand::Closed { until },
            Phase::Part { valid_to, next, .. } => {
                let ends = next.unwrap_or(u64::from(valid_to) + 1);
                Stand::Open(Window { part: Some(valid_to), ends, last: next.is_none() })
            }
            Phase::Finished => Stand::Over(Over::Finished),
        }
    }

    fn stop_loss_valid_to(&self) -> Option<u32> {
        if self.params.handler != STOP_LOSS {
            return None;
        }
        let strictly = AbiDecoderConfig::new().validate(true);
        let data = StopLossData::abi_decode_with_config(&self.params.staticInput, strictly);
        data.ok().map(|data| data.validTo)
    }

    /// ```text
    /// version u8 = 1, contract (20), transaction (32), handler (20), salt (32),
    /// proof: count u16, hashes (32 each), static input (the rest)
    /// ```
    pub(crate) fn encode(&self) -> Vec<u8> {
        let count = u16::try_from(self.proof.len()).expect("proofs are bounded when indexed");
        let mut bytes = vec![VERSION];
        bytes.extend(self.contract);
        bytes.extend(self.transaction);
        bytes.extend(self.params.handler);
        bytes.extend(self.params.salt);
        bytes.extend(count.to_be_bytes());
        bytes.extend(self.proof.iter().flatten());
        bytes.extend(&self.params.staticInput);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Conditional, Error> {
        let read = || {
            let (version, bytes) = bytes.split_first()?;
            let (contract, bytes) = bytes.split_first_chunk::<20>()?;
            let (transaction, bytes) = bytes.split_first_chunk::<32>()?;
            let (handler, bytes) = bytes.split_first_chunk::<20>()?;
            let (salt, bytes) = bytes.split_first_chunk::<32>()?;
            let (count, bytes) = bytes.split_first_chunk::<2>()?;
            let proof_bytes = 32 * usize::from(u16::from_be_bytes(*count));
            let (proof, input) = bytes.split_at_checked(proof_bytes)?;
            let params = ConditionalOrderParams {
                handler: handler.into(),
                salt: salt.into(),
                staticInput: input.to_vec().into(),
            };
            let order = Conditional {
                contract: contract.into(),
                transaction: transaction.into(),
                params,
                proof: proof.chunks_exact(32).map(B256::from_slice).collect(),
            };
            (*version == VERSION).then_some(order)
        };
        read().ok_or_else(|| Error::new("a stored order cannot be read"))
    }
}

const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use shepherd_sdk::{
        U256,
        cow::{abi::TwapData, addresses::TWAP},
    };

    use super::*;

    fn conditional(handler: Address, input: Vec<u8>) -> Conditional {
        Conditional {
            contract: Address::repeat_byte(1),
            transaction: B256::repeat_byte(2),
            params: ConditionalOrderParams {
                handler,
                salt: B256::repeat_byte(3),
                staticInput: input.into(),
            },
            proof: vec![B256::repeat_byte(4), B256::repeat_byte(5)],
        }
    }

    #[test]
    fn an_order_is_read_as_it_was_written_and_nothing_else_is() {
        let order = conditional(TWAP, vec![9; 77]);
        let bytes = order.encode();
        assert_eq!(Conditional::decode(&bytes).unwrap(), order);
        let bare = Conditional { proof: vec![], ..conditional(TWAP, vec![]) };
        assert_eq!(Conditional::decode(&bare.encode()).unwrap(), bare);
        assert!(Conditional::decode(&[]).is_err());
        assert!(Conditional::decode(&bytes[..106]).is_err());
        assert!(Conditional::decode(&bytes[..170]).is_err());
        assert!(Conditional::decode(&[&[2], &bytes[1..]].concat()).is_err());
    }

    #[test]
    fn a_stop_loss_is_over_after_its_last_second_and_others_never_are() {
        let input = StopLossData { validTo: 1_000, ..StopLossData::default() }.abi_encode();
        let stand = |handler, time| conditional(handler, input.clone()).stand(&[TWAP], 0, time);
        let open = |ends| Stand::Open(Window { part: None, ends, last: false });
        assert_eq!(stand(STOP_LOSS, 1_000), open(1_001));
        assert_eq!(stand(STOP_LOSS, 1_001), Stand::Over(Over::Finished));
        assert_eq!(stand(Address::repeat_byte(7), 1_001), open(u64::MAX));
        let odd = conditional(STOP_LOSS, vec![1, 2, 3]);
        assert_eq!(odd.stand(&[TWAP], 0, 1_001), open(u64::MAX));
    }

    #[test]
    fn a_twap_stands_where_its_schedule_says() {
        let twap = TwapData {
            sellToken: Address::repeat_byte(1),
            buyToken: Address::repeat_byte(2),
            partSellAmount: U256::from(10),
            minPartLimit: U256::from(5),
            n: U256::from(2),
            t: U256::from(100),
            ..TwapData::default()
        };
        let order = conditional(TWAP, twap.abi_encode());
        let stand = |start, time| order.stand(&[TWAP], start, time);
        assert_eq!(stand(0, 1_000), Stand::StartUnknown);
        assert_eq!(stand(1_000, 999), Stand::Closed { until: 1_000 });
        let first = Window { part: Some(1_099), ends: 1_100, last: false };
        let second = Window { part: Some(1_199), ends: 1_200, last: true };
        assert_eq!(stand(1_000, 1_000), Stand::Open(first));
        assert_eq!(stand(1_000, 1_100), Stand::Open(second));
        assert_eq!(stand(1_000, 1_200), Stand::Over(Over::Finished));
        let undecodable = Stand::Over(Over::Invalid(twap::Invalid::Undecodable));
        assert_eq!(conditional(TWAP, vec![]).stand(&[TWAP], 0, 0), undecodable);
        // To an operator who names no such handler it is an order like any other.
        assert!(matches!(order.stand(&[], 0, 0), Stand::Open(_)));
    }
}
