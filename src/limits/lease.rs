//! What one instance holds of one bucket: a block of requests that the shared bucket has granted already, to be passed on
//! without asking again. It knows no clock and no Redis.
//!
//! **How far leases may lead beyond a quota.** A request passes at most [`Tenure::held`] after the bucket counted it, so in
//! any stretch of time pass no more requests than a single bucket counts in that time and [`Tenure::held`] before it: what
//! comes back to the quota in a hundredth of its period is a hundredth of the quota, for any number of instances and
//! blocks of any size. Blocks are given back, so that clients who pause lose nothing; but while one was out, the bucket may
//! have been full, and what came back to it meanwhile been lost had the block never been taken. So of each block as much
//! is kept as comes back in the time that it was out (`held` in the script): with that the bound is the same. (Let `x`
//! be what bucket and open blocks hold above the quota. It grows by what comes back, only while some block is out, and
//! closing block `i` makes it smaller by what came back since `i` was granted, or by all that is left of `i`. By induction
//! over the events, with open blocks in the order in which they were granted, `x` is at most what is left of the first
//! `i - 1` together with what came back since `i` was granted, for each `i`; so for the first.)

use super::gcra::Rate;

/// One in so many requests of a quota may be passed ahead, by all instances together: before the bucket is told. It counts
/// them beyond the quota, so they are no more than that at any time.
pub(super) const CREDIT: u32 = 200;
/// How long a block may be held, at most.
const LONGEST: f64 = 1e6;
/// Of the time that a block may be out, how much it is used; the rest is for giving it back.
const USED: f64 = 0.6;
/// Within how much of that time a block of the right size is used up. The smaller, the fewer blocks end with something left
/// in them, and the more often the server is asked.
const AIM: f64 = 0.25;

/// For how long blocks of a quota are out, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tenure {
    /// After this what is left of a block can no longer be given back: a hundredth of the period or half of that, at most a
    /// second.
    pub held: f64,
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
        Self { held: (rate.capacity / parts).min(LONGEST), most: (rate.requests() / 16).max(1) }
    }

    /// How long a block is used.
    pub fn used(self) -> u64 {
        (self.held * USED) as u64
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
            (self.block, self.spare, self.since) = (self.spare, Block::default(), now);
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
        size >= 4 && left <= size / 4 && self.spare.left == 0 && ((now - self.since.min(now)) as f64) < tenure.held * USED / 2.0
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

    /// What is left of blocks that have ended, once.
    pub fn ended(&mut self, tenure: Tenure, now: u64) -> [Option<Block>; 2] {
        let mut take = |block: fn(&mut Self) -> &mut Block| {
            let ended = *block(self);
            if ended.left == 0 || now < ended.end {
                return None;
            }
            self.learn(tenure, now);
            // As large as what was used of it: that is what can still be learnt.
            *block(self) = Block { left: 0, size: ended.size - ended.left, ..ended };
            Some(ended)
        };
        [take(|lease| &mut lease.block), take(|lease| &mut lease.spare)]
    }

    /// Whether something may have to be given back later.
    pub fn is_open(&self) -> bool {
        self.block.left > 0 || self.spare.left > 0
    }

    /// Judges by the block in use how large the next one should be.
    fn learn(&mut self, tenure: Tenure, now: u64) {
        let Block { left, size, .. } = self.block;
        if size == 0 {
            return;
        }
        let elapsed = now.saturating_sub(self.since).max(1) as f64;
        let pace = f64::from(size - left) * tenure.held * AIM / elapsed;
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
    fn a_block_is_out_for_a_hundredth_of_the_period_at_most_and_no_longer_than_a_second() {
        assert_eq!(tenure("100/15m").held, 1e6);
        assert_eq!(tenure("100/1m").held, 600_000.0);
        assert_eq!(tenure("1000/1m").held, 300_000.0);
        assert_eq!(tenure("1000/1s").held, 5_000.0);
        assert!(tenure("1000/1s").used() < 5_000);
    }

    #[test]
    fn a_block_ends_with_its_last_request_or_its_time() {
        let tenure = tenure("1000/1m");
        let mut lease = Lease::default();
        assert_eq!(lease.take(tenure, 0), None);
        lease.put(block(2, 100), 0);
        assert_eq!((lease.take(tenure, 99), lease.left(99)), (Some(()), 1));
        assert_eq!((lease.take(tenure, 100), lease.left(100)), (None, 0));
        let [ended, none] = lease.ended(tenure, 100);
        assert_eq!((ended.map(|block| block.left), none), (Some(1), None));
        assert_eq!(lease.ended(tenure, 101), [None, None], "it goes back once");
    }

    #[test]
    fn a_fast_client_gets_larger_blocks_and_a_slow_one_a_request_at_a_time() {
        let tenure = Tenure { held: 600_000.0, most: 1_000 };
        let (mut lease, mut now, mut sizes) = (Lease::default(), 0, Vec::new());
        for _ in 0..8 {
            let size = lease.next(tenure, now);
            sizes.push(size);
            lease.put(block(size, now + tenure.used()), now);
            while lease.take(tenure, now).is_some() {
                now += 1_000;
            }
        }
        assert_eq!(sizes, [1, 2, 4, 8, 16, 32, 64, 128]);
        assert!((120..=150).contains(&lease.next(tenure, now)), "at 1,000 a second, for 150 ms");
        lease.put(block(150, now + tenure.used()), now);
        for _ in 0..10 {
            assert!(lease.take(tenure, now).is_some());
            now += 100_000 / 10;
        }
        now += tenure.used();
        assert_eq!(lease.ended(tenure, now)[0].map(|block| block.left), Some(140));
        assert!(lease.next(tenure, now) <= 3, "at 22 a second");
    }

    #[test]
    fn the_next_block_is_fetched_before_the_last_one_is_used_up() {
        let tenure = tenure("100000/1m");
        let mut lease = Lease::default();
        lease.put(block(8, tenure.used()), 0);
        let short: Vec<bool> = (1..=8)
            .map(|number| {
                assert!(lease.take(tenure, number).is_some());
                lease.is_short(tenure, number)
            })
            .collect();
        assert_eq!(short, [false, false, false, false, false, true, true, true]);
        let mut lease = Lease::default();
        lease.put(block(4, tenure.used()), 0);
        for _ in 0..3 {
            assert!(lease.take(tenure, 0).is_some());
        }
        assert!(lease.is_short(tenure, 10) && !lease.is_short(tenure, tenure.used() - 1), "one that is slow waits and sees");
        assert_eq!(lease.put(block(16, tenure.used()), 20), [None, None]);
        assert!(!lease.is_short(tenure, 20), "there is a spare");
        assert_eq!((0..20).filter(|_| lease.take(tenure, 30).is_some()).count(), 17);
    }
}
