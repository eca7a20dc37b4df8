//! The device's conversation with the repository: a refresh when the broker says a new timestamp, a search
//! when a release is to be installed. Files come as retained messages of subscriptions, in any order.
//!
//! MQTT has no "not found". Whether a newer root exists is asked together with the timestamp, before it:
//! when the timestamp has come, so would the root have. A root that comes later begins a new refresh.

mod lend;

use bytes::Bytes;
use serin_protocol::assignment::ReleaseRef;
use serin_protocol::envelope::KeyRing;
use serin_protocol::ids::{Digest, Millis, ReleaseId, UnixMillis};
use serin_protocol::message::Detail;
use serin_protocol::topic::FileName;
use serin_protocol::trust::{Fetch, Limits, Next, Role, Session, TrustError};

use super::failures::{Failures, Problem};
use super::orders::{Orders, utc};
use super::search::{self, Answer, Search};
use super::store::{TrustStore, TrustStoreError};
use crate::link::backoff::Jitter;
use crate::update::effect::Now;
use crate::update::record::RootFloor;

pub use super::orders::MAX_FLEET_KEYS;

/// A file that has not come by then is withheld: brokers deliver retained messages at once.
const WITHHELD: Millis = Millis::from_secs(15);

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Subscribe to the file anew, which brings its retained message anew.
    Ask(FileName),
    /// End the subscription.
    Leave(FileName),
    /// Remember in the boot record that no refresh may end below this root.
    RootTrusted {
        /// Which.
        floor: RootFloor,
        /// It took a key of timestamp or snapshot back.
        recovered: bool,
    },
    /// The refresh is complete: look again at what waits for [`Client::fleet_keys`].
    Refreshed {
        /// Others sign assignments than before.
        keys_changed: bool,
    },
    /// The end of the search: an owner lists the release with this statement, above every floor.
    Listed(ReleaseRef),
    /// The end of the search: the release must not be installed.
    Unlisted(ReleaseRef, Detail),
    /// Report this refusal.
    Refuse(Detail),
}

/// Effects in order.
pub type Effects = Vec<Effect>;

/// A file that is waited for.
#[derive(Clone, Debug)]
struct Wanted {
    file: FileName,
    until: Millis,
}

/// The device's TUF client.
#[derive(Debug)]
pub struct Client {
    store: TrustStore,
    connected: bool,
    session: Option<Session>,
    /// Whether the session has begun to look for the release.
    searching: bool,
    /// What the broker said last in this connection.
    timestamp: Option<Bytes>,
    root: Option<(FileName, Bytes)>,
    /// The next root's file, subscribed.
    watched: Option<FileName>,
    wanted: Option<Wanted>,
    search: Option<Search>,
    orders: Option<Orders>,
    /// When no timestamp by then means that it is withheld.
    silent_at: Option<Millis>,
    failures: Failures,
}

/// Where a wanted file is.
enum Supply {
    /// Its name is none.
    Unnamed,
    Here(Bytes),
    Missing,
    Coming,
}

impl Client {
    /// A client that trusts what `store` has.
    pub const fn new(store: TrustStore, jitter: Jitter) -> Self {
        Self {
            store,
            connected: false,
            session: None,
            searching: false,
            timestamp: None,
            root: None,
            watched: None,
            wanted: None,
            search: None,
            orders: None,
            silent_at: None,
            failures: Failures::new(jitter),
        }
    }

    /// The keys that may sign assignments and acknowledgements at `wall`. None before a refresh is
    /// complete, and once something it rests on has expired.
    pub fn fleet_keys(&self, wall: UnixMillis) -> Option<&KeyRing<MAX_FLEET_KEYS>> {
        self.orders.as_ref()?.keys_at(wall)
    }

    /// Succeeds unless an assignment's time lies beyond what trusted metadata allows.
    pub fn check_issued(&self, issued: UnixMillis) -> Result<(), Detail> {
        self.orders.as_ref().map_or(Ok(()), |orders| orders.check_issued(issued))
    }

    /// Why `release` lies below its owner's floor, if the metadata kept here says so.
    pub fn below_floor(&self, release: &ReleaseId) -> Option<Detail> {
        search::below_floor(&self.store, release).map(|error| Detail::new(&error.to_string()))
    }

    /// How far the chain of roots goes; to be taken note of at the start.
    pub const fn root_trusted(&mut self) -> Effect {
        Effect::RootTrusted { floor: self.store.root_floor(), recovered: self.store.take_recovered() }
    }

    /// Until when what the last complete refresh said holds.
    pub fn trusted_until(&self) -> Option<UnixMillis> {
        self.orders.as_ref().map(Orders::until)
    }

    /// Why the last refresh failed; none when it did not.
    pub fn problem(&self) -> Option<&str> {
        self.failures.last()
    }

