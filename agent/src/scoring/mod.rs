//! Scoring in bulk with the active model: files, standard input, local MQTT topics. All of it asks the running
//! agent through its gateway, so that what is scored is limited, sketched and counted like any app's request.
//!
//! | module | what lives there |
//! |---|---|
//! | [`cli`] | what is typed |
//! | `rows`, `parquet`, `images` | rows as people have them; files of images in them |
//! | `asking` | what the model takes; asking about rows, again when the agent is busy |
//! | `batch`, `checkpoint` | a file, and how far it is |
//! | `stream`, `topics` | lines and messages that keep coming |

pub(crate) mod asking;
mod batch;
mod checkpoint;
pub mod cli;
mod images;
#[cfg(feature = "parquet")]
mod parquet;
pub(crate) mod rows;
mod stream;
mod topics;
