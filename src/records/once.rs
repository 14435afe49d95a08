//! Writes with an idempotency key: what is done once, whose keys are whose, and how long an answer is kept.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;

use super::Written;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Caller, Principal, Role, timestamp_text};
use crate::store::{Answering, KeptAnswer, Once};

/// How long an answer is kept, and a key with it. After that the same request is a new one.
pub const IDEMPOTENCY_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// The code of the error for a key that stands for another request.
pub(super) const REUSED: &str = "idempotency_key_reused";

/// Makes the answer to what was written.
pub type Shaping = Arc<dyn Fn(&[Written]) -> Result<KeptAnswer> + Send + Sync>;

/// A request that is to be carried out once, however often it comes.
#[derive(Clone)]
pub struct Idempotent {
    /// What the client calls it.
    pub key: String,
    /// Equal for equal requests, and for no others.
    pub fingerprint: String,
    /// Shapes the answer. It is called within the transaction that does the write.
    pub shape: Shaping,
}

/// What a write has to answer.
#[derive(Clone, Debug)]
pub enum Reply<T> {
    /// It was done.
    Done(T),
    /// It was done before; this is the answer of then.
    Kept(KeptAnswer),
}

impl<T> Reply<T> {
    /// What was done now, if it was.
    pub fn done(self) -> Option<T> {
        match self {
            Self::Done(done) => Some(done),
            Self::Kept(_) => None,
        }
    }
}

impl Idempotent {
    /// As the store takes it. What time it is says this process; the day for which keys are kept does not depend on seconds.
    pub(super) fn once(&self, caller: &Caller, answering: Answering) -> Result<Once> {
        let now = Utc::now();
        let kept = chrono::TimeDelta::from_std(IDEMPOTENCY_RETENTION).map_err(Error::internal)?;
        Ok(Once {
            actor: key_space(caller),
            key: self.key.clone(),
            // Who has another role sees other members: the answer of then is not theirs to see again.
            fingerprint: format!("{} {}", caller.principal.role().map_or("", Role::as_str), self.fingerprint),
            now: timestamp_text(now),
            since: timestamp_text(now - kept),
            answering,
        })
    }
}

/// Keys are the caller's own: nobody gets the answer to somebody else's request, or can take a key away from somebody. Strangers
/// are told apart by their addresses (of IPv6 the network's half, which is a client's), so one who comes back from another
/// address is somebody else.
pub(super) fn key_space(caller: &Caller) -> String {
    match (&caller.principal, caller.address) {
        (Principal::Anonymous, Some(IpAddr::V6(address))) => {
            let [a, b, c, d, ..] = address.segments();
            format!("anonymous@{a:x}:{b:x}:{c:x}:{d:x}")
        }
        (Principal::Anonymous, Some(IpAddr::V4(address))) => format!("anonymous@{address}"),
        (Principal::Anonymous | Principal::Operator | Principal::Known(_), _) => caller.principal.actor().to_owned(),
    }
}

/// The key stands for another request.
pub(super) fn reused(key: &str) -> Error {
    let detail = format!(
        "The Idempotency-Key {key:?} was sent with another request (its method, path, preconditions and body count). Send the same \
         request again to get its answer, or a new key for a new request."
    );
    Error::new(ErrorKind::Invalid, REUSED, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Identity, Role};

    #[test]
    fn callers_share_keys_only_with_themselves() {
        let anonymous = |address: &str| Caller { principal: Principal::Anonymous, address: Some(address.parse().unwrap()) };
        let known = |actor: &str, address: &str| {
            let (actor, subject) = (actor.to_owned(), actor.to_owned());
            let identity = Identity { actor, subject, role: Role::Editor, scopes: None, quota: None };
            Caller { principal: Principal::Known(Arc::new(identity)), ..anonymous(address) }
        };
        assert_eq!(key_space(&known("user:1", "192.0.2.1")), key_space(&known("user:1", "192.0.2.2")));
        assert_eq!(key_space(&anonymous("2001:db8::1")), key_space(&anonymous("2001:db8::2:3")));
        let spaces = [
            key_space(&known("user:1", "192.0.2.1")),
            key_space(&known("key:1", "192.0.2.1")),
            key_space(&anonymous("192.0.2.1")),
            key_space(&anonymous("192.0.2.2")),
            key_space(&anonymous("2001:db8::1")),
            key_space(&anonymous("2001:db8:0:1::1")),
            key_space(&Caller::OPERATOR),
        ];
        assert!(spaces.iter().enumerate().all(|(at, space)| !spaces[..at].contains(space)), "{spaces:?}");
    }
}
