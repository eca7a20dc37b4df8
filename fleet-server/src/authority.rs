//! A certificate authority in a folder, for fleets that have none: it says which TLS key belongs to which
//! device or server. What a model may run is decided elsewhere; a certificate opens the broker, no more.
//!
//! ```text
//! ca.crt  ca.key                  the authority; ca.key stays here
//! crl.pem                         certificates taken back
//! issued/<name>.<serial>.crt      copies of what was issued
//! revoked/<name>.<serial>.crt     and of what was taken back
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams, SerialNumber,
};
use serin_protocol::ids::{DeviceId, NameError};
use zeroize::Zeroizing;

use crate::durable;

/// The authority's own certificate holds for this many days.
const AUTHORITY_DAYS: u64 = 3650;
/// Certificates hold for this many days unless told otherwise: devices in the field are visited rarely.
pub const DEFAULT_DAYS: u32 = 825;
/// A clock may be this far behind when a certificate is first used.
const BACKDATED: Duration = Duration::from_hours(24);
/// The revocation list holds for this many days, as long as the authority itself: brokers let nobody in once
/// it has expired, and whoever carries it there by hand may not come for years. Nothing is lost by it: a
/// broker that was not given the newest list would not notice a shorter life before its end either.
const LIST_DAYS: u64 = AUTHORITY_DAYS;

/// The authority could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read the private key.
    #[error("{}: mode {mode:o} lets others read the private key; run chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There is one already.
    #[error("{} exists and is not overwritten", .0.display())]
    Exists(PathBuf),
    /// Making or reading a certificate.
    #[error("the certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A name that no device can have.
    #[error("the name: {0}")]
    Name(#[from] NameError),
    /// Nothing was issued under this name.
    #[error("no certificate of {0} is in force")]
    NotIssued(DeviceId),
    /// There is no randomness.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
}

/// Whom a certificate is for.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A device, or a server as client of a broker: it shows its name.
    Client(DeviceId),
    /// A broker or server that devices reach under these host names and addresses. It may be a client too.
    Server {
        /// What it calls itself as a client.
        name: DeviceId,
        /// Host names and addresses.
        hosts: Vec<String>,
    },
}

/// A certificate with its key, both PEM.
#[derive(Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: Zeroizing<String>,
}

/// The authority.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one in `folder`.
    pub fn init(folder: &Path, name: &str) -> Result<Self, AuthorityError> {
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = validity(AUTHORITY_DAYS);
        params.serial_number = Some(serial()?);
        let certificate = params.self_signed(&key)?;
        write_private(&folder.join("ca.key"), key.serialize_pem().as_bytes())?;
        write_new(&folder.join("ca.crt"), certificate.pem().as_bytes(), 0o644)?;
        let authority = Self { folder: folder.into(), issuer: Issuer::new(params, key) };
        authority.write_list()?;
        Ok(authority)
    }

    /// The one in `folder`.
    pub fn open(folder: &Path) -> Result<Self, AuthorityError> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(failed(&path)).map(Zeroizing::new)
        };
        let path = folder.join("ca.key");
        let mode = fs::metadata(&path).map_err(failed(&path))?.mode();
        if mode & 0o077 != 0 {
            return Err(AuthorityError::Exposed { path, mode: mode & 0o7777 });
        }
        let key = KeyPair::from_pem(&read("ca.key")?)?;
        Ok(Self { folder: folder.into(), issuer: Issuer::from_ca_cert_pem(&read("ca.crt")?, key)? })
    }

    /// Where its certificate is, which devices and brokers are given.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// Where the list of revoked certificates is.
    pub fn list(&self) -> PathBuf {
        self.folder.join("crl.pem")
    }

    /// Makes a key and a certificate for it, and renews the list of revoked certificates.
    pub fn issue(&self, subject: &Subject, days: u32) -> Result<Issued, AuthorityError> {
        let (name, hosts) = match subject {
            Subject::Client(name) => (name, Vec::new()),
            Subject::Server { name, hosts } => (name, hosts.clone()),
        };
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if matches!(subject, Subject::Server { .. }) {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(days.into());
        let serial = serial()?;
        params.serial_number = Some(serial.clone());
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        let issued = self.folder.join("issued");
        fs::create_dir_all(&issued).map_err(failed(&issued))?;
        let copy = issued.join(format!("{name}.{}.crt", hex::encode(serial.to_bytes())));
        write_new(&copy, certificate.as_bytes(), 0o644)?;
        self.write_list()?;
        Ok(Issued { certificate, key: Zeroizing::new(key.serialize_pem()) })
    }

    /// Takes every certificate of `name` back and writes the list anew; how many there were.
    pub fn revoke(&self, name: &DeviceId) -> Result<usize, AuthorityError> {
        let (issued, revoked) = (self.folder.join("issued"), self.folder.join("revoked"));
        fs::create_dir_all(&revoked).map_err(failed(&revoked))?;
        let mut count = 0;
        for (of, _, file) in listed(&issued)? {
            if of == name.as_str() {
                fs::rename(issued.join(&file), revoked.join(&file)).map_err(failed(&issued))?;
                count += 1;
            }
        }
        if count == 0 {
            return Err(AuthorityError::NotIssued(name.clone()));
        }
        self.write_list()?;
        Ok(count)
    }

    /// Writes the list of revoked certificates anew, so that it holds for as long as one does; how many are
    /// on it.
    pub fn renew(&self) -> Result<usize, AuthorityError> {
        self.write_list()?;
        Ok(listed(&self.folder.join("revoked"))?.len())
    }

    fn write_list(&self) -> Result<(), AuthorityError> {
        let now = SystemTime::now();
        let revoked =
            listed(&self.folder.join("revoked"))?.into_iter().map(|(_, serial, _)| RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial),
                revocation_time: now.into(),
                reason_code: Some(RevocationReason::CessationOfOperation),
                invalidity_date: None,
            });
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let params = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: validity(LIST_DAYS).1,
            crl_number: SerialNumber::from(since.as_secs()),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer)?.pem()?;
        let path = self.list();
        durable::replace(&path, list.as_bytes()).map_err(failed(&path))
    }
}

