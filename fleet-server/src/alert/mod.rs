//! Alerts: rules as data, what the fleet shows held against them, and who is told. Pure: time, readings and routes
//! are arguments, what is to be said is returned.
//!
//! A rule looks at one number of each group (a release, or all releases of an owner). [`standing`] is the machine
//! that keeps a number near its limit from ringing again and again; [`book`] runs one for every rule and group, and
//! one more for whether there is anything to look at, because no data is never fine.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod alertmanager;
pub mod book;
pub mod condition;
pub mod note;
pub mod reading;
pub mod rule;
pub mod silence;
pub mod standing;
pub mod webhook;

pub use book::{Book, Look};
pub use condition::{Condition, Judged};
pub use note::{Alert, Change, Kind, Note};
pub use reading::{Group, Reading};
pub use rule::{Grouping, Rule, RuleError, RuleName, Severity};
pub use silence::{Matcher, Silence, SilenceError, SilenceId};
pub use standing::{Signal, Standing};
