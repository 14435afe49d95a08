//! What collections need in the database, and that every shipped query shape finds it.

use diesel::prelude::QueryableByName;
use diesel::sql_types::Text;
use futures_util::FutureExt;

use super::*;
use crate::store::connection::{Access, Connection};
use crate::store::dialect::Dialect;
use crate::store::statement::Statement;
use crate::store::{Step, Told, read, references};

#[derive(QueryableByName)]
struct PlanRow {
    #[diesel(sql_type = Text)]
    detail: String,
}

pub(super) async fn explain(store: &Store, build: impl Fn(&Connection<'_>) -> Statement + Send + Sync + 'static) -> String {
    let explained = store.run("explain", "", Access::Read, move |connection| {
        let mut statement = Statement::new("EXPLAIN QUERY PLAN ");
        statement.extend(build(connection));
        async move {
            let rows: Vec<PlanRow> = connection.load(statement).await?;
            Ok(rows.into_iter().map(|row| row.detail).collect::<Vec<_>>().join("\n"))
        }
        .boxed()
    });
    explained.await.unwrap()
}

/// The values up to the cursor's.
const FALLING: &str = "(collection=? AND <expr><?)";

/// The shape's name, the query, and the index or table whose name must stand in the plan.
pub(super) fn shapes() -> Vec<(&'static str, Query, &'static str)> {
    let eq = |field: &str, value: Scalar| Filter::test(field, Test::Eq(value));
    let filtered = |filter| query(Some(filter), vec![]);
    let after =
        |query: Query, after: Vec<Option<Scalar>>| Query { paging: Paging::Cursor { after: Some(after), limit: 50 }, ..query };
    let time = || Some(text("2026-01-01T00:00:00.000000Z"));
    let (one, flag) = (Scalar::Integer(1), Scalar::Boolean(true));
    let number = Scalar::Number(Number::new(1.5).unwrap());
    let composite = Filter::all(vec![eq("category", text("x")), eq("tier", one.clone())]);
    let range = Filter::test("created_at", Test::Gte(text("2026-01-01T00:00:00.000000Z")));
    let either = Filter::any(vec![eq("category", text("x")), eq("tier", one.clone())]);
    let list = Filter::test("category", Test::In(vec![text("x"), text("y")]));
    let tags = Filter::test("tags", Test::In(vec![text("x"), text("y")]));
    let index = "terrace_index_items";
    let mut sorted_search = searching("word");
    sorted_search.sort = vec![down("updated_at")];
    sorted_search.highlight = true;
    let mut included = query(None, vec![]);
    included.include = vec!["group".into()];
    vec![
        ("default order", query(None, vec![]), index),
        ("text", filtered(eq("category", text("x"))), index),
        ("integer", filtered(eq("tier", one)), index),
        ("number", filtered(eq("score", number)), index),
        ("boolean", filtered(eq("active", flag)), index),
        ("composite", filtered(composite), index),
        ("list of values", filtered(list), index),
        ("alternatives", filtered(either), index),
        ("id", filtered(eq("key", text("x"))), "(collection=? AND id=?)"),
        ("array", filtered(eq("tags", text("x"))), "array_terms"),
        ("array, one of", filtered(tags), "array_terms"),
        ("range of time", filtered(range), index),
        ("order by time", query(None, vec![down("created_at")]), index),
        ("order by field", query(None, vec![up("name")]), index),
        ("order by field, falling", query(None, vec![down("name")]), index),
        ("order by id", query(None, vec![up("key")]), "(collection=?"),
        ("order by version", query(None, vec![up("version")]), "(collection=?"),
        ("cursor", after(query(None, vec![]), vec![time(), Some(text("a"))]), index),
        ("filtered cursor", after(filtered(eq("category", text("x"))), vec![time(), Some(text("a"))]), index),
        ("cursor by field", after(query(None, vec![up("name")]), vec![Some(text("n")), Some(text("a"))]), index),
        ("cursor by field, falling", after(query(None, vec![down("name")]), vec![Some(text("n")), Some(text("a"))]), FALLING),
        ("search", searching("word"), "terrace_search_items"),
        ("sorted search", sorted_search, "terrace_search_items"),
        ("include", included, index),
    ]
}

/// Shapes whose page is a range of an index, in order: nothing is sorted but the page itself.
pub(super) const RANGES: [&str; 11] = [
    "default order",
    "text",
    "integer",
    "number",
    "boolean",
    "composite",
    "order by time",
    "order by field",
    "order by id",
    "cursor",
    "filtered cursor",
];

#[tokio::test]
async fn every_query_shape_uses_an_index() {
    let Fixture { store, items, directory: _directory, .. } = fresh_sqlite().await;
    for (name, query, expected) in shapes() {
        let (owned, asked) = (Arc::clone(&items), query.clone());
        let marks = query.highlight.then(crate::store::highlight::Marks::random);
        let plan = explain(&store, move |connection| {
            read::page_statement(connection.dialect(), &owned, &asked, marks.as_ref()).unwrap()
        })
        .await;
        assert!(plan.contains(expected), "{name}:\n{plan}");
        let unindexed = plan.lines().find(|line| line.starts_with("SCAN records") && !line.contains("INDEX"));
        assert_eq!(unindexed, None, "{name}:\n{plan}");
        // One sort is that of the page's own records.
        let sorts = plan.matches("TEMP B-TREE FOR ORDER BY").count();
        assert!(!RANGES.contains(&name) || sorts <= 1, "{name}:\n{plan}");

        let (owned, selection) = (Arc::clone(&items), query.selection.clone());
        let plan =
            explain(&store, move |connection| read::count_statement(connection.dialect(), &owned, &selection).unwrap()).await;
        let unindexed = plan.lines().find(|line| line.starts_with("SCAN records") && !line.contains("INDEX"));
        assert_eq!(unindexed, None, "count of {name}:\n{plan}");
    }
    let plan = explain(&store, |connection| {
        let referrer =
            Referrer { collection: CollectionName::parse("items").unwrap(), field: "group".into(), told: Told::Exactly };
        references::referrer_statement(connection.dialect(), &referrer, &["g"]).unwrap()
    });
    let plan = plan.await;
    assert!(plan.contains("SEARCH records USING") && plan.contains("terrace_index_items"), "{plan}");
}

fn lines(steps: &[Step]) -> Vec<String> {
    steps.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_plan_says_what_it_would_do_and_nothing_is_left_after_it_was_done() {
    let Fixture { store, items, groups, directory: _directory, .. } = fresh().await;
    let both = [Arc::clone(&items), Arc::clone(&groups)];
    assert_eq!(lines(&store.plan(&both).await.unwrap()), Vec::<String>::new());

    put(&store, &items, &[json!({"key": "a", "note": "alpha", "sizes": [3], "tags": ["x"], "name": "beta"})]).await;
    let mut changed = (*items).clone();
    changed.indexes.retain(|index| !matches!(index.fields[0].as_str(), "tags" | "category"));
    changed.indexes.push(Index { fields: vec!["sizes".into()] });
    changed.indexes.push(Index { fields: vec!["tier".into(), "score".into()] });
    changed.search.truncate(1);
    changed.search[0].field = "note".into();
    let changed = Arc::new(changed);
    let steps = store.plan(&[Arc::clone(&changed), Arc::clone(&groups)]).await.unwrap();
    let mut made = lines(&steps);
    if Tested::now() == Tested::Postgres {
        let tallies: Vec<String> = made.extract_if(.., |line| line.contains("tallies")).collect();
        assert_eq!(
            tallies,
            [
                "create tallies of items (active, group, name, score, sizes, tier)",
                "drop tallies of items (active, category, group, name, score, tags, tier)"
            ]
        );
    }
    assert_eq!(
        made,
        [
            "create index on items (tier, score, then -updated_at, key)",
            "create index on items (elements of sizes)",
            "create search table on items (note)",
            "drop index on items (category, then -updated_at, key)",
            "drop index on items (category, tier, then -updated_at, key)",
            "drop index on items (elements of tags)",
            "drop search table on items (name, note)",
        ]
        .map(|line| match Tested::now() {
            Tested::Sqlite => line.to_owned(),
            Tested::Postgres => line.replace("search table", "search"),
        })
    );
    assert_eq!(made.iter().filter(|line| line.starts_with("drop")).count(), 4);
    store.apply(&steps).await.unwrap();
    assert!(store.plan(&[Arc::clone(&changed), Arc::clone(&groups)]).await.unwrap().is_empty());

    // The new search table and the new elements were made from the records that were there.
    assert_eq!(keys(&store, &changed, &searching("alpha")).await, ["a"]);
    assert!(keys(&store, &changed, &searching("beta")).await.is_empty());
    let sized = query(Some(Filter::test("sizes", Test::Eq(Scalar::Integer(3)))), vec![]);
    assert_eq!(keys(&store, &changed, &sized).await, ["a"]);
    // And they follow what is written from now on.
    put(&store, &changed, &[json!({"key": "a", "note": "gamma", "sizes": [4]})]).await;
    assert!(keys(&store, &changed, &searching("alpha")).await.is_empty());
    assert!(keys(&store, &changed, &sized).await.is_empty());
    // An array that lost its index can still be searched, only slower.
    put(&store, &changed, &[json!({"key": "a", "tags": ["y"]})]).await;
    assert_eq!(keys(&store, &changed, &query(Some(Filter::test("tags", Test::Eq(text("y")))), vec![])).await, ["a"]);
}

#[tokio::test]
async fn a_collection_that_is_no_longer_declared_is_left_alone() {
    let Fixture { store, items, groups, directory: _directory, .. } = fresh().await;
    put(&store, &items, &[json!({"key": "a"})]).await;
    assert!(store.plan(std::slice::from_ref(&groups)).await.unwrap().is_empty());
    assert_eq!(store.record_scan(&items, None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn index_names_fit_in_postgresqls_identifiers() {
    let name = |last| format!("{}{last}", "c".repeat(39));
    let dialects: [&dyn Dialect; 2] = [&crate::store::sqlite::SqliteDialect, &crate::store::postgres::PostgresDialect];
    for dialect in dialects {
        let of = |last| {
            let mut long = items();
            long.name = CollectionName::parse(&name(last)).unwrap();
            dialect.artifacts(&long).unwrap().into_iter().map(|artifact| artifact.name).collect::<std::collections::BTreeSet<_>>()
        };
        let (long, other) = (of('a'), of('b'));
        assert!(long.len() > 10, "{long:?}");
        // SQLite's triggers and view have names that are longer by a suffix, and no limit.
        assert!(long.iter().all(|name| name.len() <= 63), "{long:?}");
        assert!(long.is_disjoint(&other), "collections whose names differ at the end share nothing");
    }
}

#[tokio::test]
async fn a_field_that_cannot_stand_in_sql_is_refused() {
    let Fixture { store, mut items, directory: _directory, .. } = fresh().await;
    let collection = Arc::make_mut(&mut items);
    collection.indexes.push(Index { fields: vec!["a'b".into()] });
    assert!(store.plan(&[items]).await.is_err());
}
