//! One instance and one caller, in time that is only told: who waits, what is asked for, and what comes back.

use super::*;

/// So long takes a question, in microseconds.
const ROUND_TRIP: u64 = 500;
/// When the first request comes.
const BEGIN: u64 = 1_000;

/// How a caller got on with a bucket that has room for all.
#[derive(Debug, Default)]
struct Course {
    /// How often the bucket was asked.
    questions: u64,
    /// Which of its requests waited for an answer.
    waited: Vec<usize>,
    /// How many requests the bucket has granted that nobody has had or has still to give back.
    lost: u32,
}

/// Requests at these times, in microseconds since [`BEGIN`], to one of so many instances. Those that wait are passed ahead if `credit`
/// allows for it.
fn course(quota: &str, credit: u32, instances: u32, arrivals: impl Iterator<Item = u64>) -> Course {
    let rate = Rate::of(quota.parse().unwrap());
    let mut shared = Shared::new([0; 16], rate, Tenure::of(rate), Precision::Leased);
    let (mut course, mut rest, mut asking, mut waiting) = (Course::default(), Rest::Nothing, None, Vec::new());
    let (mut granted, mut passed) = (0, 0);
    let mut arrivals = arrivals.enumerate().map(|(number, at)| (number, BEGIN + at)).peekable();
    let mut now = BEGIN;
    while arrivals.peek().is_some() || asking.is_some() {
        if let Some((at, order)) = asking.take_if(|(at, _): &mut (u64, Order)| now >= *at + ROUND_TRIP) {
            let grant = Grant { granted: order.asked, left: rate.requests(), wait: 0, granted_at: at };
            granted += grant.granted + order.passed;
            (rest, _) = shared.settle(&order, grant, 1, at, now);
        }
        while let Some((number, _)) = arrivals.next_if(|(_, at)| *at <= now) {
            passed += 1;
            match shared.answer(instances, now) {
                Answer::Known(_) => {}
                Answer::Short(_) => rest = shared.begin(),
                Answer::Unknown => {
                    let first = if shared.ahead(credit, now).is_some() {
                        shared.begin()
                    } else {
                        course.waited.push(number);
                        let (receiver, first) = shared.wait();
                        waiting.push(receiver);
                        first
                    };
                    if first == Rest::AskAgain {
                        rest = first;
                    }
                }
            }
        }
        if rest == Rest::AskAgain && asking.is_none() {
            rest = Rest::Nothing;
            asking = shared.order(1, instances, now).map(|order| (now, order));
            course.questions += u64::from(asking.is_some());
        }
        let events = [arrivals.peek().map(|(_, at)| *at), asking.as_ref().map(|(at, _)| at + ROUND_TRIP)];
        now = events.into_iter().flatten().min().unwrap_or(now).max(now);
    }
    assert!(waiting.iter_mut().all(|receiver| receiver.try_recv().is_ok()), "somebody waits for ever");
    course.lost = granted - passed;
    course
}

#[test]
fn who_asks_fast_soon_has_blocks_that_last() {
    for every in [5_u64, 10, 50, 200] {
        // With pauses in which blocks end.
        let arrivals = (0..2_000_000 / every).map(|number| number * every).filter(|at| at / 500_000 % 2 == 0);
        let Course { questions, .. } = course("100000000/15m", u32::MAX, 1, arrivals);
        assert!(questions < 100, "{questions} questions for {} requests", 1_000_000 / every);
    }
}

#[test]
fn who_comes_again_and_again_waits_twice_and_then_no_more() {
    for (quota, gaps_ms) in
        [("100/15m", [125_u64, 250, 1_000, 5_000].as_slice()), ("600/15m", &[125, 1_000, 2_500]), ("100/1m", &[125, 300])]
    {
        for gap in gaps_ms {
            let Course { waited, lost, .. } = course(quota, 0, 3, (0..50).map(|number| number * gap * 1_000));
            assert_eq!((waited.as_slice(), lost <= 3), ([0, 1].as_slice(), true), "{quota} every {gap} ms: {lost} lost");
        }
    }
}

#[test]
fn nothing_is_leased_for_who_comes_once_or_seldom() {
    let course = course("100/15m", 0, 3, (0..20).map(|number| number * 6_000_000));
    assert_eq!((course.waited.len(), course.questions, course.lost), (20, 20, 0));
}

#[test]
fn where_many_instances_share_a_quota_none_keeps_a_request_at_hand() {
    for (instances, waiting) in [(5, 2), (6, 50), (0, 50)] {
        let course = course("100/15m", 0, instances, (0..50).map(|number| number * 1_000_000));
        assert_eq!((course.waited.len(), instances), (waiting, instances));
    }
}

#[test]
fn a_refusal_says_the_whole_wait_and_stands_no_longer_than_others_may_hold_blocks() {
    for (quota, stands_s) in [("100/24h", 6), ("60/24h", 864)] {
        let rate = Rate::of(quota.parse().unwrap());
        let precision = if rate.requests() > 60 { Precision::Leased } else { Precision::Exact };
        let mut shared = Shared::new([0; 16], rate, Tenure::of(rate), precision);
        let (mut waiting, _) = shared.wait();
        let order = shared.order(1, 1, BEGIN).unwrap();
        let wait = 864_000_000;
        shared.settle(&order, Grant { granted: 0, left: 0, wait, granted_at: BEGIN }, 1, BEGIN, BEGIN);
        let refused = |after: u64| Verdict::Waits(Duration::from_micros(wait - after));
        assert_eq!(waiting.try_recv().unwrap().verdict, refused(0));
        let last = stands_s * 1_000_000 - 1;
        for after in [1, last] {
            let Answer::Known(standing) = shared.answer(1, BEGIN + after) else { panic!("{quota}: it is asked again") };
            assert_eq!(standing.verdict, refused(after), "{quota}");
        }
        assert!(matches!(shared.answer(1, BEGIN + last + 1), Answer::Unknown), "{quota}");
    }
}

#[test]
fn a_block_of_another_server_is_not_given_back_to_this_one() {
    let rate = Rate::of("100/15m".parse().unwrap());
    let mut shared = Shared::new([0; 16], rate, Tenure::of(rate), Precision::Leased);
    let grant = |granted_at| Grant { granted: 4, left: 90, wait: 0, granted_at };
    for (server, now) in [(1, BEGIN), (2, BEGIN + 1)] {
        let (_waiting, _) = shared.wait();
        let order = shared.order(server, 1, now).unwrap();
        let (_, returned) = shared.settle(&order, grant(now), server, now, now);
        assert!(returned.iter().all(Option::is_none));
    }
    let returned = shared.returning(2, BEGIN + 10_000_000);
    let returned: Vec<u64> = returned.iter().flatten().filter_map(|order| order.returned).map(|block| block.granted_at).collect();
    assert_eq!(returned, [BEGIN + 1]);
}
