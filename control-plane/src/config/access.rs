//! Settings of TLS and access: who is asked for what.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf};

use clap::{Args, ValueEnum, builder::FalseyValueParser};

use super::ConfigError;
use crate::{
    access::{
        self,
        grants::Grant,
        limits::{self, DEFAULT_STREAMS, DEFAULT_WRITES},
    },
    tls::{
        Files,
        accept::{DEFAULT_CONNECTIONS, DEFAULT_FROM_ONE_ADDRESS, Room},
    },
};

/// Options of `fusebox serve` about TLS and access.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "TLS and access")]
pub struct AccessArgs {
    /// By what callers become known, separated by commas. Without it, and without a bootstrap token, nobody is asked: that is for loopback
    #[arg(long, env = "FUSEBOX_AUTH", value_enum, value_delimiter = ',', value_name = "METHODS")]
    pub auth: Vec<AuthMethod>,
    /// Certificate of the server and its chain, PEM; read again when it changes
    #[arg(long, env = "FUSEBOX_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Key of the server's certificate, PEM; read again when it changes
    #[arg(long, env = "FUSEBOX_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Who signs clients' certificates, PEM; read again when it changes
    #[arg(long, env = "FUSEBOX_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub client_ca: Option<PathBuf>,
    /// Turn clients without a certificate away, also where they could show a token. With --auth mtls alone it is so anyway
    #[arg(long, env = "FUSEBOX_REQUIRE_CLIENT_CERT", value_parser = FalseyValueParser::new(), requires = "client_ca")]
    pub require_client_cert: bool,
    /// What a name in a certificate or JWT may do, like admin=spiffe://example.org/ns/ops/sa/ci or
    /// agent=spiffe://example.org/ns/{namespace}/sa/{service}. In one namespace only: operator@shop=sub:alice@example.org or
    /// operator=spiffe://example.org/ns/{namespace}/sa/deployer. May be repeated, the first that fits decides
    #[arg(long = "grant", env = "FUSEBOX_GRANTS", value_delimiter = ',', value_name = "ROLE[@NAMESPACE]=PATTERN")]
    pub grants: Vec<Grant>,
    /// Keys of those who sign JWTs, a JWKS; read again when it changes
    #[cfg(feature = "jwt")]
    #[arg(long, env = "FUSEBOX_JWT_KEYS", value_name = "FILE", requires = "jwt_issuer", requires = "jwt_audience")]
    pub jwt_keys: Option<PathBuf>,
    /// What must be the issuer of a JWT
    #[cfg(feature = "jwt")]
    #[arg(long, env = "FUSEBOX_JWT_ISSUER", value_name = "NAME")]
    pub jwt_issuer: Option<String>,
    /// What must be in the audience of a JWT
    #[cfg(feature = "jwt")]
    #[arg(long, env = "FUSEBOX_JWT_AUDIENCE", value_name = "NAME")]
    pub jwt_audience: Option<String>,
    /// File with a token of your own making, of an admin, for the first steps; takes --auth token along. Counts as long as it is there
    #[arg(long, env = "FUSEBOX_BOOTSTRAP_TOKEN_FILE", value_name = "FILE")]
    pub bootstrap_token_file: Option<PathBuf>,
    /// Changes in a second by one identity; five times as many may come at once
    #[arg(long, env = "FUSEBOX_WRITES_PER_SECOND", default_value_t = DEFAULT_WRITES, value_name = "NUMBER")]
    pub writes_per_second: NonZeroU32,
    /// Streams that one identity may have open; all replicas of a service may be one
    #[arg(long, env = "FUSEBOX_STREAMS_PER_IDENTITY", default_value_t = DEFAULT_STREAMS, value_name = "NUMBER")]
    pub streams_per_identity: NonZeroU32,
    /// Connections in all
    #[arg(long, env = "FUSEBOX_MAX_CONNECTIONS", default_value_t = DEFAULT_CONNECTIONS, value_name = "NUMBER")]
    pub max_connections: NonZeroU32,
    /// Connections from one address that is not of this machine
    #[arg(long, env = "FUSEBOX_MAX_CONNECTIONS_PER_ADDRESS", default_value_t = DEFAULT_FROM_ONE_ADDRESS, value_name = "NUMBER")]
    pub max_connections_per_address: NonZeroU32,
}

