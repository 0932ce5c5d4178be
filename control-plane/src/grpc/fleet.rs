//! `fusebox.v1.FleetService`.

use std::time::SystemTime;

use fusebox_proto::{
    duration::to_wire,
    v1::{self, fleet_service_server::FleetService},
};
use tonic::{Request, Response, Status};

use super::{
    pages::{self, Named, Query},
    status,
    watch::{Event, Events, follow},
    within::Within,
};
use crate::{
    access::Scope,
    condition::{BackupsKnown, Checked, Condition, Known},
    fleet::{Fleet, View},
    hub::Hub,
    shutdown::Shutdown,
    store::{Alarm, Room, StoreHandle, audit::AuditFilter, timestamp},
};

/// The service.
pub struct FleetApi {
    fleet: Fleet,
    hub: Hub,
    store: StoreHandle,
    condition: Condition,
    shutdown: Shutdown,
}

impl std::fmt::Debug for FleetApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FleetApi").finish_non_exhaustive()
    }
}

impl FleetApi {
    /// Over the fleet.
    #[must_use]
    pub const fn new(fleet: Fleet, hub: Hub, store: StoreHandle, condition: Condition, shutdown: Shutdown) -> Self {
        Self { fleet, hub, store, condition, shutdown }
    }

    /// How the server's surroundings are. What can't be learnt of a store that has failed is left out: the alarms say why.
    async fn condition(&self) -> v1::ServerCondition {
        let Known { tls, backups, checked } = self.condition.known();
        let disk = self.store.room().await.ok().flatten();
        let audit = self.store.audit(AuditFilter { limit: 1, ..AuditFilter::default() }).await.ok();
        v1::ServerCondition {
            certificate_expire_time: tls.map(|tls| timestamp(tls.expires())),
            backups: backups.map(scheduled),
            disk: disk.map(|Room { free, total, used }| v1::DiskRoom {
                free_bytes: free,
                total_bytes: total,
                database_bytes: used,
            }),
            store_check: checked.map(|Checked { at, findings }| v1::StoreCheck {
                time: Some(timestamp(at)),
                findings: u32::try_from(findings).unwrap_or(u32::MAX),
            }),
            audit: audit.map(|page| (&page.chain).into()),
        }
    }

    async fn view(&self) -> Result<std::sync::Arc<View>, Status> {
        self.fleet.view().await.map_err(|ended| status::unavailable(&ended.to_string()))
    }
}

#[tonic::async_trait]
impl FleetService for FleetApi {
    async fn list_services(
        &self,
        request: Request<v1::ListServicesRequest>,
    ) -> Result<Response<v1::ListServicesResponse>, Status> {
        let within = Within::of(&request)?;
        let request = request.into_inner();
        let query = Query::of(
            "ListServices",
            &v1::ListServicesRequest { page_size: 0, page_token: String::new(), ..request.clone() },
        );
        let v1::ListServicesRequest { page_size, page_token, filter } = request;
        let filter = pages::filter::<v1::Service>(&filter)?;
        let page = Named::new(page_size, &page_token, query)?;
        let all = self.view().await?.services(within.scope());
        let (services, next_page_token) = page.of(&all, |service| filter.admits(service));
        Ok(Response::new(v1::ListServicesResponse { services, next_page_token }))
    }

    async fn get_service(&self, request: Request<v1::GetServiceRequest>) -> Result<Response<v1::Service>, Status> {
        let within = Within::of(&request)?;
        let v1::GetServiceRequest { name } = request.into_inner();
        let found = self.view().await?.services(within.scope()).remove(&name);
        found.map(Response::new).ok_or_else(|| status::not_found("service", &name))
    }

    async fn list_instances(
        &self,
        request: Request<v1::ListInstancesRequest>,
    ) -> Result<Response<v1::ListInstancesResponse>, Status> {
        let within = Within::of(&request)?;
        let request = request.into_inner();
        let query = Query::of(
            "ListInstances",
            &v1::ListInstancesRequest { page_size: 0, page_token: String::new(), ..request.clone() },
        );
        let v1::ListInstancesRequest { service, page_size, page_token, filter } = request;
        let filter = pages::filter::<v1::Instance>(&filter)?;
        let page = Named::new(page_size, &page_token, query)?;
        let view = self.view().await?;
        let fits = |instance: &v1::Instance| {
            within.scope().covers_text(&instance.namespace) && (service.is_empty() || instance.service == service)
        };
        let (instances, next_page_token) =
            page.of(&view.instances, |instance| fits(instance) && filter.admits(instance));
        Ok(Response::new(v1::ListInstancesResponse { instances, next_page_token }))
    }

