//! `serin-fleet ca`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;
use serin_protocol::ids::DeviceId;

use super::{Failure, Report};
use crate::authority::{Authority, AuthorityError, DEFAULT_DAYS, Subject, write_new, write_private};

#[derive(Subcommand)]
pub(super) enum CaCommand {
    /// Make a certificate authority in a folder: ca.crt for everybody, ca.key for nobody else.
    Init {
        /// The folder.
        #[arg(long, value_name = "FOLDER", default_value = "ca")]
        ca: PathBuf,
        /// What it is called.
        #[arg(long, default_value = "Serin fleet")]
        name: String,
    },
    /// Make a key and a certificate for a device, or with --host for a broker or server.
    Issue {
        /// The device's id. A server that is a client of your own broker is `serin-server`.
        name: DeviceId,
        /// The folder of the authority.
        #[arg(long, value_name = "FOLDER", default_value = "ca")]
        ca: PathBuf,
        /// Host names and addresses under which devices reach it.
        #[arg(long, value_name = "HOST", num_args = 1..)]
        host: Vec<String>,
        /// Folder for NAME.crt and NAME.key.
        #[arg(long, value_name = "FOLDER", default_value = ".")]
        out: PathBuf,
        /// Days until it expires.
        #[arg(long, value_name = "DAYS", default_value_t = DEFAULT_DAYS, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
    /// Write crl.pem anew, so that it holds for ten years from now; your broker must be given it anew.
    Renew {
        /// The folder of the authority.
        #[arg(long, value_name = "FOLDER", default_value = "ca")]
        ca: PathBuf,
    },
    /// Take every certificate of a name back: writes crl.pem, which your broker must be given anew.
    Revoke {
        /// The device's id.
        name: DeviceId,
        /// The folder of the authority.
        #[arg(long, value_name = "FOLDER", default_value = "ca")]
        ca: PathBuf,
    },
}

pub(super) fn run(command: &CaCommand) -> Result<Report, Failure> {
    match command {
        CaCommand::Init { ca, name } => {
            let authority = Authority::init(ca, name).map_err(|error| failure(&error))?;
            let certificate = authority.certificate();
            let text = format!("{}: give it to devices and brokers", certificate.display());
            Ok(Report { text, json: json!({"certificate": certificate, "list": authority.list()}) })
        }
        CaCommand::Issue { name, ca, host, out, days } => issue(name, ca, host, out, *days),
        CaCommand::Renew { ca } => {
            let authority = open(ca)?;
            let count = authority.renew().map_err(|error| failure(&error))?;
            let list = authority.list();
            let text =
                format!("{} is new; {count} certificates are on it: give it to the broker", list.display());
            Ok(Report { text, json: json!({"revoked": count, "list": list}) })
        }
        CaCommand::Revoke { name, ca } => {
            let authority = open(ca)?;
            let count = authority.revoke(name).map_err(|error| failure(&error))?;
            let list = authority.list();
            let text = format!("{count} certificates of {name} are revoked: {}", list.display());
            Ok(Report { text, json: json!({"revoked": count, "list": list}) })
        }
    }
}

fn issue(name: &DeviceId, ca: &Path, hosts: &[String], out: &Path, days: u32) -> Result<Report, Failure> {
    let subject = match hosts {
        [] => Subject::Client(name.clone()),
        hosts => Subject::Server { name: name.clone(), hosts: hosts.to_vec() },
    };
    let issued = open(ca)?.issue(&subject, days).map_err(|error| failure(&error))?;
    std::fs::create_dir_all(out).map_err(|error| Failure::about(out.display(), error))?;
    let (certificate, key) = (out.join(format!("{name}.crt")), out.join(format!("{name}.key")));
    write_private(&key, issued.key.as_bytes()).map_err(|error| failure(&error))?;
    write_new(&certificate, issued.certificate.as_bytes(), 0o644).map_err(|error| failure(&error))?;
    let text = format!("certificate  {}\nkey          {}", certificate.display(), key.display());
    Ok(Report { text, json: json!({"certificate": certificate, "key": key}) })
}

fn open(folder: &Path) -> Result<Authority, Failure> {
    Authority::open(folder).map_err(|error| failure(&error))
}

fn failure(error: &AuthorityError) -> Failure {
    let hint = match error {
        AuthorityError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Some("make an authority with `serin-fleet ca init`".into())
        }
        AuthorityError::Exists(_) => Some("move it away first".into()),
        _ => None,
    };
    Failure::new(error).hint(hint)
}
