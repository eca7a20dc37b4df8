//! `serin-fleet`.
fn main() {}
