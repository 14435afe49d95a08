//! Random requests, and pairs of requests that differ in little.

use proptest::prelude::*;
use proptest::sample::select;

use super::naive::{Plain, Request, TAGS, TEXTS, Test, WORDS};

pub(super) fn value_of(field: &'static str) -> BoxedStrategy<Plain> {
    match field {
        "tier" => (0..4_u8).prop_map(|number| Plain::Number(f64::from(number))).boxed(),
        "price" => (0..5_u8).prop_map(|number| Plain::Number(f64::from(number) / 2.0)).boxed(),
        "active" => any::<bool>().prop_map(Plain::Flag).boxed(),
        "tags" => select(&TAGS[..]).prop_map(Plain::Text).boxed(),
        _ => select(&TEXTS[..]).prop_map(Plain::Text).boxed(),
    }
}

pub(super) fn test() -> impl Strategy<Value = Test> {
    let field = select(vec!["category", "tier", "price", "active", "tags"]);
    field.prop_flat_map(|field| {
        let operators = match field {
            "active" => vec!["eq", "ne", "in", "null"],
            "tags" => vec!["eq", "ne", "in", "all", "null"],
            _ => vec!["eq", "eq", "ne", "gt", "gte", "lt", "lte", "in", "null"],
        };
        (select(operators), prop::collection::vec(value_of(field), 1..4), any::<bool>()).prop_map(
            move |(operator, mut values, flag)| {
                match operator {
                    "in" | "all" => {}
                    "null" => values = vec![Plain::Flag(flag)],
                    _ => values.truncate(1),
                }
                Test { field, operator, values }
            },
        )
    })
}

pub(super) fn request() -> impl Strategy<Value = Request> {
    let sort_key = (select(vec!["tier", "price", "category", "sku", "active"]), any::<bool>());
    let what = (
        prop::collection::vec(test(), 0..3),
        prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(test(), 1..3)],
        prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(select(&WORDS[..]), 1..3)],
        any::<bool>(),
        any::<bool>(),
    );
    let how = (
        prop_oneof![1 => Just(None), 2 => prop::collection::vec(sort_key, 1..3).prop_map(Some)],
        1..3_u64,
        select(vec![2_u32, 3, 50, 100]),
        any::<bool>(),
        prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(select(vec!["tier", "tags", "category"]), 1..3)],
        prop::bool::weighted(0.2),
    );
    (what, how).prop_map(|((tests, either, words, prefix, highlight), (sort, page, limit, exact, fields, include))| Request {
        tests,
        either,
        words,
        prefix,
        highlight,
        sort,
        page,
        limit,
        exact,
        fields,
        include,
    })
}

/// Two requests of which the second differs from the first in one or two of its parts.
pub(super) fn neighbours() -> impl Strategy<Value = (Request, Request)> {
    (request(), request(), prop::collection::vec(0..11_usize, 1..3)).prop_map(|(one, other, parts)| {
        let mut near = one.clone();
        for part in parts {
            match part {
                0 => near.tests.clone_from(&other.tests),
                1 => near.either.clone_from(&other.either),
                2 => near.words.clone_from(&other.words),
                3 => near.prefix = other.prefix,
                4 => near.highlight = other.highlight,
                5 => near.sort.clone_from(&other.sort),
                6 => near.page = other.page,
                7 => near.limit = other.limit,
                8 => near.exact = other.exact,
                9 => near.fields.clone_from(&other.fields),
                _ => (near.either, near.tests) = (near.tests.clone(), near.either.clone()),
            }
        }
        (one, near)
    })
}
