//! App data: the document an order names by its hash.
//!
//! ```text
//! hash ──known──▶ "{}"                                  nobody needs to be asked
//!      └─ask the orderbook──▶ document, or 404 ──answered──▶ document, or the hash alone
//! ```
//!
//! An order is signed over the hash. The orderbook takes the document with the order, or the hash
//! alone when it has the document, or when nobody has it: that it does not know a document is an
//! answer and no failure.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{B256, b256, keccak256};

use crate::{Host, OrderbookAnswer, OrderbookRequest};

/// The document that says nothing.
pub const EMPTY_DOCUMENT: &str = "{}";

/// Hash of [`EMPTY_DOCUMENT`]. Most orders made by programs have it.
pub const EMPTY_HASH: B256 =
    b256!("0xb48d38f93eaa084033fc5970bf96e559c33c4cdc07d889ab00b4d63f9590739d");

/// What an order is posted with.
///
/// ```
/// use shepherd_sdk::{B256, cow::app_data::{self, AppData}};
///
/// // The empty document is known without asking.
/// let empty = app_data::known(app_data::EMPTY_HASH).unwrap();
/// assert_eq!(empty.document(), Some("{}"));
///
/// // For any other the orderbook is asked. It may not know it.
/// let hash = B256::repeat_byte(7);
/// assert_eq!(app_data::known(hash), None);
/// let unknown = AppData::answered(hash, None)?;
/// assert_eq!((unknown.hash(), unknown.document()), (hash, None));
/// # Ok::<(), app_data::WrongDocument>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppData {
    hash: B256,
    document: Option<String>,
}

/// A document that does not have the hash it was asked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the document with the hash {asked} has the hash {found}")]
pub struct WrongDocument {
    /// The hash it should have.
    pub asked: B256,
    /// The hash it has.
    pub found: B256,
}

/// The hash of a document: of its bytes as they are, so one more space makes another document.
pub fn hash(document: &str) -> B256 {
    keccak256(document)
}

/// The app data of this hash, if nobody needs to be asked for it.
pub fn known(hash: B256) -> Option<AppData> {
    (hash == EMPTY_HASH).then(|| AppData { hash, document: Some(EMPTY_DOCUMENT.to_owned()) })
}

/// Most questions that [`Host::read_orderbook`] takes at a time.
const REQUESTS_MAX: usize = 1_000;

/// The app data of each of these hashes. The orderbook is asked once for each that is not
/// [`known`], in one batch, and not at all when all are.
///
/// What the orderbook does not know, or has another document for, is posted as its hash.
///
/// ```
/// use shepherd_sdk::{B256, cow::app_data::{EMPTY_HASH, resolve}, testing::MemoryHost};
///
/// let mut host = MemoryHost::default();
/// let document = r#"{"appCode":"shepherd"}"#;
/// let (rich, unknown) = (host.document(document), B256::repeat_byte(7));
/// host.no_document(unknown);
///
/// let resolved = resolve(&mut host, [EMPTY_HASH, rich, unknown, rich]);
/// assert_eq!(resolved[&EMPTY_HASH].document(), Some("{}"));
/// assert_eq!(resolved[&rich].document(), Some(document));
/// assert_eq!(resolved[&unknown].document(), None);
/// assert_eq!(host.orderbook_reads.len(), 1);
/// assert_eq!(host.orderbook_reads[0].len(), 2);
/// ```
pub fn resolve(
    host: &mut impl Host,
    hashes: impl IntoIterator<Item = B256>,
) -> BTreeMap<B256, AppData> {
    let mut resolved = BTreeMap::new();
    let mut asked = BTreeSet::new();
    for hash in hashes {
        match known(hash) {
            Some(app_data) => drop(resolved.insert(hash, app_data)),
            None => drop(asked.insert(hash)),
        }
    }
    let asked: Vec<B256> = asked.into_iter().collect();
    for batch in asked.chunks(REQUESTS_MAX) {
        let requests: Vec<_> = batch.iter().copied().map(OrderbookRequest::AppData).collect();
        for (hash, answer) in batch.iter().zip(host.read_orderbook(&requests)) {
            let document = match answer {
                OrderbookAnswer::AppData(document) => document,
                OrderbookAnswer::Order(_) => None,
            };
            let answered = AppData::answered(*hash, document);
            let app_data = answered.unwrap_or(AppData { hash: *hash, document: None });
            resolved.insert(*hash, app_data);
        }
    }
    resolved
}

impl AppData {
    /// What the orderbook answered when asked for this hash: a document, or that it has none.
    ///
    /// The document is checked against the hash: posted with another one the order would have
    /// another UID.
    pub fn answered(hash: B256, document: Option<String>) -> Result<AppData, WrongDocument> {
        if let Some(document) = &document {
            let found = self::hash(document);
            if found != hash {
                return Err(WrongDocument { asked: hash, found });
            }
        }
        Ok(AppData { hash, document })
    }

    /// A document of our own.
    pub fn of(document: String) -> AppData {
        AppData { hash: hash(&document), document: Some(document) }
    }

    /// What an order signs.
    pub fn hash(&self) -> B256 {
        self.hash
    }

    /// The document, unless only its hash is known.
    pub fn document(&self) -> Option<&str> {
        self.document.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryHost;

    #[test]
    fn the_empty_document_is_known_without_asking() {
        assert_eq!(hash(EMPTY_DOCUMENT), EMPTY_HASH);
        assert_eq!(known(EMPTY_HASH), Some(AppData::of("{}".to_owned())));
        assert_eq!(known(hash("{ }")), None);
        assert_eq!(known(B256::ZERO), None);
    }

    #[test]
    fn a_document_counts_only_under_its_own_hash() {
        let document = r#"{"appCode":"shepherd"}"#.to_owned();
        let asked = hash(&document);
        let answered = AppData::answered(asked, Some(document.clone()));
        assert_eq!(answered, Ok(AppData::of(document.clone())));
        let error = WrongDocument { asked: EMPTY_HASH, found: asked };
        assert_eq!(AppData::answered(EMPTY_HASH, Some(document)), Err(error));
    }

    #[test]
    fn nobody_is_asked_for_what_is_known_and_nobody_twice() {
        let mut host = MemoryHost::default();
        assert_eq!(resolve(&mut host, []), BTreeMap::new());
        let empty = BTreeMap::from([(EMPTY_HASH, AppData::of("{}".to_owned()))]);
        assert_eq!(resolve(&mut host, [EMPTY_HASH, EMPTY_HASH]), empty);
        assert!(host.orderbook_reads.is_empty());

        let hashes: Vec<B256> = (0..1_001u32).map(|n| keccak256(n.to_be_bytes())).collect();
        hashes.iter().for_each(|hash| host.no_document(*hash));
        let twice = hashes.iter().chain(&hashes).copied();
        assert_eq!(resolve(&mut host, twice).len(), 1_001);
        let batches: Vec<usize> = host.orderbook_reads.iter().map(Vec::len).collect();
        assert_eq!(batches, [1_000, 1]);
    }

    #[test]
    fn a_document_with_another_hash_is_none() {
        let mut host = MemoryHost::default();
        let hash = B256::repeat_byte(7);
        let request = OrderbookRequest::AppData(hash);
        host.orderbook.insert(request, OrderbookAnswer::AppData(Some("{ }".to_owned())));
        assert_eq!(resolve(&mut host, [hash])[&hash], AppData { hash, document: None });
    }

    #[test]
    fn that_nobody_knows_a_document_is_an_answer() {
        let hash = B256::repeat_byte(7);
        assert_eq!(AppData::answered(hash, None), Ok(AppData { hash, document: None }));
    }
}
