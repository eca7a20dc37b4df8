//! The field engineer on site: what he can ask of the running agent, and the commands he types.
//!
//! | module | what lives there |
//! |---|---|
//! | [`command`], [`reply`] | what is asked and answered, as the supervisor sees it and as JSON |
//! | [`checkup`], [`protections`] | what is well and what is not, with remedies (pure) |
//! | [`configuration`] | what may be shown of it |
//! | [`history`] | events in words |
//! | `routes` | `/field/v1/*` on the Unix socket |
//! | [`client`] | HTTP over that socket, from the other side |
//! | [`cli`] | what the engineer types |
//! | `carry`, [`label`], `logs` | what the commands of these names do |
//! | `sideload` | a release that is brought, as it is read |
//! | [`trial`] | how a release is tried, in words |
//! | `support` | the file for the office |
//! | `print` | what people read (pure) |

pub(crate) mod carry;
pub mod checkup;
mod class;
pub mod cli;
mod cli_error;
pub mod client;
pub mod command;
pub mod configuration;
pub mod held_up;
pub mod history;
mod infer;
pub mod label;
mod logs;
mod print;
pub mod protections;
pub mod reply;
pub(crate) mod routes;
mod sideload;
mod support;
pub mod trial;

pub use command::{FieldCommand, FieldOutcome, FieldRequest};
pub use reply::{FieldCode, FieldError, FieldReply, Status};
