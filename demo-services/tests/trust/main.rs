//! The SDK and a control plane that asks everybody who they are: a real server process, over TLS, by certificates and by tokens.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows tests, but not what they call")]

mod authority;
#[path = "../process/mod.rs"]
mod process;
mod told;
mod world;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use authority::{Authority, replace};
use fusebox::{Client, FleetStateShown, PolicySource, Tls};
use told::Told;
use world::{Method, World, until};

const SERVICE_A: &str = "spiffe://example.org/ns/default/sa/service-a";

/// Calls a target that fails, until the breaker of this replica has opened.
async fn trip(client: &Client) {
    let target = client.target("service-b");
    until("its breaker trips", || {
        let target = target.clone();
        async move {
            let failed = target.call(|| async { Err::<(), _>(io::Error::other("down")) }).await;
            matches!(failed, Err(fusebox::CallError::Rejected(_)))
        }
    })
    .await;
}

async fn opens_as_one_fleet(world: &World, credentials: impl Fn(fusebox::ClientBuilder) -> fusebox::ClientBuilder) {
    let replica = |name: &str| credentials(world.replica("service-a", name)).start().unwrap();
    let replicas = ["a-1", "a-2", "a-3"].map(replica);
    for replica in &replicas {
        assert!(replica.wait_ready(world::LIMIT).await, "it is let in");
    }
    world.apply();
    for replica in &replicas {
        until("the policy lands", || async { !replica.status().policies.is_empty() }).await;
    }
    // Two see service B fail; the third, which has no traffic, is protected as well.
    trip(&replicas[0]).await;
    trip(&replicas[1]).await;
    until("the fleet opens", || async {
        replicas.iter().all(|replica| replica.status().breakers[0].fleet == FleetStateShown::Open)
    })
    .await;
    let instances = world.fusebox(&["get", "instances", "--no-headers"]);
    assert_eq!(instances.lines().count(), 3, "{instances}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_known_by_their_tokens_open_as_one_fleet_over_tls() {
    let world = World::start(Method::Tokens);
    let token = world.agent_token("service-a");
    let tls = || Tls::new().ca_file(world.ca());
    opens_as_one_fleet(&world, |builder| builder.tls(tls()).token(&token)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_known_by_their_certificates_open_as_one_fleet_and_renew_them_while_streams_run() {
    let told = Told::listen();
    let mut world = World::start(Method::Certificates);
    let own = world.authority.client(world.folder(), "service-a", SERVICE_A);
    let tls = || Tls::new().ca_file(world.ca()).identity_files(&own.certificate, &own.key);
    opens_as_one_fleet(&world, |builder| builder.tls(tls())).await;

    // The name in the certificate says who it is: it may be no other service, and a stranger's certificate is nobody's.
    let other = world.replica("service-x", "x-1").tls(tls()).start().unwrap();
    until("it is told so", || async { told.has(&["refuses this process", "PermissionDenied"]) }).await;
    let stranger = Authority::new("a stranger");
    let foreign = stranger.client(world.folder(), "foreign", SERVICE_A);
    let foreign_tls = Tls::new().ca_file(world.ca()).identity_files(&foreign.certificate, &foreign.key);
    let unknown = world.replica("service-a", "a-8").tls(foreign_tls).start().unwrap();
    until("the server's refusal is told", || async { told.has(&["no secure connection", "UnknownCA"]) }).await;
    // Nor is a server trusted that another CA has signed.
    let elsewhere = world.folder().join("elsewhere.pem");
    replace(&elsewhere, &stranger.pem());
    let wary_tls = Tls::new().ca_file(&elsewhere).identity_files(&own.certificate, &own.key);
    let wary = world.replica("service-a", "a-9").tls(wary_tls).start().unwrap();
    until("the own refusal is told", || async { told.has(&["no secure connection", "UnknownIssuer"]) }).await;
    for client in [&other, &unknown, &wary] {
        assert!(!client.status().connected);
    }
    drop((other, unknown, wary));

    // A new CA and new certificates on both sides, while the stream of a replica runs that is looked at all the time.
    let replica = world.replica("service-a", "a-4").tls(tls()).start().unwrap();
    until("its policy lands", || async { !replica.status().policies.is_empty() }).await;
    let (over, cut, unprotected) =
        (Arc::new(AtomicBool::new(false)), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let looks = tokio::spawn({
        let (replica, over, cut, unprotected) =
            (replica.clone(), Arc::clone(&over), Arc::clone(&cut), Arc::clone(&unprotected));
        async move {
            while !over.load(Ordering::Relaxed) {
                let status = replica.status();
                cut.fetch_add(u64::from(!status.connected), Ordering::Relaxed);
                unprotected.fetch_add(u64::from(status.policies.len() != 1), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    let next = Authority::new("the next authority");
    replace(&world.ca(), &format!("{}{}", world.authority.pem(), next.pem()));
    next.client(world.folder(), "service-a", SERVICE_A);
    next.client(world.folder(), "operator", world::OPERATOR);
    next.server(world.folder());
    let only_next = world.folder().join("next.pem");
    replace(&only_next, &next.pem());
    until("the new certificate is served, and the new CA counts", || async { world.trusts(&only_next) }).await;
    world.fusebox(&["apply", "-f", &world.policy("delay: 3s")]);
    until("a change reaches the stream that has run all the time", || async { replica.status().revision.0 == 2 }).await;
    assert_eq!(cut.load(Ordering::Relaxed), 0, "the stream ran on");

    // Whoever connects from now on shows the new certificate, and needs no other CA than the new one.
    replace(&world.ca(), &next.pem());
    world.restart();
    until("it has connected again, as what its new certificate says", || async {
        world.fusebox(&["get", "instances", "--no-headers"]).contains("a-4")
    })
    .await;
    until("it is current", || async { replica.status().connected }).await;
    over.store(true, Ordering::Relaxed);
    looks.await.unwrap();
    assert_eq!(unprotected.load(Ordering::Relaxed), 0, "there was no gap in its protection");
    assert_eq!(replica.status().source, PolicySource::Stream);
    assert!(!told.text().contains("BEGIN"), "no key is ever told");
}
