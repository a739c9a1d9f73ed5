//! Time cut into slots that are as wide as they must be.
//!
//! ```text
//!  1 min   |·|·|·|·|·|·|·|·|   too many: the next width is a multiple of this one,
//!  2 min   |···|···|···|···|   so slots are merged and nothing is read twice
//! ```

use std::collections::BTreeMap;

/// Widths in seconds, each a multiple of the one before it.
const WIDTHS: [u64; 17] = [
    1,
    10,
    60,
    120,
    600,
    1_800,
    3_600,
    7_200,
    21_600,
    43_200,
    86_400,
    2 * 86_400,
    4 * 86_400,
    8 * 86_400,
    16 * 86_400,
    32 * 86_400,
    64 * 86_400,
];

/// Slots of a timeline. A week is cut into 84 of two hours.
///
/// So many bars can still be told apart on a narrow screen, and more say nothing more.
pub(crate) const SLOTS_MAX: u64 = 96;

/// What is gathered in one slot.
pub(crate) trait Merge: Default {
    /// Takes in what another slot gathered.
    fn merge(&mut self, other: Self);
}

/// Values by time.
#[derive(Debug)]
pub(crate) struct Timeline<T> {
    width: usize,
    /// By number of the slot: time divided by width.
    slots: BTreeMap<u64, T>,
}

impl<T> Default for Timeline<T> {
    fn default() -> Timeline<T> {
        Timeline { width: 0, slots: BTreeMap::new() }
    }
}

impl<T: Merge> Timeline<T> {
    /// Seconds of one slot.
    pub fn seconds(&self) -> u64 {
        WIDTHS[self.width]
    }

    /// The slot of a time, in seconds since 1970.
    ///
    /// Times further apart than the widest slots reach share the last of these: the chart of
    /// hostile times is of no use, but it ends.
    pub fn at(&mut self, seconds: u64) -> &mut T {
        loop {
            let slot = seconds / self.seconds();
            let first = self.slots.keys().next().copied().unwrap_or(slot).min(slot);
            let last = self.slots.keys().next_back().copied().unwrap_or(slot).max(slot);
            if last - first < SLOTS_MAX {
                return self.slots.entry(slot).or_default();
            }
            if self.width + 1 == WIDTHS.len() {
                let last = self.slots.keys().next_back().copied().unwrap_or(slot);
                return self.slots.entry(last).or_default();
            }
            self.widen();
        }
    }

    fn widen(&mut self) {
        let times = self.seconds();
        self.width += 1;
        let factor = self.seconds() / times;
        for (slot, value) in std::mem::take(&mut self.slots) {
            self.slots.entry(slot / factor).or_default().merge(value);
        }
    }

    /// Every slot from the first to the last one with its start, empty ones included.
    pub fn finish(mut self) -> Vec<(u64, T)> {
        let ends = (self.slots.keys().next().copied(), self.slots.keys().next_back().copied());
        let (Some(first), Some(last)) = ends else { return Vec::new() };
        let width = self.seconds();
        (first..=last)
            .map(|slot| (slot * width, self.slots.remove(&slot).unwrap_or_default()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Merge for u64 {
        fn merge(&mut self, other: u64) {
            *self += other;
        }
    }

    #[test]
    fn every_width_is_a_multiple_of_the_one_before() {
        for pair in WIDTHS.windows(2) {
            assert_eq!(pair[1] % pair[0], 0, "{pair:?}");
        }
    }

    #[test]
    fn a_week_is_cut_into_slots_of_two_hours_and_nothing_is_lost() {
        let mut timeline = Timeline::<u64>::default();
        let start = 1_790_000_000 / 7_200 * 7_200;
        for block in 0..50_400 {
            *timeline.at(start + block * 12) += 1;
        }
        assert_eq!(timeline.seconds(), 7_200);
        let slots = timeline.finish();
        assert_eq!(slots.len(), 84);
        assert_eq!(slots[0], (start, 600));
        assert_eq!(slots.iter().map(|(_, blocks)| blocks).sum::<u64>(), 50_400);
    }

    #[test]
    fn empty_slots_between_two_times_are_there() {
        let mut timeline = Timeline::<u64>::default();
        *timeline.at(10) += 1;
        *timeline.at(13) += 2;
        assert_eq!(timeline.finish(), vec![(10, 1), (11, 0), (12, 0), (13, 2)]);
        assert_eq!(Timeline::<u64>::default().finish(), vec![]);
    }

    #[test]
    fn times_of_any_distance_end() {
        let mut timeline = Timeline::<u64>::default();
        for time in [0, u64::MAX, 1_790_000_000, 5] {
            *timeline.at(time) += 1;
        }
        let slots = timeline.finish();
        assert!(slots.len() as u64 <= SLOTS_MAX);
        assert_eq!(slots.iter().map(|(_, times)| times).sum::<u64>(), 4);
    }
}
