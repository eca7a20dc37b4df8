//! Where local apps ask: Open Inference Protocol V2 over HTTP/1.1, on loopback and on a Unix socket.
//!
//! | module | what lives there |
//! |---|---|
//! | [`router`] | the pointer to the release that answers |
//! | [`http`] | routes, and what is asked of whom |
//! | `infer` | one inference, from request bytes to answer bytes |
//! | `call`, `values`, `answer` | JSON tensors in and out (pure) |
//! | `body`, `origin`, `refusal`, `limits` | bounded reading, who may ask, errors, bounds |
//! | [`listen`], [`socket`], `patience` | connections: how many, how long, from where |
//!
//! A release is switched between two requests: each one finishes on the release it started with. Only
//! a request whose worker died under it is asked once more, of the release that took over.

mod answer;
pub(crate) mod body;
mod call;
pub mod http;
mod infer;
mod limits;
pub mod listen;
mod origin;
mod patience;
pub(crate) mod refusal;
pub mod router;
pub mod socket;
mod values;

pub use http::Gateway;
pub use limits::Limits;
pub use router::{Router, Served};

#[cfg(test)]
#[path = "gateway_tests.rs"]
mod tests;
