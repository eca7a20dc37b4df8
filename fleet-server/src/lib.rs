//! Serin's fleet server.
