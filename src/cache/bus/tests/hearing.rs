//! What instances make of messages, of what nobody told them, and of tokens.

use super::*;

#[tokio::test]
async fn a_message_is_applied_and_its_transactions_are_not_read_again() {
    let redis = FakeRedis::on(1);
    let (writer, other) = (Instance::settled(&redis).await, Instance::settled(&redis).await);
    redis.published();
    let before = other.capture();
    other.log.commit([change(1, 1, "M-1")]);
    writer.reconciler.announce(&[change(1, 1, "M-1")], &BTreeSet::new()).await;
    let messages = redis.published();
    other.hear(&messages);
    assert!(!before.is_current());
    assert_eq!(other.reconciler.reconcile().await.unwrap(), 0, "announced, and applied again");
    // A second announcement of it, by somebody who found it in the log, costs nothing.
    let after = other.capture();
    let mut found = Message::parse(messages[0].as_bytes()).unwrap();
    let News::Changes(changes) = &mut found.news else { panic!() };
    changes.is_found = true;
    other.hear(&[found.to_json()]);
    assert!(after.is_current());
}

/// The number had been given out, and seen, before the server crashed. What is told bears the run of before: nobody has read the
/// log since.
#[tokio::test]
async fn a_number_that_a_crash_gave_out_again_hides_no_message() {
    let redis = FakeRedis::on(1);
    let (writer, other) = (Instance::settled(&redis).await, Instance::settled(&redis).await);
    redis.published();
    other.reconciler.update(|progress| progress.seen = start(10));
    let before = other.capture();
    writer.reconciler.announce(&[change(9, 50, "M-1")], &BTreeSet::new()).await;
    let messages = redis.published();
    other.hear(&messages);
    assert!(!before.is_current(), "a read elsewhere is stale until the next round");
    // One that was heard of under another row.
    other.reconciler.update(|progress| progress.announced(Position { transaction: 20, sequence: 1 }));
    let before = other.capture();
    writer.reconciler.announce(&[change(20, 51, "M-1")], &BTreeSet::new()).await;
    let messages = redis.published();
    other.hear(&messages);
    assert!(!before.is_current());
    let after = other.capture();
    other.hear(&messages);
    assert!(after.is_current(), "told twice");
}

/// A list by `price`, of which M-1 is one that it does not show.
#[tokio::test]
async fn what_another_instance_wrote_leaves_an_answer_alone_if_all_is_told_of_it_and_it_touched_nothing() {
    for (at, case) in
        (1..).zip(["told", "of another member", "of nothing", "of another term", "by other declarations", "in bulk"])
    {
        let redis = FakeRedis::on(1);
        let (writer, other) = (Instance::settled(&redis).await, Instance::settled(&redis).await);
        redis.published();
        let member = if case == "of another member" { "price" } else { "name" };
        let count = if case == "in bulk" { BULK } else { 1 };
        let of = |number| Change { members: Some(vec![member.to_owned()]), ..change(at, 1, &format!("M-{number}")) };
        writer.reconciler.announce(&(1..=count).map(of).collect::<Vec<_>>(), &BTreeSet::new()).await;
        let mut message = Message::parse(redis.published()[0].as_bytes()).unwrap();
        let News::Changes(changes) = &mut message.news else { panic!() };
        match case {
            "of nothing" => changes.changes.clear(),
            "of another term" => changes.targets.push("t:metrics:4:tier=i:2".parse().unwrap()),
            "by other declarations" => changes.declarations += 1,
            _ => {}
        }
        let listed = other.bench.cache.guards.capture(&term(), Duration::ZERO);
        other.reconciler.receive(&other.bus, message.to_json().as_bytes());
        assert!(!listed.is_current(), "{case}");
        assert_eq!(listed.follow(&Footprint::reading(["price"]), |_| false), case == "told", "{case}");
    }
}

#[tokio::test]
async fn what_means_something_else_here_is_applied_and_read_in_the_log_all_the_same() {
    for case in ["declarations", "server", "database"] {
        let redis = FakeRedis::on(1);
        let (writer, other) = (Instance::settled(&redis).await, Instance::settled(&redis).await);
        redis.published();
        writer.reconciler.announce(&[change(1, 1, "M-1")], &BTreeSet::new()).await;
        let mut message = Message::parse(redis.published()[0].as_bytes()).unwrap();
        let News::Changes(changes) = &mut message.news else { panic!() };
        match case {
            "declarations" => changes.declarations += 1,
            "server" => changes.server += 1,
            _ => changes.database.0 += 1,
        }
        let before = other.capture();
        other.reconciler.receive(&other.bus, message.to_json().as_bytes());
        assert!(!before.is_current(), "{case}");
        // The rounds are woken.
        other.bench.cache.trust().alarm().notified().now_or_never().expect(case);
        other.log.commit([change(1, 1, "M-1")]);
        assert_eq!(other.reconciler.reconcile().await.unwrap(), 1, "{case}: noted as applied");
    }
}

