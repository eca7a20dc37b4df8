//! `serin-agent`.
fn main() {}
