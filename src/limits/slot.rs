//! What this process knows of one bucket, and what it decides by that alone. It knows no clock and no Redis: both are told.

use std::time::Duration;

use tokio::sync::oneshot;

use super::gcra::{Meter, Rate};
use super::lease::{Block, Lease, Tenure};
use super::tier::{BucketName, Grant, Order};

/// Plenty is left where this part of a quota is.
const PLENTY: f64 = 4.0;
/// Where a quota has fewer requests for each instance, none is leased to be at hand: together they would lack elsewhere.
const AT_HAND: u32 = 20;

/// How a caller stands with a quota after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether the request may pass.
    pub verdict: Verdict,
    /// How many more may, for all that is known.
    pub left: u32,
    /// How long it is until the whole quota is there again.
    pub whole_in: Duration,
}

/// Whether a request may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Passes,
    /// Not before this time is over.
    Waits(Duration),
}

/// One bucket. Those of an installation without Redis are no more than a meter.
#[derive(Default)]
pub(super) struct Slot {
    /// What was passed without asking the shared bucket, because there is none or it is away.
    meter: Meter,
    shared: Option<Box<Shared>>,
}

/// A bucket that all instances share.
pub(super) struct Sharing<'a> {
    meter: &'a mut Meter,
    pub shared: &'a mut Shared,
}

/// What is known of a bucket that all instances share.
pub(super) struct Shared {
    bucket: BucketName,
    rate: Rate,
    tenure: Tenure,
    precision: Precision,
    lease: Lease,
    /// Where the lease was granted; it can be given back nowhere else.
    server: u64,
    /// How many requests the bucket had left, and when it said so.
    left: u32,
    left_at: u64,
    /// Until then the bucket has said no.
    refused_until: u64,
    counting: Counting,
    /// How many were passed, ahead or by the meter, that the bucket does not know of.
    passed: u32,
    /// Who waits for what the bucket will say. None while it is not asked.
    waiting: Option<Vec<oneshot::Sender<Standing>>>,
}

/// Whether the bucket is asked for every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precision {
    /// It is.
    Exact,
    /// Blocks are leased.
    Leased,
}

/// Who counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counting {
    /// The shared bucket.
    Bucket,
    /// The meter, while the shared bucket is away.
    Meter,
}

/// What a slot can say of a request at once.
pub(super) enum Answer {
    /// What becomes of it.
    Known(Standing),
    /// The same, and a block has to be fetched behind it.
    Short(Standing),
    /// The bucket has to be asked.
    Unknown,
}

/// What is left to do after the bucket has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing.
    Nothing,
    /// Others wait for more.
    AskAgain,
}

impl Slot {
    /// With its shared side, which is made with the first use.
    pub fn sharing(&mut self, make: impl FnOnce() -> Shared) -> Sharing<'_> {
        Sharing { meter: &mut self.meter, shared: self.shared.get_or_insert_with(|| Box::new(make())) }
    }

    /// The same, if there is one.
    pub fn known(&mut self) -> Option<Sharing<'_>> {
        Some(Sharing { meter: &mut self.meter, shared: self.shared.as_deref_mut()? })
    }

    /// Decides by the meter with the whole quota.
    pub fn take_alone(&mut self, rate: Rate, now: u64) -> Standing {
        let verdict = self.meter.take(rate, now);
        standing(verdict, rate, rate.room(self.meter.backlog(now)))
    }

    /// Whether all that is known is what a new one would know.
    pub fn is_idle(&self, now: u64) -> bool {
        match &self.shared {
            None => self.meter.backlog(now) <= 0.0,
            Some(shared) => shared.is_idle(self.meter.backlog(now), now),
        }
    }

    /// Whether somebody waits for what the bucket will say.
    pub fn is_awaited(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.waiting.is_some())
    }
}

impl Sharing<'_> {
    /// Decides by the meter with the share of one of `instances`.
    pub fn take_share(&mut self, instances: u32, now: u64) -> Standing {
        let Self { meter, shared } = self;
        let rate = shared.rate.share(instances);
        if shared.counting == Counting::Bucket {
            shared.counting = Counting::Meter;
            let left = shared.estimate(now) - f64::from(shared.passed);
            // A quota smaller than the number of instances still lets somebody in.
            let share = if left < 1.0 { 0.0 } else { (left / f64::from(instances.max(1))).max(1.0) };
            **meter = Meter::with(rate.backlog(share), now);
        }
        let verdict = meter.take(rate, now);
        if verdict.is_ok() {
            shared.passed = shared.passed.saturating_add(1);
        }
        standing(verdict, rate, rate.room(meter.backlog(now)))
    }
}

