//! Rows as people have them, CSV (RFC 4180) or one JSON array or object a line, alone or in batches: numbers,
//! texts where the model takes texts, and base64 where it takes files of images. What is empty, `null` or `nan` is a missing value.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

use serde_json::{Number, Value};
use serin_protocol::tensor::DataType;

use super::bisect::RowFault;
use super::images;
use super::shape::{Column, MAX_REQUEST_BYTES, RowShape, RowValues, weight};

/// How a file may begin that is UTF-8 anyway.
const BYTE_ORDER_MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// The input cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowsError {
    /// It cannot be read.
    #[error("the input cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A line is not a row.
    #[error("line {line}: {message}")]
    Line { line: u64, message: String },
}

/// A row as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Its line, where it has one.
    pub(super) line: Option<u64>,
    /// Its values, or why it is none.
    pub(super) values: Result<RowValues, String>,
}

impl Row {
    /// `fault` of this row, and where it is.
    pub(super) fn said(&self, fault: &RowFault) -> String {
        match (fault, self.line) {
            (RowFault::Unread(why), _) => why.clone(),
            (fault, Some(line)) => format!("line {line}: {fault}"),
            (fault, None) => fault.to_string(),
        }
    }
}

/// Reads rows.
#[derive(Debug)]
pub(crate) struct RowReader<R> {
    source: Source<R>,
    shape: RowShape,
    line: u64,
    /// Lines before the first of a CSV.
    before: u64,
    /// Columns of the header that the model does not know.
    pub(crate) ignored: Vec<String>,
}

#[derive(Debug)]
enum Source<R> {
    /// Nothing was read yet.
    Fresh(R),
    /// One JSON array or object a line.
    Lines(R),
    /// CSV, its first line not yet read.
    Headless(Box<csv::Reader<Bounded<R>>>),
    /// CSV behind it; how its columns are chosen, unless they are as the model wants them.
    Table(Box<csv::Reader<Bounded<R>>>, Option<Choice>),
    /// It made no sense altogether.
    Lost,
}

/// Which columns of a CSV are the values of a row.
#[derive(Debug)]
struct Choice {
    /// Columns that there are.
    width: usize,
    /// For each value its column.
    columns: Vec<usize>,
}

/// An input of which only so much is read until somebody says that it made sense.
#[derive(Debug)]
struct Bounded<R> {
    input: R,
    left: u64,
    /// More was asked for.
    overrun: bool,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            self.overrun = true;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
        }
        let read = (&mut self.input).take(self.left).read(buffer)?;
        self.left -= read as u64;
        Ok(read)
    }
}

impl<R: BufRead> RowReader<R> {
    pub(crate) const fn new(input: R, shape: RowShape) -> Self {
        Self { source: Source::Fresh(input), shape, line: 0, before: 0, ignored: Vec::new() }
    }

