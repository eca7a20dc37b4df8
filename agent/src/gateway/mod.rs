//! Where local apps ask: Open Inference Protocol V2 over HTTP/1.1, on loopback and on a Unix socket.
//!
//! | module | what lives there |
//! |---|---|
//! | [`router`], [`beside`] | the pointer to the release that answers; the one that is tried beside it |
//! | [`http`], `route`, `describe` | routes, and what is asked of whom; what is said of model and server |
//! | `infer`, `request_id` | one inference, from request bytes to answer bytes; its name in traces |
//! | `counting`, `aftermath` | what is counted of it, and when |
//! | `remember` | what was predicted, until the truth becomes known |
//! | `call`, `parameters`, `few`, `values`, `binary`, `answer` | tensors in and out, as JSON or raw (pure) |
//! | `body`, `origin`, `refusal`, `limits` | bounded reading, who may ask, errors, bounds |
//! | [`listen`], [`socket`], `patience`, `unread` | connections: how many, how long, from where; answers nobody reads |
//!
//! A release is switched between two requests: each one finishes on the release it started with. A request
//! whose worker died under it is asked once more, of another release that took over; one that had only
//! waited for that worker, of whichever worker takes over.

mod aftermath;
mod answer;
pub mod beside;
pub(crate) mod binary;
pub(crate) mod body;
pub(crate) mod call;
mod counting;
mod describe;
mod few;
pub mod http;
mod infer;
mod limits;
pub mod listen;
mod origin;
mod parameters;
mod patience;
pub(crate) mod refusal;
pub(crate) mod remember;
mod request_id;
mod route;
pub mod router;
pub mod socket;
mod unread;
mod values;

pub use beside::Beside;
pub use http::{Gateway, Peer};
pub use limits::Limits;
pub use listen::{Listener, serve};
pub use router::{Infer, Router, Served};
pub use socket::{LocalSocket, SocketError};

#[cfg(test)]
pub(crate) mod tests;
