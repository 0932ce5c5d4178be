//! Callers known by a JWT that somebody else has signed: an OIDC provider, a cluster, SPIFFE.
//!
//! Keys stand in a file in the form of a JWKS, which is read again when it changes; whoever fetches it (an init container, a timer) is
//! outside: this server calls nobody, and goes on with the keys that it has when the issuer is away. EdDSA and ES256 only, each key with its
//! own algorithm whatever the token's header says; `iss`, `aud`, `exp` and `sub` are required, `nbf` is heeded.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Validation,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    decode, decode_header,
    errors::{ErrorKind, Result as JwtResult},
    jwk::{AlgorithmParameters, EllipticCurve, JwkSet},
    signature::{self, Verifier},
};
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{
    Refusal,
    grants::{Grant, role_of},
    principal::{Method, Principal},
};
use crate::{
    shutdown::Shutdown,
    tls::reload::{look, look_now, pause},
};

/// Clocks of two machines differ by about so much.
const LEEWAY: Duration = Duration::from_secs(30);
/// A JWT can't be revoked: one that counts for longer than this is refused.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Where the keys are, and what must be in a JWT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The JWKS.
    pub keys: PathBuf,
    /// Its `iss`.
    pub issuer: String,
    /// What must be in its `aud`.
    pub audience: String,
}

/// A file that holds no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It can't be read.
    #[error("cannot read the keys of JWTs in {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no JWKS.
    #[error("{path} is no JWKS")]
    Form {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// None is of an algorithm that is taken.
    #[error("{0} holds no key for EdDSA (Ed25519) or ES256 (P-256)")]
    NoKey(PathBuf),
}

const LACKS: &str = "it lacks one of iss, aud, exp and sub";

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Knows JWTs. A cheap handle.
#[derive(Clone, Debug)]
pub struct Jwts {
    keys: Arc<ArcSwap<Vec<Key>>>,
    issuer: Arc<str>,
    audience: Arc<str>,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    exp: Option<u64>,
}

impl Jwts {
    /// Reads the keys, and again whenever they change, until the end.
    ///
    /// # Errors
    /// There are none at the start.
    pub fn start(files: Files, shutdown: &Shutdown) -> Result<Self, KeysError> {
        // One process, one provider; where another part of the process has set one, that is used.
        let _ = RING.install_default();
        let Files { keys: path, issuer, audience } = files;
        let mut seen = look_now(std::slice::from_ref(&path));
        let keys = Arc::new(ArcSwap::from_pointee(keys(&path)?));
        let jwts = Self { keys: Arc::clone(&keys), issuer: issuer.into(), audience: audience.into() };
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            while pause(&shutdown).await {
                let now = look(vec![path.clone()]).await;
                if now == seen {
                    continue;
                }
                seen = now;
                match self::keys(&path) {
                    Ok(fresh) => {
                        tracing::info!(event.name = "jwt.keys_reloaded", keys = fresh.len(), "keys of JWTs reloaded");
                        keys.store(Arc::new(fresh));
                    }
                    Err(error) => tracing::error!(
                        event.name = "jwt.reload_failed",
                        error = &error as &dyn std::error::Error,
                        "the new keys of JWTs are of no use: those before stay in force"
                    ),
                }
            }
        });
        Ok(jwts)
    }

    /// Whose a JWT is.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the library's errors may grow")]
    pub(super) fn recognise(&self, text: &str, grants: &[Grant]) -> Result<Principal, Refusal> {
        let bad = |error: jsonwebtoken::errors::Error| match error.kind() {
            ErrorKind::ExpiredSignature => Refusal::Expired,
            ErrorKind::InvalidIssuer => Refusal::BadJwt("its issuer is another one"),
            ErrorKind::InvalidAudience => Refusal::BadJwt("it is for another audience"),
            ErrorKind::ImmatureSignature => Refusal::BadJwt("it does not count yet"),
            ErrorKind::MissingRequiredClaim(_) => Refusal::BadJwt(LACKS),
            _ => Refusal::BadJwt("its form or its signature is wrong"),
        };
        let header = decode_header(text).map_err(bad)?;
        let keys = self.keys.load();
        let fits = |key: &&Key| {
            key.algorithm == header.alg && (header.kid.is_none() || key.id.is_none() || key.id == header.kid)
        };
        let mut told = Refusal::BadJwt("no key that is known here has signed it");
        for key in keys.iter().filter(fits) {
            let mut validation = Validation::new(key.algorithm);
            validation.leeway = LEEWAY.as_secs();
            validation.validate_nbf = true;
            validation.set_issuer(&[&self.issuer]);
            validation.set_audience(&[&self.audience]);
            validation.set_required_spec_claims(&["iss", "aud", "exp", "sub"]);
            match decode::<Claims>(text, &key.key, &validation) {
                Ok(found) => return principal(found.claims, grants),
                Err(error) => told = bad(error),
            }
        }
        Err(told)
    }
}

