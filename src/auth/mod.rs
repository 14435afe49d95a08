//! Who is asking, and what they may do.

use crate::error::{Error, ErrorKind, Result};
use crate::model::{AccessRule, Principal, Role};

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
