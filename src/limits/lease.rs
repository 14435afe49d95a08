//! What one instance holds of one bucket: a block of requests that the shared bucket has granted already, to be passed on
//! without asking again. It knows no clock and no Redis.
//!
//! **How far leases may lead beyond a quota.** A request passes at most [`Tenure::longest`] after the bucket counted it, so in
//! any stretch of time pass no more requests than a single bucket counts in that time and [`Tenure::longest`] before it: what
//! comes back to the quota in a hundredth of its period is a hundredth of the quota, for any number of instances and
//! blocks of any size. Blocks are given back, so that clients who pause lose nothing; but while one was out, the bucket may
//! have been full, and what came back to it meanwhile been lost had the block never been taken. The script knows the lowest
//! that the backlog has been at since the block was granted. As much of the block as that comes back whole: all is then as if
//! it had never been taken (and the lowest is so much lower, for the next one). Of the rest as much is kept as comes back
//! in the time that it was out (`held` in the script): with that the bound is the same. (Let `x` be what bucket and open
//! blocks hold above the quota. It grows by what comes back, only while some block is out, and closing block `i` makes it
//! smaller by what came back since `i` was granted, or by all that is left of `i`. By induction over the events, with open
//! blocks in the order in which they were granted, `x` is at most what is left of the first `i - 1` together with what came
//! back since `i` was granted, for each `i`; so for the first.)

use super::gcra::Rate;

/// One in so many requests of a quota may be passed ahead, by all instances together: before the bucket is told. It counts
/// them beyond the quota, so they are no more than that at any time.
pub(super) const CREDIT: u32 = 200;
/// How long a block of several requests may be held, at most, and one of a single request. What is out may be missed elsewhere.
const LONGEST: f64 = 1e6;
const LONGEST_SINGLE: f64 = 10e6;
/// Of the time that a block may be out, how much it is used; the rest is for giving it back.
const USED: f64 = 0.6;
/// Within how much of that time a block of the right size is used up. The smaller, the fewer blocks end with something left
/// in them, and the more often the server is asked.
const AIM: f64 = 0.25;

/// For how long blocks of a quota are out, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tenure {
    /// For how long any block may be held: a hundredth of the period or half of that, at most ten seconds. Of what comes back later
    /// no more counts than the bucket has had all the time.
    pub longest: f64,
    /// The largest block.
    pub most: u32,
}

/// A block.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Block {
    /// What is left of it.
    pub left: u32,
    /// How large it was.
    pub size: u32,
    /// When it may no longer be used.
    pub end: u64,
    /// When it was granted, by the server's clock: goes back with what is left.
    pub granted_at: u64,
}

/// The blocks of a bucket: one that is used, and perhaps one that will be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lease {
    block: Block,
    spare: Block,
    /// Since when the block is used.
    since: u64,
    /// How large the next one should be; 0 is not known yet.
    next: u32,
}

impl Tenure {
    pub fn of(rate: Rate) -> Self {
        // Half of what may be exceeded is for requests that are passed ahead, where that is any.
        let parts = if rate.requests() < CREDIT { 100.0 } else { 200.0 };
        Self { longest: (rate.capacity / parts).min(LONGEST_SINGLE), most: (rate.requests() / 16).max(1) }
    }

    /// For how long a block of several requests is held.
    pub fn held(self) -> f64 {
        self.longest.min(LONGEST)
    }

    /// How long a block is used of which so many requests are left. Of a single one no more is lost than that one.
    pub fn used(self, left: u32) -> u64 {
        ((if left > 1 { self.held() } else { self.longest }) * USED) as u64
    }
}

impl Lease {
    /// Passes one request on.
    pub fn take(&mut self, tenure: Tenure, now: u64) -> Option<()> {
        if !is_usable(&self.block, now) {
            if !is_usable(&self.spare, now) {
                return None;
            }
            self.learn(tenure, now);
            // What is left of one that has ended stays, to be given back.
            std::mem::swap(&mut self.block, &mut self.spare);
            self.since = now;
        }
        self.block.left -= 1;
        Some(())
    }

