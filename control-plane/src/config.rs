//! Settings of the server, from flags and the environment, checked before a port is bound.

pub mod access;

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum, builder::FalseyValueParser};

use self::access::{AccessArgs, AccessConfig};
use crate::{
    backups::schedule::Schedule, hub::REMEMBERED, retention::Retention, sessions::admission::DEFAULT_RATE,
    store::Quota, web::Origin,
};

/// Options of `fusebox serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Address to serve on; port 0 takes a free one
    #[arg(long, env = "FUSEBOX_LISTEN", default_value = "127.0.0.1:7443", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Folder of the database; made if it is missing. Default: $XDG_DATA_HOME/fusebox or ~/.local/share/fusebox
    #[arg(long, env = "FUSEBOX_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Keep the database in a temporary folder that is removed at the end, whatever --data-dir says
    #[arg(long, env = "FUSEBOX_DEV", value_parser = FalseyValueParser::new())]
    pub dev: bool,
    /// Serve on an address that others can reach, although nobody is asked who they are, or tokens come in plain text
    #[arg(long, env = "FUSEBOX_INSECURE", value_parser = FalseyValueParser::new())]
    pub insecure: bool,
    /// Replicas that may connect in a second; others are told to come back
    #[arg(long, env = "FUSEBOX_STREAMS_PER_SECOND", default_value_t = DEFAULT_RATE, value_name = "NUMBER")]
    pub streams_per_second: NonZeroU32,
    /// How long records of the audit log are kept: a time such as 400d, or "forever"
    #[arg(long, env = "FUSEBOX_AUDIT_RETENTION", default_value_t, value_name = "TIME")]
    pub audit_retention: Retention,
    /// How long transitions of breakers are kept: a time such as 30d, or "forever"
    #[arg(long, env = "FUSEBOX_TRANSITION_RETENTION", default_value_t = Retention::A_MONTH, value_name = "TIME")]
    pub transition_retention: Retention,
    /// Changes of policies that are remembered for replicas and watches that were cut off; whoever missed more reads everything anew
    #[arg(long, env = "FUSEBOX_REMEMBER_CHANGES", default_value_t = REMEMBERED, value_name = "NUMBER")]
    pub remember_changes: usize,
    /// Policies that a namespace may hold
    #[arg(long, env = "FUSEBOX_POLICIES_PER_NAMESPACE", default_value_t = Quota::POLICIES, value_name = "NUMBER")]
    pub policies_per_namespace: NonZeroUsize,
    /// Bytes that the policies of a namespace may be together, as they are sent
    #[arg(long, env = "FUSEBOX_POLICY_BYTES_PER_NAMESPACE", default_value_t = Quota::BYTES, value_name = "BYTES")]
    pub policy_bytes_per_namespace: NonZeroUsize,
    /// How often everything in the database is read and compared with its checksums
    #[arg(long, env = "FUSEBOX_CHECK_EVERY", default_value = "6h", value_parser = interval, value_name = "TIME")]
    pub check_every: Duration,
    /// Folder to put backups into, better on another disk; without it none is made by itself
    #[arg(long, env = "FUSEBOX_BACKUP_DIR", value_name = "DIR")]
    pub backup_dir: Option<PathBuf>,
    /// How old the newest of these backups may get
    #[arg(long, env = "FUSEBOX_BACKUP_EVERY", default_value = "1h", value_parser = interval, value_name = "TIME")]
    pub backup_every: Duration,
    /// How many of them stay
    #[arg(long, env = "FUSEBOX_BACKUP_KEEP", default_value_t = BACKUPS_KEPT, value_name = "NUMBER")]
    pub backup_keep: NonZeroUsize,
    /// Origin of a page whose scripts may call this server by gRPC-Web: scheme, host, and port if it has one; may be repeated. Without it, none may
    #[arg(long = "web-origin", env = "FUSEBOX_WEB_ORIGINS", value_delimiter = ',', value_name = "ORIGIN")]
    pub web_origins: Vec<Origin>,
    /// Address for /metrics, /healthz and /readyz, in plain HTTP and without asking who calls; without it there is none
    #[arg(long, env = "FUSEBOX_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
    /// Form of the log lines
    #[arg(long, env = "FUSEBOX_LOG_FORMAT", value_enum, default_value_t, value_name = "FORM")]
    pub log_format: LogFormat,
    /// Who may call.
    #[command(flatten)]
    pub access: AccessArgs,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Checked settings of the server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the data is; `None` for a temporary folder.
    pub data_dir: Option<PathBuf>,
    /// What the server takes.
    pub limits: Limits,
    /// What a namespace takes.
    pub quota: Quota,
    /// The backups that it makes by itself.
    pub backups: Option<Schedule>,
    /// Whose pages may call it.
    pub web_origins: Vec<Origin>,
    /// Where the metrics are read; `None`: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Who may call.
    pub access: AccessConfig,
}

