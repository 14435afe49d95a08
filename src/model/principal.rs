//! Who is asking, and from where.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use super::{CollectionName, Quota};
use crate::error::Error;

/// The caller of a request.
#[derive(Clone, Debug)]
pub enum Principal {
    /// Nobody Terrace knows.
    Anonymous,
    /// The operator at the command line, who owns the database.
    Operator,
    /// A user or an API key.
    Known(Arc<Identity>),
}

/// What is known of a user or an API key while it asks. It holds no secret and no e-mail address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name in the change log: `user:ID` or `key:PREFIX`.
    pub actor: String,
    /// What an owner field holds in records that are this caller's: the id of the user, also for a key that acts for one; the
    /// actor for any other key.
    pub subject: String,
    /// What it may do at most.
    pub role: Role,
    /// What it may do of that; `None` for all of it.
    pub scopes: Option<Vec<Scope>>,
    /// How often it may ask, if it has a quota of its own.
    pub quota: Option<Quota>,
}

/// What somebody may do. Each may do what those before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Read what is not public.
    Viewer,
    /// Write as well.
    Editor,
    /// Everything.
    Admin,
}

/// Whether something is read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// GET and HEAD.
    Read,
    /// Everything else.
    Write,
}

/// One permission of an API key: `metrics:read`, `metrics:*`, `*:read`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// The collection or view; `None` for all, and for what is neither.
    pub collection: Option<CollectionName>,
    /// The verb; `None` for both.
    pub verb: Option<Verb>,
}

/// Who is asking, and from where.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub principal: Principal,
    /// From where; `None` if not over a network.
    pub address: Option<IpAddr>,
}

impl Principal {
    /// The name under which the change log records the caller.
    pub fn actor(&self) -> &str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Operator => "operator",
            Self::Known(identity) => &identity.actor,
        }
    }

    /// What it may do at most; `None` if it is nobody known.
    pub fn role(&self) -> Option<Role> {
        match self {
            Self::Anonymous => None,
            Self::Operator => Some(Role::Admin),
            Self::Known(identity) => Some(identity.role),
        }
    }

    /// What the owner field of its records holds; `None` if it can own none.
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Anonymous | Self::Operator => None,
            Self::Known(identity) => Some(&identity.subject),
        }
    }
}

impl Caller {
    /// Nobody from nowhere.
    pub const ANONYMOUS: Self = Self { principal: Principal::Anonymous, address: None };
    /// The operator at the command line.
    pub const OPERATOR: Self = Self { principal: Principal::Operator, address: None };
}

impl Role {
    /// All, from the least to the most.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Editor, Self::Admin];

    /// How files, tables and tokens spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| {
            Error::bad_request("invalid_role", format!("{text:?} is not a role: viewer, editor and admin are."))
                .with_allowed(Self::ALL.map(Self::as_str))
        })
    }
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Scope {
    /// Everything.
    pub const ALL: Self = Self { collection: None, verb: None };

    /// Whether it permits `verb` on the collection or view, or, for `None`, on what is neither.
    pub fn permits(&self, collection: Option<&CollectionName>, verb: Verb) -> bool {
        (self.collection.is_none() || self.collection.as_ref() == collection) && self.verb.is_none_or(|own| own == verb)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let collection = self.collection.as_ref().map_or("*", CollectionName::as_str);
        write!(formatter, "{collection}:{}", self.verb.map_or("*", Verb::as_str))
    }
}

impl FromStr for Scope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || {
            let detail = format!(
                "{text:?} is not a scope: write COLLECTION:read, COLLECTION:write or COLLECTION:*, or * for all collections."
            );
            Error::bad_request("invalid_scope", detail)
        };
        let (collection, verb) = text.split_once(':').ok_or_else(invalid)?;
        let verb = match verb {
            "read" => Some(Verb::Read),
            "write" => Some(Verb::Write),
            "*" => None,
            _ => return Err(invalid()),
        };
        let collection = if collection == "*" { None } else { Some(CollectionName::parse(collection).map_err(|_| invalid())?) };
        Ok(Self { collection, verb })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_permits_what_it_names_and_nothing_else() {
        let name = |text: &str| CollectionName::parse(text).unwrap();
        let (metrics, tasks) = (name("metrics"), name("tasks"));
        let scope = |text: &str| text.parse::<Scope>().unwrap();
        assert!(scope("metrics:read").permits(Some(&metrics), Verb::Read));
        assert!(!scope("metrics:read").permits(Some(&metrics), Verb::Write));
        assert!(!scope("metrics:*").permits(Some(&tasks), Verb::Read));
        assert!(!scope("metrics:*").permits(None, Verb::Read));
        assert!(scope("*:write").permits(None, Verb::Write) && !scope("*:write").permits(Some(&tasks), Verb::Read));
        assert!(Scope::ALL.permits(None, Verb::Write));
        for text in ["metrics:read", "metrics:*", "*:write", "*:*"] {
            assert_eq!(scope(text).to_string(), text);
        }
        for wrong in ["", "metrics", "metrics:", ":read", "Metrics:read", "metrics:delete", "metrics:read:x", "*"] {
            assert!(wrong.parse::<Scope>().unwrap_err().detail().contains("COLLECTION:read"), "{wrong}");
        }
    }

    #[test]
    fn roles_are_ordered_and_spelled_one_way() {
        assert!(Role::Viewer < Role::Editor && Role::Editor < Role::Admin);
        for role in Role::ALL {
            assert_eq!(role.to_string().parse::<Role>().unwrap(), role);
        }
        assert_eq!("Admin".parse::<Role>().unwrap_err().allowed(), ["viewer", "editor", "admin"]);
    }
}
