//! The most that a number has been lately.

use std::{collections::VecDeque, time::Duration};

use crate::Timestamp;

/// Remembers the largest values of a count, each with the moment from which it held; falling.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct HighWater(VecDeque<(Timestamp, usize)>);

impl HighWater {
    pub(super) const fn new() -> Self {
        Self(VecDeque::new())
    }

    /// The count is so many now; what was longer ago than `span` may be forgotten.
    pub(super) fn set(&mut self, count: usize, span: Duration, now: Timestamp) {
        let mut since = now;
        while let Some((at, _)) = self.0.back().copied().filter(|(_, older)| *older <= count) {
            since = at;
            self.0.pop_back();
        }
        self.0.push_back((since, count));
        while self.0.get(1).is_some_and(|(ended, _)| now.since(*ended) >= span) {
            self.0.pop_front();
        }
    }

    /// The most that it was in the last `span`.
    pub(super) fn peak(&self, span: Duration, now: Timestamp) -> usize {
        let ended = self.0.iter().skip(1).map(|(at, _)| Some(*at)).chain([None]);
        let lately = |ended: Option<Timestamp>| ended.is_none_or(|at| now.since(at) < span);
        self.0.iter().zip(ended).find(|(_, ended)| lately(*ended)).map_or(0, |((_, count), _)| *count)
    }
}
