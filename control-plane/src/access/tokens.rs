//! What can be done with tokens: make, list, revoke, recognise. The one writer of them.
//!
//! Those in force are mirrored in memory, so that a request costs no query; after every change the mirror is read anew from the store, and
//! what has ended there is cancelled, which ends its open streams.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use fusebox_policy::{CallerName, Namespace, invalid::Faults};
use fusebox_proto::v1;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::{
    Refusal,
    principal::{Method, Principal, Role},
    scope::Scope,
    secret::{Digest, Secret},
};
use crate::{
    caller::Caller,
    store::{NewToken, Note, Once, StoreError, StoreHandle, StoredToken},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The life of an operator's token when nothing is said, and the longest: people leave, and laptops with them.
const OPERATORS: (Duration, Duration) =
    (Duration::from_secs(30 * 24 * 60 * 60), Duration::from_secs(90 * 24 * 60 * 60));
/// The same for a service, whose token is changed by a deployment.
const AGENTS: (Duration, Duration) = (Duration::from_secs(90 * 24 * 60 * 60), Duration::from_secs(365 * 24 * 60 * 60));
/// Less is a mistake in the unit.
const SHORTEST: Duration = Duration::from_secs(60);
/// Longest name.
const LONGEST_NAME: usize = 63;

/// A cheap handle.
#[derive(Clone)]
pub struct Tokens {
    store: StoreHandle,
    known: Arc<ArcSwap<BTreeMap<String, Known>>>,
    /// Who reads the store anew. In turn: an older reading must not replace a newer.
    turn: Arc<Mutex<()>>,
}

/// One that was made, and what ends its streams.
#[derive(Clone)]
struct Known {
    stored: Arc<StoredToken>,
    ended: CancellationToken,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// A token that somebody asks for, checked.
#[derive(Clone, Debug)]
pub struct Request {
    name: String,
    role: Role,
    life: Duration,
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The store's word.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no random numbers.
    #[error("the system's random source failed: {0}")]
    Random(getrandom::Error),
}

impl Request {
    /// Checks what is asked for. `of`: a namespace, which binds the role, and a service, which only an agent has; empty for none. `life`:
    /// `None` for the default.
    ///
    /// # Errors
    /// Every bad field.
    pub fn try_new(
        name: &str,
        role: v1::Role,
        of: (&str, &str),
        life: Option<Duration>,
    ) -> Result<Self, fusebox_policy::Invalid> {
        let mut faults = Faults::new();
        let letters = |text: &str| text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        faults.check(
            (1..=LONGEST_NAME).contains(&name.len()) && letters(name) && !name.starts_with('-') && !name.ends_with('-'),
            "token.display_name",
            format!("must be 1 to {LONGEST_NAME} of a-z, 0-9 and -, not - at its ends"),
        );
        let (namespace, service) = of;
        let (default, longest) = if role == v1::Role::Agent { AGENTS } else { OPERATORS };
        let role = match role {
            v1::Role::Agent => {
                let namespace = faults.take("token.namespace", Namespace::try_new(namespace));
                let service = faults.take("token.service", CallerName::try_new(service));
                namespace.zip(service).map(|(namespace, service)| Role::Agent { namespace, service })
            }
            v1::Role::Viewer | v1::Role::Operator | v1::Role::Admin => {
                faults.check(
                    service.is_empty(),
                    "token.service",
                    "is only of agents: operators' roles are for all services",
                );
                let scope = if namespace.is_empty() {
                    Some(Scope::Everything)
                } else {
                    faults.take("token.namespace", Namespace::try_new(namespace)).map(Scope::Namespace)
                };
                scope.map(|scope| match role {
                    v1::Role::Viewer => Role::Viewer(scope),
                    v1::Role::Operator => Role::Operator(scope),
                    v1::Role::Admin | v1::Role::Agent | v1::Role::Unspecified => Role::Admin(scope),
                })
            }
            v1::Role::Unspecified => {
                faults.push("token.role", "is required");
                None
            }
        };
        let life = life.unwrap_or(default);
        faults.check(
            (SHORTEST..=longest).contains(&life),
            "life",
            format!("must be from a minute to {} days", longest.as_secs() / DAY.as_secs()),
        );
        let role = faults.into_result(role)?;
        Ok(Self { name: name.to_owned(), role, life })
    }
}

impl Request {
    /// What it allows.
    #[must_use]
    pub const fn role(&self) -> &Role {
        &self.role
    }
}

impl Tokens {
    /// Those of a store.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn load(store: StoreHandle) -> Result<Self, StoreError> {
        let tokens = Self { store, known: Arc::default(), turn: Arc::default() };
        tokens.refresh().await?;
        Ok(tokens)
    }

    /// Makes one. The secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// The store's word.
    pub async fn create(
        &self,
        request: Request,
        caller: Caller,
        once: Option<Once<StoredToken>>,
    ) -> Result<(StoredToken, Secret), CreateError> {
        let Request { name, role, life } = request;
        let secret = Secret::generate().map_err(CreateError::Random)?;
        let at = SystemTime::now();
        let new = NewToken { id: secret.id().to_owned(), name, digest: secret.digest(), role, expires: at + life };
        let made = self.store.put_token_once(new, Note { caller, message: String::new(), at }, once).await;
        let made = self.settle(made, |made| Some(made)).await?;
        tracing::info!(
            event.name = "token.created", token = made.id, name = made.name, role = %made.role, author = made.creator,
            "token created"
        );
        Ok((made, secret))
    }

    /// What [`Tokens::create`] would make. Nothing is written: it has no id.
    ///
    /// # Errors
    /// The store's word.
    pub async fn preview(&self, request: Request, caller: Caller) -> Result<StoredToken, StoreError> {
        let Request { name, role, life } = request;
        let created = SystemTime::now();
        if self.store.tokens().await?.iter().any(|stored| {
            stored.name == name && stored.role.namespace() == role.namespace() && stored.in_force(created)
        }) {
            return Err(StoreError::TokenExists(name));
        }
        let (creator, expires) = (caller.name, created + life);
        let digest = Digest::of("");
        Ok(StoredToken { id: String::new(), name, digest, role, creator, created, expires, revoked: None })
    }

    /// Ends one of those that a scope goes over, and the streams that were opened with it. `None` if there is none.
    ///
    /// # Errors
    /// The store's word.
    pub async fn revoke(
        &self,
        id: &str,
        scope: &Scope,
        caller: Caller,
        reason: String,
        once: Option<Once<StoredToken>>,
    ) -> Result<Option<StoredToken>, StoreError> {
        // What a token is for never changes: the mirror knows.
        let is_another_s = self.known.load().get(id).is_none_or(|known| !known.stored.is_within(scope));
        if scope.namespace().is_some() && is_another_s {
            return Ok(None);
        }
        let note = Note { caller, message: reason, at: SystemTime::now() };
        let ended = self.store.revoke_token_once(id.to_owned(), note, once).await;
        let ended = self.settle(ended, Option::as_ref).await?;
        if let Some(StoredToken { id, name, revoked: Some(revoked), .. }) = &ended {
            tracing::info!(
                event.name = "token.revoked",
                token = id,
                name,
                author = revoked.by,
                why = revoked.reason,
                "token revoked"
            );
        }
        Ok(ended)
    }

    /// All that were made and that a scope goes over, the newest first.
    ///
    /// # Errors
    /// The store's word.
    pub async fn list(&self, scope: &Scope) -> Result<Vec<StoredToken>, StoreError> {
        let mut all = self.store.tokens().await?;
        all.retain(|stored| stored.is_within(scope));
        Ok(all)
    }

    /// Whose a token is.
    pub(super) fn recognise(&self, secret: &Secret) -> Result<Principal, Refusal> {
        let known = self.known.load();
        // An id that nobody has takes as long as one that somebody has.
        let nobody = Digest::of("");
        let found = known.get(secret.id());
        let same = found.map_or(&nobody, |known| &known.stored.digest).matches(&secret.digest());
        let Some(Known { stored, ended }) = found.filter(|_| same) else { return Err(Refusal::UnknownToken) };
        if stored.revoked.is_some() {
            return Err(Refusal::Revoked);
        }
        Ok(Principal {
            name: stored.identity().into(),
            role: stored.role.clone(),
            method: Method::Token,
            expires: Some(stored.expires),
            revoked: ended.clone(),
        })
    }

    /// Brings the mirror up to a change, whatever else may be wrong with the store. After a failure it is read anew: a commit may have come
    /// through although its answer did not.
    async fn settle<T>(
        &self,
        outcome: Result<T, StoreError>,
        stored: impl FnOnce(&T) -> Option<&StoredToken>,
    ) -> Result<T, StoreError> {
        match &outcome {
            Ok(changed) => {
                let _turn = self.turn.lock().await;
                if let Some(stored) = stored(changed) {
                    let mut after = BTreeMap::clone(&self.known.load());
                    let ended = after.get(&stored.id).map_or_else(CancellationToken::new, |known| known.ended.clone());
                    after.insert(stored.id.clone(), Known { stored: Arc::new(stored.clone()), ended: ended.clone() });
                    self.known.store(Arc::new(after));
                    if stored.revoked.is_some() {
                        ended.cancel();
                    }
                }
            }
            Err(_) => {
                if let Err(error) = self.refresh().await {
                    tracing::warn!(%error, "tokens could not be read anew: those known before count");
                }
            }
        }
        outcome
    }

    /// Reads the store anew.
    async fn refresh(&self) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let stored = self.store.tokens().await?;
        let before = self.known.load_full();
        let mut after = BTreeMap::new();
        for stored in stored {
            let ended = before.get(&stored.id).map_or_else(CancellationToken::new, |known| known.ended.clone());
            after.insert(stored.id.clone(), Known { stored: Arc::new(stored), ended });
        }
        self.known.store(Arc::new(after.clone()));
        for (id, known) in before.iter() {
            if after.get(id).is_none_or(|now| now.stored.revoked.is_some()) {
                known.ended.cancel();
            }
        }
        Ok(())
    }
}
