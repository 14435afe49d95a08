//! Login, refresh and logout.
//!
//! A refresh token is used once: it brings the next one. Who sends one that was used before has stolen it, or has been stolen from,
//! and nobody can tell which: the session ends. Only within [`GRACE`] the last one brings the same next one once more, for a client
//! that lost the answer, or asked twice at once; the clocks of instances must agree within as much. (Both are then served; who of two uses the next one second ends the session.)

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;
use uuid::Uuid;

use super::accounts::{Accounts, email_text};
use super::credential::{RefreshToken, is_same, random};
use super::password::Match;
use super::token::Claims;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Role, timestamp_text};
use crate::store::{NewSession, Rotation, Rotator, Session};

/// For how long a refresh token that was used brings the same next one again.
const GRACE: TimeDelta = TimeDelta::seconds(10);

/// What a login or a refresh brings.
pub struct Tokens {
    /// What requests send.
    pub access: SecretString,
    /// For how long.
    pub expires_in: Duration,
    /// What brings the next ones, once.
    pub refresh: SecretString,
}

/// What became of a refresh token that was sent. The decision is made in the transaction, perhaps more than once.
#[derive(Default)]
enum Outcome {
    #[default]
    Refused,
    Renewed(Renewed),
}

struct Renewed {
    user: String,
    role: Role,
    next: RefreshToken,
    ends_at: DateTime<Utc>,
}

/// The same for an address that nobody has, a wrong password, and a user who is disabled.
fn refused_login() -> Error {
    let detail = "The e-mail address or the password is not right, or this user may not log in.";
    Error::new(ErrorKind::Unauthenticated, "invalid_credentials", detail)
}

fn refused_refresh() -> Error {
    let detail = "The refresh token does not hold: it is malformed, unknown, expired, used before, or its session has ended. Log in \
                  again.";
    Error::new(ErrorKind::Unauthenticated, "invalid_refresh_token", detail)
}

impl Accounts {
    /// Begins a session. It takes the same time whether there is such a user or not.
    pub async fn login(self: &Arc<Self>, email: &str, password: SecretString, origin: Option<IpAddr>) -> Result<Tokens> {
        let _slot = self.cache.capacity().take()?;
        let user = match email_text(email) {
            Ok(email) => self.store.user_by_email(&email).await?,
            // As long as any other: a look-up for what cannot be there.
            Err(_) => self.store.user_by_email("").await?,
        };
        let stored = user.as_ref().map(|user| user.password_hash.clone());
        let matched = self.passwords.check(password, stored).await?;
        let user = user.filter(|user| matched == Match::Yes && user.disabled_at.is_none()).ok_or_else(refused_login)?;
        let now = Utc::now();
        let token = RefreshToken::make(&Uuid::now_v7().to_string())?;
        let ends_at = now + self.settings.session_lifetime;
        let session = NewSession {
            id: token.session.clone(),
            user: user.id.clone(),
            family: token.family_hash(),
            newest: token.hash(),
            expires_at: timestamp_text(ends_at),
        };
        let hash = user.password_hash;
        let begun = self.committed(move |accounts| async move {
            let begun = accounts.store.session_insert(session, hash, origin, &timestamp_text(now)).await?;
            let is_begun = begun.is_some();
            Ok((is_begun.then_some(()), begun.unwrap_or_default()))
        });
        begun.await?.ok_or_else(refused_login)?;
        self.tokens(now, Renewed { user: user.id, role: user.role, next: token, ends_at }).await
    }

    /// Takes a refresh token for new tokens.
    pub async fn refresh(self: &Arc<Self>, token: &str, origin: Option<IpAddr>) -> Result<Tokens> {
        let sent = Arc::new(RefreshToken::read(token).ok_or_else(refused_refresh)?);
        let _slot = self.cache.capacity().take()?;
        let (now, step) = (Utc::now(), random(32)?);
        // Anybody can make tokens up, and reading costs less than a transaction, which decides again.
        let seen = self.store.session_read(&sent.session).await?;
        if let (Rotation::Keep, Outcome::Refused) = rotated(seen.as_ref(), &sent, &step, now) {
            return Err(refused_refresh());
        }
        let outcome: Arc<Mutex<Outcome>> = Arc::default();
        let (told, session) = (Arc::clone(&outcome), sent.session.clone());
        let decide = move |session: Option<&Session>| {
            let (rotation, outcome) = rotated(session, &sent, &step, now);
            *told.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
            rotation
        };
        self.rotate(session, origin, now, Arc::new(decide)).await?;
        let outcome = std::mem::take(&mut *outcome.lock().unwrap_or_else(PoisonError::into_inner));
        match outcome {
            Outcome::Renewed(renewed) => self.tokens(now, renewed).await,
            Outcome::Refused => Err(refused_refresh()),
        }
    }

    /// Ends the session that a refresh token belongs to, whichever of its tokens it is. What is none ends nothing, and nobody is told
    /// (RFC 7009, 2.2).
    pub async fn logout(self: &Arc<Self>, token: &str, origin: Option<IpAddr>) -> Result<()> {
        let Some(sent) = RefreshToken::read(token) else { return Ok(()) };
        let _slot = self.cache.capacity().take()?;
        let (now, session) = (Utc::now(), sent.session.clone());
        let decide = move |session: Option<&Session>| match session {
            Some(session) if session.ended_at.is_none() && is_same(&session.family, &sent.family_hash()) => {
                Rotation::End("logout")
            }
            Some(_) | None => Rotation::Keep,
        };
        if decide(self.store.session_read(&session).await?.as_ref()) == Rotation::Keep {
            return Ok(());
        }
        self.rotate(session, origin, now, Arc::new(decide)).await
    }

