//! Which effects two runs share.
//!
//! ```text
//!   A asks at 7 ──▶ waits for the same key of B ──▶ B asks at 9: moved, or with other fields
//!                                              └──▶ B never asks: only in A
//! ```
//!
//! Effects are told apart by their keys, so an order that is asked for a block later is one order
//! and not two.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    iter::Peekable,
};

use serde::Serialize;
use shepherd_log::{
    Deliver, Digest, Effect, EffectId, EffectResult, LaneSnapshot, Offset, StorageError,
};

use crate::{
    diff::Sides,
    explain::{FieldDifference, Wish},
};

/// How two runs' effects compare.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EffectTotals {
    /// How many each asked for.
    pub asked: Sides<u64>,
    /// Asked for by both at the same record, with every field the same.
    pub common: u64,
    /// The same, at another record.
    pub moved: u64,
    /// Asked for by both under one key, with other fields.
    pub other_fields: u64,
    /// Asked for by one only.
    pub only: Sides<u64>,
    /// What came of them where a venue said so, by result and, of refusals, by errorType.
    pub outcomes: BTreeMap<String, OutcomeCount>,
    /// The first that differ, in the order in which they were found to.
    pub listed: Vec<EffectDifference>,
}

/// How often the same came of effects of both runs.
pub type OutcomeCount = Sides<u64>;

/// An effect that two runs do not ask for alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EffectDifference {
    /// `only-a`, `only-b`, `other-fields` or `moved`.
    pub how: String,
    /// `order` or `webhook`.
    pub kind: String,
    /// The order's UID, or the webhook's destination and key.
    pub key: String,
    /// The effect in the first, as OFFSET.INDEX.
    pub a: Option<String>,
    /// The effect in the second.
    pub b: Option<String>,
    /// What they have otherwise.
    pub fields: Vec<FieldDifference>,
}

impl EffectDifference {
    pub(super) fn of(a: Option<&Asked>, b: Option<&Asked>) -> EffectDifference {
        let one = a.or(b).expect("one of the two asked");
        let id = |asked: &Asked| asked.id.to_string();
        let wish = |asked: &Asked| Wish::from(&asked.effect);
        let fields = match (a, b) {
            (Some(a), Some(b)) => wish(a).differences(&wish(b)),
            _ => Vec::new(),
        };
        let how = match (a, b) {
            (Some(_), None) => "only-a",
            (None, _) => "only-b",
            (Some(_), Some(_)) if fields.is_empty() => "moved",
            (Some(_), Some(_)) => "other-fields",
        };
        EffectDifference {
            how: how.to_owned(),
            kind: wish(one).kind,
            key: one.effect.key.to_string(),
            a: a.map(id),
            b: b.map(id),
            fields,
        }
    }
}

/// An effect and where it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub id: EffectId,
    pub effect: Effect,
}

impl Asked {
    fn key(&self) -> Digest {
        Digest::of(format!("{:?}", self.effect.key).as_bytes())
    }

    /// Everything but where it was asked for and its key.
    fn content(&self) -> Digest {
        let Effect { key: _, body, deliver, expires } = &self.effect;
        let (kind, blocks) = match deliver {
            Deliver::Instant => (0u8, 0),
            Deliver::Confirmations(blocks) => (1, *blocks),
            Deliver::Finalized => (2, 0),
        };
        let head = [&[kind][..], &blocks.to_be_bytes(), &expires.to_be_bytes()].concat();
        Digest::of(&[&head, &body[..]].concat())
    }
}

/// A run's effects, record by record.
pub(super) struct EffectsOf(Peekable<Box<dyn Iterator<Item = Result<Asked, StorageError>>>>);

impl EffectsOf {
    pub fn new(side: &LaneSnapshot) -> EffectsOf {
        let asked = side.effects().map(|one| {
            let (id, _, effect) = one?;
            Ok(Asked { id, effect })
        });
        EffectsOf((Box::new(asked) as Box<dyn Iterator<Item = _>>).peekable())
    }

    /// Those of a record, which has so many. Records come in order.
    pub fn at(&mut self, record: Offset, count: u32) -> Result<Vec<Asked>, StorageError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let is_before = |one: &Result<Asked, StorageError>| {
            one.as_ref().is_ok_and(|asked| asked.id.offset < record)
        };
        while self.0.next_if(is_before).is_some() {}
        let mut of_record = Vec::new();
        while let Some(one) =
            self.0.next_if(|one| one.as_ref().map_or(true, |asked| asked.id.offset == record))
        {
            of_record.push(one?);
        }
        Ok(of_record)
    }
}

