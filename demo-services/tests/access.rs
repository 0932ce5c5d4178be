//! A service that is let in, and one that no longer is.

use std::{io, sync::Arc, time::Duration};

use fusebox::{Client, PolicySource};
use fusebox_control_plane::{
    access::{self, Bootstrap},
    serve::{Settings, serve_with},
    shutdown::Shutdown,
    store::memory::MemoryStore,
    tls::accept::{Room, incoming},
};
use fusebox_proto::{
    manifest,
    v1::{self, admin_service_client::AdminServiceClient, policy_service_client::PolicyServiceClient},
};
use tokio::{net::TcpListener, time::timeout};
use tonic::{Request, metadata::AsciiMetadataValue, transport::Channel};

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);
const BOOTSTRAP: &str = "0123456789abcdef0123456789abcdef";

const POLICY: &str = "apiVersion: fusebox/v1\nkind: Policy\nmetadata: { name: service-b }\nspec:\n  match: { target: service-b }\n  \
                      pipeline: [{ timeout: 5s }]\n";

fn admin<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let bearer: AsciiMetadataValue = format!("Bearer {BOOTSTRAP}").parse().expect("it is plain text");
    request.metadata_mut().insert("authorization", bearer);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_token_is_revoked_is_cut_off_and_stays_protected() -> Result<(), Box<dyn std::error::Error>> {
    let shutdown = Shutdown::new();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let bootstrap = Bootstrap::default();
    bootstrap.set(Some(BOOTSTRAP));
    let access = access::Settings { tokens: true, bootstrap: Some(bootstrap), ..access::Settings::default() };
    let connections = incoming(listener, None, Room::default(), shutdown.clone());
    let settings = Settings { access, ..Settings::default() };
    let server =
        tokio::spawn(serve_with(connections, Arc::new(MemoryStore::new("memory")), settings, shutdown.clone()));
    let channel = Channel::from_shared(address.clone())?.connect().await?;
    let policy = v1::Policy::from(&manifest::parse("test", POLICY)?.remove(0).policy);
    let apply = v1::ApplyPoliciesRequest { policies: vec![policy], ..Default::default() };
    PolicyServiceClient::new(channel.clone()).apply_policies(admin(apply)).await?;
    let token = v1::Token {
        display_name: "service-a".to_owned(),
        role: v1::Role::Agent.into(),
        namespace: "default".to_owned(),
        service: "service-a".to_owned(),
        ..Default::default()
    };
    let mut admins = AdminServiceClient::new(channel);
    let create = v1::CreateTokenRequest { token: Some(token), ..Default::default() };
    let v1::CreateTokenResponse { token, secret } = admins.create_token(admin(create)).await?.into_inner();

    let client = Client::builder("service-a").control_plane(&address).token(&secret).start()?;
    assert!(client.wait_ready(LIMIT).await, "the service is let in");
    let other = Client::builder("service-x").control_plane(&address).token(&secret).start()?;
    assert!(!other.wait_ready(Duration::from_secs(1)).await, "another service is not, with the same token");

    let name = token.map(|token| token.name).unwrap_or_default();
    admins
        .revoke_token(admin(v1::RevokeTokenRequest { name, reason: "lost".to_owned(), ..Default::default() }))
        .await?;
    let cut = async {
        while client.status().connected {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, cut).await?;
    let status = client.status();
    assert_eq!((status.source, status.policies.len()), (PolicySource::Stream, 1), "what it knows stays in force");
    client.target("service-b").call(|| async { Ok::<_, io::Error>(()) }).await?;
    shutdown.begin();
    timeout(LIMIT, server).await???;
    Ok(())
}
