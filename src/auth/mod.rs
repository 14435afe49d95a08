//! Who is asking, and what they may do.
//!
//! [`Accounts`] has users, API keys and sessions over the store, and says who a credential belongs to; `principals` caches that.

mod accounts;
mod credential;
mod password;
mod principals;
mod recent;
mod sealed;
mod sessions;
mod token;

pub use accounts::{Accounts, CreatedKey, KeyRequest, installation_secret};
pub use principals::PrincipalScopes;
pub use sessions::Tokens;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{AccessRule, CollectionName, Principal, Scope, Verb};
pub use crate::store::{ApiKey, User, UserState};

/// Checks that `principal` is at least what `rule` asks for. Who is only meant to have single records is not known here.
pub fn authorize(principal: &Principal, rule: AccessRule) -> Result<()> {
    let Some(least) = rule.least() else { return Ok(()) };
    match principal {
        Principal::Operator => Ok(()),
        Principal::Known(identity) if identity.role >= least => Ok(()),
        Principal::Known(_) => Err(Error::new(ErrorKind::Forbidden, "forbidden", format!("This is for the role {least}."))),
        Principal::Anonymous => {
            let detail = "This is not public: send Authorization: Bearer with an access token or an API key.";
            Err(Error::new(ErrorKind::Unauthenticated, "unauthenticated", detail))
        }
    }
}

/// Checks besides that the scopes of `principal`, if it has any, permit `verb` on the collection or view `on`, or, for `None`, on
/// what is neither. They are limits of a key, so what they leave out is refused even where it is public.
pub fn authorize_on(principal: &Principal, rule: AccessRule, on: Option<&CollectionName>, verb: Verb) -> Result<()> {
    authorize(principal, rule)?;
    let Principal::Known(identity) = principal else { return Ok(()) };
    match &identity.scopes {
        Some(scopes) if !scopes.iter().any(|scope| scope.permits(on, verb)) => {
            let needed = Scope { collection: on.cloned(), verb: Some(verb) };
            Err(Error::new(ErrorKind::Forbidden, "insufficient_scope", format!("This API key lacks the scope {needed}.")))
        }
        Some(_) | None => Ok(()),
    }
}

/// Checks that `principal` may look at (read) or change (write) the server itself: an administrator, and an API key only if one of
/// its scopes is about all collections.
pub fn administer(principal: &Principal, verb: Verb) -> Result<()> {
    authorize_on(principal, AccessRule::Admin, None, verb)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Identity, Role};

    fn known(role: Role, scopes: Option<&[&str]>) -> Principal {
        let scopes = scopes.map(|scopes| scopes.iter().map(|scope| scope.parse().unwrap()).collect());
        Principal::Known(Arc::new(Identity { actor: "key:a".to_owned(), subject: "s".to_owned(), role, scopes, quota: None }))
    }

    #[test]
    fn strangers_reach_only_what_is_public() {
        assert!(authorize(&Principal::Anonymous, AccessRule::Public).is_ok());
        for rule in [AccessRule::Viewer, AccessRule::Editor, AccessRule::Admin, AccessRule::Owner] {
            assert_eq!(authorize(&Principal::Anonymous, rule).unwrap_err().kind(), ErrorKind::Unauthenticated);
            assert!(authorize(&Principal::Operator, rule).is_ok());
        }
    }

    #[test]
    fn a_role_reaches_what_is_for_it_and_for_those_below() {
        for (role, refused) in [
            (Role::Viewer, vec![AccessRule::Editor, AccessRule::Admin]),
            (Role::Editor, vec![AccessRule::Admin]),
            (Role::Admin, vec![]),
        ] {
            for rule in [AccessRule::Public, AccessRule::Viewer, AccessRule::Editor, AccessRule::Admin, AccessRule::Owner] {
                match authorize(&known(role, None), rule) {
                    Ok(()) => assert!(!refused.contains(&rule), "{role} {}", rule.as_str()),
                    Err(error) => assert!(refused.contains(&rule) && error.kind() == ErrorKind::Forbidden, "{error}"),
                }
            }
        }
    }

    #[test]
    fn scopes_limit_a_key_also_where_everything_is_public() {
        let metrics = CollectionName::parse("metrics").unwrap();
        let tasks = CollectionName::parse("tasks").unwrap();
        let key = known(Role::Admin, Some(&["metrics:read"]));
        assert!(authorize_on(&key, AccessRule::Admin, Some(&metrics), Verb::Read).is_ok());
        for (on, verb) in [(Some(&metrics), Verb::Write), (Some(&tasks), Verb::Read), (None, Verb::Read)] {
            let refused = authorize_on(&key, AccessRule::Public, on, verb).unwrap_err();
            assert_eq!((refused.kind(), refused.code()), (ErrorKind::Forbidden, "insufficient_scope"));
        }
        assert!(authorize_on(&known(Role::Viewer, Some(&[])), AccessRule::Public, Some(&metrics), Verb::Read).is_err());
        assert!(authorize_on(&known(Role::Viewer, None), AccessRule::Viewer, Some(&metrics), Verb::Read).is_ok());
    }
}
