//! Who is sent which definition of a policy, and how rollouts go on: [`Rule`] says what must hold.
//!
//! The store's writes say what each replica is to have as of each revision; every message says of which revision it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use fusebox_control_plane::{rollouts::machine::State, store::StoredRollout};
use fusebox_policy::fleet::invariants::{self as check, Invariant};
use fusebox_proto::{
    sync::v1::{self as sync, sync_request::Message as Up, sync_response::Message as Down},
    v1,
};
use prost::Message as _;

use super::{Check, Violation};
use crate::{
    history::Shown,
    replica::Replica,
    stager::BY_FORCE,
    stored::{Stored, is_selected},
    world::STEP,
};

/// What must hold of rollouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Given,
    Complete,
    Content,
    Steps,
    Gates,
}

impl Rule {
    pub(super) const ALL: [Self; 5] = [Self::Given, Self::Complete, Self::Content, Self::Steps, Self::Gates];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Given => "R1: nobody is sent a definition but the one that its stage gives it as of the revision of the message.",
            Self::Complete => "R2: who has a revision runs exactly what it is given as of it, but for what it refuses.",
            Self::Content => "R3: a number of a policy is one definition, and only a promotion changes what is in force.",
            Self::Steps => "R4: a rollout goes on step by step from where it is stored, through crashes, and an end is an end.",
            Self::Gates => {
                "R5: but by force, no stage is promoted before it has baked and 95 % of the live selected run it, while one of them \
                 refuses it, or after the fleet has opened."
            }
        })
    }
}

/// How long after a replica's last message it certainly is connected, unless it says hello again: a heartbeat and a half.
const LIVE: Duration = Duration::from_millis(1500);
/// What has happened so shortly before a promotion may not have been seen by those who promoted.
const UNSEEN: Duration = Duration::from_millis(250);

/// What one replica is sent and has.
#[derive(Default)]
struct Sent {
    /// Revision of the snapshot that is being written to it.
    writing: u64,
    /// The snapshot that it is reading.
    reading: Option<(u64, BTreeMap<String, u64>)>,
    /// What it has, as far as it is known.
    has: Option<(u64, BTreeMap<String, u64>)>,
    /// When this run of the server last heard of it.
    heard: Option<Duration>,
    /// The newest revision that it has acknowledged to this run of the server.
    acknowledged: u64,
    /// Numbers that it refuses.
    refuses: BTreeSet<u64>,
}

/// A promotion that some of the selected had not acknowledged: were they connected?
struct Promoted {
    at: Duration,
    name: String,
    acknowledged: usize,
    /// Heard of shortly before; and whether they were heard of again, on the same stream.
    others: BTreeMap<String, Option<bool>>,
}

/// Everything that has been stored and sent.
#[derive(Default)]
pub(super) struct Staging {
    cast: BTreeMap<String, Replica>,
    stored: BTreeMap<u64, Stored>,
    latest: Option<Stored>,
    contents: BTreeMap<(String, u64), Vec<u8>>,
    sent: BTreeMap<String, Sent>,
    /// Since when this run of the server watches the stage of each rollout in progress.
    begun: BTreeMap<String, Duration>,
    opened: Vec<(String, Duration)>,
    promoted: Vec<Promoted>,
    /// A store that was put in the place of another one counts its revisions anew.
    replaced: bool,
}

impl Staging {
    pub(super) fn new(cast: &[Replica]) -> Self {
        Self { cast: cast.iter().map(|own| (own.name.to_owned(), own.clone())).collect(), ..Self::default() }
    }

    /// What was stored as of a revision; `None` if it is none of this store, as after a backup was restored.
    fn as_of(&self, revision: u64) -> Option<&Stored> {
        let newest = self.stored.last_key_value().map_or(0, |(newest, _)| *newest);
        self.stored.range(..=revision).next_back().map(|(_, stored)| stored).filter(|_| revision <= newest)
    }
}

impl Check {
    fn rule(&mut self, holds: bool, rule: Rule, at: Duration, what: impl FnOnce() -> String) {
        if !holds {
            self.found.push(Violation { rule: rule.into(), at, what: what() });
        }
    }

