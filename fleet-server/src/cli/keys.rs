//! `serin-fleet keys`.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::{Failure, Report};
use crate::bundle::key_file::{self, public_path};
use crate::fleet::secrets::Secrets;

#[derive(Subcommand)]
pub(super) enum KeysCommand {
    /// Make an Ed25519 key: the private half in PATH, for you alone, the public half in PATH.pub.
    Generate {
        /// File for the private half; it must not exist.
        #[arg(long, value_name = "PATH")]
        out: PathBuf,
    },
    /// Print the public keys that a server signs with, for `serin-fleet trust init`.
    Online {
        /// The server's data folder; keys that are missing are made.
        #[arg(long, value_name = "FOLDER")]
        data: PathBuf,
    },
}

pub(super) fn run(command: &KeysCommand) -> Result<Report, Failure> {
    match command {
        KeysCommand::Generate { out } => {
            let key = key_file::generate(out).map_err(|error| Failure::new(&error).hint(error.hint()))?;
            let public = public_path(out);
            let text = format!(
                "private key  {}\npublic key   {}\n             {key}",
                out.display(),
                public.display()
            );
            let json = json!({"private": out, "public": public, "key": key, "id": key.id()});
            Ok(Report { text, json })
        }
        KeysCommand::Online { data } => {
            std::fs::create_dir_all(data).map_err(|error| Failure::about(data.display(), error))?;
            let secrets = Secrets::open(data).map_err(Failure::new)?;
            let json = serde_json::to_value(secrets.online()).map_err(Failure::new)?;
            // The same either way: it is made to be written into a file.
            Ok(Report { text: json.to_string(), json })
        }
    }
}
