//! The file that a batch reads: CSV, JSON lines or Parquet.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

#[cfg(feature = "parquet")]
use super::parquet::ParquetRows;
use super::rows::{RowReader, RowsError};
use super::shape::{RowShape, RowValues};
use crate::field::cli::CliError;

/// Counts what is read, for the progress bar.
pub(super) struct Counted<R> {
    input: R,
    read: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.read.set(self.read.get() + read as u64);
        Ok(read)
    }
}

/// What rows come from.
pub(super) enum Rows {
    /// CSV, or JSON lines.
    Text(Box<RowReader<BufReader<Counted<File>>>>),
    #[cfg(feature = "parquet")]
    Parquet(Box<ParquetRows>),
}

impl Rows {
    /// The rows of `file`, which is at `path` and has `bytes` bytes; `read` tells how many of them are behind.
    pub(super) fn of(
        path: &Path,
        file: File,
        bytes: u64,
        shape: RowShape,
        read: Rc<Cell<u64>>,
    ) -> Result<Self, CliError> {
        if is_named(path, "parquet") {
            return parquet_rows(file, bytes, shape, read);
        }
        let counted = Counted { input: file, read };
        Ok(Self::Text(Box::new(RowReader::new(BufReader::new(counted), shape))))
    }

    /// The next row; none at the end.
    pub(super) fn next_row(&mut self) -> Result<Option<RowValues>, RowsError> {
        match self {
            Self::Text(reader) => reader.next_row(),
            #[cfg(feature = "parquet")]
            Self::Parquet(rows) => rows.next_row(),
        }
    }

    /// Whether the input could not be understood altogether.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            Self::Text(reader) => reader.is_lost(),
            #[cfg(feature = "parquet")]
            Self::Parquet(_) => false,
        }
    }

    /// The line, or the row, that was read last.
    pub(super) fn line(&self) -> u64 {
        match self {
            Self::Text(reader) => reader.line(),
            #[cfg(feature = "parquet")]
            Self::Parquet(rows) => rows.row(),
        }
    }

    /// Columns that the model does not know.
    pub(super) fn ignored(&self) -> &[String] {
        match self {
            Self::Text(reader) => &reader.ignored,
            #[cfg(feature = "parquet")]
            Self::Parquet(rows) => &rows.ignored,
        }
    }
}

#[cfg(feature = "parquet")]
fn parquet_rows(file: File, bytes: u64, shape: RowShape, read: Rc<Cell<u64>>) -> Result<Rows, CliError> {
    let rows = ParquetRows::open(file, bytes, shape, read).map_err(|error| CliError::rows(&error))?;
    Ok(Rows::Parquet(Box::new(rows)))
}

#[cfg(not(feature = "parquet"))]
fn parquet_rows(_: File, _: u64, _: RowShape, _: Rc<Cell<u64>>) -> Result<Rows, CliError> {
    Err(CliError::Usage {
        message: "this agent was built without Parquet".into(),
        next: "give the rows as CSV or JSON lines, or build it with the feature parquet".into(),
    })
}

/// Whether the name of `path` ends in `extension`.
pub(super) fn is_named(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}
