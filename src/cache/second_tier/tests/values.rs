//! Values that are not what they should be are misses.

use super::*;

#[tokio::test]
async fn the_age_of_a_value_comes_from_redis_and_from_no_clock() {
    let installation = Installation::new();
    let (one, other) = (installation.instance().await, installation.instance().await);
    one.seed("M-1", "body").await;
    // Ten minutes pass. It was kept for an hour, as the settings say, not for the two that it may live.
    one.command::<()>("PEXPIRE", &[one.address("M-1").value.as_bytes(), b"3000000"]).await;
    let lookup = other.read_with("M-1", &Freshness::ANY, "never").await;
    assert_eq!(lookup.outcome, Outcome::HitL2);
    assert_eq!(lookup.age.as_secs(), 600);
    assert_eq!(lookup.entry.fresh_for(lookup.age).as_secs(), 2999);
}

#[tokio::test]
async fn a_guard_that_was_evicted_makes_a_miss() {
    for position in [0, 1] {
        let installation = Installation::new();
        let (one, other) = (installation.instance().await, installation.instance().await);
        one.seed("M-1", "old").await;
        let address = one.address("M-1");
        assert_eq!(address.dependencies.len(), 2);
        one.command::<()>("DEL", &[address.dependencies[position].as_bytes()]).await;
        assert_eq!(other.read("M-1", "new").await.0, Outcome::Miss);
    }
}

#[tokio::test]
async fn guards_outlive_the_values_that_have_their_nonces() {
    let installation = Installation::new();
    let one = installation.instance().await;
    one.seed("M-1", "body").await;
    let address = one.address("M-1");
    for guard in &address.dependencies {
        one.command::<()>("PEXPIRE", &[guard.as_bytes(), b"1000000"]).await;
    }
    one.tier.capture(&address).await.unwrap();
    for guard in &address.dependencies {
        let left: u64 = one.command("PTTL", &[guard.as_bytes()]).await;
        assert!(left > HOUR.as_millis() as u64, "{left}");
    }
}

#[tokio::test]
async fn a_value_of_another_server_process_is_void() {
    let installation = Installation::new();
    let (one, other) = (installation.instance().await, installation.instance().await);
    let mut capture = one.tier.capture(&one.address("M-1")).await.unwrap();
    capture.stamp.server ^= 1;
    let lookup = one.read_with("M-1", &Freshness { no_store: true, ..Freshness::ANY }, "old").await;
    one.tier.fill(&one.scope, one.address("M-1"), capture, &lookup.entry);
    one.until("it is filled", async || one.scope.metrics().second.fills_stored.get() == 1).await;
    assert_eq!(other.read("M-1", "new").await.0, Outcome::Miss);
}

#[tokio::test]
async fn a_value_of_another_declaration_or_installation_is_nobody_elses() {
    let installation = Installation::new();
    let one = installation.instance().await;
    one.seed("M-1", "old").await;
    let declared_anew = Installation { fingerprint: Fingerprint::of(&[&"another schema"]), ..installation.clone() };
    assert_eq!(declared_anew.instance().await.read("M-1", "new").await.0, Outcome::Miss);
    let another = Installation { id: format!("{}-another", installation.id), ..installation.clone() };
    assert_eq!(another.instance().await.read("M-1", "new").await.0, Outcome::Miss);
    assert_eq!(installation.instance().await.read("M-1", "never").await.0, Outcome::HitL2);
}

#[tokio::test]
async fn two_keys_with_one_hash_are_told_apart() {
    let installation = Installation::new();
    let (one, other) = (installation.instance().await, installation.instance().await);
    // Both are of one record, so that only the key tells.
    let key = |query| CacheKey::of_record(&one.scope, "M-1", query);
    let address = |query| one.tier.address(&one.scope, &key(query), &[record("M-1")]);
    one.seed("M-1", "whole").await;
    one.command::<()>("COPY", &[address("").value.as_bytes(), address("fields=id").value.as_bytes()]).await;
    let (guards, loader) = ([record("M-1")], || async { Ok(content("part")) });
    let lookup = other.cache.get_or_load(&other.scope, &key("fields=id"), &guards, &Freshness::ANY, loader).await.unwrap();
    assert_eq!((lookup.outcome, lookup.entry.identity().body.as_ref()), (Outcome::Miss, &b"part"[..]));
}