    /// How many requests are left.
    pub fn left(&self, now: u64) -> u32 {
        [self.block, self.spare].iter().filter(|block| is_usable(block, now)).map(|block| block.left).sum()
    }

    /// Whether a block should be fetched before this one is used up: little is left of it, and long before its end.
    pub fn is_short(&self, tenure: Tenure, now: u64) -> bool {
        let Block { left, size, .. } = self.block;
        size >= 4 && left <= size / 4 && !is_usable(&self.spare, now) && now.saturating_sub(self.since) < tenure.used(size) / 2
    }

    /// Whether the block was used up, by who is likely to need the next one while that may be used.
    pub fn is_out(&self, tenure: Tenure, now: u64) -> bool {
        let Block { left, size, .. } = self.block;
        size > 0 && left == 0 && !is_usable(&self.spare, now) && now.saturating_sub(self.since) < tenure.used(1)
    }

    /// How large a block to ask for: as much as is used in a part of its time. Nothing is known of a client that is new or
    /// slow: it gets one request at a time.
    pub fn next(&mut self, tenure: Tenure, now: u64) -> u32 {
        self.learn(tenure, now);
        self.next.clamp(1, tenure.most)
    }

    /// Takes over a block. What is left of blocks that it replaces is to be given back.
    pub fn put(&mut self, block: Block, now: u64) -> [Option<Block>; 2] {
        if is_usable(&self.block, now) {
            let replaced = std::mem::replace(&mut self.spare, block);
            return [left_over(replaced), None];
        }
        let replaced = [left_over(self.block), left_over(self.spare)];
        (self.block, self.spare, self.since) = (block, Block::default(), now);
        replaced
    }

    /// What is left of a block that has ended, once. If both have, the other one comes with the next call.
    pub fn ended(&mut self, tenure: Tenure, now: u64) -> Option<Block> {
        let has_ended = |block: &Block| block.left > 0 && now >= block.end;
        if has_ended(&self.block) {
            self.learn(tenure, now);
            let ended = self.block;
            // As large as what was used of it: that is what can still be learnt.
            self.block = Block { left: 0, size: ended.size - ended.left, ..ended };
            return Some(ended);
        }
        has_ended(&self.spare).then(|| std::mem::take(&mut self.spare))
    }

    /// Whether something may have to be given back later.
    pub fn is_open(&self) -> bool {
        self.block.left > 0 || self.spare.left > 0
    }

    /// When the newer of the blocks ends that have something left.
    pub fn end(&self) -> Option<u64> {
        [self.spare, self.block].iter().find(|block| block.left > 0).map(|block| block.end)
    }

    /// Judges by the block in use how large the next one should be.
    fn learn(&mut self, tenure: Tenure, now: u64) {
        let Block { left, size, .. } = self.block;
        if size == 0 {
            return;
        }
        let elapsed = now.saturating_sub(self.since).max(1) as f64;
        let pace = f64::from(size - left) * tenure.held() * AIM / elapsed;
        // It grows by doubling: a short burst says little about what comes next.
        self.next = (pace as u32).min(size.saturating_mul(2));
    }
}

fn is_usable(block: &Block, now: u64) -> bool {
    block.left > 0 && now < block.end
}

