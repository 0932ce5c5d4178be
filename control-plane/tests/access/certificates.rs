//! Certificates of both ends.

use std::time::{Duration, SystemTime};

use fusebox_proto::v1::{ListPoliciesRequest, Role};
use rustls::pki_types::pem::PemObject as _;
use tonic::Code;

use crate::{
    pki::{Ca, Leaf, Pair},
    server::{Caller, LIMIT, Server, Told, reason},
};

const GRANTS: &[&str] = &[
    "admin=spiffe://example.org/ns/ops/sa/ci",
    "agent=spiffe://example.org/ns/{namespace}/sa/{service}",
    "viewer=dns:dashboard.example.org",
];

async fn who(server: &Server, pair: Option<&Pair>) -> Result<fusebox_proto::v1::Principal, tonic::Status> {
    Caller::new(server.channel(pair).await.unwrap(), None).who().await
}

#[tokio::test]
async fn a_certificate_s_name_is_its_owner_s_and_decides_the_role() {
    let server = Server::with_certificates(GRANTS).await;
    let found = who(&server, Some(&server.ca.client("spiffe://example.org/ns/ops/sa/ci"))).await.unwrap();
    assert_eq!((found.role(), found.method.as_str()), (Role::Admin, "certificate"));
    assert_eq!(found.name, "spiffe://example.org/ns/ops/sa/ci");
    let found = who(&server, Some(&server.ca.client("spiffe://example.org/ns/shop/sa/cart"))).await.unwrap();
    assert_eq!((found.role(), found.namespace.as_str(), found.service.as_str()), (Role::Agent, "shop", "cart"));
    let pair = server.ca.sign(Leaf { dns: vec!["dashboard.example.org".to_owned()], ..Leaf::default() });
    assert_eq!(who(&server, Some(&pair)).await.unwrap().role(), Role::Viewer);
    server.stop().await;
}

#[tokio::test]
async fn a_certificate_s_name_or_its_grant_binds_the_role_to_a_namespace() {
    let grants = ["operator=spiffe://example.org/ns/{namespace}/sa/deployer", "viewer@shop=dns:dashboard.example.org"];
    let server = Server::with_certificates(&grants).await;
    let deployer = server.ca.client("spiffe://example.org/ns/bank/sa/deployer");
    let dashboard = server.ca.sign(Leaf { dns: vec!["dashboard.example.org".to_owned()], ..Leaf::default() });
    for (pair, role, own, other) in
        [(&deployer, Role::Operator, "bank", "shop"), (&dashboard, Role::Viewer, "shop", "bank")]
    {
        let found = who(&server, Some(pair)).await.unwrap();
        assert_eq!((found.role(), found.namespace.as_str()), (role, own));
        let mut caller = Caller::new(server.channel(Some(pair)).await.unwrap(), None);
        let list =
            |namespace: &str| ListPoliciesRequest { parent: format!("namespaces/{namespace}"), ..Default::default() };
        caller.policies.list_policies(list(own)).await.unwrap();
        let refused = caller.policies.list_policies(list(other)).await;
        assert_eq!(reason(refused), (Code::PermissionDenied, "OTHER_NAMESPACE".to_owned()));
    }
    server.stop().await;
}

#[tokio::test]
async fn names_that_are_not_granted_and_common_names_are_nobody_s() {
    let server = Server::with_certificates(GRANTS).await;
    for name in ["spiffe://other.org/ns/ops/sa/ci", "spiffe://example.org/ns/ops/sa/ci/more"] {
        let refused = who(&server, Some(&server.ca.client(name))).await;
        assert_eq!(reason(refused), (Code::Unauthenticated, "ROLE_NOT_GRANTED".to_owned()), "{name}");
    }
    let common_name = Some("spiffe://example.org/ns/ops/sa/ci".to_owned());
    let pair = server.ca.sign(Leaf { common_name, ..Leaf::default() });
    assert_eq!(reason(who(&server, Some(&pair)).await), (Code::Unauthenticated, "CERTIFICATE_UNUSABLE".to_owned()));
    let uris = vec!["spiffe://example.org/ns/ops/sa/ci".to_owned(), "spiffe://example.org/ns/a/sa/b".to_owned()];
    let pair = server.ca.sign(Leaf { uris, ..Leaf::default() });
    assert_eq!(reason(who(&server, Some(&pair)).await), (Code::Unauthenticated, "CERTIFICATE_UNUSABLE".to_owned()));
    assert_eq!(reason(who(&server, None).await), (Code::Unauthenticated, "CREDENTIALS_MISSING".to_owned()));
    server.stop().await;
}

/// In TLS 1.3 a client learns that it was turned away from its first request.
async fn is_turned_away(server: &Server, pair: Option<&Pair>) -> bool {
    match server.channel(pair).await {
        Err(_) => true,
        // No status of this server: the connection did not last.
        Ok(channel) => {
            let answer = Caller::new(channel, None).who().await;
            let status = answer.expect_err("it must not get through");
            tonic_types::StatusExt::get_error_details(&status).error_info().is_none()
        }
    }
}

