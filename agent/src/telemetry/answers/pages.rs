//! How answers outlive the agent: pages of them are written one behind the other, each with what was answered and
//! settled since the one before, and dropped from the front once all that is on them is forgotten. Read in their order,
//! they make what was remembered. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serde::{Deserialize, Serialize};
use serin_protocol::ids::{Millis, ReleaseId, UnixMillis};

use super::{Answers, Kept, Name, age};

/// First byte of a page; another is another version's.
const FORMAT: u8 = 1;

/// Most answers on a page, so that the lock that requests wait for is held for microseconds.
const PAGE_ANSWERS: usize = 256;

/// Most rows on a page, and so of an answer that is kept: of a request with more, only the running agent knows.
const PAGE_ROWS: usize = 1024;

/// Most settled rows on a page.
const PAGE_SETTLED: usize = 1024;

/// Most releases on a page: two answer, and an arm beside them.
const PAGE_RELEASES: usize = 16;

/// Largest page: 52 bytes of each answer, 14 of each row, 15 of each settled one, and the releases' names.
pub const MAX_PAGE_BYTES: usize = 48 << 10;

/// Numbers of answers stay below this, so that counting on from a page that is none of ours cannot overflow.
const MAX_NUMBER: u64 = u64::MAX / 2;

/// The name of a page, given by who keeps it; later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageKey(pub u64);

/// What was answered and settled since the page before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// Number of its first answer; the others follow it.
    first: u64,
    /// Device time at which it was made.
    at: UnixMillis,
    releases: Vec<ReleaseId>,
    answers: Vec<Written>,
    /// Rows of answers before these whose truth came.
    settled: Vec<(u64, u32)>,
}

/// An answer on a page. Without rows it only has a number: nobody waits for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Written {
    names: [Option<Name>; 2],
    /// When the page was made.
    age: Millis,
    /// Which of the page's releases.
    release: u8,
    rows: Vec<Kept>,
}

/// Why bytes are no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// They are more than a page has.
    #[error("it has {0} bytes, more than {MAX_PAGE_BYTES}")]
    TooLarge(usize),
    /// Another version wrote it.
    #[error("it is of format {0}, not {FORMAT}")]
    Format(u8),
    /// They are not what a page is made of.
    #[error("it is damaged")]
    Damaged,
}

impl Page {
    /// As bytes, at most [`MAX_PAGE_BYTES`].
    pub fn encode(&self) -> Vec<u8> {
        // Plain data into a growing vector: postcard has nothing to fail on.
        postcard::to_extend(self, vec![FORMAT]).unwrap_or_default()
    }

    /// From bytes.
    ///
    /// # Errors
    /// They are no page.
    pub fn decode(bytes: &[u8]) -> Result<Self, PageError> {
        if bytes.len() > MAX_PAGE_BYTES {
            return Err(PageError::TooLarge(bytes.len()));
        }
        let (format, body) = bytes.split_first().ok_or(PageError::Damaged)?;
        if *format != FORMAT {
            return Err(PageError::Format(*format));
        }
        match postcard::take_from_bytes::<Self>(body) {
            Ok((page, [])) if page.first <= MAX_NUMBER => Ok(page),
            _ => Err(PageError::Damaged),
        }
    }

    /// The number behind its last answer.
    const fn end(&self) -> u64 {
        self.first.saturating_add(self.answers.len() as u64)
    }
}

