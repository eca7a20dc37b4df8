//! How a command says that it failed, and what to do next.

use std::io::{IsTerminal as _, Write as _};

use serde_json::{Value, json};

/// Why a command failed.
#[derive(Debug)]
pub(super) struct Failure {
    message: String,
    hint: Option<String>,
    /// More for programs.
    details: Value,
}

impl Failure {
    /// A failure with `error`'s own words.
    pub(super) fn new(error: impl std::fmt::Display) -> Self {
        Self { message: error.to_string(), hint: None, details: Value::Null }
    }

    /// The same about `subject`, such as a file.
    pub(super) fn about(subject: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self::new(format!("{subject}: {error}"))
    }

    /// The same with what to do next, where that is known.
    pub(super) fn hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    /// The same with more for programs.
    pub(super) fn details(self, details: Value) -> Self {
        Self { details, ..self }
    }

    /// Prints it, in colour for a terminal unless `NO_COLOR` is set.
    pub(super) fn show(&self, as_json: bool) {
        if as_json {
            let error = json!({"message": self.message, "hint": self.hint, "details": self.details});
            return print(&json!({ "error": error }).to_string());
        }
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = !plain && std::io::stderr().is_terminal();
        let (red, bold, reset) = if colour { ("\x1b[1;31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        eprintln!("{red}error{reset}: {}", self.message);
        if let Some(hint) = &self.hint {
            eprintln!("{bold}next{reset}: {hint}");
        }
    }
}

/// Prints a line; a reader that has gone away, such as `head`, is not an error.
pub(super) fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
