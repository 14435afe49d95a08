//! The change log: read once and in order by snapshots, and shortened from its old end.

use futures_util::FutureExt as _;

use super::super::log::since_statement;
use super::*;
use crate::model::LoggedChange;
use crate::store::ChangeFilter;
use crate::store::connection::Access;
use crate::store::statement::Statement;

/// Runs SQL past the store's own operations.
async fn sql(store: &Store, sql: &'static str) {
    let ran = store.run("sql", "", Access::Write, move |connection| {
        async move { Ok(connection.execute(Statement::new(sql)).await?) }.boxed()
    });
    ran.await.unwrap();
}

fn documents(keys: std::ops::Range<usize>) -> Vec<Value> {
    keys.map(|key| json!({"key": format!("k{key}")})).collect()
}

#[tokio::test]
async fn pages_hold_each_unseen_change_once_and_say_what_they_saw() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    put(&store, &items, &documents(0..3)).await;
    let start = store.snapshot().await.unwrap();
    let empty = store.changes_since(&start, None, 2).await.unwrap();
    assert_eq!((empty.changes.len(), empty.more_after), (0, None));
    assert!(empty.snapshot.next >= start.next);
    let mut written = put(&store, &items, &documents(3..6)).await.positions;
    written.extend(put(&store, &items, &documents(6..8)).await.positions);

    let (mut read, mut after) = (Vec::new(), None);
    loop {
        let page = store.changes_since(&start, after, 2).await.unwrap();
        assert!(page.changes.len() <= 2);
        assert!(written.iter().all(|position| page.snapshot.sees(position.transaction)));
        read.extend(page.changes.iter().map(|change| change.position));
        after = page.more_after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(read, written);
}

#[tokio::test]
async fn what_was_noted_as_unseen_is_read_and_what_was_seen_between_is_not() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let mut seen = store.snapshot().await.unwrap();
    let mut written = Vec::new();
    for key in 0..4 {
        written.extend(put(&store, &items, &documents(key..key + 1)).await.positions);
    }
    seen.see(written[1].transaction);
    seen.see(written[3].transaction);
    let page = store.changes_since(&seen, None, 10).await.unwrap();
    assert_eq!(page.changes.iter().map(|change| change.position).collect::<Vec<_>>(), [written[0], written[2]]);
    let page = store.changes_since(&seen, Some(written[0]), 10).await.unwrap();
    assert_eq!(page.changes.iter().map(|change| change.position).collect::<Vec<_>>(), [written[2]]);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_left_out_and_the_reader_goes_on() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let start = store.snapshot().await.unwrap();
    let written = put(&store, &items, &documents(0..4)).await.positions;
    sql(&store, "UPDATE changes SET collection = 'No Name' WHERE id = 'k0'").await;
    sql(&store, "UPDATE changes SET id = '' WHERE id = 'k2'").await;
    let page = store.changes_since(&start, None, 1).await.unwrap();
    assert_eq!((page.changes.len(), page.unreadable, page.more_after), (0, 1, Some(written[0])));
    let page = store.changes_since(&start, page.more_after, 10).await.unwrap();
    assert_eq!(page.changes.iter().map(|change| change.position).collect::<Vec<_>>(), [written[1], written[3]]);
    assert_eq!((page.unreadable, page.more_after), (1, None));
}

#[tokio::test]
async fn what_was_not_seen_stays_however_old_it_is() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let start = store.snapshot().await.unwrap();
    put(&store, &items, &documents(0..1)).await;
    let late = put(&store, &items, &documents(1..2)).await.positions[0];
    put(&store, &items, &documents(2..3)).await;
    let mut seen = store.snapshot().await.unwrap();
    seen.in_progress.push(late.transaction);
    assert_eq!(store.changes_prune(&cutoff(59), &seen, 100).await.unwrap(), 2);
    let left = store.changes_since(&start, None, 10).await.unwrap().changes;
    assert_eq!(left.iter().map(|change| change.position).collect::<Vec<_>>(), [late]);
}

/// Large documents, and one that is larger than a page by itself.
async fn put_large(store: &Store, items: &Arc<Collection>) -> Vec<Position> {
    let large = |key: usize, bytes: usize| vec![json!({"key": format!("k{key}"), "text": "x".repeat(bytes)})];
    let mut written = Vec::new();
    for key in 0..8 {
        written.extend(put(store, items, &large(key, if key == 4 { 5 << 20 } else { 900_000 })).await.positions);
    }
    written
}

fn size(changes: &[LoggedChange]) -> usize {
    changes.iter().flat_map(|change| [&change.before, &change.after]).flatten().map(String::len).sum()
}

