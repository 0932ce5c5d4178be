//! A replica of service A: the real SDK, calls at random moments, and its status on record.

use std::{io, time::Duration};

use fusebox::{CallError, Client};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use turmoil::net::TcpStream;

use crate::{
    history::{History, Shown, What},
    net,
    tap::{End, Tap},
    world::{PLANE_ADDRESS, TARGET, TARGET_PORT},
};

/// How often a replica's status is looked at. What it shows is known to be so until this much later.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One replica.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    pub(crate) name: &'static str,
    pub(crate) zone: Option<&'static str>,
    /// Mean time from the end of a call to the next one. Without it the replica makes no calls.
    pub(crate) every: Option<Duration>,
}

impl Replica {
    pub(crate) const fn busy(name: &'static str) -> Self {
        Self { name, zone: None, every: Some(Duration::from_millis(100)) }
    }

    pub(crate) const fn idle(name: &'static str) -> Self {
        Self { name, zone: None, every: None }
    }

    pub(crate) const fn in_zone(self, zone: &'static str) -> Self {
        Self { zone: Some(zone), ..self }
    }

    pub(crate) const fn every(self, millis: u64) -> Self {
        Self { every: Some(Duration::from_millis(millis)), ..self }
    }
}

/// The process, from its start to the end of the simulation. `index` is its number, by which the target knows it.
pub(crate) async fn run(replica: Replica, index: u8, history: History) -> turmoil::Result {
    let name = replica.name.to_owned();
    history.record(What::Started { replica: name.clone() });
    let tap = {
        let (history, name) = (history.clone(), name.clone());
        move || Some(Tap::new(history.clone(), name.clone(), End::Replica))
    };
    let mut builder = Client::builder("service-a")
        .instance(&*name)
        .control_plane(PLANE_ADDRESS)
        .dial_with(move |endpoint| endpoint.connect_with_connector_lazy(net::connector(tap.clone())));
    if let Some(zone) = replica.zone {
        builder = builder.zone(zone);
    }
    let client = builder.start()?;
    tokio::spawn(look(client.clone(), name.clone(), history.clone()));
    let Some(every) = replica.every else { return std::future::pending().await };
    let target = client.target("service-b");
    loop {
        // Exponential, as calls of many users come.
        tokio::time::sleep(every.mul_f64(-(1.0 - fastrand::f64()).ln())).await;
        let result = target
            .call(|| {
                let shown = Shown::of(&client);
                history.record(What::Admitted { replica: name.clone(), shown });
                ask(index)
            })
            .await;
        let replica = name.clone();
        history.record(match result {
            Err(CallError::Rejected(_)) => What::Refused { replica, shown: Shown::of(&client) },
            ended => What::Ended { replica, ok: ended.is_ok() },
        });
    }
}

/// How long a caller waits where no policy says less: before the first policies have come.
const PATIENCE: Duration = Duration::from_secs(2);

/// One request and its answer.
async fn ask(index: u8) -> io::Result<()> {
    tokio::time::timeout(PATIENCE, exchange(index)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn exchange(index: u8) -> io::Result<()> {
    let mut stream = TcpStream::connect((TARGET, TARGET_PORT)).await?;
    stream.write_u8(index).await?;
    match stream.read_u8().await? {
        1 => Ok(()),
        _ => Err(io::Error::other("service B is not well")),
    }
}

async fn look(client: Client, name: String, history: History) {
    let mut last = None;
    loop {
        let shown = Shown::of(&client);
        if last.as_ref() != Some(&shown) {
            history.record(What::Shown { replica: name.clone(), shown: shown.clone() });
            last = Some(shown);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
