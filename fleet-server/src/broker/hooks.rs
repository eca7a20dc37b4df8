//! The wiring of identity, access, uplink and retained messages into the MQTT engine. Here is what the
//! engine asks and when; what the answer is stands elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rmqtt::codec::types::{MQTT_LEVEL_311, Publish as Packet};
use rmqtt::codec::v5::SubscribeAckReason;
use rmqtt::hook::{Handler, HookManager, HookResult, Parameter, ReturnType, Type};
use rmqtt::retain::RetainStorage;
use rmqtt::session::Session;
use rmqtt::types::{
    AuthResult, ClientId, ConnectInfo, From as Origin, FromType, Id, LastWill, Message as Envelope, Publish,
    PublishAclResult, QoS, Reason, Retain, Subscribe, SubscribeAclResult, TopicFilter, TopicName,
};
use serin_protocol::ids::{Digest, FleetId};
use serin_protocol::topic::Topic;
use tracing::{debug, error, info, warn};

use super::access::{self, Listening, Message};
use super::downlink::Asked;
use super::identity::{Authenticator, Claim, Door, Role};
use super::retained::{Content, Retained, RetainedError, RetainedStore};
use super::revoked::Revoked;
use super::uplink::{Share, Uplink};
use super::withdrawn::Withdrawn;

/// The number of the listener with TLS inside the engine.
pub(super) const TLS_LISTENER: u16 = 2;

/// Under which [`Account`] hangs on a session.
const ACCOUNT: &str = "serin";

/// What one session has under way, in both directions.
#[derive(Clone)]
struct Account {
    share: Share,
    asked: Asked,
}

/// Everything the engine's questions are answered from.
pub(super) struct Gate {
    pub(super) fleet: FleetId,
    pub(super) authenticator: Authenticator,
    pub(super) retained: Arc<RetainedStore>,
    pub(super) uplink: Uplink,
    /// Devices that are cut off.
    pub(super) revoked: Arc<Revoked>,
    /// Where devices come in by TLS: certificates that were taken back.
    pub(super) tls: Option<Arc<Withdrawn>>,
    /// Set when the broker stops, so that no handshake under way becomes a session afterwards.
    pub(super) stopping: AtomicBool,
}

/// Makes the engine ask `gate`.
pub(super) async fn install(gate: &Arc<Gate>, engine: &dyn HookManager) {
    let register = engine.register();
    for question in [
        Type::ClientAuthenticate,
        Type::ClientSubscribeCheckAcl,
        Type::MessagePublish,
        Type::MessagePublishCheckAcl,
        Type::MessageExpiryCheck,
        Type::MessageDelivered,
        Type::MessageDropped,
        Type::ClientDisconnected,
    ] {
        register.add(question, Box::new(Hooks(Arc::clone(gate)))).await;
    }
    register.start().await;
}

struct Hooks(Arc<Gate>);

#[async_trait]
impl Handler for Hooks {
    async fn hook(&self, parameter: &Parameter, _: Option<HookResult>) -> ReturnType {
        let gate = &self.0;
        let answer = match parameter {
            Parameter::ClientAuthenticate(client) => Some(HookResult::AuthResult(gate.authenticate(client))),
            Parameter::ClientSubscribeCheckAcl(session, subscribe) => {
                Some(HookResult::SubscribeAclResult(gate.may_subscribe(session, subscribe).await))
            }
            Parameter::MessagePublish(Some(session), origin, publish) => {
                gate.enter(session, origin, publish).await.map(HookResult::Publish)
            }
            Parameter::MessagePublishCheckAcl(session, publish) => {
                Some(HookResult::PublishAclResult(gate.may_publish(session, publish)))
            }
            Parameter::MessageExpiryCheck(session, _, publish) if gate.is_withdrawn(publish) => {
                account(session).await.asked.done();
                Some(HookResult::MessageExpiry)
            }
            Parameter::MessageDelivered(session, _, publish) => {
                if publish.retain {
                    account(session).await.asked.done();
                }
                gate.fill(publish).await.map(HookResult::Publish)
            }
            Parameter::ClientDisconnected(session, reason) => {
                info!(client = %session.id.client_id, %reason, "disconnected");
                None
            }
            Parameter::MessageDropped(to, _, publish, Reason::MessageQueueFull) => {
                let client = to.as_ref().map_or("", |id| id.client_id.as_ref());
                warn!(client, topic = %publish.topic, "the client reads too slowly; a message to it was dropped");
                None
            }
            _ => None,
        };
        (true, answer)
    }
}

