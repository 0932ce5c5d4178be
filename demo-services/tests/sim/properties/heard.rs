//! What replicas say that they have applied and hear, and what operators are told of that.

use std::{collections::BTreeSet, time::Duration};

use fusebox_policy::{
    Zone,
    fleet::{
        CoordinationScope,
        gate::ProbeId,
        held::Fence,
        history::Event as Judged,
        invariants::{self as check, Invariant},
    },
};
use fusebox_proto::sync::v1::{sync_request::Message as Up, sync_response::Message as Down};

use super::{Check, key_of};
use crate::history::Shown;

impl Check {
    pub(super) fn told(&mut self, at: Duration, replica: &str, message: Option<&Up>) {
        match message {
            Some(Up::VerdictAck(ack)) if ack.key.is_some() => {
                let fence = Fence { term: ack.term, rev: ack.rev };
                let seen = self.of(replica);
                // One whose lease had ended may be told again: nothing newer has been said. What is confirmed now was applied when it
                // was heard.
                let lapsed = seen.anew.remove(&fence);
                let member = (replica.to_owned(), seen.run);
                let applied = Judged::Applied { member, key: key_of(ack.key.as_ref()), fence, lapsed };
                self.judge(at, applied, || format!("{replica} applies {fence:?} after a later one"));
            }
            Some(Up::ProbeOutcome(outcome)) => {
                let id = ProbeId { term: outcome.term, id: outcome.id };
                self.of(replica).permits.retain(|(_, own)| *own != id);
            }
            _ => {}
        }
    }

    pub(super) fn heard(&mut self, at: Duration, replica: &str, message: Option<&Down>) {
        self.of(replica).last_word = at;
        match message {
            Some(Down::Verdict(verdict)) => {
                let fence = Fence { term: verdict.term, rev: verdict.rev };
                let seen = self.of(replica);
                if !seen.shown.as_ref().is_some_and(Shown::is_held) {
                    seen.anew.insert(fence);
                }
                if let Some(word) = seen.words.get_mut(&fence)
                    && word.heard.is_none()
                {
                    word.heard = Some(at);
                    // Permits of an older verdict are void; one that is only said again changes nothing.
                    seen.permits.clear();
                }
                let own = seen.zone.clone();
                let key = verdict.key.clone().unwrap_or_default();
                let about = Zone::try_new(&key.zone).ok();
                let scope = if about.is_some() { CoordinationScope::Zone } else { CoordinationScope::Fleet };
                let fits = check::s10_scope_isolation(scope, about.as_ref(), own.as_ref());
                self.must(fits, Invariant::S10, at, || format!("{replica} is told of zone {}", key.zone));
            }
            Some(Down::ProbePermit(permit)) => {
                let (seen, id) = (self.of(replica), ProbeId { term: permit.term, id: permit.id });
                if seen.heard.insert(id) {
                    seen.permits.push((key_of(permit.key.as_ref()), id));
                }
            }
            _ => {}
        }
    }
    /// Who is shown as having acknowledged an override, and who as not.
    pub(super) fn listed(
        &mut self,
        at: Duration,
        acknowledged: u32,
        unacknowledged: &BTreeSet<String>,
        connected: &BTreeSet<String>,
    ) {
        // One that has acknowledged it since it was listed is listed.
        let said = self.replicas.iter().filter(|(name, seen)| seen.acknowledged && !unacknowledged.contains(*name));
        let said: BTreeSet<String> = said.map(|(name, _)| name.clone()).collect();
        let counted = acknowledged as usize + unacknowledged.len() == connected.len();
        let holds = counted && check::l7_acknowledged_or_listed(connected, &said, unacknowledged);
        self.must(holds, Invariant::L7, at, || {
            format!(
                "of {connected:?} {acknowledged} are to have acknowledged an override, {said:?} have, and \
                 {unacknowledged:?} have not"
            )
        });
    }
}
