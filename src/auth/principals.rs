//! Who a credential belongs to, cached in both tiers like everything else: guarded by the rows that it follows from, so that a key
//! that is revoked, or a user who is disabled, is refused everywhere within the bound of coherence. A credential that does not hold
//! is not cached.
//!
//! A hit costs a look-up in a small table and a look at two clocks. What is cached holds no secret, and its key is a hash of the
//! credential.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::HeaderValue;
use secrecy::SecretString;
use tokio::sync::Semaphore;

use super::credential::{Credential, invalid, is_same, read_key};
use super::recent::{Recent, Used};
use super::sealed::{KeyUse, Known, LAYOUT, Seal, Stored};
use super::token::SigningKeys;
use crate::cache::{
    Basis, Cache, CacheKey, Content, Fingerprint, Held, Kind, Lifetime, Lifetimes, Lookup, Outcome, Presence, Scope,
};
use crate::config::{AuthSettings, CacheSettings};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{CollectionName, Freshness, Guard, Principal, RecordId, Role, Scope as Permission, timestamp_text};
use crate::store::{ApiKey, KEYS, SESSIONS, Session, Store, USERS};

/// For how long a principal is cached if nothing changes.
const TTL: Duration = Duration::from_secs(10 * 60);

/// The same for a key that has ended.
const ENDED_TTL: Duration = Duration::from_secs(10);

/// A process that has not read the change log for this long beyond `auth.stale_if_error` is behind, even if nothing went wrong: a few
/// rounds are allowed to be late.
const LATE: Duration = Duration::from_secs(2);

/// So many of 256 requests look a caller up in the cache.
const SEEN_BY_CACHE: u8 = 4;

/// How often the last use of a key is written.
const USE_NOTED_EVERY_MS: i64 = 60_000;

/// The scopes of the cache that principals are in. Make them before the second tier is joined.
pub struct PrincipalScopes {
    keys: Arc<Scope>,
    tokens: Arc<Scope>,
    /// Within that rounds over the log follow each other.
    prompt: Duration,
    /// The same and `auth.stale_if_error`.
    tolerance: Duration,
    /// No principal that was loaded longer ago is used.
    retention: Duration,
}

/// Finds out who a credential belongs to.
pub(super) struct Principals {
    store: Store,
    cache: Arc<Cache>,
    scopes: Arc<PrincipalScopes>,
    signing: Arc<SigningKeys>,
    seal: Seal,
    recent: Recent,
    /// One permit, for who writes that a key is used.
    noting: Arc<Semaphore>,
}

impl PrincipalScopes {
    /// The scopes, in `cache`.
    pub fn new(cache: &Cache, auth: &AuthSettings, settings: &CacheSettings) -> Result<Arc<Self>> {
        for collection in [USERS, KEYS, SESSIONS] {
            cache.know(CollectionName::parse(collection)?);
        }
        let lifetime = Lifetime { ttl: TTL, stale_if_error: auth.stale_if_error };
        let missing = Lifetime { ttl: ENDED_TTL, stale_if_error: Duration::ZERO };
        let lifetimes = Lifetimes { found: lifetime, missing, max_lag: Duration::ZERO };
        let scope = |name| cache.scope(Kind::Principal, name, lifetimes, Fingerprint::of(&[&LAYOUT]));
        let prompt = LATE.max(3 * settings.reconcile_interval);
        let tolerance = auth.stale_if_error + prompt;
        Ok(Arc::new(Self { keys: scope(KEYS), tokens: scope(SESSIONS), prompt, tolerance, retention: TTL + auth.stale_if_error }))
    }

    /// For how long after the change log was last read whoever was known is still known.
    pub fn tolerance(&self) -> Duration {
        self.tolerance
    }

    fn of(&self, credential: Credential<'_>) -> &Arc<Scope> {
        match credential {
            Credential::Key(_) => &self.keys,
            Credential::Token(_) => &self.tokens,
        }
    }
}

impl Principals {
    pub fn new(
        store: Store,
        cache: Arc<Cache>,
        scopes: Arc<PrincipalScopes>,
        signing: Arc<SigningKeys>,
        secret: &SecretString,
    ) -> Self {
        Self {
            store,
            cache,
            scopes,
            signing,
            seal: Seal::new(secret),
            recent: Recent::new(),
            noting: Arc::new(Semaphore::new(1)),
        }
    }

    /// The principal, if it is cached: the whole cost of a hit. Otherwise call [`Self::look_up`].
    pub fn recognize(&self, field: &[u8]) -> Result<Option<Principal>> {
        let now = Instant::now();
        let kept = |used: &Used| Some((self.cache.get_kept(&used.scope, &used.entry, now)?, used.digest));
        // Some go through the cache all the same: it would drop first what nobody seems to use.
        let is_kept = fastrand::u8(..) >= SEEN_BY_CACHE;
        if let Some((lookup, digest)) = is_kept.then(|| self.recent.find(field, kept)).flatten().flatten() {
            return self.recognized(Some(lookup), &digest, now);
        }
        let credential = Credential::parse(field)?;
        let (scope, digest) = (self.scopes.of(credential), credential.digest());
        let found = self.cache.get(scope, &CacheKey::of_principal(scope, &digest));
        let entry = found.as_ref().map(|lookup| Arc::clone(&lookup.entry));
        let principal = self.recognized(found, &digest, now)?;
        if let Some(entry) = entry.filter(|_| principal.is_some()) {
            self.recent.put(Used { field: field.to_vec().into(), digest, scope: Arc::clone(scope), entry });
        }
        Ok(principal)
    }

