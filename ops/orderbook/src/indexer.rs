//! What the chain says of orders: placed through EthFlow, invalidated or refunded there,
//! pre-signed.
//!
//! Each look reads the last blocks again and forgets what it knew of them, so a reorg no deeper
//! than [`REORG_BLOCKS`] needs no case of its own.
//!
//! ```text
//! known:   ──────────── settled ───────────┤── read again ──┤
//!                                          ^ next - 64      ^ next: first block not yet read
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use alloy_primitives::{Address, B256, Bytes};
use alloy_sol_types::SolEvent;
use cowprotocol::{
    BuyTokenDestination,
    CoWSwapEthFlow::OrderRefund,
    CoWSwapOnchainOrders::{OrderInvalidation, OrderPlacement},
    DomainSeparator, GPv2OrderData,
    GPv2Settlement::PreSignature,
    OnchainSigningScheme, OrderData, OrderKind, SellTokenSource, SigningScheme,
};

use crate::{
    chain::{Log, Node, NodeError},
    config::ChainConfig,
    order::Uid,
    server::Shared,
};

/// Blocks that are read again at each look.
const REORG_BLOCKS: u64 = 64;

/// Blocks of one question, which a public node answers too.
const RANGE_BLOCKS_MAX: u64 = 10_000;

/// A failing node is asked again after this.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What the chain says, as of its last look.
#[derive(Debug, Default)]
pub struct Facts {
    logs: Vec<Log>,
    /// First block that was not read yet.
    next: u64,
    placed: BTreeMap<Uid, Placement>,
    invalidated: BTreeSet<Uid>,
    refunded: BTreeMap<Uid, B256>,
    presigned: BTreeSet<Uid>,
}

/// An order placed by a contract.
#[derive(Clone, Debug)]
pub struct Placement {
    /// What the settlement contract will verify.
    pub data: OrderData,
    /// The contract, which is the order's owner.
    pub owner: Address,
    /// Who placed it.
    pub user: Address,
    /// Until when the user wants it.
    pub user_valid_to: u32,
    /// How the contract agrees.
    pub scheme: SigningScheme,
    /// What it agrees with.
    pub signature: Bytes,
    /// The height of its block.
    pub block: u64,
}

/// Which logs are read, and what they are read with.
#[derive(Clone, Debug)]
pub struct Reader {
    /// The contract whose placements count.
    pub eth_flow: Option<Address>,
    /// The contract orders are pre-signed at.
    pub settlement: Address,
    /// What makes an order's digest this chain's.
    pub domain: DomainSeparator,
}

impl Facts {
    /// An order placed on the chain, once `delay` more blocks have been made.
    pub fn placement(&self, uid: Uid, delay: u64) -> Option<&Placement> {
        let placement = self.placed.get(&uid)?;
        (placement.block + delay < self.next).then_some(placement)
    }

    /// All orders placed on the chain, old enough or not.
    pub fn placements(&self) -> impl Iterator<Item = (&Uid, &Placement)> {
        self.placed.iter()
    }

    /// Whether the contract that placed an order took it back.
    pub fn invalidated(&self, uid: Uid) -> bool {
        self.invalidated.contains(&uid)
    }

    /// The transaction in which the contract gave back an order's ether.
    pub fn refund(&self, uid: Uid) -> Option<B256> {
        self.refunded.get(&uid).copied()
    }

    /// Whether an order's owner has pre-signed it.
    pub fn presigned(&self, uid: Uid) -> bool {
        self.presigned.contains(&uid)
    }

    /// The first block to read, when the chain ends before `end`.
    fn start(&self, from: u64, end: u64) -> u64 {
        from.max(self.next.min(end).saturating_sub(REORG_BLOCKS))
    }

    /// Replaces what is known from block `start` on by `logs`, which end before `next`.
    fn replace(&mut self, start: u64, next: u64, logs: Vec<Log>, reader: &Reader) {
        self.next = next;
        let kept = self.logs.partition_point(|log| log.block_number.to::<u64>() < start);
        if self.logs[kept..] == logs {
            return;
        }
        self.logs.truncate(kept);
        self.logs.extend(logs);
        self.placed.clear();
        self.invalidated.clear();
        self.refunded.clear();
        self.presigned.clear();
        for log in &self.logs {
            match reader.fact(log) {
                Some(Fact::Placed(uid, placement)) => {
                    self.placed.insert(uid, placement);
                }
                Some(Fact::Invalidated(uid)) => {
                    self.invalidated.insert(uid);
                }
                Some(Fact::Refunded(uid)) => {
                    self.refunded.insert(uid, log.transaction_hash);
                }
                Some(Fact::PreSigned(uid)) => {
                    self.presigned.insert(uid);
                }
                Some(Fact::Unsigned(uid)) => {
                    self.presigned.remove(&uid);
                }
                None => (),
            }
        }
    }
}

