//! `terrace check`: every mistake of every file, in one go.

use std::path::Path;

use super::session::environment;
use super::{Done, Failure, counted, print};
use crate::catalog::Catalog;
use crate::config::Settings;
use crate::records::check_list;
use crate::redis_client::RedisClient;

pub(super) fn run(config: Option<&Path>) -> Result<Done, Failure> {
    let (settings, mut mistakes) = Settings::read(config, environment());
    // With a mistake in where the files are, the files found would be others than those meant.
    let places_are_known = mistakes.iter().all(|mistake| !mistake.key.starts_with("collections"));
    let catalog = if places_are_known { Catalog::load(&settings.collections, check_list).map(Some) } else { Ok(None) };
    match catalog {
        Ok(Some(catalog)) if mistakes.is_empty() => {
            RedisClient::check(&settings.redis)?;
            let (collections, views) = (catalog.collections().len(), catalog.views().len());
            print(&format!("ok: {}, {}", counted(collections, "collection"), counted(views, "view")))?;
            Ok(Done::Whole)
        }
        Ok(_) => Err(Failure::Mistakes(mistakes)),
        Err(found) => {
            mistakes.extend(found);
            Err(Failure::Mistakes(mistakes))
        }
    }
}
