//! What every request passes: who calls, whether they may, and how much.

use std::net::IpAddr;

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use tonic::{Code, Status, transport::server::TcpConnectInfo};

use super::{
    Access, Kind, Principal,
    guarded::Guarded,
    rules::{self, Lack, Rule, Weight},
};
use crate::{
    grpc::{complete::is_grpc, status},
    tls::Peer,
};

/// Stands before every service: as a middleware of the router.
pub async fn gate(State(access): State<Access>, mut request: Request, next: Next) -> Response {
    let address = address(&request);
    let from = address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
    if let Some(address) = request.extensions().get::<Peer>().and_then(|peer| peer.address) {
        // What tonic's own requests look for.
        let info = TcpConnectInfo { local_addr: None, remote_addr: Some(address) };
        request.extensions_mut().insert(info);
    }
    if request.extensions().get::<Peer>().is_some_and(|peer| peer.one_too_many) {
        return refuse(&request, status::too_many_connections());
    }
    let path = request.uri().path();
    let row = rules::of(path);
    let (rule, weight) = match row {
        Some(row) => (row.rule, row.weight),
        None => match rules::PAGES.iter().find(|(page, _)| *page == path) {
            Some((_, rule)) => (*rule, Weight::Read),
            // Nothing is served that the table does not know.
            None if is_grpc(request.headers()) => return status::unlisted(path).into_http::<Body>(),
            None => return StatusCode::NOT_FOUND.into_response(),
        },
    };
    if rule == Rule::Everyone {
        return next.run(request).await;
    }
    let known = if access.is_open() {
        Ok(Principal::anonymous(&from))
    } else {
        let certificate = request.extensions().get::<Peer>().and_then(|peer| peer.certificate.clone());
        access.authenticate(request.headers(), certificate.as_deref())
    };
    let principal = match known {
        Ok(principal) => principal,
        Err(refusal) => {
            let counted = address.map_or(Ok(()), |address| access.limits().failure(address));
            let refused = match counted {
                // What is refused without being looked at is not logged either: that is a flood.
                Err(too_much) => status::too_much("failed authentications from this address", too_much),
                Ok(()) => {
                    tracing::warn!(
                        event.name = "auth.failed", path, from, reason = %refusal,
                        "somebody is not known"
                    );
                    status::unauthenticated(&refusal)
                }
            };
            return refuse(&request, refused);
        }
    };
    let admitted = match row {
        Some(row) => row.admits(&principal),
        None if rule.allows(&principal) => Ok(()),
        None => Err(Lack::Role(rule)),
    };
    if let Err(lack) = admitted {
        tracing::warn!(
            event.name = "auth.denied", path, principal = &*principal.name, role = %principal.role,
            "somebody asks for what they may not have"
        );
        let denied = status::permission_denied(path, &principal, lack);
        return refuse(&request, denied);
    }
    let mut open = None;
    if principal.kind() != Kind::Anonymous {
        let counted = match weight {
            Weight::Read => Ok(()),
            Weight::Write => access.limits().write(&principal.name).map_err(|too_much| ("changes", too_much)),
            Weight::Stream => match access.limits().stream(&principal.name) {
                Ok(counted) => {
                    open = Some(counted);
                    Ok(())
                }
                Err(too_much) => Err(("open streams", too_much)),
            },
        };
        if let Err((what, too_much)) = counted {
            return refuse(&request, status::too_much(&format!("{what} by {}", principal.name), too_much));
        }
    }
    if principal.kind() != Kind::Anonymous {
        request.extensions_mut().insert(crate::caller::Caller::known(&principal));
    }
    request.extensions_mut().insert(principal.clone());
    let response = next.run(request).await;
    if weight != Weight::Stream || principal.kind() == Kind::Anonymous {
        return response;
    }
    response.map(|body| Body::new(Guarded::new(body, &principal, open)))
}

/// From where it comes.
fn address(request: &Request) -> Option<IpAddr> {
    let extensions = request.extensions();
    let address = match extensions.get::<Peer>() {
        Some(peer) => peer.address,
        None => extensions.get::<TcpConnectInfo>().and_then(|info| info.remote_addr),
    };
    address.map(|address| address.ip())
}

/// For a gRPC client a status, for others what HTTP has.
fn refuse(request: &Request, refused: Status) -> Response {
    if is_grpc(request.headers()) {
        return refused.into_http::<Body>();
    }
    let code = if refused.code() == Code::Unauthenticated {
        StatusCode::UNAUTHORIZED
    } else if refused.code() == Code::ResourceExhausted {
        StatusCode::TOO_MANY_REQUESTS
    } else {
        StatusCode::FORBIDDEN
    };
    let mut response = (code, format!("{}\n", refused.message())).into_response();
    if code == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