/// Record M-1 was taken out of `tier = 1` by somebody whose message is lost, and is now written by one who never heard of that.
#[tokio::test]
async fn who_writes_after_somebody_unheard_of_shows_what_that_one_did_before_it_answers() {
    let redis = FakeRedis::on(1);
    let (writer, other) = (Instance::settled(&redis).await, Instance::settled(&redis).await);
    redis.published();
    let without_terms = |at: u64| Change { terms: Vec::new(), ..change(at, at as i64, "M-1") };
    for log in [&writer.log, &other.log] {
        log.commit([change(1, 1, "M-1"), without_terms(2)]);
    }
    let listed = |instance: &Instance| instance.bench.cache.guards.capture(&term(), Duration::ZERO);
    let (here, there) = (listed(&writer), listed(&other));
    let (running, making) = (Arc::clone(writer.bench.cache.trust().alarm()), Arc::clone(&writer.reconciler));
    let rounds = tokio::spawn(async move {
        running.notified().await;
        making.reconcile().await.unwrap();
    });
    writer.reconciler.announce(&[without_terms(2)], &BTreeSet::from([1])).await;
    assert!(!here.is_current(), "the writer was answered before its own lists show it");
    rounds.await.unwrap();
    // The message of the second write, and not what the round told of the first.
    let own = redis.published().remove(0);
    other.hear(&[own]);
    assert!(there.is_current() && !other.reconciler.update(|progress| progress.has_applied(2)), "noted before its predecessor");
    other.bench.cache.trust().alarm().notified().now_or_never().expect("the rounds are woken");
    assert_eq!(other.reconciler.reconcile().await.unwrap(), 2);
    assert!(!there.is_current());
}

#[tokio::test]
async fn an_unreadable_message_wakes_the_rounds_and_is_counted() {
    let redis = FakeRedis::on(1);
    let other = Instance::settled(&redis).await;
    redis.published();
    other.reconciler.invalidate(&"r:metrics:M-1".parse().unwrap(), None).await;
    let good = redis.published().remove(0);
    let wrong = good.replace("r:metrics", "r:Metrics");
    assert!(Message::parse(good.as_bytes()).is_some() && wrong != good);
    other.reconciler.receive(&other.bus, wrong.as_bytes());
    other.bench.cache.trust().alarm().notified().now_or_never().unwrap();
}

#[tokio::test]
async fn what_a_round_finds_is_announced_again_but_for_transactions_that_a_page_breaks_off() {
    let redis = FakeRedis::on(1);
    let (finder, other) = (Instance::settled(&redis).await, Instance::settled(&redis).await);
    redis.published();
    // Two hundred rows a page: the second transaction goes across the end of the first page.
    let rows = |transaction: u64, sequences: std::ops::Range<i64>| -> Vec<Change> {
        sequences.map(|sequence| change(transaction, sequence, "M-1")).collect()
    };
    for log in [&finder.log, &other.log] {
        log.commit([rows(1, 0..150), rows(2, 150..250), rows(3, 250..260)].concat());
    }
    let before = other.capture();
    assert_eq!(finder.reconciler.reconcile().await.unwrap(), 260);
    let messages = redis.published();
    let told: Vec<Changes> = messages
        .iter()
        .map(|message| match Message::parse(message.as_bytes()).unwrap().news {
            News::Changes(changes) => changes,
            news => panic!("{news:?}"),
        })
        .collect();
    let transactions: Vec<Vec<u64>> =
        told.iter().map(|told| told.transactions.iter().map(|place| Position::from(*place).transaction).collect()).collect();
    assert_eq!(transactions, [vec![1], vec![3]]);
    assert!(told.iter().all(|told| told.is_found));
    other.hear(&messages);
    assert!(!before.is_current());
    assert_eq!(other.reconciler.reconcile().await.unwrap(), 100, "half a transaction was taken for a whole one");
}

#[tokio::test]
async fn a_large_write_and_a_long_backlog_are_told_as_collections() {
    let redis = FakeRedis::on(1);
    let instance = Instance::settled(&redis).await;
    redis.published();
    let batch: Vec<Change> = (0..100).map(|number| change(1, number, &format!("B-{number}"))).collect();
    let before = instance.capture();
    instance.reconciler.announce(&batch, &BTreeSet::new()).await;
    assert!(!before.is_current());
    assert_eq!((names(&redis.deleted()), redis.published().len()), (vec!["b:metrics"], 1));
    instance.log.commit((2..=1_500).map(|at| change(at, 1_000 + at as i64, "M-1")));
    assert_eq!(instance.reconciler.reconcile().await.unwrap(), 1_499);
    let deleted = redis.deleted();
    assert_eq!(names(&deleted).iter().filter(|name| **name == "b:metrics").count(), 1, "{deleted:?}");
}

