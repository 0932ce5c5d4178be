//! `fusebox.v1.AuditService`.

use std::time::SystemTime;

use fusebox_proto::v1::{self, audit_service_server::AuditService};
use prost::Message as _;
use prost_types::Timestamp;
use tonic::{Request, Response, Status};

use super::{
    pages::{self, Query},
    status,
    within::Within,
};
use crate::store::{
    StoreHandle,
    audit::{AuditFilter, AuditOrder},
};

/// Events that one page looks through for those that its filter admits.
const LOOKED_THROUGH: usize = 10_000;

/// Bytes of events after which a page that is filtered is not filled further: what one look adds must fit beside them.
const FULL: usize = 1 << 20;

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
        let request = request.into_inner();
        let query = Query::of(
            "ListAuditEvents",
            &v1::ListAuditEventsRequest { page_size: 0, page_token: String::new(), ..request.clone() },
        );
        let v1::ListAuditEventsRequest {
            page_size,
            page_token,
            actor,
            action,
            object,
            start_time,
            end_time,
            oldest_first,
            filter: text,
        } = request;
        let size = pages::size(page_size)?;
        let wanted = pages::filter::<v1::AuditEvent>(&text)?;
        let mut place = query.number(&page_token)?;
        let (from, until) = (point("start_time", start_time)?, point("end_time", end_time)?);
        let filter = AuditFilter {
            actor: optional(actor),
            action: optional(action),
            object: optional(object),
            from,
            until,
            order: AuditOrder::default(),
            namespace: within.scope().namespace().cloned(),
            limit: u32::try_from(size).unwrap_or(u32::MAX),
        };
        let mut events = Vec::new();
        let (mut looked_through, mut bytes) = (0, 0);
        let (more, chain) = loop {
            let order = if oldest_first {
                AuditOrder::OldestFirst(place.unwrap_or_default())
            } else {
                AuditOrder::NewestFirst(place)
            };
            let page = self.store.audit(AuditFilter { order, ..filter.clone() }).await;
            let page = page.map_err(|error| status::store(&error))?;
            looked_through += page.records.len();
            let (more, chain) = (page.more, v1::AuditChain::from(&page.chain));
            let mut rest = page.records.iter().map(|record| (record.id, v1::AuditEvent::from(record)));
            for (id, event) in rest.by_ref() {
                place = Some(id);
                if wanted.admits(&event) {
                    bytes += event.encoded_len();
                    events.push(event);
                    if events.len() == size {
                        break;
                    }
                }
            }
            let more = more || rest.next().is_some();
            // Pages are cut by their bytes too: one without a filter is as the store gives it.
            if !more || wanted.is_empty() || events.len() == size || bytes >= FULL || looked_through >= LOOKED_THROUGH {
                break (more, chain);
            }
        };
        let last = place.filter(|_| more);
        let next_page_token = last.map(|id| query.token(&id.to_string())).unwrap_or_default();
        // The ends of the log are about all of it: a part of it can't be checked.
        let chain = within.scope().namespace().is_none().then_some(chain);
        Ok(Response::new(v1::ListAuditEventsResponse { events, next_page_token, chain }))
    }
}
