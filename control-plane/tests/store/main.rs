//! The real server, killed in the middle of changes: what it had acknowledged is there when it comes back.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows tests, but not what they call")]

use std::{path::Path, process::Stdio, time::Duration};

use fusebox_proto::v1::{self, policy_service_client::PolicyServiceClient};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};
use tonic::transport::Channel;

/// Nothing here takes long; what takes longer hangs.
const LIMIT: Duration = Duration::from_secs(30);
/// Policies of one change: they must be there all, or none.
const BATCH: usize = 3;

struct Server {
    child: Child,
    client: PolicyServiceClient<Channel>,
    /// Kept open: who writes to a closed pipe dies of it.
    _log: Lines<BufReader<ChildStderr>>,
}

impl Server {
    async fn start(data: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fusebox"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .env("RUST_LOG", "error")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = async {
            loop {
                let line = log.next_line().await.unwrap().expect("the server ended before it listened");
                if let Some(address) = line.strip_prefix("listening on ") {
                    return address.to_owned();
                }
            }
        };
        let address = tokio::time::timeout(LIMIT, address).await.expect("the server does not listen");
        let client = PolicyServiceClient::connect(address).await.unwrap();
        Self { child, client, _log: log }
    }
}

fn policy(place: usize, seconds: i64) -> v1::Policy {
    let duration = Some(prost_types::Duration { seconds, nanos: 0 });
    let kind = v1::strategy::Kind::Timeout(v1::Timeout { duration, ..v1::Timeout::default() });
    v1::Policy {
        name: format!("namespaces/default/policies/p{place}"),
        spec: Some(v1::PolicySpec {
            r#match: Some(v1::Selector { target: format!("t{place}"), ..v1::Selector::default() }),
            pipeline: vec![v1::Strategy { name: String::new(), kind: Some(kind) }],
            ..v1::PolicySpec::default()
        }),
        ..v1::Policy::default()
    }
}

fn seconds(policy: &v1::Policy) -> i64 {
    let strategy = policy.spec.as_ref().unwrap().pipeline.first().unwrap();
    let Some(v1::strategy::Kind::Timeout(timeout)) = &strategy.kind else { panic!("not a timeout: {strategy:?}") };
    timeout.duration.unwrap().seconds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_keeps_every_acknowledged_change() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    let mut tried = 0;
    for round in 0..5 {
        let Server { mut child, mut client, _log } = Server::start(folder.path()).await;
        let kill_at = tried + 5 + round * 3;
        loop {
            tried += 1;
            let policies = (0..BATCH).map(|place| policy(place, tried)).collect();
            let request = v1::ApplyPoliciesRequest { policies, ..v1::ApplyPoliciesRequest::default() };
            let change = client.apply_policies(request);
            if tried < kill_at {
                change.await.unwrap();
                acknowledged = tried;
                continue;
            }
            // The last one is under way when the server dies; whether it counts is open.
            let (answer, ()) = tokio::join!(change, async { child.start_kill().unwrap() });
            if answer.is_ok() {
                acknowledged = tried;
            }
            break;
        }
        tokio::time::timeout(LIMIT, child.wait()).await.unwrap().unwrap();

        let Server { mut child, mut client, _log } = Server::start(folder.path()).await;
        let request =
            v1::ListPoliciesRequest { parent: "namespaces/-".to_owned(), ..v1::ListPoliciesRequest::default() };
        let list = client.list_policies(request).await.unwrap().into_inner();
        let present: Vec<_> = list.policies.iter().map(seconds).collect();
        assert_eq!(present.len(), BATCH);
        assert!(present.iter().all(|own| *own == present[0]), "half a change: {present:?}");
        assert!(present[0] == acknowledged || present[0] == tried, "{present:?}, acknowledged was {acknowledged}");
        assert_eq!(list.revision, u64::try_from(present[0]).unwrap() * BATCH as u64, "no revision is lost or spare");
        // What was open is decided now, one way; it counts as tried no more if it did not happen.
        acknowledged = present[0];
        tried = present[0];
        child.kill().await.unwrap();
    }
}