#[tokio::test]
async fn a_page_ends_when_its_documents_are_large_and_has_a_change_at_least() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let start = store.snapshot().await.unwrap();
    let written = put_large(&store, &items).await;
    let (mut read, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = store.changes_follow(Some(&items.name), &start, after, 200).await.unwrap();
        assert!(!page.changes.is_empty() || page.more_after.is_none());
        // It ends with the change with which it is full.
        assert!(size(&page.changes[..page.changes.len().saturating_sub(1)]) < 2 << 20, "{}", size(&page.changes));
        read.extend(page.changes.iter().map(|change| change.position));
        (after, pages) = (page.more_after, pages + 1);
        if after.is_none() {
            break;
        }
    }
    assert_eq!(read, written);
    assert!((3..=6).contains(&pages), "{pages}");
}

#[tokio::test]
async fn a_list_of_large_changes_is_shorter_and_goes_on_behind_its_last() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let mut written = put_large(&store, &items).await;
    written.reverse();
    for operation in [None, Some(Operation::Create)] {
        let (mut read, mut filter) = (Vec::new(), ChangeFilter { operation, ..ChangeFilter::default() });
        loop {
            let page = store.changes_list(&items.name, filter.clone(), 100).await.unwrap();
            assert!(size(&page.changes[..page.changes.len().saturating_sub(1)]) < 2 << 20, "{}", size(&page.changes));
            read.extend(page.changes.iter().map(|change| change.position));
            match page.next {
                Some(next) => filter.before = Some(next),
                None => break,
            }
        }
        assert_eq!(read, written, "{operation:?}");
    }
}

#[derive(diesel::QueryableByName)]
struct PlanRow {
    #[diesel(sql_type = diesel::sql_types::Text, column_name = "QUERY PLAN")]
    line: String,
}

/// How many rows and keys of the log a page costs, from the lines of `EXPLAIN (ANALYZE)` that speak of them.
async fn cost_of_page(store: &Store, seen: &Snapshot, after: Option<Position>) -> (u64, String) {
    let seen = seen.clone();
    let explained = store.run("explain", "", Access::Read, move |connection| {
        let mut statement = Statement::new("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) ");
        statement.extend(since_statement(connection.dialect(), None, &seen, after, 200));
        async move { Ok(connection.load::<PlanRow>(statement).await?) }.boxed()
    });
    let lines: Vec<String> = explained.await.unwrap().into_iter().map(|row| row.line).collect();
    let number = |line: &str, name: &str| -> u64 {
        let digits = line.split(name).nth(1).unwrap().split(|character: char| !character.is_ascii_digit()).next().unwrap();
        digits.parse().unwrap()
    };
    let scanned = lines
        .iter()
        .filter(|line| line.contains(" on changes"))
        .map(|line| number(line, "actual rows=") * number(line, "loops="));
    let dropped = lines.iter().filter(|line| line.contains("Rows Removed")).map(|line| number(line, ": "));
    (scanned.chain(dropped).sum(), lines.join("\n"))
}

/// What only PostgreSQL has: transactions beside each other. SQLite's plan is asked for in the same place.
#[tokio::test]
async fn a_poll_beside_a_long_transaction_touches_only_what_is_new() {
    let Fixture { store, items, directory, .. } = fresh().await;
    if Tested::now() == Tested::Sqlite {
        let start = store.snapshot().await.unwrap();
        let plan =
            super::plans::explain(&store, move |connection| since_statement(connection.dialect(), None, &start, None, 200)).await;
        // First what is unseen, then the documents of those on the page, both along the key.
        assert!(plan.contains("CO-ROUTINE page\nSEARCH changes USING INTEGER PRIMARY KEY (rowid>?)"), "{plan}");
        assert!(plan.contains("SEARCH logged USING INTEGER PRIMARY KEY (rowid=?)"), "{plan}");
        return;
    }
    let mut long = schema::Session::open(&directory.settings.url).unwrap();
    let insert = "INSERT INTO changes (collection, id, operation, version, actor, at) SELECT 'items', 'late' || number, 'create', 1, \
                  'x', '2026-01-01T00:00:00.000000Z' FROM generate_series(1, 1000) AS number";
    long.execute("BEGIN");
    long.execute(insert);
    for _ in 0..3 {
        put(&store, &items, &(0..1_000).map(|key| json!({"key": format!("k{key}")})).collect::<Vec<_>>()).await;
    }
    sql(&store, "ANALYZE changes").await;
    let seen = store.snapshot().await.unwrap();
    assert!(!seen.in_progress.is_empty());
    let new = put(&store, &items, &documents(0..2)).await.positions;
    let page = store.changes_since(&seen, None, 200).await.unwrap();
    assert_eq!(page.changes.iter().map(|change| change.position).collect::<Vec<_>>(), new);
    let (touched, plan) = cost_of_page(&store, &seen, None).await;
    assert!(touched <= 2 && !plan.contains("Seq Scan on changes"), "{touched}: {plan}");

    // When it has committed, it is read page by page, and each page costs itself.
    long.execute("COMMIT");
    let (mut after, mut pages) = (None, 0);
    loop {
        let (touched, plan) = cost_of_page(&store, &seen, after).await;
        // Other tests have transactions of their own, which are looked at one by one.
        let limit = 201 + seen.in_progress.len() as u64;
        assert!(touched <= limit && !plan.contains("Seq Scan on changes"), "{touched}: {plan}");
        let page = store.changes_since(&seen, after, 200).await.unwrap();
        pages += page.changes.len();
        after = page.more_after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages, 1_002);
}

