//! NDJSON: one document a line, never more than one line in memory.

use std::io::{self, BufRead};

use serde_json::Value;

use super::batches::ReadFailure;

/// One line that is not blank.
#[derive(Debug)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: u64,
    pub(super) size_bytes: usize,
    pub(super) content: Content,
}

/// What a line holds.
#[derive(Debug, PartialEq)]
pub(super) enum Content {
    Document(Value),
    /// Not a document, and why.
    Refused(String),
}

/// The documents of an NDJSON file.
pub(super) struct Lines<R> {
    input: R,
    limit: usize,
    number: u64,
    buffer: Vec<u8>,
    ended: bool,
}

/// How a line was read.
enum Reading {
    Whole,
    TooLong,
    End,
}

impl<R: BufRead> Lines<R> {
    /// Lines of more than `limit` bytes are refused and skipped.
    pub(super) fn new(input: R, limit: usize) -> Self {
        Self { input, limit, number: 0, buffer: Vec::new(), ended: false }
    }

    /// Reads up to the next line feed into the buffer, and no more of a long line than the limit.
    fn read_line(&mut self) -> io::Result<Reading> {
        self.buffer.clear();
        let mut reading = Reading::End;
        loop {
            let chunk = filled(&mut self.input)?;
            if chunk.is_empty() {
                return Ok(reading);
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            if self.buffer.len() + part.len() > self.limit {
                reading = Reading::TooLong;
            } else if !matches!(reading, Reading::TooLong) {
                self.buffer.extend_from_slice(part);
                reading = Reading::Whole;
            }
            let used = end.map_or(chunk.len(), |end| end + 1);
            self.input.consume(used);
            if end.is_some() {
                return Ok(reading);
            }
        }
    }

    fn line(&self, content: Content) -> Option<Result<Line, ReadFailure>> {
        Some(Ok(Line { number: self.number, size_bytes: self.buffer.len(), content }))
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<Line, ReadFailure>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let reading = self.read_line();
            self.number += 1;
            match reading {
                Ok(Reading::Whole) => {
                    let first = self.number == 1;
                    if let Some(content) = parse(&self.buffer, first) {
                        return self.line(content);
                    }
                }
                Ok(Reading::TooLong) => {
                    return self.line(Content::Refused(format!("a line has at most {} bytes", self.limit)));
                }
                Ok(Reading::End) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    let reason = format!("the file cannot be read further: {error}");
                    return Some(Err(ReadFailure { line: Some(self.number), reason }));
                }
            }
        }
        None
    }
}

/// What can be read now, even if a signal came in between; empty at the end.
pub(super) fn filled<R: BufRead>(input: &mut R) -> io::Result<&[u8]> {
    while let Err(error) = input.fill_buf() {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    input.fill_buf()
}

/// The document of a line; `None` for a blank one. The first line may begin with a byte order mark.
fn parse(line: &[u8], first: bool) -> Option<Content> {
    let line = if first { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
    let line = line.trim_ascii();
    if line.is_empty() {
        return None;
    }
    Some(match std::str::from_utf8(line) {
        Err(error) => Content::Refused(format!("this is not UTF-8 after {} bytes", error.valid_up_to())),
        Ok(text) => match serde_json::from_str(text) {
            Ok(document) => Content::Document(document),
            Err(error) => {
                let message = error.to_string();
                let reason = message.split(" at line ").next().unwrap_or(&message);
                Content::Refused(format!("this is not JSON: {reason} at column {}", error.column()))
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use serde_json::json;

    use super::*;

    fn lines(text: &[u8], limit: usize) -> Vec<(u64, Content)> {
        // A small buffer, so that lines span several.
        let read = Lines::new(BufReader::with_capacity(3, text), limit);
        read.map(|line| line.map(|line| (line.number, line.content)).unwrap()).collect()
    }

    #[test]
    fn blank_lines_marks_and_carriage_returns_are_skipped_but_counted() {
        let found = lines(b"\xef\xbb\xbf{\"a\":1}\r\n\n  \n{\"a\":2}", 100);
        assert_eq!(found, [(1, Content::Document(json!({"a": 1}))), (4, Content::Document(json!({"a": 2})))]);
        assert_eq!(lines(b"", 100), []);
        assert_eq!(lines(b"\n\n", 100), []);
    }

    #[test]
    fn bad_lines_are_refused_and_the_next_ones_read() {
        let found = lines(b"{\"a\":\n{\"a\":\"\xff\"}\n[1]\n12345678901\n{}\n", 10);
        assert_eq!(
            found,
            [
                (1, Content::Refused("this is not JSON: EOF while parsing a value at column 5".into())),
                (2, Content::Refused("this is not UTF-8 after 6 bytes".into())),
                (3, Content::Document(json!([1]))),
                (4, Content::Refused("a line has at most 10 bytes".into())),
                (5, Content::Document(json!({}))),
            ]
        );
    }

    #[test]
    fn absurd_nesting_is_refused() {
        let found = lines("[".repeat(100_000).as_bytes(), 1_000_000);
        assert!(matches!(&found[..], [(1, Content::Refused(reason))] if reason.contains("recursion limit")), "{found:?}");
    }
}
