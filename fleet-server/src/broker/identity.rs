//! Who is connecting. A session's role is decided here once, from what the client claims and proves.

use std::fmt;

use serin_protocol::ids::{DeviceId, Digest, NameError};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// User name of the server's own client.
pub const SERVER_USER: &str = "serin-server";

/// What the server's client ids start with. Client ids are one namespace and a second session takes over
/// from the first, so a device with the server's client id could throw the server out: no device may have
/// such an id.
pub const SERVER_CLIENT_PREFIX: &str = "serin-server";

/// The password of the server's own client.
#[derive(Clone)]
pub struct ServerPassword(Zeroizing<Vec<u8>>);

/// The server's password is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker password of the server is empty")]
pub struct EmptyPassword;

impl ServerPassword {
    /// Takes any bytes but none.
    pub fn new(password: impl Into<Vec<u8>>) -> Result<Self, EmptyPassword> {
        let password = Zeroizing::new(password.into());
        if password.is_empty() { Err(EmptyPassword) } else { Ok(Self(password)) }
    }

    /// Compares digests, so that neither content nor length can be learnt from the time it takes.
    fn matches(&self, presented: &[u8]) -> bool {
        Digest::of(&self.0).0.ct_eq(&Digest::of(presented).0).into()
    }
}

impl fmt::Debug for ServerPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerPassword(…)")
    }
}

/// What a client says of itself when it connects.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    /// Its MQTT client id.
    pub client_id: &'a str,
    /// Its user name, if it gave one.
    pub user_name: Option<&'a str>,
    /// Its password, if it gave one.
    pub password: Option<&'a [u8]>,
    /// Where it came in.
    pub door: Door<'a>,
}

/// Where a client came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door<'a> {
    /// The only listener of a broker without TLS.
    Open,
    /// The listener beside one with TLS, for the server alone.
    Server,
    /// The listener with TLS: the name in the certificate, which the authority has vouched for.
    Certified(Option<&'a str>),
}

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The fleet server itself.
    Server,
    /// One device of the fleet.
    Device(DeviceId),
}

/// Why a client may not connect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The server's user name with a wrong password or none.
    #[error("wrong password for {SERVER_USER}")]
    Password,
    /// The server's user name with a client id that a device could have.
    #[error("the server's client id must start with {SERVER_CLIENT_PREFIX}")]
    ServerClientId,
    /// A device with a client id kept for the server.
    #[error("client ids that start with {SERVER_CLIENT_PREFIX} are the server's")]
    ReservedClientId,
    /// The client id is no device id.
    #[error("the client id is not a device id: {0}")]
    DeviceId(#[from] NameError),
    /// A device that names a user other than itself.
    #[error("a device's user name is its device id, or none")]
    UserName,
    /// A device with another's certificate.
    #[error("the certificate is not this device's")]
    Certificate,
    /// A device where only the server comes in, or the other way round.
    #[error("this is not its listener")]
    Door,
}

/// Decides who is connecting.
#[derive(Debug)]
pub struct Authenticator {
    server_password: ServerPassword,
}

impl Authenticator {
    /// Lets the server in with this password.
    pub fn new(server_password: ServerPassword) -> Self {
        Self { server_password }
    }

    /// The role of the client behind `claim`.
    pub fn authenticate(&self, claim: &Claim<'_>) -> Result<Role, Refusal> {
        if claim.user_name == Some(SERVER_USER) {
            if !self.server_password.matches(claim.password.unwrap_or_default()) {
                return Err(Refusal::Password);
            }
            if !claim.client_id.starts_with(SERVER_CLIENT_PREFIX) {
                return Err(Refusal::ServerClientId);
            }
            return match claim.door {
                Door::Open | Door::Server => Ok(Role::Server),
                Door::Certified(_) => Err(Refusal::Door),
            };
        }
        if claim.client_id.starts_with(SERVER_CLIENT_PREFIX) {
            return Err(Refusal::ReservedClientId);
        }
        let device = DeviceId::new(claim.client_id)?;
        if claim.user_name.is_some_and(|name| name != device.as_str()) {
            return Err(Refusal::UserName);
        }
        match claim.door {
            Door::Open => Ok(Role::Device(device)),
            Door::Server => Err(Refusal::Door),
            Door::Certified(Some(name)) if name == device.as_str() => Ok(Role::Device(device)),
            Door::Certified(_) => Err(Refusal::Certificate),
        }
    }
}

