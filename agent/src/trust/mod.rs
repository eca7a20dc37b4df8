//! Who may say what this device runs: the TUF client's files and its conversation with the broker. What
//! holds and what does not is decided in `serin_protocol::trust`.
//!
//! | module | what lives there |
//! |---|---|
//! | [`store`] | the trusted metadata on disk |
//! | [`client`] | refreshes over subscriptions |
//! | `orders` | who may order, as the last refresh said |
//! | `failures` | when a failed refresh is tried again, and what is reported |
//! | [`offline`] | a refresh from a file that somebody brings |
//! | `search` | whether a release may be installed |

pub mod client;
mod failures;
pub mod offline;
mod orders;
mod search;
pub mod store;
