//! Who is asking, and what they may do. Until accounts exist (issue 5) there are no users to be viewers or editors, so
//! only public collections answer the network; the operator at the command line may do everything.

use crate::error::{Error, ErrorKind, Result};
use crate::model::{AccessRule, Principal};

/// Checks that `principal` is at least what `rule` asks for.
pub fn authorize(principal: Principal, rule: AccessRule) -> Result<()> {
    match (principal, rule) {
        (Principal::Operator, _) | (Principal::Anonymous, AccessRule::Public) => Ok(()),
        (Principal::Anonymous, AccessRule::Viewer | AccessRule::Editor | AccessRule::Admin | AccessRule::Owner) => {
            Err(Error::new(
                ErrorKind::Unauthenticated,
                "unauthenticated",
                "This collection is not public, and this version of Terrace has no accounts to sign in with.",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_reach_only_what_is_public() {
        assert!(authorize(Principal::Anonymous, AccessRule::Public).is_ok());
        for rule in [AccessRule::Viewer, AccessRule::Editor, AccessRule::Admin, AccessRule::Owner] {
            assert_eq!(authorize(Principal::Anonymous, rule).unwrap_err().kind(), ErrorKind::Unauthenticated);
            assert!(authorize(Principal::Operator, rule).is_ok());
        }
    }
}
