//! Who a credential belongs to, cached in both tiers like everything else: guarded by the rows that it follows from, so that a key
//! that is revoked, or a user who is disabled, is refused everywhere within the bound of coherence. A credential that does not hold
//! is not cached.
//!
//! A hit costs a hash, a look-up, and a look at two clocks. What is cached holds no secret, and its key is a hash of the credential.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::{constant_time, hmac};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::credential::{Credential, invalid, is_same, read_key};
use super::token::SigningKeys;
use crate::cache::{Basis, Cache, CacheKey, Content, Fingerprint, Kind, Lifetime, Lifetimes, Lookup, Outcome, Presence, Scope};
use crate::config::{AuthSettings, CacheSettings};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    CollectionName, Freshness, Guard, Identity, Principal, Quota, RecordId, Role, Scope as Permission, timestamp_text,
};
use crate::store::{ApiKey, KEYS, SESSIONS, Session, Store, USERS};

/// For how long a principal is cached if nothing changes.
const TTL: Duration = Duration::from_secs(10 * 60);

/// A process that has not read the change log for this long beyond `auth.stale_if_error` is behind, even if nothing went wrong: a few
/// rounds are allowed to be late.
const LATE: Duration = Duration::from_secs(2);

/// How often the last use of a key is written.
const USE_NOTED_EVERY_MS: i64 = 60_000;

/// Another spelling of [`Stored`] has another number.
const LAYOUT: u8 = 1;

/// The scopes of the cache that principals are in. Make them before the second tier is joined.
pub struct PrincipalScopes {
    keys: Arc<Scope>,
    tokens: Arc<Scope>,
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
}

/// What is written to the second tier is sealed: who can write there, and does not have the secret of the installation, which is in the
/// database, cannot make anybody somebody else, nor let in longer than for a time who was let in once.
#[derive(Clone)]
struct Seal(hmac::Key);

/// A principal as both tiers have it.
#[derive(Serialize, Deserialize)]
struct Stored {
    actor: String,
    subject: String,
    role: String,
    scopes: Option<Vec<String>>,
    quota: Option<String>,
    expires_ms: Option<i64>,
    loaded_ms: i64,
    /// The prefix of a key, and when it was last used.
    key: Option<(String, i64)>,
}

/// A principal as requests use it, made of [`Stored`] once.
struct Known {
    identity: Arc<Identity>,
    expires_ms: Option<i64>,
    key: Option<KeyUse>,
}

struct KeyUse {
    prefix: String,
    noted_ms: AtomicI64,
}

impl PrincipalScopes {
    /// The scopes, in `cache`.
    pub fn new(cache: &Cache, auth: &AuthSettings, settings: &CacheSettings) -> Result<Arc<Self>> {
        for collection in [USERS, KEYS, SESSIONS] {
            cache.know(CollectionName::parse(collection)?);
        }
        let lifetime = Lifetime { ttl: TTL, stale_if_error: auth.stale_if_error };
        let lifetimes = Lifetimes { found: lifetime, missing: lifetime, max_lag: Duration::ZERO };
        let scope = |name| cache.scope(Kind::Principal, name, lifetimes, Fingerprint::of(&[&LAYOUT]));
        let tolerance = auth.stale_if_error + LATE.max(3 * settings.reconcile_interval);
        Ok(Arc::new(Self { keys: scope(KEYS), tokens: scope(SESSIONS), tolerance, retention: TTL + auth.stale_if_error }))
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
        Self { store, cache, scopes, signing, seal: Seal::new(secret) }
    }

    /// The principal, if it is cached: the whole cost of a hit. Otherwise call [`Self::look_up`].
    pub fn recognize(&self, field: &[u8]) -> Result<Option<Principal>> {
        let credential = Credential::parse(field)?;
        let (scope, digest) = (self.scopes.of(credential), credential.digest());
        let key = CacheKey::of_principal(scope, &digest);
        let found = self.cache.get(scope, &key).filter(|_| self.is_up_to_date());
        match &found {
            Some(lookup) => self.known(lookup, &digest).map(|known| self.admitted(known, lookup.outcome)).transpose(),
            None => Ok(None),
        }
    }

