//! Service B: as well as its script says, which is a function of time and of who asks.

use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use turmoil::net::{TcpListener, TcpStream};

use crate::{
    history::{History, What},
    replica::Replica,
    world::TARGET_PORT,
};

/// The target of most stories.
pub(crate) const SERVICE_B: &str = "service-b";

/// How service B answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// After a few milliseconds, and well.
    Well,
    /// With an error.
    Failing,
    /// Not at all.
    Hanging,
}

/// Its health at a time, for a replica.
pub(crate) type Script = Arc<dyn Fn(Duration, &Replica) -> Health + Send + Sync>;

/// The process.
pub(crate) async fn run(replicas: Arc<[Replica]>, script: Script, history: History) -> turmoil::Result {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, TARGET_PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (replicas, script, history) = (Arc::clone(&replicas), Arc::clone(&script), history.clone());
        tokio::spawn(async move {
            // Whoever asked may have given up.
            let _ = answer(stream, &replicas, &script, &history).await;
        });
    }
}

async fn answer(mut stream: TcpStream, replicas: &[Replica], script: &Script, history: &History) -> io::Result<()> {
    let index = usize::from(stream.read_u8().await?);
    let replica = replicas.get(index).ok_or_else(|| io::Error::other("nobody of that number"))?;
    history.record(What::Reached { replica: replica.name.to_owned() });
    let now = turmoil::sim_elapsed().expect("on a host");
    match script(now, replica) {
        Health::Well => {
            tokio::time::sleep(Duration::from_millis(5)).await;
            stream.write_u8(1).await
        }
        Health::Failing => stream.write_u8(0).await,
        // Until the caller closes its end.
        Health::Hanging => stream.read_u8().await.map(|_| ()),
    }
}
