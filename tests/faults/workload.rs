//! What clients do meanwhile, at a bounded rate: they write, each its own records, read what they wrote, and read whatever
//! there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::history::{Document, Question, Read, Shown, Source};
use super::stage::{Address, Answer, SERVERS, Stage};

/// Records that the writers have, each its own part of them. Fewer than a page holds, so that a list is whole.
const WRITTEN: usize = 90;
const WRITERS: usize = 3;
const READERS: usize = 4;

/// Records that are read more often than others.
const HOT: usize = 10;

/// Records whose changes are waited for, to measure how long it takes until another instance shows them.
const PROBED: usize = 4;

/// The one that no client writes: it is a scenario's own.
pub const SPARE: usize = WRITTEN + PROBED;
pub const RECORDS: usize = SPARE + 1;

pub const GROUPS: [&str; 3] = ["a", "b", "c"];
const WORDS: [&str; 5] = ["amber", "birch", "cedar", "dune", "ember"];

/// Two cores have to do this with debug builds, and are shared: about 100 requests a second for each of three servers.
const WRITE_EVERY: Duration = Duration::from_millis(90);
const READ_EVERY: Duration = Duration::from_millis(16);

/// Nothing that an instance or the database was asked to do may still be going on after so long. A record whose last
/// write has no answer rests meanwhile.
const REST: Duration = Duration::from_secs(3);

/// The clients.
pub struct Workload {
    stage: Arc<Stage>,
    is_over: Arc<AtomicBool>,
    tasks: JoinSet<Vec<Duration>>,
}

impl Workload {
    pub fn begin(stage: &Arc<Stage>) -> Self {
        let mut workload = Self { stage: Arc::clone(stage), is_over: Arc::default(), tasks: JoinSet::new() };
        for writer in 0..WRITERS {
            let client = workload.client();
            workload.tasks.spawn(async move { client.write(writer).await });
        }
        for _ in 0..READERS {
            let client = workload.client();
            workload.tasks.spawn(async move { client.read().await });
        }
        let client = workload.client();
        workload.tasks.spawn(async move { client.probe().await });
        workload
    }

    fn client(&self) -> Client {
        Client { stage: Arc::clone(&self.stage), is_over: Arc::clone(&self.is_over) }
    }

    /// How long it took each time until another instance showed a change.
    pub async fn end(mut self) -> Vec<Duration> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut delays = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            delays.extend(ended.unwrap());
        }
        delays
    }
}

/// One of them.
struct Client {
    stage: Arc<Stage>,
    is_over: Arc<AtomicBool>,
}

impl Client {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    async fn write(&self, writer: usize) -> Vec<Duration> {
        let mut pace = every(WRITE_EVERY);
        let mut resting: Vec<(usize, Instant)> = Vec::new();
        while !self.is_over() {
            pace.tick().await;
            let Some(to) = self.stage.any() else { continue };
            resting.retain(|(_, since)| since.elapsed() < REST);
            let mut own: Vec<usize> = (0..WRITTEN).filter(|record| record % WRITERS == writer).collect();
            own.retain(|record| !resting.iter().any(|(rests, _)| rests == record));
            fastrand::shuffle(&mut own);
            own.truncate(if fastrand::u8(..8) == 0 { fastrand::usize(2..6) } else { 1 });
            let answered = match own[..] {
                [] => continue,
                [record] => self.write_one(to, record).await,
                _ => self.write_batch(to, &own).await,
            };
            match answered {
                Some(answer) => self.read_back(to, own[0], answer.token.as_deref()).await,
                None => resting.extend(own.into_iter().map(|record| (record, Instant::now()))),
            }
        }
        Vec::new()
    }

    async fn write_one(&self, to: Address, record: usize) -> Option<Answer> {
        let last = self.stage.recorder.last(record);
        let is_certain = last.acknowledged.is_some();
        let document = self.document();
        let (sent, path) = (body(record, document), format!("/{}", name(record)));
        let (method, path, change, expected): (_, &str, _, &[u16]) = match (is_certain, last.document) {
            (true, Some(_)) => match fastrand::u8(..10) {
                0..5 => (Method::PATCH, &path, Some(document), &[200]),
                5..8 => (Method::PUT, &path, Some(document), &[200]),
                _ => (Method::DELETE, &path, None, &[204]),
            },
            (true, None) if fastrand::bool() => (Method::POST, "", Some(document), &[201]),
            (_, _) => (Method::PUT, &path, Some(document), &[200, 201]),
        };
        let sent = change.is_some().then_some(&sent);
        let begun = self.stage.recorder.begin(to.instance, &[(record, change)]);
        let answer = self.stage.send(to, method, path, None, sent, expected).await?;
        self.stage.recorder.acknowledge(&begun, answer.token.as_deref());
        Some(answer)
    }

