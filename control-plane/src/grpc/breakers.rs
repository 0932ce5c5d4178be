//! `fusebox.v1.BreakerService`.

use std::{pin::Pin, sync::Arc};

use fusebox_policy::{fleet::key::KeyPattern, invalid::Faults};
use fusebox_proto::v1::{self, breaker_service_server::BreakerService};
use futures_util::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status};

use super::{
    caller, requests, status,
    watch::{Event, Events, follow},
};
use crate::{
    fleet::{Fleet, ForceError, ForceRequest, ReleaseRequest, View, check_reason, transition_wire},
    shutdown::Shutdown,
    store::{StoreHandle, TransitionFilter},
};

/// Pages are of this size when nothing is said, and never larger than the other.
const PAGE: (i32, i32) = (100, 1000);

/// The service.
pub struct BreakerApi {
    fleet: Fleet,
    store: StoreHandle,
    shutdown: Shutdown,
}

impl std::fmt::Debug for BreakerApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BreakerApi").finish_non_exhaustive()
    }
}

impl BreakerApi {
    /// Over the fleet and its log.
    #[must_use]
    pub const fn new(fleet: Fleet, store: StoreHandle, shutdown: Shutdown) -> Self {
        Self { fleet, store, shutdown }
    }

    async fn view(&self) -> Result<Arc<View>, Status> {
        self.fleet.view().await.map_err(|ended| status::unavailable(&ended.to_string()))
    }
}

/// Which breakers a reader wants.
#[derive(Clone)]
struct Wanted {
    target: String,
    caller: String,
    namespace: String,
}

impl Wanted {
    fn fits(&self, key: Option<&v1::BreakerKey>) -> bool {
        let fits = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        key.is_some_and(|key| {
            fits(&self.target, &key.target) && fits(&self.caller, &key.caller) && fits(&self.namespace, &key.namespace)
        })
    }
}

