//! A copy of everything, and the way back from it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use super::{
    kept::Kept,
    program::{fusebox, manifest},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_running_server_is_restored_with_all_that_was_in_it() {
    let server = Kept::start().await;
    server.apply(&manifest("b", "b", "1s")).await.exits(0);
    server.apply(&manifest("b", "b", "2s")).await.exits(0);
    server.run("breaker force-open b --for 1h --reason drill").await.exits(0);
    let file = server.path("monday.db");
    server.run(&format!("backup {file} -m nightly")).await.exits(0).prints("holds store").says("--dry-run");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "digests of tokens are in it");
    server.run(&format!("backup {file}")).await.exits(4).says("is there already");
    let first = fs::read(&file).unwrap();
    server.run(&format!("backup {file} --force")).await.exits(0);
    assert_ne!(fs::read(&file).unwrap(), first, "the record of the first is in the second");
    fusebox(&["restore", &file, "--dry-run"]).await.exits(0).prints("is whole: 1 policies at rev 2");
    let told = server.run("audit --action backup -o json").await.exits(0).json();
    assert_eq!((told["items"].as_array().unwrap().len(), &told["items"][1]["reason"]), (2, &"nightly".into()));

    // Something happens after it, and then the data is lost.
    server.apply(&manifest("b", "b", "9s")).await.exits(0);
    let data = server.data().display().to_string();
    fusebox(&["restore", &file, "--data-dir", &data, "--force"]).await.exits(4).says("another fusebox serves from");
    let folder = server.stop().await;
    fusebox(&["restore", &file, "--data-dir", &data]).await.exits(4).says("holds data already");
    let restored = fusebox(&["restore", &file, "--data-dir", &data, "--force"]).await.exits(0);
    let restored = restored
        .prints("1 policies at rev 2")
        .says("what was there before is in")
        .says("fusebox recover --adopt-present");
    let aside = restored.err.lines().find_map(|line| line.strip_prefix("what was there before is in ")).unwrap();
    assert!(Path::new(aside).join("fusebox.db").is_file());

    let server = Kept::start_in(folder).await;
    server.run("get policy b -o yaml").await.exits(0).prints("2s");
    server.run("history policy b -q").await.exits(0).prints("2\n1");
    server.run("breaker overrides").await.exits(0).prints("drill");
    server.run("audit verify").await.exits(0);
    server.run("check").await.exits(0).prints("ok       database: no alarm");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_is_refused_before_anything_is_touched() {
    let server = Kept::start().await;
    for seconds in 1..4 {
        server.apply(&manifest("b", "b", &format!("{seconds}s"))).await.exits(0);
    }
    let file = server.path("whole.db");
    server.run(&format!("backup {file}")).await.exits(0);
    let whole = fs::read(&file).unwrap();
    let damaged = server.path("damaged.db");
    let target = server.path("target");
    let find = |needle: &[u8]| whole.windows(needle.len()).rposition(|window| window == needle).unwrap();
    let flipped = |needle: &[u8]| {
        let mut bytes = whole.clone();
        bytes[find(needle)] ^= 1;
        bytes
    };
    for (bytes, says) in [
        (b"no database at all".repeat(100), "file is not a database"),
        (whole[..whole.len() / 2].to_vec(), "damaged"),
        // In a policy, and in the audit log.
        (flipped(b"circuit-breaker"), "damaged"),
        (flipped(b"127.0.0.1"), "damaged"),
    ] {
        fs::write(&damaged, bytes).unwrap();
        for more in [&["--dry-run"][..], &["--data-dir", &target]] {
            let answer = fusebox(&[&["restore", damaged.as_str()], more].concat()).await;
            assert_eq!(answer.code, 5, "{answer:?}");
            answer.says(says);
        }
    }
    assert!(!Path::new(&target).join("fusebox.db").exists());
    // Of a program that is newer than this one.
    fs::write(&damaged, &whole).unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&damaged);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'of the future', TRUE, x'00', 0)";
    sqlx::query(newer).execute(&pool).await.unwrap();
    pool.close().await;
    fusebox(&["restore", &damaged, "--data-dir", &target]).await.exits(5).says("newer version of fusebox");
    // A copy of a database in use, without its newest part.
    fs::write(&damaged, &whole).unwrap();
    fs::write(format!("{damaged}-wal"), "something").unwrap();
    fusebox(&["restore", &damaged, "--data-dir", &target]).await.exits(5).says("copied from a database in use");
    fusebox(&["restore", "/nowhere/x.db", "--data-dir", &target]).await.exits(1).says("/nowhere/x.db");
    fusebox(&["restore", &file, "--data-dir", &target]).await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_says_of_its_database_is_checked() {
    let server = Kept::start_with(&["--check-every", "1s"]).await;
    server.apply(&manifest("b", "b", "1s")).await.exits(0);
    let well = server.run("check -o json").await.exits(0).json();
    let names: Vec<_> = well["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect();
    let all = ["reachable", "version", "clocks", "store", "database", "backups", "disk", "audit", "access", "replicas"];
    assert_eq!(names, all);
    // Of the machine that tests run on nothing is known; and nobody asked for backups.
    let own = |name: &str| !matches!(name, "disk" | "backups");
    let items = well["items"].as_array().unwrap();
    assert!(items.iter().all(|item| !own(item["name"].as_str().unwrap()) || item["verdict"] == "ok"), "{well}");
    server.run("check").await.prints("warning  backups: none are made by itself").prints("serve with --backup-dir");
    let checked = server.until("check", |answer| answer.out.contains("its chain was whole")).await;
    checked.prints("audit: 2 records, the last is 2");

    // A row that turns bad while the server runs: it goes on serving what it has, and says so.
    server.outside("UPDATE policies SET definition = zeroblob(length(definition))").await;
    let told = server.until("check -o short", |answer| answer.code == 1).await;
    told.prints("failed   database: the database is damaged: policies default/b: the digest differs");
    server.run("get policy b -o yaml").await.exits(0).prints("1s");
    let folder = server.stop().await;
    let data = folder.path().join("data").display().to_string();
    let refused = fusebox(&["serve", "--listen", "127.0.0.1:0", "--data-dir", &data]).await.exits(1);
    refused.says("stored data is corrupt: policies default/b: the digest differs").says("fusebox restore");

    fusebox(&["check", "--address", "127.0.0.1:1"]).await.exits(1).prints("failed   reachable: cannot reach");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_makes_backups_by_itself_and_keeps_the_newest() {
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = elsewhere.path().join("backups");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("mine.db"), "mine").unwrap();
    let options = ["--backup-every", "1s", "--backup-keep", "2", "--backup-dir"];
    let server = Kept::start_with(&[&options[..], &[folder.to_str().unwrap()]].concat()).await;
    server.apply(&manifest("b", "b", "1s")).await.exits(0);
    server.until("check", |answer| answer.out.contains("ok       backups: the newest is")).await;
    let three = |answer: &super::program::Answer| answer.out.lines().count() >= 3;
    server.until("audit --action backup.create --actor server -q", three).await;
    // The third is recorded before it is there: what was there before it stays until then.
    let made = |entry: fs::DirEntry| entry.path().display().to_string();
    let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| made(entry.unwrap())).collect();
    let own: Vec<_> = names.iter().filter(|name| name.contains("fusebox-")).collect();
    assert!((1..=3).contains(&own.len()), "{names:?}");
    assert!(names.iter().any(|name| name.ends_with("mine.db")), "a file of somebody's own is gone: {names:?}");
    let folder = server.stop().await;
    for name in own.iter().filter(|name| Path::new(name).exists()) {
        fusebox(&["restore", name, "--dry-run"]).await.exits(0).prints("is whole");
    }
    drop(folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_that_fail_are_told_with_why_and_how_old_the_newest_is() {
    let elsewhere = tempfile::tempdir().unwrap();
    // A file stands where the folder should be.
    let folder = elsewhere.path().join("backups");
    fs::write(&folder, "in the way").unwrap();
    let server = Kept::start_with(&["--backup-dir", folder.to_str().unwrap(), "--backup-every", "1s"]).await;
    let told = server.until("check", |answer| answer.code == 1).await;
    told.prints("failed   backups: fail since").prints("; there is none").prints("see to the folder of --backup-dir");
    assert_eq!(server.run("check -q").await.exits(1).out.lines().filter(|name| *name == "backups").count(), 1);
    fs::remove_file(&folder).unwrap();
    server.until("check", |answer| answer.out.contains("ok       backups: the newest is")).await;
}

/// On a disk of its own, which only a user that may mount one can have.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_changes_serves_on_and_heals() {
    let Some(server) = Kept::start_on_small_disk(3).await else {
        eprintln!("SKIPPED: this user may not mount a disk");
        return;
    };
    server.apply(&manifest("b", "b", "1s")).await.exits(0);
    let filler = server.data().join("filler");
    server.fill(&filler);
    let large = |round: usize| {
        let body = "x".repeat(30_000);
        format!(
            "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: large }}\nspec:\n  match: {{ target: large }}\n  pipeline: [{{ \
             fallback: {{ response: {{ status: 200, body: \"{round}{body}\" }} }} }}]\n"
        )
    };
    let mut round = 0;
    let refused = loop {
        let answer = server.apply(&large(round)).await;
        if answer.code != 0 {
            break answer;
        }
        round += 1;
        assert!(round < 200, "the disk does not get full");
    };
    refused.exits(7).says("the disk of the database is full");
    server.run("get policy b -o yaml").await.exits(0).prints("1s");
    server.run("check -o short").await.exits(1).prints("failed   database: the disk of the database is full");
    fs::remove_file(filler).unwrap();
    server.until("check", |answer| answer.code == 0).await.prints("no alarm");
    server.apply(&large(1000)).await.exits(0);
    server.run("audit verify").await.exits(0);
}
