//! Access tokens: JSON Web Tokens signed by Ed25519 (RFC 8037) with keys that all instances share in the database, and that change.
//!
//! A key signs for its lifetime, and tokens that it signed hold for theirs; after that it is removed, and refused before.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::credential::{invalid, is_random, random};
use crate::config::AuthSettings;
use crate::error::{Error, Result};
use crate::model::timestamp_text;
use crate::store::{SigningKey, Store};

/// How JOSE spells what tokens are signed by.
const ALGORITHM: &str = "EdDSA";

/// Random bytes of a kid.
const KID_BYTES: usize = 10;

/// Between two readings of the keys because of a kid that nobody knows.
const PAUSE: Duration = Duration::from_secs(1);

/// No key was made after that.
const NEVER: &str = "9999";

/// By how much the clocks of two instances may differ.
const SKEW: TimeDelta = TimeDelta::minutes(5);

/// What an access token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    /// The user.
    pub sub: String,
    /// The session.
    pub sid: String,
    /// The user's role when it was signed: for clients, and not what counts.
    pub role: String,
    /// When it was signed, in seconds.
    pub iat: i64,
    /// When it ends, in seconds.
    pub exp: i64,
}

/// The keys, as far as this process knows them.
pub(super) struct SigningKeys {
    store: Store,
    lifetime: TimeDelta,
    token_lifetime: TimeDelta,
    /// Held for a moment, never across an await.
    known: RwLock<Arc<Vec<Key>>>,
    /// Held by who asks the store, with the time at which it was last asked: many may find a key missing, or too old, at once.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

struct Key {
    kid: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
    created_at: DateTime<Utc>,
}

impl SigningKeys {
    pub fn new(store: Store, settings: &AuthSettings) -> Self {
        let delta = |duration| TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX);
        let (lifetime, token_lifetime) = (delta(settings.signing_key_lifetime), delta(settings.access_token_lifetime));
        Self { store, lifetime, token_lifetime, known: RwLock::default(), asked: tokio::sync::Mutex::default() }
    }

    /// A token that says `claims`.
    pub async fn sign(&self, claims: &Claims) -> Result<SecretString> {
        let now = Utc::now();
        let keys = match self.signing(now) {
            Some(keys) => keys,
            None => self.renew(now).await?,
        };
        let key = keys.first().ok_or_else(|| Error::internal("there is no signing key"))?;
        let header = Header { kid: Some(key.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        let token = jsonwebtoken::encode(&header, claims, &key.encoding).map_err(Error::internal)?;
        Ok(token.into())
    }

    /// What `token` says, if one of the keys signed it and it has not ended.
    pub async fn verify(&self, token: &str) -> Result<Claims> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid())?;
        let kid = header.kid.filter(|kid| header.alg == Algorithm::EdDSA && is_kid(kid)).ok_or_else(invalid)?;
        let find = |keys: &Arc<Vec<Key>>| keys.iter().position(|key| key.kid == kid);
        let mut keys = self.known();
        if find(&keys).is_none() {
            // Another instance may have made it.
            keys = self.read_anew(|keys| find(keys).is_some()).await?;
        }
        let key = find(&keys).and_then(|at| keys.get(at)).ok_or_else(invalid)?;
        if Utc::now() > key.created_at + self.lifetime + self.token_lifetime + SKEW {
            return Err(invalid());
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = 0;
        let token = jsonwebtoken::decode(token, &key.decoding, &validation).map_err(|_| invalid())?;
        Ok(token.claims)
    }

    /// The keys, if the newest may still sign.
    fn signing(&self, now: DateTime<Utc>) -> Option<Arc<Vec<Key>>> {
        let keys = self.known();
        keys.first().is_some_and(|newest| newest.created_at > now - self.lifetime).then_some(keys)
    }

    fn known(&self) -> Arc<Vec<Key>> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The keys as they are stored, unless somebody else has read what is `sought` meanwhile. Anybody can make kids up, so this is done
    /// once in [`PAUSE`]: a key that another instance has just made may be unknown for so long, if somebody does.
    async fn read_anew(&self, sought: impl Fn(&Arc<Vec<Key>>) -> bool) -> Result<Arc<Vec<Key>>> {
        let mut asked = self.asked.lock().await;
        let keys = self.known();
        if sought(&keys) || asked.is_some_and(|asked| asked.elapsed() < PAUSE) {
            return Ok(keys);
        }
        let stored = self.store.signing_keys().await?;
        *asked = Some(Instant::now());
        Ok(self.keep(&stored))
    }

    async fn renew(&self, now: DateTime<Utc>) -> Result<Arc<Vec<Key>>> {
        let _turn = self.asked.lock().await;
        if let Some(keys) = self.signing(now) {
            return Ok(keys);
        }
        let (after, old) = (now - self.lifetime, now - self.lifetime * 2 - self.token_lifetime - SKEW);
        let (after, old) = (timestamp_text(after), timestamp_text(old));
        let keys = self.keep(&self.store.signing_keys_renew(fresh(now)?, &after, &old).await?);
        if keys.first().is_some_and(|newest| newest.created_at > now - self.lifetime) {
            return Ok(keys);
        }
        // There is one, and it cannot be read.
        Ok(self.keep(&self.store.signing_keys_renew(fresh(now)?, NEVER, &old).await?))
    }

    /// Those that can be read: one that cannot keeps nobody from using the others. Called by who holds the lock.
    fn keep(&self, stored: &[SigningKey]) -> Arc<Vec<Key>> {
        let readable = |stored: &SigningKey| {
            Key::read(stored).inspect_err(|error| tracing::error!(%error, "a signing key is left out")).ok()
        };
        let keys: Vec<Key> = stored.iter().filter(|key| key.algorithm == ALGORITHM).filter_map(readable).collect();
        let keys = Arc::new(keys);
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&keys);
        keys
    }
}

fn is_kid(text: &str) -> bool {
    is_random(text, KID_BYTES)
}

fn fresh(now: DateTime<Utc>) -> Result<SigningKey> {
    let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(Error::internal)?;
    Ok(SigningKey {
        kid: random(KID_BYTES)?,
        algorithm: ALGORITHM.to_owned(),
        private: STANDARD.encode(private.as_ref()).into(),
        created_at: timestamp_text(now),
    })
}

impl Key {
    fn read(stored: &SigningKey) -> Result<Self> {
        let unreadable = || Error::internal(format!("the signing key {} cannot be read", stored.kid));
        let private = STANDARD.decode(stored.private.expose_secret()).map_err(|_| unreadable())?;
        let pair = Ed25519KeyPair::from_pkcs8(&private).map_err(|_| unreadable())?;
        Ok(Self {
            kid: stored.kid.clone(),
            encoding: EncodingKey::from_ed_der(&private),
            decoding: DecodingKey::from_ed_der(pair.public_key().as_ref()),
            created_at: stored.created_at.parse().map_err(|_| unreadable())?,
        })
    }
}