fn optional(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[tonic::async_trait]
impl BreakerService for BreakerApi {
    async fn list_breakers(
        &self,
        request: Request<v1::ListBreakersRequest>,
    ) -> Result<Response<v1::ListBreakersResponse>, Status> {
        let v1::ListBreakersRequest { target, caller, namespace } = request.into_inner();
        let wanted = Wanted { target, caller, namespace };
        let view = self.view().await?;
        let breakers = view.breakers.values().filter(|breaker| wanted.fits(breaker.key.as_ref())).cloned().collect();
        Ok(Response::new(v1::ListBreakersResponse { breakers }))
    }

    async fn get_breaker(&self, request: Request<v1::GetBreakerRequest>) -> Result<Response<v1::Breaker>, Status> {
        let v1::GetBreakerRequest { name } = request.into_inner();
        let view = self.view().await?;
        view.breakers.get(&name).cloned().map(Response::new).ok_or_else(|| status::not_found("breaker", &name))
    }

    async fn explain_breaker(
        &self,
        request: Request<v1::ExplainBreakerRequest>,
    ) -> Result<Response<v1::ExplainBreakerResponse>, Status> {
        let v1::ExplainBreakerRequest { name } = request.into_inner();
        match self.fleet.explain(name.clone()).await {
            Ok(found) => found.map(Response::new).ok_or_else(|| status::not_found("breaker", &name)),
            Err(ended) => Err(status::unavailable(&ended.to_string())),
        }
    }

    type WatchBreakersStream = Events<v1::WatchBreakersResponse>;

    async fn watch_breakers(
        &self,
        request: Request<v1::WatchBreakersRequest>,
    ) -> Result<Response<Self::WatchBreakersStream>, Status> {
        let v1::WatchBreakersRequest { target, caller, namespace } = request.into_inner();
        let wanted = Wanted { target, caller, namespace };
        self.view().await?;
        let pick = move |view: &View| {
            view.breakers
                .iter()
                .filter(|(_, breaker)| wanted.fits(breaker.key.as_ref()))
                .map(|(name, breaker)| {
                    // Ages change by themselves.
                    let mut breaker = v1::Breaker { since: None, half_open_in: None, ..breaker.clone() };
                    if let Some(forced) = &mut breaker.r#override {
                        forced.remaining = None;
                    }
                    (name.clone(), breaker)
                })
                .collect()
        };
        let render = |event| {
            use v1::watch_breakers_response::Event as Wire;
            let event = match event {
                Event::Upserted(breaker) => Wire::Upserted(breaker),
                Event::Deleted(name) => Wire::Deleted(name),
                Event::Synced => Wire::Synced(true),
            };
            v1::WatchBreakersResponse { event: Some(event) }
        };
        Ok(Response::new(follow(self.fleet.follow(), self.shutdown.clone(), pick, render)))
    }

    async fn force_breaker(&self, request: Request<v1::ForceBreakerRequest>) -> Result<Response<v1::Override>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let key = requests::key("ForceBreaker", &request.request_id, &request)?.filter(|_| !request.validate_only);
        let force = ForceRequest::try_new(request, caller.asking(key.as_ref()), key)
            .map_err(|invalid| status::invalid(&invalid))?;
        let forced = match self.fleet.force(force).await {
            Ok(forced) => forced.map_err(|ForceError::Store(error)| error),
            Err(ended) => return Err(status::unavailable(&ended.to_string())),
        };
        let answer: Response<v1::Override> = requests::respond(forced, Clone::clone, |error| status::store(&error))?;
        // Of a request that came before, what is kept is the override as it was set: the present one tells more.
        let id = answer.get_ref().id;
        let present = self.view().await?.overrides.iter().find(|own| id != 0 && own.id == id).cloned();
        Ok(present.map_or(answer, Response::new))
    }

    async fn release_breaker(
        &self,
        request: Request<v1::ReleaseBreakerRequest>,
    ) -> Result<Response<v1::ReleaseBreakerResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let key = requests::key("ReleaseBreaker", &request.request_id, &request)?;
        let v1::ReleaseBreakerRequest { selector, reason, request_id: _, validate_only } = request;
        let key = key.filter(|_| !validate_only);
        if let Some(answer) = requests::answered(&self.store, key.as_ref()).await? {
            return Ok(Response::new(answer));
        }
        let mut faults = Faults::new();
        let pattern = faults.take("selector", KeyPattern::try_from(selector.unwrap_or_default()));
        check_reason(&reason, &mut faults);
        let pattern = faults.into_result(pattern).map_err(|invalid| status::invalid(&invalid))?;
        let target = pattern.target.clone();
        let release = ReleaseRequest { pattern, reason, caller: caller.asking(key.as_ref()), validate_only, key };
        let released = match self.fleet.release(release).await {
            Ok(Ok(released)) if released.is_empty() => {
                return Err(status::not_found("override", &format!("on {target} with this selector")));
            }
            Ok(released) => released,
            Err(ended) => return Err(status::unavailable(&ended.to_string())),
        };
        let render = |released: &Vec<v1::Override>| v1::ReleaseBreakerResponse { released: released.clone() };
        requests::respond(released, render, |error| status::store(&error))
    }

    async fn list_overrides(
        &self,
        _request: Request<v1::ListOverridesRequest>,
    ) -> Result<Response<v1::ListOverridesResponse>, Status> {
        let view = self.view().await?;
        Ok(Response::new(v1::ListOverridesResponse { overrides: view.overrides.clone() }))
    }

    async fn list_breaker_transitions(
        &self,
        request: Request<v1::ListBreakerTransitionsRequest>,
    ) -> Result<Response<v1::ListBreakerTransitionsResponse>, Status> {
        let v1::ListBreakerTransitionsRequest { target, caller, page_size, page_token } = request.into_inner();
        let size = match page_size {
            0 => PAGE.0,
            1.. => page_size.min(PAGE.1),
            _ => return Err(status::invalid_field("page_size", "must not be negative")),
        };
        let before = optional(page_token)
            .map(|token| token.parse().map_err(|_| status::invalid_field("page_token", "is not one of this method")))
            .transpose()?;
        let limit = u32::try_from(size).unwrap_or(1);
        let filter = TransitionFilter { target: optional(target), caller: optional(caller), before, limit: limit + 1 };
        let mut stored = self.store.transitions(filter).await.map_err(|error| status::store(&error))?;
        let more = stored.len() > limit as usize;
        stored.truncate(limit as usize);
        let next_page_token = match stored.last() {
            Some(last) if more => last.id.to_string(),
            Some(_) | None => String::new(),
        };
        let transitions = stored.iter().map(transition_wire).collect();
        Ok(Response::new(v1::ListBreakerTransitionsResponse { transitions, next_page_token }))
    }

    type WatchBreakerTransitionsStream = Pin<Box<dyn Stream<Item = Result<v1::BreakerTransition, Status>> + Send>>;

    async fn watch_breaker_transitions(
        &self,
        request: Request<v1::WatchBreakerTransitionsRequest>,
    ) -> Result<Response<Self::WatchBreakerTransitionsStream>, Status> {
        let v1::WatchBreakerTransitionsRequest { target, caller, past } = request.into_inner();
        if past > PAGE.1.unsigned_abs() {
            return Err(status::invalid_field("past", &format!("must be at most {}", PAGE.1)));
        }
        // Followed before the past is read: what comes in between is told twice by the sources and once here.
        let live = self.fleet.live();
        let filter = TransitionFilter {
            target: optional(target.clone()),
            caller: optional(caller.clone()),
            before: None,
            limit: past,
        };
        let mut old = self.store.transitions(filter).await.map_err(|error| status::store(&error))?;
        old.reverse();
        let last = old.last().map_or(0, |stored| stored.id);
        let wanted = Wanted { target, caller, namespace: String::new() };
        let past = stream::iter(old.iter().map(transition_wire).map(Ok).collect::<Vec<_>>());
        let shutdown = self.shutdown.clone();
        let state = Some((live, shutdown, wanted));
        let live = stream::unfold(state, move |state| async move {
            let (mut live, shutdown, wanted) = state?;
            loop {
                let begun = shutdown.begun();
                tokio::select! {
                    next = live.recv() => match next {
                        Ok(transition) if wanted.fits(transition.key.as_ref()) && (transition.id == 0 || transition.id > last) => {
                            let event = Ok(v1::BreakerTransition::clone(&transition));
                            return Some((event, Some((live, shutdown, wanted))));
                        }
                        Ok(_) => {}
                        Err(tokio::sync::broadcast::error::RecvError::Lagged(lost)) => {
                            let reason = format!("this reader is too slow: {lost} transitions were skipped; list them");
                            return Some((Err(status::resource_exhausted(&reason)), None));
                        }
                        Err(tokio::sync::broadcast::error::RecvError::Closed) => return None,
                    },
                    () = begun => return Some((Err(status::unavailable("the server is shutting down")), None)),
                }
            }
        });
        Ok(Response::new(Box::pin(past.chain(live))))
    }
}
