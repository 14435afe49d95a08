//! What the caller of a write may do with the records that it meets. Asked inside of the transaction, where the stored record
//! cannot change: whoever gives a record away, and whoever still writes it, do so one after the other.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Resource;
use super::document::{Members, quoted_etag};
use super::sight::{Lens, subject_among};
use crate::auth::authorize_on;
use crate::error::{Error, ErrorKind, Result, Violation};
use crate::model::{AccessRule, Collection, Principal, Record, Role, Verb};
use crate::store::{Among, Owner, Told};

/// The code of what a caller may not set.
const LOCKED: &str = "not_yours_to_set";

/// How a caller stands to a stored record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may write it.
    Writes,
    /// It may only read it.
    Reads,
    /// To it there is no such record.
    Blind,
}

/// Whether answers to writes show the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Echo {
    /// They do.
    Shown,
    /// They say only what was done: the caller is a key whose scopes do not let it read.
    Silent,
}

/// The rights of one caller in one collection.
#[derive(Clone)]
pub(super) struct Rights {
    collection: Arc<Collection>,
    lens: Arc<Lens>,
    role: Option<Role>,
    subject: Option<String>,
    echo: Echo,
    /// By reference field: which records it may newly lead to. Fields that may lead to all are left out.
    targets: BTreeMap<String, Among>,
}

impl Rights {
    /// Those of `principal`; an error if it may write nothing.
    pub(super) fn of(resource: &Resource, principal: &Principal) -> Result<Self> {
        let collection = resource.collection();
        resource.check_writer(principal)?;
        let mut targets = BTreeMap::new();
        for (field, target) in &resource.targets {
            let among = referable(target, principal)?;
            if among != Among::All {
                targets.insert(field.clone(), among);
            }
        }
        let reads = authorize_on(principal, collection.access.read, Some(&collection.name), Verb::Read);
        Ok(Self {
            echo: if reads.is_ok() { Echo::Shown } else { Echo::Silent },
            collection: Arc::clone(collection),
            lens: Arc::clone(resource.lenses.of(principal.role())),
            role: principal.role(),
            subject: principal.subject().map(str::to_owned),
            targets,
        })
    }

    /// How the caller stands to a record of these members.
    pub(super) fn standing(&self, members: &Members) -> Standing {
        let access = &self.collection.access;
        match (self.owns(members), access.read, access.write) {
            (true, ..) => Standing::Writes,
            (false, AccessRule::Owner, _) => Standing::Blind,
            (false, _, AccessRule::Owner) => Standing::Reads,
            (
                false,
                AccessRule::Public | AccessRule::Viewer | AccessRule::Editor | AccessRule::Admin,
                AccessRule::Public | AccessRule::Viewer | AccessRule::Editor | AccessRule::Admin,
            ) => Standing::Writes,
        }
    }

    fn owns(&self, members: &Members) -> bool {
        let owner = self.collection.access.owner_field.as_ref().and_then(|field| members.get(field)).and_then(Value::as_str);
        self.role == Some(Role::Admin) || owner.is_some() && owner == self.subject.as_deref()
    }

    /// The entity tag of a stored text, as the caller knows it.
    pub(super) fn etag(&self, text: &str) -> Result<String> {
        Ok(quoted_etag(self.lens.concealed.conceal_text(text)?.as_bytes()))
    }

    /// The record as the caller may see it; `None` if it may not.
    pub(super) fn shown(&self, record: Record) -> Result<Option<Record>> {
        match self.echo {
            Echo::Shown => {}
            Echo::Silent => return Ok(None),
        }
        let shown = match self.lens.concealed.conceal_text(&record.data)? {
            Cow::Borrowed(_) => None,
            Cow::Owned(shown) => Some(shown),
        };
        Ok(Some(Record { data: shown.unwrap_or(record.data), ..record }))
    }