/// Just after second `second` of what [`put`] writes.
fn cutoff(second: u32) -> String {
    format!("2026-01-01T00:00:{second:02}.500000Z")
}

#[tokio::test]
async fn old_changes_go_from_the_old_end_and_young_ones_and_records_stay() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let start = store.snapshot().await.unwrap();
    let written = put(&store, &items, &documents(0..10)).await.positions;
    let seen = store.snapshot().await.unwrap();
    let remaining = async || {
        let page = store.changes_since(&start, None, 100).await.unwrap();
        page.changes.iter().map(|change| change.position).collect::<Vec<_>>()
    };
    assert_eq!(store.changes_prune(&cutoff(5), &start, 100).await.unwrap(), 0, "what was not seen in time went");
    assert_eq!(store.changes_prune(&cutoff(5), &seen, 4).await.unwrap(), 4);
    assert_eq!(remaining().await, written[4..]);
    assert_eq!(store.changes_prune(&cutoff(5), &seen, 100).await.unwrap(), 2);
    assert_eq!(store.changes_prune(&cutoff(5), &seen, 100).await.unwrap(), 0);
    assert_eq!(remaining().await, written[6..]);
    assert_eq!(store.record_scan(&items, None, 100).await.unwrap().len(), 10);
}

#[tokio::test]
async fn positions_are_not_used_again_after_the_newest_change_went() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let start = store.snapshot().await.unwrap();
    let old = put(&store, &items, &documents(0..3)).await.positions;
    let seen = store.snapshot().await.unwrap();
    assert_eq!(store.changes_prune(&cutoff(59), &seen, 100).await.unwrap(), 3);
    assert_eq!(changes(&store, &start).await, 0);
    let now = store.snapshot().await.unwrap();
    assert!(now.next >= seen.next && old.iter().all(|position| now.sees(position.transaction)), "{now:?}");
    let new = put(&store, &items, &documents(3..4)).await.positions;
    assert!(new[0] > old[2] && new[0].sequence > old[2].sequence && !now.sees(new[0].transaction));
}

#[tokio::test]
async fn one_change_from_the_future_holds_up_no_other() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let start = store.snapshot().await.unwrap();
    put(&store, &items, &documents(0..5)).await;
    sql(&store, "UPDATE changes SET at = '2126-01-01T00:00:00.000000Z' WHERE id = 'k0'").await;
    let seen = store.snapshot().await.unwrap();
    assert_eq!(store.changes_prune(&cutoff(59), &seen, 3).await.unwrap(), 2);
    assert_eq!(store.changes_prune(&cutoff(59), &seen, 3).await.unwrap(), 2);
    assert_eq!(changes(&store, &start).await, 1);
}

#[tokio::test]
async fn a_transaction_that_is_open_elsewhere_keeps_no_other_change_from_going() {
    let fixture = fresh_postgres().await;
    let begin = || {
        let mut session = schema::Session::open(&schema::required("TEST_POSTGRES")).unwrap();
        session.execute("BEGIN; SELECT pg_current_xact_id()");
        session
    };
    let _open = begin();
    let start = fixture.store.snapshot().await.unwrap();
    put(&fixture.store, &fixture.items, &documents(0..3)).await;
    let _later = begin();
    let seen = fixture.store.snapshot().await.unwrap();
    assert!(!seen.in_progress.is_empty());
    assert_eq!(fixture.store.changes_prune(&cutoff(59), &seen, 100).await.unwrap(), 3);
    assert_eq!(changes(&fixture.store, &start).await, 0);
}

#[tokio::test]
async fn an_invalidation_by_hand_stands_in_the_log_until_retention_removes_it_and_in_no_list_of_changes() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let start = store.snapshot().await.unwrap();
    let position = store.invalidation_insert(author(), "r:items:k1").await.unwrap();
    put(&store, &items, &documents(0..1)).await;
    let rows = store.changes_since(&start, None, 10).await.unwrap().changes;
    let targets: Vec<Option<String>> = rows.iter().map(|row| crate::store::invalidated(row).map(Result::unwrap)).collect();
    assert_eq!((rows[0].position, targets), (position, vec![Some("r:items:k1".to_owned()), None]));
    let listed = store.changes_list(&items.name, ChangeFilter::default(), 10).await.unwrap().changes;
    assert!(listed.iter().all(|row| row.position != position) && listed.len() == 1);
    let followed = store.changes_follow(Some(&items.name), &start, None, 10).await.unwrap().changes;
    assert_eq!(followed.len(), 1);
    let seen = store.snapshot().await.unwrap();
    assert_eq!(store.changes_prune("9999", &seen, 10).await.unwrap(), 2);
}
