//! What goes on beside requests: blocks that have ended are given back, the instance says that it lives, idle buckets are
//! forgotten, and the log is told who counts.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::quotas::{Inner, Quotas, lock};
use super::tier::{Order, Tier};
use crate::redis_client::Link;
use crate::telemetry::Told;

/// How often blocks are given back.
const TICK: Duration = Duration::from_millis(50);
/// How often the instance says that it lives, in ticks.
const PRESENCE: u32 = 20;
/// How often idle buckets are forgotten, in ticks.
const FORGET: u32 = 200;
/// For how many ticks the shared buckets may be out of reach before the log is told: the first link takes a moment.
const TOLD_AFTER: u32 = 10;
/// Blocks that go back in one round trip.
const BATCH: usize = 128;

impl Quotas {
    /// Keeps the books until the task is aborted.
    pub async fn keep(self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut told, mut away) = (Told::default(), 0_u32);
        for number in 0_u32.. {
            ticks.tick().await;
            if number % FORGET == 0 {
                self.0.table.forget_idle(self.0.now());
                self.0.metrics.buckets.set(i64::try_from(self.0.table.len()).unwrap_or(i64::MAX));
            }
            let Some(tier) = self.0.tier.get() else { continue };
            let link = self.0.link(tier, self.0.now());
            match &link {
                Some(link) => {
                    self.0.give_back(tier, link).await;
                    if number % PRESENCE == 0 {
                        self.0.appear(tier, link).await;
                    }
                }
                None => lock(&self.0.returns).clear(),
            }
            away = if link.is_some() && !self.0.is_failing() { 0 } else { away.saturating_add(1) };
            self.0.tell(&mut told, away);
        }
    }
}

impl Inner {
    async fn give_back(&self, tier: &Tier, link: &Link) {
        let (now, server) = (self.now(), link.server());
        let mut orders = std::mem::take(&mut *lock(&self.returns));
        while let Some(key) = self.ended(now) {
            let returned = self.table.with_known(key, |slot| Some(slot.known()?.shared.returning(server, now)));
            orders.extend(returned.flatten().into_iter().flatten().flatten());
        }
        for batch in orders.chunks(BATCH) {
            if tier.order(link, batch).await.is_err() {
                // It is lost to the clients; the buckets fill up again by themselves.
                return self.pause();
            }
            let returned = batch.iter().filter_map(|order: &Order| order.returned);
            self.metrics.returned.inc_by(returned.map(|block| u64::from(block.left)).sum());
        }
    }

    /// A bucket one of whose blocks has ended, unless it was used up.
    fn ended(&self, now: u64) -> Option<u128> {
        let mut open = lock(&self.open);
        let is_over = open.peek().is_some_and(|Reverse((end, _))| *end <= now);
        if is_over { open.pop().map(|Reverse((_, key))| key) } else { None }
    }

    async fn appear(&self, tier: &Tier, link: &Link) {
        match tier.appear(link).await {
            Ok(instances) => {
                self.go_on();
                self.instances.store(instances.max(1), Ordering::Relaxed);
                self.present.store(instances.max(1), Ordering::Relaxed);
                self.metrics.instances.set(instances.into());
            }
            Err(_) => self.pause(),
        }
    }

    /// `away` is for how many ticks the shared buckets have not been in reach.
    fn tell(&self, told: &mut Told, away: u32) {
        self.metrics.is_local.set(i64::from(away > 0));
        let instances = self.instances.load(Ordering::Relaxed);
        if away >= TOLD_AFTER && told.is_due("away", Instant::now()) {
            tracing::warn!(instances, "the quotas in Redis are out of reach; this instance enforces its share of them alone");
        }
        if away == 0 && told.has_told("away") && told.is_due("back", Instant::now()) {
            tracing::info!(instances, "the quotas in Redis are in reach again");
        }
    }
}