impl<O: Clone> Answers<O> {
    /// Takes the next page to write, with what no page has yet; none when there is nothing. `release_of` says whose an
    /// answer is; of one that is nobody's only the number is kept. Next is [`Answers::wrote`] or
    /// [`Answers::not_written`].
    pub fn take_page(
        &mut self,
        now: Millis,
        wall: UnixMillis,
        release_of: impl Fn(&O) -> Option<ReleaseId>,
    ) -> Option<Page> {
        let first = self.written.max(self.forgotten);
        let mut page =
            Page { first, at: wall, releases: Vec::new(), answers: Vec::new(), settled: Vec::new() };
        let mut rows = 0_usize;
        let begin = usize::try_from(first.saturating_sub(self.forgotten)).unwrap_or(usize::MAX);
        for answer in self.kept.iter().skip(begin).take(PAGE_ANSWERS) {
            let count = Some(answer.rows as usize).filter(|rows| *rows <= PAGE_ROWS).unwrap_or(0);
            if rows.saturating_add(count) > PAGE_ROWS {
                break;
            }
            rows = rows.saturating_add(count);
            let mut written =
                Written { names: [None; 2], age: age(answer, now), release: 0, rows: Vec::new() };
            if let Some(release) = release_of(&answer.of).filter(|_| count > 0) {
                let known = page.releases.iter().position(|other| *other == release);
                let place = known.unwrap_or(page.releases.len());
                if place >= PAGE_RELEASES {
                    break;
                }
                if known.is_none() {
                    page.releases.push(release);
                }
                // Below sixteen.
                written.release = place as u8;
                written.names = answer.names;
                let from = self.place(answer, 0).unwrap_or(usize::MAX);
                written.rows.extend(self.rows.iter().skip(from).take(count));
            }
            page.answers.push(written);
        }
        // They are of answers on earlier pages: what is known of one on this page is told with it.
        page.settled.extend(self.settled.drain(..PAGE_SETTLED.min(self.settled.len())));
        self.written = page.end();
        (!page.answers.is_empty() || !page.settled.is_empty()).then_some(page)
    }

    /// Notes that `page`, the one taken last, was written under `key`. Returns the last page that nobody needs any more,
    /// with all before it.
    pub fn wrote(&mut self, page: &Page, key: PageKey) -> Option<PageKey> {
        self.pages.push_back((key, page.end()));
        self.useless()
    }

    /// Notes that `page`, the one taken last, could not be written: it is taken again.
    pub fn not_written(&mut self, page: Page) {
        self.written = page.first;
        for settled in page.settled.into_iter().rev() {
            self.settled.push_front(settled);
        }
    }

    /// The last page whose answers are all forgotten, with all before it.
    pub fn useless(&mut self) -> Option<PageKey> {
        let mut useless = None;
        while let Some((key, end)) = self.pages.front().copied()
            && end <= self.forgotten
        {
            self.pages.pop_front();
            useless = Some(key);
        }
        useless
    }

    /// Remembers again what is on `page`, which was written under `key`. All pages are given in their order, before
    /// anything else is remembered; what was before a gap between them is forgotten.
    pub fn recall(
        &mut self,
        page: &Page,
        key: PageKey,
        now: Millis,
        wall: UnixMillis,
        mut of: impl FnMut(Option<&ReleaseId>) -> O,
    ) {
        if page.first != self.next() {
            while !self.kept.is_empty() {
                self.forget_oldest();
            }
            self.forgotten = page.first;
        }
        // A clock that went back makes nothing older.
        let since = wall.0.saturating_sub(page.at.0);
        for Written { names, age, release, rows } in &page.answers {
            let at = Millis(now.0.saturating_sub(age.0.saturating_add(since)));
            let of = of(page.releases.get(usize::from(*release)));
            if self.has_room_for(rows.len()) {
                let names = if rows.is_empty() { [None; 2] } else { *names };
                self.push(at, names, of, rows.iter().copied());
            } else {
                // As if it had come and gone, with all before it.
                let behind = self.next().saturating_add(1);
                while !self.kept.is_empty() {
                    self.forget_oldest();
                }
                self.forgotten = behind;
            }
        }
        for (number, row) in &page.settled {
            self.know(*number, *row as usize);
        }
        self.written = self.next();
        self.pages.push_back((key, page.end()));
    }
}

#[cfg(test)]
#[path = "pages_tests.rs"]
mod tests;
