//! Which policy is for a target's calls: looked up once for each change and thread, not once for each call.

use std::{
    cell::{Ref, RefCell},
    sync::Arc,
};

use thread_local::ThreadLocal;

use super::{Live, lane::Way, tally::Apart};
use crate::{registry::Registry, target::Target};

/// What each thread has seen last. A policy that is no longer in force stays in memory until the thread's next call.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    seen: ThreadLocal<Apart<RefCell<Seen>>>,
}

/// What one thread needs for a call.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Of the registry; zero is none.
    version: u64,
    pub(super) live: Option<Arc<Live>>,
    /// The short way of calls for which there is nothing to decide.
    pub(super) way: Option<Way>,
}

impl Snapshot {
    /// The policy in force, without a counter or a lock that threads share. The borrow must not outlive the poll that it is
    /// taken in: who needs it longer clones it.
    #[inline(always)]
    pub(crate) fn seen(&self, target: &Target) -> Ref<'_, Seen> {
        // Borrowed once: each borrow is a write that the next one has to wait for.
        if let Some(own) = self.seen.get()
            && let Ok(seen) = own.0.try_borrow()
            && seen.version == target.client.registry.version()
        {
            return seen;
        }
        self.renew(target).0.borrow()
    }

    #[cold]
    #[inline(never)]
    fn renew(&self, target: &Target) -> &Apart<RefCell<Seen>> {
        let own = self.seen.get_or_default();
        // A call inside the first poll of another call of this target, across a change, goes by what that one sees.
        if let Ok(mut seen) = own.0.try_borrow_mut() {
            let former = std::mem::replace(
                &mut *seen,
                Seen::look(&target.client.registry, &target.name, target.route.as_deref()),
            );
            // What was kept for a policy that is gone may be the caller's, and do as it likes when dropped.
            drop(seen);
            drop(former);
        }
        own
    }
}

impl Seen {
    /// The policy, if there is one.
    pub(crate) const fn live(&self) -> Option<&Arc<Live>> {
        self.live.as_ref()
    }

    fn look(registry: &Registry, target: &str, route: Option<&str>) -> Self {
        // The version first: of what changes after that, the next call will hear.
        let version = registry.version();
        let live = registry.resolve(target, route);
        let way = live.as_deref().and_then(Way::of);
        Self { version, live, way }
    }
}
