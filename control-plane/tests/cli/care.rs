//! What fate does to a database and its copies: processes that are killed, pages that turn bad, a newer program.

use std::{
    collections::BTreeMap,
    fs,
    io::{Seek as _, SeekFrom, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
};

use fusebox_proto::{
    manifest as text,
    v1::{self, policy_service_client::PolicyServiceClient},
};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tokio::time::timeout;

use super::{
    kept::{Kept, LIMIT},
    program::{command, fusebox, manifest},
};

const WRITERS: usize = 50;

fn policies(text: &str) -> Vec<v1::Policy> {
    text::parse("test", text).unwrap().iter().map(|document| v1::Policy::from(&document.policy)).collect()
}

/// Change after change of one policy, each a millisecond longer than the one before, until the server is gone.
async fn write(address: String, writer: usize, acknowledged: Arc<Mutex<BTreeMap<usize, u64>>>) {
    let mut client = PolicyServiceClient::connect(address).await.unwrap();
    for number in 1_u64.. {
        let policies = policies(&manifest(&format!("w-{writer}"), &format!("w-{writer}"), &format!("{number}ms")));
        let request = v1::ApplyPoliciesRequest { policies, ..Default::default() };
        if client.apply_policies(request).await.is_err() {
            return;
        }
        acknowledged.lock().unwrap().insert(writer, number);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_while_fifty_write_holds_all_that_was_acknowledged_before_it_and_nothing_else() {
    let server = Kept::start_with(&["--writes-per-second", "100000"]).await;
    let acknowledged = Arc::<Mutex<BTreeMap<usize, u64>>>::default();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(server.address().to_owned(), writer, Arc::clone(&acknowledged))))
        .collect();
    let all_write = async {
        while acknowledged.lock().unwrap().values().filter(|number| **number > 1).count() < WRITERS {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, all_write).await.expect("everybody writes");
    let before = acknowledged.lock().unwrap().clone();
    let file = server.path("busy.db");
    server.run(&format!("backup {file}")).await.exits(0);
    let after = acknowledged.lock().unwrap().clone();
    writers.iter().for_each(tokio::task::JoinHandle::abort);
    assert!(after.values().sum::<u64>() > before.values().sum::<u64>(), "writes went on meanwhile");
    let folder = server.stop().await;
    fs::remove_dir_all(folder.path().join("data")).unwrap();
    let data = folder.path().join("data").display().to_string();
    fusebox(&["restore", &file, "--data-dir", &data]).await.exits(0);
    let server = Kept::start_in(folder).await;
    let mut client = PolicyServiceClient::connect(server.address().to_owned()).await.unwrap();
    for writer in 0..WRITERS {
        let name = format!("namespaces/default/policies/w-{writer}");
        let stored = client.get_policy(v1::GetPolicyRequest { name }).await.unwrap().into_inner();
        let spec = stored.spec.as_ref().unwrap();
        let timeout = spec.pipeline.iter().find_map(|strategy| match &strategy.kind {
            Some(v1::strategy::Kind::Timeout(timeout)) => timeout.duration,
            _ => None,
        });
        let duration = timeout.unwrap();
        let found = duration.seconds.unsigned_abs() * 1000 + u64::from(duration.nanos.unsigned_abs()) / 1_000_000;
        // One more may have been on its way.
        let (least, most) = (before[&writer], after[&writer] + 1);
        assert!((least..=most).contains(&found), "writer {writer}: {found} is not between {least} and {most}");
    }
    server.run("audit verify").await.exits(0);
    server.run("check").await.exits(0).prints("no alarm");
}

/// So much data that a copy takes a while.
async fn fill(server: &Kept) {
    for part in 0..6 {
        let body = "x".repeat(30_000);
        let many: Vec<String> = (0..60)
            .map(|number| {
                format!(
                    "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: p-{part}-{number} }}\nspec:\n  match: {{ target: p-{part}-{number} \
                     }}\n  pipeline: [{{ fallback: {{ response: {{ status: 200, body: \"{body}\" }} }} }}]\n"
                )
            })
            .collect();
        server.apply(&many.join("---\n")).await.exits(0);
    }
}

/// Files of a folder that were not there.
fn new_files(folder: &Path, known: &[String]) -> Vec<String> {
    names(folder).into_iter().filter(|name| !known.contains(name)).collect()
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Waits for a file to appear, or for the command to end.
async fn appears(folder: &Path, known: &[String], child: &mut tokio::process::Child) {
    let looks = async {
        while new_files(folder, known).is_empty() && child.try_wait().unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, looks).await.expect("a copy is begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_of_a_backup_leaves_no_half_copy_under_its_name() {
    let server = Kept::start_with(&["--policy-bytes-per-namespace", "100000000"]).await;
    fill(&server).await;
    let backup = |server: &Kept, file: &str| {
        let mut program = command();
        program.args(["backup", file, "--address", server.address()]).stderr(Stdio::null()).stdout(Stdio::null());
        program.spawn().unwrap()
    };

    // The command is killed as soon as it has begun to write.
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("cut.db");
    let path = file.to_str().unwrap();
    let mut child = backup(&server, path);
    appears(elsewhere.path(), &[], &mut child).await;
    child.kill().await.unwrap();
    assert!(!file.exists() || fusebox(&["restore", path, "--dry-run"]).await.code == 0, "whole or not there");
    // The server's turn is free again.
    let whole = server.path("whole.db");
    server.until(&format!("backup {whole} --force"), |answer| answer.code == 0).await;
    fusebox(&["restore", &whole, "--dry-run"]).await.exits(0).prints("is whole");

    // The server is killed while it makes the copy.
    let known = names(&server.data());
    let mut child = backup(&server, path);
    appears(&server.data(), &known, &mut child).await;
    let folder = server.kill().await;
    let ended = timeout(LIMIT, child.wait()).await.expect("the command ends").unwrap();
    assert_eq!(ended.success(), file.exists(), "what it says is what it has done");
    assert!(!file.exists() || fusebox(&["restore", path, "--dry-run"]).await.code == 0, "whole or not there");
    let server = Kept::start_in(folder).await;
    let left = new_files(&server.data(), &known);
    assert!(left.is_empty(), "a copy that nobody will finish takes no room: {left:?}");
    server.run("check").await.exits(0).prints("no alarm");
    server.run("audit verify").await.exits(0);
}

/// Brings all that is in a stopped database into its one file, and does this to it.
async fn settle(database: &Path, statement: &'static str) {
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(database)).await.unwrap();
    sqlx::query(statement).execute(&pool).await.unwrap();
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&pool).await.unwrap();
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_can_not_be_served_is_refused_in_words_that_help_and_left_as_it_is() {
    let server = Kept::start().await;
    for seconds in 1..20 {
        server.apply(&manifest("b", "b", &format!("{seconds}s"))).await.exits(0);
    }
    let folder = server.stop().await;
    let database = folder.path().join("data/fusebox.db");
    let data = folder.path().join("data").display().to_string();
    settle(&database, "SELECT 1").await;
    let whole = fs::read(&database).unwrap();
    for (what, bytes, says) in [
        ("no database", b"something else entirely".repeat(400), "not a database"),
        ("cut in half", whole[..whole.len() / 2 / 4096 * 4096].to_vec(), "stored data is corrupt"),
    ] {
        fs::write(&database, &bytes).unwrap();
        let refused = fusebox(&["serve", "--listen", "127.0.0.1:0", "--data-dir", &data]).await;
        assert_eq!(refused.code, 1, "{what}: {refused:?}");
        refused.says(says).says("fusebox restore");
        assert_eq!(fs::read(&database).unwrap(), bytes, "{what}: it is evidence, and perhaps all that there is");
    }
    // Of a program that is newer than this one.
    fs::write(&database, &whole).unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'of the future', TRUE, x'00', 0)";
    settle(&database, newer).await;
    let refused = fusebox(&["serve", "--listen", "127.0.0.1:0", "--data-dir", &data]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    refused.says("newer version of fusebox");
    fs::write(&database, &whole).unwrap();
    let server = Kept::start_in(folder).await;
    server.run("get policy b -o yaml").await.exits(0).prints("19s");
}

/// As a disk does that loses what it was given: below SQLite, while the server runs.
#[tokio::test(flavor = "multi_thread")]
async fn pages_that_turn_bad_under_a_running_server_are_an_alarm_and_change_nothing_that_it_serves() {
    let server = Kept::start().await;
    for seconds in 1..20 {
        server.apply(&manifest("b", "b", &format!("{seconds}s"))).await.exits(0);
    }
    let folder = server.stop().await;
    settle(&folder.path().join("data/fusebox.db"), "SELECT 1").await;
    let server = Kept::start_in_with(folder, &["--check-every", "1s"]).await;
    server.run("check").await.exits(0);
    let mut file = fs::File::options().write(true).open(server.data().join("fusebox.db")).unwrap();
    let length = file.metadata().unwrap().len();
    for page in 2..length / 4096 {
        file.seek(SeekFrom::Start(page * 4096)).unwrap();
        file.write_all(&[0xAA; 4096]).unwrap();
    }
    file.sync_all().unwrap();
    // That the audit log can't be read is seen by whoever asks, before the look at everything has ended.
    let told = server.until("check -o short", |answer| answer.out.contains("failed   database")).await;
    assert_eq!(told.code, 1, "{told:?}");
    server.run("get policy b -o yaml").await.exits(0).prints("19s");
    let refused = server.apply(&manifest("c", "c", "1s")).await;
    assert_ne!(refused.code, 0, "nothing is acknowledged that can't be kept: {refused:?}");
    server.run("get policy c").await.exits(3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_leaves_one_whole_file_and_only_its_owner_may_read_any() {
    let server = Kept::start().await;
    server.apply(&manifest("b", "b", "1s")).await.exits(0);
    let data = server.data();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for name in names(&data) {
        assert_eq!(mode(&data.join(&name)), 0o600, "{name}");
    }
    let folder = server.stop().await;
    let mut left = names(&data);
    left.sort();
    assert_eq!(left, ["fusebox.db", "fusebox.lock"]);
    let elsewhere = tempfile::tempdir().unwrap();
    fs::create_dir(elsewhere.path().join("data")).unwrap();
    fs::copy(data.join("fusebox.db"), elsewhere.path().join("data/fusebox.db")).unwrap();
    drop(folder);
    let server = Kept::start_in(elsewhere).await;
    server.run("get policy b -o yaml").await.exits(0).prints("1s");
    server.run("audit verify").await.exits(0);
}
