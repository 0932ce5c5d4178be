//! `fusebox.v1.AdminService`.

use std::time::SystemTime;

use fusebox_policy::invalid::Faults;
use fusebox_proto::{
    duration,
    v1::{self, admin_service_server::AdminService},
};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{
    backup, caller,
    pages::{self, Query},
    principal, requests, status,
    within::Within,
};
use crate::{
    access::{
        Access, Kind, Principal, Role,
        rules::{self, Extent},
        tokens::{self, CreateError, Tokens},
    },
    backups::Backups,
    fleet::check_reason,
    store::{Once, StoredToken, timestamp},
};

/// The service.
#[derive(Debug)]
pub struct AdminApi {
    tokens: Tokens,
    backups: Backups,
}

impl AdminApi {
    /// Over what is known of access, and what copies are made of.
    #[must_use]
    pub fn new(access: &Access, backups: Backups) -> Self {
        Self { tokens: access.tokens().clone(), backups }
    }
}

#[tonic::async_trait]
impl AdminService for AdminApi {
    type CreateBackupStream = backup::Chunks;

    async fn create_backup(
        &self,
        request: Request<v1::CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        let caller = caller(&request);
        let v1::CreateBackupRequest { reason } = request.into_inner();
        if !reason.is_empty() {
            let mut faults = Faults::new();
            check_reason(&reason, &mut faults);
            faults.into_result(Some(())).map_err(|invalid| status::invalid_request(&invalid))?;
        }
        Ok(Response::new(backup::stream(&self.backups, caller, reason)?))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let (caller, within) = (caller(&request), Within::of(&request)?);
        let request = request.into_inner();
        let key = requests::key("CreateToken", &request.request_id, &request)?;
        let v1::CreateTokenRequest { token, life, request_id: _, validate_only } = request;
        let key = key.filter(|_| !validate_only);
        let wanted = token.ok_or_else(|| status::invalid_field("token", "is required"))?;
        let role = wanted.role();
        let v1::Token { display_name, namespace, service, .. } = wanted;
        let life = life
            .map(|life| duration::from_wire(life).map_err(|invalid| status::invalid_request(&invalid.under("life"))))
            .transpose()?;
        let wanted = tokens::Request::try_new(&display_name, role, (&namespace, &service), life)
            .map_err(|invalid| status::invalid_request(&invalid))?;
        // Nobody makes a token that goes further than their own.
        within.check_text(wanted.role().namespace().map(|namespace| namespace.as_str()).unwrap_or_default())?;
        if validate_only {
            let preview = self.tokens.preview(wanted, caller).await.map_err(|error| status::store(&error))?;
            return Ok(Response::new(made(&preview, "")));
        }
        let caller = caller.asking(key.as_ref());
        // What is kept for a request that comes again is written down, so that it has no secret.
        let once = key.map(|key| Once::new(key, |stored| made(stored, "").encode_to_vec()));
        let outcome = match self.tokens.create(wanted, caller, once).await {
            Ok((stored, secret)) => Ok(made(&stored, secret.reveal())),
            Err(CreateError::Store(error)) => Err(error),
            Err(error @ CreateError::Random(_)) => return Err(status::create_token(&error)),
        };
        requests::respond(outcome, Clone::clone, |error| status::store(&error))
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let within = Within::of(&request)?;
        let request = request.into_inner();
        let query = Query::of(
            "ListTokens",
            &v1::ListTokensRequest { page_size: 0, page_token: String::new(), ..request.clone() },
        );
        let v1::ListTokensRequest { show_ended, page_size, page_token, filter } = request;
        let size = pages::size(page_size)?;
        let filter = pages::filter::<v1::Token>(&filter)?;
        let last = query.place(&page_token)?;
        let now = SystemTime::now();
        let all = self.tokens.list(within.scope()).await.map_err(|error| status::store(&error))?;
        // A token is never forgotten: the last one of the page before is there.
        let from = last.map_or(Some(0), |last| all.iter().position(|stored| stored.id == last).map(|place| place + 1));
        let rest = all.into_iter().skip(from.ok_or_else(pages::foreign)?);
        let shown =
            rest.filter(|stored| show_ended || stored.in_force(now)).map(|stored| (stored.id.clone(), wire(stored)));
        let mut page: Vec<_> = shown.filter(|(_, token)| filter.admits(token)).take(size + 1).collect();
        let more = page.len() > size;
        page.truncate(size);
        let next_page_token = page.last().filter(|_| more).map(|(id, _)| query.token(id)).unwrap_or_default();
        let tokens = page.into_iter().map(|(_, token)| token).collect();
        Ok(Response::new(v1::ListTokensResponse { tokens, next_page_token }))
    }

    async fn get_token(&self, request: Request<v1::GetTokenRequest>) -> Result<Response<v1::Token>, Status> {
        let within = Within::of(&request)?;
        let v1::GetTokenRequest { name } = request.into_inner();
        let all = self.tokens.list(within.scope()).await.map_err(|error| status::store(&error))?;
        let found = all.into_iter().find(|stored| name.strip_prefix("tokens/") == Some(stored.id.as_str()));
        found.map(|stored| Response::new(wire(stored))).ok_or_else(|| status::not_found("token", &name))
    }