#[expect(clippy::large_enum_variant, reason = "it lives for one step of a loop")]
enum Fact {
    Placed(Uid, Placement),
    Invalidated(Uid),
    Refunded(Uid),
    PreSigned(Uid),
    Unsigned(Uid),
}

impl Reader {
    /// What a log says. The node was asked for these events of these contracts, but not for
    /// which event of which contract.
    fn fact(&self, log: &Log) -> Option<Fact> {
        let topics = log.topics.iter().copied();
        if log.address == self.settlement {
            let event = PreSignature::decode_raw_log(topics, &log.data).ok()?;
            let uid = Uid::try_from(event.orderUid.as_ref()).ok()?;
            return Some(if event.signed { Fact::PreSigned(uid) } else { Fact::Unsigned(uid) });
        }
        if log.topics.first() == Some(&OrderInvalidation::SIGNATURE_HASH) {
            let event = OrderInvalidation::decode_raw_log(topics, &log.data).ok()?;
            return Uid::try_from(event.orderUid.as_ref()).ok().map(Fact::Invalidated);
        }
        if log.topics.first() == Some(&OrderRefund::SIGNATURE_HASH) {
            let event = OrderRefund::decode_raw_log(topics, &log.data).ok()?;
            return Uid::try_from(event.orderUid.as_ref()).ok().map(Fact::Refunded);
        }
        let event = OrderPlacement::decode_raw_log(topics, &log.data).ok()?;
        let data = order_data(&event.order)?;
        let scheme = match event.signature.scheme {
            OnchainSigningScheme::Eip1271 => SigningScheme::Eip1271,
            OnchainSigningScheme::PreSign => SigningScheme::PreSign,
            _ => return None,
        };
        let placement = Placement {
            data,
            owner: log.address,
            user: event.sender,
            user_valid_to: user_valid_to(&event.data).unwrap_or(data.valid_to),
            scheme,
            signature: event.signature.data,
            block: log.block_number.to(),
        };
        Some(Fact::Placed(data.uid(&self.domain, log.address), placement))
    }

    fn emitters(&self) -> Vec<Address> {
        self.eth_flow.into_iter().chain([self.settlement]).collect()
    }
}

/// EthFlow's own part of a placement: the quote's number, then until when the user wants it.
fn user_valid_to(data: &[u8]) -> Option<u32> {
    let [_, _, _, _, _, _, _, _, valid_to @ ..] = data else { return None };
    valid_to.try_into().ok().map(u32::from_be_bytes)
}

/// The contract's order in the orderbook's words; none for a marker the contract does not know.
fn order_data(order: &GPv2OrderData) -> Option<OrderData> {
    Some(OrderData {
        sell_token: order.sellToken,
        buy_token: order.buyToken,
        receiver: Some(order.receiver),
        sell_amount: order.sellAmount,
        buy_amount: order.buyAmount,
        valid_to: order.validTo,
        app_data: order.appData,
        fee_amount: order.feeAmount,
        kind: OrderKind::from_contract_bytes(order.kind)?,
        partially_fillable: order.partiallyFillable,
        sell_token_balance: SellTokenSource::from_contract_bytes(order.sellTokenBalance)?,
        buy_token_balance: BuyTokenDestination::from_contract_bytes(order.buyTokenBalance)?,
    })
}