    /// The principal, from wherever it is.
    pub async fn look_up(&self, field: &[u8]) -> Result<Principal> {
        let credential = Credential::parse(field)?;
        let digest = credential.digest();
        // If nobody can say what was revoked since, the database is asked, and if it does not answer, nobody is let in.
        let reload = !self.is_up_to_date();
        let mut lookup = self.found(credential, &digest, Freshness { reload, ..Freshness::ANY }).await?;
        if self.known(&lookup, &digest).is_none() {
            // The second tier has something that this installation did not write there.
            tracing::warn!("a cached principal was not sealed by this installation; it is loaded again");
            lookup = self.found(credential, &digest, Freshness { reload: true, ..Freshness::ANY }).await?;
        }
        let known = self.known(&lookup, &digest).ok_or_else(|| Error::internal("a principal that was loaded cannot be read"))?;
        self.admitted(known, lookup.outcome)
    }

    async fn found(&self, credential: Credential<'_>, digest: &[u8; 32], freshness: Freshness) -> Result<Lookup> {
        let scope = self.scopes.of(credential);
        let key = CacheKey::of_principal(scope, digest);
        let (cache, store, seal, digest) = (&self.cache, self.store.clone(), self.seal.clone(), *digest);
        let lookup = match credential {
            Credential::Key(text) => {
                let (prefix, hash) = read_key(text).ok_or_else(invalid)?;
                let (guards, prefix) = ([guard(KEYS, prefix)?], prefix.to_owned());
                let load = move || async move { seal.content(&of_key(store.key_read(&prefix).await?, &hash)?, &digest) };
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

    /// Whether this process knows what was revoked, but for what `auth.stale_if_error` allows.
    fn is_up_to_date(&self) -> bool {
        self.cache.trust().unread_for(Instant::now()) <= self.scopes.tolerance
    }

    fn admitted(&self, known: &Known, outcome: Outcome) -> Result<Principal> {
        let now = Utc::now();
        if known.expires_ms.is_some_and(|expires| expires <= now.timestamp_millis()) {
            return Err(invalid());
        }
        if let Some(key) = &known.key
            && outcome != Outcome::Stale
        {
            self.note_use(key, now);
        }
        Ok(Principal::Known(Arc::clone(&known.identity)))
    }

    /// Writes that a key is used, behind the answer, and seldom.
    fn note_use(&self, key: &KeyUse, now: DateTime<Utc>) {
        let (now_ms, noted) = (now.timestamp_millis(), key.noted_ms.load(Ordering::Relaxed));
        if now_ms - noted < USE_NOTED_EVERY_MS {
            return;
        }
        let claimed = key.noted_ms.compare_exchange(noted, now_ms, Ordering::Relaxed, Ordering::Relaxed);
        if claimed.is_err() {
            return;
        }
        let (store, prefix) = (self.store.clone(), key.prefix.clone());
        let before = now - Duration::from_millis(USE_NOTED_EVERY_MS.unsigned_abs());
        // If it fails it is noted a minute later.
        drop(tokio::spawn(async move { store.key_used(&prefix, &timestamp_text(now), &timestamp_text(before)).await }));
    }
}

impl Seal {
    fn new(secret: &SecretString) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes()))
    }

    /// Of the text and of the credential that it is for.
    fn tag(&self, text: &[u8], digest: &[u8; 32]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(digest);
        context.update(text);
        context.sign()
    }

    fn content(&self, stored: &Stored, digest: &[u8; 32]) -> Result<Content> {
        let mut text = serde_json::to_vec(stored).map_err(Error::internal)?;
        let tag = self.tag(&text, digest);
        text.extend(tag.as_ref());
        // Nobody is sent it.
        let etag = HeaderValue::from_static("\"principal\"");
        let body = Bytes::from(text.into_boxed_slice());
        Ok(Content { presence: Presence::Found, body, etag, headers: Vec::new(), basis: Basis::Loaded })
    }

