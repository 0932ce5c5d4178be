//! gRPC calls through a tonic channel under a policy: unary and streaming, codes, methods that may run twice, a policy for one
//! method. In one terminal, then in another:
//!
//! ```sh
//! cargo run --bin fusebox -- serve --dev
//! cargo run --bin fusebox -- apply -f client-sdk/examples/policies/tonic.yaml
//! cargo run -p fusebox --example tonic
//! ```
//!
//! It prints which policies run and from where (`stream` is the control plane; without one it says `builtin`), a unary call and a
//! stream that were tried again, a call whose attempts were used up, and the refusal by the open breaker.
//!
//! If your control plane is elsewhere than at `http://127.0.0.1:7443`, say so to `apply` by `FUSEBOX_ADDRESS` and to the example by
//! `FUSEBOX_CONTROL_PLANE`.
#![expect(clippy::print_stdout, reason = "an example tells its reader what happens")]

use std::{
    env,
    error::Error as _,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use fusebox::{CallError, Client};
use tonic::{
    Status,
    service::interceptor::InterceptedService,
    transport::{Endpoint, Server, server::TcpIncoming},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// What runs until the control plane says something else: the manifest that operators apply, built in.
const POLICIES: &str = include_str!("policies/tonic.yaml");

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = env::var("FUSEBOX_CONTROL_PLANE").unwrap_or_else(|_| "http://127.0.0.1:7443".to_owned());
    let client = Client::builder("service-a").builtin_manifest(POLICIES).control_plane(address).start()?;
    // A service need not wait: until the stream is there its calls run under the built-in policies.
    client.wait_ready(Duration::from_secs(5)).await;
    for policy in client.status().policies {
        println!("policy {}: {}, revision {}", policy.name, policy.source, policy.revision);
    }
    let (url, failures) = serve().await?;

    // A generated client takes it as it takes a channel. Only the service knows that its methods may run twice.
    let channel = Endpoint::from_shared(url)?.connect_lazy();
    let mut inventory = HealthClient::new(client.target("inventory").idempotent(true).tonic(channel));
    let question = HealthCheckRequest::default();

    failures.store(2, Ordering::Relaxed);
    let answer = inventory.check(question.clone()).await?.into_inner();
    println!("unary: {:?}, at the third attempt", answer.status());

    // A stream is tried again until its first message; what comes after that never runs twice.
    failures.store(1, Ordering::Relaxed);
    let mut stream = inventory.watch(question.clone()).await?.into_inner();
    let first = stream.message().await?.map(|message| message.status());
    println!("stream: {first:?}, at the second attempt");

    // The caller gets the last status itself.
    failures.store(u32::MAX, Ordering::Relaxed);
    match inventory.check(question.clone()).await {
        Err(status) => println!("exhausted: {:?}, {}", status.code(), status.message()),
        Ok(answer) => println!("not expected: {answer:?}"),
    }

    // The third failure in a row has opened the breaker. A strategy's refusal is a status too; its source tells the rest.
    match inventory.check(question).await {
        Err(status) => {
            let error = status.source().and_then(|source| source.downcast_ref::<CallError<Status>>());
            let refused = error.is_some_and(CallError::is_rejection);
            println!("breaker: {:?}, {}, is_rejection() is {refused}", status.code(), status.message());
        }
        Ok(answer) => println!("not expected: {answer:?}"),
    }
    Ok(())
}

/// A gRPC service that everybody has, tonic's own health service, behind a gate that refuses so many calls as it is told.
async fn serve() -> Result<(String, Arc<AtomicU32>), Box<dyn std::error::Error>> {
    let failures = Arc::new(AtomicU32::new(0));
    let left = Arc::clone(&failures);
    let (_, health) = tonic_health::server::health_reporter();
    let gate = InterceptedService::new(health, move |request| {
        match left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => Err(Status::unavailable("restarting")),
            Err(_) => Ok(request),
        }
    });
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    let url = format!("http://{}", incoming.local_addr()?);
    tokio::spawn(Server::builder().add_service(gate).serve_with_incoming(incoming));
    Ok((url, failures))
}
