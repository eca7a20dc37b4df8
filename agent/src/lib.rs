//! Serin on a device: pulls signed releases, proves them, runs them, and can always go back.
//!
//! | room | what lives there | never there |
//! |---|---|---|
//! | [`update`] | what to do next, pure | tokio, files, clocks, randomness |

pub mod update;