#[tokio::test]
async fn what_is_damaged_or_of_another_type_is_a_miss_and_is_replaced() {
    let installation = Installation::new();
    let one = installation.instance().await;
    one.seed("M-1", "body").await;
    let address = one.address("M-1");
    let (name, guard) = (address.value.as_bytes(), address.dependencies[0].as_bytes());
    type Commands<'a> = &'a [(&'a str, &'a [&'a [u8]])];
    let damages: [Commands<'_>; 6] = [
        &[("SETRANGE", &[name, b"20", b"\xff"])],
        &[("SET", &[name, b"foreign"])],
        &[("SET", &[name, b""])],
        &[("PERSIST", &[name])],
        &[("DEL", &[name]), ("LPUSH", &[name, b"x"])],
        &[("DEL", &[guard]), ("LPUSH", &[guard, b"x"])],
    ];
    for damage in damages {
        for (command, arguments) in damage {
            one.command::<redis::Value>(command, arguments).await;
        }
        let other = installation.instance().await;
        assert_eq!(other.read("M-1", "body").await, (Outcome::Miss, Bytes::from("body")), "{damage:?}");
        other.until("it is filled", async || other.scope.metrics().second.fills_stored.get() == 1).await;
        assert_eq!(installation.instance().await.read("M-1", "never").await.0, Outcome::HitL2, "{damage:?}");
    }
}

#[tokio::test]
async fn a_large_body_is_stored_compressed() {
    let installation = Installation::new();
    let (one, other) = (installation.instance().await, installation.instance().await);
    let body: &'static str = Box::leak("terrace ".repeat(10_000).into_boxed_str());
    one.seed("M-1", body).await;
    let length: usize = one.command("STRLEN", &[one.address("M-1").value.as_bytes()]).await;
    assert!(length < 10_000, "{length}");
    assert_eq!(other.read("M-1", "never").await, (Outcome::HitL2, Bytes::from(body)));
}

#[tokio::test]
async fn all_names_begin_with_prefix_and_installation() {
    let installation = Installation::new();
    let one = installation.instance().await;
    let root = format!("test:{}:", installation.id);
    let address = one.address("M-1");
    let mut names = address.dependencies.clone();
    names.extend([
        one.tier.names.lease(&address.value),
        address.value,
        one.tier.channel(),
        one.tier.heartbeat_key(one.cache.instance()),
    ]);
    assert!(names.iter().all(|name| name.starts_with(&root)), "{names:?}");
    assert_eq!(address.dependencies, [format!("{root}g:r:metrics:M-1"), format!("{root}b:metrics")]);
}

/// A page that was made from a count.
async fn page(instance: &Instance, scope: &Arc<Scope>, count: &Lookup, freshness: &Freshness) -> Lookup {
    let (key, entry) = (CacheKey::of_query(scope, "page"), Arc::clone(&count.entry));
    let loader = || async move { Ok(Content { basis: Basis::Entry(entry), ..content("page") }) };
    instance.cache.get_or_load(scope, &key, &[record("M-1")], freshness, loader).await.unwrap()
}

async fn count(instance: &Instance, scope: &Arc<Scope>) -> Lookup {
    let key = CacheKey::of_query(scope, "");
    instance.cache.get_or_load(scope, &key, &[record("M-1")], &Freshness::ANY, || async { Ok(content("7")) }).await.unwrap()
}

#[tokio::test]
async fn what_is_made_from_an_entry_is_shared_only_while_that_entry_is_as_new() {
    let installation = Installation::new();
    let (one, writer) = (installation.instance().await, installation.instance().await);
    let scopes = |instance: &Instance| {
        [Kind::Count, Kind::List]
            .map(|kind| instance.cache.scope(kind, "metrics", installation.lifetimes, installation.fingerprint))
    };
    let [counts, lists] = scopes(&one);
    let counted = count(&one, &counts).await;
    page(&one, &lists, &counted, &Freshness::ANY).await;
    one.until("the page is filled", async || lists.metrics().second.fills_stored.get() == 1).await;
    // A change that this instance has not heard of: its count is a hit, and older than the nonces that it captures for the page.
    writer.bump(Target::Guard(record("M-1"))).await;
    let counted = count(&one, &counts).await;
    assert_eq!(counted.outcome, Outcome::Hit);
    let reload = Freshness { reload: true, ..Freshness::ANY };
    page(&one, &lists, &counted, &reload).await;
    assert_eq!((lists.metrics().second.fills_stored.get(), lists.metrics().second.fills_dropped.get()), (1, 1));
    // A count from the second tier vouches as one that was loaded here.
    let (two, three) = (installation.instance().await, installation.instance().await);
    let [counts, _] = scopes(&two);
    assert_eq!(count(&two, &counts).await.outcome, Outcome::Miss);
    two.until("the count is filled", async || counts.metrics().second.fills_stored.get() == 1).await;
    let [counts, lists] = scopes(&three);
    let counted = count(&three, &counts).await;
    assert_eq!(counted.outcome, Outcome::HitL2);
    page(&three, &lists, &counted, &Freshness::ANY).await;
    three.until("the page is filled", async || lists.metrics().second.fills_stored.get() == 1).await;
}
