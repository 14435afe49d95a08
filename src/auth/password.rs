//! Passwords: Argon2id, with the parameters that OWASP recommends (19 MiB, 2 passes, 1 lane), on threads that may be held up, and a
//! few at a time: each takes its memory and a core for some hundredths of a second.

use std::sync::Arc;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{Error as HashError, PasswordHasher as _, PasswordVerifier as _};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization as _;

use crate::error::{Error, ErrorKind, Result};

/// Shorter ones are guessed.
const MIN_CHARACTERS: usize = 12;
/// Longer ones are no better.
const MAX_BYTES: usize = 1_024;
/// How many wait for a turn at most.
const QUEUE: usize = 32;
/// How long somebody waits for a turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// What takes as long to check as the hash of a user, and is nobody's.
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Hashes and checks passwords.
#[derive(Clone, Debug)]
pub(super) struct Passwords {
    turns: Arc<Semaphore>,
    /// Those who have a turn or wait for one.
    places: Arc<Semaphore>,
}

/// Whether a password is the one that was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    Yes,
    No,
}

impl Passwords {
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // Others have requests to answer.
        let turns = (cores / 2).max(1);
        Self { turns: Arc::new(Semaphore::new(turns)), places: Arc::new(Semaphore::new(turns + QUEUE)) }
    }

    /// The hash of a new password, with its salt and parameters (PHC string format). Fails if it is too short or too long.
    pub async fn hash(&self, password: SecretString) -> Result<SecretString> {
        check(&password)?;
        self.in_turn(move || {
            // Its defaults are the recommended parameters; a test says so.
            let hash = Argon2::default().hash_password(normal(&password).expose_secret().as_bytes()).map_err(Error::internal)?;
            Ok(hash.to_string().into())
        })
        .await
    }

    /// Whether `password` is the one of `stored`. Without it, which is to say for a user that there is not, it takes as long.
    pub async fn check(&self, password: SecretString, stored: Option<SecretString>) -> Result<Match> {
        self.in_turn(move || {
            let text = stored.as_ref().map_or(NOBODYS, |stored| stored.expose_secret());
            let hash = PasswordHash::new(text).map_err(|_| Error::internal("a stored password hash cannot be read"))?;
            match Argon2::default().verify_password(normal(&password).expose_secret().as_bytes(), &hash) {
                Ok(()) if stored.is_some() => Ok(Match::Yes),
                Ok(()) | Err(HashError::PasswordInvalid) => Ok(Match::No),
                Err(error) => Err(Error::internal(error)),
            }
        })
        .await
    }

    async fn in_turn<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let busy = || {
            let detail = "Too many are logging in at this moment.";
            Error::new(ErrorKind::Unavailable, "overloaded", detail).with_retry_after(Duration::from_secs(2))
        };
        let _place = self.places.try_acquire().map_err(|_| busy())?;
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await.map_err(|_| busy())?;
        let turn = turn.map_err(Error::internal)?;
        let worked = tokio::task::spawn_blocking(move || {
            // Whoever gave up waiting has not made room for somebody else.
            let _turn = turn;
            work()
        });
        worked.await.map_err(Error::internal)?
    }
}

/// Composed (NFC, as RFC 8265 wants it): a letter with its accent may be sent as one character or as two.
fn normal(password: &SecretString) -> SecretString {
    password.expose_secret().nfc().collect::<String>().into()
}

fn check(password: &SecretString) -> Result<()> {
    let password = normal(password);
    let password = password.expose_secret();
    if password.chars().count() >= MIN_CHARACTERS && password.len() <= MAX_BYTES {
        return Ok(());
    }
    let detail = format!("A password has at least {MIN_CHARACTERS} characters and at most {MAX_BYTES} bytes.");
    Err(Error::bad_request("invalid_password", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_matches_its_own_hash_and_no_other() {
        let passwords = Passwords::new();
        let hash = |text: &str| passwords.hash(text.to_owned().into());
        let (one, again) = (hash("correct horse battery").await.unwrap(), hash("correct horse battery").await.unwrap());
        assert_ne!(one.expose_secret(), again.expose_secret(), "no salt");
        assert!(one.expose_secret().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", one.expose_secret());
        let check = |text: &str, stored: Option<&SecretString>| passwords.check(text.to_owned().into(), stored.cloned());
        assert_eq!(check("correct horse battery", Some(&one)).await.unwrap(), Match::Yes);
        assert_eq!(check("correct horse batterz", Some(&one)).await.unwrap(), Match::No);
        assert_eq!(check("correct horse battery", None).await.unwrap(), Match::No);
        let (one_character, two) = ("caf\u{e9} au lait au matin", "cafe\u{301} au lait au matin");
        let composed = hash(one_character).await.unwrap();
        assert_eq!(check(two, Some(&composed)).await.unwrap(), Match::Yes);
        assert!(check("x", Some(&"no hash".to_owned().into())).await.is_err());
    }

    #[tokio::test]
    async fn a_password_that_is_guessed_at_once_is_refused() {
        for wrong in ["", "eleven char", &"x".repeat(MAX_BYTES + 1)] {
            let error = Passwords::new().hash(wrong.to_owned().into()).await.unwrap_err();
            assert!(error.detail().contains("at least 12 characters"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_bounded_number_waits_for_its_turn_and_who_gives_up_makes_no_room_before_the_work_has_ended() {
        let passwords = Passwords { turns: Arc::new(Semaphore::new(1)), places: Arc::new(Semaphore::new(1 + QUEUE)) };
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let first = tokio::spawn({
            let (passwords, begun) = (passwords.clone(), begun.clone());
            async move {
                let work = move || {
                    begun.send("first").map_err(Error::internal)?;
                    released.recv().map_err(Error::internal)?;
                    begun.send("has ended").map_err(Error::internal)
                };
                passwords.in_turn(work).await
            }
        });
        assert_eq!(begins.recv().await, Some("first"));
        let mut others: Vec<_> = (0..QUEUE)
            .map(|_| {
                let begun = begun.clone();
                Box::pin(passwords.in_turn(move || begun.send("other").map_err(Error::internal)))
            })
            .collect();
        for other in &mut others {
            assert!(futures_util::poll!(other).is_pending());
        }
        let refused = passwords.in_turn(|| Ok(())).await.unwrap_err();
        assert_eq!((refused.kind(), refused.code()), (ErrorKind::Unavailable, "overloaded"));
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        for other in &mut others {
            assert!(futures_util::poll!(other).is_pending());
        }
        // Had one of them begun, it would have been before this.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        release.send(()).unwrap();
        assert_eq!(begins.recv().await, Some("has ended"));
        for other in others {
            other.await.unwrap();
        }
    }

    #[test]
    fn nothing_of_a_password_is_shown() {
        let password: SecretString = "correct horse battery".to_owned().into();
        assert!(!format!("{password:?}").contains("horse"));
    }
}
