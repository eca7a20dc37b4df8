//! What a Mosquitto broker must be told, so that each device reads and writes only what is its own. The
//! same rules as the embedded broker's.

use std::fmt::Write as _;
use std::path::Path;

use serin_protocol::ids::{DeviceId, FleetId};

use super::identity::SERVER_USER;
use super::limits::MAX_PACKET_BYTES;

/// The access list. Names are those in certificates, or of users with passwords. Those of `revoked` devices are
/// denied everything: what is denied to a name goes before what every name is given.
pub fn access_list(fleet: &FleetId, revoked: &[DeviceId]) -> String {
    let base = format!("serin/1/{fleet}");
    let mut text = format!("# Fleet {fleet}. The server:\nuser {SERVER_USER}\ntopic readwrite {base}/#\n");
    for device in revoked {
        let _ = write!(text, "\n# Revoked:\nuser {device}\ntopic deny {base}/#\n");
    }
    text.push_str("\n# Every device, by its name:\n");
    for topic in ["t/+", "b/+/+", "d/%u/assign", "d/%u/ack", "d/%u/enrolled", "d/%u/pause"] {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "pattern read {base}/{topic}");
    }
    for kind in ["hello", "event", "report", "sample", "enrol"] {
        let _ = writeln!(text, "pattern write {base}/d/%u/up/{kind}");
    }
    text
}

/// The configuration of a listener with mutual authentication, for files in `folder` there.
pub fn configuration(folder: &Path, port: u16) -> String {
    let file = |name: &str| folder.join(name).display().to_string();
    format!(
        "# Devices prove who they are with a certificate; its name is their user name, and their client id\n\
         # whatever they call themselves: a second session under one id would end the first, and so anyone\n\
         # could throw out anyone. One fleet per broker, as its servers would throw each other out.\n\
         listener {port}\n\
         cafile {}\ncertfile {}\nkeyfile {}\ncrlfile {}\n\
         require_certificate true\nuse_identity_as_username true\nuse_username_as_clientid true\n\
         allow_anonymous false\n\
         acl_file {}\n\
         # Metadata and chunks; a whole window of them may wait.\n\
         message_size_limit {MAX_PACKET_BYTES}\nmax_queued_messages 10000\n\
         # Otherwise each message waits some 40 ms for the one before it.\n\
         set_tcp_nodelay true\n\
         # What is retained survives a restart.\n\
         persistence true\npersistence_location /var/lib/mosquitto/\n",
        file("ca.crt"),
        file("broker.crt"),
        file("broker.key"),
        file("crl.pem"),
        file("serin.acl"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_given_its_own_topics_only() {
        let list = access_list(&"shop".parse().expect("name"), &["lost".parse().expect("name")]);
        let (server, devices) = list.split_once("# Every device").expect("two parts");
        assert!(server.contains("user serin-server\ntopic readwrite serin/1/shop/#"));
        assert!(server.contains("user lost\ntopic deny serin/1/shop/#"));
        for line in devices.lines().filter(|line| line.starts_with("pattern")) {
            let topic = line.split(' ').next_back().expect("a topic");
            assert!(topic.starts_with("serin/1/shop/"), "{line}");
            assert!(!topic.contains("/d/") || topic.contains("/d/%u/"), "{line}");
            assert!(!line.contains("readwrite") && !topic.contains('#'), "{line}");
        }
        assert!(!devices.contains("write serin/1/shop/t"));
    }
}
