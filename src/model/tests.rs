//! Texts and documents of strangers: whatever they hold, they are understood or refused, and what is understood reads the same
//! when it is written and read again.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::*;
use crate::error::{Error, ErrorKind};

fn collection() -> Collection {
    let field = |scalar, array| Field { scalar, array };
    let fields = [
        ("sku", field(ScalarType::Text, false)),
        ("tier", field(ScalarType::Integer, false)),
        ("price", field(ScalarType::Number, false)),
        ("active", field(ScalarType::Boolean, false)),
        ("tags", field(ScalarType::Text, true)),
    ];
    let time = Duration::from_secs(60);
    Collection {
        name: CollectionName::parse("items").unwrap(),
        description: None,
        path: "/items".to_owned(),
        id: IdRule::Natural("sku".to_owned()),
        indexes: fields.iter().map(|(name, _)| Index { fields: vec![(*name).to_owned()] }).collect(),
        fields: fields.into_iter().map(|(name, field)| (name.to_owned(), field)).collect(),
        sort: Vec::new(),
        search: Vec::new(),
        cache: CacheTimes { record_ttl: time, list_ttl: time, negative_ttl: time, stale_if_error: time, max_lag: Duration::ZERO },
        warm: WarmPlan::default(),
        access: Access::PUBLIC,
        redact: Vec::new(),
        limits: Default::default(),
        references: std::collections::BTreeMap::new(),
        schema: json!({"properties": {}}),
    }
}

fn assert_refusal(error: &Error) {
    assert!(error.kind() == ErrorKind::BadRequest && !error.detail().is_empty(), "{error}");
}

/// JSON that is near to a filter, and JSON that is not.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        select(vec!["sku", "tier", "2026-01-01"]).prop_map(Value::from),
    ];
    let name = prop_oneof![
        4 => select(vec![
            "and", "or", "not", "eq", "ne", "gt", "gte", "lt", "lte", "in", "any", "all", "null", "sku", "tier", "price", "active", "tags",
        ])
        .prop_map(str::to_owned),
        1 => "\\PC{0,4}",
    ];
    leaf.prop_recursive(12, 64, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..3)
                .prop_map(|members| Value::from(members.into_iter().collect::<Map<String, Value>>())),
        ]
    })
}

/// A filter as the README describes it.
fn filter() -> impl Strategy<Value = Value> {
    let number = prop_oneof![any::<i32>().prop_map(Value::from), Just(json!(0.5))];
    let test = prop_oneof![
        (select(vec!["eq", "ne", "gt", "gte", "lt", "lte"]), any::<i32>())
            .prop_map(|(operator, value)| json!({"tier": {operator: value}})),
        (select(vec!["eq", "gt", "lte"]), number).prop_map(|(operator, value)| json!({"price": {operator: value}})),
        (select(vec!["eq", "ne"]), "\\PC{1,6}").prop_map(|(operator, value)| json!({"sku": {operator: value}})),
        prop::collection::vec("\\PC{1,6}", 1..4).prop_map(|values| json!({"tags": {"all": values}})),
        prop::collection::vec("\\PC{1,6}", 1..4).prop_map(|values| json!({"sku": {"in": values}})),
        any::<bool>().prop_map(|value| json!({"active": {"null": value}})),
    ];
    test.prop_recursive(4, 24, 3, |inner| {
        (select(vec!["and", "or"]), prop::collection::vec(inner, 1..4)).prop_map(|(name, filters)| json!({name: filters}))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_json_is_a_filter_or_refused(document in document()) {
        let collection = collection();
        match Filter::from_json(&collection, &document) {
            Ok(filter) => {
                let again = Filter::from_json(&collection, &filter.to_json());
                prop_assert!(again.as_ref().is_ok_and(|again| *again == filter), "{} -> {} -> {:?}", document, filter.to_json(), again);
            }
            Err(error) => assert_refusal(&error),
        }
    }

    #[test]
    fn a_filter_that_keeps_to_the_rules_is_understood(document in filter()) {
        let collection = collection();
        let filter = Filter::from_json(&collection, &document);
        prop_assert!(filter.is_ok(), "{}: {:?}", document, filter);
        let written = filter.as_ref().unwrap().to_json();
        prop_assert_eq!(Filter::from_json(&collection, &written).unwrap(), filter.unwrap());
    }

    #[test]
    fn any_text_is_a_search_or_refused(text in "\\PC{0,60}", pieces in prop::collection::vec(
        select(vec!["\"", "-", "or", "OR", " ", "*", ":", "(", ")", "NEAR", "AND", "a", "é", "'", "\\", "|", "&", "!", "<->", "\u{0}"]), 0..40),
        prefix in any::<bool>())
    {
        for text in [text, pieces.concat()] {
            match SearchExpression::parse(&text, prefix) {
                Ok(search) => {
                    let again = SearchExpression::parse(&search.to_text(), search.has_prefix()).unwrap();
                    prop_assert_eq!(again.to_text(), search.to_text());
                }
                Err(error) => assert_refusal(&error),
            }
        }
    }

    #[test]
    fn any_text_is_a_quota_a_scope_a_role_or_none(text in "\\PC{0,24}", near in "[0-9]{0,12}/?[0-9]{0,12}(s|m|h|days|years)?", scope in "[a-z_*]{0,8}:?[a-z*]{0,8}") {
        for text in [&text, &near, &scope] {
            match text.parse::<Quota>() {
                Ok(quota) => prop_assert_eq!(quota.to_string().parse::<Quota>().unwrap(), quota),
                Err(error) => assert_refusal(&error),
            }
            match text.parse::<Scope>() {
                Ok(scope) => prop_assert_eq!(scope.to_string().parse::<Scope>().unwrap(), scope),
                Err(error) => assert_refusal(&error),
            }
            if let Err(error) = text.parse::<Role>() {
                assert_refusal(&error);
            }
        }
    }
}
