//! A replica of service A: the real SDK, calls at random moments, and its status on record.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fusebox::{CallError, Client};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use turmoil::net::TcpStream;

use crate::{
    history::{History, Shown, What},
    net,
    tap::{End, Tap},
    target::SERVICE_B,
    world::{TARGET, TARGET_PORT},
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
    /// What it calls, each as often.
    pub(crate) targets: &'static [&'static str],
}

impl Replica {
    pub(crate) const fn busy(name: &'static str) -> Self {
        Self { name, zone: None, every: Some(Duration::from_millis(100)), targets: &[SERVICE_B] }
    }

    pub(crate) const fn idle(name: &'static str) -> Self {
        Self { name, zone: None, every: None, targets: &[SERVICE_B] }
    }

    pub(crate) const fn in_zone(self, zone: &'static str) -> Self {
        Self { zone: Some(zone), ..self }
    }

    pub(crate) const fn every(self, millis: u64) -> Self {
        Self { every: Some(Duration::from_millis(millis)), ..self }
    }

    pub(crate) const fn calls(self, targets: &'static [&'static str]) -> Self {
        Self { targets, ..self }
    }
}

/// Processes that are about to stand still, and for how long.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pauses(Arc<Mutex<BTreeMap<String, Duration>>>);

impl Pauses {
    pub(crate) fn stop(&self, replica: &str, length: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(replica.to_owned(), length);
    }

    pub(crate) fn take(&self, replica: &str) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(replica)
    }

    /// Lets the process' clock go on while nothing in it does, each time that it is to stand still.
    pub(crate) async fn keep(self, process: &'static str) {
        loop {
            if let Some(length) = self.take(process) {
                tokio::time::advance(length).await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// What can be done to replicas from outside.
pub(crate) struct Replicas {
    pub(crate) pauses: Pauses,
    /// Where they keep their policies, if they do.
    pub(crate) folders: Option<TempDir>,
}

impl Replicas {
    pub(crate) fn cache(&self, replica: &str) -> Option<PathBuf> {
        self.folders.as_ref().map(|folders| folders.path().join(replica))
    }

    pub(crate) fn spoil(&self, replica: &str) {
        let folder = self.cache(replica).expect("replicas keep something");
        for file in std::fs::read_dir(folder).expect("it has kept something") {
            std::fs::write(file.expect("a file").path(), "FUSEBOX, or so it says").expect("a disk that works");
        }
    }
}

/// Where a replica lives.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    /// Its number, by which the target knows it.
    pub(crate) index: u8,
    pub(crate) control_plane: String,
    /// Where it keeps its policies, if it does.
    pub(crate) cache: Option<PathBuf>,
    pub(crate) pauses: Pauses,
}

/// The process, from its start to the end of the simulation.
pub(crate) async fn run(replica: Replica, home: Home, history: History) -> turmoil::Result {
    let Home { index, control_plane, cache, pauses } = home;
    let name = replica.name.to_owned();
    history.record(What::Started { replica: name.clone() });
    let tap = {
        let (history, name) = (history.clone(), name.clone());
        move || Some(Tap::new(history.clone(), name.clone(), End::Replica))
    };
    let mut builder = Client::builder("service-a")
        .instance(&*name)
        .control_plane(control_plane)
        .dial_with(move |endpoint| endpoint.connect_with_connector_lazy(net::connector(tap.clone())));
    if let Some(folder) = cache {
        builder = builder.cache_dir(folder);
    }
    if let Some(zone) = replica.zone {
        builder = builder.zone(zone);
    }
    let client = builder.start()?;
    tokio::spawn(look(client.clone(), name.clone(), history.clone(), pauses));
    let Some(every) = replica.every else { return std::future::pending().await };
    for other in replica.targets.iter().filter(|target| **target != SERVICE_B) {
        let target = client.target(other);
        tokio::spawn(async move {
            loop {
                wait(every).await;
                // Service B is what the story is about.
                let _ = target.call(|| ask(index)).await;
            }
        });
    }
    let target = client.target(SERVICE_B);
    loop {
        wait(every).await;
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

/// Exponential, as calls of many users come.
async fn wait(every: Duration) {
    tokio::time::sleep(every.mul_f64(-(1.0 - fastrand::f64()).ln())).await;
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

async fn look(client: Client, name: String, history: History, pauses: Pauses) {
    let mut last = None;
    loop {
        if let Some(length) = pauses.take(&name) {
            // The process' clock goes on while nothing in it does.
            tokio::time::advance(length).await;
        }
        let shown = Shown::of(&client);
        if last.as_ref() != Some(&shown) {
            history.record(What::Shown { replica: name.clone(), shown: shown.clone() });
            last = Some(shown);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
