//! `[cache.warm]` of a collection file. What a list may ask for is not known here: whoever loads the catalog brings the
//! parser of list requests along, so that a list is checked by what will serve it.

use std::time::Duration;

use toml::Value;

use super::ListCheck;
use super::section::{Report, Section, type_name};
use crate::error::Error;
use crate::model::{Collection, WarmPlan};

/// More would take the database's time for what nobody asks for.
const MOST_RECORDS: u32 = 100_000;
const MOST_LISTS: usize = 1_000;
/// More often would be a second load on the database; writes drop what they touch at once in any case.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Reads the table `warm` of `cache` for `collection`.
pub(super) fn read(cache: Option<&Section<'_>>, collection: &Collection, check: ListCheck, report: &mut Report) -> WarmPlan {
    let Some(warm) = cache.and_then(|cache| cache.section(report, "warm")) else { return WarmPlan::default() };
    let before = report.len();
    warm.refuse_unknown(report, &["records", "lists", "every"]);
    let records = warm.whole_number(report, "records", 0, MOST_RECORDS);
    let lists = read_lists(&warm, collection, check, report);
    let every = warm.get("every").map(|_| warm.duration(report, "every", SHORTEST_INTERVAL));
    if every.is_some_and(|every| every < SHORTEST_INTERVAL) {
        report
            .add(warm.dotted("every"), "this is too often; allowed are durations from 1s, or no such line for only at the start");
    }
    let plan = WarmPlan { records, lists, every };
    if plan.is_empty() && report.len() == before {
        report.add(
            warm.dotted("records"),
            "nothing is warmed; allowed are a number of records over 0, and lists = [\"QUERY STRING\"]",
        );
    }
    plan
}

fn read_lists(warm: &Section<'_>, collection: &Collection, check: ListCheck, report: &mut Report) -> Vec<String> {
    let allowed = "must be an array of query strings such as \"category=a&limit=10\", and \"\" for the plain list";
    let entries = match warm.get("lists") {
        None => return Vec::new(),
        Some(Value::Array(entries)) => entries,
        Some(other) => {
            report.add(warm.dotted("lists"), format!("this is {}, but {allowed}", type_name(other)));
            return Vec::new();
        }
    };
    if entries.len() > MOST_LISTS {
        report.add(warm.dotted("lists"), format!("these are {} lists; allowed are up to {MOST_LISTS}", entries.len()));
    }
    let mut lists = Vec::new();
    for (position, entry) in entries.iter().enumerate() {
        let key = format!("{}[{position}]", warm.dotted("lists"));
        match entry.as_str().map(|text| text.strip_prefix('?').unwrap_or(text)) {
            None => report.add(key, format!("this is {}, but lists {allowed}", type_name(entry))),
            Some(text) if lists.iter().any(|known| known == text) => report.add(key, format!("{text:?} occurs twice")),
            Some(text) => match check(collection, text) {
                Ok(()) => lists.push(text.to_owned()),
                Err(error) => report.add(key, refusal(&error)),
            },
        }
    }
    lists
}

fn refusal(error: &Error) -> String {
    match error.allowed() {
        [] => error.detail().to_owned(),
        allowed => format!("{} Allowed are {}.", error.detail(), allowed.join(", ")),
    }
}