    /// The same for who may not load: also what would have to be refreshed.
    pub fn recognize_due(&self, field: &[u8]) -> Result<Option<Principal>> {
        let credential = Credential::parse(field)?;
        let (scope, digest) = (self.scopes.of(credential), credential.digest());
        let key = CacheKey::of_principal(scope, &digest);
        self.recognized(self.cache.get_due(scope, &key), &digest, Instant::now())
    }

    fn recognized(&self, found: Option<Lookup>, digest: &[u8; 32], now: Instant) -> Result<Option<Principal>> {
        match found.filter(|_| self.is_up_to_date(now)) {
            Some(lookup) if lookup.entry.presence() == Presence::Missing => Err(invalid()),
            Some(lookup) => self.known(&lookup, digest).map(|known| self.admitted(known, lookup.outcome)).transpose(),
            None => Ok(None),
        }
    }

    /// The principal, from wherever it is.
    pub async fn look_up(&self, field: &[u8]) -> Result<Principal> {
        let credential = Credential::parse(field)?;
        let digest = credential.digest();
        self.cache.trust().catch_up(self.scopes.prompt).await;
        // If nobody can say what was revoked since, the database is asked, and if it does not answer, nobody is let in.
        let reload = self.cache.trust().unread_for(Instant::now()) > self.scopes.tolerance;
        let mut lookup = self.found(credential, &digest, Freshness { reload, ..Freshness::ANY }).await?;
        if lookup.entry.presence() == Presence::Found && self.known(&lookup, &digest).is_none() {
            // The second tier has something that this installation did not write there.
            tracing::warn!("a cached principal was not sealed by this installation; it is loaded again");
            lookup = self.found(credential, &digest, Freshness { reload: true, ..Freshness::ANY }).await?;
        }
        if lookup.entry.presence() == Presence::Missing {
            return Err(invalid());
        }
        let known = self.known(&lookup, &digest).ok_or_else(|| Error::internal("a principal that was loaded cannot be read"))?;
        self.admitted(known, lookup.outcome)
    }

    /// Refuses a key that is none before anything of it is guarded or kept: anybody can make keys up. Who has had one may ask for long
    /// after it has ended, and is then refused out of the cache.
    async fn check_key(&self, prefix: &str, hash: &str) -> Result<()> {
        let _slot = self.cache.capacity().take()?;
        match self.store.key_read(prefix).await {
            Ok(Some(key)) if is_same(&key.hash, hash) => Ok(()),
            Ok(_) => Err(invalid()),
            // The second tier may know it.
            Err(error) if error.kind() == ErrorKind::Unavailable => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn found(&self, credential: Credential<'_>, digest: &[u8; 32], freshness: Freshness) -> Result<Lookup> {
        let scope = self.scopes.of(credential);
        let key = CacheKey::of_principal(scope, digest);
        let (cache, store, seal, digest) = (&self.cache, self.store.clone(), self.seal.clone(), *digest);
        let lookup = match credential {
            Credential::Key(text) => {
                let (prefix, hash) = read_key(text).ok_or_else(invalid)?;
                if self.cache.held(&key) != Held::Stale {
                    self.check_key(prefix, &hash).await?;
                }
                let (guards, prefix) = ([guard(KEYS, prefix)?], prefix.to_owned());
                let load = move || async move {
                    match of_key(store.key_read(&prefix).await?, &hash)? {
                        Some(stored) => seal.content(&stored, &digest),
                        None => Ok(ended()),
                    }
                };
                cache.get_or_load(scope, &key, &guards, &freshness, load).await
            }
            Credential::Token(text) => {
                // By each instance itself, and before anything is looked up: the claims say what is to be guarded.
                let claims = self.signing.verify(text).await?;
                let guards = [guard(USERS, &claims.sub)?, guard(SESSIONS, &claims.sid)?];
                let load = move || async move {
                    let session = store.session_read(&claims.sid).await?;
                    seal.content(&of_session(session.filter(|session| session.holder.id == claims.sub), claims.exp)?, &digest)
                };
                cache.get_or_load(scope, &key, &guards, &freshness, load).await
            }
        };
        lookup.map_err(unavailable)
    }

    /// What the entry says, if it is this installation's, of this credential, and not older than it may be.
    fn known<'a>(&self, lookup: &'a Lookup, digest: &[u8; 32]) -> Option<&'a Known> {
        lookup.entry.attachment(|body| Known::read(self.seal.opened(body, digest)?, self.scopes.retention))
    }

