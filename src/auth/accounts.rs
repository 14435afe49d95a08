//! The service behind users, keys and sessions: what is changed here is stored with its row in the change log, and announced, before
//! anybody is told that it is done.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use secrecy::SecretString;
use uuid::Uuid;

use super::credential::{FreshKey, random};
use super::password::Passwords;
use super::principals::{PrincipalScopes, Principals};
use super::token::SigningKeys;
use crate::cache::{Cache, Reconciler};
use crate::config::AuthSettings;
use crate::error::{Error, Result};
use crate::faults;
use crate::model::{Caller, Change, Principal, Quota, Role, Scope, timestamp_text};
use crate::store::{ApiKey, Author, NewKey, NewUser, Store, User, UserState};
use crate::telemetry::RequestId;

/// What the first key of an installation is called.
const FIRST_KEY: &str = "first";

/// The longest name of a key, in bytes.
const MAX_NAME: usize = 100;

/// Users, keys and sessions, and who is asking.
pub struct Accounts {
    pub(super) store: Store,
    pub(super) cache: Arc<Cache>,
    reconciler: Arc<Reconciler>,
    pub(super) settings: AuthSettings,
    pub(super) passwords: Passwords,
    pub(super) signing: Arc<SigningKeys>,
    principals: Principals,
}

/// What a key shall be.
#[derive(Clone, Debug)]
pub struct KeyRequest {
    /// What its owner calls it.
    pub name: String,
    /// What it may do at most.
    pub role: Role,
    /// What it may do of that; `None` for all of it.
    pub scopes: Option<Vec<Scope>>,
    /// The address of the user for whom it acts.
    pub user: Option<String>,
    /// When it ends by itself.
    pub expires_in: Option<Duration>,
    /// Its own quota.
    pub quota: Option<Quota>,
}

impl KeyRequest {
    /// A key that does what a role may, for ever.
    pub fn new(name: &str, role: Role) -> Self {
        Self { name: name.to_owned(), role, scopes: None, user: None, expires_in: None, quota: None }
    }
}

/// A key that has just been made; its text is shown once.
pub struct CreatedKey {
    /// What it is found and named by.
    pub prefix: String,
    /// What requests send.
    pub text: SecretString,
}

/// The secret of an installation, if this is the first process of it.
pub async fn installation_secret(store: &Store) -> Result<SecretString> {
    store.installation_secret(random(32)?.into()).await
}

impl Accounts {
    /// The service over an open database. Changes are announced by `reconciler`; `secret` is the installation's.
    pub fn new(
        store: Store,
        cache: Arc<Cache>,
        reconciler: Arc<Reconciler>,
        scopes: Arc<PrincipalScopes>,
        settings: &AuthSettings,
        secret: &SecretString,
    ) -> Arc<Self> {
        let signing = Arc::new(SigningKeys::new(store.clone(), settings));
        let principals = Principals::new(store.clone(), Arc::clone(&cache), scopes, Arc::clone(&signing), secret);
        Arc::new(Self { store, cache, reconciler, settings: settings.clone(), passwords: Passwords::new(), signing, principals })
    }

    /// Who an `Authorization` field belongs to, if that is cached: it costs little, and waits for nothing. Otherwise call
    /// [`Self::look_up`]. Fails if the credential does not hold.
    pub fn recognize(&self, authorization: &[u8]) -> Result<Option<Principal>> {
        self.principals.recognize(authorization)
    }

    /// The same for a request that may not load anything: also what would have to be looked up soon.
    pub fn recognize_due(&self, authorization: &[u8]) -> Result<Option<Principal>> {
        self.principals.recognize_due(authorization)
    }

    /// Who an `Authorization` field belongs to. Fails if the credential does not hold, or nobody can tell at the moment. Whoever
    /// serves a request for long asks again from time to time: the answer is as new as any.
    pub async fn look_up(&self, authorization: &[u8]) -> Result<Principal> {
        self.principals.look_up(authorization).await
    }

    /// Adds a user.
    pub async fn add_user(self: &Arc<Self>, email: &str, password: SecretString, role: Role, caller: &Caller) -> Result<()> {
        let email = email_text(email)?;
        let password_hash = self.passwords.hash(password).await?;
        let user = NewUser { id: Uuid::now_v7().to_string(), email, password_hash, role };
        let author = author(caller);
        self.committed(move |accounts| async move { Ok(((), accounts.store.user_insert(user, &author, &now()).await?)) }).await
    }

    /// All users, by address.
    pub async fn users(&self) -> Result<Vec<User>> {
        self.store.user_list().await
    }

    /// Disables a user, with all keys and sessions, or lets the user act again.
    pub async fn set_user_state(self: &Arc<Self>, email: &str, state: UserState, caller: &Caller) -> Result<()> {
        let (email, author) = (email_text(email)?, author(caller));
        self.committed(move |accounts| async move {
            let changes = accounts.store.user_set_state(&email, state, &author, &now()).await?;
            Ok(((), changes.ok_or_else(|| no_user(&email))?))
        })
        .await
    }

