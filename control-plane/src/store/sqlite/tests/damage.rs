//! Databases that are not as they were written. Whatever is wrong with one, what is served is what was written, or nothing.

use super::*;

/// A database with a policy, its history, an override, a transition and their records, and its bytes.
async fn written() -> (TempDir, Vec<Arc<crate::store::StoredPolicy>>) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    for (name, size) in [("a", 10), ("b", 3000), ("c", 9000)] {
        store.apply(put(name, size), note(), false).await.unwrap();
        store.apply(put(name, size + 1), note(), false).await.unwrap();
    }
    let policies = store.load().await.unwrap().policies;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&store.writer).await.unwrap();
    store.close().await;
    (folder, policies)
}

impl SqliteStore {
    async fn close(self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// Opens a damaged copy: it is refused in words, or serves what was written. Says whether it was noticed, at once or by a check.
async fn is_noticed(bytes: &[u8], policies: &[Arc<crate::store::StoredPolicy>]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(DATABASE), bytes).unwrap();
    let store = match SqliteStore::open(folder.path()).await {
        Ok(store) => store,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return true;
        }
    };
    let loaded = match store.load().await {
        Ok(loaded) => loaded.policies,
        Err(_) => return true,
    };
    let is_same = loaded.iter().zip(policies).all(|(one, other)| one.policy == other.policy);
    let findings = store.check().await;
    let is_noticed = findings.map_or(true, |findings| !findings.is_empty());
    assert!((is_same && loaded.len() == policies.len()) || is_noticed, "something else is served, and nobody says so");
    if loaded.len() == policies.len() {
        assert!(is_same, "a policy that nobody wrote is served");
    }
    store.close().await;
    is_noticed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_never_becomes_another_policy() {
    let (folder, policies) = written().await;
    let bytes = std::fs::read(folder.path().join(DATABASE)).unwrap();
    assert!(!is_noticed(&bytes, &policies).await, "what is whole is found whole");
    let mut noticed = 0;
    const FLIPS: usize = 150;
    for round in 0..FLIPS {
        let mut damaged = bytes.clone();
        // Spread over the whole file, and over the bits of a byte.
        let place = (round * 7919 * 31 + round) % bytes.len();
        damaged[place] ^= 1 << (round % 8);
        noticed += usize::from(is_noticed(&damaged, &policies).await);
    }
    // Much of a file is free space and times that no digest covers.
    assert!(noticed > FLIPS / 4, "only {noticed} of {FLIPS} were noticed");
}

#[tokio::test]
async fn a_file_that_was_cut_is_refused_or_found_out() {
    let (folder, policies) = written().await;
    let bytes = std::fs::read(folder.path().join(DATABASE)).unwrap();
    for kept in [1, 99, 100, 4095, 4096, bytes.len() / 2, bytes.len() - 4096, bytes.len() - 1] {
        assert!(is_noticed(&bytes[..kept], &policies).await, "{kept} of {} bytes", bytes.len());
    }
}

#[tokio::test]
async fn a_row_that_turns_bad_while_the_store_is_open_is_found_and_is_an_alarm_until_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    store.apply(put("a", 1), note(), false).await.unwrap();
    assert_eq!((store.check().await.unwrap(), store.alarms()), (Vec::new(), Vec::new()));
    for (damage, repair, table) in [
        (
            "UPDATE policies SET sha256 = zeroblob(32)",
            "UPDATE policies SET sha256 = (SELECT sha256 FROM policy_revisions)",
            "policies",
        ),
        ("UPDATE policies SET name = 'z'", "UPDATE policies SET name = 'a'", "policies"),
        (
            "UPDATE policy_revisions SET definition = x'00'",
            "UPDATE policy_revisions SET definition = (SELECT definition FROM policies)",
            "policy_revisions",
        ),
        ("UPDATE server SET revision = 0", "UPDATE server SET revision = 1", "server"),
        ("UPDATE audit SET actor = 'x'", "UPDATE audit SET actor = 'tester'", "audit"),
    ] {
        outside(&folder, damage).await;
        let findings = store.check().await.unwrap();
        assert!(findings.iter().any(|finding| finding.table == table), "{damage}: {findings:?}");
        let alarms = store.alarms();
        assert_eq!(alarms.iter().map(|alarm| alarm.kind).collect::<Vec<_>>(), [AlarmKind::StoreCorrupt]);
        assert!(alarms[0].message.contains(table), "{alarms:?}");
        outside(&folder, repair).await;
        assert_eq!((store.check().await.unwrap(), store.alarms()), (Vec::new(), Vec::new()), "{repair}");
    }
}

#[tokio::test]
async fn pages_that_turn_bad_are_found_although_a_connection_has_read_them_before() {
    use std::io::{Seek as _, SeekFrom, Write as _};
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    for size in 1..20 {
        store.apply(put("a", size), note(), false).await.unwrap();
    }
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&store.writer).await.unwrap();
    // Every connection of the pool has it all in memory.
    let mut readers = Vec::new();
    while let Some(mut reader) = store.reader.try_acquire() {
        assert_eq!(check::check(&mut reader).await.unwrap(), Vec::new());
        readers.push(reader);
    }
    assert!(!readers.is_empty());
    drop(readers);
    assert_eq!(store.check().await.unwrap(), Vec::new());
    let mut file = std::fs::File::options().write(true).open(folder.path().join(DATABASE)).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    for page in 2..pages {
        file.seek(SeekFrom::Start(page * 4096)).unwrap();
        file.write_all(&[0xAA; 4096]).unwrap();
    }
    file.sync_all().unwrap();
    assert_ne!(store.check().await.unwrap(), Vec::new());
    assert_eq!(store.alarms().len(), 1);
}

#[tokio::test]
async fn a_full_disk_is_an_alarm_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let limit = |pages: &'static str| sqlx::query(pages).execute(&store.writer);
    limit("PRAGMA max_page_count = 1").await.unwrap();
    assert!(matches!(store.apply(put("large", 50_000), note(), false).await, Err(StoreError::Full)));
    let since = store.alarms()[0].since;
    // The connection that ran into the limit is not used again.
    limit("PRAGMA max_page_count = 1").await.unwrap();
    assert!(store.try_write().await.is_err(), "there is no room yet");
    assert_eq!(store.alarms()[0].since, since, "it is the same trouble");
    limit("PRAGMA max_page_count = 1000000").await.unwrap();
    store.try_write().await.unwrap();
    assert_eq!(store.alarms(), []);
    store.apply(put("large", 50_000), note(), false).await.unwrap();
    assert_eq!(store.check().await.unwrap(), []);
}

#[tokio::test]
async fn a_copy_that_was_not_finished_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let (_, path) = store.back_up().await.unwrap().keep().unwrap();
    store.close().await;
    assert!(path.exists());
    open(&folder).await;
    assert!(!path.exists());
}