/// Backups that stay when nothing is said: a day of hours.
const BACKUPS_KEPT: NonZeroUsize = NonZeroUsize::new(24).expect("it is not zero");

/// What the server takes, and how long it keeps it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Replicas that may begin a stream in a second, and at once.
    pub streams_per_second: NonZeroU32,
    /// How long records of the audit log are kept.
    pub audit_retention: Retention,
    /// How long transitions of breakers are kept.
    pub transition_retention: Retention,
    /// Changes of policies that are remembered for whoever was cut off.
    pub remember_changes: usize,
    /// How often everything stored is compared with its checksums.
    pub check_every: Duration,
}

/// Reads an interval. What is always at work does nothing else.
fn interval(text: &str) -> Result<Duration, String> {
    let read = humantime::parse_duration(text).map_err(|error| format!("write a time such as 6h: {error}"))?;
    if read < Duration::from_secs(1) { Err("must be at least 1s".to_owned()) } else { Ok(read) }
}

impl Default for Limits {
    /// What is enough for thousands of replicas.
    fn default() -> Self {
        Self {
            streams_per_second: DEFAULT_RATE,
            audit_retention: Retention::default(),
            transition_retention: Retention::A_MONTH,
            remember_changes: REMEMBERED,
            check_every: Duration::from_secs(6 * 3600),
        }
    }
}

/// Settings that can't be.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Everybody could change policies.
    #[error(
        "--listen {0} can be reached by others, and this server does not ask anybody who they are: listen on a loopback address, \
         switch authentication on (--auth token with --tls-cert and --tls-key), or say --insecure"
    )]
    Exposed(SocketAddr),
    /// Everybody could read what the server counts.
    #[error(
        "--metrics-listen {0} can be reached by others, and nobody is asked there who they are: listen on a loopback address, or say \
         --insecure"
    )]
    ExposedMetrics(SocketAddr),
    /// Tokens could be read on their way.
    #[error(
        "--listen {0} can be reached by others, and tokens would come in plain text: give --tls-cert and --tls-key, or say --insecure if \
         something in front of this server speaks TLS"
    )]
    PlainTokens(SocketAddr),
    /// Nobody's certificate could be checked.
    #[error("--auth mtls needs --tls-cert, --tls-key, and --client-ca to check clients' certificates against")]
    NoClientCa,
    /// A JWT could not be checked.
    #[cfg(feature = "jwt")]
    #[error("--auth jwt, --jwt-keys, --jwt-issuer and --jwt-audience go together")]
    HalfJwt,
    /// Nobody could do anything.
    #[error(
        "--auth mtls and --auth jwt need at least one --grant that says what a name may do, like \
         agent=spiffe://example.org/ns/{{namespace}}/sa/{{service}}"
    )]
    NoGrants,
    /// They would have no effect.
    #[error("--grant says what names of certificates or JWTs may do, and none is asked for: add --auth mtls")]
    IdleGrants,
    /// It would have no effect.
    #[error(
        "--client-ca alone asks nobody for a certificate: add --auth mtls to know clients by it, or --require-client-cert to take no \
         connection without one"
    )]
    IdleClientCa,
    /// There is no home to put a folder in.
    #[error("there is no home folder to keep the data in: say --data-dir, or --dev for a temporary one")]
    NoHome,
}

