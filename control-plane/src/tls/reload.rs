//! Files that change under a running server: certificates are renewed every day, and nobody should be cut off by it.
//!
//! The files are looked at every second, by content: a volume of Kubernetes changes them by turning a link, which no watcher of single files
//! sees. What can't be used is told once, and what was there before stays in force. Open connections go on with what they began with.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use super::{Files, Loaded, TlsError};
use crate::{
    access::{Bootstrap, secret::Digest},
    shutdown::Shutdown,
};

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long before its end a certificate is alarmed about, and how often.
const ALARM_BEFORE: Duration = Duration::from_secs(24 * 60 * 60);
const ALARM_EVERY: Duration = Duration::from_secs(60 * 60);

/// What the next handshake uses. A cheap handle.
#[derive(Clone, Debug)]
pub struct Tls(Arc<ArcSwap<Loaded>>);

impl Tls {
    /// Reads the files, and again whenever they change, until the end.
    ///
    /// # Errors
    /// They are of no use at the start.
    pub fn start(files: Files, shutdown: &Shutdown) -> Result<Self, TlsError> {
        let seen = look_now(&files.paths().map(Into::into).collect::<Vec<_>>());
        let loaded = files.load()?;
        let expires = loaded.expires;
        let tls = Self(Arc::new(ArcSwap::from_pointee(loaded)));
        tracing::info!(
            event.name = "tls.loaded", certificate = %files.certificate.display(),
            expires = %humantime::format_rfc3339_seconds(expires), "certificate loaded"
        );
        tokio::spawn(tls.clone().keep(files, seen, shutdown.clone()));
        Ok(tls)
    }

    /// For a handshake that begins now.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.load().config)
    }

    /// From when on clients refuse the certificate.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.0.load().expires
    }

    /// `seen` is from before the first reading: what changes in between is read again.
    async fn keep(self, files: Files, mut seen: Vec<Option<Digest>>, shutdown: Shutdown) {
        let paths: Vec<PathBuf> = files.paths().map(Into::into).collect();
        let mut alarmed: Option<tokio::time::Instant> = None;
        while pause(&shutdown).await {
            self.alarm(&mut alarmed);
            let now = look(paths.clone()).await;
            if now == seen {
                continue;
            }
            seen = now;
            let own = files.clone();
            // A panic in there is a fault like any other: what is in force stays.
            let loaded = tokio::task::spawn_blocking(move || own.load()).await;
            match loaded {
                Ok(Ok(loaded)) => {
                    tracing::info!(
                        event.name = "tls.reloaded", certificate = %files.certificate.display(),
                        expires = %humantime::format_rfc3339_seconds(loaded.expires), "certificate reloaded"
                    );
                    self.0.store(Arc::new(loaded));
                }
                Ok(Err(error)) => tracing::error!(
                    event.name = "tls.reload_failed",
                    error = &error as &dyn std::error::Error,
                    "the new certificate is of no use: the one before stays in force"
                ),
                Err(error) => tracing::error!(
                    event.name = "tls.reload_failed",
                    error = &error as &dyn std::error::Error,
                    "reading the new certificate failed: the one before stays in force"
                ),
            }
        }
    }

    fn alarm(&self, alarmed: &mut Option<tokio::time::Instant>) {
        let left = self.0.load().expires.duration_since(SystemTime::now()).unwrap_or_default();
        if left > ALARM_BEFORE || alarmed.is_some_and(|at| at.elapsed() < ALARM_EVERY) {
            return;
        }
        *alarmed = Some(tokio::time::Instant::now());
        if left.is_zero() {
            tracing::error!(event.name = "tls.expired", "the server's certificate has expired: clients refuse it");
        } else {
            tracing::warn!(
                event.name = "tls.expires_soon",
                left_s = left.as_secs(),
                "the server's certificate expires soon and was not renewed"
            );
        }
    }
}

/// Text in the file of a bootstrap token that can't be one.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// It can't be read.
    #[error("cannot read the bootstrap token in {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It could be guessed, or could not be sent.
    #[error(
        "{path} holds no bootstrap token: it must be one line of at least {} visible characters, like from `openssl rand -hex 32`",
        Bootstrap::SHORTEST
    )]
    Unfit {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the token that stands in a file, and again whenever it changes; without the file there is none.
///
/// # Errors
/// It is of no use at the start.
pub fn bootstrap(path: PathBuf, shutdown: &Shutdown) -> Result<Bootstrap, BootstrapError> {
    let mut seen = look_now(std::slice::from_ref(&path));
    let held = Bootstrap::default();
    held.set(Some(&bootstrap_text(&path)?));
    let (keeper, shutdown) = (held.clone(), shutdown.clone());
    tokio::spawn(async move {
        while pause(&shutdown).await {
            let now = look(vec![path.clone()]).await;
            if now == seen {
                continue;
            }
            seen = now;
            match bootstrap_text(&path) {
                Ok(text) => {
                    tracing::info!(event.name = "bootstrap.reloaded", "the bootstrap token has changed");
                    keeper.set(Some(&text));
                }
                Err(error) => {
                    tracing::warn!(
                        event.name = "bootstrap.ended",
                        error = &error as &dyn std::error::Error,
                        "the bootstrap token counts no more"
                    );
                    keeper.set(None);
                }
            }
        }
    });
    Ok(held)
}

fn bootstrap_text(path: &PathBuf) -> Result<String, BootstrapError> {
    let text = std::fs::read_to_string(path).map_err(|source| BootstrapError::Read { path: path.clone(), source })?;
    let text = text.trim();
    if text.len() < Bootstrap::SHORTEST || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(BootstrapError::Unfit { path: path.clone() });
    }
    Ok(text.to_owned())
}

/// Waits for the next look; says whether there is one.
pub(crate) async fn pause(shutdown: &Shutdown) -> bool {
    tokio::select! {
        () = tokio::time::sleep(LOOK_EVERY) => true,
        () = shutdown.begun() => false,
    }
}

/// What the files hold, told apart by digests: secrets are not kept. Taken before they are read, so that no change is missed.
pub(crate) fn look_now(paths: &[PathBuf]) -> Vec<Option<Digest>> {
    paths.iter().map(|path| std::fs::read(path).ok().map(|bytes| Digest::of_bytes(&bytes))).collect()
}

/// The same, off the tasks that serve.
pub(crate) async fn look(paths: Vec<PathBuf>) -> Vec<Option<Digest>> {
    tokio::task::spawn_blocking(move || look_now(&paths)).await.unwrap_or_default()
}