    /// A session with the broker has begun; nothing is subscribed in it yet.
    pub fn connected(&mut self, now: Now) -> Effects {
        self.connected = true;
        let mut effects = Effects::new();
        self.watched = None;
        self.wanted = None;
        self.ask_anew(now, &mut effects);
        if let Some(search) = &mut self.search {
            search.wait(now.elapsed);
        }
        effects
    }

    /// The session with the broker is over.
    pub fn disconnected(&mut self) {
        self.connected = false;
        (self.session, self.searching) = (None, false);
        (self.timestamp, self.root) = (None, None);
        (self.watched, self.wanted) = (None, None);
        (self.silent_at, self.failures.retry_at) = (None, None);
        if let Some(search) = &mut self.search {
            search.pause();
        }
    }

    /// A metadata file has come.
    pub fn message(&mut self, now: Now, file: &FileName, bytes: &Bytes) -> Effects {
        let mut effects = Effects::new();
        if bytes.is_empty() {
            // A cleared file is one that is not there.
        } else if file.as_str() == "timestamp.json" {
            self.timestamp = Some(bytes.clone());
            self.silent_at = None;
            self.refresh(now, &mut effects);
        } else if self.watched.as_ref() == Some(file) {
            self.root = Some((file.clone(), bytes.clone()));
            if self.timestamp.is_some() {
                self.refresh(now, &mut effects);
            }
        } else if self.wanted.as_ref().is_some_and(|wanted| wanted.file == *file) {
            self.wanted = None;
            effects.push(Effect::Leave(file.clone()));
            self.take(now, bytes, &mut effects);
            self.pump(now, &mut effects);
        }
        effects
    }

    /// Looks for a release, in place of any other that was looked for.
    pub fn search(&mut self, now: Now, target: ReleaseRef) -> Effects {
        let mut search = Search::new(target);
        if self.connected {
            search.wait(now.elapsed);
        }
        self.search = Some(search);
        let mut effects = Effects::new();
        // The answer is to hold at this moment, so that a refresh comes first.
        if self.timestamp.is_some() {
            self.refresh(now, &mut effects);
        }
        effects
    }

    /// Gives up looking for the release with this statement.
    pub fn cancel_search(&mut self, statement: Digest) {
        self.search.take_if(|search| search.target.statement == statement);
    }

    /// When [`Client::tick`] is due.
    pub fn next_deadline(&self) -> Option<Millis> {
        let search = self.search.as_ref().and_then(Search::deadline);
        let wanted = self.wanted.as_ref().map(|wanted| wanted.until);
        [search, wanted, self.silent_at, self.failures.retry_at].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Now) -> Effects {
        let mut effects = Effects::new();
        let over = |until: Option<Millis>| until.is_some_and(|until| until <= now.elapsed);
        if over(self.silent_at) {
            self.silent_at = None;
            self.failed(now, &TrustError::Missing { role: Role::Timestamp }.into(), &mut effects);
        }
        if over(self.wanted.as_ref().map(|wanted| wanted.until))
            && let Some(Err(missing)) = self.session.as_mut().map(Session::missing)
        {
            self.failed(now, &missing.into(), &mut effects);
        }
        if over(self.failures.retry_at) {
            self.ask_anew(now, &mut effects);
        }
        if over(self.search.as_ref().and_then(Search::deadline)) {
            let known = self.search.as_ref().and_then(Search::problem).or(self.failures.last());
            let why = known.unwrap_or("withheld: no trusted metadata has come").to_owned();
            self.unlisted(&why, &mut effects);
        }
        effects
    }

    /// Asks for the next root and the timestamp; with the timestamp a refresh begins.
    fn ask_anew(&mut self, now: Now, effects: &mut Effects) {
        (self.timestamp, self.root, self.failures.retry_at) = (None, None, None);
        let next = match self.session_at(now) {
            Ok(session) => match session.next() {
                Next::Fetch(fetch) => name_of(&fetch),
                Next::Local(_) | Next::Done => None,
            },
            Err(error) => return self.failed(now, &error.into(), effects),
        };
        if self.watched != next {
            effects.extend(self.watched.take().map(Effect::Leave));
        }
        effects.extend(next.clone().map(Effect::Ask));
        self.watched = next;
        // Every role's name is plain, so that there always is one.
        effects.extend(FileName::new("timestamp.json").ok().map(Effect::Ask));
        self.silent_at = Some(now.elapsed.plus(WITHHELD));
    }

    fn refresh(&mut self, now: Now, effects: &mut Effects) {
        self.let_go(effects);
        self.failures.retry_at = None;
        match self.session_at(now) {
            Ok(session) => {
                self.session = Some(session);
                self.pump(now, effects);
            }
            Err(error) => self.failed(now, &error.into(), effects),
        }
    }

    fn session_at(&self, now: Now) -> Result<Session, TrustError> {
        let session = Session::begin(self.store.root(), utc(now.wall), Limits::DEVICE)?;
        Ok(session.not_below(self.store.root_floor().version))
    }