    async fn revoke_token(&self, request: Request<v1::RevokeTokenRequest>) -> Result<Response<v1::Token>, Status> {
        let (caller, within) = (caller(&request), Within::of(&request)?);
        let request = request.into_inner();
        let key = requests::key("RevokeToken", &request.request_id, &request)?;
        let v1::RevokeTokenRequest { name, reason, request_id: _, validate_only } = request;
        let key = key.filter(|_| !validate_only);
        let mut faults = Faults::new();
        check_reason(&reason, &mut faults);
        let id = name.strip_prefix("tokens/").filter(|id| !id.is_empty());
        faults.check(id.is_some(), "name", "must be tokens/{id}");
        let id = faults.into_result(id).map_err(|invalid| status::invalid_request(&invalid))?;
        let ended = if validate_only {
            let all = self.tokens.list(within.scope()).await;
            all.map(|all| all.into_iter().find(|stored| stored.id == id))
        } else {
            let caller = caller.asking(key.as_ref());
            let once = key.map(|key| Once::new(key, |ended: &StoredToken| wire(ended.clone()).encode_to_vec()));
            self.tokens.revoke(id, within.scope(), caller, reason, once).await
        };
        let ended = match ended {
            Ok(None) => return Err(status::not_found("token", &name)),
            Ok(Some(ended)) => Ok(ended),
            Err(error) => Err(error),
        };
        requests::respond(ended, |ended| wire(ended.clone()), |error| status::store(&error))
    }

    async fn who_am_i(&self, request: Request<v1::WhoAmIRequest>) -> Result<Response<v1::Principal>, Status> {
        let Principal { name, role, method, expires, .. } = principal(&request)?;
        let (role, namespace, service) = role_wire(&role);
        Ok(Response::new(v1::Principal {
            name: name.to_string(),
            role: role.into(),
            namespace,
            service,
            method: method.name().to_owned(),
            expire_time: expires.map(timestamp),
        }))
    }

    async fn check_access(
        &self,
        request: Request<v1::CheckAccessRequest>,
    ) -> Result<Response<v1::CheckAccessResponse>, Status> {
        let asks = principal(&request)?;
        let v1::CheckAccessRequest { verb, r#type: kind } = request.into_inner();
        let of_kind: Vec<_> = rules::TABLE.iter().filter(|row| row.kind == kind).collect();
        if of_kind.is_empty() {
            let mut kinds: Vec<_> = rules::TABLE.iter().map(|row| row.kind).collect();
            kinds.sort_unstable();
            kinds.dedup();
            return Err(status::invalid_field("type", &format!("must be one of {}", kinds.join(", "))));
        }
        let Some(row) = of_kind.iter().find(|row| row.verb == verb) else {
            let verbs: Vec<_> = of_kind.iter().map(|row| row.verb).collect();
            return Err(status::invalid_field("verb", &format!("with {kind} must be one of {}", verbs.join(", "))));
        };
        let lack = row.admits(&asks).err();
        let Principal { name, role, .. } = &asks;
        let reason = match lack {
            Some(lack) => format!("{name} ({role}) may not: it needs {lack}"),
            None => {
                let bound =
                    role.namespace().filter(|_| row.extent == Extent::Namespaced && asks.kind() == Kind::Operator);
                let where_to =
                    bound.map_or_else(String::new, |own| format!(", in the namespace {own} and in no other"));
                format!("{name} ({role}) may{where_to}: it needs {}", row.rule.needs())
            }
        };
        Ok(Response::new(v1::CheckAccessResponse { allowed: lack.is_none(), reason }))
    }
}

fn made(stored: &StoredToken, secret: &str) -> v1::CreateTokenResponse {
    v1::CreateTokenResponse { token: Some(wire(stored.clone())), secret: secret.to_owned() }
}

fn role_wire(role: &Role) -> (v1::Role, String, String) {
    let wire = match role {
        Role::Viewer(_) => v1::Role::Viewer,
        Role::Operator(_) => v1::Role::Operator,
        Role::Admin(_) => v1::Role::Admin,
        Role::Agent { .. } => v1::Role::Agent,
    };
    let namespace = role.namespace().map(ToString::to_string).unwrap_or_default();
    (wire, namespace, role.service().map(ToString::to_string).unwrap_or_default())
}

/// A token for the wire: without what it is recognised by.
pub(crate) fn wire(stored: StoredToken) -> v1::Token {
    let StoredToken { id, name, digest: _, role, creator, created, expires, revoked } = stored;
    let (role, namespace, service) = role_wire(&role);
    let (revoke_time, revoker, revoke_reason) =
        revoked.map_or_else(Default::default, |ended| (Some(timestamp(ended.at)), ended.by, ended.reason));
    v1::Token {
        // One that is only tried has no id.
        name: if id.is_empty() { String::new() } else { format!("tokens/{id}") },
        display_name: name,
        role: role.into(),
        namespace,
        service,
        create_time: Some(timestamp(created)),
        creator,
        expire_time: Some(timestamp(expires)),
        revoke_time,
        revoker,
        revoke_reason,
    }
}