fn principal(claims: Claims, grants: &[Grant]) -> Result<Principal, Refusal> {
    // What is required was looked for with the signature.
    let Claims { sub: Some(sub), exp: Some(exp) } = claims else { return Err(Refusal::BadJwt(LACKS)) };
    let expires = UNIX_EPOCH + Duration::from_secs(exp);
    if expires.duration_since(SystemTime::now()).unwrap_or_default() > LONGEST_LIFE {
        return Err(Refusal::BadJwt("it counts for more than a day, and could not be revoked"));
    }
    // SPIFFE puts its ids there too.
    let name = if sub.starts_with("spiffe://") { sub } else { format!("sub:{sub}") };
    let names = [name];
    let (role, name) = role_of(grants, &names).ok_or_else(|| Refusal::NotGranted(names.concat()))?;
    Ok(Principal {
        name: name.into(),
        role,
        method: Method::Jwt,
        expires: Some(expires + LEEWAY),
        revoked: CancellationToken::new(),
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "kinds of keys that are not taken, known today or not")]
fn keys(path: &Path) -> Result<Vec<Key>, KeysError> {
    let text = std::fs::read(path).map_err(|source| KeysError::Read { path: path.to_owned(), source })?;
    let set: JwkSet =
        serde_json::from_slice(&text).map_err(|source| KeysError::Form { path: path.to_owned(), source })?;
    let keys: Vec<Key> = set
        .keys
        .iter()
        .filter_map(|jwk| {
            let algorithm = match &jwk.algorithm {
                AlgorithmParameters::EllipticCurve(own) if own.curve == EllipticCurve::P256 => Algorithm::ES256,
                AlgorithmParameters::OctetKeyPair(own) if own.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
                _ => return None,
            };
            let key = DecodingKey::from_jwk(jwk).ok()?;
            Some(Key { id: jwk.common.key_id.clone(), algorithm, key })
        })
        .collect();
    if keys.is_empty() { Err(KeysError::NoKey(path.to_owned())) } else { Ok(keys) }
}

/// What `jsonwebtoken` computes with: *ring*, which TLS uses too. It checks, and signs nothing.
static RING: CryptoProvider =
    CryptoProvider { signer_factory: no_signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };

fn no_signer(_algorithm: &Algorithm, _key: &EncodingKey) -> JwtResult<Box<dyn JwtSigner>> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "algorithms that are not taken, known today or not")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> JwtResult<Box<dyn JwtVerifier>> {
    let with: &'static dyn VerificationAlgorithm = match algorithm {
        Algorithm::EdDSA => &ED25519,
        Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED,
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    };
    let key = UnparsedPublicKey::new(with, key.try_get_as_bytes()?.to_vec());
    Ok(Box::new(RingVerifier { algorithm: *algorithm, key }))
}

