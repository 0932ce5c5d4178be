//! The way to the control plane: one channel, and a client of each service. Interprets nothing that comes back.

use std::{error::Error as _, net::IpAddr, path::Path, process::Stdio, time::Duration};

use fusebox_proto::v1::{
    admin_service_client::AdminServiceClient, audit_service_client::AuditServiceClient,
    breaker_service_client::BreakerServiceClient, fleet_service_client::FleetServiceClient,
    policy_service_client::PolicyServiceClient, rollout_service_client::RolloutServiceClient,
};
use http::Uri;
use tokio::process::Command;
use tonic::{
    Code, Request, Response, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_health::pb::health_client::HealthClient;

use super::{
    context::{Settings, TokenSource},
    failure::{Class, Failure},
};

/// Longer than any healthy network needs, shorter than a person's patience.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For the head of a response; the bodies of streams are not limited by it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A server that is starting again needs about so long.
const SEND_AGAIN: Duration = Duration::from_secs(1);
/// A list of a thousand large policies in one page.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// A control plane that has been reached.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    channel: Way,
}

/// Requests go out with the token.
pub(crate) type Way = InterceptedService<Channel, Bearer>;

/// Shows the token, if there is one.
#[derive(Clone, Debug)]
pub(crate) struct Bearer(Option<AsciiMetadataValue>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl Server {
    /// Connects.
    ///
    /// # Errors
    /// If the address is not one, a file can't be used, or nobody answers there.
    pub(crate) async fn connect(settings: &Settings) -> Result<Self, Failure> {
        let Settings { address, ca, cert, key, token, plaintext_token, namespace: _ } = settings;
        let url = normalise(address)?;
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| bad_address(address, &error.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .user_agent(concat!("fusebox-cli/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| bad_address(address, &error.to_string()))?;
        let bearer = Bearer(match token {
            Some(source) => {
                if url.starts_with("http://") && !is_loopback(endpoint.uri()) && !plaintext_token {
                    let what = format!("the token would go to {url} in plain text, for everybody on the way to read");
                    return Err(Failure::new(Class::Usage, what)
                        .fix("use https://, or say --plaintext-token if the way is safe"));
                }
                Some(bearer(source).await?)
            }
            None => None,
        });
        let endpoint = if url.starts_with("https://") {
            let tls = tls(ca.as_deref(), cert.as_deref().zip(key.as_deref()))?;
            endpoint.tls_config(tls).map_err(|error| unreachable(&url, &error))?
        } else if ca.is_some() || cert.is_some() {
            return Err(bad_address(address, "certificates are of no use without https://"));
        } else {
            endpoint
        };
        if cert.is_some() != key.is_some() {
            return Err(Failure::new(Class::Usage, "--cert and --key go together"));
        }
        match endpoint.connect().await {
            Ok(channel) => Ok(Self { channel: InterceptedService::new(channel, bearer) }),
            Err(error) => Err(unreachable(&url, &error)),
        }
    }

    /// The client for health.
    pub(crate) fn health(&self) -> HealthClient<Way> {
        HealthClient::new(self.channel.clone())
    }

    /// The client for policies.
    pub(crate) fn policies(&self) -> PolicyServiceClient<Way> {
        PolicyServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// The client for breakers.
    pub(crate) fn breakers(&self) -> BreakerServiceClient<Way> {
        BreakerServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// The client for rollouts.
    pub(crate) fn rollouts(&self) -> RolloutServiceClient<Way> {
        RolloutServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// The client for the audit log.
    pub(crate) fn audit(&self) -> AuditServiceClient<Way> {
        AuditServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// The client for access.
    pub(crate) fn admin(&self) -> AdminServiceClient<Way> {
        AdminServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// The client for instances.
    pub(crate) fn fleet(&self) -> FleetServiceClient<Way> {
        FleetServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }
}

/// The id of a write, by which the server knows it again.
pub(crate) fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Sends a write, and once more if it may have been lost on the way: it carries a [`request_id`], so it is done once.
pub(crate) async fn write<T>(send: impl AsyncFn() -> Result<Response<T>, Status>) -> Result<Response<T>, Status> {
    match send().await {
        Err(status) if status.code() == Code::Unavailable => {
            tokio::time::sleep(SEND_AGAIN).await;
            send().await
        }
        answer => answer,
    }
}

fn normalise(address: &str) -> Result<String, Failure> {
    match address.split_once("://") {
        None if address.is_empty() => Err(bad_address(address, "it is empty")),
        None => Ok(format!("http://{address}")),
        Some(("http" | "https", rest)) if !rest.is_empty() => Ok(address.to_owned()),
        Some(_) => Err(bad_address(address, "it must begin with http:// or https://")),
    }
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    host == "localhost"
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::new(Class::Usage, format!("cannot read {}: {error}", path.display())))
}

fn tls(ca: Option<&Path>, identity: Option<(&Path, &Path)>) -> Result<ClientTlsConfig, Failure> {
    let tls = match ca {
        Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    Ok(match identity {
        Some((cert, key)) => tls.identity(Identity::from_pem(read(cert)?, read(key)?)),
        None => tls,
    })
}

async fn bearer(source: &TokenSource) -> Result<AsciiMetadataValue, Failure> {
    let text = match source {
        TokenSource::Text(text) => text.clone(),
        TokenSource::Command(command) => {
            let failed = |why: String| Failure::new(Class::Usage, format!("the context's token command failed: {why}"));
            let run =
                Command::new("sh").args(["-c", command]).stdin(Stdio::inherit()).stderr(Stdio::inherit()).output();
            let output = run.await.map_err(|error| failed(error.to_string()))?;
            if !output.status.success() {
                return Err(failed(output.status.to_string()));
            }
            let text = String::from_utf8(output.stdout).map_err(|_| failed("its output is no text".to_owned()))?;
            text.lines().next().unwrap_or_default().to_owned().into()
        }
    };
    let mut value: AsciiMetadataValue = format!("Bearer {}", text.reveal())
        .parse()
        .map_err(|_| Failure::new(Class::Usage, "the token has characters that no token has"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn bad_address(address: &str, why: &str) -> Failure {
    Failure::new(Class::Usage, format!("\"{address}\" is not an address of a control plane: {why}"))
        .fix("give --address or FUSEBOX_ADDRESS like http://127.0.0.1:7443")
}

fn unreachable(url: &str, error: &tonic::transport::Error) -> Failure {
    // The last cause ("connection refused") is the one that helps.
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        why = inner.to_string();
        cause = inner.source();
    }
    Failure::new(Class::Unavailable, format!("cannot reach the control plane at {url}: {why}")).fix(remedy(&why))
}

fn remedy(why: &str) -> &'static str {
    if why.contains("UnknownIssuer") || why.contains("certificate") {
        "give the CA of the control plane with --ca or FUSEBOX_CA, and an address with a name that is in its certificate"
    } else {
        "start one with `fusebox serve`, or name another with --address or FUSEBOX_ADDRESS"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_the_scheme() {
        assert_eq!(normalise("localhost:7443").unwrap(), "http://localhost:7443");
        assert_eq!(normalise("https://x").unwrap(), "https://x");
        assert_eq!(normalise("http://[::1]:1").unwrap(), "http://[::1]:1");
        for bad in ["", "ftp://x", "http://", "https://"] {
            assert_eq!(normalise(bad).unwrap_err().class, Class::Usage, "{bad}");
        }
    }
}