impl Shared {
    pub fn new(bucket: BucketName, rate: Rate, tenure: Tenure, precision: Precision) -> Self {
        Self {
            bucket,
            rate,
            tenure,
            precision,
            lease: Lease::default(),
            server: 0,
            left: rate.requests(),
            left_at: 0,
            refused_until: 0,
            counting: Counting::Bucket,
            passed: 0,
            waiting: None,
        }
    }

    /// Decides by the lease, and by what the bucket has said.
    pub fn answer(&mut self, instances: u32, now: u64) -> Answer {
        if self.lease.take(self.tenure, now).is_some() {
            let standing = standing(Ok(()), self.rate, self.left.saturating_add(self.lease.left(now)));
            return if self.waiting.is_none() && self.is_short(instances, now) {
                Answer::Short(standing)
            } else {
                Answer::Known(standing)
            };
        }
        match self.refused_until.checked_sub(now).filter(|wait| *wait > 0) {
            Some(wait) if self.is_refused(now) => Answer::Known(standing(Err(Duration::from_micros(wait)), self.rate, 0)),
            Some(_) | None => Answer::Unknown,
        }
    }

    /// Whether the bucket's last refusal still stands. What others have leased may come back before it said.
    fn is_refused(&self, now: u64) -> bool {
        match self.precision {
            Precision::Exact => true,
            Precision::Leased => now < self.left_at.saturating_add(self.tenure.used(1)),
        }
    }

    /// Somebody waits. Says whether nobody has asked yet.
    pub fn wait(&mut self) -> (oneshot::Receiver<Standing>, Rest) {
        let (sender, receiver) = oneshot::channel();
        let rest = self.begin();
        if let Some(waiting) = &mut self.waiting {
            waiting.push(sender);
        }
        (receiver, rest)
    }

    /// The bucket is about to be asked. Says whether nobody does yet.
    pub fn begin(&mut self) -> Rest {
        if self.waiting.is_some() {
            return Rest::Nothing;
        }
        self.waiting = Some(Vec::new());
        Rest::AskAgain
    }

    /// What to ask the bucket for, on this server; `None` if nobody needs anything any more.
    pub fn order(&mut self, server: u64, instances: u32, now: u64) -> Option<Order> {
        let waiting = self.waiting.as_mut()?;
        // Those whose client has gone are not counted.
        waiting.retain(|waiting| !waiting.is_closed());
        let waiting = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
        let asked = match self.precision {
            Precision::Exact => waiting,
            Precision::Leased => self.block(waiting, instances, now).max(waiting),
        };
        if asked == 0 && self.passed == 0 {
            self.waiting = None;
            return None;
        }
        let Self { bucket, rate, tenure, passed, .. } = *self;
        Some(Order { bucket, rate, tenure, asked, waiting, passed, returned: self.ended(server, now) })
    }

    /// How large a block to ask for. Who is slow is passed ahead, one request at a time, and needs none. Nor does who has one that has
    /// only begun, and tells what was passed ahead of it: nothing could be learnt of it yet, and a small one behind it would be all
    /// that the one after that could grow from. Who comes back soon after one was used up gets one more than those who `wait` need.
    fn block(&mut self, waiting: u32, instances: u32, now: u64) -> u32 {
        let is_short = self.is_short(instances, now);
        if self.lease.left(now) > 0 && !is_short {
            return 0;
        }
        let next = self.lease.next(self.tenure, now);
        let least = if is_short { waiting.saturating_add(1) } else { 0 };
        if next > 1 || self.passed > 1 { next.max(self.passed).max(least) } else { least }
    }

    /// Whether the next block should be fetched before somebody waits for it. Where the bucket has little left, only fast callers
    /// need one: what is out may be missed elsewhere. 0 `instances` are not known yet.
    fn is_short(&self, instances: u32, now: u64) -> bool {
        let is_enough = || self.rate.requests().checked_div(instances).is_some_and(|each| each >= AT_HAND);
        self.lease.is_short(self.tenure, now) || (self.lease.is_out(self.tenure, now) && is_enough() && self.has_plenty(now))
    }

    fn has_plenty(&self, now: u64) -> bool {
        self.estimate(now) - f64::from(self.passed) >= f64::from(self.rate.requests()) / PLENTY
    }

    /// Lets a request pass that the bucket will be told of behind the answer, if no more than `credit` are that it does not
    /// know of, and plenty was left when it last answered. The bucket counts them all, also beyond its quota, so what passes is
    /// never more than the quota and the credits of all instances.
    pub fn ahead(&mut self, credit: u32, now: u64) -> Option<Standing> {
        let has_answered = self.left_at > 0;
        if !has_answered
            || self.passed >= credit
            || self.precision == Precision::Exact
            || self.counting == Counting::Meter
            || !self.has_plenty(now)
        {
            return None;
        }
        self.passed += 1;
        let left = self.estimate(now) - f64::from(self.passed);
        Some(standing(Ok(()), self.rate, left as u32))
    }