struct RingVerifier {
    algorithm: Algorithm,
    key: UnparsedPublicKey<Vec<u8>>,
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        self.key.verify(message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests {
    use ring::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
    };
    use serde_json::{Value, json};

    use super::*;

    fn base64(bytes: &[u8]) -> String {
        data_encoding::BASE64URL_NOPAD.encode(bytes)
    }

    enum Signer {
        Ed(Ed25519KeyPair),
        Ec(EcdsaKeyPair),
    }

    impl Signer {
        fn ed() -> Self {
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
            Self::Ed(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
        }

        fn ec() -> Self {
            let random = SystemRandom::new();
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
            Self::Ec(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap())
        }

        fn jwk(&self, id: &str) -> Value {
            match self {
                Self::Ed(pair) => {
                    json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": base64(pair.public_key().as_ref()) })
                }
                Self::Ec(pair) => {
                    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                    json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": base64(x), "y": base64(y) })
                }
            }
        }

        fn sign(&self, header: &Value, claims: &Value) -> String {
            let text = format!("{}.{}", base64(header.to_string().as_bytes()), base64(claims.to_string().as_bytes()));
            let signature = match self {
                Self::Ed(pair) => base64(pair.sign(text.as_bytes()).as_ref()),
                Self::Ec(pair) => base64(pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap().as_ref()),
            };
            format!("{text}.{signature}")
        }
    }

    fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    fn claims() -> Value {
        json!({ "iss": "https://issuer", "aud": "fusebox", "sub": "alice", "exp": now() + 600 })
    }

    fn with(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Value {
        let mut claims = claims();
        change(claims.as_object_mut().unwrap());
        claims
    }

    struct World {
        jwts: Jwts,
        ed: Signer,
        ec: Signer,
        grants: Vec<Grant>,
        folder: tempfile::TempDir,
        shutdown: Shutdown,
    }

    impl World {
        fn new() -> Self {
            let (ed, ec, folder, shutdown) =
                (Signer::ed(), Signer::ec(), tempfile::tempdir().unwrap(), Shutdown::new());
            let keys = folder.path().join("jwks.json");
            std::fs::write(&keys, json!({ "keys": [ed.jwk("ed"), ec.jwk("ec")] }).to_string()).unwrap();
            let files = Files { keys, issuer: "https://issuer".to_owned(), audience: "fusebox".to_owned() };
            let jwts = Jwts::start(files, &shutdown).unwrap();
            let grants = ["viewer=sub:alice", "agent=spiffe://x/ns/{namespace}/sa/{service}"];
            let grants = grants.iter().map(|grant| grant.parse().unwrap()).collect();
            Self { jwts, ed, ec, grants, folder, shutdown }
        }

        fn ask(&self, jwt: &str) -> Result<String, Refusal> {
            self.jwts.recognise(jwt, &self.grants).map(|found| format!("{} {}", found.name, found.role))
        }

        fn ed(&self, claims: &Value) -> Result<String, Refusal> {
            self.ask(&self.ed.sign(&json!({ "alg": "EdDSA", "kid": "ed" }), claims))
        }
    }

    #[tokio::test]
    async fn a_jwt_s_subject_is_its_owner_and_decides_the_role() {
        let world = World::new();
        assert_eq!(world.ed(&claims()).unwrap(), "sub:alice viewer");
        let jwt = world.ec.sign(&json!({ "alg": "ES256", "kid": "ec" }), &claims());
        assert_eq!(world.ask(&jwt).unwrap(), "sub:alice viewer");
        let svid = with(|claims| claims["sub"] = "spiffe://x/ns/shop/sa/cart".into());
        assert_eq!(world.ed(&svid).unwrap(), "spiffe://x/ns/shop/sa/cart agent of shop/cart");
        let other = with(|claims| claims["sub"] = "bob".into());
        assert_eq!(world.ed(&other), Err(Refusal::NotGranted("sub:bob".to_owned())));
        world.shutdown.begin();
    }

    #[tokio::test]
    async fn what_is_wrong_in_any_claim_is_refused() {
        let world = World::new();
        let refused = |change: fn(&mut serde_json::Map<String, Value>)| world.ed(&with(change)).unwrap_err();
        assert_eq!(refused(|claims| claims["exp"] = (now() - 60).into()), Refusal::Expired);
        for (change, why) in [
            (
                (|claims: &mut serde_json::Map<String, Value>| claims["iss"] = "https://other".into())
                    as fn(&mut serde_json::Map<String, Value>),
                "issuer",
            ),
            (|claims| claims["aud"] = "other".into(), "audience"),
            (|claims| drop(claims.insert("nbf".to_owned(), (now() + 300).into())), "yet"),
            (|claims| claims["exp"] = (now() + 90_000).into(), "more than a day"),
            (|claims| drop(claims.remove("exp")), "lacks"),
            (|claims| drop(claims.remove("aud")), "lacks"),
            (|claims| drop(claims.remove("iss")), "lacks"),
        ] {
            let told = refused(change).to_string();
            assert!(told.contains(why), "{why}: {told}");
        }
        world.shutdown.begin();
    }

    #[tokio::test]
    async fn only_the_keys_of_the_file_count_each_with_its_own_algorithm() {
        let world = World::new();
        let stranger = Signer::ed().sign(&json!({ "alg": "EdDSA", "kid": "ed" }), &claims());
        assert!(matches!(world.ask(&stranger), Err(Refusal::BadJwt(_))));
        for algorithm in ["none", "HS256", "RS256", "ES256"] {
            let jwt = world.ed.sign(&json!({ "alg": algorithm, "kid": "ed" }), &claims());
            assert!(matches!(world.ask(&jwt), Err(Refusal::BadJwt(_))), "{algorithm}");
        }
        let good = world.ed.sign(&json!({ "alg": "EdDSA" }), &claims());
        world.ask(&good).unwrap();
        let (head, signature) = good.rsplit_once('.').unwrap();
        for bad in [
            format!("{head}."),
            head.to_owned(),
            format!("{good}x"),
            format!("x{good}"),
            format!("{head}.{}", &signature[1..]),
        ] {
            assert!(matches!(world.ask(&bad), Err(Refusal::BadJwt(_))), "{bad}");
        }
        world.shutdown.begin();
    }

    #[tokio::test]
    async fn new_keys_are_taken_up_and_a_broken_file_changes_nothing() {
        let world = World::new();
        let path = world.folder.path().join("jwks.json");
        let next = Signer::ed();
        let jwt = next.sign(&json!({ "alg": "EdDSA", "kid": "next" }), &claims());
        assert!(world.ask(&jwt).is_err());
        std::fs::write(&path, json!({ "keys": [next.jwk("next")] }).to_string()).unwrap();
        let taken = async {
            while world.ask(&jwt).is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), taken).await.expect("the new key counts");
        assert!(world.ed(&claims()).is_err(), "the old one does not");
        assert!(matches!(keys(Path::new("/nonexistent")), Err(KeysError::Read { .. })));
        std::fs::write(&path, json!({ "keys": [] }).to_string()).unwrap();
        assert!(matches!(keys(&path), Err(KeysError::NoKey(_))));
        world.shutdown.begin();
    }
}
