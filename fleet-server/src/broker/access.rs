//! Who may say and hear what. Pure: the answer depends on the role and the topic alone.
//!
//! | | publish | retained | subscribe |
//! |---|---|---|---|
//! | server | any topic of the fleet | yes | anything below `serin/1/<fleet>/`, wildcards too |
//! | device | `d/<itself>/up/{event,report,sample,hello,enrol}` | `hello` only | exactly `t/<file>`, `b/<object>/<n>`, `d/<itself>/assign`, `d/<itself>/ack`, `d/<itself>/enrolled`, `d/<itself>/pause` |
//!
//! A device's last will is a publish like any other, and further must be its own `hello`.

use serin_protocol::ids::FleetId;
use serin_protocol::topic::{Topic, TopicError};

use super::identity::Role;

/// Why something may not be said or heard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The topic is not one of ours; wildcards are not topics.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The topic belongs to another device.
    #[error("the topic is another device's")]
    OtherDevice,
    /// Only the server writes there.
    #[error("only the server writes there")]
    ServerWrites,
    /// Only the server reads there.
    #[error("only the server reads there")]
    ServerReads,
    /// A retained message where none is kept.
    #[error("nothing is retained there")]
    NotRetained,
    /// A last will other than the device's own hello.
    #[error("a last will is the device's own hello")]
    Will,
    /// The payload is larger than its topic allows.
    #[error("{actual} bytes, at most {limit} are allowed there")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
        /// Bytes given.
        actual: usize,
    },
}

/// What a client wants to say.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// The topic as sent.
    pub topic: &'a str,
    /// Bytes in the payload.
    pub length: usize,
    /// Whether it is to be retained.
    pub retained: bool,
}

/// Whether `role` may publish `message`; the topic if so.
pub fn publish(role: &Role, fleet: &FleetId, message: Message<'_>) -> Result<Topic, Denied> {
    let topic = Topic::parse(fleet, message.topic)?;
    let limit = topic.max_payload();
    if message.length > limit {
        return Err(Denied::TooLarge { limit, actual: message.length });
    }
    let Role::Device(device) = role else {
        return Ok(topic);
    };
    match &topic {
        Topic::Metadata(_)
        | Topic::Chunk { .. }
        | Topic::Assign(_)
        | Topic::Ack(_)
        | Topic::Enrolled(_)
        | Topic::Pause(_) => Err(Denied::ServerWrites),
        Topic::Hello(of) | Topic::Event(of) | Topic::Report(of) | Topic::Sample(of) | Topic::Enrol(of)
            if of != device =>
        {
            Err(Denied::OtherDevice)
        }
        Topic::Event(_) | Topic::Report(_) | Topic::Sample(_) | Topic::Enrol(_) if message.retained => {
            Err(Denied::NotRetained)
        }
        Topic::Hello(_) | Topic::Event(_) | Topic::Report(_) | Topic::Sample(_) | Topic::Enrol(_) => {
            Ok(topic)
        }
    }
}

/// Whether `role` may leave `message` as its last will.
pub fn last_will(role: &Role, fleet: &FleetId, message: Message<'_>) -> Result<(), Denied> {
    match (role, publish(role, fleet, message)?) {
        (Role::Server, _) | (Role::Device(_), Topic::Hello(_)) => Ok(()),
        (Role::Device(_), _) => Err(Denied::Will),
    }
}

/// What a client may listen to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listening {
    /// Exactly this topic.
    Topic(Topic),
    /// Every topic that matches the filter (the server only).
    Filter,
}

/// Whether `role` may subscribe to `filter`.
pub fn subscribe(role: &Role, fleet: &FleetId, filter: &str) -> Result<Listening, Denied> {
    let device = match role {
        Role::Server => return server_filter(fleet, filter),
        Role::Device(device) => device,
    };
    let topic = Topic::parse(fleet, filter)?;
    match &topic {
        Topic::Metadata(_) | Topic::Chunk { .. } => Ok(Listening::Topic(topic)),
        Topic::Assign(of) | Topic::Ack(of) | Topic::Enrolled(of) | Topic::Pause(of) if of == device => {
            Ok(Listening::Topic(topic))
        }
        Topic::Assign(_) | Topic::Ack(_) | Topic::Enrolled(_) | Topic::Pause(_) => Err(Denied::OtherDevice),
        Topic::Event(_) | Topic::Report(_) | Topic::Sample(_) | Topic::Hello(_) | Topic::Enrol(_) => {
            Err(Denied::ServerReads)
        }
    }
}

