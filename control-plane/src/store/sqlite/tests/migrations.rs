//! Every database that was ever written can be opened, and becomes the same as a new one.

use sha2::{Digest, Sha256};
use sqlx::migrate::{Migration, MigrationType, Migrator};

use super::*;
use crate::store::sqlite::open::MIGRATIONS;

/// The migrations that have been released, by the digest of their text. One that has been applied anywhere is never changed: what was
/// wrong with it is mended by another one.
const RELEASED: &[(i64, &str)] = &[
    (1, "7eee686ac59bbc9f70db82529b5080b18a2063c501be95ac48d7fa187dce85a7"),
    (2, "71767652b59815f798dd839f1e81c5dc5cb6c65fe7730cbe5db71d164b93eabf"),
    (3, "0902c65ff718be7afef5422d9c690c24490a10336f7ce97dc6f13b3eb4315661"),
    (4, "42649f3f21f1cac99ed9ad6836591c6084b2c084ef4df0e919041bac615bbb90"),
    (5, "c7fc3694fb3a72bf97deba14ab7674a11b8e101d48fcbde90177c5aa68ecd9f8"),
    (6, "f26e1970930ed9512695819287a125880e113dc2f26dc0b235db3f894d776f08"),
    (7, "1a5a9da1167953b45c813fd1cb3f29190a776048336321ab056cd4b375170693"),
    (8, "2c86c1e574965855bc8432da95f4455677ac693487cce24a2959a0abf603c930"),
    (9, "c5bad812f65affe217f76bbd16bb59d34e8898fde0692719f24183e596d8d717"),
];

#[test]
fn a_released_migration_is_never_changed() {
    for (version, digest) in RELEASED {
        let (_, _, sql) = MIGRATIONS.iter().find(|(own, ..)| own == version).expect("it is still there");
        let found: String = Sha256::digest(sql).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, *digest, "migration {version}");
    }
    assert!(MIGRATIONS.is_sorted_by_key(|(version, ..)| *version));
}

/// The migration that tokens came with.
const TOKENS_SINCE: i64 = 5;

/// What `sqlite_schema` says of everything that the migrations made.
async fn schema(pool: &SqlitePool) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE '\\_sqlx%' ESCAPE '\\' ORDER BY name",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

/// A database as a program with these migrations left it, with rows in what it had.
async fn database(folder: &TempDir, migrations: &[(i64, &'static str, &'static str)]) {
    let options = SqliteConnectOptions::new().filename(folder.path().join(DATABASE)).create_if_missing(true);
    let pool = SqlitePool::connect_with(options.journal_mode(SqliteJournalMode::Wal)).await.unwrap();
    let applied = migrations.iter().map(|(version, name, sql)| {
        let sql = sqlx::SqlSafeStr::into_sql_str(*sql);
        Migration::new(*version, (*name).into(), MigrationType::Simple, sql, false)
    });
    Migrator::with_migrations(applied.collect()).run(&pool).await.unwrap();
    let stored = Policy { revision: Revision(7), ..policy("old", 3) };
    let bytes = plan::encode(&stored);
    let digest = plan::digest(&bytes);
    sqlx::query("INSERT INTO server (id, store_id, term, revision) VALUES (1, 'of old', 4, 7)")
        .execute(&pool)
        .await
        .unwrap();
    for query in [
        "INSERT INTO policies (namespace, name, revision, definition, sha256, created_us, updated_us) \
         VALUES ('default', 'old', 7, $1, $2, 1, 2)",
        "INSERT INTO policy_revisions (revision, namespace, name, action, definition, sha256, author, message, at_us) \
         VALUES (7, 'default', 'old', 'create', $1, $2, 'ada', 'why', 2)",
    ] {
        sqlx::query(query).bind(bytes.as_slice()).bind(digest.as_slice()).execute(&pool).await.unwrap();
    }
    for query in [
        "INSERT INTO overrides (namespace, caller, policy, strategy, target, zone, effect, reason, author, created_us, expires_us) \
         VALUES ('', '', '', '', 'b', '', 'open', 'drill', 'ada', 1, 9)",
        "INSERT INTO transitions (namespace, caller, policy, strategy, target, zone, instance, from_state, to_state, cause, detail, \
         at_us, window_calls, window_failures) VALUES ('default', 'a', 'old', 'circuit-breaker', 'b', '', 'a-1', 'closed', 'open', \
         'failures', '5 of 5', 3, 5, 5)",
    ] {
        sqlx::query(query).execute(&pool).await.unwrap();
    }
    if migrations.iter().any(|(version, ..)| *version == TOKENS_SINCE) {
        for (id, role, namespace, service) in [("t1", "operator", "", ""), ("t2", "agent", "shop", "cart")] {
            sqlx::query(
                "INSERT INTO tokens (id, name, sha256, role, namespace, service, creator, created_us, expires_us) \
                 VALUES ($1, $1, zeroblob(32), $2, $3, $4, 'ada', 1, 9)",
            )
            .bind(id)
            .bind(role)
            .bind(namespace)
            .bind(service)
            .execute(&pool)
            .await
            .unwrap();
        }
    }
    pool.close().await;
}

#[tokio::test]
async fn a_database_of_every_earlier_version_is_brought_forward_with_all_that_is_in_it() {
    let fresh = tempfile::tempdir().unwrap();
    let wanted = schema(&open(&fresh).await.writer).await;
    // One after the other, and with a later one applied before an earlier one was written.
    let gap: Vec<_> = MIGRATIONS.iter().filter(|(version, ..)| [1, 2, 7].contains(version)).copied().collect();
    let lists = (1..=MIGRATIONS.len()).map(|applied| MIGRATIONS[..applied].to_vec()).chain([gap]);
    for applied in lists {
        let folder = tempfile::tempdir().unwrap();
        database(&folder, &applied).await;
        let store = open(&folder).await;
        let versions: Vec<_> = applied.iter().map(|(version, ..)| *version).collect();
        assert_eq!(schema(&store.writer).await, wanted, "{versions:?}");
        assert_eq!(store.store_id(), "of old");
        let loaded = store.load().await.unwrap();
        assert_eq!((loaded.revision, loaded.policies.len()), (Revision(7), 1), "{versions:?}");
        assert_eq!(loaded.policies[0].policy.definition, policy("old", 3).definition);
        let name = PolicyName::try_new("old").unwrap();
        assert_eq!(store.revisions(Namespace::default_namespace(), name, None, 9).await.unwrap()[0].author, "ada");
        assert_eq!(store.overrides().await.unwrap()[0].reason, "drill");
        let tokens: Vec<_> = store.tokens().await.unwrap().iter().map(|token| token.role.to_string()).collect();
        let kept = if versions.contains(&TOKENS_SINCE) { vec!["agent of shop/cart", "operator"] } else { Vec::new() };
        assert_eq!(tokens, kept, "{versions:?}: an operator of before is one everywhere, and the order is the same");
        let filter = TransitionFilter { limit: 9, ..TransitionFilter::default() };
        assert_eq!(store.transitions(filter).await.unwrap().len(), 1);
        assert_eq!(store.check().await.unwrap(), [], "{versions:?}");
        assert_eq!(store.apply(put("new", 1), note(), false).await.unwrap().revision, Revision(8));
        assert_eq!(store.next_term(0).await.unwrap(), 5);
        assert_eq!(store.check().await.unwrap(), []);
    }
}