impl Gate {
    fn authenticate(&self, client: &ConnectInfo) -> AuthResult {
        if self.stopping.load(Ordering::Acquire) {
            return AuthResult::NotAuthorized;
        }
        let claim = Claim {
            client_id: client.client_id(),
            user_name: client.username().map(AsRef::as_ref),
            password: client.password().map(AsRef::as_ref),
            door: match (self.tls.is_some(), client.id().lid()) {
                (false, _) => Door::Open,
                (true, TLS_LISTENER) => {
                    Door::Certified(client.cert().and_then(|shown| shown.common_name.as_deref()))
                }
                (true, _) => Door::Server,
            },
        };
        let shown = Shown(claim.client_id);
        if client.proto_ver() != MQTT_LEVEL_311 {
            warn!(client = %shown, "refused: only MQTT 3.1.1 is spoken here");
            return AuthResult::NotAuthorized;
        }
        let role = match self.authenticator.authenticate(&claim) {
            Ok(role) => role,
            Err(refusal) => {
                warn!(client = %shown, from = ?client.ipaddress(), reason = %refusal, "connection refused");
                return AuthResult::BadUsernameOrPassword;
            }
        };
        if let Role::Device(device) = &role
            && self.revoked.contains(device)
        {
            warn!(client = %shown, "connection refused: the device was revoked");
            return AuthResult::NotAuthorized;
        }
        if self.withdrawn(client) {
            warn!(client = %shown, "connection refused: the certificate was revoked");
            return AuthResult::NotAuthorized;
        }
        // The engine publishes a will without asking whether it may be published, so it is asked here.
        if let Some(LastWill::V3(will)) = client.last_will() {
            let message = Message { topic: &will.topic, length: will.message.len(), retained: will.retain };
            if let Err(denied) = access::last_will(&role, &self.fleet, message) {
                warn!(%role, topic = %Shown(&will.topic), reason = %denied, "connection refused for its last will");
                return AuthResult::NotAuthorized;
            }
        }
        info!(%role, from = ?client.ipaddress(), "connected");
        // Never the engine's superuser: that would skip the questions below, for the server too.
        AuthResult::Allow(false, None)
    }

    /// Whether the certificate that a client shows was taken back.
    pub(super) fn withdrawn(&self, client: &ConnectInfo) -> bool {
        let serial = client.cert().and_then(|shown| shown.serial.as_deref());
        self.tls.as_ref().zip(serial).is_some_and(|(withdrawn, serial)| withdrawn.contains(serial))
    }

    async fn may_subscribe(&self, session: &Session, subscribe: &Subscribe) -> SubscribeAclResult {
        let refused = SubscribeAclResult::new_failure(SubscribeAckReason::NotAuthorized);
        let filter: &str = &subscribe.topic_filter;
        let Some(role) = role(session) else { return refused };
        let listening = match access::subscribe(&role, &self.fleet, filter) {
            Ok(listening) => listening,
            Err(denied) => {
                warn!(%role, topic = %Shown(filter), reason = %denied, "subscription refused");
                return refused;
            }
        };
        let Listening::Topic(topic) = listening else {
            return SubscribeAclResult::new_success(subscribe.opts.qos(), None);
        };
        let counts = matches!(role, Role::Device(_)) && self.retained.holds(&topic);
        if counts && !account(session).await.asked.add() {
            hang_up(session, "asks for more than it takes").await;
            return refused;
        }
        match topic {
            // Unacknowledged chunks would be kept in memory per device.
            Topic::Chunk { .. } => SubscribeAclResult::new_success(QoS::AtMostOnce, None),
            _ => SubscribeAclResult::new_success(subscribe.opts.qos(), None),
        }
    }

