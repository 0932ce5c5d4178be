//! The rows of rollouts.

use std::{collections::BTreeMap, sync::Arc};

use fusebox_policy::{Namespace, PolicyName, Revision};
use fusebox_proto::v1;
use prost::Message;
use sqlx::{Sqlite, SqliteConnection, Transaction, sqlite::SqliteRow};

use super::{
    audit, failed, requests,
    rows::{self, corrupt, get, narrow, widen},
};
use crate::{
    rollouts::{
        machine::{Standing, State as Progress},
        spec::RolloutSpec,
    },
    store::{
        Once, RolloutFilter, Staged, Stepped, StoreError, StoredRollout,
        plan::{self, Key, State},
        rollout::{RolloutPlan, encode},
    },
};

const TABLE: &str = "rollouts";

/// Writes what was planned, with its record and what is answered.
pub(super) async fn write(
    transaction: &mut Transaction<'static, Sqlite>,
    plan: RolloutPlan,
    once: Option<Once<Stepped>>,
) -> Result<(State, Stepped), StoreError> {
    let stepped = plan.stepped();
    let RolloutPlan { rollout, revision, audit, after } = plan;
    rows::write_revisions(transaction, revision.as_slice(), &after).await?;
    upsert(transaction, &rollout).await?;
    audit::append(transaction, [audit]).await?;
    requests::keep(transaction, once, &stepped).await?;
    Ok((after, stepped))
}

async fn upsert(transaction: &mut Transaction<'static, Sqlite>, rollout: &StoredRollout) -> Result<(), StoreError> {
    let StoredRollout {
        namespace,
        policy,
        candidate,
        stable,
        spec,
        standing: Standing { stage, state, reason, since },
        stage_revision,
        author,
        message,
        created,
        changed,
    } = rollout;
    sqlx::query(
        "INSERT INTO rollouts (candidate, namespace, name, stable, spec, stage, state, reason, since_us, stage_revision, author, \
         message, created_us, changed_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) \
         ON CONFLICT (candidate) DO UPDATE SET stage = excluded.stage, state = excluded.state, reason = excluded.reason, \
         since_us = excluded.since_us, stage_revision = excluded.stage_revision, changed_us = excluded.changed_us",
    )
    .bind(narrow(candidate.0))
    .bind(namespace.as_str())
    .bind(policy.as_str())
    .bind(stable.map(|stable| narrow(stable.0)))
    .bind(encode(spec))
    .bind(narrow(*stage as u64))
    .bind(state.name())
    .bind(reason.as_str())
    .bind(plan::to_micros(*since))
    .bind(narrow(stage_revision.0))
    .bind(author.as_str())
    .bind(message.as_str())
    .bind(plan::to_micros(*created))
    .bind(plan::to_micros(*changed))
    .execute(&mut **transaction)
    .await
    .map_err(failed)?;
    Ok(())
}

pub(super) fn rollout(row: &SqliteRow) -> Result<StoredRollout, StoreError> {
    let candidate: i64 = get(row, "candidate")?;
    let wrong =
        |what: &str, reason: &dyn ToString| corrupt(TABLE, candidate, format!("{what}: {}", reason.to_string()));
    let state: String = get(row, "state")?;
    let spec: Vec<u8> = get(row, "spec")?;
    let spec = v1::RolloutSpec::decode(spec.as_slice()).map_err(|error| wrong("spec", &error))?;
    let spec = RolloutSpec::try_from(spec).map_err(|invalid| wrong("spec", &invalid))?;
    let stage: i64 = get(row, "stage")?;
    let stage = usize::try_from(stage).ok().filter(|stage| *stage < spec.stages.len());
    Ok(StoredRollout {
        namespace: Namespace::try_new(&get::<String>(row, "namespace")?)
            .map_err(|invalid| wrong("namespace", &invalid))?,
        policy: PolicyName::try_new(&get::<String>(row, "name")?).map_err(|invalid| wrong("name", &invalid))?,
        candidate: Revision(widen(candidate)),
        stable: get::<Option<i64>>(row, "stable")?.map(|stable| Revision(widen(stable))),
        standing: Standing {
            stage: stage.ok_or_else(|| wrong("stage", &"there is none of this number"))?,
            state: Progress::of_name(&state).ok_or_else(|| wrong("state", &state))?,
            reason: get(row, "reason")?,
            since: plan::from_micros(get(row, "since_us")?),
        },
        spec,
        stage_revision: Revision(widen(get(row, "stage_revision")?)),
        author: get(row, "author")?,
        message: get(row, "message")?,
        created: plan::from_micros(get(row, "created_us")?),
        changed: plan::from_micros(get(row, "changed_us")?),
    })
}

/// Those in progress, with their candidates.
pub(super) async fn load(
    connection: &mut SqliteConnection,
    state: &State,
) -> Result<BTreeMap<Key, Arc<Staged>>, StoreError> {
    let rows = sqlx::query("SELECT * FROM rollouts WHERE state IN ('running', 'paused')")
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    let mut staged = BTreeMap::new();
    for row in &rows {
        let rollout = rollout(row)?;
        let stored = sqlx::query("SELECT * FROM policy_revisions WHERE revision = $1")
            .bind(narrow(rollout.candidate.0))
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed)?
            .ok_or_else(|| corrupt(TABLE, rollout.candidate.0, "its candidate is missing"))?;
        let candidate = rows::revision(&stored)?;
        let in_force = state.policies.get(&rollout.key());
        let created = plan::created(in_force.map(Arc::as_ref), candidate.at);
        let candidate = Arc::new(plan::stored(candidate.policy, created, candidate.at));
        staged.insert(rollout.key(), Arc::new(Staged { rollout, candidate }));
    }
    Ok(staged)
}

/// Reads rollouts, newest first.
pub(super) async fn read(
    connection: &mut SqliteConnection,
    filter: RolloutFilter,
) -> Result<Vec<StoredRollout>, StoreError> {
    let RolloutFilter { namespace, policy, before, limit } = filter;
    let rows = sqlx::query(
        "SELECT * FROM rollouts WHERE ($1 = '' OR namespace = $1) AND ($2 = '' OR name = $2) AND candidate < $3 \
         ORDER BY candidate DESC LIMIT $4",
    )
    .bind(namespace.map(|namespace| namespace.to_string()).unwrap_or_default())
    .bind(policy.map(|policy| policy.to_string()).unwrap_or_default())
    .bind(before.map_or(i64::MAX, |before| narrow(before.0)))
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await
    .map_err(failed)?;
    rows.iter().map(rollout).collect()
}
