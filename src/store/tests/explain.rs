//! PostgreSQL's plans over 100,000 records. A prepared statement is planned for its values at first and may later be planned
//! once for all values, so both are looked at.

use std::time::Instant;

use diesel::prelude::QueryableByName;
use diesel::sql_types::Text;
use futures_util::FutureExt;

use super::plans::{RANGES, shapes};
use super::*;
use crate::store::connection::Access;
use crate::store::dialect::Dialect;
use crate::store::postgres::PostgresDialect;
use crate::store::statement::Statement;
use crate::store::{Owner, Shape, Told, read, references, stats, tally, write};

#[derive(QueryableByName)]
struct PlanRow {
    #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
    line: String,
}

const RECORDS: u32 = 100_000;

/// As after an import. The search trigger would take most of the time and change nothing about the plans.
async fn filled() -> Fixture {
    let fixture = fresh_postgres().await;
    fill(&fixture, 1, RECORDS);
    fixture.store.analyze(&fixture.groups.name).await.unwrap();
    // A page is marked as seen by everybody only when no transaction is open that began before it was written; other tests
    // have theirs in the same database.
    let mut session = schema::Session::open(&fixture.directory.settings.url).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        fixture.store.analyze(&fixture.items.name).await.unwrap();
        let marked = "SELECT 1 FROM pg_class WHERE oid = 'records_items'::regclass AND relallvisible = relpages";
        if !session.query(marked).unwrap().is_empty() {
            return fixture;
        }
        assert!(Instant::now() < deadline, "a transaction stays open");
    }
}

