//! gRPC-Web, for pages in browsers: of the origins that an operator has named, and of no others.
//!
//! It is off unless an origin is named. A browser sends what any page tells it to, also to a server on the loopback address that asks nobody
//! who they are; there, the page's origin is all that stands between a stranger's page and a fleet's policies. So a request that says where
//! its page comes from, as browsers' do, is turned away unless that origin is named: CORS alone hides answers and forbids little, and a
//! page whose name has been made to mean this machine ("DNS rebinding") counts as this server's own.

use std::{str::FromStr, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use tonic_web::GrpcWebLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// What a page may read of an answer, besides its message.
const SHOWN: [HeaderName; 3] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
];
/// What a page may send.
const TAKEN: [HeaderName; 5] = [
    header::CONTENT_TYPE,
    header::AUTHORIZATION,
    HeaderName::from_static("x-grpc-web"),
    HeaderName::from_static("x-user-agent"),
    HeaderName::from_static("grpc-timeout"),
];
/// How long a browser need not ask again.
const REMEMBERED: std::time::Duration = std::time::Duration::from_secs(3600);

/// Where a page comes from, as browsers say it: `https://ops.example`, with a port if it is not the scheme's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(HeaderValue);

/// What is no origin.
#[derive(Debug, thiserror::Error)]
#[error(
    "write an origin as browsers do, such as https://ops.example or http://localhost:8080: a scheme, a host in lower case, no path"
)]
pub struct NoOrigin;

impl FromStr for Origin {
    type Err = NoOrigin;

    fn from_str(text: &str) -> Result<Self, NoOrigin> {
        let uri: Uri = text.parse().map_err(|_| NoOrigin)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(NoOrigin) };
        // What browsers send has this form and no other; one that is written otherwise would never match.
        if !matches!(scheme, "http" | "https")
            || text != format!("{scheme}://{authority}")
            || text.bytes().any(|byte| byte.is_ascii_uppercase())
            || authority.as_str().contains('@')
        {
            return Err(NoOrigin);
        }
        HeaderValue::from_str(text).map(Self).map_err(|_| NoOrigin)
    }
}

/// Lets pages of these origins in, and no others.
pub(crate) fn serve(router: Router, origins: &[Origin]) -> Router {
    let named: Arc<[HeaderValue]> = origins.iter().map(|origin| origin.0.clone()).collect();
    let router = if named.is_empty() { router } else { router.layer(GrpcWebLayer::new()).layer(cors(&named)) };
    router.layer(middleware::from_fn_with_state(named, turn_away))
}

fn cors(named: &[HeaderValue]) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(named.iter().cloned()))
        .allow_methods([Method::POST])
        .allow_headers(TAKEN)
        .expose_headers(SHOWN)
        .max_age(REMEMBERED)
}

async fn turn_away(State(named): State<Arc<[HeaderValue]>>, request: Request, next: Next) -> Response {
    match request.headers().get(header::ORIGIN) {
        Some(origin) if !named.contains(origin) => {
            let origin = String::from_utf8_lossy(origin.as_bytes());
            tracing::warn!(event.name = "web.refused", %origin, "a page of an origin that is not named has been turned away");
            (
                StatusCode::FORBIDDEN,
                "pages of this origin may not call this server: --web-origin names those that may\n",
            )
                .into_response()
        }
        Some(_) | None => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_send_it() {
        for good in ["https://ops.example", "http://localhost:8080", "http://[::1]:3000"] {
            assert_eq!(good.parse::<Origin>().unwrap().0, good);
        }
        for bad in [
            "*",
            "",
            "ops.example",
            "https://ops.example/",
            "https://ops.example/x",
            "ftp://ops.example",
            "https://Ops.example",
            "https://me@ops.example",
            "null",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }
}
