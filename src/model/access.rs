//! Who may do what with a collection: rules for its records, and for single fields. Checked by `catalog`; what a rule means for
//! a caller is decided in `auth` and `records`.

use std::collections::BTreeMap;

use super::Role;

/// Who may read, write and follow the records of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// For GET and HEAD.
    pub read: AccessRule,
    /// For everything else. At least as strict as `read`, for the answers to writes show records.
    pub write: AccessRule,
    /// For the change log, which shows the records of all owners: never [`AccessRule::Owner`], and at least as strict as `read`.
    pub changes: AccessRule,
    /// The text field that holds the subject of whoever a record belongs to.
    pub owner_field: Option<String>,
    /// Members that not everybody who may read or write the record may see or set.
    pub fields: BTreeMap<String, FieldAccess>,
}

/// Who may see and who may set one member. Neither is [`AccessRule::Owner`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldAccess {
    /// To see what it holds, and whether a record has it. That there is such a member is no secret: the API description has it.
    pub read: AccessRule,
    /// To set it. At least as strict as `read`.
    pub write: AccessRule,
}

/// The least a caller must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessRule {
    /// Anybody.
    Public,
    /// A user who may read.
    Viewer,
    /// A user who may write.
    Editor,
    /// An administrator.
    Admin,
    /// Whoever the record belongs to, and administrators.
    Owner,
}

impl AccessRule {
    /// The least role; `None` if nobody has to be known.
    pub fn least(self) -> Option<Role> {
        match self {
            Self::Public => None,
            Self::Viewer | Self::Owner => Some(Role::Viewer),
            Self::Editor => Some(Role::Editor),
            Self::Admin => Some(Role::Admin),
        }
    }

    /// Whether somebody of this role (`None`: nobody known) meets it, be it only with their own records.
    pub fn is_met_by(self, role: Option<Role>) -> bool {
        role >= self.least()
    }

    /// Whether whoever meets this rule with a record meets `other` with it.
    pub fn is_as_strict_as(self, other: Self) -> bool {
        match other {
            Self::Owner => matches!(self, Self::Owner | Self::Admin),
            Self::Public | Self::Viewer | Self::Editor | Self::Admin => self.least() >= other.least(),
        }
    }

    /// How files spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

impl Access {
    /// Everything to everybody, but the change log.
    pub const PUBLIC: Self = Self {
        read: AccessRule::Public,
        write: AccessRule::Public,
        changes: AccessRule::Admin,
        owner_field: None,
        fields: BTreeMap::new(),
    };

    /// The members that somebody of this role (`None`: nobody known) may not see, by name.
    pub fn hidden_from(&self, role: Option<Role>) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(move |(_, field)| !field.read.is_met_by(role)).map(|(name, _)| name.as_str())
    }

    /// The members that somebody of this role may not set, by name: also those that they may not see.
    pub fn locked_for(&self, role: Option<Role>) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(move |(_, field)| !field.write.is_met_by(role)).map(|(name, _)| name.as_str())
    }

    /// Whether all callers are shown the same.
    pub fn is_same_for_all(&self) -> bool {
        self.read == AccessRule::Public && self.hidden_from(None).next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: [AccessRule; 5] =
        [AccessRule::Public, AccessRule::Viewer, AccessRule::Editor, AccessRule::Admin, AccessRule::Owner];

    #[test]
    fn rules_are_as_strict_as_those_whose_callers_they_keep_out() {
        let roles = [None, Some(Role::Viewer), Some(Role::Editor), Some(Role::Admin)];
        // Whether somebody of a role may have a record, of their own or another's.
        let may = |rule: AccessRule, role: Option<Role>, is_own: bool| {
            rule.is_met_by(role) && (rule != AccessRule::Owner || is_own || role == Some(Role::Admin))
        };
        for one in RULES {
            for other in RULES {
                let expected = roles
                    .iter()
                    .all(|role| [true, false].into_iter().all(|is_own| !may(one, *role, is_own) || may(other, *role, is_own)));
                assert_eq!(one.is_as_strict_as(other), expected, "{} and {}", one.as_str(), other.as_str());
            }
        }
    }

    #[test]
    fn members_are_hidden_from_those_below_their_rule() {
        let field = |read, write| FieldAccess { read, write };
        let access = Access {
            fields: [
                ("salary".to_owned(), field(AccessRule::Admin, AccessRule::Admin)),
                ("note".to_owned(), field(AccessRule::Viewer, AccessRule::Editor)),
            ]
            .into(),
            ..Access::PUBLIC
        };
        let hidden = |role| access.hidden_from(role).collect::<Vec<_>>();
        let locked = |role| access.locked_for(role).collect::<Vec<_>>();
        assert_eq!((hidden(None), locked(None)), (vec!["note", "salary"], vec!["note", "salary"]));
        assert_eq!((hidden(Some(Role::Viewer)), locked(Some(Role::Viewer))), (vec!["salary"], vec!["note", "salary"]));
        assert_eq!((hidden(Some(Role::Editor)), locked(Some(Role::Editor))), (vec!["salary"], vec!["salary"]));
        assert_eq!((hidden(Some(Role::Admin)), locked(Some(Role::Admin))), (vec![], vec![]));
        assert!(Access::PUBLIC.is_same_for_all() && !access.is_same_for_all());
    }
}
