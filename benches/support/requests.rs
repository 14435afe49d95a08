//! Requests made from a seed: the same seed gives the same requests in the same order. Reads follow Zipf's law, and so do the
//! records that writes pick: what is read most is written most.

use serde_json::Value;

use super::corpus::{self, MEASURES, SUBJECTS, TAGS};

/// Of a hundred requests.
const WRITES: u8 = 5;
/// Of a hundred reads; the rest are lists and then searches.
const RECORDS: u8 = 80;
const LISTS: u8 = 15;
/// The exponent that is usual for caches (YCSB): the second is read about half as often as the first.
const EXPONENT: f64 = 0.99;

/// One request.
pub enum Request {
    /// Of one record, by its id.
    Record(String),
    /// A page of a filter, by its query string.
    List(String),
    /// A search, by its query string.
    Search(String),
    /// A merge patch of one field of a record.
    Write(String, Value),
}

/// An endless sequence of requests.
pub struct Requests {
    random: fastrand::Rng,
    sort: &'static str,
    records: Zipf<usize>,
    filters: Zipf<String>,
    searches: Zipf<String>,
}

impl Requests {
    /// Requests to `count` records of the corpus; lists are sorted by `sort`, by default if it is empty.
    pub fn new(seed: u64, count: usize, sort: &'static str) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let records = Zipf::shuffled((0..count).collect(), &mut random);
        let filters = Zipf::shuffled(filters(), &mut random);
        let searches = Zipf::shuffled(searches(), &mut random);
        Self { random, sort, records, filters, searches }
    }

    /// Four of five lists filter by one field, the others by two; a fifth is not the first page.
    fn list(&mut self) -> String {
        let mut query = self.filters.pick(&mut self.random).clone();
        if self.random.u8(0..5) == 0 {
            let second = format!("deprecated={}", self.random.bool());
            query = format!("{query}&{second}");
        }
        if !self.sort.is_empty() {
            query = format!("{query}&sort={}", self.sort);
        }
        match self.random.u8(0..20) {
            0 => query + "&page=3",
            1..=3 => query + "&page=2",
            _ => query,
        }
    }
}

impl Iterator for Requests {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        let id = corpus::metric_id(*self.records.pick(&mut self.random));
        if self.random.u8(0..100) < WRITES {
            return Some(Request::Write(id, corpus::patch(&mut self.random)));
        }
        Some(match self.random.u8(0..100) {
            read if read < RECORDS => Request::Record(id),
            read if read < RECORDS + LISTS => Request::List(self.list()),
            _ => Request::Search(self.searches.pick(&mut self.random).clone()),
        })
    }
}

/// Each value of each filtered field: 3, 3, 20, 28 and 50 values.
fn filters() -> Vec<String> {
    let numbered = |name: &'static str, count: usize| (0..count).map(move |number| format!("{name}-{number:02}"));
    let categories = corpus::CATEGORIES.iter().map(|category| format!("category={category}"));
    let tiers = (1..=3).map(|tier| format!("tier={tier}"));
    let tags = TAGS.iter().map(|tag| format!("tags={tag}"));
    let domains = numbered("business_domain=domain", 28);
    categories.chain(tiers).chain(tags).chain(domains).chain(numbered("owner=team", 50)).collect()
}

/// Each subject, each measure, and each pair of them.
fn searches() -> Vec<String> {
    let single = SUBJECTS.iter().chain(&MEASURES).map(|word| format!("q={word}"));
    let pairs = SUBJECTS.iter().flat_map(|subject| MEASURES.iter().map(move |measure| format!("q={subject}+{measure}")));
    single.chain(pairs).collect()
}

/// Values of which the `n`th is picked in proportion to `n` to the power of minus [`EXPONENT`].
struct Zipf<T> {
    values: Vec<T>,
    /// The sum of the weights up to each value.
    sums: Vec<f64>,
}

impl<T> Zipf<T> {
    fn shuffled(mut values: Vec<T>, random: &mut fastrand::Rng) -> Self {
        random.shuffle(&mut values);
        let mut sum = 0.0;
        let mut sums = Vec::with_capacity(values.len());
        for rank in 1..=values.len() {
            sum += (rank as f64).powf(-EXPONENT);
            sums.push(sum);
        }
        Self { values, sums }
    }

    fn pick(&self, random: &mut fastrand::Rng) -> &T {
        let at = random.f64() * self.sums[self.sums.len() - 1];
        let rank = self.sums.partition_point(|sum| *sum <= at);
        &self.values[rank.min(self.values.len() - 1)]
    }
}