/// Writes a private key for its owner's eyes only; never over another.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), AuthorityError> {
    write_new(path, bytes, 0o600)
}

/// Writes a file that was not there.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = opened.and_then(|mut file| {
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()
    });
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => AuthorityError::Exists(path.into()),
        _ => AuthorityError::Io { path: path.into(), source },
    })
}

/// Name, serial and file of every certificate kept in `folder`.
fn listed(folder: &Path) -> Result<Vec<(String, Vec<u8>, String)>, AuthorityError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(AuthorityError::Io { path: folder.into(), source }),
    };
    let mut found = Vec::new();
    for entry in entries {
        let file = entry.map_err(failed(folder))?.file_name().into_string().unwrap_or_default();
        let parts = file.strip_suffix(".crt").and_then(|rest| rest.rsplit_once('.'));
        if let Some((name, serial)) = parts
            && let Ok(serial) = hex::decode(serial)
        {
            found.push((name.to_owned(), serial, file.clone()));
        }
    }
    Ok(found)
}

fn failed(path: &Path) -> impl Fn(io::Error) -> AuthorityError {
    move |source| AuthorityError::Io { path: path.into(), source }
}

fn validity(days: u64) -> (time::OffsetDateTime, time::OffsetDateTime) {
    let now = SystemTime::now();
    ((now - BACKDATED).into(), (now + Duration::from_hours(24 * days)).into())
}

/// 16 random bytes, the first bit zero: positive, as RFC 5280, section 4.1.2.2, wants it.
fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(AuthorityError::Random)?;
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When the list expires, in seconds since 1970, and how many certificates are on it.
    fn list(authority: &Authority) -> (i64, usize) {
        let text = fs::read(authority.list()).expect("there");
        let (_, pem) = x509_parser::pem::parse_x509_pem(&text).expect("PEM");
        let (_, list) = x509_parser::parse_x509_crl(&pem.contents).expect("a list");
        (list.next_update().expect("says").timestamp(), list.iter_revoked_certificates().count())
    }

    #[test]
    fn the_list_outlives_every_certificate_and_is_renewed_with_each() {
        let home = tempfile::tempdir().expect("a folder");
        let authority = Authority::init(&home.path().join("ca"), "fleet").expect("is made");
        let soon = time::OffsetDateTime::from(SystemTime::now()).unix_timestamp();
        let days = |list: (i64, usize)| (list.0 - soon) / 86_400;
        assert!(days(list(&authority)) >= 3649, "{:?}", list(&authority));
        fs::write(authority.list(), "an old one").expect("ours");
        let name: DeviceId = "kiosk-07".parse().expect("name");
        authority.issue(&Subject::Client(name.clone()), 3650).expect("issues");
        assert!(days(list(&authority)) >= 3649 && list(&authority).1 == 0);
        authority.revoke(&name).expect("revokes");
        fs::write(authority.list(), "an old one").expect("ours");
        assert_eq!((authority.renew().expect("renews"), list(&authority).1), (1, 1));
    }

    #[test]
    fn what_is_issued_can_be_taken_back_and_nothing_is_overwritten() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("ca");
        Authority::init(&folder, "fleet").expect("is made");
        assert!(matches!(Authority::init(&folder, "fleet"), Err(AuthorityError::Exists(_))));
        let authority = Authority::open(&folder).expect("opens");
        let name: DeviceId = "kiosk.07".parse().expect("name");
        let first = authority.issue(&Subject::Client(name.clone()), 1).expect("issues");
        let second = authority.issue(&Subject::Client(name.clone()), 1).expect("issues");
        assert_ne!(first.certificate, second.certificate);
        let before = fs::read(authority.list()).expect("there");
        assert_eq!(authority.revoke(&name).expect("revokes"), 2);
        assert_ne!(fs::read(authority.list()).expect("there"), before);
        assert!(matches!(authority.revoke(&name), Err(AuthorityError::NotIssued(_))));
        assert_eq!(authority.renew().expect("renews"), 2);
        let key = folder.join("ca.key");
        assert_eq!(fs::metadata(&key).expect("there").mode() & 0o777, 0o600);
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("ours");
        assert!(matches!(Authority::open(&folder), Err(AuthorityError::Exposed { mode: 0o644, .. })));
    }
}
