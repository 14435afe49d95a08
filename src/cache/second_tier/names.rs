//! How everything in Redis is named. All names begin with the prefix and the installation, so that installations never meet.
//!
//! `e:` an entry, `g:` the nonce of a guard, `b:` the nonce of a whole collection, `l:` the lease of a load.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::cache::key::CacheKey;
use crate::cache::scope::Fingerprint;
use crate::cache::target::{Spelled, Target, collection_of};
use crate::cache::{InstanceId, Scope};
use crate::model::{CollectionName, Guard};

/// How long most names are behind the root.
const USUAL_LENGTH: usize = 64;

/// The names of one installation.
#[derive(Debug)]
pub(super) struct Names {
    root: String,
}

impl Names {
    pub(super) fn new(prefix: &str, installation: &str) -> Self {
        Self { root: format!("{prefix}:{installation}:") }
    }

    /// The channel on which instances tell each other of changes.
    pub(super) fn channel(&self) -> String {
        format!("{}bus", self.root)
    }

    pub(super) fn heartbeat(&self, instance: InstanceId) -> String {
        format!("{}hb:{instance}", self.root)
    }

    pub(super) fn covered(&self, declarations: u64) -> String {
        format!("{}covered:{declarations:016x}", self.root)
    }

    /// Keys are hashed, since queries may be long; the value has the whole key, so that a collision is a miss.
    pub(super) fn entry(&self, scope: &Scope, key: &CacheKey) -> String {
        let Fingerprint(fingerprint) = scope.fingerprint();
        let mut name = self.begun("e:");
        let hash = xxhash_rust::xxh3::xxh3_128(key.as_str().as_bytes());
        // Writing to a string does not fail.
        let _ = write!(name, "{fingerprint:016x}:{hash:032x}");
        name
    }

    /// The lease of the load of the entry with this name. It is made for misses only.
    pub(super) fn lease(&self, entry: &str) -> String {
        let rest = entry.get(self.root.len() + 1..).unwrap_or_default();
        format!("{}l{rest}", self.root)
    }

    /// What an entry with these guards depends on: each of them, then each of their collections as a whole.
    pub(super) fn dependencies(&self, guards: &[Guard]) -> Vec<String> {
        let mut names: Vec<String> = Vec::with_capacity(guards.len() + 1);
        names.extend(guards.iter().map(|guard| self.guard(guard)));
        // In order of appearance, which is the order of the guards everywhere.
        for (at, guard) in guards.iter().enumerate() {
            let collection = collection_of(guard);
            if !guards.iter().take(at).any(|earlier| collection_of(earlier) == collection) {
                names.push(self.bulk(collection));
            }
        }
        names
    }

    /// What must go so that no value that depends on `targets` is used again. `known` are all collections.
    pub(super) fn bumped(&self, targets: &[Target], known: &BTreeSet<CollectionName>) -> Vec<String> {
        let mut names = Vec::with_capacity(targets.len());
        for target in targets {
            match target {
                Target::Guard(guard) => names.push(self.guard(guard)),
                // Redis cannot tell which guards match without looking at all of them, so the collection goes.
                Target::Collection(collection) | Target::Records(collection, _) => names.push(self.bulk(collection)),
                Target::All => names.extend(known.iter().map(|collection| self.bulk(collection))),
            }
        }
        names
    }

    fn guard(&self, guard: &Guard) -> String {
        let mut name = self.begun("g:");
        // Writing to a string does not fail.
        let _ = write!(name, "{}", Spelled(guard));
        name
    }

    fn bulk(&self, collection: &CollectionName) -> String {
        let mut name = self.begun("b:");
        name.push_str(collection.as_str());
        name
    }

    /// With room for what most names go on with: this is done for each look-up.
    fn begun(&self, kind: &str) -> String {
        let mut name = String::with_capacity(self.root.len() + USUAL_LENGTH);
        name.push_str(&self.root);
        name.push_str(kind);
        name
    }
}
