//! Whether the coordinator may decide at all.

use std::fmt;

use crate::Timestamp;

/// Whether verdicts and permits are issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A run before this one may have verdicts and permits out. Reports are taken, verdicts that replicas say they hold are
    /// continued; nothing new is opened and no permit given.
    Learning {
        /// When nothing of that run can be in force any more.
        until: Timestamp,
    },
    /// All is as it should be.
    Deciding,
    /// The coordinator does not trust itself: nothing is issued or renewed, so that what is out ends with its leases.
    Frozen {
        /// Why.
        suspicion: Suspicion,
        /// When the last lease has ended. Learning follows.
        until: Timestamp,
    },
}

impl Mode {
    /// In lower case, as it is shown everywhere.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Learning { .. } => "learning",
            Self::Deciding => "deciding",
            Self::Frozen { .. } => "frozen",
        }
    }

    /// Why nothing is issued, while frozen.
    #[must_use]
    pub const fn suspicion(self) -> Option<Suspicion> {
        match self {
            Self::Frozen { suspicion, .. } => Some(suspicion),
            Self::Learning { .. } | Self::Deciding => None,
        }
    }

    /// When it ends by itself.
    #[must_use]
    pub const fn until(self) -> Option<Timestamp> {
        match self {
            Self::Learning { until } | Self::Frozen { until, .. } => Some(until),
            Self::Deciding => None,
        }
    }
}

/// Why the coordinator does not trust what it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suspicion {
    /// It has been asleep: what waits in its queues is old.
    Stall,
    /// What it decides can't be written down.
    StoreUnwritable,
    /// More than half of all replicas have gone at the same time: it is the network's doing or our own, and the rest says little
    /// about the whole.
    MassDisconnect,
}

impl Suspicion {
    /// In lower case with underscores, as it is shown everywhere.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stall => "stall",
            Self::StoreUnwritable => "store_unwritable",
            Self::MassDisconnect => "mass_disconnect",
        }
    }
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
