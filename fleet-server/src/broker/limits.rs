//! What one session may hold. Devices are many and untrusted, the server is one and must miss nothing, so
//! the two have different queues.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use rmqtt::codec::types::Publish;
use rmqtt::fitter::{DefaultFitter, Fitter, FitterManager};
use rmqtt::types::{ConnectInfo, Disconnect, FitterType, Id, ListenerConfig};

use super::identity::SERVER_USER;
use super::{retained, uplink};

/// Largest packet in bytes: two chunks; large MQTT services have the same limit.
pub(super) const MAX_PACKET_BYTES: u32 = 128 * 1024;

/// Subscriptions of one session: a window of 16 chunks, two control topics, metadata, and twice as much
/// for an `UNSUBSCRIBE` that has not been acknowledged.
pub(super) const MAX_SUBSCRIPTIONS: usize = 64;

/// Messages to a device that it has not acknowledged. Chunks are not acknowledged, so these are
/// assignments and metadata.
pub(super) const DEVICE_IN_FLIGHT: NonZeroU16 = NonZeroU16::new(16).unwrap();

/// Messages that wait for a device that reads slowly: every subscription's retained message, four times
/// over. Chunks wait as a few hundred bytes each and are read when their turn comes.
const DEVICE_QUEUE: usize = 256;

/// Messages to the server that it has not acknowledged: enough to keep a loopback link busy.
const SERVER_IN_FLIGHT: NonZeroU16 = NonZeroU16::new(1024).unwrap();

/// Messages that wait for the server: one wildcard subscription fetches every retained hello, and all that
/// devices may have under way comes on top. So nothing to the server is ever dropped for lack of room.
const SERVER_QUEUE: usize = retained::MAX_MESSAGES + uplink::MAX_MESSAGES;

/// Longest a packet may take to leave: a full one at 1 KiB/s, which is less than any link in use.
pub(super) const SEND_TIMEOUT: Duration = Duration::from_mins(2);

/// Longest a client may take from its first byte to a complete `CONNECT`.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest keep-alive in seconds; half as much again passes before a vanished device's will is published.
pub(super) const MAX_KEEP_ALIVE_SECONDS: u16 = 3600;

/// Handshakes carried out at a time when a whole fleet reconnects.
pub(super) const MAX_HANDSHAKES: usize = 256;

/// Connections that the kernel holds until they are accepted.
pub(super) const BACKLOG: i32 = 1024;

/// Gives each session its limits by role.
pub(super) struct Limits;

impl FitterManager for Limits {
    fn create(&self, client: Arc<ConnectInfo>, id: Id, listener: ListenerConfig) -> FitterType {
        let server = client.username().is_some_and(|name| name == SERVER_USER);
        Arc::new(SessionLimits { common: DefaultFitter::new(client, id, listener), server })
    }
}

struct SessionLimits {
    common: DefaultFitter,
    server: bool,
}

impl Fitter for SessionLimits {
    fn keep_alive(&self, seconds: &mut u16) -> rmqtt::Result<u16> {
        self.common.keep_alive(seconds)
    }

    fn max_mqueue_len(&self) -> usize {
        if self.server { SERVER_QUEUE } else { DEVICE_QUEUE }
    }

    fn mqueue_rate_limit(&self) -> (NonZeroU32, Duration) {
        self.common.mqueue_rate_limit()
    }

    fn max_inflight(&self) -> NonZeroU16 {
        if self.server { SERVER_IN_FLIGHT } else { DEVICE_IN_FLIGHT }
    }

    /// A session ends with its connection: what must outlive it is retained, or kept by its sender until
    /// the receiver says that it has stored it.
    fn session_expiry_interval(&self, _: Option<&Disconnect>) -> Duration {
        Duration::ZERO
    }

    /// Nothing expires: queues are bounded by number, and retained messages are replaced, not outlived.
    fn message_expiry_interval(&self, _: &Publish) -> Duration {
        Duration::ZERO
    }

    fn max_client_topic_aliases(&self) -> u16 {
        0
    }

    fn max_server_topic_aliases(&self) -> u16 {
        0
    }
}