    /// All or nothing.
    async fn write_batch(&self, to: Address, records: &[usize]) -> Option<Answer> {
        let (mut operations, mut changes) = (Vec::new(), Vec::new());
        for record in records {
            let last = self.stage.recorder.last(*record);
            if last.acknowledged.is_some() && last.document.is_some() && fastrand::u8(..5) == 0 {
                operations.push(json!({"op": "delete", "id": name(*record)}));
                changes.push((*record, None));
            } else {
                let document = self.document();
                operations.push(json!({"op": "upsert", "id": name(*record), "data": body(*record, document)}));
                changes.push((*record, Some(document)));
            }
        }
        let begun = self.stage.recorder.begin(to.instance, &changes);
        let sent = json!({"operations": operations});
        let answer = self.stage.send(to, Method::POST, "/_batch", None, Some(&sent), &[200]).await?;
        self.stage.recorder.acknowledge(&begun, answer.token.as_deref());
        Some(answer)
    }

    fn document(&self) -> Document {
        let (group, word) = (fastrand::usize(..GROUPS.len()), fastrand::usize(..WORDS.len()));
        Document { number: self.stage.number(), group: group as u8, word: word as u8 }
    }

    /// Reads what was just written: where it was, and elsewhere with the token.
    async fn read_back(&self, written: Address, record: usize, token: Option<&str>) {
        let (to, token) = match fastrand::u8(..4) {
            0 => (Some(written), None),
            1 | 2 => (self.stage.other_than(written.server), token),
            _ => return,
        };
        let Some(to) = to else { return };
        self.read_record(to, record, token).await;
        if let Some(document) = self.stage.recorder.last(record).document {
            self.read_list(to, Question::Group(document.group), token).await;
        }
    }

    async fn read(&self) -> Vec<Duration> {
        let mut pace = every(READ_EVERY);
        while !self.is_over() {
            pace.tick().await;
            let Some(to) = self.stage.any() else { continue };
            match fastrand::u8(..100) {
                0..30 => self.read_record(to, fastrand::usize(..RECORDS), None).await.map(drop),
                30..60 => self.read_record(to, fastrand::usize(..HOT), None).await.map(drop),
                60..80 => self.read_list(to, any_group(), None).await,
                80..84 => {
                    let recent = self.stage.number().saturating_sub(fastrand::u64(20..200));
                    self.read_list(to, Question::Since(recent / 64 * 64), None).await
                }
                84..92 => self.read_list(to, Question::Word(fastrand::u8(..WORDS.len() as u8)), None).await,
                _ => self.read_counts(to).await,
            };
        }
        Vec::new()
    }

    /// Changes a record that another instance has in its cache, and asks that one until it shows the change.
    async fn probe(&self) -> Vec<Duration> {
        let mut delays = Vec::new();
        let mut pace = every(Duration::from_millis(20));
        while !self.is_over() {
            pace.tick().await;
            let record = WRITTEN + fastrand::usize(..PROBED);
            let Some(to) = self.stage.any() else { continue };
            let Some(other) = self.stage.other_than(to.server) else { continue };
            self.read_record(other, record, None).await;
            let document = self.document();
            let begun = self.stage.recorder.begin(to.instance, &[(record, Some(document))]);
            let (path, sent) = (format!("/{}", name(record)), body(record, document));
            let Some(answer) = self.stage.send(to, Method::PUT, &path, None, Some(&sent), &[200, 201]).await else {
                tokio::time::sleep(REST).await;
                continue;
            };
            self.stage.recorder.acknowledge(&begun, answer.token.as_deref());
            let acknowledged = Instant::now();
            while !self.is_over() {
                let asked = Instant::now();
                match self.read_record(other, record, None).await {
                    Some(shown) if shown == Some(document.number) => {
                        delays.push(asked - acknowledged);
                        break;
                    }
                    Some(_) => tokio::time::sleep(Duration::from_millis(2)).await,
                    None => break,
                }
            }
        }
        delays
    }