fn left_over(block: Block) -> Option<Block> {
    (block.left > 0).then_some(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenure(quota: &str) -> Tenure {
        Tenure::of(Rate::of(quota.parse().unwrap()))
    }

    fn block(left: u32, end: u64) -> Block {
        Block { left, size: left, end, granted_at: 0 }
    }

    #[test]
    fn a_block_is_out_for_a_hundredth_of_the_period_at_most_and_one_of_several_requests_no_longer_than_a_second() {
        assert_eq!((tenure("100/15m").held(), tenure("100/15m").longest), (1e6, 9e6));
        assert_eq!((tenure("100/15m").used(2), tenure("100/15m").used(1)), (600_000, 5_400_000));
        assert_eq!((tenure("100/24h").used(2), tenure("100/24h").used(1)), (600_000, 6_000_000));
        assert_eq!(tenure("100/1m").held(), 600_000.0);
        assert_eq!(tenure("1000/1m").held(), 300_000.0);
        assert_eq!(tenure("1000/1s").held(), 5_000.0);
        assert!(tenure("1000/1s").used(1) < 5_000);
    }

    #[test]
    fn a_block_ends_with_its_last_request_or_its_time() {
        let tenure = tenure("1000/1m");
        let mut lease = Lease::default();
        assert_eq!(lease.take(tenure, 0), None);
        lease.put(block(2, 100), 0);
        assert_eq!((lease.take(tenure, 99), lease.left(99)), (Some(()), 1));
        assert_eq!((lease.take(tenure, 100), lease.left(100)), (None, 0));
        assert_eq!(lease.ended(tenure, 100).map(|block| block.left), Some(1));
        assert_eq!(lease.ended(tenure, 101), None, "it goes back once");
        lease.put(block(3, 200), 150);
        lease.put(block(5, 200), 150);
        assert_eq!((lease.ended(tenure, 199), lease.left(199)), (None, 8));
        let both: Vec<_> = (200..203).map(|now| lease.ended(tenure, now).map(|block| block.left)).collect();
        assert_eq!((both, lease.is_open()), (vec![Some(3), Some(5), None], false));
    }

    #[test]
    fn what_is_left_of_a_block_is_given_back_also_when_the_next_one_is_in_use_already() {
        let tenure = tenure("1000/1m");
        let mut lease = Lease::default();
        lease.put(block(3, 100), 0);
        lease.put(block(5, 200), 50);
        assert_eq!((lease.take(tenure, 100), lease.left(100)), (Some(()), 4));
        assert_eq!(lease.ended(tenure, 101).map(|block| block.left), Some(3));
        assert_eq!((lease.ended(tenure, 101), lease.left(101)), (None, 4));
    }

    #[test]
    fn a_fast_client_gets_larger_blocks_and_a_slow_one_a_request_at_a_time() {
        let tenure = Tenure { longest: 600_000.0, most: 1_000 };
        let (mut lease, mut now, mut sizes) = (Lease::default(), 0, Vec::new());
        for _ in 0..8 {
            let size = lease.next(tenure, now);
            sizes.push(size);
            lease.put(block(size, now + tenure.used(2)), now);
            while lease.take(tenure, now).is_some() {
                now += 1_000;
            }
        }
        assert_eq!(sizes, [1, 2, 4, 8, 16, 32, 64, 128]);
        assert!((120..=150).contains(&lease.next(tenure, now)), "at 1,000 a second, for 150 ms");
        lease.put(block(150, now + tenure.used(2)), now);
        for _ in 0..10 {
            assert!(lease.take(tenure, now).is_some());
            now += 100_000 / 10;
        }
        now += tenure.used(2);
        assert_eq!(lease.ended(tenure, now).map(|block| block.left), Some(140));
        assert!(lease.next(tenure, now) <= 3, "at 22 a second");
    }

    #[test]
    fn the_next_block_is_fetched_before_the_last_one_is_used_up() {
        let tenure = tenure("100000/1m");
        let mut lease = Lease::default();
        lease.put(block(8, tenure.used(2)), 0);
        let short: Vec<bool> = (1..=8)
            .map(|number| {
                assert!(lease.take(tenure, number).is_some());
                lease.is_short(tenure, number)
            })
            .collect();
        assert_eq!(short, [false, false, false, false, false, true, true, true]);
        let mut lease = Lease::default();
        lease.put(block(4, tenure.used(2)), 0);
        for _ in 0..3 {
            assert!(lease.take(tenure, 0).is_some());
        }
        assert!(lease.is_short(tenure, 10) && !lease.is_short(tenure, tenure.used(2) - 1), "one that is slow waits and sees");
        assert_eq!(lease.put(block(16, tenure.used(2)), 20), [None, None]);
        assert!(!lease.is_short(tenure, 20), "there is a spare");
        assert_eq!((0..20).filter(|_| lease.take(tenure, 30).is_some()).count(), 17);
    }
}