    /// The text of a body that was sealed for this credential.
    fn opened<'a>(&self, body: &'a [u8], digest: &[u8; 32]) -> Option<&'a [u8]> {
        let (text, tag) = body.split_last_chunk::<32>()?;
        constant_time::verify_slices_are_equal(self.tag(text, digest).as_ref(), tag).is_ok().then_some(text)
    }
}

impl Known {
    fn read(text: &[u8], retention: Duration) -> Option<Self> {
        let stored: Stored = serde_json::from_slice(text).ok()?;
        let age_ms = Utc::now().timestamp_millis().saturating_sub(stored.loaded_ms);
        if i128::from(age_ms) > retention.as_millis().cast_signed() {
            return None;
        }
        let scopes = stored.scopes.map(|texts| texts.iter().map(|text| text.parse::<Permission>()).collect::<Result<Vec<_>>>());
        let quota = stored.quota.map(|text| text.parse::<Quota>());
        let identity = Identity {
            actor: stored.actor,
            subject: stored.subject,
            role: stored.role.parse().ok()?,
            scopes: scopes.transpose().ok()?,
            quota: quota.transpose().ok()?,
        };
        let key = stored.key.map(|(prefix, noted)| KeyUse { prefix, noted_ms: AtomicI64::new(noted) });
        Some(Self { identity: Arc::new(identity), expires_ms: stored.expires_ms, key })
    }
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

fn of_key(found: Option<ApiKey>, hash: &str) -> Result<Stored> {
    let key = found.filter(|key| is_same(&key.hash, hash) && key.revoked_at.is_none()).ok_or_else(invalid)?;
    let expires_ms = key.expires_at.as_deref().map(milliseconds).transpose()?;
    let is_over = expires_ms.is_some_and(|expires| expires <= Utc::now().timestamp_millis());
    let is_disabled = key.holder.as_ref().is_some_and(|holder| holder.disabled_at.is_some());
    if is_over || is_disabled {
        return Err(invalid());
    }
    let used_ms = key.last_used_at.as_deref().map_or(Ok(0), milliseconds)?;
    let actor = format!("key:{}", key.prefix);
    Ok(Stored {
        subject: key.holder.as_ref().map_or_else(|| actor.clone(), |holder| holder.id.clone()),
        actor,
        role: key.holder.as_ref().map_or(key.role, |holder| holder.role.min(key.role)).to_string(),
        scopes: key.scopes.map(|scopes| scopes.iter().map(Permission::to_string).collect()),
        quota: key.quota.map(|quota| quota.to_string()),
        expires_ms,
        loaded_ms: Utc::now().timestamp_millis(),
        key: Some((key.prefix, used_ms)),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(loaded_ms: i64) -> Stored {
        let text = || "x".to_owned();
        Stored {
            actor: text(),
            subject: text(),
            role: "admin".into(),
            scopes: None,
            quota: None,
            expires_ms: None,
            loaded_ms,
            key: None,
        }
    }

    #[test]
    fn what_is_sealed_holds_for_one_credential_of_one_installation_and_for_a_time() {
        let (own, other) = (Seal::new(&"own".to_owned().into()), Seal::new(&"other".to_owned().into()));
        let body = own.content(&stored(Utc::now().timestamp_millis()), &[1; 32]).unwrap().body;
        let text = own.opened(&body, &[1; 32]).unwrap();
        assert_eq!(Known::read(text, TTL).unwrap().identity.role, Role::Admin);
        assert!(own.opened(&body, &[2; 32]).is_none() && other.opened(&body, &[1; 32]).is_none());
        for at in 0..body.len() {
            let mut changed = body.to_vec();
            changed[at] ^= 1;
            assert!(own.opened(&changed, &[1; 32]).is_none(), "{at}");
        }
        assert!(own.opened(&body[..31], &[1; 32]).is_none());
        let old = serde_json::to_vec(&stored(Utc::now().timestamp_millis() - 11 * 60_000)).unwrap();
        assert!(Known::read(&old, TTL).is_none());
    }
}
