//! The book: what the module remembers, in its state.
//!
//! ```text
//! key                        value
//! 'w' watch                  the order as the chain told it
//! 'g' watch                  how far it has come; not there before anything has come of it
//! 'd' …                      when each watch is due (the SDK's due index)
//! 'p' UID watch              nothing: the watch waits for what comes of this order
//! 'a' hash                   an app-data document
//! 'r' hash watch             nothing: the watch uses this document
//!
//! watch = owner (20), place u8 ('s' an order of its own, 'm' under the owner's root), id (32)
//! ```
//!
//! A watch that is over leaves nothing behind.

use std::fmt;

use shepherd_sdk::{
    Address, B256, Error, Host,
    alloy_primitives::hex,
    cow::{
        app_data::{self, AppData},
        uid::Uid,
    },
    due::Due,
};

use crate::order::Conditional;

/// When each watch is due.
pub const DUE: Due = Due::under(b"d");

/// Names a watch: an order of an owner, by itself or under the owner's merkle root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchId([u8; 53]);

/// How an order is authorised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// By itself.
    Single,
    /// Under the owner's merkle root.
    Merkle,
}

impl Place {
    fn byte(self) -> u8 {
        match self {
            Place::Single => b's',
            Place::Merkle => b'm',
        }
    }
}

impl WatchId {
    /// The watch of this order.
    pub fn new(owner: Address, place: Place, order: B256) -> WatchId {
        let mut bytes = [0; 53];
        bytes[..20].copy_from_slice(owner.as_slice());
        bytes[20] = place.byte();
        bytes[21..].copy_from_slice(order.as_slice());
        WatchId(bytes)
    }

    /// Whose order it is.
    pub fn owner(&self) -> Address {
        Address::from_slice(&self.0[..20])
    }

    /// The conditional order's id.
    pub fn order(&self) -> B256 {
        B256::from_slice(&self.0[21..])
    }

    /// As a part of keys.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads what a key ends with.
    pub fn read(bytes: &[u8]) -> Result<WatchId, Error> {
        let bytes = bytes.try_into().map_err(|_| Error::new("a stored watch is not 53 bytes"))?;
        Ok(WatchId(bytes))
    }
}

/// For the operator.
impl fmt::Display for WatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "order {} of {}", self.order(), self.owner())
    }
}

impl fmt::Debug for WatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// An order and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Its name.
    pub id: WatchId,
    /// The order.
    pub order: Conditional,
    /// How far it has come.
    pub progress: Progress,
}

/// How far an order has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// When it starts, if the cabinet says so; 0 while that is not known.
    pub start: u32,
    /// How often in a row something odd was answered.
    pub failures: u32,
    /// The last order that was placed for it.
    pub last: Option<Last>,
    /// The app-data document that is kept for it.
    pub document: Option<B256>,
}

/// The last order that was placed for a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Last {
    /// The order.
    pub uid: Uid,
    /// What has come of it.
    pub state: Placed,
    /// Whether its signature has been refused before.
    pub signature_refused: bool,
}

/// What has come of an order that was placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// Nothing yet.
    Pending,
    /// It is at the orderbook, or can never be: it is not placed again.
    Settled,
    /// It was refused, and is placed again when the watch is due.
    Refused,
}

