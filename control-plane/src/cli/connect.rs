//! The way to the control plane: one channel, three clients. Interprets nothing that comes back.

use std::{error::Error as _, time::Duration};

use fusebox_proto::v1::{
    audit_service_client::AuditServiceClient, breaker_service_client::BreakerServiceClient,
    fleet_service_client::FleetServiceClient, policy_service_client::PolicyServiceClient,
};
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};

use super::failure::{Class, Failure};

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
    channel: Channel,
}

impl Server {
    /// Connects.
    ///
    /// # Errors
    /// If the address is not one, or nobody answers there.
    pub(crate) async fn connect(address: &str) -> Result<Self, Failure> {
        let url = normalise(address)?;
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| bad_address(address, &error.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .user_agent(concat!("fusebox-cli/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| bad_address(address, &error.to_string()))?;
        match endpoint.connect().await {
            Ok(channel) => Ok(Self { channel }),
            Err(error) => Err(unreachable(&url, &error)),
        }
    }

    /// The client for policies.
    pub(crate) fn policies(&self) -> PolicyServiceClient<Channel> {
        PolicyServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// The client for breakers.
    pub(crate) fn breakers(&self) -> BreakerServiceClient<Channel> {
        BreakerServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// The client for the audit log.
    pub(crate) fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// The client for instances.
    pub(crate) fn fleet(&self) -> FleetServiceClient<Channel> {
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
        Some(("http", rest)) if !rest.is_empty() => Ok(address.to_owned()),
        Some(("https", _)) => Err(bad_address(address, "this build speaks http only")),
        Some(_) => Err(bad_address(address, "it must begin with http://")),
    }
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
    Failure::new(Class::Unavailable, format!("cannot reach the control plane at {url}: {why}"))
        .fix("start one with `fusebox serve`, or name another with --address or FUSEBOX_ADDRESS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_the_scheme() {
        assert_eq!(normalise("localhost:7443").unwrap(), "http://localhost:7443");
        assert_eq!(normalise("http://[::1]:1").unwrap(), "http://[::1]:1");
        for bad in ["", "https://x", "ftp://x", "http://"] {
            assert_eq!(normalise(bad).unwrap_err().class, Class::Usage, "{bad}");
        }
    }
}
