//! An operation under a deadline. No timer is armed before the operation has to wait.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use fusebox_policy::Timestamp;
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use crate::clock::Clock;

/// Runs `inside`; `None` if the deadline came first.
pub(super) fn within<F: Future>(clock: Clock, deadline: Option<Timestamp>, inside: F) -> Within<F> {
    Within { inside, deadline, clock, sleep: None }
}

pin_project! {
    pub(super) struct Within<F> {
        #[pin]
        inside: F,
        deadline: Option<Timestamp>,
        clock: Clock,
        // Armed at the first wait: most of what is quick never needs it.
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl<F: Future> Future for Within<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(value) = this.inside.poll(cx) {
            return Poll::Ready(Some(value));
        }
        let Some(deadline) = *this.deadline else { return Poll::Pending };
        if this.sleep.is_none() {
            this.sleep.set(Some(this.clock.sleep_until(deadline)));
        }
        if let Some(sleep) = this.sleep.as_mut().as_pin_mut() {
            ready!(sleep.poll(cx));
        }
        Poll::Ready(None)
    }
}
