//! What a request answers, by reading all records one by one.

use std::collections::BTreeMap;

/// A value as the naive reading compares it. Integers and numbers are both numbers.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
pub(super) enum Plain {
    Flag(bool),
    Number(f64),
    Text(&'static str),
}

pub(super) type Record = BTreeMap<&'static str, Vec<Plain>>;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Test {
    pub(super) field: &'static str,
    pub(super) operator: &'static str,
    pub(super) values: Vec<Plain>,
}

/// What a client means, before it is spelled.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    pub(super) tests: Vec<Test>,
    /// Of which at least one must hold; empty for none.
    pub(super) either: Vec<Test>,
    pub(super) words: Vec<&'static str>,
    pub(super) prefix: bool,
    pub(super) highlight: bool,
    pub(super) sort: Option<Vec<(&'static str, bool)>>,
    pub(super) page: u64,
    pub(super) limit: u32,
    pub(super) exact: bool,
    pub(super) fields: Vec<&'static str>,
    pub(super) include: bool,
}

/// Everything that a client could see of an answer.
pub(super) type Seen = (Vec<(Record, bool)>, Option<usize>, u64, u32, bool, bool, bool);

pub(super) const TEXTS: [&str; 4] = ["a", "b", "ä b", "1"];
pub(super) const TAGS: [&str; 3] = ["red", "blue", "1"];
pub(super) const WORDS: [&str; 4] = ["lamp", "oil", "lamps", "o"];

/// Few values in few fields, so that tests select different but overlapping records.
pub(super) fn records() -> Vec<Record> {
    let names = ["lamp", "oil lamp", "lamps oil", "other", "oil", "o lamp"];
    (0..24_usize)
        .map(|number| {
            let sku: &'static str =
                ["s00", "s01", "s02", "s03", "s04", "s05", "s06", "s07", "s08", "s09", "s10", "s11"][number % 12];
            let id = if number < 12 {
                sku
            } else {
                ["t00", "t01", "t02", "t03", "t04", "t05", "t06", "t07", "t08", "t09", "t10", "t11"][number - 12]
            };
            let mut record = Record::from([("sku", vec![Plain::Text(id)]), ("name", vec![Plain::Text(names[number % 6])])]);
            if number % 5 > 0 {
                record.insert("category", vec![Plain::Text(TEXTS[number % 4])]);
            }
            if number % 4 > 0 {
                record.insert("tier", vec![Plain::Number((number % 3) as f64)]);
            }
            if number % 7 > 0 {
                record.insert("price", vec![Plain::Number((number % 4) as f64 / 2.0)]);
            }
            if number % 3 > 0 {
                record.insert("active", vec![Plain::Flag(number % 2 == 0)]);
            }
            if number % 6 > 0 {
                record.insert(
                    "tags",
                    TAGS.iter().enumerate().filter(|(at, _)| number & (1 << at) > 0).map(|(_, tag)| Plain::Text(tag)).collect(),
                );
            }
            record
        })
        .collect()
}

pub(super) fn holds(test: &Test, record: &Record) -> bool {
    let value = record.get(test.field);
    let any = |compare: &dyn Fn(&Plain, &Plain) -> bool| {
        value.is_some_and(|own| own.iter().any(|own| test.values.iter().any(|given| compare(own, given))))
    };
    match test.operator {
        "eq" | "in" => any(&|own, given| own == given),
        "ne" => !any(&|own, given| own == given),
        "gt" => any(&|own, given| own > given),
        "gte" => any(&|own, given| own >= given),
        "lt" => any(&|own, given| own < given),
        "lte" => any(&|own, given| own <= given),
        "all" => value.is_some_and(|own| test.values.iter().all(|given| own.contains(given))),
        "null" => value.is_none() == (test.values == [Plain::Flag(true)]),
        other => panic!("{other}"),
    }
}

pub(super) fn found(request: &Request, record: &Record) -> bool {
    let name = match record["name"].as_slice() {
        [Plain::Text(name)] => *name,
        _ => "",
    };
    let matched = request.words.iter().enumerate().all(|(at, word)| {
        let is_prefix = request.prefix && at + 1 == request.words.len();
        name.split(' ').any(|own| own == *word || (is_prefix && own.starts_with(word)))
    });
    matched
        && request.tests.iter().all(|test| holds(test, record))
        && (request.either.is_empty() || request.either.iter().any(|test| holds(test, record)))
}

/// Reads all records one by one, as somebody would who has never heard of an index.
pub(super) fn answer(request: &Request) -> Seen {
    let mut found: Vec<Record> = records().into_iter().filter(|record| found(request, record)).collect();
    let ranked = !request.words.is_empty() && request.sort.is_none();
    let sort = request.sort.clone().unwrap_or_else(|| if ranked { vec![] } else { vec![("tier", true)] });
    found.sort_by(|one, other| {
        let order = |(field, descending): &(&str, bool)| {
            let order = one.get(field).partial_cmp(&other.get(field)).unwrap();
            if *descending { order.reverse() } else { order }
        };
        let tie = one["sku"].partial_cmp(&other["sku"]).unwrap();
        sort.iter().map(order).find(|order| order.is_ne()).unwrap_or(tie)
    });
    let total = found.len();
    let skipped = usize::try_from((request.page - 1) * u64::from(request.limit)).unwrap();
    let has_next = total > skipped + request.limit as usize;
    let highlight = request.highlight && !request.words.is_empty();
    let shown = found.into_iter().skip(skipped).take(request.limit as usize).map(|mut record| {
        if !request.fields.is_empty() {
            record.retain(|name, _| *name == "sku" || request.fields.contains(name));
        }
        (record, highlight)
    });
    (shown.collect(), request.exact.then_some(total), request.page, request.limit, has_next, request.include, ranked)
}