    /// The store is another one, or an older copy.
    pub(super) fn replaced(&mut self) {
        self.staging.replaced = true;
        self.staging.latest = None;
        self.staging.begun.clear();
    }

    /// A run of the server begins.
    pub(super) fn anew(&mut self, at: Duration) {
        for sent in self.staging.sent.values_mut() {
            (sent.heard, sent.acknowledged) = (None, 0);
            sent.refuses.clear();
        }
        self.staging.begun.values_mut().for_each(|begun| *begun = at);
        self.settle(Duration::MAX);
    }

    /// A replica's process begins: what it has on disk is not known.
    pub(super) fn restarted(&mut self, replica: &str) {
        self.staging.sent.remove(replica);
        for promoted in &mut self.staging.promoted {
            promoted.others.remove(replica);
        }
    }

    pub(super) fn opened(&mut self, at: Duration, key: &str, to: &str) {
        if to == "open"
            && let Some((policy, _)) = key.split_once('/')
        {
            self.staging.opened.push((policy.to_owned(), at));
        }
    }

    pub(super) fn stored(&mut self, at: Duration, stored: &Stored) {
        let before = self.staging.latest.replace(stored.clone());
        self.staging.stored.split_off(&stored.revision);
        self.staging.stored.insert(stored.revision, stored.clone());
        let Some(before) = before else { return };
        let Some(now) = &stored.stepped else {
            let same = before.rollouts == stored.rollouts;
            self.rule(same, Rule::Steps, at, || format!("rollouts are others than before: {before}; {stored}"));
            return;
        };
        let (name, policy) = (now.name(), now.policy_name());
        let was = before.rollouts.get(&policy);
        let follows = stored.revision > before.revision && was.map_or_else(|| begins(now), |was| follows(was, now));
        self.rule(follows, Rule::Steps, at, || format!("{before} and then {stored}"));
        let expected = match now.standing.state {
            State::Promoted => Some(now.candidate),
            State::Running | State::Paused | State::Aborted => now.stable,
        };
        let kept = stored.in_force.get(&policy).copied() == expected.map(|revision| revision.0);
        self.rule(kept, Rule::Content, at, || format!("{expected:?} is to be in force: {stored}"));
        if let Some(was) = was
            && (now.standing.stage > was.standing.stage || now.standing.state == State::Promoted)
            && now.standing.reason != BY_FORCE
        {
            self.promotes(at, was);
        }
        if !now.standing.state.in_progress() {
            self.staging.begun.remove(&name);
        } else if was.is_none_or(|was| was.standing.since != now.standing.since) {
            self.staging.begun.insert(name, at);
        }
    }

    /// A stage is left because its gates allow it.
    fn promotes(&mut self, at: Duration, was: &StoredRollout) {
        let name = was.name();
        let begun = self.staging.begun.get(&name).copied().unwrap_or_default();
        let bake = was.spec.stages.get(was.standing.stage).map_or(Duration::ZERO, |stage| stage.bake);
        self.rule(begun + bake <= at + STEP, Rule::Gates, at, || {
            format!("{name} was to bake from {begun:?} for {bake:?}")
        });
        let opened = self
            .staging
            .opened
            .iter()
            .find(|(policy, opened)| *policy == was.policy.as_str() && *opened > begun && *opened + UNSEEN < at);
        let opened = opened.map(|(_, opened)| *opened);
        self.rule(opened.is_none(), Rule::Gates, at, || format!("{name}: the fleet has opened at {opened:?}"));
        let mut promoted = Promoted { at, name, acknowledged: 0, others: BTreeMap::new() };
        let mut refuses = Vec::new();
        for (replica, sent) in &self.staging.sent {
            let selected = self.staging.cast.get(replica).is_some_and(|replica| is_selected(was, replica));
            let Some(heard) = sent.heard.filter(|_| selected) else { continue };
            if sent.refuses.contains(&was.candidate.0) {
                refuses.push(replica.clone());
            } else if sent.acknowledged >= was.stage_revision.0 {
                promoted.acknowledged += 1;
            } else if heard + LIVE >= at {
                promoted.others.insert(replica.clone(), None);
            }
        }
        let name = promoted.name.clone();
        let some = promoted.acknowledged > 0;
        self.staging.promoted.push(promoted);
        self.rule(refuses.is_empty(), Rule::Gates, at, || format!("{refuses:?} refuse {name}"));
        self.rule(some, Rule::Gates, at, || format!("nobody runs {name}"));
    }

