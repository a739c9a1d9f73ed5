//! What is known about chains, so that nobody has to find it out in operation.
//!
//! Times and tags are the chains' own; how deep a reorg may go and how often to poll are our
//! choice: about five minutes of blocks where only one sequencer makes them, and two epochs where
//! a vote does. What a profile says is only where a configuration begins.

use std::time::Duration;

use crate::{Config, Finality, LogIndexes, Trust};

/// What is known about one chain.
#[derive(Debug)]
pub struct Profile {
    /// The name people give it.
    pub name: &'static str,
    /// Its EIP-155 id.
    pub chain_id: u64,
    /// The trust level to begin with.
    pub trust: Trust,
    /// The strictest trust level at which its blocks still hold up.
    pub trust_max: Trust,
    /// How it numbers the logs of a block.
    pub log_indexes: LogIndexes,
    /// When its blocks are final.
    pub finality: Finality,
    /// Most blocks that a reorg may abandon before someone should look.
    pub reorg_depth_max: u64,
    /// How often to look for a new head when nobody announces one.
    pub poll_interval: Duration,
    /// The usual time between two blocks.
    pub block_time: Duration,
    /// Where it differs from Ethereum, as far as that matters here.
    pub oddities: &'static [Oddity],
}

/// Where a chain differs from Ethereum.
#[derive(Debug)]
pub struct Oddity {
    /// What is different, and what follows from it.
    pub fact: &'static str,
    /// Where that is written.
    pub source: &'static str,
}

/// What is known about the chain of this id, if anything.
pub fn profile(chain_id: u64) -> Option<&'static Profile> {
    PROFILES.iter().find(|profile| profile.chain_id == chain_id)
}

impl Config {
    /// How to follow the chain of this id when nothing else is said: as its profile says, or as
    /// any chain that behaves like Ethereum.
    pub fn for_chain(chain_id: u64) -> Config {
        let Some(profile) = profile(chain_id) else { return Config::default() };
        Config {
            trust: profile.trust,
            log_indexes: profile.log_indexes,
            finality: profile.finality,
            reorg_depth_max: profile.reorg_depth_max,
            poll_interval: profile.poll_interval,
            ..Config::default()
        }
    }
}

