//! Is everything in the database as it was written?

use futures_util::TryStreamExt as _;
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    audit, decisions, failed, overrides, rollouts,
    rows::{self, get},
    tokens, transitions,
};
use crate::store::{
    Finding, StoreError,
    audit::{AuditFilter, AuditOrder, Walk},
};

/// Records of the audit log that are held at a time.
const PAGE: u32 = 1000;

/// The migration that the audit log came with.
const AUDIT_SINCE: i64 = 3;

/// Reads everything; inside a transaction, so that it is of one moment. What can't be read is a finding, not an error.
pub(super) async fn check(connection: &mut SqliteConnection) -> Result<Vec<Finding>, StoreError> {
    let mut findings = Vec::new();
    keep(&mut findings, structure(connection).await)?;
    let applied = match applied(connection).await {
        Ok(applied) => applied,
        Err(error) => {
            keep(&mut findings, Err(error))?;
            return Ok(findings);
        }
    };
    for (since, table, query, read) in TABLES {
        if applied.contains(since) {
            keep(&mut findings, table_is_readable(connection, table, query, *read).await)?;
        }
    }
    keep(&mut findings, policies_fit_their_history(connection).await)?;
    if applied.contains(&AUDIT_SINCE) {
        keep(&mut findings, audit_is_whole(connection).await)?;
    }
    Ok(findings)
}

type Read = fn(&SqliteRow) -> Result<(), StoreError>;

/// Since which migration there is a table, how its rows are found, and how one is read.
const TABLES: &[(i64, &str, &str, Read)] = &[
    (1, "policies", "SELECT * FROM policies", |row| rows::policy(row).map(|_| ())),
    (1, "policy_revisions", "SELECT * FROM policy_revisions", |row| rows::revision(row).map(|_| ())),
    (1, "overrides", "SELECT * FROM overrides", |row| overrides::stored(row).map(|_| ())),
    (1, "transitions", "SELECT * FROM transitions", |row| transitions::stored(row).map(|_| ())),
    (4, "decisions", "SELECT * FROM decisions", |row| decisions::decision(row).map(|_| ())),
    (5, "tokens", "SELECT * FROM tokens", |row| tokens::stored(row).map(|_| ())),
    (6, "rollouts", "SELECT * FROM rollouts", |row| rollouts::rollout(row).map(|_| ())),
];

/// Adds what was found. A database that is busy, or fails otherwise, says nothing about what is in it.
fn keep(findings: &mut Vec<Finding>, found: Result<Vec<Finding>, StoreError>) -> Result<(), StoreError> {
    match found {
        Ok(found) => findings.extend(found),
        Err(StoreError::Corrupt { table, key, reason }) => {
            let finding = Finding { table: table.to_owned(), key, reason };
            // A file that is no database says so to everybody who asks.
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

fn finding(table: &str, key: impl ToString, reason: impl ToString) -> Finding {
    Finding { table: table.to_owned(), key: key.to_string(), reason: reason.to_string() }
}

/// SQLite's own check of pages, indexes and constraints.
async fn structure(connection: &mut SqliteConnection) -> Result<Vec<Finding>, StoreError> {
    // 20 faults at most: one damaged page makes hundreds.
    let told: Vec<String> =
        sqlx::query_scalar("PRAGMA integrity_check(20)").fetch_all(connection).await.map_err(failed)?;
    Ok(told.iter().filter(|line| *line != "ok").map(|line| finding("fusebox.db", "-", line)).collect())
}

/// The migrations that were applied.
pub(super) async fn applied(connection: &mut SqliteConnection) -> Result<Vec<i64>, StoreError> {
    sqlx::query_scalar("SELECT version FROM _sqlx_migrations").fetch_all(connection).await.map_err(failed)
}

async fn table_is_readable(
    connection: &mut SqliteConnection,
    table: &str,
    query: &'static str,
    read: Read,
) -> Result<Vec<Finding>, StoreError> {
    let mut findings = Vec::new();
    let mut rows = sqlx::query(query).fetch(connection);
    loop {
        match rows.try_next().await.map_err(failed) {
            Ok(Some(row)) => keep(&mut findings, read(&row).map(|()| Vec::new()))?,
            Ok(None) => return Ok(findings),
            // What follows can't be reached.
            Err(StoreError::Corrupt { reason, .. }) => {
                findings.push(finding(table, "-", reason));
                return Ok(findings);
            }
            Err(error) => return Err(error),
        }
    }
}

/// What is in force is the newest revision of each policy, and no revision is newer than the newest.
async fn policies_fit_their_history(connection: &mut SqliteConnection) -> Result<Vec<Finding>, StoreError> {
    let rows = sqlx::query(
        "SELECT p.namespace, p.name FROM policies p LEFT JOIN policy_revisions r \
         ON r.revision = p.revision AND r.namespace = p.namespace AND r.name = p.name WHERE r.sha256 IS NOT p.sha256",
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(failed)?;
    let mut findings = Vec::new();
    for row in &rows {
        let key = format!("{}/{}", get::<String>(row, "namespace")?, get::<String>(row, "name")?);
        findings.push(finding("policies", key, "is not what its revision says"));
    }
    let row = sqlx::query(
        "SELECT s.revision AS present, coalesce((SELECT max(revision) FROM policy_revisions), 0) AS newest FROM server s",
    )
    .fetch_optional(connection)
    .await
    .map_err(failed)?;
    match row {
        None => findings.push(finding("server", 1, "is missing")),
        Some(row) => {
            let (present, newest): (i64, i64) = (get(&row, "present")?, get(&row, "newest")?);
            if present < newest {
                findings.push(finding(
                    "server",
                    1,
                    format!("is at revision {present}, but there is a revision {newest}"),
                ));
            }
        }
    }
    Ok(findings)
}

async fn audit_is_whole(connection: &mut SqliteConnection) -> Result<Vec<Finding>, StoreError> {
    let mut walk = Walk::from(audit::chain(&mut *connection).await?.dropped);
    loop {
        let order = AuditOrder::OldestFirst(walk.at().id);
        let page = audit::read(&mut *connection, &AuditFilter { order, limit: PAGE, ..AuditFilter::default() }).await?;
        for record in &page.records {
            if let Err(broken) = walk.step(record) {
                return Ok(vec![finding("audit", record.id, broken)]);
            }
        }
        if !page.more {
            let end = walk.end(page.chain.last);
            return Ok(end.err().map(|broken| finding("audit", page.chain.last.id, broken)).into_iter().collect());
        }
    }
}