    /// Whether this process knows what was revoked; if the log cannot be read, but for what `auth.stale_if_error` allows. (One that was
    /// paused does not know it, and the log can be read.)
    fn is_up_to_date(&self, now: Instant) -> bool {
        let trust = self.cache.trust();
        let unread = trust.unread_for(now);
        unread <= self.scopes.prompt || unread <= self.scopes.tolerance && trust.is_log_unreadable()
    }

    fn admitted(&self, known: &Known, outcome: Outcome) -> Result<Principal> {
        let now_ms = unix_ms();
        if known.expires_ms.is_some_and(|expires| expires <= now_ms) {
            return Err(invalid());
        }
        if let Some(key) = &known.key
            && outcome != Outcome::Stale
        {
            let noted_ms = key.noted_ms.load(Ordering::Relaxed);
            if now_ms - noted_ms >= USE_NOTED_EVERY_MS {
                self.note_use(key, noted_ms, Utc::now());
            }
        }
        Ok(Principal::Known(Arc::clone(&known.identity)))
    }

    /// Writes that a key is used, which was noted last at `noted`, behind the answer.
    fn note_use(&self, key: &KeyUse, noted: i64, now: DateTime<Utc>) {
        let claimed = key.noted_ms.compare_exchange(noted, now.timestamp_millis(), Ordering::Relaxed, Ordering::Relaxed);
        if claimed.is_err() {
            return;
        }
        let Ok(turn) = Arc::clone(&self.noting).try_acquire_owned() else {
            // One at a time: after a start all keys come at once. It is tried again with the next request.
            key.noted_ms.store(noted, Ordering::Relaxed);
            return;
        };
        let (store, prefix) = (self.store.clone(), key.prefix.clone());
        let before = now - Duration::from_millis(USE_NOTED_EVERY_MS.unsigned_abs());
        // If it fails it is noted a minute later.
        drop(tokio::spawn(async move {
            let _turn = turn;
            store.key_used(&prefix, &timestamp_text(now), &timestamp_text(before)).await
        }));
    }
}

/// Milliseconds since 1970, with less work than a date.
fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn unavailable(error: Error) -> Error {
    // That this server has too much to do is another thing.
    if error.kind() != ErrorKind::Unavailable || error.code() != "unavailable" {
        return error;
    }
    let wait = error.retry_after().unwrap_or(Duration::from_secs(1));
    let detail = "Who is asking cannot be found out at the moment, because the database does not answer.";
    Error::unavailable(detail, wait, error.internal_message().unwrap_or_default())
}

fn guard(collection: &str, id: &str) -> Result<Guard> {
    let id = RecordId::parse(id).map_err(|_| invalid())?;
    Ok(Guard::Record(CollectionName::parse(collection)?, id))
}

/// That a key has ended; it depends on the same row.
fn ended() -> Content {
    let etag = HeaderValue::from_static("\"ended\"");
    Content { presence: Presence::Missing, body: Bytes::new(), etag, headers: Vec::new(), basis: Basis::Loaded }
}

/// `None` if the key has ended; an error if there is none.
fn of_key(found: Option<ApiKey>, hash: &str) -> Result<Option<Stored>> {
    let key = found.filter(|key| is_same(&key.hash, hash)).ok_or_else(invalid)?;
    let expires_ms = key.expires_at.as_deref().map(milliseconds).transpose()?;
    let is_over = expires_ms.is_some_and(|expires| expires <= Utc::now().timestamp_millis());
    let is_disabled = key.holder.as_ref().is_some_and(|holder| holder.disabled_at.is_some());
    if is_over || is_disabled || key.revoked_at.is_some() {
        return Ok(None);
    }
    let used_ms = key.last_used_at.as_deref().map_or(Ok(0), milliseconds)?;
    let actor = format!("key:{}", key.prefix);
    Ok(Some(Stored {
        subject: key.holder.as_ref().map_or_else(|| actor.clone(), |holder| holder.id.clone()),
        actor,
        role: key.holder.as_ref().map_or(key.role, |holder| holder.role.min(key.role)).to_string(),
        scopes: key.scopes.map(|scopes| scopes.iter().map(Permission::to_string).collect()),
        quota: key.quota.map(|quota| quota.to_string()),
        expires_ms,
        loaded_ms: Utc::now().timestamp_millis(),
        key: Some((key.prefix, used_ms)),
    }))
}

fn of_session(found: Option<Session>, token_expires: i64) -> Result<Stored> {
    let now = timestamp_text(Utc::now());
    let holds = |session: &Session| {
        session.ended_at.is_none() && session.holder.disabled_at.is_none() && session.expires_at.as_str() > now.as_str()
    };
    let session = found.filter(holds).ok_or_else(invalid)?;
    let role: Role = session.holder.role;
    Ok(Stored {
        actor: format!("user:{}", session.holder.id),
        subject: session.holder.id,
        role: role.to_string(),
        scopes: None,
        quota: None,
        expires_ms: Some((token_expires.saturating_mul(1_000)).min(milliseconds(&session.expires_at)?)),
        loaded_ms: Utc::now().timestamp_millis(),
        key: None,
    })
}

fn milliseconds(time: &str) -> Result<i64> {
    Ok(time.parse::<DateTime<Utc>>().map_err(Error::internal)?.timestamp_millis())
}
