//! The agent's own last log lines, in memory and bounded, for the engineer on site: a device's journal may be
//! volatile, or his user may not be allowed to read it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{self, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// Most lines kept: some hours of a quiet agent, all of a busy update.
pub const MAX_LINES: usize = 2000;
/// Most bytes kept, so that long lines do not add up.
pub const MAX_BYTES: usize = 512 * 1024;
/// Longest line in bytes; the rest of it is cut off.
const MAX_LINE: usize = 4096;

/// The last lines. A handle: cheap to clone; what is logged through it is kept.
#[derive(Clone, Debug, Default)]
pub struct Logs(Arc<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<String>,
    bytes: usize,
    /// Lines there have been.
    count: u64,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Its number since the agent started, from 1.
    pub number: u64,
    /// Time, level, where it comes from, what it says.
    pub text: String,
}

/// Which lines are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The last so many.
    Last(usize),
    /// All after the line of this number.
    After(u64),
}

/// Fields of spans as they are kept: a type of its own, because layers that format them with the same type share the
/// text, and one of them may be for a terminal.
#[derive(Debug, Default)]
struct KeptFields(DefaultFields);

impl<'writer> FormatFields<'writer> for KeptFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> std::fmt::Result {
        self.0.format_fields(writer, fields)
    }
}

impl Logs {
    /// Keeps what is logged, whatever other layers make of it.
    pub fn layer<S: Subscriber + for<'span> LookupSpan<'span>>(&self) -> impl Layer<S> + use<S> {
        fmt::layer().fmt_fields(KeptFields::default()).with_ansi(false).with_writer(self.clone())
    }

    /// The wanted lines that are still here, the oldest first.
    pub fn lines(&self, wanted: Wanted) -> Vec<LogLine> {
        let ring = self.lock();
        let first = ring.count.saturating_sub(ring.lines.len() as u64);
        let numbered = ring.lines.iter().zip(first + 1..);
        let skip = match wanted {
            Wanted::Last(count) => ring.lines.len().saturating_sub(count),
            Wanted::After(number) => {
                usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX).min(ring.lines.len())
            }
        };
        numbered.skip(skip).map(|(text, number)| LogLine { number, text: text.clone() }).collect()
    }

    fn push(&self, line: String) {
        let mut ring = self.lock();
        ring.count += 1;
        ring.bytes += line.len();
        ring.lines.push_back(line);
        while ring.lines.len() > MAX_LINES || ring.bytes > MAX_BYTES {
            let Some(oldest) = ring.lines.pop_front() else { return };
            ring.bytes = ring.bytes.saturating_sub(oldest.len());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // A panic elsewhere leaves whole lines.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for Logs {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { logs: self.clone(), bytes: Vec::new() }
    }
}

/// A line being written; kept when it is dropped.
#[derive(Debug)]
pub struct Line {
    logs: Logs,
    bytes: Vec<u8>,
}

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = MAX_LINE.saturating_sub(self.bytes.len());
        self.bytes.extend(bytes.iter().take(room));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.bytes);
        let text = text.trim_end();
        if !text.is_empty() {
            self.logs.push(text.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    fn write(logs: &Logs, text: &str) {
        logs.make_writer().write_all(text.as_bytes()).expect("memory");
    }

    #[test]
    fn the_last_lines_are_kept_within_their_bounds() {
        let logs = Logs::default();
        (0..MAX_LINES + 10).for_each(|number| write(&logs, &format!("line {number}\n")));
        let kept = logs.lines(Wanted::Last(usize::MAX));
        assert_eq!((kept.len(), kept[0].number), (MAX_LINES, 11));
        assert_eq!(kept[0].text, "line 10");
        (0..1000).for_each(|_| write(&logs, &"x".repeat(10_000)));
        let kept = logs.lines(Wanted::Last(usize::MAX));
        assert!(kept.iter().map(|line| line.text.len()).sum::<usize>() <= MAX_BYTES);
        assert!(kept.iter().all(|line| line.text.len() <= MAX_LINE));
    }

    #[test]
    fn whoever_follows_gets_each_line_once() {
        let logs = Logs::default();
        for text in ["a", "b", "c"] {
            write(&logs, text);
        }
        let texts = |wanted| logs.lines(wanted).into_iter().map(|line| line.text).collect::<Vec<_>>();
        assert_eq!(texts(Wanted::Last(2)), ["b", "c"]);
        assert_eq!(texts(Wanted::After(1)), ["b", "c"]);
        assert!(texts(Wanted::After(3)).is_empty() && texts(Wanted::After(99)).is_empty());
        assert!(texts(Wanted::Last(0)).is_empty());
    }

    #[test]
    fn what_is_logged_is_kept_as_one_line() {
        let logs = Logs::default();
        let subscriber = tracing_subscriber::registry().with(logs.layer());
        tracing::subscriber::with_default(subscriber, || tracing::warn!(number = 7, "something"));
        let lines = logs.lines(Wanted::Last(9));
        assert_eq!(lines.len(), 1);
        assert!(lines[0].text.contains("WARN") && lines[0].text.contains("something number=7"), "{lines:?}");
    }

    #[test]
    fn what_a_terminal_is_shown_of_a_span_is_not_kept() {
        let (logs, terminal) = (Logs::default(), Logs::default());
        let shown = fmt::layer().with_ansi(true).with_writer(terminal.clone());
        let subscriber = tracing_subscriber::registry().with(shown).with(logs.layer());
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("inference", request = "r1", release = tracing::field::Empty);
            span.record("release", "m@1");
            span.in_scope(|| tracing::info!("answered"));
        });
        let text = |logs: &Logs| logs.lines(Wanted::Last(9)).first().map(|line| line.text.clone());
        let kept = text(&logs).expect("kept");
        assert!(kept.contains("inference{request=\"r1\" release=\"m@1\"}: "), "{kept:?}");
        assert!(!kept.contains('\x1b'), "{kept:?}");
        let shown = text(&terminal).expect("shown");
        assert!(shown.contains('\x1b') && shown.matches("m@1").count() == 1, "{shown:?}");
    }
}
