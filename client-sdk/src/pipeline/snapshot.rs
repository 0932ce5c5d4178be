//! Which policy is for a target's calls: looked up once for each change and thread, not once for each call.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use thread_local::ThreadLocal;

use super::Live;
use crate::registry::Registry;

/// What each thread has seen last. A policy that is no longer in force stays in memory until the thread's next call.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    seen: ThreadLocal<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Of the registry; zero is none.
    version: Cell<u64>,
    live: RefCell<Option<Arc<Live>>>,
}

impl Snapshot {
    /// Lets `act` work with the policy in force, without a counter or a lock that threads share. The borrow must not outlive
    /// the poll that it is taken in: who needs it longer clones it.
    pub(crate) fn with<T>(
        &self,
        registry: &Registry,
        target: &str,
        route: Option<&str>,
        act: impl FnOnce(Option<&Arc<Live>>) -> T,
    ) -> T {
        let seen = self.seen.get_or_default();
        let version = registry.version();
        if seen.version.get() != version {
            let live = registry.resolve(target, route);
            match seen.live.try_borrow_mut() {
                Ok(mut own) => {
                    *own = live;
                    seen.version.set(version);
                }
                // A call inside the first poll of another call of this target, across a change.
                Err(_) => return act(live.as_ref()),
            }
        }
        act(seen.live.borrow().as_ref())
    }
}