    async fn get_instance(&self, request: Request<v1::GetInstanceRequest>) -> Result<Response<v1::Instance>, Status> {
        // The name tells no namespace: what is in another one is as if it were not there.
        let within = Within::of(&request)?;
        let v1::GetInstanceRequest { name } = request.into_inner();
        let view = self.view().await?;
        let found = view.named(&name).find(|instance| within.scope().covers_text(&instance.namespace));
        found.cloned().map(Response::new).ok_or_else(|| status::not_found("instance", &name))
    }

    type WatchFleetStream = Events<v1::WatchFleetResponse>;

    async fn watch_fleet(
        &self,
        request: Request<v1::WatchFleetRequest>,
    ) -> Result<Response<Self::WatchFleetStream>, Status> {
        let within = Within::of(&request)?;
        let v1::WatchFleetRequest { service, filter } = request.into_inner();
        let filter = pages::watch_filter::<v1::Instance>(&filter, &["connected_for", "last_seen"])?;
        let views = self.fleet.follow().await.map_err(|ended| status::unavailable(&ended.to_string()))?;
        let pick = move |view: &View| {
            view.instances
                .values()
                .filter(|instance| within.scope().covers_text(&instance.namespace))
                .filter(|instance| service.is_empty() || instance.service == service)
                // Ages grow by themselves, and demand is never the same twice.
                .map(|instance| {
                    let mut shown = v1::Instance { connected_for: None, last_seen: None, ..instance.clone() };
                    shown.limits.iter_mut().for_each(|limit| limit.wanted_per_second = None);
                    (shown.name.clone(), shown)
                })
                .filter(|(_, shown)| filter.admits(shown))
                .collect()
        };
        let render = |event| {
            use v1::watch_fleet_response::Event as Wire;
            let event = match event {
                Event::Upserted(instance) => Wire::Upserted(instance),
                Event::Deleted(name) => Wire::Deleted(name),
                Event::Synced => Wire::Synced(true),
            };
            v1::WatchFleetResponse { event: Some(event) }
        };
        Ok(Response::new(follow(views, self.shutdown.clone(), pick, render)))
    }

    async fn get_server_info(
        &self,
        request: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::ServerInfo>, Status> {
        let within = Within::of(&request)?;
        // What is damaged is named in an alarm, and may be anybody's.
        let alarm = |own| match within.scope() {
            Scope::Everything => alarm(own),
            Scope::Namespace(_) => {
                let message = "ask somebody whose role is for all namespaces".to_owned();
                v1::Alarm { message, ..alarm(own) }
            }
        };
        let view = self.view().await?;
        let present = self.hub.current();
        let condition = match within.scope() {
            Scope::Everything => Some(self.condition().await),
            Scope::Namespace(_) => None,
        };
        Ok(Response::new(v1::ServerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store_id: self.store.store_id().to_owned(),
            term: view.term,
            revision: present.revision.0,
            regressed: present.regressed().is_some(),
            seen_revision: present.seen.0,
            alarms: self.store.alarms().into_iter().map(alarm).collect(),
            time: Some(timestamp(SystemTime::now())),
            condition,
        }))
    }
}

fn scheduled(backups: BackupsKnown) -> v1::ScheduledBackups {
    let BackupsKnown { every, newest, failing } = backups;
    let (failing_since, failure) = failing.unzip();
    v1::ScheduledBackups {
        every: Some(to_wire(every)),
        newest_time: newest.map(timestamp),
        failing_since: failing_since.map(timestamp),
        failure: failure.unwrap_or_default(),
    }
}

fn alarm(alarm: Alarm) -> v1::Alarm {
    let Alarm { kind, message, since } = alarm;
    v1::Alarm { kind: kind.name().to_owned(), message, since: Some(timestamp(since)) }
}