impl Default for AccessArgs {
    /// What is so when nothing is said.
    fn default() -> Self {
        Self {
            auth: Vec::new(),
            tls_cert: None,
            tls_key: None,
            client_ca: None,
            require_client_cert: false,
            grants: Vec::new(),
            #[cfg(feature = "jwt")]
            jwt_keys: None,
            #[cfg(feature = "jwt")]
            jwt_issuer: None,
            #[cfg(feature = "jwt")]
            jwt_audience: None,
            bootstrap_token_file: None,
            writes_per_second: DEFAULT_WRITES,
            streams_per_identity: DEFAULT_STREAMS,
            max_connections: DEFAULT_CONNECTIONS,
            max_connections_per_address: DEFAULT_FROM_ONE_ADDRESS,
        }
    }
}

/// By what callers become known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuthMethod {
    /// By tokens that this server made: `fusebox token create`.
    Token,
    /// By certificates that --client-ca signed, and what --grant says of their names.
    Mtls,
    /// By JWTs that a key of --jwt-keys signed, and what --grant says of their subjects.
    #[cfg(feature = "jwt")]
    Jwt,
}

/// Checked settings of TLS and access.
#[derive(Clone, Debug)]
pub struct AccessConfig {
    /// Files of TLS; `None`: plain.
    pub tls: Option<Files>,
    /// Where a bootstrap token stands.
    pub bootstrap: Option<PathBuf>,
    /// Where the keys of JWTs stand.
    #[cfg(feature = "jwt")]
    pub jwt: Option<access::jwt::Files>,
    /// Whom the server knows; the bootstrap token and the keys of JWTs are not read yet.
    pub access: access::Settings,
    /// How many connections it takes.
    pub room: Room,
    /// What that means, for whoever starts it.
    pub in_words: String,
}

