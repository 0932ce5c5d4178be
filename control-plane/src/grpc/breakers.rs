//! `fusebox.v1.BreakerService`.

use std::{pin::Pin, sync::Arc};

use fusebox_policy::{fleet::key::KeyPattern, invalid::Faults};
use fusebox_proto::v1::{self, breaker_service_server::BreakerService};
use futures_util::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status};

use super::{
    caller,
    pages::{self, Named, Query},
    requests,
    status::{self, Reason},
    watch::{Event, Events, follow},
    within::Within,
};
use crate::{
    filter::{Fields, Filter},
    fleet::{Fleet, ForceError, ForceRequest, ReleaseRequest, Unexplained, View, check_reason, transition_wire},
    shutdown::Shutdown,
    store::{StoreError, StoreHandle, TransitionFilter},
};

/// Transitions that one page looks through for those that its filter admits.
const LOOKED_THROUGH: usize = 10_000;

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

    /// Whether everything after a transition is still there, and not too much of it.
    async fn check_resumption(&self, after: u64) -> Result<(), Status> {
        let kept = self.store.transitions_kept().await.map_err(|error| status::store(&error))?;
        let (oldest, newest) = kept.unwrap_or((1, 0));
        if after > newest {
            return Err(status::revision_unknown(after, newest));
        }
        let earliest = (oldest - 1).max(newest.saturating_sub(LOOKED_THROUGH as u64));
        if after < earliest { Err(status::compacted(after, earliest)) } else { Ok(()) }
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
    filter: Filter,
}

impl Wanted {
    fn fits<T: Fields>(&self, key: Option<&v1::BreakerKey>, thing: &T) -> bool {
        let fits = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        key.is_some_and(|key| {
            fits(&self.target, &key.target) && fits(&self.caller, &key.caller) && fits(&self.namespace, &key.namespace)
        }) && self.filter.admits(thing)
    }
}

fn unexplained(error: &Unexplained) -> Status {
    match error {
        Unexplained::Ended(ended) => status::unavailable(&ended.to_string()),
        Unexplained::Store(error) => status::store(error),
    }
}

