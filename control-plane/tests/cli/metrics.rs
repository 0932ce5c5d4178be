//! `serve --metrics-listen`: what is told, what the page says of it, and to whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fusebox_proto::sync::v1::{self as sync, sync_request::Message as Up, sync_service_client::SyncServiceClient};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::Child,
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    pki::{Ca, Folder},
    program::{command, fusebox, manifest},
};

/// Longer than anything here needs, even on a loaded machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A server that is asked what it counts; killed when dropped.
struct Counted {
    address: String,
    metrics: String,
    _process: Child,
}

impl Counted {
    async fn start(options: &[&str]) -> Self {
        let args = ["serve", "--dev", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
        let mut process = command().args(args).args(options).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let (mut address, mut metrics) = (None, None);
        let find = async {
            while address.is_none() || metrics.is_none() {
                let line = lines.next_line().await.unwrap().expect("the server ended");
                if let Some(rest) = line.strip_prefix("listening on ") {
                    address = Some(rest.to_owned());
                }
                if let Some(rest) = line.strip_prefix("metrics on http://") {
                    metrics = rest.strip_suffix("/metrics").map(str::to_owned);
                }
            }
        };
        timeout(LIMIT, find).await.expect("the server does not say where it listens");
        // A full pipe would stop the server.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { address: address.unwrap(), metrics: metrics.unwrap(), _process: process }
    }

    /// What a path answers, with its head.
    async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.metrics).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(LIMIT, stream.read_to_string(&mut answer)).await.expect("an answer in time").unwrap();
        answer
    }

    /// The metrics, as soon as they are as wanted.
    async fn until(&self, wanted: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let found = timeout(LIMIT, async {
            loop {
                last = self.get("/metrics").await;
                if wanted(&last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let found = found.await;
        assert!(found.is_ok(), "it never was as wanted: {last}");
        last
    }
}

fn has(text: &str, line: &str) -> bool {
    text.lines().any(|own| own == line)
}

/// Name, type and labels of each metric of the page.
fn page() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows = include_str!("../../docs/metrics.md").lines().filter(|line| line.starts_with("| `"));
    let metric = |line| {
        let cells = cells(line);
        let labels = cells[4].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (cells[1].trim_matches('`').to_owned(), (cells[2].clone(), labels))
    };
    rows.map(metric).collect()
}

/// The same of what a server tells.
fn told(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut found: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    let mut present = String::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            name.clone_into(&mut present);
            found.insert(present.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if let (Some((_, labels)), Some((_, known))) = (line.split_once('{'), found.get_mut(&present)) {
            let labels = labels.split_once('}').unwrap().0.split(',').filter_map(|label| label.split_once('='));
            known.extend(labels.map(|(key, _)| key.to_owned()).filter(|key| key != "le"));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_tells_every_metric_and_its_labels() {
    let (ca, folder) = (Ca::new(), Folder::new());
    let server = ca.server();
    let path = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    let (certificate, key) = (folder.write("s.pem", &server.certificate), folder.write("s.key", &server.key));
    let (certificate, key, backups) = (path(certificate), path(key), path(folder.path("backups")));
    let options = ["--tls-cert", &certificate, "--tls-key", &key, "--backup-dir", &backups];
    let server = Counted::start(&options).await;
    let known = page();
    assert!(known.len() > 20, "{}: the tables are not where they were", known.len());
    let whole = |text: &str| text.contains("store_findings 0") && told(text).len() >= known.len();
    let text = server.until(whole).await;
    assert_eq!(told(&text), known);
    assert!(text.contains("content-type: text/plain; version=0.0.4"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_and_policies_are_counted() {
    let server = Counted::start(&[]).await;
    assert!(server.get("/healthz").await.ends_with("ok\n"));
    let ready = timeout(LIMIT, async {
        while !server.get("/readyz").await.ends_with("\r\n\r\nok\n") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    ready.await.expect("it never was ready");
    assert!(server.get("/elsewhere").await.starts_with("HTTP/1.1 404"));
    let begun = server.get("/metrics").await;
    assert!(has(&begun, "fusebox_control_sessions_begun_total 0"), "{begun}");
    assert!(has(&begun, r#"fusebox_control_fleet_held_total{guard="blast_radius"} 0"#), "{begun}");

    let folder = Folder::new();
    let file = folder.write("b.yaml", &manifest("b", "b", "1s"));
    let args = ["apply", "-f", file.to_str().unwrap(), "--address", &server.address];
    fusebox(&args).await.exits(0);
    let (up, messages) = mpsc::channel(4);
    let hello = sync::Hello {
        protocol: 1,
        namespace: "default".to_owned(),
        service: "service-a".to_owned(),
        instance: "a-1".to_owned(),
        incarnation: 1,
        ..sync::Hello::default()
    };
    up.send(sync::SyncRequest { message: Some(Up::Hello(hello)) }).await.unwrap();
    let mut client = SyncServiceClient::connect(server.address.clone()).await.unwrap();
    let mut down = client.sync(ReceiverStream::new(messages)).await.unwrap().into_inner();
    down.message().await.unwrap().unwrap();
    up.send(sync::SyncRequest { message: Some(Up::Ack(sync::Ack { revision: 1, rejected: vec![] })) }).await.unwrap();
    let joined = server.until(|text| has(text, r#"fusebox_control_instances{state="current"} 1"#)).await;
    for line in [
        "fusebox_control_sessions_begun_total 1",
        r#"fusebox_control_messages_total{direction="in",kind="ack"} 1"#,
        r#"fusebox_control_messages_total{direction="out",kind="welcome"} 1"#,
        "fusebox_control_policies 1",
        "fusebox_control_revision 1",
    ] {
        assert!(has(&joined, line), "{line} is missing: {joined}");
    }
    assert!(!joined.contains("service-a") && !joined.contains("a-1"), "a name is a label: {joined}");
    drop((up, down));
    server.until(|text| has(text, r#"fusebox_control_sessions_ended_total{reason="gone"} 1"#)).await;

    // Whoever is no replica is turned away, and that is counted by its reason.
    let (up, messages) = mpsc::channel(4);
    up.send(sync::SyncRequest { message: Some(Up::Hello(sync::Hello::default())) }).await.unwrap();
    let refused = client.sync(ReceiverStream::new(messages)).await;
    let refusal = match refused {
        Ok(stream) => stream.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    };
    assert!(!refusal.message().is_empty());
    server.until(|text| text.lines().any(|line| line.contains("_refused_total{") && line.ends_with(" 1"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_this_machine_unless_insisted_on() {
    let line = ["serve", "--dev", "--listen", "127.0.0.1:0", "--metrics-listen", "0.0.0.0:0"];
    fusebox(&line).await.exits(2).says("--metrics-listen 0.0.0.0:0 can be reached by others").says("--insecure");
}