impl Progress {
    /// ```text
    /// version u8 = 1, start u32, failures u32,
    /// document: hash (32), zero for none,
    /// last: nothing, or UID (56), state u8 (0 pending, 1 settled, 2 refused), signature refused u8
    /// ```
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![1];
        bytes.extend(self.start.to_be_bytes());
        bytes.extend(self.failures.to_be_bytes());
        bytes.extend(self.document.unwrap_or_default());
        if let Some(last) = self.last {
            bytes.extend(last.uid.to_bytes());
            bytes.push(match last.state {
                Placed::Pending => 0,
                Placed::Settled => 1,
                Placed::Refused => 2,
            });
            bytes.push(last.signature_refused.into());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Progress, Error> {
        let read = || {
            let (&1, bytes) = bytes.split_first()? else { return None };
            let (start, bytes) = bytes.split_first_chunk::<4>()?;
            let (failures, bytes) = bytes.split_first_chunk::<4>()?;
            let (document, last) = bytes.split_first_chunk::<32>()?;
            let document = B256::from(*document);
            Some(Progress {
                start: u32::from_be_bytes(*start),
                failures: u32::from_be_bytes(*failures),
                document: (!document.is_zero()).then_some(document),
                last: if last.is_empty() { None } else { Some(Last::decode(last)?) },
            })
        };
        read().ok_or_else(|| Error::new("a stored progress cannot be read"))
    }
}

impl Last {
    fn decode(bytes: &[u8]) -> Option<Last> {
        let (uid, rest) = bytes.split_first_chunk::<56>()?;
        let [state, signature_refused @ (0 | 1)] = *rest else { return None };
        let state = match state {
            0 => Placed::Pending,
            1 => Placed::Settled,
            2 => Placed::Refused,
            _ => return None,
        };
        let uid = Uid::try_from(uid.as_slice()).ok()?;
        Some(Last { uid, state, signature_refused: signature_refused == 1 })
    }
}

/// Reads a watch that the due index or a pending order names.
pub fn load(host: &mut impl Host, id: WatchId) -> Result<Watch, Error> {
    let order = find(host, id)?;
    let order = order.ok_or_else(|| Error::new(format!("{id} is due and is not kept")))?;
    Ok(Watch { id, order, progress: progress(host, id)? })
}

/// The order of a watch, if it is kept.
pub fn find(host: &mut impl Host, id: WatchId) -> Result<Option<Conditional>, Error> {
    host.get(&key(b'w', id.bytes())).as_deref().map(Conditional::decode).transpose()
}

/// How far a watch has come.
pub fn progress(host: &mut impl Host, id: WatchId) -> Result<Progress, Error> {
    let stored = host.get(&key(b'g', id.bytes()));
    stored.as_deref().map_or(Ok(Progress::default()), Progress::decode)
}

/// Keeps an order. What is known of how far it has come stays.
pub fn keep(host: &mut impl Host, id: WatchId, order: &Conditional) {
    host.set(&key(b'w', id.bytes()), &order.encode());
}

/// The watches of an owner's merkle root after this one: a page of them, and whether there are more.
pub fn under_root(
    host: &mut impl Host,
    owner: Address,
    after: Option<WatchId>,
) -> Result<(Vec<WatchId>, bool), Error> {
    let prefix = [b"w", owner.as_slice(), &[Place::Merkle.byte()]].concat();
    let after = after.map(|after| key(b'w', after.bytes()));
    let page = host.list(&prefix, after.as_deref(), UNDER_ROOT);
    let ids = page.entries.iter().map(|(key, _)| WatchId::read(&key[1..]));
    Ok((ids.collect::<Result<_, Error>>()?, page.more))
}

/// Watches in a page of [`under_root`].
pub const UNDER_ROOT: u32 = 200;

/// Writes down how far a watch has come, and the order it waits for. `before` is what was
/// written last.
pub fn advance(host: &mut impl Host, id: WatchId, before: &Progress, now: &Progress) {
    if before == now {
        return;
    }
    let pending = |progress: &Progress| {
        progress.last.filter(|last| last.state == Placed::Pending).map(|last| last.uid)
    };
    match (pending(before), pending(now)) {
        (old, new) if old == new => (),
        (old, new) => {
            if let Some(old) = old {
                host.delete(&pending_key(old, id));
            }
            if let Some(new) = new {
                host.set(&pending_key(new, id), &[]);
            }
        }
    }
    host.set(&key(b'g', id.bytes()), &now.encode());
}

/// The watches that wait for what comes of this order. Two orders of one owner that differ in
/// nothing but their salt are one order to the orderbook.
pub fn waiting_for(host: &mut impl Host, uid: Uid) -> Result<Vec<WatchId>, Error> {
    let prefix = key(b'p', &uid.to_bytes());
    let page = host.list(&prefix, None, WAITING_MAX);
    page.entries.iter().map(|(key, _)| WatchId::read(&key[prefix.len()..])).collect()
}

/// Watches that are told of one order at a time. Those beyond go on when their part is over.
const WAITING_MAX: u32 = 500;

/// Forgets a watch and everything that is kept for it.
pub fn forget(host: &mut impl Host, watch: &Watch) -> Result<(), Error> {
    let id = watch.id;
    DUE.remove(host, id.bytes())?;
    if watch.progress != Progress::default() {
        let over = Progress { last: None, document: None, ..watch.progress };
        release(host, id, watch.progress.document);
        advance(host, id, &watch.progress, &over);
        host.delete(&key(b'g', id.bytes()));
    }
    host.delete(&key(b'w', id.bytes()));
    Ok(())
}

/// The app data of this hash, if nobody needs to be asked for it.
pub fn document(host: &mut impl Host, hash: B256) -> Option<AppData> {
    app_data::known(hash).or_else(|| {
        let document = String::from_utf8(host.get(&key(b'a', hash.as_slice()))?).ok()?;
        AppData::answered(hash, Some(document)).ok()
    })
}

/// Keeps a document for as long as a watch uses it, instead of the one the watch used before.
pub fn use_document(host: &mut impl Host, watch: &mut Watch, app_data: &AppData) {
    let hash = app_data.hash();
    let kept = app_data.document().filter(|_| app_data::known(hash).is_none());
    if watch.progress.document == kept.map(|_| hash) {
        return;
    }
    release(host, watch.id, watch.progress.document);
    watch.progress.document = kept.map(|_| hash);
    if let Some(document) = kept {
        let document_key = key(b'a', hash.as_slice());
        if host.get(&document_key).is_none() {
            host.set(&document_key, document.as_bytes());
        }
        host.set(&used_key(hash, watch.id), &[]);
    }
}

fn release(host: &mut impl Host, id: WatchId, document: Option<B256>) {
    let Some(hash) = document else { return };
    host.delete(&used_key(hash, id));
    if host.list(&key(b'r', hash.as_slice()), None, 1).entries.is_empty() {
        host.delete(&key(b'a', hash.as_slice()));
    }
}

fn key(kind: u8, rest: &[u8]) -> Vec<u8> {
    [&[kind], rest].concat()
}

fn pending_key(uid: Uid, id: WatchId) -> Vec<u8> {
    [b"p", uid.to_bytes().as_slice(), id.bytes()].concat()
}

fn used_key(hash: B256, id: WatchId) -> Vec<u8> {
    [b"r", hash.as_slice(), id.bytes()].concat()
}

#[cfg(test)]
mod tests {
    use shepherd_sdk::testing::MemoryHost;

