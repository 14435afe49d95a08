//! Batches: documents that are written in one transaction, with the lines they stand on.

use serde_json::Value;

use super::Documents;
use super::lines::Content;

/// A batch ends early when its lines have this many bytes: large documents must not fill the memory.
const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;

/// Why nothing more can be read.
#[derive(Debug)]
pub(super) struct ReadFailure {
    pub(super) line: Option<u64>,
    pub(super) reason: String,
}

/// Documents of one transaction.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The line of each document.
    pub(super) lines: Vec<u64>,
    pub(super) documents: Vec<Value>,
    /// Lines that are no documents, and why.
    pub(super) refused: Vec<(u64, Vec<String>)>,
    size_bytes: usize,
}

/// Collects documents into batches.
pub(super) struct Batches {
    documents: Documents,
    batch_size: usize,
    failure: Option<ReadFailure>,
}

impl Batches {
    pub(super) fn new(documents: Documents, batch_size: usize) -> Self {
        Self { documents, batch_size, failure: None }
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, ReadFailure>;

    /// What was read before a failure is a batch of its own; the failure comes after it.
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(failure) = self.failure.take() {
            return Some(Err(failure));
        }
        let mut batch = Batch::default();
        while batch.documents.len() + batch.refused.len() < self.batch_size && batch.size_bytes < MAX_BATCH_BYTES {
            match self.documents.next() {
                Some(Ok(line)) => {
                    batch.size_bytes += line.size_bytes;
                    match line.content {
                        Content::Document(document) => {
                            batch.lines.push(line.number);
                            batch.documents.push(document);
                        }
                        Content::Refused(reason) => batch.refused.push((line.number, vec![reason])),
                    }
                }
                Some(Err(failure)) => {
                    self.failure = Some(failure);
                    break;
                }
                None => break,
            }
        }
        match batch.documents.is_empty() && batch.refused.is_empty() {
            true => self.failure.take().map(Err),
            false => Some(Ok(batch)),
        }
    }
}