    /// A message at the door, before [`may_publish`](Self::may_publish): wills and ordinary messages.
    async fn enter(&self, session: &Session, origin: &Origin, publish: &Publish) -> Option<Publish> {
        if matches!(origin.typ(), FromType::LastWill) && was_ended_here(session).await {
            debug!(client = %session.id.client_id, "the will of a session that was ended here is not published");
            return Some(discarded(publish));
        }
        let Some(Role::Device(_)) = role(session) else {
            return None;
        };
        let share = account(session).await.share;
        let mut admitted = publish.clone();
        admitted.payload = self.uplink.admit(&share, &publish.payload).await;
        // The topic is a slice of the same read buffer.
        admitted.topic = TopicName::from(publish.topic.to_string());
        Some(admitted)
    }

    /// A refused message is acknowledged all the same: MQTT 3.1.1 knows no refusal but to hang up, and a
    /// device newer than its server must not be locked out for one topic that the server does not know.
    fn may_publish(&self, session: &Session, publish: &Publish) -> PublishAclResult {
        let Some(role) = role(session) else {
            return PublishAclResult::rejected(true, None);
        };
        let message =
            Message { topic: &publish.topic, length: publish.payload.len(), retained: publish.retain };
        match access::publish(&role, &self.fleet, message) {
            Ok(_) => PublishAclResult::allow(),
            Err(denied) => {
                warn!(%role, topic = %Shown(&publish.topic), reason = %denied, "message refused");
                PublishAclResult::rejected(false, None)
            }
        }
    }

    /// Whether `publish` stands for a chunk that was withdrawn while it waited.
    fn is_withdrawn(&self, publish: &Publish) -> bool {
        self.chunk_behind(publish).is_some_and(|(object, index)| !self.retained.offers(&object, index))
    }

    /// Reads the chunk that `publish` stands for, now that it is its turn.
    async fn fill(&self, publish: &Publish) -> Option<Publish> {
        let (object, index) = self.chunk_behind(publish)?;
        let retained = Arc::clone(&self.retained);
        match tokio::task::spawn_blocking(move || retained.chunk(&object, index)).await {
            Ok(Ok(Some(payload))) => {
                let mut filled = publish.clone();
                filled.payload = payload;
                Some(filled)
            }
            // Without it the message goes out empty, which no chunk is; the device will ask again.
            Ok(Ok(None)) | Err(_) => None,
            Ok(Err(error)) => {
                error!(%object, index, error = &error as &dyn std::error::Error, "a chunk cannot be read");
                None
            }
        }
    }

    /// The chunk that a retained message without a payload stands for. (An ordinary message without a
    /// payload is the news that a chunk was withdrawn; the engine never marks that one as retained.)
    fn chunk_behind(&self, publish: &Publish) -> Option<(Digest, u32)> {
        if !publish.retain || !publish.payload.is_empty() {
            return None;
        }
        match Topic::parse(&self.fleet, &publish.topic) {
            Ok(Topic::Chunk { object, index }) => Some((object, index)),
            _ => None,
        }
    }
}

fn role(session: &Session) -> Option<Role> {
    Role::of_session(&session.id.client_id, session.id.username.as_deref())
}

async fn account(session: &Session) -> Account {
    let open = || Account { share: Share::new(), asked: Asked::default() };
    let mut attributes = session.extra_attrs.write().await;
    attributes.get_default_mut(ACCOUNT.into(), open).map_or_else(open, |account| account.clone())
}

