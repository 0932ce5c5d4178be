//! A server that asks who calls, and a command line that tells it.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Child,
    time::timeout,
};

use super::{
    pki::{Ca, Folder, Pair},
    program::{Answer, command, finish, fusebox},
};

/// For a server to say where it listens, on a loaded machine.
const START: Duration = Duration::from_secs(30);

struct Served {
    port: String,
    said: Vec<String>,
    /// What it logs.
    log: tokio::task::JoinHandle<String>,
    process: Child,
}

impl Served {
    async fn start(args: &[&str]) -> Self {
        let mut process = command().args(["serve", "--listen", "127.0.0.1:0"]).args(args).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let find = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                said.push(line.clone());
                if let Some(port) = line.strip_prefix("listening on ").and_then(|url| url.rsplit(':').next()) {
                    return port.to_owned();
                }
            }
            panic!("the server ended: {said:?}");
        };
        let port = timeout(START, find).await.expect("the server does not say where it listens");
        let log = tokio::spawn(async move {
            let mut all = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                all.push_str(&line);
                all.push('\n');
            }
            all
        });
        Self { port, said, log, process }
    }

    /// Ends it; returns everything that it said.
    async fn stop(mut self) -> String {
        self.process.kill().await.unwrap();
        let log = timeout(START, self.log).await.unwrap().unwrap();
        format!("{}\n{log}", self.said.join("\n"))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_token_is_made_offline_and_makes_the_others() {
    let folder = Folder::new();
    let data = folder.path("data");
    let first = ["token", "create", "--data-dir", text(&data), "--role", "admin", "--name", "first"];
    let made = fusebox(&first).await.exits(0).says("token/first (admin) created");
    let admin = made.out.trim().to_owned();
    assert!(admin.starts_with("fbx_"), "the secret alone is on stdout");
    fusebox(&first).await.exits(4).says("choose another name");

    let server = Served::start(&["--data-dir", text(&data), "--auth", "token"]).await;
    assert!(server.said.iter().any(|line| line == "access: by tokens"), "{:?}", server.said);
    let address = format!("http://127.0.0.1:{}", server.port);
    let run = async |token: &str, line: &str| {
        finish(command().args(line.split(' ')).args(["--address", &address]).env("FUSEBOX_TOKEN", token)).await
    };
    let offline = ["token", "create", "--data-dir", text(&data), "--role", "viewer", "--name", "x"];
    fusebox(&offline).await.exits(1).says("another fusebox serves");
    fusebox(&["whoami", "--address", &address]).await.exits(6).says("send a token").says("FUSEBOX_TOKEN");
    run(&admin, "whoami").await.exits(0).prints("first (admin), known by token");

    let made = run(&admin, "token create --name reader --role viewer --for 1h -o json").await.exits(0);
    let reader = made.json()["secret"].as_str().unwrap().to_owned();
    run(&reader, "can-i list policies").await.exits(0).prints("yes");
    run(&reader, "can-i apply policies").await.exits(6).prints("no").says("it needs the role operator");
    run(&reader, "get policies").await.exits(0);
    run(&reader, "delete policy x --yes").await.exits(6).says("reader (viewer) may not call");
    run(&reader, "token list").await.exits(6);
    run(&admin, "token create --name bot --role agent").await.exits(2).says("--service");
    run(&admin, "token create --name Bot! --role admin").await.exits(5).says("token.display_name");

    let list = run(&admin, "token list -o json").await.exits(0);
    let names: Vec<_> = list.json()["items"].as_array().unwrap().iter().map(|one| one["displayName"].clone()).collect();
    assert_eq!(names, ["reader", "first"]);
    run(&admin, "token revoke reader --reason over").await.exits(0).prints("token/reader revoked");
    run(&reader, "get policies").await.exits(6).says("was revoked");
    run(&admin, "token list").await.exits(0).prints("first");
    run(&admin, "token list --all -o wide").await.exits(0).prints("revoked").prints("over");
    run(&admin, "token revoke nobody --reason x").await.exits(3);

    let record = run(&admin, "audit -o json").await.exits(0).prints("token.create").prints("token.revoke");
    // Whatever happened, no secret is in what was said of it.
    let said = [server.stop().await, list.out, record.out].concat();
    for secret in [&admin, &reader] {
        assert!(!said.contains(&secret[17..]), "a secret in the log");
    }
    assert!(said.contains("auth.failed") && said.contains("auth.denied"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_of_one_namespace_is_made_told_and_ended() {
    let folder = Folder::new();
    let data = folder.path("data");
    // Whatever the environment says: this one is for all namespaces.
    let first = ["token", "create", "--data-dir", text(&data), "--role", "admin", "--name", "root", "-A", "-n", "shop"];
    let root = fusebox(&first).await.exits(0).says("token/root (admin) created").out.trim().to_owned();
    let server = Served::start(&["--data-dir", text(&data), "--auth", "token"]).await;
    let address = format!("http://127.0.0.1:{}", server.port);
    let run = async |token: &str, line: &str| {
        finish(command().args(line.split(' ')).args(["--address", &address]).env("FUSEBOX_TOKEN", token)).await
    };
    let mut made = Vec::new();
    for namespace in ["shop", "bank"] {
        let answer = run(&root, &format!("token create --name boss --role admin -n {namespace}")).await.exits(0);
        made.push(answer.says(&format!("token/boss (admin of {namespace}) created")).out.trim().to_owned());
    }
    let [shop, bank] = made.as_slice() else { panic!("{}", made.len()) };
    run(shop, "whoami").await.exits(0).prints("shop/boss (admin of shop), known by token");
    run(shop, "get policies").await.exits(6).says("reaches nothing but the namespace shop").says("with -n");
    run(shop, "get policies -n bank").await.exits(6).says("namespace shop");
    run(shop, "get policies -n shop").await.exits(0);
    run(shop, "get policies -A").await.exits(0);
    run(shop, "can-i backup store").await.exits(6).prints("no").says("for all namespaces");
    run(shop, "audit verify").await.exits(6).says("only the whole log can be checked");
    run(shop, "token create --name x --role viewer").await.exits(6);
    run(shop, "token list").await.exits(0).prints("admin of shop");
    assert_eq!(run(shop, "token list -o json").await.json()["items"].as_array().unwrap().len(), 1);
    run(&root, "token revoke boss --reason over")
        .await
        .exits(2)
        .says("several tokens are called")
        .says("admin of bank");
    run(&root, "token revoke shop/boss --reason over").await.exits(0);
    run(shop, "whoami").await.exits(6).says("was revoked");
    run(bank, "whoami").await.exits(0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_with_certificates_or_a_bootstrap_token() {
    let (ca, folder) = (Ca::new(), Folder::new());
    let write = |name: &str, Pair { certificate, key }: &Pair| {
        (folder.write(&format!("{name}.pem"), certificate), folder.write(&format!("{name}.key"), key))
    };
    let (server_cert, server_key) = write("server", &ca.server());
    let (ops_cert, ops_key) = write("ops", &ca.client("spiffe://example.org/ns/ops/sa/ci"));
    let ca_file = folder.write("ca.pem", &ca.pem());
    let bootstrap = folder.write("bootstrap", "short");
    let args = [
        "--dev",
        "--tls-cert",
        text(&server_cert),
        "--tls-key",
        text(&server_key),
        "--client-ca",
        text(&ca_file),
        "--auth",
        "mtls",
        "--grant",
        "admin=spiffe://example.org/ns/ops/sa/ci",
        "--bootstrap-token-file",
        text(&bootstrap),
    ];
    let refused = fusebox(&[&["serve", "--listen", "127.0.0.1:0"][..], &args].concat()).await.exits(2);
    refused.says("at least 32 visible characters");
    let token = "0123456789abcdef0123456789abcdef";
    folder.write("bootstrap", &format!("{token}\n"));
    let server = Served::start(&args).await;
    let address = format!("https://localhost:{}", server.port);
    let ca_args = ["--ca", text(&ca_file), "--address", &address];
    fusebox(&["whoami", "--address", &address]).await.exits(7).says("--ca");
    fusebox(&[&["whoami"][..], &ca_args].concat()).await.exits(6);
    let shown = ["--cert", text(&ops_cert), "--key", text(&ops_key)];
    let who = fusebox(&[&["whoami"][..], &ca_args, &shown].concat()).await.exits(0);
    who.prints("spiffe://example.org/ns/ops/sa/ci (admin), known by certificate");
    fusebox(&[&["whoami", "--token", token][..], &ca_args].concat()).await.exits(0).prints("bootstrap (admin)");
    let checked = fusebox(&[&["check"][..], &ca_args, &shown].concat()).await;
    checked.prints("client certificate: expires in").prints(" certificate: expires in");
    let said = server.stop().await;
    assert!(said.contains("access: by tokens or client certificates") && !said.contains(token));
}

#[tokio::test]
async fn what_would_be_open_or_readable_is_not_served() {
    let serve = async |args: &[&str]| fusebox(&[&["serve", "--dev", "--listen", "0.0.0.0:0"][..], args].concat()).await;
    serve(&[]).await.exits(2).says("does not ask anybody who they are");
    serve(&["--auth", "token"]).await.exits(2).says("plain text");
    let missing = ["--auth", "token", "--tls-cert", "/nonexistent/c", "--tls-key", "/nonexistent/k"];
    serve(&missing).await.exits(2).says("cannot read /nonexistent/c");
}

#[tokio::test]
async fn a_token_does_not_leave_the_machine_in_plain_text() {
    let args = ["whoami", "--token", "fbx_x", "--address", "http://192.0.2.1:1"];
    fusebox(&args).await.exits(2).says("in plain text").says("--plaintext-token");
}

async fn with_home(home: &Path, args: &[&str]) -> Answer {
    finish(command().args(args).env("XDG_CONFIG_HOME", home).stdin(Stdio::null())).await
}

#[tokio::test]
async fn contexts_are_kept_in_a_file_of_the_user_s_own() {
    let folder = Folder::new();
    let home = folder.path("config");
    let run = async |line: &str| with_home(&home, &line.split(' ').collect::<Vec<_>>()).await;
    run("context list").await.exits(0).says("there are no contexts");
    run("context current").await.exits(3);
    run("context set a --address http://127.0.0.1:1 --token fbx_canary -n shop").await.exits(0);
    run("context set b --address http://127.0.0.1:2").await.exits(0);
    run("context current").await.exits(0).prints("a");
    let list = run("context list").await.exits(0).prints("http://127.0.0.1:2").prints("in the file");
    assert!(!list.out.contains("canary"));
    assert_eq!(run("context list -q").await.exits(0).out, "a\nb\n");
    let json = run("context list -o json").await.exits(0);
    assert!(!json.out.contains("canary"), "{json:?}");
    let json = json.json();
    assert_eq!((&json["items"][0]["current"], &json["items"][0]["token"]), (&true.into(), &true.into()));
    run("whoami").await.exits(7).says("http://127.0.0.1:1");
    run("whoami --context b").await.exits(7).says("http://127.0.0.1:2");
    run("context use b").await.exits(0);
    run("whoami").await.exits(7).says("http://127.0.0.1:2");
    run("context use c").await.exits(3);
    use std::os::unix::fs::PermissionsExt as _;
    let file = home.join("fusebox/config.toml");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    run("context list").await.exits(0).says("chmod 600");
}
