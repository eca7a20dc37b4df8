//! Why a command of the engineer's failed, how that is told to the shell, and what to do next.

use std::io;

use super::cli::Exit;
use super::client::{ClientError, way_in};
use crate::scoring::rows::RowsError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{message}")]
    Usage { message: String, next: String },
    /// What was rightly asked for could not be brought to its end.
    #[error("{message}")]
    Stopped { message: String, next: String },
    #[error("the output cannot be written: {0}")]
    Output(#[source] io::Error),
}

impl CliError {
    pub(crate) fn rows(error: &RowsError) -> Self {
        let next = "correct the input; rows before this one have been answered".into();
        Self::Usage { message: error.to_string(), next }
    }

    pub(crate) fn malformed(error: &serde_json::Error) -> Self {
        Self::Client(ClientError::Malformed(error.to_string()))
    }

    pub(crate) fn input(error: &io::Error) -> Self {
        Self::Usage { message: format!("the input cannot be read: {error}"), next: "check the input".into() }
    }

    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Client(ClientError::Unreachable { .. } | ClientError::Broken(_)) => Exit::Unreachable,
            Self::Usage { .. } => Exit::Usage,
            // Whoever read along has seen enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Stopped { .. }
            | Self::Client(
                ClientError::Refused(_)
                | ClientError::Failed { .. }
                | ClientError::Deadly { .. }
                | ClientError::Malformed(_),
            )
            | Self::Output(_) => Exit::Refused,
        }
    }

    pub(super) fn next(&self) -> String {
        match self {
            Self::Client(ClientError::Unreachable { socket, source }) => way_in(socket, source.kind()),
            Self::Client(ClientError::Broken(_)) => "look at the agent's log, then try again".into(),
            Self::Client(ClientError::Refused(error)) => error.next.clone(),
            Self::Client(ClientError::Failed { status: 429 | 503, .. }) => {
                "try again in a moment; `serin-agent status` shows what runs".into()
            }
            Self::Client(ClientError::Deadly { .. }) => {
                "`serin-agent batch --keep-going` finds the row and answers the others; `serin-agent history` shows what \
                 became of the release"
                    .into()
            }
            Self::Client(ClientError::Failed { status: 400 | 413, .. }) => "correct the input".into(),
            Self::Client(ClientError::Failed { .. }) => "`serin-agent status` shows what runs".into(),
            Self::Client(ClientError::Malformed(_)) => {
                "agent and command line are of different versions; update the older one".into()
            }
            Self::Usage { next, .. } | Self::Stopped { next, .. } => next.clone(),
            Self::Output(_) => "check where the output goes".into(),
        }
    }
}
