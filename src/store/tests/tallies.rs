//! Tallies on PostgreSQL: whoever writes, however, and whatever is summed up or made anew meanwhile, they say what counting
//! the records says.

#[path = "tallies/making.rs"]
mod making;
#[path = "tallies/random.rs"]
mod random;
#[path = "tallies/summing.rs"]
mod summing;

use super::foreign::psql;
use super::schema::Session;
use super::*;
use crate::store::dialect::Dialect;
use crate::store::postgres::PostgresDialect;
use crate::store::statement::Statement;
use crate::store::{Stats, read, stats};

/// Every tallied field of [`items`].
const FIELDS: [&str; 7] = ["active", "category", "group", "name", "score", "tags", "tier"];

/// A filter that selects everything and is none, so that it is counted.
fn everything() -> Filter {
    Filter::All(Vec::new())
}

fn equal(field: &str, value: Scalar) -> Filter {
    Filter::test(field, Test::Eq(value))
}

fn owned(fields: &[&str]) -> Vec<String> {
    fields.iter().map(ToString::to_string).collect()
}

fn selecting(filter: Option<Filter>) -> Selection {
    Selection { filter, search: None }
}

/// A session that sees the tables as the server does, but does not say that it is.
fn beside(fixture: &Fixture) -> Session {
    Session::open(&fixture.directory.settings.url).unwrap()
}

fn number(session: &mut Session, query: &str) -> i64 {
    session.query(query).unwrap()[0][0].as_deref().unwrap().parse().unwrap()
}

/// The fields of a collection that are in a state, without that of all records.
fn fields_in(session: &mut Session, collection: &str, state: &str) -> Vec<String> {
    let query = format!(
        "SELECT field FROM tallied WHERE collection = '{collection}' AND state = '{state}' AND field <> '' ORDER BY field"
    );
    session.query(&query).unwrap().into_iter().map(|mut row| row.remove(0).unwrap()).collect()
}

/// Terms that occur, and some that do not.
fn terms() -> Vec<Filter> {
    let float = |number| Scalar::Number(Number::new(number).unwrap());
    vec![
        equal("category", text("c1")),
        equal("category", text("5")),
        equal("category", text("none")),
        equal("tier", Scalar::Integer(1)),
        equal("score", float(2.0)),
        equal("score", float(0.25)),
        equal("active", Scalar::Boolean(true)),
        equal("tags", text("t1")),
        equal("tags", text("t2")),
        equal("group", text("g1")),
    ]
}

/// Holds statistics and totals against what counting says.
async fn agree(fixture: &Fixture) {
    let (store, items) = (&fixture.store, &fixture.items);
    for (collection, by) in [(items, owned(&FIELDS)), (&fixture.groups, owned(&["parent"]))] {
        let counted: Stats = store.record_stats(collection, &by, Some(&everything())).await.unwrap();
        assert_eq!(store.record_stats(collection, &by, None).await.unwrap(), counted);
        assert_eq!(store.record_count(collection, &selecting(None)).await.unwrap(), counted.total);
    }
    for term in terms() {
        let counted = store.record_count(items, &selecting(Some(Filter::All(vec![term.clone()])))).await.unwrap();
        assert_eq!(store.record_count(items, &selecting(Some(term.clone()))).await.unwrap(), counted, "{term:?}");
    }
}

/// The rows of a statement in a session's own transaction.
fn rows(session: &mut Session, statement: &Statement) -> Vec<Vec<Option<String>>> {
    let (sql, types, values) = statement.prepared();
    session.query(&format!("PREPARE asked{types} AS {sql}; EXECUTE asked{values}; DEALLOCATE asked")).unwrap()
}

/// The same within one snapshot of a session, for which both are asked again and again.
fn agree_in(session: &mut Session, items: &Collection) {
    let dialect: &dyn Dialect = &PostgresDialect;
    let by = owned(&FIELDS);
    let tallied = rows(session, &stats::tallied_statement(dialect, items, &by).unwrap());
    assert!(!tallied.is_empty(), "the tallies are complete");
    let mut counted = rows(session, &stats::stats_statement(dialect, items, &by, None).unwrap());
    // 2 and 2.0 are one group, which may be called either.
    let plain = |rows: Vec<Vec<Option<String>>>| {
        let mut rows: Vec<_> = rows
            .into_iter()
            .map(|mut row| {
                row[1] = row[1].take().map(|value| value.trim_end_matches(".0").to_owned());
                row
            })
            .collect();
        rows.sort();
        rows
    };
    counted.sort();
    assert_eq!(plain(tallied), plain(counted));
    for term in terms() {
        let selection = selecting(Some(term));
        let tallied = rows(session, &read::tallied_statement(dialect, items, &selection).unwrap());
        assert_eq!(tallied, rows(session, &read::count_statement(dialect, items, &selection).unwrap()), "{selection:?}");
    }
}

/// Sums up until nothing is left.
async fn sum_up(store: &Store) {
    let mut after = String::new();
    while let Some(tallied) = store.tally(&after, 10_000).await.unwrap() {
        if tallied.changes < 10_000 {
            after = tallied.collection;
        }
    }
}

/// A document with or without each field, sometimes of another type than the schema would have it.
fn document(random: &mut fastrand::Rng, key: &str) -> Value {
    let mut document = json!({"key": key});
    let mut set = |name: &str, values: &[Value], random: &mut fastrand::Rng| {
        if random.u8(0..5) > 0 {
            document[name] = values[random.usize(0..values.len())].clone();
        }
    };
    set("category", &[json!("c1"), json!("c2"), json!("c3"), json!(5), json!("5"), json!(null), json!(["c1"])], random);
    set("tier", &[json!(1), json!(1.0), json!(2), json!(3), json!("1"), json!(true)], random);
    set("score", &[json!(2), json!(2.0), json!(0.25), json!(1e300), json!(null)], random);
    set("active", &[json!(true), json!(false), json!("true"), json!(1)], random);
    set("group", &[json!("g1"), json!("g2"), json!("gone")], random);
    set("name", &[json!("é"), json!("x'y\"z\\"), json!("n".repeat(400)), json!("")], random);
    let tags = [
        json!(["t1"]),
        json!(["t1", "t2", "t1"]),
        json!(["t2", null, ["t1"], {"t": 1}]),
        json!([]),
        json!("t1"),
        json!(["t".repeat(5_000), 1, 1.0, true]),
    ];
    set("tags", &tags, random);
    document
}
