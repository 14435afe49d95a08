//! A feed and the right to read it: who listens is asked again while there is something to tell, however slowly it is taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use terrace::app::App;
use terrace::error::{Error, ErrorKind};
use terrace::model::Caller;
use terrace::records::{FeedEnd, FeedItem, FeedItems, Recheck};
use terrace::store::ChangeFilter;

use super::events::Events;
use super::public_with;
use crate::support::fixture::item;
use crate::support::{DEADLINE, Server};

const LIVE: &str = "/api/items/_changes?live";
/// How long the slow client takes for each change: many of them are less than a heartbeat, and all are far more.
const SLOWNESS: Duration = Duration::from_millis(20);
/// How many are there to be told.
const MANY: usize = 180;
/// So many may be told after the caller was refused: at least a second of them, which is twenty heartbeats.
const AT_MOST: usize = 60;

fn server() -> Server {
    public_with(|settings| {
        settings.changes.heartbeat = Duration::from_millis(50);
        settings.auth.stale_if_error = Duration::ZERO;
    })
}

/// Says that the caller may read, as long as `allowed` says so.
fn recheck(allowed: &Arc<AtomicBool>, refusal: ErrorKind) -> Recheck {
    let allowed = Arc::clone(allowed);
    Box::new(move || {
        let refused = Error::new(refusal, "refused", "The test says so.");
        std::future::ready(if allowed.load(Ordering::SeqCst) { Ok(Caller::OPERATOR) } else { Err(refused) }).boxed()
    })
}

async fn follow(app: &App, last: Option<&str>, recheck: Recheck) -> FeedItems {
    let records = app.records();
    let items = records.resource("items").unwrap();
    records.follow_changes(items, &Caller::OPERATOR, ChangeFilter::default(), last, recheck).await.unwrap()
}

async fn change(feed: &mut FeedItems) -> Result<(), FeedEnd> {
    let next = async {
        loop {
            match feed.next().await? {
                FeedItem::Change { .. } => return Ok(()),
                FeedItem::Alive { .. } => {}
            }
        }
    };
    tokio::time::timeout(DEADLINE, next).await.expect("nothing but heartbeats comes")
}

async fn create_many(server: &Server) {
    server.create_items((0..MANY).map(|number| item(&format!("B{number}"), "a"))).await;
}

/// Takes some changes slowly, refuses the caller, and counts what is told after that.
async fn told_after_the_refusal(feed: &mut FeedItems, allowed: &AtomicBool) -> (usize, FeedEnd) {
    for _ in 0..5 {
        change(feed).await.unwrap();
        tokio::time::sleep(SLOWNESS).await;
    }
    allowed.store(false, Ordering::SeqCst);
    let mut told = 0;
    loop {
        match change(feed).await {
            Ok(()) => told += 1,
            Err(end) => return (told, end),
        }
        tokio::time::sleep(SLOWNESS).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_that_catches_up_is_told_nothing_more_once_it_is_refused() {
    let server = server();
    let place = Events::open(&server, LIVE, None).await.last.unwrap();
    create_many(&server).await;
    let (app, allowed) = (server.app().await, Arc::new(AtomicBool::new(true)));
    let _feeds = tokio::spawn(app.records().feeds());
    let mut feed = follow(&app, Some(&place), recheck(&allowed, ErrorKind::Unauthenticated)).await;
    let (told, end) = told_after_the_refusal(&mut feed, &allowed).await;
    assert!(end == FeedEnd::Forbidden && told < AT_MOST, "{told} {end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_with_a_backlog_is_told_nothing_more_once_it_is_refused() {
    let server = server();
    let (app, allowed) = (server.app().await, Arc::new(AtomicBool::new(true)));
    let _feeds = tokio::spawn(app.records().feeds());
    let mut feed = follow(&app, None, recheck(&allowed, ErrorKind::Unauthenticated)).await;
    server.create_item(item("A", "a")).await;
    change(&mut feed).await.unwrap();
    // From the tail, not the log: it is there.
    create_many(&server).await;
    let (told, end) = told_after_the_refusal(&mut feed, &allowed).await;
    assert!(end == FeedEnd::Forbidden && told < AT_MOST, "{told} {end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_ends_when_nobody_could_say_for_long_whether_its_caller_may_read() {
    let server = server();
    let (app, allowed) = (server.app().await, Arc::new(AtomicBool::new(true)));
    let _feeds = tokio::spawn(app.records().feeds());
    let mut feed = follow(&app, None, recheck(&allowed, ErrorKind::Unavailable)).await;
    server.create_item(item("A", "a")).await;
    change(&mut feed).await.unwrap();
    allowed.store(false, Ordering::SeqCst);
    let began = Instant::now();
    let end = change(&mut feed).await.unwrap_err();
    assert_eq!(end.as_str(), "unchecked");
    // `auth.stale_if_error`, which is none, and 2 s, as of requests.
    assert!(began.elapsed() > Duration::from_millis(1_500), "{:?}", began.elapsed());
    // Who can say again goes on.
    allowed.store(true, Ordering::SeqCst);
    let mut feed = follow(&app, None, recheck(&allowed, ErrorKind::Unavailable)).await;
    allowed.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(500)).await;
    allowed.store(true, Ordering::SeqCst);
    server.create_item(item("C", "a")).await;
    change(&mut feed).await.unwrap();
}
