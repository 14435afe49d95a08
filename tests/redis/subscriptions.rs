//! A subscription: it goes on whatever happens to its connection, and tells when messages may have been lost.

use std::time::Duration;

use terrace::redis_client::{BusEvent, Subscription};

use super::Client;
use crate::support::DEADLINE;
use crate::support::redis::PrivateRedis;

/// The next event: `"+"` and `"-"` for a connection made and lost, else the message.
async fn next(subscription: &mut Subscription) -> String {
    match tokio::time::timeout(DEADLINE, subscription.next()).await.expect("no event") {
        BusEvent::Connected => "+".to_owned(),
        BusEvent::Disconnected => "-".to_owned(),
        BusEvent::Message(message) => String::from_utf8(message.to_vec()).unwrap(),
    }
}

fn publish(server: &PrivateRedis, message: &str) -> i64 {
    server.command(&["PUBLISH", "channel", message])
}

#[tokio::test]
async fn messages_arrive_in_their_order_as_long_as_nobody_cuts_the_connection() {
    let server = PrivateRedis::start();
    let client = Client::to(&server.url());
    let mut subscription = client.client.subscribe("channel".to_owned());
    assert_eq!(next(&mut subscription).await, "+");
    for number in 0..100 {
        assert_eq!(publish(&server, &number.to_string()), 1);
    }
    for number in 0..100 {
        assert_eq!(next(&mut subscription).await, number.to_string());
    }
    // Nobody else's messages.
    server.command::<()>(&["PUBLISH", "another", "x"]);
    assert_eq!(publish(&server, "last"), 1);
    assert_eq!(next(&mut subscription).await, "last");
}

#[tokio::test]
async fn a_subscription_outlives_its_server_and_its_connections() {
    let mut server = PrivateRedis::start();
    let client = Client::to(&server.url());
    let mut subscription = client.client.subscribe("channel".to_owned());
    assert_eq!(next(&mut subscription).await, "+");
    for round in 0..3 {
        if round == 0 {
            server.command::<()>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        } else {
            server.stop();
            server.start_again();
        }
        assert_eq!((next(&mut subscription).await, next(&mut subscription).await), ("-".to_owned(), "+".to_owned()));
        assert_eq!(publish(&server, "again"), 1);
        assert_eq!(next(&mut subscription).await, "again");
    }
    assert_eq!(client.metric("terrace_redis_connections_total{purpose=\"subscription\"}"), Some(4.0));
}

#[tokio::test]
async fn one_that_seems_dead_is_made_anew_when_somebody_says_so() {
    let server = PrivateRedis::start();
    let client = Client::to(&server.url());
    let mut subscription = client.client.subscribe("channel".to_owned());
    assert_eq!(next(&mut subscription).await, "+");
    server.pause();
    subscription.reconnect();
    assert_eq!(next(&mut subscription).await, "-");
    server.resume();
    assert_eq!(next(&mut subscription).await, "+");
    // The old connection may not be closed yet for the server, and is for us.
    assert!(publish(&server, "once") >= 1);
    assert_eq!(next(&mut subscription).await, "once");
}

#[tokio::test]
async fn a_subscription_begins_when_its_server_is_there() {
    let mut server = PrivateRedis::planned().prepare();
    let client = Client::to(&server.url());
    let mut subscription = client.client.subscribe("channel".to_owned());
    assert!(tokio::time::timeout(Duration::from_millis(100), subscription.next()).await.is_err());
    server.start_again();
    assert_eq!(next(&mut subscription).await, "+");
}
