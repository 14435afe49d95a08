//! Keys against answers: whatever the spelling, one request has one key; and requests that a naive reading of the
//! records answers differently never share one. The naive reading knows nothing of [`Query`] and [`Filter`].

mod junk;
mod naive;
mod requests;
mod speller;

use std::time::Duration;

use proptest::prelude::*;

use self::naive::{Request, answer, found, records};
use self::requests::{neighbours, request};
use self::speller::Speller;
use super::*;
use crate::model::{Access, CacheTimes, CollectionName, Field, IdRule, Index, ScalarType, SearchField, SearchWeight};

fn collection() -> Collection {
    let field = |scalar, array| Field { scalar, array };
    let fields = [
        ("sku", field(ScalarType::Text, false)),
        ("category", field(ScalarType::Text, false)),
        ("name", field(ScalarType::Text, false)),
        ("shelf", field(ScalarType::Text, false)),
        ("tier", field(ScalarType::Integer, false)),
        ("price", field(ScalarType::Number, false)),
        ("active", field(ScalarType::Boolean, false)),
        ("tags", field(ScalarType::Text, true)),
    ];
    let indexes = fields.iter().map(|(name, _)| Index { fields: vec![(*name).to_owned()] }).collect();
    let shelves = CollectionName::parse("shelves").unwrap();
    let time = Duration::from_secs(60);
    Collection {
        name: CollectionName::parse("items").unwrap(),
        description: None,
        path: "/items".to_owned(),
        id: IdRule::Natural("sku".to_owned()),
        fields: fields.into_iter().map(|(name, field)| (name.to_owned(), field)).collect(),
        sort: vec![SortKey { field: "tier".to_owned(), direction: Direction::Descending }],
        indexes,
        search: vec![SearchField { field: "name".to_owned(), weight: SearchWeight::A }],
        cache: CacheTimes { record_ttl: time, list_ttl: time, negative_ttl: time, stale_if_error: time, max_lag: Duration::ZERO },
        warm: crate::model::WarmPlan::default(),
        access: Access::PUBLIC,
        limits: Default::default(),
        redact: Vec::new(),
        references: [("shelf".to_owned(), shelves)].into(),
        schema: json!({"properties": {}}),
    }
}

fn parsed(collection: &Collection, raw: &str) -> Query {
    parse_list(collection, raw).unwrap_or_else(|error| panic!("{raw}: {error}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_spellings_of_one_query_give_one_key(request in request(), seeds in any::<(u64, u64)>()) {
        let collection = collection();
        let spell = |seed| Speller(fastrand::Rng::with_seed(seed)).spell(&request);
        let (one, other) = (spell(seeds.0), spell(seeds.1));
        let (query, same) = (parsed(&collection, &one), parsed(&collection, &other));
        prop_assert_eq!(list_key(&query), list_key(&same), "{}\n{}", one, other);
        prop_assert_eq!(selection_key(&query.selection), selection_key(&same.selection), "{}\n{}", one, other);
    }

    #[test]
    fn two_queries_with_different_answers_never_share_a_key((one, other) in neighbours(), seed in any::<u64>()) {
        let collection = collection();
        let mut speller = Speller(fastrand::Rng::with_seed(seed));
        let (spelled, near) = (speller.spell(&one), speller.spell(&other));
        let (query, near_query) = (parsed(&collection, &spelled), parsed(&collection, &near));
        if answer(&one) != answer(&other) {
            prop_assert_ne!(list_key(&query), list_key(&near_query), "{}\n{}", &spelled, &near);
        }
        let count = |request: &Request| records().iter().filter(|record| found(request, record)).count();
        if count(&one) != count(&other) {
            prop_assert_ne!(selection_key(&query.selection), selection_key(&near_query.selection), "{}\n{}", &spelled, &near);
        }
    }

    #[test]
    fn any_text_at_all_is_a_query_or_an_error_and_its_key_is_stable(raw in "[a-z0-9=&%\\[\\]{}\":,+ \\-\\PC]{0,60}") {
        let collection = collection();
        if let Ok(query) = parse_list(&collection, &raw) {
            prop_assert_eq!(list_key(&query), list_key(&parsed(&collection, &raw)));
        }
    }
}

#[test]
fn statistics_have_one_key_for_equal_requests_and_others_for_others() {
    let collection = collection();
    let key = |raw: &str| {
        let (by, filter) = parse_stats(&collection, raw).unwrap();
        stats_key(&by, filter.as_ref())
    };
    let same = key("by=tier,category&tags=red");
    for spelling in
        ["tags=red&by=category,tier", "by=tier,category,tier&filter[tags][in]=red", "by=category,tier&filter={\"tags\":\"red\"}"]
    {
        assert_eq!(key(spelling), same, "{spelling}");
    }
    for other in [
        "by=tier&tags=red",
        "by=tier,category",
        "by=tier,category&tags=blue",
        "by=tier,category&filter[tags][ne]=red",
        "tags=red",
        "",
    ] {
        assert_ne!(key(other), same, "{other}");
    }
}
