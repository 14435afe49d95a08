//! CSV (RFC 4180): the header names the fields, a row is a document, never more than one row in memory.
//!
//! `csv_core` and not `csv`, which reads a row of any length into memory: one missing quotation mark makes the rest of
//! the file a row.

use std::collections::HashSet;
use std::io::{self, BufRead, Chain, Cursor, Read as _};
use std::sync::Arc;

use csv_core::ReadRecordResult;
use serde_json::{Map, Value};

use super::batches::ReadFailure;
use super::lines::{Content, Line, filled};
use crate::cli::cells;
use crate::model::Collection;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The most cells of a row.
const MAX_CELLS: usize = 4096;

/// The documents of a CSV file.
pub(super) struct Table<R> {
    rows: Rows<R>,
    collection: Arc<Collection>,
    header: Option<Vec<String>>,
    ended: bool,
}

impl<R: BufRead> Table<R> {
    /// Rows of more than `limit` bytes are refused and skipped.
    pub(super) fn new(input: R, collection: Arc<Collection>, limit: usize) -> Self {
        Self { rows: Rows::new(input, limit), collection, header: None, ended: false }
    }

    /// Without a header nothing can be read.
    fn read_header(&mut self) -> Result<(), ReadFailure> {
        let refused = |line, reason: String| Err(ReadFailure { line: Some(line), reason });
        let Some(row) = self.rows.next() else { return refused(1, "a CSV file begins with the names of its fields".to_owned()) };
        let row = row?;
        let cells = match row.cells {
            Ok(cells) => cells,
            Err(reason) => return refused(row.line, reason),
        };
        let mut names = HashSet::new();
        if let Some(bad) = cells.iter().find(|cell| cell.is_empty() || !names.insert(cell.as_str())) {
            return refused(row.line, format!("the header has {bad:?} as a name, which is empty or occurs twice"));
        }
        self.header = Some(cells);
        Ok(())
    }

    fn document(&self, cells: &[String]) -> Content {
        let header = self.header.as_deref().unwrap_or_default();
        if cells.len() != header.len() {
            return Content::Refused(format!("the row has {} cells, but the header {}", cells.len(), header.len()));
        }
        let mut document = Map::new();
        for (name, cell) in header.iter().zip(cells) {
            if let Some(value) = cells::read(self.collection.fields.get(name).copied(), cell) {
                document.insert(name.clone(), value);
            }
        }
        Content::Document(Value::Object(document))
    }
}

impl<R: BufRead> Iterator for Table<R> {
    type Item = Result<Line, ReadFailure>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = match self.header {
            Some(_) => self.rows.next()?,
            None => match self.read_header() {
                Ok(()) => self.rows.next()?,
                Err(failure) => Err(failure),
            },
        };
        Some(match row {
            Ok(Row { line, size_bytes, cells }) => {
                let content = match cells {
                    Ok(cells) => self.document(&cells),
                    Err(reason) => Content::Refused(reason),
                };
                Ok(Line { number: line, size_bytes, content })
            }
            Err(failure) => {
                self.ended = true;
                Err(failure)
            }
        })
    }
}

/// A row, or why it has no cells.
struct Row {
    /// The line it begins on, from 1.
    line: u64,
    size_bytes: usize,
    cells: Result<Vec<String>, String>,
}