fn server_filter(fleet: &FleetId, filter: &str) -> Result<Listening, Denied> {
    let ours = filter
        .strip_prefix("serin/1/")
        .and_then(|rest| rest.strip_prefix(fleet.as_str()))
        .is_some_and(|rest| rest.starts_with('/'));
    match Topic::parse(fleet, filter) {
        Ok(topic) => Ok(Listening::Topic(topic)),
        Err(_) if ours => Ok(Listening::Filter),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serin_protocol::ids::{DeviceId, Digest};
    use serin_protocol::topic::FileName;

    fn fleet() -> FleetId {
        FleetId::new("f").expect("valid")
    }

    fn device(name: &str) -> DeviceId {
        DeviceId::new(name).expect("valid")
    }

    fn says(topic: &Topic, retained: bool) -> Result<Topic, Denied> {
        let name = topic.name(&fleet());
        publish(&Role::Device(device("a")), &fleet(), Message { topic: &name, length: 10, retained })
    }

    fn hears(filter: &str) -> Result<Listening, Denied> {
        subscribe(&Role::Device(device("a")), &fleet(), filter)
    }

    fn every_topic(name: &str) -> [Topic; 11] {
        let of = || device(name);
        [
            Topic::Metadata(FileName::new("root.json").expect("valid")),
            Topic::Chunk { object: Digest([7; 32]), index: 3 },
            Topic::Assign(of()),
            Topic::Ack(of()),
            Topic::Enrolled(of()),
            Topic::Pause(of()),
            Topic::Enrol(of()),
            Topic::Event(of()),
            Topic::Report(of()),
            Topic::Sample(of()),
            Topic::Hello(of()),
        ]
    }

    #[test]
    fn a_device_speaks_only_upwards_and_only_for_itself() {
        let allowed = every_topic("a").map(|topic| says(&topic, false).is_ok());
        assert_eq!(allowed, [false, false, false, false, false, false, true, true, true, true, true]);
        let retained = every_topic("a").map(|topic| says(&topic, true).is_ok());
        assert_eq!(retained, [false, false, false, false, false, false, false, false, false, false, true]);
        assert!(every_topic("b").iter().all(|topic| says(topic, false).is_err()));
        assert_eq!(says(&Topic::Hello(device("b")), true), Err(Denied::OtherDevice));
    }

    #[test]
    fn a_device_hears_metadata_chunks_and_what_is_addressed_to_it() {
        let heard = |name| every_topic(name).map(|topic| hears(&topic.name(&fleet())).is_ok());
        assert_eq!(heard("a"), [true, true, true, true, true, true, false, false, false, false, false]);
        assert_eq!(heard("b"), [true, true, false, false, false, false, false, false, false, false, false]);
    }

    #[test]
    fn a_device_cannot_widen_its_hearing() {
        for filter in [
            "#",
            "+/+/+/d/a/assign",
            "serin/1/f/#",
            "serin/1/f/d/+/assign",
            "serin/1/f/d/a/#",
            "serin/1/f/d/a/+",
            "serin/1/f/t/+",
            "serin/1/f/b/#",
            "serin/1/g/d/a/assign",
            "$share/x/serin/1/f/d/a/assign",
            "$SYS/brokers",
            "/serin/1/f/d/a/assign",
            "serin/1/f/d/a/assign/",
            "",
        ] {
            assert!(hears(filter).is_err(), "{filter}");
        }
    }

    #[test]
    fn a_payload_is_bounded_by_its_topic() {
        let name = Topic::Hello(device("a")).name(&fleet());
        let length = Topic::Hello(device("a")).max_payload() + 1;
        let message = Message { topic: &name, length, retained: true };
        let denied = publish(&Role::Device(device("a")), &fleet(), message);
        assert_eq!(denied, Err(Denied::TooLarge { limit: length - 1, actual: length }));
    }

    #[test]
    fn a_last_will_is_the_devices_own_hello() {
        let will = |topic: Topic| {
            let name = topic.name(&fleet());
            last_will(
                &Role::Device(device("a")),
                &fleet(),
                Message { topic: &name, length: 1, retained: false },
            )
        };
        assert_eq!(will(Topic::Hello(device("a"))), Ok(()));
        assert_eq!(will(Topic::Hello(device("b"))), Err(Denied::OtherDevice));
        assert_eq!(will(Topic::Event(device("a"))), Err(Denied::Will));
    }

    #[test]
    fn the_server_stays_within_its_fleet() {
        for topic in every_topic("a") {
            let name = topic.name(&fleet());
            let message = Message { topic: &name, length: 1, retained: true };
            assert!(publish(&Role::Server, &fleet(), message).is_ok(), "{name}");
        }
        let hears = |filter| subscribe(&Role::Server, &fleet(), filter);
        assert_eq!(hears("serin/1/f/d/+/up/+"), Ok(Listening::Filter));
        assert_eq!(hears("serin/1/f/#"), Ok(Listening::Filter));
        for foreign in ["#", "serin/1/+/d/a/assign", "serin/1/ff/d/+/up/+", "serin/1/f"] {
            assert!(hears(foreign).is_err(), "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn what_a_device_may_hear_names_no_other_device(filter in "serin/1/f/[tbd]/[ab+#./-]{1,6}(/[a-z+#]{1,6}){0,2}") {
            if hears(&filter).is_ok() {
                prop_assert!(!filter.contains(['+', '#']));
                prop_assert!(!filter.starts_with("serin/1/f/d/") || filter.starts_with("serin/1/f/d/a/"));
            }
        }
    }
}