/// Where the data is: the folder that was told, else the one in the home.
///
/// # Errors
/// There is no home.
pub fn data_dir(
    told: Option<&Path>,
    xdg_data_home: Option<PathBuf>,
    home: Option<PathBuf>,
) -> Result<PathBuf, ConfigError> {
    if let Some(folder) = told {
        return Ok(folder.to_owned());
    }
    let base = xdg_data_home
        .filter(|folder| folder.is_absolute())
        .or_else(|| home.map(|home| home.join(".local/share")))
        .ok_or(ConfigError::NoHome)?;
    Ok(base.join("fusebox"))
}

impl Config {
    /// Checks the options. `home` and `xdg_data_home` are what the environment says.
    ///
    /// # Errors
    /// What can't be, and what to say instead.
    pub fn new(args: &ServeArgs, xdg_data_home: Option<PathBuf>, home: Option<PathBuf>) -> Result<Self, ConfigError> {
        let access = AccessConfig::new(&args.access, args.listen, args.insecure)?;
        let data_dir =
            if args.dev { None } else { Some(self::data_dir(args.data_dir.as_deref(), xdg_data_home, home)?) };
        let limits = Limits {
            streams_per_second: args.streams_per_second,
            audit_retention: args.audit_retention,
            transition_retention: args.transition_retention,
            remember_changes: args.remember_changes,
            check_every: args.check_every,
        };
        let quota = Quota { policies: args.policies_per_namespace, bytes: args.policy_bytes_per_namespace };
        let backups =
            args.backup_dir.clone().map(|folder| Schedule { folder, every: args.backup_every, keep: args.backup_keep });
        let web_origins = args.web_origins.clone();
        let metrics_listen = args.metrics_listen;
        if let Some(address) = metrics_listen.filter(|address| !address.ip().is_loopback() && !args.insecure) {
            return Err(ConfigError::ExposedMetrics(address));
        }
        Ok(Self { listen: args.listen, data_dir, limits, quota, backups, web_origins, metrics_listen, access })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(listen: &str) -> ServeArgs {
        ServeArgs {
            listen: listen.parse().unwrap(),
            data_dir: None,
            dev: false,
            insecure: false,
            web_origins: Vec::new(),
            metrics_listen: None,
            streams_per_second: DEFAULT_RATE,
            audit_retention: Retention::default(),
            transition_retention: Retention::A_MONTH,
            remember_changes: REMEMBERED,
            policies_per_namespace: Quota::POLICIES,
            policy_bytes_per_namespace: Quota::BYTES,
            check_every: Duration::from_secs(60),
            backup_dir: None,
            backup_every: Duration::from_secs(60),
            backup_keep: BACKUPS_KEPT,
            log_format: LogFormat::Text,
            access: AccessArgs::default(),
        }
    }

    #[test]
    fn an_address_that_others_reach_is_refused_unless_insisted_on() {
        let home = Some(PathBuf::from("/h"));
        assert!(matches!(Config::new(&args("0.0.0.0:1"), None, home.clone()), Err(ConfigError::Exposed(_))));
        let metrics =
            |insecure| ServeArgs { insecure, metrics_listen: "0.0.0.0:2".parse().ok(), ..args("127.0.0.1:1") };
        assert!(matches!(Config::new(&metrics(false), None, home.clone()), Err(ConfigError::ExposedMetrics(_))));
        assert!(Config::new(&metrics(true), None, home.clone()).is_ok());
        let insisted = ServeArgs { insecure: true, ..args("0.0.0.0:1") };
        assert!(Config::new(&insisted, None, home).is_ok());
    }

    #[test]
    fn data_goes_where_it_is_told_else_into_the_home() {
        let folder = |args: &ServeArgs, xdg: Option<&str>| {
            Config::new(args, xdg.map(PathBuf::from), Some(PathBuf::from("/h"))).unwrap().data_dir
        };
        let plain = args("127.0.0.1:0");
        assert_eq!(folder(&plain, None), Some(PathBuf::from("/h/.local/share/fusebox")));
        assert_eq!(folder(&plain, Some("/x")), Some(PathBuf::from("/x/fusebox")));
        let told = ServeArgs { data_dir: Some(PathBuf::from("d")), ..plain.clone() };
        assert_eq!(folder(&told, None), Some(PathBuf::from("d")));
        assert_eq!(folder(&ServeArgs { dev: true, ..told }, None), None);
    }
}
