//! One stream, once it is open: what is heard on it, and what is said.
//!
//! What is to be said lies in a list, and goes when there is room: hearing never waits for it.

use std::{collections::VecDeque, sync::atomic::Ordering, time::Duration};

use fusebox_policy::{Timestamp, fleet::BreakerKey};
use fusebox_proto::{
    duration,
    sync::v1::{self as sync, sync_request::Message as Up, sync_response::Message as Down},
    v1,
};

use super::{
    Link,
    end::End,
    receive, send,
    state::{Stream, Unusable},
};

/// Messages that wait for room. A server that has not read so many is not one to wait for.
const MAX_WAITING: usize = 4096;
/// From dialling to Welcome.
pub(super) const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// So many heartbeats of silence mean that nobody is there.
const SILENT_HEARTBEATS: u32 = 3;
/// How soon the server hears that a share is acted on. Shares come in groups: one heartbeat tells all of a group.
const SHARE_TOLD_WITHIN: Duration = Duration::from_millis(20);
/// How soon the server hears that overrides are in force: drawn from below this, so that a thousand replicas that were told at once don't
/// all answer while others still wait to be told.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(100);

/// What this end knows of the stream.
pub(super) struct Session<'a> {
    link: &'a Link,
    stream: Stream,
    pub(super) waiting: VecDeque<sync::SyncRequest>,
    pub(super) welcomed: Option<Timestamp>,
    heartbeat_due: Option<Timestamp>,
    transitions_due: Option<Timestamp>,
    /// The newest of each breaker, and of the overrides. Those of breakers go with the next heartbeat: nobody waits for them, and while a
    /// large fleet opens they would hold up the verdicts of those who have not heard yet.
    acknowledgements: Vec<sync::VerdictAck>,
    acknowledgements_due: Option<Timestamp>,
    overrides_seen: (u64, u64),
}

impl<'a> Session<'a> {
    /// On a stream that was asked for at that time.
    pub(super) fn new(link: &'a Link, opened_at: Timestamp) -> Self {
        Self {
            link,
            stream: Stream::new(opened_at),
            waiting: VecDeque::new(),
            welcomed: None,
            heartbeat_due: None,
            transitions_due: None,
            acknowledgements: Vec::new(),
            acknowledgements_due: None,
            overrides_seen: (0, 0),
        }
    }

    /// When [`Session::act`] has something to do.
    pub(super) fn due(&self) -> Timestamp {
        let dues = [self.heartbeat_due, self.transitions_due, self.acknowledgements_due];
        dues.into_iter().flatten().fold(self.silent_at(), Timestamp::min)
    }

    /// Says what is due.
    ///
    /// # Errors
    /// The server is silent.
    pub(super) fn act(&mut self, now: Timestamp) -> Result<(), End> {
        let is_due = |due: Option<Timestamp>| due.is_some_and(|at| at <= now);
        if self.silent_at() <= now {
            return Err(End::new("the server is silent"));
        }
        if is_due(self.transitions_due) {
            self.tell();
        }
        if is_due(self.heartbeat_due) {
            self.beat();
        } else if is_due(self.acknowledgements_due) {
            self.tell_acknowledgements();
        }
        Ok(())
    }

    fn silent_at(&self) -> Timestamp {
        let limit = self.stream.welcome.as_ref().map_or(HELLO_LIMIT, |welcome| welcome.heartbeat * SILENT_HEARTBEATS);
        self.stream.heard_at.plus(limit)
    }

    fn say(&mut self, message: Up) {
        self.waiting.push_back(send::request(message));
    }

    /// Does what a message asks for.
    ///
    /// # Errors
    /// The stream can't go on.
    pub(super) fn heard(&mut self, message: sync::SyncResponse) -> Result<(), End> {
        self.stream.heard_at = self.link.clock.now();
        if self.waiting.len() > MAX_WAITING {
            return Err(End::new("the server does not read"));
        }
        // A message of a newer server is unknown here and ignored.
        let Some(message) = message.message else { return Ok(()) };
        if let Down::Welcome(wire) = message {
            let bad = |invalid| End::refused(format!("bad welcome: {invalid}"));
            let welcome = receive::welcome(wire).map_err(bad)?;
            self.link.saw_term(welcome.term, welcome.run).map_err(bad)?;
            let now = self.link.clock.now();
            self.welcomed = Some(now);
            self.heartbeat_due = Some(now.plus(welcome.heartbeat));
            tracing::info!(target: "fusebox", store_id = welcome.store_id, term = welcome.term, "connected to the control plane");
            self.stream.welcome = Some(welcome);
            self.link.registry.connected.store(true, Ordering::Relaxed);
            return Ok(());
        }
        let Some(store_id) = self.stream.welcome.as_ref().map(|welcome| welcome.store_id.clone()) else {
            return Err(End::refused("the server spoke before its welcome"));
        };
        match message {
            Down::Welcome(_) => {}
            Down::SnapshotBegin(begin) => self.stream.begin(begin),
            Down::PolicyChunk(chunk) => {
                if let Err(unusable) = self.stream.chunk(chunk) {
                    self.refuse(unusable);
                }
            }
            Down::SnapshotEnd(end) => {
                let applied = self.stream.end(&end).and_then(|set| self.link.apply_snapshot(&store_id, end, set));
                match applied {
                    Ok(ack) => self.applied(ack),
                    Err(unusable) => self.refuse(unusable),
                }
            }
            Down::Delta(delta) => match self.link.apply_delta(&store_id, delta) {
                Ok(ack) => self.applied(ack),
                Err(unusable) => self.refuse(unusable),
            },
            Down::Verdict(verdict) => match self.link.apply_verdict(&self.stream, verdict) {
                Ok(ack) => ack.into_iter().for_each(|ack| self.acknowledge(ack)),
                Err(invalid) => tracing::warn!(target: "fusebox", reason = %invalid, "a verdict is ignored"),
            },
            Down::ProbePermit(permit) => match self.link.add_permit(&self.stream, permit) {
                Ok(back) => self.waiting.extend(back.map(|back| send::request(Up::ProbeOutcome(back)))),
                Err(invalid) => tracing::warn!(target: "fusebox", reason = %invalid, "a probe permit is ignored"),
            },
            Down::Canvass(canvass) => self.canvass(canvass),
            Down::HeartbeatAck(ack) => {
                if let Err(invalid) = self.link.renew(&self.stream, ack) {
                    tracing::warn!(target: "fusebox", reason = %invalid, "a heartbeat's answer is ignored");
                }
            }
            Down::Overrides(set) => self.overrides(&store_id, set),
            Down::RateShare(share) => self.share(share),
            Down::BreakerRefused(refused) => self.link.keep_to_itself(refused),
            Down::GoAway(away) => {
                let sync::GoAway { delay, reason } = away;
                let delay = delay.and_then(|delay| duration::from_wire(delay).ok()).unwrap_or_default();
                return Err(End::away(format!("the server sends this process away: {reason}"), delay));
            }
        }
        Ok(())
    }

