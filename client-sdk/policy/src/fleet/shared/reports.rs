//! What replicas have said, and whether that may open the breaker.

use super::{SharedBreaker, State};
use crate::{
    Draw, Timestamp, Zone,
    fleet::{
        evidence::{Evidence, Member, MemberId, Report},
        rule::{self, Lost, Met},
        shared::Settings,
        spec::CoordinationMode,
        tally::Tally,
    },
};

impl SharedBreaker {
    /// Takes what a replica has seen. Says whether it has tripped anew.
    pub(in crate::fleet) fn observe(
        &mut self,
        id: &MemberId,
        zone: Option<&Zone>,
        report: Report,
        now: Timestamp,
    ) -> bool {
        if let State::Ramp(ramp) = &mut self.state {
            ramp.refused(report.rejected);
        }
        if report.disabled {
            // It may have had a vote, and looks no more: as if it had gone.
            self.leave(id, now);
        } else {
            // It is back.
            self.lost.remove(&id.instance);
            self.canvass.heard(id);
        }
        let before = self.members.get(id);
        let tripped_anew = report.tripped() && before.is_none_or(|member| !member.report.tripped());
        // A replica that does not obey refuses nothing, and has calls all the same.
        let demand = report.rejected > 0 || (report.vetoed && report.calls > 0);
        let demand_at = if demand { Some(now) } else { before.and_then(|member| member.demand_at) };
        let permits = before.map_or(0, |member| member.permits);
        let member = Member { zone: zone.cloned(), report, at: now, demand_at, permits };
        self.told = self.told.plus(Tally::of(&member, &self.settings.breaker));
        if let Some(older) = self.members.insert(id.clone(), member) {
            self.told = self.told.minus(Tally::of(&older, &self.settings.breaker));
        }
        tripped_anew
    }

    /// Somebody has tripped: those of the others that are to be asked for their windows at once.
    pub(in crate::fleet) fn canvass(&mut self, tripped: &MemberId, now: Timestamp, draw: Draw) -> Vec<MemberId> {
        if self.settings.coordination.mode() == CoordinationMode::Local {
            return Vec::new();
        }
        self.canvass.begin(&self.members, tripped, now, draw)
    }

    /// Those that are to be asked too, as what has been answered decides nothing.
    pub(in crate::fleet) fn canvass_more(&mut self, now: Timestamp) -> Vec<MemberId> {
        self.canvass.more(now)
    }

    /// A replica has gone, or holds the breaker no longer. That alone never opens anything: the rest is judged again only when
    /// one of them reports.
    ///
    /// Nor does it make those who are left speak for all at once.
    pub(in crate::fleet) fn leave(&mut self, id: &MemberId, now: Timestamp) {
        let spec = &self.settings.breaker;
        self.lost.retain(|_, (at, _)| now.since(*at) <= rule::lost_for(spec));
        self.canvass.left(id);
        let Some(gone) = self.members.remove(id) else {
            return;
        };
        self.told = self.told.minus(Tally::of(&gone, spec));
        if let Some(lost) = Lost::of(&gone, spec, now) {
            self.lost.insert(id.instance.clone(), (gone.at, lost));
        }
    }

    /// Whether it is worth judging at all.
    pub(in crate::fleet) fn may_open(&self, now: Timestamp) -> bool {
        let Settings { breaker, coordination, .. } = &self.settings;
        let sum = || self.members.values().fold(Tally::ZERO, |sum, member| sum.plus(Tally::of(member, breaker)));
        debug_assert_eq!(self.told, sum(), "of {}", self.members.len());
        self.told.may_meet(breaker, coordination)
            && rule::tally(&self.members, breaker, now).may_meet(breaker, coordination)
    }

    /// The numbers now, and the rule that they meet.
    pub(in crate::fleet) fn judge(&self, now: Timestamp) -> (Evidence, Option<Met>) {
        self.judge_among(now, |_| true)
    }

    /// The same, of those replicas only that may vote.
    pub(in crate::fleet) fn judge_among(
        &self,
        now: Timestamp,
        may_vote: impl Fn(&MemberId) -> bool,
    ) -> (Evidence, Option<Met>) {
        let Settings { breaker, coordination, .. } = &self.settings;
        let lately = self.lost.values().filter(|(at, _)| now.since(*at) <= rule::lost_for(breaker));
        let gone: Vec<Lost> = lately.map(|(_, lost)| *lost).collect();
        rule::judge_among(&self.members, &gone, breaker, coordination, now, may_vote)
    }
}
