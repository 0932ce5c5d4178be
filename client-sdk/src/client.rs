//! The cheap handle.

mod builder;

use std::{fmt, sync::Arc, time::Duration};

use fusebox_policy::InstanceId;
use tokio::sync::watch;

pub use self::builder::ClientBuilder;
#[cfg(feature = "test")]
pub(crate) use self::builder::builtin_set;
use crate::{clock::Clock, registry::Registry, status::Status, target::Target};

/// A service's connection to its policies. Cheap to clone; one background task for all clones, which ends with the last.
///
/// Calls never wait for the control plane: without it they run under the policies last known.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

/// What all handles share.
pub(crate) struct Inner {
    pub(crate) registry: Arc<Registry>,
    pub(crate) clock: Clock,
    instance: InstanceId,
    ready: watch::Receiver<bool>,
    has_server: bool,
    #[cfg(feature = "reqwest")]
    pub(crate) functions: parking_lot::RwLock<std::collections::HashMap<String, crate::reqwest::Function>>,
    /// Dropped with the last handle, which ends the task.
    _alive: watch::Sender<()>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let caller = self.registry.caller();
        f.debug_struct("Client")
            .field("namespace", &caller.namespace)
            .field("service", &caller.service)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Begins the settings of a client for the service of this name.
    pub fn builder(service: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(service.into())
    }

    #[cfg(feature = "test")]
    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// The handle for calls to a service.
    #[must_use]
    pub fn target(&self, name: &str) -> Target {
        Target::new(Arc::clone(&self.inner), name)
    }

    /// The name of the service that this client calls for.
    #[must_use]
    pub fn service(&self) -> &str {
        self.inner.registry.caller().service.as_str()
    }

    /// Waits until the control plane's policies are in force, at most this long, and says whether they are. Calls need not wait
    /// for it. Without a control plane the answer is no, at once.
    pub async fn wait_ready(&self, limit: Duration) -> bool {
        if !self.inner.has_server {
            return false;
        }
        let mut ready = self.inner.ready.clone();
        matches!(tokio::time::timeout(limit, async { ready.wait_for(|ready| *ready).await.is_ok() }).await, Ok(true))
    }

    /// Registers the function that a policy's `fallback: { function: NAME }` asks for in HTTP calls. A later one of the same name
    /// replaces the former.
    #[cfg(feature = "reqwest")]
    pub fn register_fallback<F, Fut>(&self, name: impl Into<String>, function: F)
    where
        F: Fn(crate::Failure) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<http::Response<bytes::Bytes>, crate::BoxError>> + Send + 'static,
    {
        let function: crate::reqwest::Function = Arc::new(move |failure| Box::pin(function(failure)));
        self.inner.functions.write().insert(name.into(), function);
    }

    /// What this client is and runs at this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        let caller = self.inner.registry.caller();
        let (connected, source, revision, rejected, policies, breakers) = self.inner.registry.show();
        Status {
            service: caller.service.clone(),
            namespace: caller.namespace.clone(),
            instance: self.inner.instance.clone(),
            zone: caller.zone.clone(),
            connected,
            ignores_fleet: caller.ignore_fleet,
            cache_faults: self.inner.registry.cache_faults.load(std::sync::atomic::Ordering::Relaxed),
            source,
            revision,
            rejected,
            policies,
            breakers,
            limits: self.inner.registry.show_limits(),
        }
    }
}