/// An effect that the other run has not asked for yet.
#[derive(Clone, Copy)]
struct Waiting {
    id: EffectId,
    content: Digest,
}

type Unmatched = HashMap<Digest, VecDeque<Waiting>>;

/// Pairs the effects of two runs as they come.
pub(super) struct Matching<'s> {
    sides: Sides<&'s LaneSnapshot>,
    unmatched: Sides<Unmatched>,
    totals: EffectTotals,
    listed_max: usize,
}

impl<'s> Matching<'s> {
    pub fn new(a: &'s LaneSnapshot, b: &'s LaneSnapshot, listed_max: usize) -> Matching<'s> {
        Matching {
            sides: Sides { a, b },
            unmatched: Sides { a: HashMap::new(), b: HashMap::new() },
            totals: EffectTotals::default(),
            listed_max,
        }
    }

    /// Takes what one record asked for in both runs.
    pub fn take(&mut self, asked: Sides<Vec<Asked>>) -> Result<(), StorageError> {
        self.totals.asked.a += asked.a.len() as u64;
        self.totals.asked.b += asked.b.len() as u64;
        let mut of_b: Vec<Option<Asked>> = asked.b.into_iter().map(Some).collect();
        let mut left = Vec::new();
        for a in asked.a {
            let same = of_b.iter_mut().find(|b| b.as_ref().is_some_and(|b| b.effect == a.effect));
            match same {
                Some(b) => {
                    *b = None;
                    self.totals.common += 1;
                }
                None => left.push(a),
            }
        }
        for a in left {
            let waiting = Waiting { id: a.id, content: a.content() };
            match pop(&mut self.unmatched.b, a.key()) {
                Some(b) => self.pair(waiting, b)?,
                None => self.unmatched.a.entry(a.key()).or_default().push_back(waiting),
            }
        }
        for b in of_b.into_iter().flatten() {
            let waiting = Waiting { id: b.id, content: b.content() };
            match pop(&mut self.unmatched.a, b.key()) {
                Some(a) => self.pair(a, waiting)?,
                None => self.unmatched.b.entry(b.key()).or_default().push_back(waiting),
            }
        }
        Ok(())
    }

    fn pair(&mut self, a: Waiting, b: Waiting) -> Result<(), StorageError> {
        match a.content == b.content {
            true => self.totals.moved += 1,
            false => self.totals.other_fields += 1,
        }
        if self.totals.listed.len() < self.listed_max {
            let (a, b) = (asked(self.sides.a, a.id)?, asked(self.sides.b, b.id)?);
            self.totals.listed.push(EffectDifference::of(Some(&a), Some(&b)));
        }
        Ok(())
    }

    pub fn finish(
        mut self,
        a: &LaneSnapshot,
        b: &LaneSnapshot,
    ) -> Result<EffectTotals, StorageError> {
        let ids = |unmatched: &Unmatched| {
            let mut ids: Vec<EffectId> = unmatched.values().flatten().map(|one| one.id).collect();
            ids.sort_unstable();
            ids
        };
        let (only_a, only_b) = (ids(&self.unmatched.a), ids(&self.unmatched.b));
        let totals = &mut self.totals;
        totals.only = Sides { a: only_a.len() as u64, b: only_b.len() as u64 };
        for id in only_a.into_iter().take(self.listed_max) {
            totals.listed.push(EffectDifference::of(Some(&asked(a, id)?), None));
        }
        for id in only_b.into_iter().take(self.listed_max) {
            totals.listed.push(EffectDifference::of(None, Some(&asked(b, id)?)));
        }
        for outcome in a.outcomes() {
            totals.outcomes.entry(result(&outcome?.result)).or_default().a += 1;
        }
        for outcome in b.outcomes() {
            totals.outcomes.entry(result(&outcome?.result)).or_default().b += 1;
        }
        Ok(self.totals)
    }
}

fn pop(unmatched: &mut Unmatched, key: Digest) -> Option<Waiting> {
    let waiting = unmatched.get_mut(&key)?;
    let first = waiting.pop_front();
    if waiting.is_empty() {
        unmatched.remove(&key);
    }
    first
}

fn asked(side: &LaneSnapshot, id: EffectId) -> Result<Asked, StorageError> {
    let (_, effect) = side.effect(id)?.expect("it was just read from the same snapshot");
    Ok(Asked { id, effect })
}

fn result(result: &EffectResult) -> String {
    match result {
        EffectResult::Refused(refusal) => match &refusal.error_type {
            Some(error_type) => format!("refused {error_type}"),
            None => format!("refused {}", refusal.status),
        },
        other => other.kind().to_owned(),
    }
}