    /// Gives the session what it wants for as long as that is here.
    fn pump(&mut self, now: Now, effects: &mut Effects) {
        while let Some(session) = &mut self.session {
            let outcome = match session.next() {
                Next::Local(role) => session.local(self.store.read(&role).as_deref()),
                Next::Fetch(fetch) => match self.supply(now, &fetch, effects) {
                    Supply::Here(bytes) => {
                        self.take(now, &bytes, effects);
                        continue;
                    }
                    Supply::Unnamed => {
                        let problem = TrustStoreError::Name(fetch.role);
                        self.failed(now, &problem.into(), effects);
                        return;
                    }
                    Supply::Missing => self.session.as_mut().map_or(Ok(()), Session::missing),
                    Supply::Coming => return,
                },
                Next::Done => match self.search.as_ref().filter(|_| !self.searching) {
                    Some(search) => {
                        let begun = session.find(&search.path());
                        self.searching = true;
                        self.refreshed(effects);
                        begun
                    }
                    None => return self.done(effects),
                },
            };
            if let Err(error) = outcome {
                self.failed(now, &error.into(), effects);
            }
        }
    }

    fn supply(&mut self, now: Now, fetch: &Fetch, effects: &mut Effects) -> Supply {
        let Some(file) = name_of(fetch) else { return Supply::Unnamed };
        match fetch.role {
            // One that is refused stays in the way until it is asked for anew.
            Role::Root => match &self.root {
                Some((name, bytes)) if *name == file => Supply::Here(bytes.clone()),
                _ if self.timestamp.is_some() => Supply::Missing,
                _ => Supply::Coming,
            },
            Role::Timestamp => self.timestamp.clone().map_or(Supply::Coming, Supply::Here),
            _ => {
                effects.push(Effect::Ask(file.clone()));
                self.wanted = Some(Wanted { file, until: now.elapsed.plus(WITHHELD) });
                Supply::Coming
            }
        }
    }

    /// Hands a file to the session and keeps it if it is trusted.
    fn take(&mut self, now: Now, bytes: &[u8], effects: &mut Effects) {
        let Some(session) = &mut self.session else { return };
        let kept = session.fetched(bytes).map_err(Problem::from).and_then(|accepted| {
            self.store.accept(&accepted, bytes)?;
            Ok(accepted.keep)
        });
        match kept {
            // There may be one more: its absence shows by a timestamp that comes after asking for it.
            Ok(Some(Role::Root)) => {
                // A key that signed assignments may have been taken back.
                (self.session, self.orders) = (None, None);
                effects.push(self.root_trusted());
                self.ask_anew(now, effects);
            }
            Ok(_) => {}
            Err(problem) => self.failed(now, &problem, effects),
        }
    }

    /// The top-level metadata is trusted.
    fn refreshed(&mut self, effects: &mut Effects) {
        let Some(session) = &self.session else { return };
        let before = std::mem::replace(&mut self.orders, Orders::of(session));
        self.failures.clear();
        let keys_changed = before.as_ref().map(Orders::keys) != self.orders.as_ref().map(Orders::keys);
        effects.push(Effect::Refreshed { keys_changed });
    }

    fn done(&mut self, effects: &mut Effects) {
        if !self.searching {
            self.refreshed(effects);
        }
        let session = self.session.take();
        if let (Some(session), true) = (session, std::mem::take(&mut self.searching)) {
            self.answer(&session, effects);
        }
    }

    fn answer(&mut self, session: &Session, effects: &mut Effects) {
        match self.search.as_mut().map(|search| search.judge(session)) {
            Some(Answer::Listed) => {
                effects.extend(self.search.take().map(|search| Effect::Listed(search.target)));
            }
            Some(Answer::Refused(why)) => self.unlisted(&why, effects),
            Some(Answer::NotYet) | None => {}
        }
    }

    fn unlisted(&mut self, why: &str, effects: &mut Effects) {
        effects.extend(self.search.take().map(|search| Effect::Unlisted(search.target, Detail::new(why))));
    }

    /// The refresh goes no further. What was trusted before stays so until it expires.
    fn failed(&mut self, now: Now, problem: &Problem, effects: &mut Effects) {
        let searching = self.searching;
        self.let_go(effects);
        if searching {
            // The top-level metadata held; the owner's does not.
            self.unlisted(&problem.to_string(), effects);
        } else {
            effects.extend(self.failures.note(now.elapsed, problem).map(Effect::Refuse));
        }
    }

    fn let_go(&mut self, effects: &mut Effects) {
        (self.session, self.searching) = (None, false);
        effects.extend(self.wanted.take().map(|wanted| Effect::Leave(wanted.file)));
    }
}

/// None when the role's name does not fit into a topic: such a file cannot be there.
fn name_of(fetch: &Fetch) -> Option<FileName> {
    FileName::new(&fetch.file_name(str::to_owned)).ok()
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "roots_tests.rs"]
mod roots_tests;