    /// Judges promotions of which it is known by now who was connected.
    pub(super) fn settle(&mut self, now: Duration) {
        let known = |promoted: &Promoted| promoted.at + LIVE < now;
        for Promoted { at, name, acknowledged, others, .. } in
            self.staging.promoted.extract_if(.., |promoted| known(promoted)).collect::<Vec<_>>()
        {
            let live: Vec<&String> =
                others.iter().filter(|(_, again)| **again == Some(true)).map(|(name, _)| name).collect();
            let all = acknowledged + live.len();
            self.rule(acknowledged * 100 >= all * 95, Rule::Gates, at, || {
                format!("{name} is promoted, and {live:?} do not run it: {acknowledged} of {all}")
            });
        }
    }

    /// What the control plane writes to a replica.
    pub(super) fn sends(&mut self, at: Duration, replica: &str, message: Option<&Down>) {
        let (revision, upserted, deleted) = match message {
            Some(Down::SnapshotBegin(begin)) => {
                self.staging.sent.entry(replica.to_owned()).or_default().writing = begin.revision;
                return;
            }
            Some(Down::PolicyChunk(chunk)) => {
                let writing = self.staging.sent.entry(replica.to_owned()).or_default().writing;
                (writing, &chunk.policies[..], &[][..])
            }
            Some(Down::Delta(delta)) => (delta.revision, &delta.upserted[..], &delta.deleted[..]),
            _ => return,
        };
        let Some(own) = self.staging.cast.get(replica).cloned() else { return };
        let Some(stored) = self.staging.as_of(revision).cloned() else {
            self.rule(upserted.is_empty() && deleted.is_empty(), Rule::Given, at, || {
                format!("{replica} is sent revision {revision}")
            });
            return;
        };
        for policy in upserted {
            let given = stored.given(&policy.name, &own);
            self.rule(given == Some(policy.revision), Rule::Given, at, || {
                format!(
                    "as of {revision} {replica} is to have {given:?} of {}, and is sent {}",
                    policy.name, policy.revision
                )
            });
            let key = (policy.name.clone(), policy.revision);
            let content = self.staging.contents.entry(key).or_insert_with(|| content(policy));
            let same = *content == self::content(policy);
            self.rule(same || self.staging.replaced, Rule::Content, at, || {
                format!("{replica} is sent another definition as number {} of {}", policy.revision, policy.name)
            });
        }
        for name in deleted {
            let given = stored.given(name, &own);
            self.rule(given.is_none(), Rule::Given, at, || {
                format!("as of {revision} {replica} is to have {given:?} of {name}, which is taken from it")
            });
        }
    }

    /// What a replica reads.
    pub(super) fn reads(&mut self, at: Duration, replica: &str, message: Option<&Down>) {
        let numbered = |policy: &v1::Policy| (policy.name.clone(), policy.revision);
        let sent = self.staging.sent.entry(replica.to_owned()).or_default();
        match message {
            Some(Down::Welcome(_)) => sent.reading = None,
            Some(Down::SnapshotBegin(begin)) => sent.reading = Some((begin.revision, BTreeMap::new())),
            Some(Down::PolicyChunk(chunk)) => {
                if let Some((_, policies)) = &mut sent.reading {
                    policies.extend(chunk.policies.iter().map(numbered));
                }
            }
            Some(Down::SnapshotEnd(_)) => {
                sent.has = sent.reading.take();
                self.has_all(at, replica);
            }
            Some(Down::Delta(delta)) => {
                let sync::Delta { from_revision, revision, upserted, deleted } = delta;
                sent.has = sent.has.take().filter(|(has, _)| has == from_revision).map(|(_, mut policies)| {
                    policies.retain(|name, _| !deleted.contains(name));
                    policies.extend(upserted.iter().map(numbered));
                    (*revision, policies)
                });
                self.has_all(at, replica);
            }
            _ => {}
        }
    }