    fn applied(&mut self, ack: sync::Ack) {
        self.say(Up::Ack(ack));
        self.link.ready.send_replace(true);
        // The server learns at once which breakers there are.
        self.beat_with(true);
    }

    fn refuse(&mut self, unusable: Unusable) {
        let Unusable { revision, reason } = unusable;
        tracing::warn!(target: "fusebox", revision, reason, "an update of the policies is refused; what is held stays");
        self.say(Up::Nack(sync::Nack { revision, reason }));
    }

    fn overrides(&mut self, store_id: &str, set: sync::OverrideSet) {
        let fence = (set.term, set.version);
        if fence < self.overrides_seen {
            return;
        }
        match self.link.set_overrides(&self.stream, store_id, set) {
            Ok(ack) => {
                self.overrides_seen = fence;
                ack.into_iter().for_each(|ack| self.acknowledge(ack));
                let soon = || self.link.clock.now().plus(ACKNOWLEDGED_WITHIN.mul_f64(fastrand::f64()));
                self.acknowledgements_due = self.acknowledgements_due.or_else(|| Some(soon()));
            }
            Err(invalid) => tracing::warn!(target: "fusebox", reason = %invalid, "a set of overrides is ignored"),
        }
    }

    fn acknowledge(&mut self, ack: sync::VerdictAck) {
        self.acknowledgements.retain(|older| older.key != ack.key);
        self.acknowledgements.push(ack);
    }

    fn tell_acknowledgements(&mut self) {
        self.acknowledgements_due = None;
        for ack in std::mem::take(&mut self.acknowledgements) {
            self.say(Up::VerdictAck(ack));
        }
    }

    fn share(&mut self, share: sync::RateShare) {
        match self.link.apply_share(&self.stream, share) {
            // Others may wait for what this process has given up.
            Ok(true) => {
                let soon = self.link.clock.now().plus(SHARE_TOLD_WITHIN);
                self.heartbeat_due = self.heartbeat_due.map(|due| due.min(soon));
            }
            Ok(false) => {}
            Err(invalid) => tracing::warn!(target: "fusebox", reason = %invalid, "a share of a rate limit is ignored"),
        }
    }

    fn canvass(&mut self, canvass: sync::Canvass) {
        let sync::Canvass { id, key } = canvass;
        let now = self.link.clock.now();
        let window = key
            .and_then(|key| BreakerKey::try_from(key).ok())
            .and_then(|key| self.link.registry.cell(&key))
            .map(|cell| send::window(&cell, now));
        self.say(Up::CanvassAnswer(sync::CanvassAnswer { id, window }));
    }

    /// Transitions and outcomes of probes, as far as they may be told now.
    pub(super) fn tell(&mut self) {
        let told_at = self.link.clock.now();
        let (due, next) = self.link.registry.outbox.take_transitions(told_at);
        for told in due {
            // Nobody listens to what is not shared.
            if self.link.registry.cell(&told.key).is_some_and(|cell| cell.look(told_at, |gate| gate.is_unshared())) {
                continue;
            }
            let seq = self.link.transitions.fetch_add(1, Ordering::Relaxed) + 1;
            self.say(Up::Transition(send::transition(&told, seq)));
        }
        self.transitions_due = next;
        for probed in self.link.registry.outbox.take_probes() {
            self.say(Up::ProbeOutcome(send::probed(&probed)));
        }
    }

    fn beat(&mut self) {
        self.beat_with(false);
    }

    fn beat_with(&mut self, all: bool) {
        let now = self.link.clock.now();
        self.tell_acknowledgements();
        if all {
            for cell in self.link.registry.cells() {
                cell.with(|gate| (gate.announce(), Vec::new()));
            }
        }
        let windows = self
            .link
            .registry
            .cells()
            .iter()
            .filter(|cell| cell.look(now, |gate| gate.wants_report()))
            .map(|cell| send::window(cell, now))
            .collect();
        let dropped = self.link.registry.outbox.take_dropped().iter().map(v1::BreakerKey::from).collect();
        let seq = self.stream.heartbeat(now);
        let limits = self.link.limit_reports();
        self.say(Up::Heartbeat(sync::Heartbeat { seq, windows, dropped, limits }));
        self.heartbeat_due = self.stream.welcome.as_ref().map(|welcome| now.plus(welcome.heartbeat));
    }
}
