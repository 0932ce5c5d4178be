//! The settings of a client, and how it starts.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use fusebox_policy::{CallerName, InstanceId, Invalid, Namespace, Policy, PolicySet, Zone};
use tokio::sync::{Notify, watch};
use tonic::transport::{Channel, Endpoint};

use super::{Client, Inner};
use crate::{
    clock::Clock,
    credentials::{Credentials, Tls, Token, Told, token_text},
    error::SetupError,
    link::{
        self, Dial, Link, Server,
        cache::{CacheFile, KeyFile},
    },
    registry::{Caller, Registry},
};

/// As many as the control plane takes.
const MAX_LABELS: usize = 32;
/// Names the file with the key of the cache.
const CACHE_KEY: &str = "FUSEBOX_CACHE_KEY_FILE";
/// The kill switch of coordination.
const FLEET_SWITCH: &str = "FUSEBOX_FLEET";

/// The settings of a client.
#[must_use]
pub struct ClientBuilder {
    service: String,
    namespace: Option<String>,
    instance: Option<String>,
    zone: Option<String>,
    labels: BTreeMap<String, String>,
    control_plane: Option<String>,
    credentials: Told,
    cache_dir: Option<PathBuf>,
    cache_key: Option<KeyFile>,
    builtin: Vec<Policy>,
    allow_chaos: bool,
    ignore_fleet: bool,
    dial: Dial,
    #[cfg(feature = "test")]
    recorder: Option<Arc<crate::testing::Recorder>>,
    #[cfg(feature = "metrics")]
    metrics: bool,
    /// The first bad argument that could not be told at once.
    fault: Option<SetupError>,
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("service", &self.service)
            .field("namespace", &self.namespace)
            .field("instance", &self.instance)
            .field("zone", &self.zone)
            .field("labels", &self.labels)
            .field("control_plane", &self.control_plane)
            .field("cache_dir", &self.cache_dir)
            .field("cache_key_file", &self.cache_key)
            .field("builtin", &self.builtin)
            .field("allow_chaos", &self.allow_chaos)
            .field("ignore_fleet", &self.ignore_fleet)
            .finish_non_exhaustive()
    }
}

impl ClientBuilder {
    pub(super) fn new(service: String) -> Self {
        Self {
            service,
            namespace: None,
            instance: None,
            zone: None,
            labels: BTreeMap::new(),
            control_plane: None,
            credentials: Told::default(),
            cache_dir: None,
            cache_key: None,
            builtin: Vec::new(),
            allow_chaos: false,
            ignore_fleet: false,
            dial: Arc::new(Endpoint::connect_lazy),
            #[cfg(feature = "test")]
            recorder: None,
            #[cfg(feature = "metrics")]
            metrics: true,
            fault: None,
        }
    }

    /// The namespace whose policies apply. Default: `default`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// The name of this replica, unique in the service. Default: the host's name, where it is known, and a random part.
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// The zone of this replica: replicas of one zone open together. Default: none.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Adds a label, for operators.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// The address of the control plane: `https://fusebox.example.org:7443`, or `http://127.0.0.1:7443`. Default: none, and the client never
    /// connects.
    pub fn control_plane(mut self, address: impl Into<String>) -> Self {
        self.control_plane = Some(address.into());
        self
    }