#[tokio::test]
async fn an_invalidation_by_hand_reaches_everybody_or_says_that_it_did_not() {
    let redis = FakeRedis::on(1);
    let (one, other) = (Instance::settled(&redis).await, Instance::settled(&redis).await);
    redis.published();
    let (here, there) = (one.capture(), other.capture());
    let target = "p:metrics:M-*".parse().unwrap();
    let logged = [&one, &other].map(|instance| instance.log.with(|state| state.log_by_hand(1, "p:metrics:M-*")))[0];
    assert_eq!(one.reconciler.invalidate(&target, Some(logged)).await, Reach::Published);
    other.hear(&redis.published());
    assert!(!here.is_current() && !there.is_current());
    for instance in [&one, &other] {
        assert_eq!(instance.reconciler.reconcile().await.unwrap(), 0, "told, and applied again");
    }
    redis.connect(None);
    assert_eq!(one.reconciler.invalidate(&target, Some(logged)).await, Reach::Pending);
    assert_eq!(one.open_on(), 0);
    assert_eq!(one.reconciler.invalidate(&target, None).await, Reach::Unlogged);
    let alone = Reconciler::new(Arc::clone(&one.bench.cache), Box::new(FakeLog::new()), start(1));
    assert_eq!(alone.invalidate(&target, Some(logged)).await, Reach::Alone);
}

#[tokio::test]
async fn an_invalidation_by_hand_that_nobody_heard_of_is_found_in_the_log_and_told_to_all() {
    for target in ["r:metrics:M-1", "t:metrics:4:tier=i:1", "p:metrics:M-?", "b:metrics", "*"] {
        let redis = FakeRedis::on(1);
        let (finder, other) = (Instance::settled(&redis).await, Instance::settled(&redis).await);
        redis.published();
        let captured = |instance: &Instance| {
            let guard = if target.starts_with('t') { term() } else { record("M-1") };
            instance.bench.cache.guards.capture(&guard, Duration::ZERO)
        };
        let (here, there) = (captured(&finder), captured(&other));
        for log in [&finder.log, &other.log] {
            log.with(|state| state.log_by_hand(2, target));
            // Beside a change, and a transaction that is open.
            log.with(|state| state.open.push(1));
            log.commit([change(3, 3, "M-9")]);
        }
        assert_eq!(finder.reconciler.reconcile().await.unwrap(), 2);
        assert!(!here.is_current(), "{target}");
        assert!(names(&redis.deleted()).contains(&target), "{target} stays in the second tier");
        other.hear(&redis.published());
        assert!(!there.is_current(), "{target}");
        assert_eq!(other.reconciler.reconcile().await.unwrap(), 0, "{target} was told, and found again");
    }
}

#[tokio::test]
async fn a_write_that_is_answered_again_and_cannot_be_read_of_gives_its_collection_up() {
    let redis = FakeRedis::on(1);
    let instance = Instance::settled(&redis).await;
    let collection = CollectionName::parse("metrics").unwrap();
    let show = async |transaction| instance.reconciler.show(Position { transaction, sequence: 1 }, &collection).await;
    let before = instance.capture();
    show(0).await;
    assert!(before.is_current() && redis.deleted().is_empty(), "it was applied");
    // Somebody else did it, and died before he told. Nobody makes rounds.
    show(1).await;
    assert!(!before.is_current());
    assert_eq!(names(&redis.deleted()), ["b:metrics"]);
}

#[tokio::test]
async fn a_token_waits_for_the_bus_then_for_one_round_that_all_share_and_never_for_ever() {
    let redis = FakeRedis::on(1);
    let instance = Arc::new(Instance::settled(&redis).await);
    let token = |transaction| Position { transaction, sequence: 1 };
    assert_eq!(instance.reconciler.settle(token(0)).await, Applied::Yes);
    // Nobody makes rounds: it ends all the same.
    assert_eq!(instance.reconciler.settle(token(1)).await, Applied::No);
    instance.log.commit([change(1, 1, "M-1")]);
    let rounds = Arc::new(AtomicUsize::new(0));
    let (making, made) = (Arc::clone(&instance), Arc::clone(&rounds));
    let alarm = Arc::clone(instance.bench.cache.trust().alarm());
    // The one above has woken nobody.
    alarm.notified().now_or_never();
    tokio::spawn(async move {
        loop {
            alarm.notified().await;
            // Until all have asked.
            tokio::task::yield_now().await;
            made.fetch_add(1, Ordering::Relaxed);
            making.reconciler.reconcile().await.unwrap();
        }
    });
    let before = instance.capture();
    let waiting = (0..50).map(|_| instance.reconciler.settle(token(1)));
    let applied = futures_util::future::join_all(waiting).await;
    assert!(applied.iter().all(|applied| *applied == Applied::Yes));
    assert!(!before.is_current());
    assert!(rounds.load(Ordering::Relaxed) <= 2, "{rounds:?} rounds");
    // Of another database, or of the future.
    assert_eq!(instance.reconciler.settle(token(1 << 40)).await, Applied::No);
    // The bus is quicker than any round.
    let (telling, hearing) = (Instance::settled(&redis).await, Arc::clone(&instance));
    redis.published();
    let rounds_before = rounds.load(Ordering::Relaxed);
    let (applied, ()) = tokio::join!(instance.reconciler.settle(token(2)), async {
        telling.reconciler.announce(&[change(2, 2, "M-1")], &BTreeSet::new()).await;
        hearing.hear(&redis.published());
    });
    assert_eq!((applied, rounds.load(Ordering::Relaxed)), (Applied::Yes, rounds_before));
}
