//! Orders: for others, old, expired, forged, below the owner's floor; and reports in another's name.

use anyhow::Result;
use serin_protocol::ids::{SequenceNumber, UnixMillis};
use serin_protocol::trust::metadata::Serial;
use serin_tests::adversary::{Adversary, victim};
use serin_tests::device::Device;
use serin_tests::lab::PATIENCE;

#[test]
fn an_order_is_good_once_for_one_device_in_one_fleet_and_for_a_while() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let second = adversary.v2.clone();
    adversary.release(&second)?;
    let honest = adversary.assignment(&second);

    let mut elsewhere = honest.clone();
    elsewhere.fleet = "other".parse()?;
    adversary.say_assignment(&victim(), &elsewhere)?;
    adversary.until_told(&["refused", "the assignment is for another fleet"])?;

    let mut old = honest.clone();
    old.sequence = SequenceNumber(0);
    adversary.say_assignment(&victim(), &old)?;
    adversary.until_told(&["refused", "the assignment is a replay: number 0, already at 1"])?;

    let mut expired = honest.clone();
    expired.expires = UnixMillis(expired.issued.0 - 1);
    adversary.say_assignment(&victim(), &expired)?;
    adversary.until_told(&["2.0.0", "rejected", "expired"])?;

    adversary.assign_as(99);
    let forged = adversary.assignment(&second);
    adversary.say_assignment(&victim(), &forged)?;
    adversary.until_told(&["refused", "assignment", "unknown key"])?;
    adversary.still_runs_v1()?;

    // Replayed to another device of the fleet.
    let bystander = Device::start(&adversary.folder(), "bystander", &adversary.provision())?;
    adversary.assign_as(6);
    adversary.say_assignment(&"bystander".parse()?, &honest)?;
    serin_tests::until("the bystander refuses", PATIENCE, || {
        let history = bystander.engineer(&["history"]).ok()?.to_string();
        history.contains("the assignment is for another device").then_some(())
    })?;
    assert_eq!(bystander.active(), None);
    adversary.accepts_v2()
}

#[test]
fn nothing_below_the_owners_floor_is_installed_and_the_way_back_stays_open() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let second = adversary.v2.clone();
    adversary.release(&second)?;
    adversary.accepts_v2()?;
    adversary.repository.digits.floor.insert("digits".into(), Serial(2));
    adversary.repository.release();
    adversary.publish()?;
    let first = adversary.v1.clone();
    adversary.assign(&first)?;
    adversary.until_told(&["1.0.0", "rejected", "is number 1 of its owner's releases, below the floor 2"])?;
    assert!(adversary.device.runs("2.0.0"));
    // The engineer on site decides for this device, offline too.
    adversary.device.engineer(&["rollback"])?;
    adversary.until_runs("1.0.0")
}

#[test]
fn a_report_in_another_devices_name_is_not_taken() -> Result<()> {
    use serin_protocol::envelope::seal_to_vec;
    use serin_protocol::ids::EventNumber;
    use serin_protocol::message::{Event, EventKind};
    use serin_protocol::topic::Topic;
    use serin_tests::lab::{Broker, Lab};
    use serin_tests::server::FLEET;

    let mut lab = Lab::new(Broker::Mosquitto)?;
    lab.add_devices(2)?;
    let forged = Event {
        device: "device-01".parse()?,
        number: EventNumber(1_000_000),
        at: UnixMillis(1),
        sequence: SequenceNumber(1),
        rollout: None,
        kind: EventKind::Unpinned { uid: 4711 },
    };
    let key = serin_tests::adversary::signing_key(&lab.devices[1])?;
    let topic = Topic::Event("device-01".parse()?).name(&FLEET.parse()?);
    serin_tests::adversary::publish_once(lab.server.mqtt, topic.as_str(), &seal_to_vec(&forged, &key)?)?;
    serin_tests::until("the forgery is counted", PATIENCE, || {
        let metrics = lab.server.get("/metrics").ok()?;
        let line = metrics.lines().find(|line| line.contains("refused_total") && line.contains("key"))?;
        (!line.ends_with(" 0")).then_some(())
    })?;
    let events = lab.server.events("device-01")?;
    assert!(!events.iter().any(|event| event.contains("4711")), "{events:?}");
    Ok(())
}