    /// The next rows, as many as are asked about at once; none at the end.
    pub(crate) fn next_batch(&mut self) -> Result<Vec<RowValues>, RowsError> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while rows.len() < self.shape.rows_at_once()
            && bytes < MAX_REQUEST_BYTES
            && let Some(row) = self.next_row()?
        {
            bytes += weight(&row);
            rows.push(row);
        }
        Ok(rows)
    }

    /// The next row; none at the end. After a line that is no row the next one is read; see
    /// [`Self::is_lost`].
    pub(crate) fn next_row(&mut self) -> Result<Option<RowValues>, RowsError> {
        match std::mem::replace(&mut self.source, Source::Lost) {
            Source::Fresh(input) => {
                self.source = self.begin(input)?;
                self.next_row()
            }
            Source::Lines(mut input) => {
                let line = next_line(&mut input, &mut self.line, self.shape.line_bytes());
                self.source = Source::Lines(input);
                line?.map(|line| self.parsed(&line)).transpose()
            }
            Source::Headless(mut table) => {
                let Some(cells) = self.record(&mut table)? else { return Ok(None) };
                let header = self.header(&cells)?;
                let is_row = matches!(header, Header::Absent);
                let columns = match header {
                    Header::Absent | Header::InOrder => None,
                    Header::Named(columns) => Some(columns),
                };
                self.source = Source::Table(table, columns);
                if is_row { self.row(&cells).map(Some) } else { self.next_row() }
            }
            Source::Table(mut table, columns) => {
                let cells = self.record(&mut table);
                let row = cells.and_then(|cells| {
                    let row = cells.map(|cells| match &columns {
                        None => self.row(&cells),
                        Some(choice) => self.picked(&cells, choice),
                    });
                    row.transpose()
                });
                if table.get_ref().overrun {
                    // The reader holds nothing any more, and is in the middle of a line.
                    self.before += table.position().line();
                    let mut input = table.into_inner().input;
                    skip_line(&mut input)?;
                    table = Box::new(table_of(input, self.shape.line_bytes()));
                }
                self.source = Source::Table(table, columns);
                row
            }
            Source::Lost => Ok(None),
        }
    }

    /// The line of the last row, from 1.
    pub(super) const fn line(&self) -> u64 {
        self.line
    }

    /// Whether the input could not be understood altogether, so that no row can be.
    pub(crate) const fn is_lost(&self) -> bool {
        matches!(self.source, Source::Lost)
    }

    /// Looks at how the input begins.
    fn begin(&mut self, mut input: R) -> Result<Source<R>, RowsError> {
        if input.fill_buf()?.starts_with(&BYTE_ORDER_MARK) {
            input.consume(BYTE_ORDER_MARK.len());
        }
        loop {
            let buffer = input.fill_buf()?;
            let blank = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.line += buffer.iter().take(blank).filter(|byte| **byte == b'\n').count() as u64;
            let first = buffer.get(blank).copied();
            input.consume(blank);
            if first.is_none() && blank > 0 {
                continue;
            }
            if let Some(b'[' | b'{') = first {
                return Ok(Source::Lines(input));
            }
            self.before = self.line;
            return Ok(Source::Headless(Box::new(table_of(input, self.shape.line_bytes()))));
        }
    }

    fn wrong(&self, message: impl Into<String>) -> RowsError {
        RowsError::Line { line: self.line, message: message.into() }
    }

    /// The cells of the next line that has any. A quoted cell may go on over several lines.
    fn record(&mut self, table: &mut csv::Reader<Bounded<R>>) -> Result<Option<Vec<String>>, RowsError> {
        table.get_mut().left = self.shape.line_bytes();
        let mut record = csv::ByteRecord::new();
        let read = table.read_byte_record(&mut record);
        self.line = self.before + record.position().unwrap_or(table.position()).line();
        match read {
            Ok(false) => Ok(None),
            Ok(true) => {
                let text = |cell: &[u8]| String::from_utf8(cell.to_vec());
                let cells = record.iter().map(text).collect::<Result<_, _>>();
                cells.map(Some).map_err(|_| self.wrong("the line is not text"))
            }
            Err(error) => match error.into_kind() {
                csv::ErrorKind::Io(error) if error.kind() != io::ErrorKind::InvalidData => {
                    Err(RowsError::Read(error))
                }
                csv::ErrorKind::Io(error) => Err(self.wrong(error.to_string())),
                other => Err(self.wrong(format!("{other:?}"))),
            },
        }
    }

    /// For each value of the row its column of the CSV, if `cells` are a header; none if they are as the model
    /// wants them, under a header or not.
    fn header(&mut self, cells: &[String]) -> Result<Header, RowsError> {
        let columns = &self.shape.columns;
        // Where there is no column for a cell, its row is too long.
        let takes = |at: usize| columns.get(at).is_some_and(|column| column.datatype == DataType::Bytes);
        let is_row = cells.iter().enumerate().all(|(at, cell)| takes(at) || is_number(cell.trim()));
        if !self.shape.is_named() {
            if is_row || cells.len() == columns.len() {
                return Ok(if is_row { Header::Absent } else { Header::InOrder });
            }
            return Err(self.wrong(format!("{} columns, the model wants {}", cells.len(), columns.len())));
        }
        let find = |name: &str| cells.iter().position(|cell| cell.trim() == name);
        let missing =
            columns.iter().filter_map(|column| column.name.as_deref()).find(|name| find(name).is_none());
        match missing {
            Some(_) if is_row => Ok(Header::Absent),
            Some(name) => Err(self.wrong(format!("the column {name} is missing"))),
            None => {
                let others = cells.iter().map(|cell| cell.trim()).filter(|cell| !self.shape.has(cell));
                self.ignored = others.map(str::to_owned).collect();
                let names = columns.iter().filter_map(|column| column.name.as_deref());
                Ok(Header::Named(Choice { width: cells.len(), columns: names.filter_map(find).collect() }))
            }
        }
    }

    /// A row of these cells.
    fn row(&self, cells: &[String]) -> Result<RowValues, RowsError> {
        let columns = &self.shape.columns;
        if cells.len() != columns.len() {
            return Err(self.wrong(format!("{} values, the model wants {}", cells.len(), columns.len())));
        }
        let value = |(at, (cell, column)): (usize, (&String, &Column))| {
            value(cell, column).map_err(|what| format!("{}: {what}", column.called(at)))
        };
        let values = cells.iter().zip(columns).enumerate().map(value);
        let values = values.collect::<Result<_, _>>().and_then(|values| self.shape.checked(values));
        values.map_err(|message| self.wrong(message))
    }

    /// A row of those of `cells` that `choice` says. Where there are more or fewer than columns, nobody knows which is which.
    fn picked(&self, cells: &[String], Choice { width, columns }: &Choice) -> Result<RowValues, RowsError> {
        if cells.len() != *width {
            return Err(self.wrong(format!("{} cells, the header has {width}", cells.len())));
        }
        self.row(&columns.iter().filter_map(|column| cells.get(*column).cloned()).collect::<Vec<_>>())
    }

    /// A row of a line of JSON.
    fn parsed(&self, line: &str) -> Result<RowValues, RowsError> {
        if line.starts_with('[') {
            let values = serde_json::from_str(line).map_err(|error| self.wrong(error.to_string()))?;
            return self.shape.checked(self.shape.with_images(values)).map_err(|message| self.wrong(message));
        }
        if !self.shape.is_named() {
            return Err(self.wrong("the model names no values, give them as an array"));
        }
        let mut values: BTreeMap<String, Value> =
            serde_json::from_str(line).map_err(|error| self.wrong(error.to_string()))?;
        if let Some(unknown) = values.keys().find(|name| !self.shape.has(name)) {
            return Err(self.wrong(format!("the model has no feature {unknown:?}")));
        }
        let names = self.shape.columns.iter().map(|column| column.name.as_deref().unwrap_or_default());
        let values = names.map(|name| values.remove(name).unwrap_or(Value::Null)).collect();
        self.shape.checked(self.shape.with_images(values)).map_err(|message| self.wrong(message))
    }
}

