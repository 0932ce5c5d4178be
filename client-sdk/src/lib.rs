//! The client SDK of Fusebox: resilience policies, streamed from a control plane and run in your process.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = fusebox::Client::builder("service-a")
//!     .control_plane("http://127.0.0.1:7443")
//!     .cache_dir("/var/cache/service-a")
//!     .start()?;
//!
//! // Any operation: the closure runs once for each attempt.
//! let answer = client.target("service-b").call(|| async { std::fs::read_to_string("answer") }).await?;
//!
//! // HTTP, with bodies sent again and `Retry-After` honoured.
//! let http = client.target("service-b").reqwest(reqwest::Client::builder())?;
//! let response = http.get("http://127.0.0.1:3001/").send().await?;
//! # drop((answer, response));
//! # Ok(())
//! # }
//! ```
//!
//! The folder `examples` has a program for each way in, which runs by itself and against a control plane: closures, `reqwest`,
//! `reqwest-middleware`, tower, tonic, axum, metrics, and policies in a service's own tests.
//!
//! What happens around a call (timeouts, retries, circuit breakers, fallbacks, in which order) is the operator's policy. It changes
//! while the process runs, and takes effect on the next call. [`ClientBuilder::start`] returns at once and never fails
//! because the network does; the policies in force are the stream's, else the last good ones on disk, else those given in code, else
//! none. [`Client::status`] tells which. No call ever waits for the control plane.
//!
//! Events go through `tracing`, target `fusebox`: `timed out`, `retry N after D`, `state changed from X to Y`, `fallback executed`.

mod alarm;
mod client;
mod clock;
mod closure;
mod credentials;
mod error;
mod link;
#[cfg(feature = "metrics")]
mod metrics;
mod permit;
mod pipeline;
mod prepared;
mod registry;
mod report;
mod status;
mod target;
#[cfg(feature = "test")]
mod testing;

#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "http")]
mod classify;
#[cfg(feature = "reqwest")]
mod reqwest;
#[cfg(feature = "tonic")]
mod tonic;
#[cfg(feature = "tower")]
mod tower;

pub use client::{Client, ClientBuilder};
pub use credentials::Tls;
pub use error::{BoxError, CallError, FallbackError, FallbackFault, SetupError};
pub use fusebox_policy as policy;
pub use fusebox_policy::{
    Outcome, Policy, Rejection, Revision,
    breaker::LocalState,
    outcome::{ErrorKind, RejectionReason},
    throttle::Priority,
};
pub use permit::Permit;
pub use prepared::{Asked, ByResult, Fixed, JudgedBy, Judgement, NoFallback, PreparedTarget, TypedFallback};
pub use status::{BreakerStatus, FleetStateShown, LimitStatus, PolicySource, PolicyStatus, RejectedPolicy, Status};
pub use target::{Failure, Target};

#[cfg(feature = "axum")]
pub use crate::axum::{InboundLayer, InboundService};
#[cfg(feature = "test")]
pub use crate::testing::{Happened, Recorded, TestClient};
#[cfg(feature = "tonic")]
pub use crate::tonic::GrpcChannel;
#[cfg(feature = "tower")]
pub use crate::tower::{Http, Plain, PolicyLayer, PolicyService, Protocol};

#[cfg(feature = "reqwest-middleware")]
pub use crate::reqwest::PolicyMiddleware;
#[cfg(feature = "reqwest")]
pub use crate::reqwest::{Attempts, DEFAULT_REPLAY_LIMIT, FALLBACK_HEADER, HttpClient, Replaced, RequestBuilder};
