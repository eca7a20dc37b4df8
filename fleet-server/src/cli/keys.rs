//! `serin-fleet keys`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use ed25519_dalek::SigningKey;
use serde_json::json;
use zeroize::Zeroizing;

use super::{Failure, Report};
use crate::bundle::key_file::{self, KeyFileError, public_path};
use crate::fleet::secrets::Secrets;

#[derive(Subcommand)]
pub(super) enum KeysCommand {
    /// Make an Ed25519 key: the private half in PATH, for you alone, the public half in PATH.pub. The private
    /// half is encrypted when `SERIN_PASSPHRASE_FILE` names a file with a passphrase.
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

/// Largest passphrase file; nobody types more.
const MAX_PASSPHRASE_BYTES: u64 = 1024;

/// The private key at `path`, opened with the passphrase in the file that `SERIN_PASSPHRASE_FILE` names.
pub(super) fn private(path: &Path) -> Result<SigningKey, Failure> {
    let passphrase = passphrase()?;
    let key = key_file::read_private(path, passphrase.as_deref().map(String::as_str));
    key.map_err(|error| failure(&error))
}

pub(super) fn failure(error: &KeyFileError) -> Failure {
    Failure::new(error).hint(error.hint())
}

/// The passphrase in the file that `SERIN_PASSPHRASE_FILE` names, without its line end.
fn passphrase() -> Result<Option<Zeroizing<String>>, Failure> {
    let Some(path) = std::env::var_os("SERIN_PASSPHRASE_FILE") else { return Ok(None) };
    let path = PathBuf::from(path);
    let about = |error: std::io::Error| Failure::about(path.display(), error);
    let mut text = Zeroizing::new(String::with_capacity(MAX_PASSPHRASE_BYTES as usize));
    let file = std::fs::File::open(&path).map_err(about)?;
    file.take(MAX_PASSPHRASE_BYTES).read_to_string(&mut text).map_err(about)?;
    let passphrase = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    if passphrase.is_empty() {
        return Err(Failure::new(format!("{} holds no passphrase", path.display())));
    }
    Ok(Some(passphrase))
}

pub(super) fn run(command: &KeysCommand) -> Result<Report, Failure> {
    match command {
        KeysCommand::Generate { out } => {
            let passphrase = passphrase()?;
            let passphrase = passphrase.as_deref().map(String::as_str);
            let key = key_file::generate(out, passphrase).map_err(|error| failure(&error))?;
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