    /// How TLS is spoken to an `https://` address. Default: what `FUSEBOX_CA`, `FUSEBOX_CERT` and `FUSEBOX_KEY` say, paths of PEM files;
    /// without them the system's CAs count, and no certificate is shown.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.credentials.tls = Some(tls);
        self
    }

    /// The token that this process shows to the control plane. Default: what `FUSEBOX_TOKEN` holds, else the file that
    /// `FUSEBOX_TOKEN_FILE` names, else none.
    pub fn token(mut self, token: impl AsRef<str>) -> Self {
        match token_text(token.as_ref()) {
            Some(text) => self.credentials.token = Some(Token::Text(text)),
            None => {
                self.fault.get_or_insert(SetupError::BadToken);
            }
        }
        self
    }

    /// The same from an environment variable, which must be set.
    pub fn token_from_env(mut self, name: &str) -> Self {
        match std::env::var(name).ok().filter(|text| !text.is_empty()) {
            Some(text) => self.token(text),
            None => {
                self.fault.get_or_insert(SetupError::NoTokenInEnv { name: name.to_owned() });
                self
            }
        }
    }

    /// The same from a file, which is read anew for each connection: a renewed token counts from the next one on.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.credentials.token = Some(Token::File(path.into()));
        self
    }

    /// Whether the token may go in plain text to an `http://` address that is not of this machine. Default: no.
    pub const fn plaintext_token(mut self, allow: bool) -> Self {
        self.credentials.plaintext_token = allow;
        self
    }

    /// The folder in which the last good policies are kept. Default: none, and nothing is kept.
    pub fn cache_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(dir.into());
        self
    }

    /// The file with a key, of at least 32 bytes, that authenticates what is kept in [`ClientBuilder::cache_dir`]: who can write there and
    /// does not have the key can't bring a policy of theirs in force. Make one with `openssl rand -hex 32`. It is read anew whenever the
    /// cache is read or written; replicas that share a folder share the key. A file that was written without it, with another one, or
    /// changed, counts as none, which is told as an event and counted. Default: the file that `FUSEBOX_CACHE_KEY_FILE` names, else none,
    /// and the cache is protected against damage only.
    pub fn cache_key_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.cache_key = Some(KeyFile::new(path));
        self
    }

    /// A policy that protects calls to its target until the control plane, or the cache, has one for that target.
    pub fn builtin_policy(mut self, policy: Policy) -> Self {
        self.builtin.push(policy);
        self
    }

    /// Built-in policies as manifests, in YAML or JSON; see [`ClientBuilder::builtin_policy`].
    pub fn builtin_manifest(mut self, text: &str) -> Self {
        match fusebox_proto::manifest::parse("built-in policy", text) {
            Ok(documents) => self.builtin.extend(documents.into_iter().map(|document| document.policy)),
            Err(error) => {
                self.fault.get_or_insert(SetupError::BuiltinPolicy(Box::new(error)));
            }
        }
        self
    }

    /// Whether policies may make trouble on purpose in this process. Default: no, and a policy with a chaos strategy is refused here,
    /// with the reason reported to the operator; its last good version stays in force.
    pub const fn allow_chaos(mut self, allow: bool) -> Self {
        self.allow_chaos = allow;
        self
    }

    /// The kill switch of coordination: whether this process obeys nothing that the fleet, or an operator, says about its breakers, so that
    /// only its own breakers decide. Policies are followed all the same. It is above overrides too, and works without a server. The control
    /// plane still counts what this process reports, and shows operators that it doesn't obey. Default: no. The environment variable
    /// `FUSEBOX_FLEET=off` does the same without a change of code; `on`, or none, leaves it to this setting.
    pub const fn ignore_fleet(mut self, ignore: bool) -> Self {
        self.ignore_fleet = ignore;
        self
    }

    /// Whether the client tells the `metrics` facade what it does. Default: yes, where the feature is on. The recorder must be installed
    /// before the client starts.
    #[cfg(feature = "metrics")]
    pub const fn metrics(mut self, tell: bool) -> Self {
        self.metrics = tell;
        self
    }

    #[cfg(feature = "test")]
    pub(crate) fn recorder(mut self, recorder: Arc<crate::testing::Recorder>) -> Self {
        self.recorder = Some(recorder);
        self
    }

    /// Replaces how connections are made, for simulated networks.
    #[doc(hidden)]
    pub fn dial_with(mut self, dial: impl Fn(&Endpoint) -> Channel + Send + Sync + 'static) -> Self {
        self.dial = Arc::new(dial);
        self
    }

    /// Starts the client and returns at once, whatever the network does.
    ///
    /// # Errors
    /// Bad arguments, and a call outside of a tokio runtime.
    pub fn start(self) -> Result<Client, SetupError> {
        #[cfg(feature = "test")]
        let recorder = self.recorder.clone();
        #[cfg(feature = "metrics")]
        let metrics = self.metrics;
        let Self {
            service,
            namespace,
            instance,
            zone,
            labels,
            control_plane,
            credentials,
            cache_dir,
            cache_key,
            builtin,
            allow_chaos,
            ignore_fleet,
            dial,
            fault,
            ..
        } = self;
        if let Some(fault) = fault {
            return Err(fault);
        }
        let name = |field| move |source: Invalid| SetupError::Name { field, source };
        let service = CallerName::try_new(&service).map_err(name("service"))?;
        let namespace = match namespace {
            Some(namespace) => Namespace::try_new(&namespace).map_err(name("namespace"))?,
            None => Namespace::default_namespace(),
        };
        let instance = InstanceId::try_new(&instance.unwrap_or_else(some_instance)).map_err(name("instance"))?;
        let zone = zone.map(|zone| Zone::try_new(&zone)).transpose().map_err(name("zone"))?;
        if labels.len() > MAX_LABELS {
            return Err(SetupError::Labels { limit: MAX_LABELS, given: labels.len() });
        }
        if cache_key.is_some() && cache_dir.is_none() {
            return Err(SetupError::IdleCacheKey);
        }
        let in_env = || std::env::var_os(CACHE_KEY).filter(|path| !path.is_empty()).map(KeyFile::new);
        let cache_key = cache_key.or_else(in_env);
        let ignore_fleet = ignore_fleet || switched_off(std::env::var_os(FLEET_SWITCH))?;
        let builtin = builtin_set(builtin, allow_chaos)?;
        let server = match control_plane {
            Some(address) => {
                let endpoint = endpoint(&address)?;
                let credentials = Credentials::new(credentials, endpoint.uri(), |name| std::env::var(name).ok())?;
                Some(Server {
                    endpoint,
                    credentials,
                    dial,
                    instance: instance.clone(),
                    labels,
                    incarnation: fastrand::u64(1..),
                })
            }
            None => None,
        };
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| SetupError::NoRuntime)?;

        let clock = Clock::start();
        let cache = cache_dir.map(|dir| CacheFile::new(&dir, &namespace, &service, cache_key));
        #[cfg(feature = "metrics")]
        let meters = metrics.then(|| Arc::new(crate::metrics::Meters::new(service.clone())));
        let registry = Registry::new(Caller { namespace, service, zone, allow_chaos, ignore_fleet }, clock, builtin);
        #[cfg(feature = "test")]
        let registry = registry.recorded_by(recorder);
        #[cfg(feature = "metrics")]
        let registry = registry.metered_by(meters);
        let registry = Arc::new(registry.ready());
        let (ready_sender, ready) = watch::channel(false);
        let (alive, alive_receiver) = watch::channel(());
        let has_server = server.is_some();
        let link = Link {
            registry: Arc::clone(&registry),
            clock,
            server,
            cache,
            seen_term: Arc::default(),
            stale_cache: Arc::new(Notify::new()),
            ready: ready_sender,
            transitions: Arc::new(AtomicU64::new(0)),
        };
        link::restore(&link);
        runtime.spawn(link::run(link, alive_receiver));
        let inner = Inner {
            registry,
            clock,
            instance,
            ready,
            has_server,
            #[cfg(feature = "reqwest")]
            functions: parking_lot::RwLock::default(),
            _alive: alive,
        };
        Ok(Client { inner: Arc::new(inner) })
    }
}