    fn has_all(&mut self, at: Duration, replica: &str) {
        let staging = &self.staging;
        let Some((revision, has)) = staging.sent.get(replica).and_then(|sent| sent.has.clone()) else { return };
        let (Some(own), Some(stored)) = (staging.cast.get(replica), staging.as_of(revision)) else { return };
        let given = stored.all_given(own);
        self.rule(has == given, Rule::Complete, at, || {
            let differs = |(name, number): &(&String, &u64)| given.get(*name) != Some(number);
            let wrong: Vec<_> = has.iter().filter(differs).collect();
            let missing: Vec<_> = given.keys().filter(|name| !has.contains_key(*name)).collect();
            format!("{replica} has revision {revision} with {wrong:?}, and without {missing:?}")
        });
    }

    /// What a replica runs.
    pub(super) fn runs(&mut self, at: Duration, replica: &str, policy: &str, shown: &Shown) {
        let staging = &self.staging;
        let (Some(own), Some(stored)) = (staging.cast.get(replica), staging.as_of(shown.revision)) else { return };
        if staging.replaced || shown.revision == 0 {
            return;
        }
        let numbers = |policies: &BTreeMap<String, u64>| -> BTreeSet<(String, u64)> {
            let usable = policies.iter().filter(|(_, number)| !shown.rejected.contains(number));
            usable.map(|(name, number)| (name.clone(), *number)).collect()
        };
        let (usable, applied) = (numbers(&stored.all_given(own)), numbers(&shown.policies));
        let isolated = check::l5_poison_is_isolated(&usable, &applied);
        let given = stored.given(policy, own);
        self.must(isolated, Invariant::L5, at, || format!("{replica} runs {applied:?}, and could run {usable:?}"));
        if !shown.rejected.is_empty() || shown.policy_revision == 0 {
            return;
        }
        self.rule(given == Some(shown.policy_revision), Rule::Complete, at, || {
            format!("{replica} is to run {given:?} as of {}: {shown}", shown.revision)
        });
    }

    /// What the control plane reads.
    pub(super) fn hears(&mut self, at: Duration, replica: &str, message: Option<&Up>) {
        self.settle(at);
        let hello = matches!(message, Some(Up::Hello(_)));
        for promoted in &mut self.staging.promoted {
            if let Some(again) = promoted.others.get_mut(replica) {
                again.get_or_insert(!hello);
            }
        }
        let sent = self.staging.sent.entry(replica.to_owned()).or_default();
        sent.heard = Some(at);
        match message {
            Some(Up::Hello(_)) => {
                sent.acknowledged = 0;
                sent.refuses.clear();
            }
            Some(Up::Ack(ack)) => {
                sent.acknowledged = ack.revision;
                sent.refuses = ack.rejected.iter().map(|rejected| rejected.revision).collect();
            }
            _ => {}
        }
    }
}

/// A policy as it is defined, without when that was.
fn content(policy: &v1::Policy) -> Vec<u8> {
    v1::Policy { create_time: None, update_time: None, ..policy.clone() }.encode_to_vec()
}

fn begins(now: &StoredRollout) -> bool {
    now.standing.stage == 0 && now.standing.state == State::Running && now.stage_revision == now.candidate
}

/// Whether one step leads from there to there.
fn follows(was: &StoredRollout, now: &StoredRollout) -> bool {
    let last = was.standing.stage + 1 == was.spec.stages.len();
    let further = now.standing.stage == was.standing.stage + 1;
    let same = now.standing.stage == was.standing.stage;
    let step = match (was.standing.state, now.standing.state) {
        (State::Running | State::Paused, State::Running) if further => true,
        (State::Running | State::Paused, State::Promoted) => same && last,
        (State::Running, State::Paused) | (State::Paused, State::Running) => same,
        (State::Running | State::Paused, State::Aborted) => same,
        (State::Running, State::Running) | (State::Paused, State::Paused) => false,
        (State::Promoted | State::Aborted, _) => false,
    };
    step && was.candidate == now.candidate && was.stable == now.stable && was.spec == now.spec
}
