//! What the broker keeps of devices that are gone.

use super::*;

/// What the broker is told to drop, with since when.
fn cleared(sent: &[Outgoing]) -> Vec<(UnixMillis, Vec<Topic>)> {
    let clear = |outgoing: &Outgoing| match outgoing {
        Outgoing::Clear { device, since, topics } if *device == id("a") => Some((*since, topics.clone())),
        Outgoing::Message { .. } | Outgoing::Publish(_) | Outgoing::Clear { .. } => None,
    };
    sent.iter().filter_map(clear).collect()
}

fn reconnected(rig: &Rig) -> Vec<(UnixMillis, Vec<Topic>)> {
    rig.fleet.reconnected(NOW).expect("says again");
    cleared(&rig.sent())
}

fn orders() -> Vec<Topic> {
    vec![Topic::Assign(id("a")), Topic::Pause(id("a"))]
}

fn all() -> Vec<Topic> {
    [orders(), vec![Topic::Hello(id("a"))]].concat()
}

/// Whether there is a device after `a`, with the key of this number, said hello.
fn hears(rig: &Rig, number: u8, delivery: Delivery) -> bool {
    let payload = Bytes::from(seal_to_vec(&hello_of("a", number), &key(number)).expect("fits"));
    let message = Message { topic: Topic::Hello(id("a")), payload, delivery };
    rig.fleet.take_in(&[message], NOW).expect("taken in");
    !rig.fleet.devices().is_empty()
}

#[test]
fn what_the_broker_keeps_of_a_forgotten_device_does_not_bring_it_back() {
    let rig = Rig::new();
    rig.hello("a", |_| {});
    rig.fleet.forget_device(&id("a"), NOW).expect("there");
    assert_eq!(cleared(&rig.sent()), [(NOW, all())]);
    // The server ends before the broker has it.
    let rig = rig.restart();
    assert!(!hears(&rig, 9, Delivery::Earlier));
    assert!(!hears(&rig, 9, Delivery::Kept));
    assert_eq!(reconnected(&rig), [(NOW, all())]);
    rig.fleet.cleared(&id("a"), NOW, NOW).expect("noted");
    assert_eq!(reconnected(&rig), []);
    let rig = rig.restart();
    assert_eq!(reconnected(&rig), []);
    assert!(hears(&rig, 9, Delivery::Kept), "whoever says it now is there");
}

#[test]
fn another_device_may_take_the_name_before_the_broker_has_dropped_it() {
    let rig = Rig::new();
    rig.hello("a", |_| {});
    rig.fleet.forget_device(&id("a"), NOW).expect("there");
    let rig = rig.restart();
    assert!(hears(&rig, 10, Delivery::Earlier), "this is not the key that was forgotten");
    assert_eq!(reconnected(&rig), [(NOW, orders())], "its hello stays");
}

#[test]
fn a_device_that_says_hello_itself_is_there_again() {
    let rig = Rig::new();
    rig.hello("a", |_| {});
    rig.fleet.forget_device(&id("a"), NOW).expect("there");
    assert!(hears(&rig, 9, Delivery::Live));
}

#[test]
fn what_a_revoked_device_was_told_is_dropped_and_a_late_word_ends_no_later_order() {
    let rig = Rig::new();
    rig.hello("a", |_| {});
    rig.fleet.revoke_device(&id("a"), NOW).expect("there");
    assert_eq!(cleared(&rig.sent()), [(NOW, orders())]);
    rig.fleet.forget_device(&id("a"), NOW).expect("there");
    let later = UnixMillis(NOW.0 + 1);
    assert_eq!(cleared(&rig.sent()), [(later, all())]);
    rig.fleet.cleared(&id("a"), NOW, NOW).expect("noted");
    assert_eq!(reconnected(&rig), [(later, all())]);
}
