//! What must survive a power cut, below one state directory.
//!
//! ```text
//! boot.a  boot.b                     what decides what runs        boot_record
//! files/<sha256>                     every unpacked file, once     releases, unpack
//! releases/<statement>/<name>        hard links into files/
//! staging/                           releases being built or removed
//! partial/<sha256>                   objects being downloaded      partial, intake
//! trust/roots/<version>.json         every root since the first   crate::trust::store
//! trust/roles/<role>.json            other trusted metadata
//! fetched.today                      bytes fetched today           spent
//! starts                             starts without a stop since   starts
//! journal/  journal.corrupt-<n>/     outbox, history, counters     journal, journal_history
//!                                    answers that wait for truth   journal_answers
//! journal.opening                    how often opening it failed  journal_guard
//! journal.next_event                 its highest number, beside it
//! journal.losses                     what found no room in it      losses
//! ```
//!
//! While the disk takes no writes the journal is in memory: [`journal_home`].
//!
//! Everything but the inside of `journal/` goes through [`seam::Files`]. Nothing here decides anything:
//! the pure rooms do, and hand down what is to be written.

pub mod boot_record;
pub mod install;
pub mod intake;
pub mod journal;
mod journal_answers;
mod journal_guard;
mod journal_history;
pub mod journal_home;
mod journal_tree;
pub mod losses;
pub mod partial;
pub mod releases;
pub mod seam;
pub mod spent;
pub mod starts;
pub mod unpack;
#[cfg(feature = "virtual-disk")]
pub mod virtual_disk;
