//! Pages of the change log: what they cost, whatever else is in it.

use diesel::prelude::QueryableByName;
use diesel::sql_types::Text;
use futures_util::FutureExt as _;

use super::*;
use crate::store::audit::list_statement;
use crate::store::connection::Access;
use crate::store::statement::Statement;
use crate::store::{ChangeFilter, ChangePlace};

#[derive(QueryableByName)]
struct PlanRow {
    #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
    line: String,
}

/// Statements past the store's own.
async fn sql(store: &Store, statement: &'static str) {
    let done =
        store.run("sql", "", Access::Write, move |connection| async move { Ok(connection.batch(statement).await?) }.boxed());
    done.await.unwrap();
}

/// 40,000 changes of two collections: many of one record, few by one actor.
async fn filled() -> Fixture {
    let fixture = fresh().await;
    let fill = "INSERT INTO changes (collection, id, operation, version, actor, at, after) WITH RECURSIVE n (n) AS \
        (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 40000) \
        SELECT CASE n % 2 WHEN 0 THEN 'items' ELSE 'groups' END, CASE WHEN n % 10 = 0 THEN 'often' ELSE 'k' || n END, \
        CASE WHEN n % 1000 = 0 THEN 'delete' ELSE 'update' END, 1, CASE WHEN n % 2000 = 0 THEN 'rare' ELSE 'usual' END, \
        '2026-01-01T00:' || substr('0' || (n / 1000), -2) || ':00.' || substr('000000' || n, -6) || 'Z', NULL FROM n";
    let fill: &'static str = match Tested::now() {
        Tested::Sqlite => fill,
        Tested::Postgres => Box::leak(
            fill.replace("substr('0' || (n / 1000), -2)", "lpad((n / 1000)::text, 2, '0')")
                .replace("substr('000000' || n, -6)", "lpad(n::text, 6, '0')")
                .into_boxed_str(),
        ),
    };
    sql(&fixture.store, fill).await;
    sql(&fixture.store, if Tested::now() == Tested::Postgres { "ANALYZE changes" } else { "SELECT 1" }).await;
    fixture
}

/// The shapes that a request may have, each with the index that its page is read along.
fn shapes() -> Vec<(&'static str, ChangeFilter, &'static [&'static str])> {
    let filter = ChangeFilter::default;
    let text = |text: &str| Some(text.to_owned());
    let time: &[&str] = &["changes_by_time"];
    let actor: &[&str] = &["changes_by_actor"];
    // An actor who did nearly all.
    let either: &[&str] = &["changes_by_actor", "changes_by_time"];
    // Many changes of one record may be nearly all that there is: then time is as good.
    let record: &[&str] = &["changes_by_record", "changes_by_time"];
    let before = Some(ChangePlace { at: "2026-01-01T00:20:00.020000Z".to_owned(), sequence: 20_000 });
    vec![
        ("all", filter(), time),
        ("cursor", ChangeFilter { before: before.clone(), ..filter() }, time),
        ("until", ChangeFilter { until: text("2026-01-01T00:02:00.000000Z"), ..filter() }, time),
        ("since", ChangeFilter { since: text("2026-01-01T00:39:00.000000Z"), ..filter() }, time),
        ("record", ChangeFilter { record: text("k2"), ..filter() }, record),
        ("a record that changes often", ChangeFilter { record: text("often"), ..filter() }, record),
        ("actor", ChangeFilter { actor: text("rare"), ..filter() }, actor),
        ("actor, cursor", ChangeFilter { actor: text("usual"), before, ..filter() }, either),
        ("operation", ChangeFilter { operation: Some(Operation::Delete), ..filter() }, time),
    ]
}

#[tokio::test]
async fn every_page_of_changes_is_read_along_an_index() {
    let Fixture { store, items, directory: _directory, .. } = filled().await;
    for (shape, filter, indexes) in shapes() {
        let (items, asked) = (items.name.clone(), filter.clone());
        let plan = match Tested::now() {
            Tested::Sqlite => {
                super::plans::explain(&store, move |connection| list_statement(connection.dialect(), &items, &asked, 51)).await
            }
            Tested::Postgres => {
                let explained = store.run("explain", "", Access::Read, move |connection| {
                    let mut statement = Statement::new("EXPLAIN ");
                    statement.extend(list_statement(connection.dialect(), &items, &asked, 51));
                    async move { Ok(connection.load::<PlanRow>(statement).await?) }.boxed()
                });
                explained.await.unwrap().into_iter().map(|row| row.line).collect::<Vec<_>>().join("\n")
            }
        };
        assert!(indexes.iter().any(|index| plan.contains(index)), "{shape}: {plan}");
        assert!(!plan.contains("Seq Scan on changes") && !plan.contains("SCAN changes"), "{shape}: {plan}");
    }
}

#[tokio::test]
async fn pages_are_what_a_reading_of_everything_would_give() {
    let Fixture { store, items, directory: _directory, .. } = filled().await;
    let all = store.changes_list(&items.name, ChangeFilter::default(), 30_000).await.unwrap();
    assert_eq!((all.changes.len(), all.next), (20_000, None));
    for (shape, filter, _) in shapes() {
        let ChangeFilter { record, actor, operation, since, until, before } = &filter;
        let expected = all.changes.iter().filter(|change| {
            record.as_ref().is_none_or(|record| record == change.id.as_str())
                && actor.as_ref().is_none_or(|actor| *actor == change.actor)
                && operation.is_none_or(|operation| operation == change.operation)
                && since.as_ref().is_none_or(|since| change.at >= *since)
                && until.as_ref().is_none_or(|until| change.at < *until)
                && before.as_ref().is_none_or(|before| (&change.at, change.position.sequence) < (&before.at, before.sequence))
        });
        let expected: Vec<Position> = expected.map(|change| change.position).collect();
        let (mut found, mut filter) = (Vec::new(), filter);
        loop {
            let page = store.changes_list(&items.name, filter.clone(), 7_000).await.unwrap();
            found.extend(page.changes.iter().map(|change| change.position));
            match page.next {
                Some(next) => filter.before = Some(next),
                None => break,
            }
        }
        assert_eq!(found, expected, "{shape}");
    }
}