/// Splits a file into rows.
struct Rows<R> {
    input: Chain<Cursor<Vec<u8>>, R>,
    limit: usize,
    parser: csv_core::Reader,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl<R: BufRead> Rows<R> {
    /// Takes a byte order mark off: the parser would take input that ends after one for the end of the file, and a pipe
    /// may well deliver the mark alone. A failure to read shows again at the first row.
    fn new(mut input: R, limit: usize) -> Self {
        let mut beginning = Vec::with_capacity(BYTE_ORDER_MARK.len());
        let _ = input.by_ref().take(BYTE_ORDER_MARK.len() as u64).read_to_end(&mut beginning);
        if beginning == BYTE_ORDER_MARK {
            beginning.clear();
        }
        let input = Cursor::new(beginning).chain(input);
        Self { input, limit, parser: csv_core::Reader::new(), bytes: vec![0; 8 * 1024], ends: vec![0; MAX_CELLS] }
    }

    /// Skips empty lines, so that the next row begins on the line that the parser is on.
    fn skip_empty_lines(&mut self) -> io::Result<()> {
        loop {
            let chunk = filled(&mut self.input)?;
            let empty = chunk.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            if empty == 0 {
                return Ok(());
            }
            let feeds = chunk.iter().take(empty).filter(|byte| **byte == b'\n').count();
            self.parser.set_line(self.parser.line() + feeds as u64);
            self.input.consume(empty);
        }
    }

    fn read(&mut self) -> io::Result<Option<Row>> {
        self.skip_empty_lines()?;
        let line = self.parser.line();
        let (mut size, mut count, mut refused) = (0, 0, None);
        loop {
            let chunk = filled(&mut self.input)?;
            let (output, ends) = (self.bytes.get_mut(size..), self.ends.get_mut(count..));
            let (result, used, written, ended) =
                self.parser.read_record(chunk, output.unwrap_or_default(), ends.unwrap_or_default());
            self.input.consume(used);
            size += written;
            count += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.bytes.len() < self.limit => {
                    let larger = (self.bytes.len() * 2).min(self.limit);
                    self.bytes.resize(larger, 0);
                }
                ReadRecordResult::OutputFull => {
                    let limit = self.limit;
                    refused = Some(format!("a row has at most {limit} bytes; is a closing quotation mark missing?"));
                    (size, count) = (0, 0);
                }
                ReadRecordResult::OutputEndsFull => {
                    refused = Some(format!("a row has at most {MAX_CELLS} cells"));
                    (size, count) = (0, 0);
                }
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return Ok(None),
            }
        }
        let cells = match refused {
            Some(reason) => Err(reason),
            None => self.cells(count),
        };
        Ok(Some(Row { line, size_bytes: size, cells }))
    }

    fn cells(&self, count: usize) -> Result<Vec<String>, String> {
        let mut start = 0;
        let mut cells = Vec::with_capacity(count);
        for end in self.ends.iter().take(count) {
            let cell = self.bytes.get(start..*end).unwrap_or_default();
            let number = cells.len() + 1;
            cells.push(std::str::from_utf8(cell).map_err(|_| format!("cell {number} is not UTF-8"))?.to_owned());
            start = *end;
        }
        Ok(cells)
    }
}

impl<R: BufRead> Iterator for Rows<R> {
    type Item = Result<Row, ReadFailure>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.parser.line();
        self.read().transpose().map(|row| {
            row.map_err(|error| ReadFailure { line: Some(line), reason: format!("the file cannot be read further: {error}") })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn rows(text: &[u8], limit: usize) -> Vec<(u64, Result<Vec<String>, String>)> {
        let rows = Rows::new(BufReader::with_capacity(3, text), limit);
        rows.map(|row| row.map(|row| (row.line, row.cells)).unwrap_or_else(|failure| panic!("{}", failure.reason))).collect()
    }

    fn cells(cells: &[&str]) -> Result<Vec<String>, String> {
        Ok(cells.iter().map(|cell| (*cell).to_owned()).collect())
    }

    #[test]
    fn rows_have_the_line_they_begin_on() {
        let found = rows(b"\xef\xbb\xbfa,b\r\n\r\n1,\"x\r\ny\"\n\n\n\"q\"\"q\",\r\n3,4", 8 * 1024);
        let expected =
            [(1, cells(&["a", "b"])), (3, cells(&["1", "x\r\ny"])), (7, cells(&["q\"q", ""])), (8, cells(&["3", "4"]))];
        assert_eq!(found, expected);
    }

    #[test]
    fn rows_that_are_too_long_or_not_utf8_are_refused_and_the_next_ones_read() {
        let mut text = b"a,b\n1,".to_vec();
        text.extend(std::iter::repeat_n(b'x', 50_000));
        text.extend(b"\n2,\xff\n3,y\n");
        let found = rows(&text, 20_000);
        assert_eq!(found.len(), 4);
        assert!(found[1].1.as_ref().is_err_and(|reason| reason.contains("at most 20000 bytes")), "{:?}", found[1]);
        assert_eq!(found[2], (3, Err("cell 2 is not UTF-8".to_owned())));
        assert_eq!(found[3], (4, cells(&["3", "y"])));
        let many = format!("{}\n1\n", ",".repeat(10_000));
        let found = rows(many.as_bytes(), 20_000);
        assert!(found[0].1.is_err());
        assert_eq!(found[1], (2, cells(&["1"])));
    }
}
