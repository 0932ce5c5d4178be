//! What a policy says about sharing its breakers.

use crate::{Invalid, invalid::Faults};

/// How the replicas of a caller share the state of a policy's breakers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Coordination {
    mode: CoordinationMode,
    scope: CoordinationScope,
    acknowledge_single_witness: bool,
    quorum_percent: u8,
    max_open_percent: u8,
}

/// When the fleet opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CoordinationMode {
    /// Quorum or pooled, whichever is first.
    #[default]
    Balanced,
    /// Enough replicas' own breakers are open.
    Quorum,
    /// The trimmed sum of all replicas' windows reaches the breaker's own failure rate.
    Pooled,
    /// One replica whose target itself answered with failures.
    Any,
    /// Never; transitions are reported for visibility.
    Local,
}

impl CoordinationMode {
    /// Every mode.
    pub const ALL: [Self; 5] = [Self::Balanced, Self::Quorum, Self::Pooled, Self::Any, Self::Local];

    /// As the manifest spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Quorum => "quorum",
            Self::Pooled => "pooled",
            Self::Any => "any",
            Self::Local => "local",
        }
    }
}

/// Who opens together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CoordinationScope {
    /// The replicas of one zone. Those that name no zone form one.
    #[default]
    Zone,
    /// All replicas of the caller.
    Fleet,
}

impl CoordinationScope {
    /// As the manifest spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zone => "zone",
            Self::Fleet => "fleet",
        }
    }
}

impl Default for Coordination {
    fn default() -> Self {
        Self {
            mode: CoordinationMode::default(),
            scope: CoordinationScope::default(),
            acknowledge_single_witness: false,
            quorum_percent: Self::DEFAULT_QUORUM_PERCENT,
            max_open_percent: Self::DEFAULT_MAX_OPEN_PERCENT,
        }
    }
}

impl Coordination {
    /// Share of the eligible replicas that make a quorum, in percent, when nothing is said.
    pub const DEFAULT_QUORUM_PERCENT: u8 = 30;

    /// Share of a caller's targets that the fleet may have open at the same time, in percent, when nothing is said.
    pub const DEFAULT_MAX_OPEN_PERCENT: u8 = 50;

    /// Checks the settings.
    ///
    /// # Errors
    /// Mode `any` without its acknowledgement or beyond a zone, and a quorum or a share of open targets that is not from 1 to 100
    /// percent.
    pub fn try_new(
        mode: CoordinationMode,
        scope: CoordinationScope,
        acknowledge_single_witness: bool,
        quorum_percent: Option<u32>,
        max_open_percent: Option<u32>,
    ) -> Result<Self, Invalid> {
        let mut faults = Faults::new();
        if mode == CoordinationMode::Any {
            faults.check(
                acknowledge_single_witness,
                "acknowledgeSingleWitness",
                "must be true with mode any: one sick replica can then stop a whole zone",
            );
            faults.check(scope == CoordinationScope::Zone, "scope", "must be zone with mode any");
        } else {
            faults.check(!acknowledge_single_witness, "acknowledgeSingleWitness", "is only for mode any");
        }
        let quorum = quorum_percent.unwrap_or(u32::from(Self::DEFAULT_QUORUM_PERCENT));
        faults.check((1..=100).contains(&quorum), "quorumPercent", format!("must be from 1 to 100, is {quorum}"));
        faults.check(
            quorum_percent.is_none() || matches!(mode, CoordinationMode::Balanced | CoordinationMode::Quorum),
            "quorumPercent",
            "is only for modes balanced and quorum",
        );
        let max_open = max_open_percent.unwrap_or(u32::from(Self::DEFAULT_MAX_OPEN_PERCENT));
        faults.check((1..=100).contains(&max_open), "maxOpenPercent", format!("must be from 1 to 100, is {max_open}"));
        faults.check(
            max_open_percent.is_none() || mode != CoordinationMode::Local,
            "maxOpenPercent",
            "is not for mode local: nothing opens together",
        );
        let narrow = |percent: u32| u8::try_from(percent).ok();
        faults.into_result(narrow(quorum).zip(narrow(max_open)).map(|(quorum_percent, max_open_percent)| Self {
            mode,
            scope,
            acknowledge_single_witness,
            quorum_percent,
            max_open_percent,
        }))
    }

    /// When the fleet opens.
    #[must_use]
    pub const fn mode(&self) -> CoordinationMode {
        self.mode
    }

    /// Who opens together.
    #[must_use]
    pub const fn scope(&self) -> CoordinationScope {
        self.scope
    }

    /// Whether the operator knows what mode `any` does.
    #[must_use]
    pub const fn acknowledge_single_witness(&self) -> bool {
        self.acknowledge_single_witness
    }

    /// Share of the eligible replicas that make a quorum, in percent; never fewer than two replicas.
    #[must_use]
    pub const fn quorum_percent(&self) -> u8 {
        self.quorum_percent
    }

    /// Share of a caller's targets that the fleet may have open at the same time, in percent. It is for callers with four targets
    /// or more; what goes beyond is left to each replica's own breaker.
    #[must_use]
    pub const fn max_open_percent(&self) -> u8 {
        self.max_open_percent
    }
}
