//! What clients did and saw, on one clock. Each record is written by one client at a time, so its states have an order
//! that needs no guessing; who reads, reads whatever it likes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Microseconds since the run began.
pub type Micros = u64;

/// A server process. One that is started again is another one.
pub type Instance = usize;

/// Who writes past all servers; and before the first write there was no record, for everybody.
pub const NOBODY: Instance = usize::MAX;

/// What a writer put into a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document {
    /// Unique in the run, and larger with each write.
    pub number: u64,
    pub group: u8,
    pub word: u8,
}

/// What a record was from one write to the next.
#[derive(Clone, Debug)]
pub struct State {
    /// `None` after a deletion.
    pub document: Option<Document>,
    pub began: Micros,
    /// When its writer had the answer; `None` if there was none, and it may or may not have happened.
    pub acknowledged: Option<Micros>,
    pub instance: Instance,
    pub token: Option<String>,
}

/// What a list, a search or a count asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    Group(u8),
    Word(u8),
    /// Numbers from this one on.
    Since(u64),
}

impl Question {
    pub fn includes(self, document: Document) -> bool {
        match self {
            Self::Group(group) => document.group == group,
            Self::Word(word) => document.word == word,
            Self::Since(number) => document.number >= number,
        }
    }
}

/// What an answer showed. Records are named by their index, documents by their number.
#[derive(Clone, Debug)]
pub enum Shown {
    Record { record: usize, number: Option<u64> },
    List { question: Question, records: Vec<(usize, u64)> },
    Count { question: Question, total: u64 },
}

/// `X-Cache`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Hit,
    Miss,
    Stale,
    Bypass,
}

/// One answered read.
#[derive(Clone, Debug)]
pub struct Read {
    pub began: Micros,
    pub ended: Micros,
    pub instance: Instance,
    /// What the request said that it knows.
    pub token: Option<String>,
    pub source: Source,
    pub shown: Shown,
}

/// All that happened.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// By record; each begins with a state without a document.
    pub records: Vec<Vec<State>>,
    pub reads: Vec<Read>,
    /// Answers that are wrong whatever was written.
    pub problems: Vec<String>,
    pub refusals: usize,
}

impl History {
    pub fn new(records: usize) -> Self {
        let absent = State { document: None, began: 0, acknowledged: Some(0), instance: NOBODY, token: None };
        Self { records: vec![vec![absent]; records], ..Self::default() }
    }
}

/// A history in the making. The lock is held for moments and never across an await.
pub struct Recorder {
    start: Instant,
    history: Mutex<History>,
}

/// A write that was begun: which states it makes.
pub struct Begun(Vec<(usize, usize)>);

impl Recorder {
    pub fn new(records: usize) -> Self {
        Self { start: Instant::now(), history: Mutex::new(History::new(records)) }
    }

    pub fn now(&self) -> Micros {
        u64::try_from(self.start.elapsed().as_micros()).unwrap()
    }

    /// Call it before the request is sent.
    pub fn begin(&self, instance: Instance, changes: &[(usize, Option<Document>)]) -> Begun {
        let mut history = self.lock();
        let began = self.now();
        let state = |document: &Option<Document>| State { document: *document, began, acknowledged: None, instance, token: None };
        Begun(
            changes
                .iter()
                .map(|(record, document)| {
                    history.records[*record].push(state(document));
                    (*record, history.records[*record].len() - 1)
                })
                .collect(),
        )
    }

    /// Call it when the answer has been read.
    pub fn acknowledge(&self, Begun(states): &Begun, token: Option<&str>) {
        let mut history = self.lock();
        let now = self.now();
        for (record, index) in states {
            let state = &mut history.records[*record][*index];
            (state.acknowledged, state.token) = (Some(now), token.map(str::to_owned));
        }
    }

    /// Takes what `stored` shows of an instance that has ended for acknowledged: nobody else could know it better.
    pub fn acknowledge_what_is(&self, instance: Instance, stored: impl Fn(usize) -> Option<u64>) -> usize {
        let mut history = self.lock();
        let now = self.now();
        let mut count = 0;
        for (record, states) in history.records.iter_mut().enumerate() {
            let state = states.last_mut().unwrap();
            let is_stored = state.document.map(|document| document.number) == stored(record);
            if state.acknowledged.is_none() && state.instance == instance && is_stored {
                state.acknowledged = Some(now);
                count += 1;
            }
        }
        count
    }

    pub fn read(&self, read: Read) {
        self.lock().reads.push(read);
    }

    pub fn problem(&self, problem: String) {
        self.lock().problems.push(problem);
    }

    pub fn refused(&self) {
        self.lock().refusals += 1;
    }

    /// The last state of a record.
    pub fn last(&self, record: usize) -> State {
        self.lock().records[record].last().unwrap().clone()
    }

    /// What has happened until now.
    pub fn so_far(&self) -> History {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
