//! Who is asking, and what they may do.
//!
//! [`Accounts`] has users, API keys and sessions over the store, and says who a credential belongs to; `principals` caches that.

mod accounts;
mod credential;
mod password;
mod principals;
mod sessions;
mod token;

pub use accounts::{Accounts, CreatedKey, KeyRequest};
pub use principals::PrincipalScopes;
pub use sessions::Tokens;

pub use crate::store::{ApiKey, User, UserState};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{AccessRule, Principal, Role, Verb};

/// Checks that `principal` is at least what `rule` asks for.
pub fn authorize(principal: &Principal, rule: AccessRule) -> Result<()> {
    let least = match rule {
        AccessRule::Public => return Ok(()),
        AccessRule::Viewer | AccessRule::Owner => Role::Viewer,
        AccessRule::Editor => Role::Editor,
        AccessRule::Admin => Role::Admin,
    };
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

/// Checks that `principal` may look at (read) or change (write) the server itself: an administrator, and an API key only if one of
/// its scopes is about all collections.
pub fn administer(principal: &Principal, verb: Verb) -> Result<()> {
    authorize(principal, AccessRule::Admin)?;
    let scopes = match principal {
        Principal::Known(identity) => identity.scopes.as_deref(),
        Principal::Anonymous | Principal::Operator => None,
    };
    if scopes.is_none_or(|scopes| scopes.iter().any(|scope| scope.permits(None, verb))) {
        return Ok(());
    }
    let detail = format!("The scopes of this key do not allow it: it needs *:{verb} or *:*.");
    Err(Error::new(ErrorKind::Forbidden, "forbidden", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_reach_only_what_is_public() {
        assert!(authorize(&Principal::Anonymous, AccessRule::Public).is_ok());
        for rule in [AccessRule::Viewer, AccessRule::Editor, AccessRule::Admin, AccessRule::Owner] {
            assert_eq!(authorize(&Principal::Anonymous, rule).unwrap_err().kind(), ErrorKind::Unauthenticated);
            assert!(authorize(&Principal::Operator, rule).is_ok());
        }
    }
}