/// Every chain that something is known about.
pub static PROFILES: [Profile; 7] = [
    Profile {
        name: "mainnet",
        chain_id: 1,
        trust: Trust::Bloom,
        trust_max: Trust::Receipts,
        log_indexes: LogIndexes::Dense,
        // Two epochs of 32 slots when all goes well:
        // https://ethereum.org/en/developers/docs/consensus-mechanisms/pos/#finality
        finality: Finality::Tag,
        reorg_depth_max: 64,
        poll_interval: Duration::from_secs(2),
        block_time: Duration::from_secs(12),
        oddities: &[],
    },
    Profile {
        name: "gnosis",
        chain_id: 100,
        trust: Trust::Bloom,
        trust_max: Trust::Receipts,
        log_indexes: LogIndexes::Dense,
        // Slots of 5 s, epochs of 16 slots, final after 2.7 min:
        // https://docs.gnosischain.com/about/networks/mainnet
        finality: Finality::Tag,
        reorg_depth_max: 64,
        poll_interval: Duration::from_secs(1),
        block_time: Duration::from_secs(5),
        oddities: &[Oddity {
            fact: "blocks from before its merge in December 2022 are sealed by Aura: their hashes \
                   are made of other fields, so they hold up at trust level `link` alone",
            source: "https://github.com/ledgerwatch/erigon/issues/3643, \
                     https://github.com/sigp/lighthouse/pull/3729",
        }],
    },
    Profile {
        name: "sepolia",
        chain_id: 11_155_111,
        trust: Trust::Bloom,
        trust_max: Trust::Receipts,
        log_indexes: LogIndexes::Dense,
        finality: Finality::Tag,
        reorg_depth_max: 64,
        poll_interval: Duration::from_secs(2),
        block_time: Duration::from_secs(12),
        oddities: &[],
    },
    Profile {
        name: "arbitrum-one",
        chain_id: 42_161,
        trust: Trust::Bloom,
        trust_max: Trust::Receipts,
        log_indexes: LogIndexes::Dense,
        // `finalized` is the newest block whose batch is in a final block of Ethereum, minutes
        // behind the head: https://github.com/OffchainLabs/nitro/releases/tag/v2.0.10
        finality: Finality::Tag,
        reorg_depth_max: 1_200,
        poll_interval: Duration::from_millis(250),
        block_time: Duration::from_millis(250),
        oddities: &[
            Oddity {
                fact: "several blocks share one second, and what contracts see as the block's \
                       number is Ethereum's",
                source: "https://docs.arbitrum.io/build-decentralized-apps/arbitrum-vs-ethereum/\
                         block-numbers-and-time",
            },
            Oddity {
                fact: "transaction types of its own (0x64 to 0x6a, 0x78) have receipts that differ \
                       from Ethereum's in the type alone, so they hash like those",
                source: "https://github.com/OffchainLabs/go-ethereum core/types/receipt.go, \
                         Receipts.EncodeIndex",
            },
        ],
    },
    Profile {
        name: "base",
        chain_id: 8_453,
        trust: Trust::Bloom,
        trust_max: Trust::Receipts,
        log_indexes: LogIndexes::Dense,
        // `finalized` is derived from final blocks of Ethereum:
        // https://docs.base.org/base-chain/network-information/transaction-finality
        finality: Finality::Tag,
        reorg_depth_max: 150,
        poll_interval: Duration::from_millis(500),
        block_time: Duration::from_secs(2),
        oddities: &[
            Oddity {
                fact: "deposits have receipts of type 0x7e that, since Canyon, also hash the \
                       depositor's nonce and a version",
                source: "https://specs.optimism.io/protocol/deposits.html#deposit-receipt",
            },
            Oddity {
                fact: "parts of a block are shown every 200 ms before it is whole, under the \
                       tag `pending`, which is never asked for here",
                source: "https://docs.base.org/base-chain/flashblocks/faq",
            },
        ],
    },
    Profile {
        name: "polygon",
        chain_id: 137,
        trust: Trust::Link,
        trust_max: Trust::Link,
        log_indexes: LogIndexes::Rising,
        // Milestones: https://github.com/maticnetwork/Polygon-Improvement-Proposals PIP-11
        finality: Finality::Tag,
        reorg_depth_max: 256,
        poll_interval: Duration::from_millis(500),
        block_time: Duration::from_secs(2),
        oddities: &[Oddity {
            fact: "before the Madhugiri upgrade (block 80 084 800) the logs of state syncs are \
                   in neither bloom nor receipts root, and some nodes do not show them: nothing \
                   proves such a block's logs. From there on `bloom` should hold; nobody tried",
            source: "https://github.com/0xPolygon/bor/issues/432, \
                     https://github.com/0xPolygon/erigon/releases/tag/v3.3.0",
        }],
    },
    Profile {
        name: "zksync-era",
        chain_id: 324,
        trust: Trust::Link,
        trust_max: Trust::Link,
        log_indexes: LogIndexes::Rising,
        finality: Finality::Tag,
        reorg_depth_max: 300,
        poll_interval: Duration::from_millis(500),
        block_time: Duration::from_secs(1),
        oddities: &[Oddity {
            fact: "the roots in headers are zero, so a header proves nothing about its logs",
            source: "https://docs.zksync.io/zksync-protocol/api/ethereum-rpc",
        }],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_begins_with_its_profile() {
        let config = Config::for_chain(42_161);
        assert_eq!((config.trust, config.poll_interval.as_millis()), (Trust::Bloom, 250));
        assert_eq!(Config::for_chain(324).trust, Trust::Link);
        let unknown = Config::for_chain(31_337);
        assert_eq!((unknown.trust, unknown.reorg_depth_max), (Trust::Bloom, 64));
    }

    #[test]
    fn profiles_do_not_contradict_themselves() {
        for profile in &PROFILES {
            let Profile { name, chain_id, .. } = *profile;
            assert_eq!(super::profile(chain_id).map(|found| found.name), Some(name));
            assert!(profile.trust <= profile.trust_max, "{name}");
            assert!(profile.poll_interval <= profile.block_time, "{name}");
            assert!(profile.trust_max > Trust::Link || !profile.oddities.is_empty(), "{name}");
            assert!(profile.oddities.iter().all(|oddity| oddity.source.starts_with("http")));
        }
    }
}