/// What is left for the store to say, when nobody has been quicker.
fn stored<T>(outcome: Result<T, ForceError>) -> Result<Result<T, StoreError>, Status> {
    match outcome {
        Ok(done) => Ok(Ok(done)),
        Err(ForceError::Store(error)) => Ok(Err(error)),
        Err(error @ ForceError::Changed { .. }) => Err(status::force(&error)),
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
        let within = Within::of(&request)?;
        let request = request.into_inner();
        let query = Query::of(
            "ListBreakers",
            &v1::ListBreakersRequest { page_size: 0, page_token: String::new(), ..request.clone() },
        );
        let v1::ListBreakersRequest { target, caller, namespace, page_size, page_token, filter, include_gone } =
            request;
        let namespace = within.narrow_text(namespace)?;
        let wanted = Wanted { target, caller, namespace, filter: pages::filter::<v1::Breaker>(&filter)? };
        let page = Named::new(page_size, &page_token, query)?;
        let view = self.view().await?;
        let fits = |breaker: &v1::Breaker| wanted.fits(breaker.key.as_ref(), breaker);
        let (breakers, next_page_token) = if include_gone {
            let gone = self.fleet.gone_breakers().await.map_err(|error| unexplained(&error))?;
            let mut all = view.breakers.clone();
            all.extend(gone.into_iter().map(|breaker| (breaker.name.clone(), breaker)));
            page.of(&all, fits)
        } else {
            page.of(&view.breakers, fits)
        };
        let breakers = breakers.into_iter().map(|breaker| within.shown_breaker(breaker)).collect();
        Ok(Response::new(v1::ListBreakersResponse { breakers, next_page_token }))
    }

    async fn get_breaker(&self, request: Request<v1::GetBreakerRequest>) -> Result<Response<v1::Breaker>, Status> {
        let within = Within::of(&request)?;
        let v1::GetBreakerRequest { name } = request.into_inner();
        within.check_breaker(&name)?;
        let view = self.view().await?;
        let found = view.breakers.get(&name).cloned().map(|breaker| within.shown_breaker(breaker));
        found.map(Response::new).ok_or_else(|| status::not_found("breaker", &name))
    }

    async fn explain_breaker(
        &self,
        request: Request<v1::ExplainBreakerRequest>,
    ) -> Result<Response<v1::ExplainBreakerResponse>, Status> {
        let within = Within::of(&request)?;
        let v1::ExplainBreakerRequest { name } = request.into_inner();
        within.check_breaker(&name)?;
        let found = self.fleet.explain(name.clone()).await.map_err(|error| unexplained(&error))?;
        let mut found = found.ok_or_else(|| status::not_found("breaker", &name))?;
        found.breaker = found.breaker.map(|breaker| within.shown_breaker(breaker));
        Ok(Response::new(found))
    }

    type WatchBreakersStream = Events<v1::WatchBreakersResponse>;

    async fn watch_breakers(
        &self,
        request: Request<v1::WatchBreakersRequest>,
    ) -> Result<Response<Self::WatchBreakersStream>, Status> {
        let within = Within::of(&request)?;
        let v1::WatchBreakersRequest { target, caller, namespace, filter } = request.into_inner();
        let namespace = within.narrow_text(namespace)?;
        let wanted = Wanted { target, caller, namespace, filter: pages::filter::<v1::Breaker>(&filter)? };
        let views = self.fleet.follow().await.map_err(|ended| status::unavailable(&ended.to_string()))?;
        let pick = move |view: &View| {
            view.breakers
                .iter()
                .filter(|(_, breaker)| wanted.fits(breaker.key.as_ref(), *breaker))
                .map(|(name, breaker)| {
                    // Ages change by themselves.
                    let mut breaker = within.shown_breaker(breaker.clone());
                    (breaker.since, breaker.half_open_in) = (None, None);
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
        Ok(Response::new(follow(views, self.shutdown.clone(), pick, render)))
    }

    async fn force_breaker(&self, request: Request<v1::ForceBreakerRequest>) -> Result<Response<v1::Override>, Status> {
        let (caller, within) = (caller(&request), Within::of(&request)?);
        let mut request = request.into_inner();
        // Bound first: the same words of another caller are another request.
        request.selector = within.narrow_key(request.selector)?;
        let key = requests::key("ForceBreaker", &request.request_id, &request)?.filter(|_| !request.validate_only);
        let force = ForceRequest::try_new(request, caller.asking(key.as_ref()), key)
            .map_err(|invalid| status::invalid_request(&invalid))?;
        let forced = match self.fleet.force(force).await {
            Ok(forced) => stored(forced)?,
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
        let (caller, within) = (caller(&request), Within::of(&request)?);
        let mut request = request.into_inner();
        request.selector = within.narrow_key(request.selector)?;
        let key = requests::key("ReleaseBreaker", &request.request_id, &request)?;
        let v1::ReleaseBreakerRequest { selector, reason, request_id: _, validate_only, etag } = request;
        let key = key.filter(|_| !validate_only);
        if let Some(answer) = requests::answered(&self.store, key.as_ref()).await? {
            return Ok(Response::new(answer));
        }
        let mut faults = Faults::new();
        let pattern = faults.take("selector", KeyPattern::try_from(selector.unwrap_or_default()));
        check_reason(&reason, &mut faults);
        let pattern = faults.into_result(pattern).map_err(|invalid| status::invalid_request(&invalid))?;
        let target = pattern.target.clone();
        let release = ReleaseRequest {
            pattern,
            reason,
            caller: caller.asking(key.as_ref()),
            validate_only,
            key,
            etag: optional(etag),
        };
        let released = match self.fleet.release(release).await {
            Ok(Ok(released)) if released.is_empty() => {
                return Err(status::not_found("override", &format!("on {target} with this selector")));
            }
            Ok(released) => stored(released)?,
            Err(ended) => return Err(status::unavailable(&ended.to_string())),
        };
        let render = |released: &Vec<v1::Override>| v1::ReleaseBreakerResponse { released: released.clone() };
        requests::respond(released, render, |error| status::store(&error))
    }

    async fn list_overrides(
        &self,
        request: Request<v1::ListOverridesRequest>,
    ) -> Result<Response<v1::ListOverridesResponse>, Status> {
        let within = Within::of(&request)?;
        let request = request.into_inner();
        let query = Query::of(
            "ListOverrides",
            &v1::ListOverridesRequest { page_size: 0, page_token: String::new(), ..request.clone() },
        );
        let v1::ListOverridesRequest { page_size, page_token, filter } = request;
        let size = pages::size(page_size)?;
        let after = query.number(&page_token)?.unwrap_or(0);
        let filter = pages::filter::<v1::Override>(&filter)?;
        let view = self.view().await?;
        let later = view.overrides.iter().filter(|own| own.id > after).cloned();
        let shown = later.filter_map(|own| within.shown(own)).filter(|own| filter.admits(own));
        let mut overrides: Vec<_> = shown.take(size + 1).collect();
        let more = overrides.len() > size;
        overrides.truncate(size);
        let last = overrides.last().filter(|_| more);
        let next_page_token = last.map(|own| query.token(&own.id.to_string())).unwrap_or_default();
        Ok(Response::new(v1::ListOverridesResponse { overrides, next_page_token }))
    }

    async fn get_override(&self, request: Request<v1::GetOverrideRequest>) -> Result<Response<v1::Override>, Status> {
        let within = Within::of(&request)?;
        let v1::GetOverrideRequest { name } = request.into_inner();
        let found = self.view().await?.overrides.iter().find(|own| own.name == name).cloned();
        found.and_then(|own| within.shown(own)).map(Response::new).ok_or_else(|| status::not_found("override", &name))
    }

    async fn list_breaker_transitions(
        &self,
        request: Request<v1::ListBreakerTransitionsRequest>,
    ) -> Result<Response<v1::ListBreakerTransitionsResponse>, Status> {
        let within = Within::of(&request)?;
        let request = request.into_inner();
        let query = Query::of(
            "ListBreakerTransitions",
            &v1::ListBreakerTransitionsRequest { page_size: 0, page_token: String::new(), ..request.clone() },
        );
        let v1::ListBreakerTransitionsRequest { target, caller, page_size, page_token, filter } = request;
        let namespace = within.scope().namespace().cloned();
        let size = pages::size(page_size)?;
        let mut before = query.number(&page_token)?;
        let filter = pages::filter::<v1::BreakerTransition>(&filter)?;
        // Without a filter every row is wanted, and one more says whether there is another page.
        let limit = if filter.is_empty() { size + 1 } else { pages::MOST.unsigned_abs() as usize };
        let (target, caller) = (optional(target), optional(caller));
        let mut transitions = Vec::new();
        let mut looked_through = 0;
        loop {
            let step = TransitionFilter {
                target: target.clone(),
                caller: caller.clone(),
                namespace: namespace.clone(),
                before,
                after: None,
                limit: u32::try_from(limit).unwrap_or(u32::MAX),
            };
            let stored = self.store.transitions(step).await.map_err(|error| status::store(&error))?;
            looked_through += stored.len();
            let is_last = stored.len() < limit;
            for transition in stored.iter().map(transition_wire) {
                if transitions.len() == size {
                    let next_page_token = query.token(&before.unwrap_or_default().to_string());
                    return Ok(Response::new(v1::ListBreakerTransitionsResponse { transitions, next_page_token }));
                }
                before = Some(transition.id);
                if filter.admits(&transition) {
                    transitions.push(transition);
                }
            }
            if is_last || looked_through >= LOOKED_THROUGH {
                let more = before.filter(|_| !is_last);
                let next_page_token = more.map(|id| query.token(&id.to_string())).unwrap_or_default();
                return Ok(Response::new(v1::ListBreakerTransitionsResponse { transitions, next_page_token }));
            }
        }
    }

    type WatchBreakerTransitionsStream = Pin<Box<dyn Stream<Item = Result<v1::BreakerTransition, Status>> + Send>>;

    async fn watch_breaker_transitions(
        &self,
        request: Request<v1::WatchBreakerTransitionsRequest>,
    ) -> Result<Response<Self::WatchBreakerTransitionsStream>, Status> {
        let within = Within::of(&request)?;
        let v1::WatchBreakerTransitionsRequest { target, caller, past, filter, after_id } = request.into_inner();
        let namespace = within.scope().namespace().cloned();
        if past > pages::MOST.unsigned_abs() {
            return Err(status::invalid_field("past", &format!("must be at most {}", pages::MOST)));
        }
        let wanted = pages::filter::<v1::BreakerTransition>(&filter)?;
        // Followed before the past is read: what comes in between is told twice by the sources and once here.
        let live = self.fleet.live();
        let after = (after_id > 0).then_some(after_id);
        if let Some(after) = after {
            self.check_resumption(after).await?;
        }
        let filter = TransitionFilter {
            target: optional(target.clone()),
            caller: optional(caller.clone()),
            namespace: namespace.clone(),
            before: None,
            after,
            limit: if after.is_some() { u32::try_from(LOOKED_THROUGH).unwrap_or(u32::MAX) } else { past },
        };
        let mut old = self.store.transitions(filter).await.map_err(|error| status::store(&error))?;
        old.reverse();
        let last = old.last().map_or(after_id, |stored| stored.id);
        let namespace = namespace.map(|own| own.to_string()).unwrap_or_default();
        let wanted = Wanted { target, caller, namespace, filter: wanted };
        let old = old.iter().map(transition_wire).filter(|transition| wanted.filter.admits(transition));
        let past = stream::iter(old.map(Ok).collect::<Vec<_>>());
        let shutdown = self.shutdown.clone();
        let state = Some((live, shutdown, wanted));
        let live = stream::unfold(state, move |state| async move {
            let (mut live, shutdown, wanted) = state?;
            loop {
                let begun = shutdown.begun();
                tokio::select! {
                    next = live.recv() => match next {
                        Ok(transition) if wanted.fits(transition.key.as_ref(), transition.as_ref()) && (transition.id == 0 || transition.id > last) => {
                            let event = Ok(v1::BreakerTransition::clone(&transition));
                            return Some((event, Some((live, shutdown, wanted))));
                        }
                        Ok(_) => {}
                        Err(tokio::sync::broadcast::error::RecvError::Lagged(lost)) => {
                            let reason = format!("this reader is too slow: {lost} transitions were skipped; list them");
                            return Some((Err(status::refused(Reason::ReaderTooSlow, &reason)), None));
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