/// Ends a session. The device comes back with a clean slate, which a refusal would not give it.
async fn hang_up(session: &Session, reason: &'static str) {
    let entry = session.scx.extends.shared().await.entry(session.id.clone());
    if let Some(session) = entry.tx() {
        // A closed channel is a session that has ended already.
        let _ = session.unbounded_send(Envelope::Closed(Reason::from_static(reason)));
    }
}

/// Whether another session of the client took over, or the broker is stopping. A will would then say that
/// the client is gone while it is there, or because the broker was.
async fn was_ended_here(session: &Session) -> bool {
    let reasons = session.disconnected_reasons().await.unwrap_or_default();
    if reasons.iter().any(|reason| matches!(reason, Reason::ConnectKicked(_))) {
        return true;
    }
    // The connection broke, but before that was noticed the client was back.
    let entry = session.scx.extends.shared().await.entry(session.id.clone());
    entry.id_same() != Some(true)
}

/// The engine cannot be told to drop a message at this point, but to deliver it to one client only; no
/// client has this id.
fn discarded(publish: &Publish) -> Publish {
    let mut nowhere = publish.clone();
    nowhere.retain = false;
    nowhere.payload = Bytes::new();
    nowhere.target_clientid(ClientId::from_static(""))
}

/// A name given by a stranger, fit for a log.
struct Shown<'a>(&'a str);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /// Characters shown: any topic of ours, whole.
        const MAX_CHARACTERS: usize = 200;
        self.0.chars().take(MAX_CHARACTERS).flat_map(char::escape_debug).try_for_each(|c| write!(f, "{c}"))
    }
}

/// The retained messages as the engine knows them.
pub(super) struct RetainedTopics(pub(super) Arc<RetainedStore>);

#[async_trait]
impl RetainStorage for RetainedTopics {
    fn enable(&self) -> bool {
        true
    }

    fn need_sync(&self) -> bool {
        false
    }

    /// An error hangs up on the publisher before it is acknowledged, so that it will try again.
    async fn set(&self, topic: &TopicName, retain: Retain, _: Option<Duration>) -> rmqtt::Result<()> {
        let (store, name) = (Arc::clone(&self.0), topic.to_string());
        let kept = tokio::task::spawn_blocking(move || {
            let publish = &retain.publish;
            store.keep(&name, publish.qos.value(), &publish.payload)
        });
        match kept.await? {
            Ok(()) => Ok(()),
            Err(error @ (RetainedError::NoSuchChunk { .. } | RetainedError::OtherBytes { .. })) => {
                // Trying again would not help; the publisher reads back what it published.
                warn!(%topic, reason = %error, "a chunk was not retained");
                Ok(())
            }
            Err(error) => {
                error!(%topic, error = &error as &dyn std::error::Error, "a message could not be retained");
                Err(error.into())
            }
        }
    }

    async fn get(&self, filter: &TopicFilter) -> rmqtt::Result<Vec<(TopicName, Retain)>> {
        Ok(self.0.get(filter).into_iter().map(for_engine).collect())
    }

    async fn count(&self) -> isize {
        self.0.count().try_into().unwrap_or(isize::MAX)
    }

    async fn max(&self) -> isize {
        isize::MAX
    }
}

fn for_engine(retained: Retained) -> (TopicName, Retain) {
    let topic = TopicName::from(retained.topic);
    let packet = Packet {
        dup: false,
        retain: true,
        qos: QoS::try_from(retained.qos).unwrap_or(QoS::AtMostOnce),
        topic: topic.clone(),
        packet_id: None,
        payload: match retained.content {
            Content::Payload(payload) => payload,
            Content::Chunk { .. } => Bytes::new(),
        },
        properties: None,
    };
    let origin = Origin::from_system(Id::from(0, ClientId::from_static("")));
    (topic, Retain { msg_id: None, from: origin, publish: Publish::from(packet) })
}