/// What the environment says of the kill switch.
fn switched_off(value: Option<std::ffi::OsString>) -> Result<bool, SetupError> {
    match value.as_ref().map(|value| value.to_str()) {
        None | Some(Some("" | "on")) => Ok(false),
        Some(Some("off")) => Ok(true),
        Some(_) => Err(SetupError::FleetSwitch { value: value.unwrap_or_default() }),
    }
}

fn some_instance() -> String {
    let host = std::env::var("HOSTNAME").ok().filter(|host| InstanceId::try_new(host).is_ok() && host.len() <= 64);
    let random = fastrand::u32(..);
    match host {
        Some(host) => format!("{host}-{random:08x}"),
        None => format!("instance-{random:08x}"),
    }
}

pub(crate) fn builtin_set(policies: Vec<Policy>, allow_chaos: bool) -> Result<PolicySet, SetupError> {
    let mut set = PolicySet::default();
    for policy in policies {
        if !allow_chaos && policy.definition.pipeline.strategies().iter().any(|own| own.spec().as_chaos().is_some()) {
            return Err(SetupError::BuiltinChaos { name: policy.name });
        }
        set.check_tie(&policy).map_err(|source| SetupError::BuiltinTie { name: policy.name.clone(), source })?;
        set.insert(Arc::new(policy));
    }
    Ok(set)
}

fn endpoint(address: &str) -> Result<Endpoint, SetupError> {
    let fault = |source: crate::BoxError| SetupError::ControlPlane { address: address.to_owned(), source };
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|error| fault(error.into()))?;
    if !matches!(endpoint.uri().scheme_str(), Some("http" | "https")) || endpoint.uri().authority().is_none() {
        return Err(fault("it has no scheme and host".into()));
    }
    // A server that vanished without a word is noticed by pings (and by the missing answers to heartbeats).
    Ok(endpoint
        .connect_timeout(Duration::from_secs(3))
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}
