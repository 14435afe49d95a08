//! The table `[limits]` of a collection file: which quotas its reads and its writes count against.

use super::section::{Report, Section};
use crate::error::Error;
use crate::model::{CollectionLimits, Limit, LimitClass};

/// Reads the table; without it everything is of the class `api`.
pub(super) fn read(collection: &Section<'_>, report: &mut Report) -> CollectionLimits {
    let Some(limits) = collection.section(report, "limits") else { return CollectionLimits::default() };
    limits.refuse_unknown(report, &["class", "read", "write"]);
    let class = limits.text(report, "class").map_or(LimitClass::Api, |text| {
        text.parse().unwrap_or_else(|error: Error| {
            report.add(limits.dotted("class"), error.detail());
            LimitClass::Api
        })
    });
    CollectionLimits { read: own(&limits, "read", class, report), write: own(&limits, "write", class, report) }
}

/// A quota of one verb. The empty text is none, as in the settings.
fn own(limits: &Section<'_>, key: &str, class: LimitClass, report: &mut Report) -> Limit {
    match limits.text(report, key) {
        None => Limit::Class(class),
        Some("") => Limit::Off,
        Some(text) => text.parse().map_or_else(
            |error: Error| {
                report.add(limits.dotted(key), error.detail());
                Limit::Class(class)
            },
            Limit::Own,
        ),
    }
}