fn fill(fixture: &Fixture, first: u32, last: u32) {
    let mut session = schema::Session::open(&fixture.directory.settings.url).unwrap();
    session.execute(&format!(
        "SET terrace.writer = 'server'; ALTER TABLE records_items DISABLE TRIGGER terrace_search;
         INSERT INTO records_items (collection, id, version, data, search, created_at, updated_at)
         SELECT 'items', 'k' || n, 1 + n % 3, jsonb_build_object('key', 'k' || n, 'category', chr(97 + (n * 31) % 5), 'tier', n % 7,
             'score', n / 4.0, 'active', n % 2 = 0, 'tags', jsonb_build_array('t' || n % 20, 'u' || n % 50),
             'sizes', jsonb_build_array(n % 9), 'group', 'g' || n % 1000, 'name', 'name ' || md5(n::text), 'note', repeat('note ', 60)),
             to_tsvector('simple', 'word' || n % 100 || ' name'), time, time
         FROM (SELECT n, to_char(timestamp '2025-12-31' + n * interval '1 second', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS time
               FROM generate_series({first}, {last}) AS n) AS numbered;
         INSERT INTO records_groups (collection, id, version, data, created_at, updated_at)
         SELECT 'groups', 'g' || n, 1, jsonb_build_object('key', 'g' || n, 'parent', 'g' || n % 10), 'x', 'x'
         FROM generate_series(1, 1000) AS n ON CONFLICT DO NOTHING"
    ));
}

/// The plan in a session of the server's own.
async fn explain(store: &Store, mode: &'static str, statement: Statement) -> String {
    let (text, types, values) = statement.prepared();
    explained(store, mode, (format!("PREPARE asked{types} AS {text}"), format!("EXPLAIN EXECUTE asked{values}"))).await
}

async fn explained(store: &Store, mode: &'static str, asked: (String, String)) -> String {
    let asked = Arc::new(asked);
    let explained = store.run("explain", "", Access::Read, move |connection| {
        let asked = Arc::clone(&asked);
        async move {
            connection.batch(&format!("BEGIN; SET LOCAL plan_cache_mode = {mode}; {}", asked.0)).await?;
            let rows: Vec<PlanRow> = connection.load(Statement::new(asked.1.clone())).await?;
            connection.batch("ROLLBACK; DEALLOCATE asked").await?;
            Ok(rows.into_iter().map(|row| row.line).collect::<Vec<_>>().join("\n"))
        }
        .boxed()
    });
    explained.await.unwrap()
}

/// Besides those of `plans`: what is about the place in a list, the kinds of tests, and the mixture with a search.
fn more_shapes() -> Vec<(&'static str, Query)> {
    let test = |field: &str, test| Filter::test(field, test);
    let filtered = |filter| query(Some(filter), vec![]);
    let number = |number| Scalar::Number(Number::new(number).unwrap());
    let category = || test("category", Test::Eq(text("a")));
    let mut prefixed = searching("x");
    prefixed.selection.search = Some(SearchExpression::parse("name wor", true).unwrap());
    prefixed.selection.filter = Some(category());
    let mut far = query(Some(category()), vec![]);
    far.paging = Paging::Page { page: 200, limit: 50 };
    let mut walked = query(None, vec![up("created_at")]);
    walked.paging = Paging::Cursor { after: Some(vec![Some(text("2025-12-31T20:00:00.000000Z")), Some(text("a"))]), limit: 50 };
    vec![
        ("search with prefix and filter", prefixed),
        ("a far page", far),
        ("a walk by time", walked),
        ("range of numbers", filtered(test("score", Test::Gt(number(24_900.0))))),
        ("range of integers", filtered(test("tier", Test::Lt(Scalar::Integer(1))))),
        ("range of text", filtered(test("name", Test::Lte(text("name 1"))))),
        ("list of integers", filtered(test("tier", Test::In(vec![Scalar::Integer(1), Scalar::Integer(3)])))),
        ("list of numbers", filtered(test("score", Test::In(vec![number(1.5), number(2.0)])))),
        ("list of versions", filtered(test("version", Test::In(vec![Scalar::Integer(7), Scalar::Integer(8)])))),
        ("list of ids", filtered(test("key", Test::In(vec![text("k1"), text("k2")])))),
        ("list of times", filtered(test("created_at", Test::In(vec![text("x"), text("y")])))),
        ("missing text", filtered(test("category", Test::Null(true)))),
        ("missing number", filtered(test("score", Test::Null(true)))),
        ("every element", filtered(test("tags", Test::All(vec![text("t1"), text("u1")])))),
        ("other value", filtered(test("category", Test::Ne(text("a"))))),
        ("other element", filtered(test("tags", Test::Ne(text("t1"))))),
        ("filter, sorted by another field", query(Some(category()), vec![down("score")])),
        ("two orders", query(None, vec![up("category"), down("tier")])),
        ("order by version, falling", query(None, vec![down("version")])),
        ("order by id, falling", query(None, vec![down("key")])),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shipped_query_shape_over_100_000_records_fails_on_a_sequential_scan() {
    let Fixture { store, items, groups, directory: _directory, .. } = filled().await;
    let dialect: &dyn Dialect = &PostgresDialect;
    let shaped = Shape { fields: None, include: vec!["group".into()], owner: None };
    let referrer = |collection: &Collection, field: &str| Referrer {
        collection: collection.name.clone(),
        field: field.into(),
        told: Told::Exactly,
    };
    let owner = |field: &str| Owner { field: field.into(), subject: "a".into() };
    let owned = Shape { owner: Some(owner("category")), ..Shape::default() };
    let boss = owner("label");
    let mut statements = vec![
        ("by id and owner".to_owned(), read::one_statement(dialect, &items, &id("k1"), &owned).unwrap()),
        (
            "references to an owner's".to_owned(),
            references::reference_statement(dialect, &groups.name, &["g1", "g2"], Some(&boss)).unwrap(),
        ),
        ("by id".to_owned(), read::one_statement(dialect, &items, &id("k1"), &shaped).unwrap()),
        ("scan".to_owned(), read::scan_statement(dialect, &items, Some(&id("k1")), 500)),
        ("records to write".to_owned(), write::existing_statement(dialect, &items.name, &["k1", "k2"])),
        ("many records to write".to_owned(), write::existing_statement(dialect, &items.name, &["k1"; 20])),
        ("references".to_owned(), references::reference_statement(dialect, &groups.name, &["g1", "g2"], None).unwrap()),
        ("referrers".to_owned(), references::referrer_statement(dialect, &referrer(&items, "group"), &["g1"]).unwrap()),
    ];
    let mut ranked = Vec::new();
    let listed = shapes().into_iter().map(|(name, query, _)| (name, query)).chain(more_shapes());
    for (name, query) in listed {
        if query.selection.search.is_some() && query.sort.is_empty() {
            ranked.push(name.to_owned());
        }
        let marks = query.highlight.then(crate::store::highlight::Marks::random);
        statements.push((name.to_owned(), read::page_statement(dialect, &items, &query, marks.as_ref()).unwrap()));
        let count = read::count_statement(dialect, &items, &query.selection).unwrap();
        statements.push((format!("count of {name}"), count));
        if query.selection.filter.is_some() && query.selection.search.is_none() {
            let by = ["category".to_owned(), "tags".to_owned()];
            let statement = stats::stats_statement(dialect, &items, &by, query.selection.filter.as_ref()).unwrap();
            statements.push((format!("statistics of {name}"), statement));
        }
    }
    let mut wrong = Vec::new();
    // The last is what the planner would do if it were free to read everything.
    for mode in ["force_custom_plan", "force_generic_plan", "force_custom_plan; SET LOCAL enable_seqscan = on"] {
        for (name, statement) in &statements {
            let plan = explain(&store, mode, statement.clone()).await;
            // What stands before the limit is about the page alone.
            let below = plan.split_once("Limit").map_or("", |(_, below)| below);
            let is_sorted = below.lines().any(|line| line.trim_start().trim_start_matches("->  ").starts_with("Sort  "));
            // A negation selects nearly everything: to count it, everything is read.
            let reads_all = ["count of other", "statistics of other"].iter().any(|prefix| name.starts_with(prefix));
            // What is searched for is read once, and not again for the rank of every match.
            let is_read_once = !ranked.contains(name) || plan.contains("->  Result  (");
            if reads_whole(&plan) && !reads_all
                || !is_read_once
                || RANGES.contains(&name.as_str()) && is_sorted
                || name == "count of default order" && !plan.contains("Index Only Scan")
            {
                wrong.push(format!("{name} ({mode}):\n{plan}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    deep_walks_cost_their_page(&store, &items).await;

    tallies_are_read_along_their_index(&store, &items).await;

    // The one exception: statistics of a whole collection that is not tallied read all of it. It also shows that the test can fail.
    let whole = stats::stats_statement(dialect, &items, &["tags".to_owned()], None).unwrap();
    assert!(explain(&store, "force_custom_plan", whole).await.contains(WHOLE_INDEX));
}

/// No record is touched, and of the tallies only those of the fields that are asked for.
async fn tallies_are_read_along_their_index(store: &Store, items: &Collection) {
    let dialect: &dyn Dialect = &PostgresDialect;
    let of = |filter| Selection { filter, search: None };
    let number = Scalar::Number(Number::new(1.5).unwrap());
    let terms = [
        ("category", text("a")),
        ("tier", Scalar::Integer(1)),
        ("score", number),
        ("active", Scalar::Boolean(true)),
        ("tags", text("t1")),
    ];
    let terms = terms.map(|(field, value)| of(Some(Filter::test(field, Test::Eq(value)))));
    let by = ["category", "tier", "tags", "active"].map(str::to_owned);
    let mut statements = vec![
        stats::tallied_statement(dialect, items, &by).unwrap(),
        stats::tallied_statement(dialect, items, &[]).unwrap(),
        tally::next_statement(""),
        tally::sum_statement("items", 10_000),
    ];
    statements.extend(terms.into_iter().chain([of(None)]).map(|of| read::tallied_statement(dialect, items, &of).unwrap()));
    for tallied in [false, true] {
        for statement in &statements {
            for mode in ["force_custom_plan", "force_generic_plan"] {
                let plan = explain(store, mode, statement.clone()).await;
                assert!(!plan.contains("Seq Scan") && !plan.contains("records_items"), "{tallied}, {mode}:\n{plan}");
                // The few rows that say what is complete stand together.
                let lines = || plan.lines();
                let reads_all = lines()
                    .zip(lines().skip(1))
                    .any(|(scan, condition)| condition.contains(WHOLE_INDEX) && !scan.contains("tallied"));
                assert!(!reads_all, "{tallied}, {mode}:\n{plan}");
            }
        }
        // Then from the other table.
        while store.tally("", 50_000).await.unwrap().is_some() {}
    }
}

/// Why sessions keep from sequential scans (`postgres::connect`): the plan that a connection has made while a collection was
/// small stays until its statistics are gathered anew, which is a minute and more after it has grown.
#[tokio::test]
async fn a_plan_made_while_a_collection_was_small_serves_it_when_it_has_grown() {
    let fixture = fresh_postgres().await;
    fill(&fixture, 1, 40);
    fixture.store.analyze(&fixture.items.name).await.unwrap();
    let (mut session, dialect) = (schema::Session::open(&fixture.directory.settings.url).unwrap(), &PostgresDialect);
    let ours = fixture.store.run("settings", "", Access::Read, |connection| {
        let asked = "SELECT name || ' = ' || setting AS \"QUERY PLAN\" FROM pg_settings WHERE source = 'session' AND name ~ '^enable_|_cost$'";
        async move { Ok(connection.load::<PlanRow>(Statement::new(asked)).await?) }.boxed()
    });
    for PlanRow { line } in ours.await.unwrap() {
        session.execute(&format!("SET {line}"));
    }
    let listed = query(Some(Filter::test("category", Test::Eq(text("a")))), vec![]);
    let (sql, types, values) = read::page_statement(dialect, &fixture.items, &listed, None).unwrap().prepared();
    session.execute(&format!("PREPARE asked{types} AS {sql}"));
    for _ in 0..8 {
        session.execute(&format!("EXECUTE asked{values}"));
    }
    fill(&fixture, 41, 20_000);
    let plan = session.query(&format!("EXPLAIN EXECUTE asked{values}")).unwrap().concat();
    let plan: String = plan.into_iter().flatten().map(|line| line + "\n").collect();
    assert!(plan.contains("terrace_index_items") && !plan.contains("Seq Scan"), "{plan}");
}

/// In the middle of an order, whichever way it goes, no more records are read than the page has; nor where the values end.
async fn deep_walks_cost_their_page(store: &Store, items: &Collection) {
    let dialect: &dyn Dialect = &PostgresDialect;
    let middle = || Some(text("name 8"));
    let (score, end) = (Some(Scalar::Number(Number::new(12_000.0).unwrap())), Some(text("name 0")));
    for (sort, after) in [(up("name"), middle()), (down("name"), middle()), (down("name"), end), (down("score"), score)] {
        let mut walked = query(None, vec![sort.clone()]);
        walked.paging = Paging::Cursor { after: Some(vec![after, Some(text("a"))]), limit: 50 };
        let (sql, types, values) = read::page_statement(dialect, items, &walked, None).unwrap().prepared();
        for mode in ["force_custom_plan", "force_generic_plan"] {
            let asked =
                (format!("PREPARE asked{types} AS {sql}"), format!("EXPLAIN (ANALYZE, TIMING OFF) EXECUTE asked{values}"));
            let plan = explained(store, mode, asked).await;
            let number = |rest: &str| rest.split(|digit: char| !digit.is_ascii_digit()).next().unwrap().parse::<u64>().unwrap();
            let read = plan.split("actual rows=").skip(1).map(number).max().unwrap();
            let dropped: u64 = plan.split("Rows Removed by Filter: ").skip(1).map(number).sum();
            assert!(read <= 110 && dropped <= 1, "{sort:?} ({mode}):\n{plan}");
        }
    }
}

/// The condition of an index scan that reads all records one by one.
const WHOLE_INDEX: &str = "Index Cond: (collection = 'items'::text)";

/// Whether everything is read: the table, or (our sessions keep from that) the table by way of an index. A limit ends that
/// early, and counting the entries of an index does not look at the records.
fn reads_whole(plan: &str) -> bool {
    plan.contains("Seq Scan") || plan.contains(WHOLE_INDEX) && !plan.contains("Limit") && !plan.contains("Index Only Scan")
}
