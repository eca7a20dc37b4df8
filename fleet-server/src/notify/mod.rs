//! What goes out to receivers that an operator configured: webhooks and Alertmanagers. [`outbox`] keeps what is not
//! delivered yet, pure and bounded; [`post`] carries one delivery over HTTP; [`keeper`] lets time pass.
//!
//! Only addresses in the server's own configuration are ever spoken to: none comes from a device, a release or an
//! answer, and redirects are not followed.

pub mod keeper;
pub mod outbox;
pub mod post;
pub mod receiver;