    use super::*;

    fn uid(byte: u8) -> Uid {
        let digest = B256::repeat_byte(byte);
        Uid { digest, owner: Address::repeat_byte(byte), valid_to: 7 }
    }

    fn watch(byte: u8) -> Watch {
        let order = Conditional {
            contract: Address::ZERO,
            transaction: B256::ZERO,
            params: Default::default(),
            proof: vec![],
        };
        let id = WatchId::new(Address::repeat_byte(byte), Place::Single, B256::repeat_byte(9));
        Watch { id, order, progress: Progress::default() }
    }

    #[test]
    fn a_progress_is_read_as_it_was_written_and_nothing_else_is() {
        let last = |state| Some(Last { uid: uid(3), state, signature_refused: true });
        let check = |progress: Progress| {
            assert_eq!(Progress::decode(&progress.encode()).unwrap(), progress);
        };
        check(Progress::default());
        check(Progress { start: 7, failures: 2, document: Some(B256::repeat_byte(1)), last: None });
        for state in [Placed::Pending, Placed::Settled, Placed::Refused] {
            check(Progress { last: last(state), ..Progress::default() });
        }
        let bytes = Progress { last: last(Placed::Refused), ..Progress::default() }.encode();
        for length in [0, 1, 40, 42, bytes.len() - 1] {
            assert!(Progress::decode(&bytes[..length]).is_err(), "{length}");
        }
        assert!(Progress::decode(&[&bytes[..97], &[3, 0]].concat()).is_err());
        assert!(Progress::decode(&[&[2], &bytes[1..]].concat()).is_err());
    }

    #[test]
    fn only_an_order_that_is_pending_is_waited_for() {
        let mut host = MemoryHost::default();
        let id = watch(1).id;
        let with = |byte, state| {
            let last = Last { uid: uid(byte), state, signature_refused: false };
            Progress { last: Some(last), ..Progress::default() }
        };
        let mut before = Progress::default();
        let mut step = |now: Progress, waits: [bool; 2]| {
            advance(&mut host, id, &before, &now);
            before = now;
            assert_eq!(progress(&mut host, id).unwrap(), now);
            for (byte, waits) in [1, 2].into_iter().zip(waits) {
                let waiting = waiting_for(&mut host, uid(byte)).unwrap();
                assert_eq!(waiting, if waits { vec![id] } else { vec![] });
            }
        };
        step(with(1, Placed::Pending), [true, false]);
        step(with(2, Placed::Pending), [false, true]);
        step(with(2, Placed::Refused), [false, false]);
        step(with(2, Placed::Pending), [false, true]);
        step(with(2, Placed::Settled), [false, false]);
    }

    #[test]
    fn a_document_is_kept_once_while_someone_uses_it() {
        let mut host = MemoryHost::default();
        let rich = AppData::of(r#"{"appCode":"shepherd"}"#.to_owned());
        let other = AppData::of(r#"{"appCode":"other"}"#.to_owned());
        let (mut one, mut two) = (watch(1), watch(2));
        for watch in [&mut one, &mut two] {
            let before = watch.progress;
            use_document(&mut host, watch, &rich);
            advance(&mut host, watch.id, &before, &watch.progress);
        }
        assert_eq!(document(&mut host, rich.hash()), Some(rich.clone()));
        use_document(&mut host, &mut one, &other);
        assert_eq!(document(&mut host, rich.hash()), Some(rich.clone()));
        forget(&mut host, &two).unwrap();
        assert_eq!(document(&mut host, rich.hash()), None);
        assert_eq!(document(&mut host, other.hash()), Some(other));
        forget(&mut host, &one).unwrap();
        assert!(host.state.is_empty(), "{:?}", host.state);
    }

    #[test]
    fn what_is_known_or_unknown_to_everyone_is_not_kept() {
        let mut host = MemoryHost::default();
        let mut watch = watch(1);
        let empty = app_data::known(app_data::EMPTY_HASH).unwrap();
        let unknown = AppData::answered(B256::repeat_byte(7), None).unwrap();
        use_document(&mut host, &mut watch, &empty);
        use_document(&mut host, &mut watch, &unknown);
        assert!(host.state.is_empty());
        assert_eq!(document(&mut host, empty.hash()), Some(empty));
    }
}
