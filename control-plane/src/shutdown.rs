//! The one signal by which everything ends.

use std::future::Future;

use tokio_util::sync::CancellationToken;

/// A cheap handle: ask whether the end has begun, or begin it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Not begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the end. Again does nothing.
    pub fn begin(&self) {
        self.0.cancel();
    }

    /// Whether the end has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until the end begins.
    pub fn begun(&self) -> impl Future<Output = ()> + Send + use<> {
        self.0.clone().cancelled_owned()
    }
}