    /// The whole document that the caller means: `sent`, with what it cannot have sent. What it may not set stays as it is
    /// `stored`; so does the owner, unless another is named; and a new record is the caller's.
    pub(super) fn completed(&self, mut sent: Members, stored: Option<&Members>) -> Result<Members> {
        let mut refused = Vec::new();
        for name in self.collection.access.locked_for(self.role) {
            let kept = stored.and_then(|stored| stored.get(name));
            match sent.get(name) {
                // Whether a guess is right is not told either.
                Some(_) if self.lens.concealed.hides(name) => refused.push(name),
                Some(value) if kept != Some(value) => refused.push(name),
                Some(_) => {}
                None => sent.extend(kept.map(|value| (name.to_owned(), value.clone()))),
            }
        }
        if let Some(field) = &self.collection.access.owner_field {
            let own = || self.subject.clone().map(Value::String);
            let expected = stored.map_or_else(own, |stored| stored.get(field).cloned());
            match sent.get(field) {
                None => sent.extend(expected.map(|owner| (field.clone(), owner))),
                Some(named) if self.role == Some(Role::Admin) || Some(named) == expected.as_ref() => {}
                Some(_) => refused.push(field),
            }
        }
        refusal(&refused).map_or(Ok(sent), Err)
    }

    /// Checks a merge-patch that makes `patched` of `stored`.
    pub(super) fn check_patch(&self, patch: &Map<String, Value>, patched: &Members, stored: &Members) -> Result<()> {
        let access = &self.collection.access;
        let given_away = access.owner_field.as_deref().filter(|_| self.role != Some(Role::Admin));
        let locked = access.locked_for(self.role).chain(given_away).filter(|name| patch.contains_key(*name));
        let refused: Vec<&str> =
            locked.filter(|name| self.lens.concealed.hides(name) || patched.get(*name) != stored.get(*name)).collect();
        refusal(&refused).map_or(Ok(()), Err)
    }

    /// What breaks rules, as the caller may know it: what it cannot see may break them too, since rules change.
    pub(super) fn told(&self, violations: Vec<Violation>) -> Vec<Violation> {
        let told = |violation: Violation| {
            let member = violation.pointer.split('/').nth(1).unwrap_or_default().replace("~1", "/").replace("~0", "~");
            if self.lens.concealed.hides(&member) {
                let detail = "A member that you may not see breaks the collection's rules: ask an administrator.";
                return Violation::new("", "hidden_member", detail);
            }
            violation
        };
        violations.into_iter().map(told).collect()
    }

    /// Whether there may be records that the caller does not see.
    pub(super) fn is_limited(&self) -> bool {
        self.collection.access.read == AccessRule::Owner && self.role != Some(Role::Admin)
    }

    /// A failure as the caller may know it.
    pub(super) fn failure(&self, error: Error) -> Error {
        match self.echo {
            Echo::Shown => error,
            Echo::Silent => error.without_etag(),
        }
    }

    /// Which records `field` may newly be made to lead to.
    pub(super) fn referable(&self, field: &str) -> Among {
        self.targets.get(field).cloned().unwrap_or_default()
    }
}

/// The records of `target` that `principal` may refer to: those that its role lets it read. Scopes do not count: a key that
/// only writes tasks can still say whose they are.
fn referable(target: &Collection, principal: &Principal) -> Result<Among> {
    if !target.access.read.is_met_by(principal.role()) {
        return Ok(Among::Nothing);
    }
    Ok(match (subject_among(target, principal)?, &target.access.owner_field) {
        (Some(subject), Some(field)) => Among::Of(Owner { field: field.clone(), subject: subject.to_owned() }),
        (Some(_), None) => Among::Nothing,
        (None, _) => Among::All,
    })
}

/// What `principal` may know of a field of `collection` that refers to something.
pub(super) fn told_of(collection: &Collection, field: &str, principal: &Principal) -> Told {
    let access = &collection.access;
    let sees_all = authorize_on(principal, access.read, Some(&collection.name), Verb::Read).is_ok()
        && matches!(subject_among(collection, principal), Ok(None))
        && !access.hidden_from(principal.role()).any(|hidden| hidden == field);
    if sees_all { Told::Exactly } else { Told::Vaguely }
}

fn refusal(members: &[impl AsRef<str>]) -> Option<Error> {
    if members.is_empty() {
        return None;
    }
    let violation = |name: &str| {
        let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        Violation::new(pointer, LOCKED, "You may not set this: leave it out, and it stays as it is.")
    };
    let violations = members.iter().map(|name| violation(name.as_ref())).collect();
    let detail = "The document sets what you may not set.";
    Some(Error::new(ErrorKind::Forbidden, "forbidden", detail).with_violations(violations))
}