    /// The number that it showed.
    async fn read_record(&self, to: Address, record: usize, token: Option<&str>) -> Option<Option<u64>> {
        let began = self.stage.recorder.now();
        let answer = self.stage.send(to, Method::GET, &format!("/{}", name(record)), token, None, &[200, 404]).await?;
        let number = (answer.status == 200).then(|| answer.body["tier"].as_u64().unwrap());
        self.note(began, token, &answer, Shown::Record { record, number });
        Some(number)
    }

    async fn read_list(&self, to: Address, question: Question, token: Option<&str>) -> Option<()> {
        let asked = match question {
            Question::Group(group) => format!("category={}", GROUPS[usize::from(group)]),
            Question::Word(word) => format!("q={}", WORDS[usize::from(word)]),
            Question::Since(number) => format!("filter[tier][gte]={number}"),
        };
        let began = self.stage.recorder.now();
        let path = format!("?{asked}&sort=-tier&limit=100");
        let answer = self.stage.send(to, Method::GET, &path, token, None, &[200]).await?;
        self.note(began, token, &answer, Shown::List { question, records: shown_records(&answer.body) });
        // The total may be another entry, of another time.
        let total = answer.body["pagination"]["total"].as_u64().unwrap();
        self.note(began, token, &answer, Shown::Count { question, total });
        Some(())
    }

    async fn read_counts(&self, to: Address) -> Option<()> {
        let began = self.stage.recorder.now();
        let answer = self.stage.send(to, Method::GET, "/_stats?by=category", None, None, &[200]).await?;
        let counts = answer.body["by"]["category"]["values"].as_array().unwrap();
        for (group, name) in GROUPS.into_iter().enumerate() {
            let count = counts.iter().find(|count| count["value"] == name);
            let total = count.map_or(0, |count| count["count"].as_u64().unwrap());
            self.note(began, None, &answer, Shown::Count { question: Question::Group(group as u8), total });
        }
        Some(())
    }

    fn note(&self, began: u64, token: Option<&str>, answer: &Answer, shown: Shown) {
        let source = match answer.cache.as_str() {
            "HIT" => Source::Hit,
            "STALE" => Source::Stale,
            "BYPASS" => Source::Bypass,
            _ => Source::Miss,
        };
        let (ended, token) = (self.stage.recorder.now(), token.map(str::to_owned));
        self.stage.recorder.read(Read { began, ended, instance: answer.instance, token, source, shown });
    }
}

/// The records of a page in its order, with their numbers.
pub fn shown_records(page: &Value) -> Vec<(usize, u64)> {
    let records = page["data"].as_array().unwrap();
    records.iter().map(|record| (index(record["sku"].as_str().unwrap()), record["tier"].as_u64().unwrap())).collect()
}

fn any_group() -> Question {
    Question::Group(fastrand::u8(..GROUPS.len() as u8))
}

/// The id of a record.
pub fn name(record: usize) -> String {
    format!("R{record:03}")
}

/// The record of an id.
pub fn index(name: &str) -> usize {
    name[1..].parse().unwrap()
}

pub fn body(record: usize, document: Document) -> Value {
    let (category, word) = (GROUPS[usize::from(document.group)], WORDS[usize::from(document.word)]);
    json!({"sku": name(record), "name": format!("A thing of {word}"), "category": category, "tier": document.number})
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut pace = tokio::time::interval(period);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

/// Every question that readers ask of what there is at last.
pub fn questions() -> Vec<Question> {
    let groups = (0..GROUPS.len()).map(|group| Question::Group(group as u8));
    groups.chain((0..WORDS.len()).map(|word| Question::Word(word as u8))).chain([Question::Since(0)]).collect()
}

/// Clients that only read, of each server by its number.
pub async fn read_everything(stage: &Arc<Stage>) {
    let client = Client { stage: Arc::clone(stage), is_over: Arc::default() };
    for to in (0..SERVERS).map(|server| stage.address(server).unwrap()) {
        for record in 0..RECORDS {
            client.read_record(to, record, None).await;
        }
        for question in questions() {
            client.read_list(to, question, None).await;
        }
        client.read_counts(to).await;
    }
}
