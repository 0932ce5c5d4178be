//! A whole server on a free port, and what programs read from its refusals.

use std::sync::Arc;

use fusebox_control_plane::{
    config::Limits,
    serve::serve,
    shutdown::Shutdown,
    store::{StoreHandle, memory::MemoryStore},
};
use fusebox_proto::v1::breaker_service_client::BreakerServiceClient;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Status, transport::Channel};
use tonic_types::{ErrorDetails, StatusExt};

pub(crate) struct Server {
    pub(crate) channel: Channel,
    shutdown: Shutdown,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let store: StoreHandle = Arc::new(MemoryStore::new("api"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = Shutdown::new();
        let end = shutdown.clone();
        tokio::spawn(async move {
            serve(TcpListenerStream::new(listener), store, Limits::default(), end).await.unwrap();
        });
        let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
        Self { channel, shutdown }
    }

    pub(crate) fn breakers(&self) -> BreakerServiceClient<Channel> {
        BreakerServiceClient::new(self.channel.clone())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

/// What programs read from a refusal: code, reason, details.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String, ErrorDetails) {
    let status = result.unwrap_err();
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "fusebox");
    (status.code(), info.reason.clone(), details)
}