    async fn rotate(
        self: &Arc<Self>,
        session: String,
        origin: Option<IpAddr>,
        now: DateTime<Utc>,
        decide: Rotator,
    ) -> Result<()> {
        self.committed(move |accounts| async move {
            let changes = accounts.store.session_rotate(&session, origin, &timestamp_text(now), decide).await?;
            Ok(((), changes))
        })
        .await
    }

    async fn tokens(&self, now: DateTime<Utc>, renewed: Renewed) -> Result<Tokens> {
        let Renewed { user, role, next, ends_at } = renewed;
        let left = (ends_at - now).to_std().unwrap_or_default();
        let expires_in = self.settings.access_token_lifetime.min(left);
        let expires = now + expires_in;
        let claims = Claims {
            sub: user,
            sid: next.session.clone(),
            role: role.to_string(),
            iat: now.timestamp(),
            exp: expires.timestamp(),
        };
        Ok(Tokens { access: self.signing.sign(&claims).await?, expires_in, refresh: next.text() })
    }
}

/// What becomes of `session` when `sent` is sent at `now`; a next token follows by `step`.
fn rotated(session: Option<&Session>, sent: &RefreshToken, step: &str, now: DateTime<Utc>) -> (Rotation, Outcome) {
    let time = |text: &str| text.parse::<DateTime<Utc>>().unwrap_or(DateTime::UNIX_EPOCH);
    let holds = |session: &&Session| {
        session.ended_at.is_none() && session.holder.disabled_at.is_none() && time(&session.expires_at) > now
            // Whoever does not have what all tokens of the session have had never had one, and ends nothing.
            && is_same(&session.family, &sent.family_hash())
    };
    let Some(session) = session.filter(holds) else { return (Rotation::Keep, Outcome::Refused) };
    let renewed = |next| {
        let holder = &session.holder;
        Outcome::Renewed(Renewed { user: holder.id.clone(), role: holder.role, next, ends_at: time(&session.expires_at) })
    };
    if is_same(&session.newest, &sent.hash()) {
        let next = sent.next(step);
        return (Rotation::Next { newest: next.hash(), step: step.to_owned() }, renewed(next));
    }
    if let (Some(previous), Some(step)) = (&session.previous, &session.step)
        && is_same(previous, &sent.hash())
        && (-GRACE..=GRACE).contains(&(now - time(&session.rotated_at)))
    {
        return (Rotation::Keep, renewed(sent.next(step)));
    }
    tracing::warn!(session = session.id, "a refresh token was used again; its session has been ended");
    (Rotation::End("refresh token used again"), Outcome::Refused)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::store::SessionHolder;

    fn session(token: &RefreshToken, now: DateTime<Utc>) -> Session {
        Session {
            id: token.session.clone(),
            family: token.family_hash(),
            newest: token.hash(),
            previous: None,
            step: None,
            rotated_at: timestamp_text(now),
            expires_at: timestamp_text(now + TimeDelta::days(1)),
            ended_at: None,
            holder: SessionHolder { id: "U".to_owned(), role: Role::Editor, disabled_at: None },
        }
    }

    fn apply(session: &mut Session, sent: &RefreshToken, step: &str, now: DateTime<Utc>) -> Option<RefreshToken> {
        let (rotation, outcome) = rotated(Some(session), sent, step, now);
        match rotation {
            Rotation::Keep => {}
            Rotation::Next { newest, step } => {
                session.previous = Some(std::mem::replace(&mut session.newest, newest));
                session.step = Some(step);
                session.rotated_at = timestamp_text(now);
            }
            Rotation::End(_) => session.ended_at = Some(timestamp_text(now)),
        }
        match outcome {
            Outcome::Renewed(renewed) => Some(renewed.next),
            Outcome::Refused => None,
        }
    }

    #[test]
    fn a_used_token_brings_the_same_next_one_for_seconds_and_then_ends_the_session() {
        let now = Utc::now();
        let first = RefreshToken::make(&Uuid::now_v7().to_string()).unwrap();
        let mut stored = session(&first, now);
        let second = apply(&mut stored, &first, "a", now).unwrap();
        let again = apply(&mut stored, &first, "b", now + TimeDelta::seconds(9)).unwrap();
        assert_eq!(second.text().expose_secret(), again.text().expose_secret());
        let third = apply(&mut stored, &second, "c", now + TimeDelta::seconds(9)).unwrap();
        assert_ne!(third.hash(), second.hash());
        // Two steps back there is no grace.
        assert!(apply(&mut stored, &first, "d", now + TimeDelta::seconds(9)).is_none());
        assert!(stored.ended_at.is_some() && apply(&mut stored, &third, "e", now).is_none(), "the newest goes with it");
        let mut stored = session(&first, now);
        apply(&mut stored, &first, "a", now).unwrap();
        assert!(apply(&mut stored, &first, "b", now + TimeDelta::seconds(11)).is_none());
        assert!(stored.ended_at.is_some());
    }

    #[test]
    fn who_never_had_a_token_of_a_session_ends_nothing() {
        let now = Utc::now();
        let first = RefreshToken::make(&Uuid::now_v7().to_string()).unwrap();
        let mut stored = session(&first, now);
        let made_up = RefreshToken::make(&first.session).unwrap();
        assert!(apply(&mut stored, &made_up, "a", now).is_none() && stored.ended_at.is_none());
        assert!(rotated(None, &first, "a", now).0 == Rotation::Keep);
        let late = now + TimeDelta::days(2);
        assert!(apply(&mut stored, &first, "a", late).is_none() && stored.ended_at.is_none());
        stored.holder.disabled_at = Some(timestamp_text(now));
        assert!(apply(&mut stored, &first, "a", now).is_none());
    }
}
