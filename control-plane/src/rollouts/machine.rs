//! How a rollout goes on: stages, pauses, ends. No I/O, no clock.

use std::time::SystemTime;

/// How far a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A stage is watched.
    Running,
    /// Nothing goes on by itself.
    Paused,
    /// The candidate is in force for everybody.
    Promoted,
    /// Given up.
    Aborted,
}

/// Where a rollout stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Index of the stage.
    pub stage: usize,
    /// How far it is.
    pub state: State,
    /// Why.
    pub reason: String,
    /// Since when the stage is watched: what happened before does not count.
    pub since: SystemTime,
}

/// What is asked of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on from this stage, by its index: two that ask at once promote once.
    Promote {
        /// The stage that was looked at.
        from: usize,
        /// Even out of a pause.
        force: bool,
    },
    /// Stop.
    Pause,
    /// Go on with the same stage.
    Resume,
    /// Give up.
    Abort,
}

/// Why a step can't be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is over.
    #[error("it has ended")]
    Ended,
    /// It is paused.
    #[error("it is paused: resume it first, or promote with force")]
    Paused,
    /// It is not paused.
    #[error("it is not paused")]
    NotPaused,
    /// Somebody else was faster.
    #[error("it is at another stage by now")]
    OtherStage,
}

// === impl State ===

impl State {
    /// Its name, as stores keep it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Promoted => "promoted",
            Self::Aborted => "aborted",
        }
    }

    /// The state of a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Running, Self::Paused, Self::Promoted, Self::Aborted].into_iter().find(|state| state.name() == name)
    }

    /// Whether some replicas have the candidate and others do not.
    #[must_use]
    pub const fn in_progress(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

// === impl Step ===

impl Step {
    /// Its name, for records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Promote { .. } => "promote",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Abort => "abort",
        }
    }
}

// === impl Standing ===

impl Standing {
    /// At the first stage.
    #[must_use]
    pub const fn begin(at: SystemTime) -> Self {
        Self { stage: 0, state: State::Running, reason: String::new(), since: at }
    }

    /// Where a step leads, of a rollout with so many stages.
    ///
    /// # Errors
    /// Why it leads nowhere.
    pub fn step(&self, step: Step, stages: usize, reason: String, at: SystemTime) -> Result<Self, Refused> {
        let to = |stage, state, since| Ok(Self { stage, state, reason, since });
        match (self.state, step) {
            (State::Promoted | State::Aborted, _) => Err(Refused::Ended),
            (_, Step::Promote { from, .. }) if from != self.stage => Err(Refused::OtherStage),
            (State::Paused, Step::Promote { force: false, .. }) => Err(Refused::Paused),
            (_, Step::Promote { .. }) if self.stage + 1 < stages => to(self.stage + 1, State::Running, at),
            (_, Step::Promote { .. }) => to(self.stage, State::Promoted, at),
            (State::Paused, Step::Pause) => Err(Refused::Paused),
            (State::Running, Step::Pause) => to(self.stage, State::Paused, self.since),
            (State::Running, Step::Resume) => Err(Refused::NotPaused),
            (State::Paused, Step::Resume) => to(self.stage, State::Running, at),
            (_, Step::Abort) => to(self.stage, State::Aborted, at),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn promote(from: usize) -> Step {
        Step::Promote { from, force: false }
    }

    #[test]
    fn a_rollout_goes_through_its_stages_to_everybody() {
        let first = Standing::begin(at(1));
        let second = first.step(promote(0), 2, "well".to_owned(), at(5)).unwrap();
        assert_eq!((second.stage, second.state, second.since), (1, State::Running, at(5)));
        assert_eq!(second.step(promote(0), 2, String::new(), at(6)), Err(Refused::OtherStage), "once is once");
        let done = second.step(promote(1), 2, String::new(), at(9)).unwrap();
        assert_eq!((done.stage, done.state), (1, State::Promoted));
    }

    #[test]
    fn a_pause_stops_all_but_force_and_what_follows_is_watched_anew() {
        let paused = Standing::begin(at(1)).step(Step::Pause, 2, "why".to_owned(), at(3)).unwrap();
        assert_eq!((paused.state, paused.reason.as_str(), paused.since), (State::Paused, "why", at(1)));
        assert_eq!(paused.step(promote(0), 2, String::new(), at(4)), Err(Refused::Paused));
        assert_eq!(paused.step(Step::Pause, 2, String::new(), at(4)), Err(Refused::Paused));
        let forced = paused.step(Step::Promote { from: 0, force: true }, 2, String::new(), at(4)).unwrap();
        assert_eq!((forced.stage, forced.state), (1, State::Running));
        let resumed = paused.step(Step::Resume, 2, String::new(), at(7)).unwrap();
        assert_eq!((resumed.stage, resumed.state, resumed.since), (0, State::Running, at(7)));
        assert_eq!(resumed.step(Step::Resume, 2, String::new(), at(8)), Err(Refused::NotPaused));
    }

    fn steps() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_usize..4, any::<bool>()).prop_map(|(from, force)| Step::Promote { from, force }),
            Just(Step::Pause),
            Just(Step::Resume),
            Just(Step::Abort),
        ]
    }

    proptest! {
        #[test]
        fn stages_are_never_left_out_and_an_end_is_an_end(
            stages in 1_usize..4, steps in prop::collection::vec(steps(), 0..20),
        ) {
            let mut standing = Standing::begin(at(0));
            for (number, step) in steps.into_iter().enumerate() {
                let next = standing.step(step, stages, String::new(), at(number as u64));
                prop_assert!(standing.state.in_progress() || next == Err(Refused::Ended));
                let Ok(next) = next else { continue };
                prop_assert!(next.stage == standing.stage || next.stage == standing.stage + 1);
                prop_assert!(next.stage < stages && next.since >= standing.since);
                prop_assert!(next.state != State::Promoted || next.stage + 1 == stages);
                prop_assert_eq!(next.stage > standing.stage, matches!(step, Step::Promote { .. }) && next.state == State::Running);
                standing = next;
            }
        }
    }

    #[test]
    fn states_are_kept_by_their_names() {
        for state in [State::Running, State::Paused, State::Promoted, State::Aborted] {
            assert_eq!(State::of_name(state.name()), Some(state));
        }
        assert_eq!(State::of_name("else"), None);
    }
}