/// What the first line of a CSV is.
enum Header {
    /// A row.
    Absent,
    /// Names in the order of the model.
    InOrder,
    /// Names, and others among them.
    Named(Choice),
}

/// A CSV from here on, no record of which may have more than `most` bytes.
fn table_of<R: Read>(input: R, most: u64) -> csv::Reader<Bounded<R>> {
    let mut builder = csv::ReaderBuilder::new();
    let builder = builder.has_headers(false).flexible(true);
    builder.from_reader(Bounded { input, left: most, overrun: false })
}

/// Goes to the beginning of the next line, whatever the length of this one.
fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let (used, done) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        input.consume(used);
        if done {
            return Ok(());
        }
    }
}

/// The next line of text that is not blank, of `most` bytes; none at the end.
fn next_line(input: &mut impl BufRead, number: &mut u64, most: u64) -> Result<Option<String>, RowsError> {
    loop {
        let mut bytes = Vec::new();
        let read = input.by_ref().take(most).read_until(b'\n', &mut bytes)?;
        *number += 1;
        let wrong = |message: &str| RowsError::Line { line: *number, message: message.into() };
        if read as u64 == most && bytes.last() != Some(&b'\n') {
            skip_line(input)?;
            return Err(wrong("the line is too long"));
        }
        if read == 0 {
            return Ok(None);
        }
        let line = String::from_utf8(bytes).map_err(|_| wrong("the line is not text"))?;
        if !line.trim().is_empty() {
            return Ok(Some(line.trim().to_owned()));
        }
    }
}

fn is_blank(cell: &str) -> bool {
    cell.is_empty() || cell.eq_ignore_ascii_case("null") || cell.eq_ignore_ascii_case("nan")
}

/// Whether a cell is a number or truth value, or a missing one.
fn is_number(cell: &str) -> bool {
    let truth = ["true", "false"].iter().any(|truth| cell.eq_ignore_ascii_case(truth));
    is_blank(cell) || truth || cell.parse::<f64>().is_ok()
}

/// A cell as a value of its column's type. Blanks around a text are part of it, as they are in JSON and for the training side.
fn value(cell: &str, Column { datatype, is_image, .. }: &Column) -> Result<Value, String> {
    if *datatype == DataType::Bytes && !is_image {
        return Ok(Value::String(cell.into()));
    }
    let cell = cell.trim();
    if *is_image {
        return Ok(images::of_text(cell));
    }
    if is_blank(cell) {
        return Ok(Value::Null);
    }
    if *datatype == DataType::Bool
        && let Ok(truth) = cell.to_ascii_lowercase().parse()
    {
        return Ok(Value::Bool(truth));
    }
    if let Ok(whole) = cell.parse::<i64>() {
        return Ok(whole.into());
    }
    let number: f64 = cell.parse().map_err(|_| format!("{cell:?} is not a number"))?;
    Number::from_f64(number).map(Value::Number).ok_or_else(|| format!("{cell:?} is too large for any number"))
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