impl Role {
    /// The role of a session that [`Authenticator::authenticate`] let in; `None` for any other.
    pub fn of_session(client_id: &str, user_name: Option<&str>) -> Option<Self> {
        match user_name {
            Some(SERVER_USER) => Some(Self::Server),
            _ => DeviceId::new(client_id).ok().map(Self::Device),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => f.write_str("server"),
            Self::Device(device) => write!(f, "device {device}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authenticate(
        client_id: &str,
        user_name: Option<&str>,
        password: Option<&str>,
    ) -> Result<Role, Refusal> {
        let claim = Claim { client_id, user_name, password: password.map(str::as_bytes), door: Door::Open };
        Authenticator::new(ServerPassword::new("sesame").expect("not empty")).authenticate(&claim)
    }

    #[test]
    fn the_server_needs_its_password_and_its_client_id() {
        let server = Some(SERVER_USER);
        assert_eq!(authenticate("serin-server", server, Some("sesame")), Ok(Role::Server));
        assert_eq!(authenticate("serin-server-2", server, Some("sesame")), Ok(Role::Server));
        for wrong in [None, Some(""), Some("sesam"), Some("sesame ")] {
            assert_eq!(authenticate("serin-server", server, wrong), Err(Refusal::Password));
        }
        assert_eq!(authenticate("press-7", server, Some("sesame")), Err(Refusal::ServerClientId));
    }

    #[test]
    fn a_device_cannot_take_the_servers_session_over() {
        assert_eq!(authenticate("serin-server", None, None), Err(Refusal::ReservedClientId));
        assert_eq!(authenticate("serin-server", Some("serin-server"), None), Err(Refusal::Password));
    }

    #[test]
    fn a_device_is_its_client_id() {
        let device = Role::Device(DeviceId::new("press-7").expect("valid"));
        assert_eq!(authenticate("press-7", None, None), Ok(device.clone()));
        assert_eq!(authenticate("press-7", Some("press-7"), Some("x")), Ok(device));
        assert_eq!(authenticate("press-7", Some("press-8"), None), Err(Refusal::UserName));
        assert!(matches!(authenticate("press/7", None, None), Err(Refusal::DeviceId(_))));
    }

    #[test]
    fn a_certificate_opens_the_door_for_the_device_it_names() {
        let enter = |client_id, user_name, door| {
            let claim = Claim { client_id, user_name, password: Some(b"sesame"), door };
            Authenticator::new(ServerPassword::new("sesame").expect("not empty")).authenticate(&claim)
        };
        let device = Role::Device(DeviceId::new("press-7").expect("valid"));
        assert_eq!(enter("press-7", None, Door::Certified(Some("press-7"))), Ok(device));
        for door in [Door::Certified(Some("press-8")), Door::Certified(None)] {
            assert_eq!(enter("press-7", None, door), Err(Refusal::Certificate));
        }
        assert_eq!(enter("press-7", None, Door::Server), Err(Refusal::Door));
        let server = Some(SERVER_USER);
        assert_eq!(enter("serin-server", server, Door::Server), Ok(Role::Server));
        assert_eq!(enter("serin-server", server, Door::Certified(Some("serin-server"))), Err(Refusal::Door));
    }

    #[test]
    fn an_empty_server_password_is_refused_and_none_is_ever_printed() {
        assert!(ServerPassword::new("").is_err());
        let printed = format!("{:?}", ServerPassword::new("sesame").expect("not empty"));
        assert!(!printed.contains("sesame"), "{printed}");
    }
}
