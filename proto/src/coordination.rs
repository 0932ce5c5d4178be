//! Coordination <-> wire.

use fusebox_policy::{
    Invalid,
    fleet::{Coordination, CoordinationMode, CoordinationScope},
    invalid::Faults,
};

use crate::v1;

impl TryFrom<v1::Coordination> for Coordination {
    type Error = Invalid;

    fn try_from(wire: v1::Coordination) -> Result<Self, Invalid> {
        let v1::Coordination { mode, scope, acknowledge_single_witness, quorum_percent, max_open_percent } = wire;
        let mut faults = Faults::new();
        let mode = match v1::CoordinationMode::try_from(mode) {
            Ok(v1::CoordinationMode::Unspecified | v1::CoordinationMode::Balanced) => Some(CoordinationMode::Balanced),
            Ok(v1::CoordinationMode::Quorum) => Some(CoordinationMode::Quorum),
            Ok(v1::CoordinationMode::Pooled) => Some(CoordinationMode::Pooled),
            Ok(v1::CoordinationMode::Any) => Some(CoordinationMode::Any),
            Ok(v1::CoordinationMode::Local) => Some(CoordinationMode::Local),
            Err(_) => {
                faults.push("mode", format!("{mode} is not a mode"));
                None
            }
        };
        let scope = match v1::CoordinationScope::try_from(scope) {
            Ok(v1::CoordinationScope::Unspecified | v1::CoordinationScope::Zone) => Some(CoordinationScope::Zone),
            Ok(v1::CoordinationScope::Fleet) => Some(CoordinationScope::Fleet),
            Err(_) => {
                faults.push("scope", format!("{scope} is not a scope"));
                None
            }
        };
        let read = mode.zip(scope).and_then(|(mode, scope)| {
            faults.take("", Self::try_new(mode, scope, acknowledge_single_witness, quorum_percent, max_open_percent))
        });
        faults.into_result(read)
    }
}

impl From<&Coordination> for v1::Coordination {
    fn from(coordination: &Coordination) -> Self {
        let mode = match coordination.mode() {
            CoordinationMode::Balanced => v1::CoordinationMode::Balanced,
            CoordinationMode::Quorum => v1::CoordinationMode::Quorum,
            CoordinationMode::Pooled => v1::CoordinationMode::Pooled,
            CoordinationMode::Any => v1::CoordinationMode::Any,
            CoordinationMode::Local => v1::CoordinationMode::Local,
        };
        let scope = match coordination.scope() {
            CoordinationScope::Zone => v1::CoordinationScope::Zone,
            CoordinationScope::Fleet => v1::CoordinationScope::Fleet,
        };
        let opens = coordination.mode() != CoordinationMode::Local;
        let votes = matches!(coordination.mode(), CoordinationMode::Balanced | CoordinationMode::Quorum);
        Self {
            mode: mode.into(),
            scope: scope.into(),
            acknowledge_single_witness: coordination.acknowledge_single_witness(),
            quorum_percent: votes.then(|| u32::from(coordination.quorum_percent())),
            max_open_percent: opens.then(|| u32::from(coordination.max_open_percent())),
        }
    }
}