    /// Passes on what the bucket has granted, which was asked for at `asked_at`, to those who wait; the rest is leased.
    pub fn settle(&mut self, order: &Order, grant: Grant, server: u64, asked_at: u64, now: u64) -> (Rest, [Option<Order>; 2]) {
        self.counting = Counting::Bucket;
        self.passed = self.passed.saturating_sub(order.passed);
        (self.left, self.left_at) = (grant.left, now);
        let is_dry = grant.granted < order.asked.max(1) && grant.left == 0;
        // From before the question: better too early than later than the bucket itself.
        self.refused_until = if is_dry { asked_at.saturating_add(grant.wait) } else { 0 };
        let mut waiting = self.waiting.take().unwrap_or_default().into_iter();
        let mut left = grant.granted;
        // Only those who waited when the question was asked: for others the grant may be too old to count.
        for _ in 0..order.waiting {
            let Some(one) = (if left > 0 { waiting.next() } else { None }) else { break };
            let passes = standing(Ok(()), self.rate, grant.left.saturating_add(left - 1));
            // What somebody would have got who has gone meanwhile is for the next one.
            left -= u32::from(one.send(passes).is_ok());
        }
        let returned = self.lease(left, grant, server, asked_at, now);
        if is_dry {
            let refused = standing(Err(Duration::from_micros(grant.wait)), self.rate, 0);
            // Who has gone does not want to know.
            for one in waiting.by_ref() {
                let _ = one.send(refused);
            }
        }
        while waiting.len() > 0 && self.lease.take(self.tenure, now).is_some() {
            let passes = standing(Ok(()), self.rate, grant.left.saturating_add(self.lease.left(now)));
            let _ = waiting.next().map(|one| one.send(passes));
        }
        let waiting: Vec<_> = waiting.collect();
        let rest = if waiting.is_empty() && self.passed == 0 { Rest::Nothing } else { Rest::AskAgain };
        self.waiting = (rest == Rest::AskAgain).then_some(waiting);
        (rest, returned)
    }

    /// Keeps what is left of a grant for those who come. Returns what is to be given back of blocks that it replaces.
    fn lease(&mut self, left: u32, grant: Grant, server: u64, asked_at: u64, now: u64) -> [Option<Order>; 2] {
        if self.precision == Precision::Exact || grant.granted == 0 {
            return [None; 2];
        }
        if self.server != server {
            // What another one granted goes back nowhere, and counts here no more.
            (self.lease, self.server) = (Lease::default(), server);
        }
        let end = asked_at.saturating_add(self.tenure.used(left));
        let replaced = self.lease.put(Block { left, size: grant.granted, end, granted_at: grant.granted_at }, now);
        replaced.map(|block| block.map(|block| self.giving_back(block)))
    }

    /// Those who wait, if the bucket cannot be asked.
    pub fn give_up(&mut self) -> Vec<oneshot::Sender<Standing>> {
        self.waiting.take().unwrap_or_default()
    }

    /// What is to be given back to this server by now, if nothing else is asked for.
    pub fn returning(&mut self, server: u64, now: u64) -> [Option<Order>; 2] {
        [self.ended(server, now), self.ended(server, now)].map(|block| block.map(|block| self.giving_back(block)))
    }

    /// When the block that was leased last has ended, if something is left of it now.
    pub fn end(&self) -> Option<u64> {
        self.lease.end()
    }

    fn giving_back(&self, block: Block) -> Order {
        let Self { bucket, rate, tenure, .. } = *self;
        Order { bucket, rate, tenure, asked: 0, waiting: 0, passed: 0, returned: Some(block) }
    }

    /// What is left of a block that has ended, if this server granted it.
    fn ended(&mut self, server: u64, now: u64) -> Option<Block> {
        self.lease.ended(self.tenure, now).filter(|_| self.server == server)
    }

    /// How many requests the bucket has left by now, for all that is known here.
    fn estimate(&self, now: u64) -> f64 {
        let since = now.saturating_sub(self.left_at) as f64;
        (f64::from(self.left) + since / self.rate.interval).min(self.rate.capacity / self.rate.interval)
    }

    fn is_idle(&self, backlog: f64, now: u64) -> bool {
        let is_whole = match self.counting {
            Counting::Bucket => self.estimate(now) >= f64::from(self.rate.requests()),
            Counting::Meter => backlog <= 0.0,
        };
        is_whole && self.waiting.is_none() && !self.lease.is_open() && self.refused_until <= now
    }
}

fn standing(verdict: Result<(), Duration>, rate: Rate, left: u32) -> Standing {
    let verdict = verdict.map_or_else(Verdict::Waits, |()| Verdict::Passes);
    let missing = f64::from(rate.requests().saturating_sub(left)) * rate.interval;
    Standing { verdict, left, whole_in: Duration::from_micros(missing as u64) }
}

#[cfg(test)]
mod tests;
