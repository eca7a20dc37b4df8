//! `serin-fleet keys`.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use ed25519_dalek::SigningKey;
use serde_json::json;
use zeroize::Zeroizing;

use super::{Failure, Report};
use crate::bundle::key_file::{self, KeyFileError, public_path};
use crate::fleet::secrets::{Secrets, Successor, add_keys};

#[derive(Subcommand)]
pub(super) enum KeysCommand {
    /// Make an Ed25519 key: the private half in PATH, for you alone, the public half in PATH.pub. The private
    /// half is encrypted with a passphrase: the one in the file that `SERIN_PASSPHRASE_FILE` names, or on a
    /// terminal the one typed; without either it is not.
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
    /// Make new keys that a server signs with, in the place of those it has, and say how publishers let them
    /// sign. The old ones sign until then.
    RotateOnline {
        /// The server's data folder.
        #[arg(long, value_name = "FOLDER")]
        data: PathBuf,
    },
}

/// Largest passphrase file; nobody types more.
const MAX_PASSPHRASE_BYTES: u64 = 1024;

/// The private key at `path`, opened with the passphrase in the file that `SERIN_PASSPHRASE_FILE` names, or
/// the one typed.
pub(super) fn private(path: &Path) -> Result<SigningKey, Failure> {
    let given = passphrase()?;
    let key = key_file::read_private(path, given.as_deref().map(String::as_str));
    if given.is_none()
        && matches!(key, Err(KeyFileError::Locked { .. }))
        && let Some(typed) = typed(&format!("passphrase of {}: ", path.display()))?
    {
        return key_file::read_private(path, Some(&typed)).map_err(|error| failure(&error));
    }
    key.map_err(|error| failure(&error))
}

/// What somebody types, unseen; none without a terminal.
fn typed(prompt: &str) -> Result<Option<Zeroizing<String>>, Failure> {
    if !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    rpassword::prompt_password(prompt).map(|typed| Some(Zeroizing::new(typed))).map_err(Failure::new)
}

/// The passphrase of a new key, typed twice; none for a key in the clear.
fn new_passphrase() -> Result<Option<Zeroizing<String>>, Failure> {
    let Some(first) = typed("passphrase for the new key (empty: none): ")?.filter(|typed| !typed.is_empty())
    else {
        return Ok(None);
    };
    let again = typed("the same again: ")?;
    if again.as_ref() != Some(&first) {
        return Err(Failure::new("the two passphrases differ").hint(Some("try again".into())));
    }
    Ok(Some(first))
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
            let passphrase = match passphrase()? {
                Some(given) => Some(given),
                None => new_passphrase()?,
            };
            let passphrase = passphrase.as_deref().map(String::as_str);
            let key = key_file::generate(out, passphrase).map_err(|error| failure(&error))?;
            let public = public_path(out);
            let open = if passphrase.is_some() { "" } else { "  (not encrypted: no passphrase was given)" };
            let text = format!(
                "private key  {}{open}\npublic key   {}\n             {key}",
                out.display(),
                public.display()
            );
            let json = json!({"private": out, "public": public, "key": key, "id": key.id(), "encrypted": passphrase.is_some()});
            Ok(Report { text, json })
        }
        KeysCommand::Online { data } => {
            std::fs::create_dir_all(data).map_err(|error| Failure::about(data.display(), error))?;
            let secrets = Secrets::open(data).map_err(Failure::new)?;
            let json = serde_json::to_value(secrets.online()).map_err(Failure::new)?;
            // The same either way: it is made to be written into a file.
            Ok(Report { text: json.to_string(), json })
        }
        KeysCommand::RotateOnline { data } => {
            let made = add_keys(data).map_err(Failure::new)?;
            Ok(Report { text: next_steps(&made), json: made.iter().map(successor).collect() })
        }
    }
}

/// What operator and publisher do with new keys of the server.
fn next_steps(made: &[Successor]) -> String {
    let mut lines = vec![
        "made new keys; the old ones sign until publishers name the new ones. First restart the server,"
            .to_owned(),
        "then, where the trust folder is:".to_owned(),
    ];
    for Successor { role, key, before } in made {
        let old: Vec<String> = before.iter().map(|old| old.name().to_string()).collect();
        // Of several old keys only those that are named can be taken away; usually the last one is.
        let old = old.last().cloned().unwrap_or_default();
        lines.push(format!("  serin-fleet trust rotate {role} --add {key} --remove {old}"));
        let by = if *role == "fleet" { "targets" } else { "root" };
        lines.push(format!("  serin-fleet trust sign {by} --key PATH"));
    }
    lines.push("  serin-fleet trust publish".to_owned());
    lines.push("What is removed must be the key in force: `serin-fleet trust show` has it.".to_owned());
    lines.join("\n")
}

fn successor(made: &Successor) -> serde_json::Value {
    let before: Vec<String> = made.before.iter().map(|old| old.name().to_string()).collect();
    json!({"role": made.role, "key": made.key, "before": before})
}