    /// Gives a user another password, which ends all sessions.
    pub async fn set_password(self: &Arc<Self>, email: &str, password: SecretString, caller: &Caller) -> Result<()> {
        let (email, author) = (email_text(email)?, author(caller));
        let hash = self.passwords.hash(password).await?;
        self.committed(move |accounts| async move {
            let changes = accounts.store.user_set_password(&email, hash, &author, &now()).await?;
            Ok(((), changes.ok_or_else(|| no_user(&email))?))
        })
        .await
    }

    /// Makes an API key.
    pub async fn create_key(self: &Arc<Self>, request: KeyRequest, caller: &Caller) -> Result<CreatedKey> {
        let (key, created) = new_key(request)?;
        let author = author(caller);
        self.committed(move |accounts| async move { Ok(((), accounts.store.key_insert(key, &author, &now()).await?)) }).await?;
        Ok(created)
    }

    /// Makes the first key of the installation, for an administrator; `None` if there is, or was, a way in already. Of all instances
    /// one gets it.
    pub async fn first_key(self: &Arc<Self>) -> Result<Option<CreatedKey>> {
        let (key, created) = new_key(KeyRequest::new(FIRST_KEY, Role::Admin))?;
        self.committed(move |accounts| async move {
            let made = accounts.store.key_insert_first(key, &author(&Caller::OPERATOR), &now()).await?;
            let is_made = made.is_some();
            Ok((is_made.then_some(created), made.unwrap_or_default()))
        })
        .await
    }

    /// All keys, the oldest first.
    pub async fn keys(&self) -> Result<Vec<ApiKey>> {
        self.store.key_list().await
    }

    /// Ends a key.
    pub async fn revoke_key(self: &Arc<Self>, prefix: &str, caller: &Caller) -> Result<()> {
        let (prefix, author) = (prefix.to_owned(), author(caller));
        self.committed(move |accounts| async move {
            let changes = accounts.store.key_revoke(&prefix, &author, &now()).await?;
            Ok(((), changes.ok_or_else(|| Error::not_found(format!("There is no key with the prefix {prefix:?}.")))?))
        })
        .await
    }

    /// Runs a transaction and the announcement of its changes in a task of their own: a client that hangs up between the two must not
    /// leave a revocation unannounced.
    pub(super) async fn committed<T, F>(self: &Arc<Self>, transaction: impl FnOnce(Arc<Self>) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<(T, Vec<Change>)>> + Send,
    {
        let accounts = Arc::clone(self);
        let task = tokio::spawn(RequestId::carry(async move {
            let (value, changes) = transaction(Arc::clone(&accounts)).await?;
            if !changes.is_empty() {
                faults::point("before_announce").await;
                // No predecessors: each change moves all guards that those before it of the same row have moved.
                accounts.reconciler.announce(&changes, &std::collections::BTreeSet::new()).await;
            }
            Ok(value)
        }));
        task.await.map_err(Error::internal)?
    }
}

fn author(caller: &Caller) -> Author {
    Author { actor: caller.principal.actor().to_owned(), origin: caller.address }
}

fn now() -> String {
    timestamp_text(Utc::now())
}

fn no_user(email: &str) -> Error {
    Error::not_found(format!("There is no user {email:?}."))
}

fn new_key(request: KeyRequest) -> Result<(NewKey, CreatedKey)> {
    let name = request.name.trim().to_owned();
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        let detail = format!("The name of a key has 1 to {MAX_NAME} bytes and no control characters.");
        return Err(Error::bad_request("invalid_name", detail));
    }
    let expires_at = match request.expires_in {
        Some(time) => {
            let at = chrono::TimeDelta::from_std(time).ok().and_then(|time| Utc::now().checked_add_signed(time));
            // Later times are spelled with a sign, and would not compare as texts.
            let at = at.filter(|at| chrono::Datelike::year(at) <= 9_999);
            let detail = "A key expires before the year 10000.";
            Some(timestamp_text(at.ok_or_else(|| Error::bad_request("invalid_expiry", detail))?))
        }
        None => None,
    };
    let FreshKey { prefix, hash, text } = FreshKey::make()?;
    let key = NewKey {
        prefix: prefix.clone(),
        name,
        hash,
        role: request.role,
        user: request.user.as_deref().map(email_text).transpose()?,
        scopes: request.scopes,
        quota: request.quota,
        expires_at,
    };
    Ok((key, CreatedKey { prefix, text }))
}

/// An e-mail address as it is stored: whoever writes it in capitals is the same.
pub(super) fn email_text(text: &str) -> Result<String> {
    let email = text.trim().to_lowercase();
    let is_plain = email.len() <= 254 && !email.chars().any(|character| character.is_control() || character.is_whitespace());
    let has_parts = email.split_once('@').is_some_and(|(local, host)| !local.is_empty() && !host.is_empty());
    if is_plain && has_parts {
        return Ok(email);
    }
    let detail = "An e-mail address is NAME@HOST, with at most 254 bytes and no spaces.";
    Err(Error::bad_request("invalid_email", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
        assert_eq!(email_text(" Ada@Example.ORG ").unwrap(), "ada@example.org");
        for wrong in ["", "ada", "@example.org", "ada@", "a da@example.org", &format!("{}@x", "a".repeat(254))] {
            assert!(email_text(wrong).unwrap_err().detail().contains("NAME@HOST"), "{wrong}");
        }
    }
}
