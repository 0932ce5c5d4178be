//! Rows of tokens <-> domain.

use fusebox_policy::{CallerName, Namespace};
use sqlx::{Sqlite, Transaction, sqlite::SqliteRow};

use super::{
    audit, failed,
    rows::{corrupt, get, part},
};
use crate::{
    access::{Role, secret::Digest},
    store::{
        NewToken, Note, Revoked, StoreError, StoredToken,
        audit::{AuditAction, NewAudit},
        plan,
    },
};

const TABLE: &str = "tokens";

pub(super) async fn insert(
    transaction: &mut Transaction<'static, Sqlite>,
    new: NewToken,
    note: Note,
) -> Result<StoredToken, StoreError> {
    let namespace = new.role.namespace().map(|namespace| namespace.as_str().to_owned()).unwrap_or_default();
    let taken = sqlx::query(
        "SELECT 1 FROM tokens WHERE name = $1 AND namespace = $2 AND revoked_us IS NULL AND expires_us > $3 LIMIT 1",
    )
    .bind(new.name.as_str())
    .bind(namespace.as_str())
    .bind(plan::to_micros(note.at))
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed)?;
    if taken.is_some() {
        return Err(StoreError::TokenExists(new.name));
    }
    let (stored, told) = new.stored(note);
    let StoredToken { id, name, digest, role, creator, created, expires, revoked: _ } = &stored;
    let service = role.service().map(|service| service.as_str()).unwrap_or_default();
    sqlx::query(
        "INSERT INTO tokens (id, name, sha256, role, namespace, service, creator, created_us, expires_us) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(id.as_str())
    .bind(name.as_str())
    .bind(digest.as_bytes().as_slice())
    .bind(role.name())
    .bind(namespace)
    .bind(service)
    .bind(creator.as_str())
    .bind(plan::to_micros(*created))
    .bind(plan::to_micros(*expires))
    .execute(&mut **transaction)
    .await
    .map_err(failed)?;
    audit::append(transaction, [told]).await?;
    Ok(stored)
}

pub(super) async fn revoke(
    transaction: &mut Transaction<'static, Sqlite>,
    id: &str,
    note: Note,
) -> Result<Option<StoredToken>, StoreError> {
    let Revoked { at, by, reason } = Revoked::by(&note);
    let done = sqlx::query(
        "UPDATE tokens SET revoked_us = $1, revoker = $2, revoke_reason = $3 \
         WHERE id = $4 AND revoked_us IS NULL AND expires_us > $1",
    )
    .bind(plan::to_micros(at))
    .bind(by)
    .bind(reason)
    .bind(id)
    .execute(&mut **transaction)
    .await
    .map_err(failed)?;
    let row = sqlx::query("SELECT * FROM tokens WHERE id = $1")
        .bind(id)
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    let stored = row.as_ref().map(stored).transpose()?;
    if let Some(stored) = &stored
        && done.rows_affected() > 0
    {
        audit::append(transaction, [NewAudit::of_token(AuditAction::TokenRevoke, stored, note)]).await?;
    }
    Ok(stored)
}

pub(super) fn stored(row: &SqliteRow) -> Result<StoredToken, StoreError> {
    let id: String = get(row, "id")?;
    let digest: Vec<u8> = get(row, "sha256")?;
    let digest = Digest::from_bytes(&digest).ok_or_else(|| corrupt(TABLE, &id, "the digest has another length"))?;
    let namespace = part(row, TABLE, &id, "namespace", Namespace::try_new)?;
    let service = part(row, TABLE, &id, "service", CallerName::try_new)?;
    let role: String = get(row, "role")?;
    let role = Role::of(&role, namespace, service).ok_or_else(|| corrupt(TABLE, &id, format!("role {role:?}")))?;
    let revoked: Option<i64> = get(row, "revoked_us")?;
    let revoked = match revoked {
        Some(at) => {
            let (by, reason): (Option<String>, Option<String>) = (get(row, "revoker")?, get(row, "revoke_reason")?);
            let (by, reason) = (by.unwrap_or_default(), reason.unwrap_or_default());
            Some(Revoked { at: plan::from_micros(at), by, reason })
        }
        None => None,
    };
    Ok(StoredToken {
        name: get(row, "name")?,
        digest,
        role,
        creator: get(row, "creator")?,
        created: plan::from_micros(get(row, "created_us")?),
        expires: plan::from_micros(get(row, "expires_us")?),
        revoked,
        id,
    })
}
