//! Warming: loads of what nobody has asked for yet, under exactly the keys that clients' requests have, because they go
//! the way of those: of clients that see everything, since who else will come, and whose records they have, nobody can tell.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::query::Shape;
use super::read::record_key;
use super::{Records, Resource};
use crate::cache::{Held, Outcome, Presence};
use crate::error::{Error, Result};
use crate::model::{Caller, CountMode, Direction, Freshness, Paging, Query, RecordId, Selection, SortKey};

/// What became of one entry that was to be warmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warmed {
    /// It was loaded, or taken over from the second tier.
    Loaded,
    /// It was there.
    Present,
    /// There is no such record any more.
    Missing,
}

impl Records {
    /// The ids of the `limit` records that were updated last, newest first.
    pub async fn recent_ids(&self, resource: &Resource, limit: u32) -> Result<Vec<RecordId>> {
        let collection = resource.collection();
        let query = Query {
            selection: Selection::default(),
            sort: vec![SortKey { field: "updated_at".to_owned(), direction: Direction::Descending }],
            paging: Paging::Page { page: 1, limit },
            count: CountMode::None,
            fields: Some(vec![collection.id_field().to_owned()]),
            include: Vec::new(),
            highlight: false,
        };
        let rows = self.store.record_list(collection, &query).await?;
        let id = |text: &[u8]| {
            let document: Value = serde_json::from_slice(text).map_err(Error::internal)?;
            let id = document.get(collection.id_field()).and_then(Value::as_str).unwrap_or_default();
            RecordId::parse(id).map_err(Error::internal)
        };
        // There may be one row more, which tells that there is a next page.
        rows.iter().take(limit as usize).map(|row| id(&row.data)).collect()
    }

    /// Loads the answer to a plain `GET path/{id}`, unless it is there.
    pub async fn warm_record(&self, resource: &Arc<Resource>, id: &RecordId) -> Result<Warmed> {
        let key = record_key(resource, resource.whole(), id, &Shape::WHOLE);
        if self.cache.held(&key) == Held::Fresh {
            return Ok(Warmed::Present);
        }
        let answer = self.record(resource, &Caller::OPERATOR, id, "", &Freshness::ANY).await?;
        warmed(answer.outcome(), answer.presence())
    }

    /// Loads the answer to `GET path?raw`, unless it is there.
    pub async fn warm_list(&self, resource: &Arc<Resource>, raw: &str) -> Result<Warmed> {
        if self.cache.held(&resource.prepare(resource.whole(), raw)?.key) == Held::Fresh {
            return Ok(Warmed::Present);
        }
        // Whatever its age, but nothing that lags: that would be taken for an outage, and not be loaded.
        let demand = Freshness { max_age: Some(Duration::MAX), ..Freshness::ANY };
        let answer = self.list(resource, &Caller::OPERATOR, raw, &demand).await?;
        warmed(answer.outcome(), answer.presence())
    }

    /// The share of the cache's memory that is taken, from 0 to 1; `None` if nothing is cached at all.
    pub fn cache_fullness(&self) -> Option<f64> {
        self.cache.is_enabled().then(|| self.cache.fullness())
    }
}

fn warmed(outcome: Outcome, presence: Presence) -> Result<Warmed> {
    match (outcome, presence) {
        // It stood in for a load that failed.
        (Outcome::Stale, _) => Err(Error::unavailable("The database does not answer.", Duration::ZERO, "warming")),
        (Outcome::Hit | Outcome::HitL2 | Outcome::Miss | Outcome::Joined | Outcome::Bypass, Presence::Found) => {
            Ok(Warmed::Loaded)
        }
        (Outcome::Hit | Outcome::HitL2 | Outcome::Miss | Outcome::Joined | Outcome::Bypass, Presence::Missing) => {
            Ok(Warmed::Missing)
        }
    }
}
