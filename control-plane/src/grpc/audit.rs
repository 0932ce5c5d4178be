//! `fusebox.v1.AuditService`.

use std::time::SystemTime;

use fusebox_proto::v1::{self, audit_service_server::AuditService};
use prost_types::Timestamp;
use tonic::{Request, Response, Status};

use super::{status, within::Within};
use crate::store::{
    StoreHandle,
    audit::{AuditFilter, AuditOrder},
};

/// Pages are of this size when nothing is said, and never larger than the other.
const PAGE: (i32, i32) = (100, 1000);

/// What protobuf calls a time, in seconds since 1970.
const YEARS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// The service.
pub struct AuditApi {
    store: StoreHandle,
}

impl std::fmt::Debug for AuditApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditApi").finish_non_exhaustive()
    }
}

impl AuditApi {
    /// Over the log.
    #[must_use]
    pub const fn new(store: StoreHandle) -> Self {
        Self { store }
    }
}

fn optional(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn point(field: &str, time: Option<Timestamp>) -> Result<Option<SystemTime>, Status> {
    let Some(time) = time else { return Ok(None) };
    let is_valid = YEARS.contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos);
    let point = time.try_into().ok().filter(|_| is_valid);
    point.map(Some).ok_or_else(|| status::invalid_field(field, "must be a time in the years 1 to 9999"))
}

#[tonic::async_trait]
impl AuditService for AuditApi {
    async fn list_audit_events(
        &self,
        request: Request<v1::ListAuditEventsRequest>,
    ) -> Result<Response<v1::ListAuditEventsResponse>, Status> {
        let within = Within::of(&request)?;
        let v1::ListAuditEventsRequest {
            page_size,
            page_token,
            actor,
            action,
            object,
            start_time,
            end_time,
            oldest_first,
        } = request.into_inner();
        let size = match page_size {
            0 => PAGE.0,
            1.. => page_size.min(PAGE.1),
            _ => return Err(status::invalid_field("page_size", "must not be negative")),
        };
        let token = optional(page_token)
            .map(|token| token.parse().map_err(|_| status::invalid_field("page_token", "is not one of this method")))
            .transpose()?;
        let order = if oldest_first {
            AuditOrder::OldestFirst(token.unwrap_or_default())
        } else {
            AuditOrder::NewestFirst(token)
        };
        let filter = AuditFilter {
            actor: optional(actor),
            action: optional(action),
            object: optional(object),
            from: point("start_time", start_time)?,
            until: point("end_time", end_time)?,
            order,
            namespace: within.scope().namespace().cloned(),
            limit: size.unsigned_abs(),
        };
        let page = self.store.audit(filter).await.map_err(|error| status::store(&error))?;
        let next_page_token = match page.records.last() {
            Some(last) if page.more => last.id.to_string(),
            Some(_) | None => String::new(),
        };
        Ok(Response::new(v1::ListAuditEventsResponse {
            events: page.records.iter().map(Into::into).collect(),
            next_page_token,
            // The ends of the log are about all of it: a part of it can't be checked.
            chain: within.scope().namespace().is_none().then(|| (&page.chain).into()),
        }))
    }
}
