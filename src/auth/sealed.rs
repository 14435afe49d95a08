//! A principal as both tiers have it, and as requests use it.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};
use bytes::Bytes;
use chrono::Utc;
use http::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use crate::cache::{Basis, Content, Presence};
use crate::error::{Error, Result};
use crate::model::{Identity, Quota, Scope};

/// Another spelling of [`Stored`] has another number.
pub(super) const LAYOUT: u8 = 1;

/// What is written to the second tier is sealed: who can write there, and does not have the secret of the installation, which is in the
/// database, cannot make anybody somebody else, nor let in longer than for a time who was let in once.
#[derive(Clone)]
pub(super) struct Seal(hmac::Key);

/// A principal as both tiers have it.
#[derive(Serialize, Deserialize)]
pub(super) struct Stored {
    pub actor: String,
    pub subject: String,
    pub role: String,
    pub scopes: Option<Vec<String>>,
    pub quota: Option<String>,
    pub expires_ms: Option<i64>,
    pub loaded_ms: i64,
    /// The prefix of a key, and when it was last used.
    pub key: Option<(String, i64)>,
}

/// A principal as requests use it, made of [`Stored`] once.
pub(super) struct Known {
    pub identity: Arc<Identity>,
    pub expires_ms: Option<i64>,
    pub key: Option<KeyUse>,
}

pub(super) struct KeyUse {
    pub prefix: String,
    pub noted_ms: AtomicI64,
}

impl Seal {
    pub fn new(secret: &SecretString) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes()))
    }

    /// Of the text and of the credential that it is for.
    fn tag(&self, text: &[u8], digest: &[u8; 32]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(digest);
        context.update(text);
        context.sign()
    }

    pub fn content(&self, stored: &Stored, digest: &[u8; 32]) -> Result<Content> {
        let mut text = serde_json::to_vec(stored).map_err(Error::internal)?;
        let tag = self.tag(&text, digest);
        text.extend(tag.as_ref());
        // Nobody is sent it.
        let etag = HeaderValue::from_static("\"principal\"");
        let body = Bytes::from(text.into_boxed_slice());
        Ok(Content { presence: Presence::Found, body, etag, headers: Vec::new(), basis: Basis::Loaded })
    }

    /// The text of a body that was sealed for this credential.
    pub fn opened<'a>(&self, body: &'a [u8], digest: &[u8; 32]) -> Option<&'a [u8]> {
        let (text, tag) = body.split_last_chunk::<32>()?;
        constant_time::verify_slices_are_equal(self.tag(text, digest).as_ref(), tag).is_ok().then_some(text)
    }
}

impl Known {
    pub fn read(text: &[u8], retention: Duration) -> Option<Self> {
        let stored: Stored = serde_json::from_slice(text).ok()?;
        let age_ms = Utc::now().timestamp_millis().saturating_sub(stored.loaded_ms);
        if i128::from(age_ms) > retention.as_millis().cast_signed() {
            return None;
        }
        let scopes = stored.scopes.map(|texts| texts.iter().map(|text| text.parse::<Scope>()).collect::<Result<Vec<_>>>());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Role;

    const TTL: Duration = Duration::from_secs(600);

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