impl AccessConfig {
    pub(super) fn new(args: &AccessArgs, listen: SocketAddr, insecure: bool) -> Result<Self, ConfigError> {
        let certificates = args.auth.contains(&AuthMethod::Mtls);
        let tokens = args.auth.contains(&AuthMethod::Token) || args.bootstrap_token_file.is_some();
        let files = args.tls_cert.clone().zip(args.tls_key.clone());
        if certificates && (args.client_ca.is_none() || files.is_none()) {
            return Err(ConfigError::NoClientCa);
        }
        #[cfg(feature = "jwt")]
        let jwt = match (args.auth.contains(&AuthMethod::Jwt), &args.jwt_keys, &args.jwt_issuer, &args.jwt_audience) {
            (false, None, ..) => None,
            (true, Some(keys), Some(issuer), Some(audience)) => {
                Some(access::jwt::Files { keys: keys.clone(), issuer: issuer.clone(), audience: audience.clone() })
            }
            _ => return Err(ConfigError::HalfJwt),
        };
        #[cfg(feature = "jwt")]
        let jwts = jwt.is_some();
        #[cfg(not(feature = "jwt"))]
        let jwts = false;
        let named = certificates || jwts;
        if named && args.grants.is_empty() {
            return Err(ConfigError::NoGrants);
        }
        if !named && !args.grants.is_empty() {
            return Err(ConfigError::IdleGrants);
        }
        if args.client_ca.is_some() && !certificates && !args.require_client_cert {
            return Err(ConfigError::IdleClientCa);
        }
        if !listen.ip().is_loopback() && !insecure {
            if !named && !tokens {
                return Err(ConfigError::Exposed(listen));
            }
            if files.is_none() {
                return Err(ConfigError::PlainTokens(listen));
            }
        }
        let client_required = args.require_client_cert || (certificates && !tokens && !jwts);
        let tls = files.map(|(certificate, key)| Files {
            certificate,
            key,
            client_ca: args.client_ca.clone(),
            client_required,
        });
        let limits = limits::Settings { writes_per_second: args.writes_per_second, streams: args.streams_per_identity };
        let room = Room {
            connections: args.max_connections.get() as usize,
            from_one_address: args.max_connections_per_address.get() as usize,
        };
        let kinds = [(tokens, "tokens"), (certificates, "client certificates"), (jwts, "JWTs")];
        let kinds: Vec<_> = kinds.into_iter().filter_map(|(is_on, kind)| is_on.then_some(kind)).collect();
        let in_words = if !kinds.is_empty() {
            format!("by {}", kinds.join(" or "))
        } else if listen.ip().is_loopback() {
            "open to every program on this machine; nobody is asked who they are (--auth changes that)".to_owned()
        } else {
            "OPEN TO EVERYBODY WHO REACHES THIS ADDRESS; nobody is asked who they are".to_owned()
        };
        let grants = args.grants.clone();
        let access = access::Settings { tokens, certificates, grants, limits, ..access::Settings::default() };
        Ok(Self {
            tls,
            bootstrap: args.bootstrap_token_file.clone(),
            #[cfg(feature = "jwt")]
            jwt,
            access,
            room,
            in_words,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str, insecure: bool, change: impl FnOnce(&mut AccessArgs)) -> Result<AccessConfig, ConfigError> {
        let mut args = AccessArgs::default();
        change(&mut args);
        AccessConfig::new(&args, listen.parse().unwrap(), insecure)
    }

    fn with_tls(args: &mut AccessArgs) {
        (args.tls_cert, args.tls_key) = (Some("c".into()), Some("k".into()));
    }

    const OUTSIDE: &str = "0.0.0.0:1";
    const LOOPBACK: &str = "127.0.0.1:1";

    #[test]
    fn an_address_that_others_reach_asks_for_credentials_over_tls_unless_insisted_on() {
        assert!(matches!(config(OUTSIDE, false, |_| {}), Err(ConfigError::Exposed(_))));
        assert!(matches!(config(OUTSIDE, false, with_tls), Err(ConfigError::Exposed(_))), "encrypted, and open");
        let tokens = |args: &mut AccessArgs| args.auth = vec![AuthMethod::Token];
        assert!(matches!(config(OUTSIDE, false, tokens), Err(ConfigError::PlainTokens(_))));
        let both = |args: &mut AccessArgs| {
            with_tls(args);
            tokens(args);
        };
        assert!(config(OUTSIDE, false, both).unwrap().access.tokens);
        assert!(config(OUTSIDE, true, |_| {}).unwrap().access.is_open());
        assert!(config(LOOPBACK, false, |_| {}).unwrap().access.is_open());
        assert!(!config(LOOPBACK, false, tokens).unwrap().access.is_open());
    }

    #[test]
    fn certificates_need_those_who_sign_them_and_a_meaning() {
        let mtls = |args: &mut AccessArgs| {
            with_tls(args);
            args.auth = vec![AuthMethod::Mtls];
        };
        assert!(matches!(config(LOOPBACK, false, mtls), Err(ConfigError::NoClientCa)));
        let signed = |args: &mut AccessArgs| {
            mtls(args);
            args.client_ca = Some("ca".into());
        };
        assert!(matches!(config(LOOPBACK, false, signed), Err(ConfigError::NoGrants)));
        let granted = |args: &mut AccessArgs| {
            signed(args);
            args.grants = vec!["admin=dns:x".parse().unwrap()];
        };
        assert!(config(LOOPBACK, false, granted).unwrap().tls.unwrap().client_required);
        let either = |args: &mut AccessArgs| {
            granted(args);
            args.auth.push(AuthMethod::Token);
        };
        assert!(!config(LOOPBACK, false, either).unwrap().tls.unwrap().client_required);
        let strict = |args: &mut AccessArgs| {
            either(args);
            args.require_client_cert = true;
        };
        assert!(config(LOOPBACK, false, strict).unwrap().tls.unwrap().client_required);
    }

    #[test]
    fn what_would_have_no_effect_is_refused() {
        let granted = |args: &mut AccessArgs| args.grants = vec!["admin=dns:x".parse().unwrap()];
        assert!(matches!(config(LOOPBACK, false, granted), Err(ConfigError::IdleGrants)));
        let signed = |args: &mut AccessArgs| {
            with_tls(args);
            args.client_ca = Some("ca".into());
        };
        assert!(matches!(config(LOOPBACK, false, signed), Err(ConfigError::IdleClientCa)));
    }

    #[test]
    fn a_bootstrap_token_takes_tokens_along() {
        let config = config(LOOPBACK, false, |args| args.bootstrap_token_file = Some("t".into())).unwrap();
        assert!(config.access.tokens);
    }
}
