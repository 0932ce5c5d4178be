//! An ordered list of strategies, and how one call goes through it.
//!
//! [`PipelineSpec`] is what the operator wrote, checked as a whole. [`Call`] is the machine of one call: it tells its
//! driver what to do next (attempt, wait, run a fallback, finish) and is told what became of it. Any order and any number
//! of strategies works; nothing here knows the article's order.

mod call;
mod cells;
mod check;
mod live;
mod spec;
mod step;

pub use call::Call;
pub use cells::{AttemptEnded, AttemptKind, CallEnded, Cells, Entry, Event, Hold};
pub use check::worst_case_attempts;
pub use live::LiveStrategy;
pub use spec::{MAX_STRATEGIES, PipelineSpec, Strategy, StrategySpec};
pub use step::{Finish, Step};
