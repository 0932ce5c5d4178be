//! Policies in a service's own tests: no server, time in the test's hands, everything that happens on record.

use std::{ops::Deref, sync::Arc, time::Duration};

use fusebox_policy::{
    PolicyName, StrategyName, TargetName, Timestamp, breaker::Transition, pipeline::Event, set::PolicySet,
};
use parking_lot::Mutex;

use crate::{
    client::{Client, ClientBuilder},
    error::SetupError,
    registry::{Held, Origin},
};

/// Something that happened, and when.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Since the client was made, on tokio's clock.
    pub at: Duration,
    /// The called service.
    pub target: TargetName,
    /// The policy.
    pub policy: PolicyName,
    /// The element of its pipeline.
    pub strategy: StrategyName,
    /// What.
    pub what: Happened,
}

/// What happened. The types of what is inside are those of [`policy::pipeline`](fusebox_policy::pipeline) and
/// [`policy::breaker`](fusebox_policy::breaker).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// In a call.
    Call(Event),
    /// To a circuit breaker.
    Transition(Transition),
}

/// Keeps what happens, up to a bound.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Vec<Recorded>>);

impl Recorder {
    /// A test that makes more than this happens to look at something else.
    const MOST: usize = 100_000;

    pub(crate) fn record(
        &self,
        now: Timestamp,
        (target, policy, strategy): (&TargetName, &PolicyName, &StrategyName),
        what: Happened,
    ) {
        let mut all = self.0.lock();
        if all.len() < Self::MOST {
            let (target, policy, strategy) = (target.clone(), policy.clone(), strategy.clone());
            all.push(Recorded { at: now.since_origin(), target, policy, strategy, what });
        }
    }
}

/// A client for tests; everything that a [`Client`] can do, it can.
///
/// Time is tokio's: in a test with `#[tokio::test(start_paused = true)]` waits end at once and [`TestClient::advance`] lets time
/// pass, also for the delays of circuit breakers.
#[derive(Clone, Debug)]
pub struct TestClient {
    client: Client,
    recorder: Arc<Recorder>,
}

impl Deref for TestClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Client {
    /// A client that runs the policies of a manifest (YAML or JSON, one or more documents) without a server. It calls for the service
    /// that the first policy names as its caller, or `test`. Chaos is allowed. For other settings:
    /// [`ClientBuilder::for_test`].
    ///
    /// # Errors
    /// What is wrong with the manifest, with line, column and path; a call outside of a tokio runtime.
    pub fn for_test(manifest: &str) -> Result<TestClient, SetupError> {
        let caller = read(manifest)?.iter().find_map(|policy| policy.definition.selector.caller().cloned());
        let caller = caller.map_or_else(|| "test".to_owned(), |caller| caller.to_string());
        Self::builder(caller).instance("test-1").allow_chaos(true).for_test(manifest)
    }
}

impl ClientBuilder {
    /// As [`Client::for_test`], with these settings.
    ///
    /// # Errors
    /// What is wrong with the manifest or the settings; a call outside of a tokio runtime.
    pub fn for_test(self, manifest: &str) -> Result<TestClient, SetupError> {
        let policies = read(manifest)?;
        let recorder = Arc::new(Recorder::default());
        let client = self.recorder(Arc::clone(&recorder)).start()?;
        let test = TestClient { client, recorder };
        test.hold(policies);
        Ok(test)
    }
}

fn read(manifest: &str) -> Result<PolicySet, SetupError> {
    let documents = fusebox_proto::manifest::parse("manifest", manifest)
        .map_err(|error| SetupError::BuiltinPolicy(Box::new(error)))?;
    crate::client::builtin_set(documents.into_iter().map(|document| document.policy).collect(), true)
}

impl TestClient {
    /// Replaces all policies, as the control plane would: calls that run finish on the old ones, breakers keep their state.
    ///
    /// # Errors
    /// What is wrong with the manifest, with line, column and path; nothing has changed then.
    pub fn apply(&self, manifest: &str) -> Result<(), SetupError> {
        self.hold(read(manifest)?);
        Ok(())
    }

    fn hold(&self, policies: PolicySet) {
        let registry = &self.client.inner().registry;
        let revision = fusebox_policy::Revision(registry.held().revision.0 + 1);
        let held =
            Held { origin: Some(Origin::Stream), store_id: String::new(), revision, policies, rejected: Vec::new() };
        registry.hold(held);
    }

    /// Everything that has happened so far, in order.
    #[must_use]
    pub fn events(&self) -> Vec<Recorded> {
        self.recorder.0.lock().clone()
    }

    /// Lets time pass. Only in a runtime whose time is paused.
    ///
    /// # Panics
    /// If time is not paused, as [`tokio::time::advance`].
    pub async fn advance(&self, span: Duration) {
        tokio::time::advance(span).await;
        self.client.inner().registry.tick();
    }
}