/// Looks at the chain again and again. A node that fails is asked again: an orderbook that
/// cannot see the chain goes on with what it knows.
pub async fn follow(shared: Arc<Shared>, node: Node, config: ChainConfig, reader: Reader) {
    loop {
        let pause = match look(&shared, &node, config.from_block, &reader).await {
            Ok(()) => config.poll_interval,
            Err(error) => {
                tracing::warn!(%error, "the chain could not be read");
                RETRY_PAUSE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn look(shared: &Shared, node: &Node, from: u64, reader: &Reader) -> Result<(), NodeError> {
    let events: [B256; 4] = [
        OrderPlacement::SIGNATURE_HASH,
        OrderInvalidation::SIGNATURE_HASH,
        OrderRefund::SIGNATURE_HASH,
        PreSignature::SIGNATURE_HASH,
    ];
    let emitters = reader.emitters();
    let end = node.head().await? + 1;
    let mut start = shared.state().book.facts.start(from, end);
    while start < end {
        let next = end.min(start + RANGE_BLOCKS_MAX);
        let logs = node.logs(start..=next - 1, &emitters, &events).await?;
        shared.state().book.facts.replace(start, next, logs, reader);
        start = next;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{U64, U256, b256};
    use cowprotocol::{GPV2_SETTLEMENT, OnchainSignature, settlement_domain};

    use super::*;

    fn reader() -> Reader {
        Reader {
            eth_flow: Some(Address::repeat_byte(0xef)),
            settlement: GPV2_SETTLEMENT,
            domain: settlement_domain(11_155_111, GPV2_SETTLEMENT),
        }
    }

    fn placement(block: u64, sell: u64) -> Log {
        let event = OrderPlacement {
            sender: Address::repeat_byte(1),
            order: GPv2OrderData {
                sellToken: Address::repeat_byte(2),
                buyToken: Address::repeat_byte(3),
                receiver: Address::repeat_byte(4),
                sellAmount: U256::from(sell),
                buyAmount: U256::from(5),
                validTo: u32::MAX,
                appData: B256::ZERO,
                feeAmount: U256::ZERO,
                kind: OrderKind::SELL,
                partiallyFillable: false,
                sellTokenBalance: SellTokenSource::ERC20,
                buyTokenBalance: BuyTokenDestination::ERC20,
            },
            signature: OnchainSignature {
                scheme: OnchainSigningScheme::Eip1271,
                data: Bytes::from([0xef; 20]),
            },
            data: Bytes::from([&7i64.to_be_bytes()[..], &99u32.to_be_bytes()].concat()),
        };
        let data = event.encode_log_data();
        Log {
            address: Address::repeat_byte(0xef),
            topics: data.topics().to_vec(),
            data: data.data,
            block_number: U64::from(block),
            transaction_hash: B256::repeat_byte(sell as u8),
            block_hash: B256::repeat_byte(block as u8),
        }
    }

    #[test]
    fn events_have_their_known_topics() {
        assert_eq!(
            OrderPlacement::SIGNATURE_HASH,
            b256!("cf5f9de2984132265203b5c335b25727702ca77262ff622e136baa7362bf1da9")
        );
        assert_eq!(
            OrderInvalidation::SIGNATURE_HASH,
            b256!("b8bad102ac8bbacfef31ff1c906ec6d951c230b4dce750bb0376b812ad35852a")
        );
        assert_eq!(
            PreSignature::SIGNATURE_HASH,
            b256!("01bf7c8b0ca55deecbea89d7e58295b7ffbf685fd0d96801034ba8c6ffe1c68d")
        );
    }

    #[test]
    fn a_refund_is_known_by_its_transaction() {
        let placed = placement(10, 1);
        let mut facts = Facts::default();
        facts.replace(0, 11, vec![placed.clone()], &reader());
        let uid = *facts.placements().next().unwrap().0;
        assert_eq!(facts.refund(uid), None);
        let refund = OrderRefund { orderUid: uid.to_vec().into(), refunder: Address::ZERO };
        let data = refund.encode_log_data();
        let transaction_hash = B256::repeat_byte(7);
        let topics = data.topics().to_vec();
        let refund = Log { topics, data: data.data, transaction_hash, ..placed.clone() };
        facts.replace(0, 12, vec![placed, refund], &reader());
        assert_eq!(facts.refund(uid), Some(transaction_hash));
    }

    #[test]
    fn a_placement_is_known_when_its_delay_has_passed() {
        let mut facts = Facts::default();
        facts.replace(0, 11, vec![placement(10, 1)], &reader());
        let (uid, placed) = facts.placements().next().map(|(uid, p)| (*uid, p.clone())).unwrap();
        assert_eq!((placed.user_valid_to, placed.block), (99, 10));
        assert_eq!(uid[32..52], [0xef; 20]);
        assert!(facts.placement(uid, 0).is_some());
        assert!(facts.placement(uid, 1).is_none());
        facts.replace(10, 12, vec![placement(10, 1)], &reader());
        assert!(facts.placement(uid, 1).is_some());
    }

    #[test]
    fn a_placement_that_a_reorg_removed_is_forgotten() {
        let mut facts = Facts::default();
        facts.replace(0, 101, vec![placement(20, 1), placement(100, 2)], &reader());
        assert_eq!(facts.start(0, 102), 37);
        facts.replace(37, 102, vec![placement(101, 3)], &reader());
        let blocks: BTreeSet<u64> = facts.placements().map(|(_, placed)| placed.block).collect();
        assert_eq!(blocks, BTreeSet::from([20, 101]));
        assert_eq!(facts.start(0, 90), 26, "a chain that became shorter is read again from there");
        assert_eq!(facts.start(50, 90), 50);
    }
}