#[tokio::test]
async fn certificates_of_others_and_of_other_times_end_in_the_handshake() {
    let server = Server::with_certificates(GRANTS).await;
    let uri = || vec!["spiffe://example.org/ns/ops/sa/ci".to_owned()];
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    let stranger = Ca::new().client("spiffe://example.org/ns/ops/sa/ci");
    let expired = server.ca.sign(Leaf { uris: uri(), from: now - 2 * hour, until: now - hour, ..Leaf::default() });
    let early = server.ca.sign(Leaf { uris: uri(), from: now + hour, until: now + 2 * hour, ..Leaf::default() });
    for (what, pair) in [("wrong CA", &stranger), ("expired", &expired), ("not yet valid", &early)] {
        assert!(is_turned_away(&server, Some(pair)).await, "{what}");
    }
    server.stop().await;
}

#[tokio::test]
async fn where_certificates_are_required_nobody_comes_without() {
    let told = Told { tls: true, client_required: true, grants: GRANTS.to_vec(), ..Told::default() };
    let server = Server::start(told).await;
    assert!(is_turned_away(&server, None).await);
    who(&server, Some(&server.ca.client("spiffe://example.org/ns/ops/sa/ci"))).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_token_counts_before_a_certificate_and_a_bad_one_is_not_forgiven() {
    let server = Server::with_certificates(GRANTS).await;
    let (_, secret) = server.token("reader", Role::Viewer, None).await;
    let pair = server.ca.client("spiffe://example.org/ns/ops/sa/ci");
    let channel = server.channel(Some(&pair)).await.unwrap();
    assert_eq!(Caller::new(channel.clone(), Some(&secret)).who().await.unwrap().role(), Role::Viewer);
    let refused = Caller::new(channel, Some("fbx_wrong")).who().await;
    assert_eq!(reason(refused), (Code::Unauthenticated, "TOKEN_UNKNOWN".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn clients_do_not_speak_to_a_server_that_they_can_not_trust() {
    let server = Server::with_certificates(GRANTS).await;
    assert!(server.channel_trusting(&Ca::new().pem(), None).await.is_err());
    // The same key pair under another name.
    let Pair { certificate, key } = server.ca.sign(Leaf { dns: vec!["elsewhere".to_owned()], ..Leaf::default() });
    server.folder.write("server.key", &key);
    server.folder.write("server.pem", &certificate);
    let refused = async { while server.channel(None).await.is_ok() {} };
    tokio::time::timeout(LIMIT, refused).await.expect("the wrong name is noticed");
    server.stop().await;
}

#[tokio::test]
async fn a_new_certificate_is_taken_up_and_open_streams_go_on() {
    let server = Server::with_certificates(GRANTS).await;
    let pair = server.ca.client("spiffe://example.org/ns/shop/sa/cart");
    let mut agent = Caller::new(server.channel(Some(&pair)).await.unwrap(), None);
    let request =
        fusebox_proto::sync::v1::FetchSnapshotRequest { namespace: "shop".to_owned(), service: "cart".to_owned() };
    agent.sync.fetch_snapshot(request.clone()).await.unwrap();

    // What can't be used changes nothing. Files are looked at every second: only after that has passed has garbage been seen and refused.
    server.folder.write("server.pem", "garbage");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    server.channel(None).await.expect("the old certificate stays");

    let next = Ca::new();
    let Pair { certificate, key } = next.server();
    server.folder.write("server.key", &key);
    server.folder.write("server.pem", &certificate);
    let renewed = async { while server.channel_trusting(&next.pem(), None).await.is_err() {} };
    tokio::time::timeout(LIMIT, renewed).await.expect("the new certificate is served");
    agent.sync.fetch_snapshot(request).await.expect("the open connection goes on");
    server.stop().await;
}

#[tokio::test]
async fn another_client_ca_is_taken_up() {
    let server = Server::with_certificates(GRANTS).await;
    let next = Ca::new();
    let pair = next.client("spiffe://example.org/ns/ops/sa/ci");
    assert!(is_turned_away(&server, Some(&pair)).await);
    // Both, as in a change of CA.
    server.folder.write("ca.pem", &format!("{}{}", server.ca.pem(), next.pem()));
    let taken = async {
        loop {
            if let Ok(channel) = server.channel(Some(&pair)).await
                && Caller::new(channel, None).who().await.is_ok()
            {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, taken).await.expect("the new CA counts");
    who(&server, Some(&server.ca.client("spiffe://example.org/ns/ops/sa/ci"))).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn older_versions_of_tls_are_not_spoken() {
    let server = Server::with_certificates(GRANTS).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(server.ca.pem().as_bytes()).unwrap()).unwrap();
    let shake = async |versions: &[&'static rustls::SupportedProtocolVersion]| {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let config = builder.with_root_certificates(roots.clone()).with_no_client_auth();
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        tokio::time::timeout(LIMIT, connector.connect("localhost".try_into().unwrap(), stream)).await.unwrap().is_ok()
    };
    assert!(shake(&[&rustls::version::TLS13]).await);
    assert!(!shake(&[&rustls::version::TLS12]).await);
    server.stop().await;
}

#[tokio::test]
async fn a_name_that_could_break_a_line_is_nobody_s() {
    let server = Server::with_certificates(&["agent=spiffe://x/{service}"]).await;
    for name in ["spiffe://x/a\nb", "spiffe://x/a\u{1b}[2J"] {
        let refused = who(&server, Some(&server.ca.client(name))).await;
        assert_eq!(reason(refused), (Code::Unauthenticated, "CERTIFICATE_UNUSABLE".to_owned()), "{name:?}");
    }
    server.stop().await;
}
