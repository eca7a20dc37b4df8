//! Scoring in bulk with the active model: files, standard input, local MQTT topics. All of it asks the running
//! agent through its gateway, so that what is scored is limited, sketched and counted like any app's request.
//!
//! | module | what lives there |
//! |---|---|
//! | [`cli`] | what is typed |
//! | `rows`, `parquet`, `images` | rows as people have them; files of images in them |
//! | `shape` | what a row must hold, and what it weighs |
//! | `asking` | what the model takes; asking about rows, again when the agent is busy |
//! | `bisect`, `pace` | which row a request is refused for; how many are asked about at once |
//! | `batch`, `input`, `checkpoint` | a file, and how far it is |
//! | `stream` | lines that keep coming |
//! | `topics` | messages that keep coming; within it those that wait (`inbox`), and answers until the broker has them (`delivery`) |

pub(crate) mod asking;
mod batch;
mod bisect;
mod checkpoint;
pub mod cli;
mod images;
mod input;
mod pace;
#[cfg(feature = "parquet")]
mod parquet;
pub(crate) mod rows;
mod shape;
mod stream;
mod topics;
