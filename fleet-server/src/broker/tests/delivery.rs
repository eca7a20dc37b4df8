//! What devices get: chunks, assignments, wills.

use std::collections::HashSet;

use futures::future::join_all;
use serin_protocol::chunk::{CHUNK_BYTES, ChunkMap};
use serin_protocol::ids::{ByteCount, Digest};
use serin_protocol::topic::{FileName, Topic, uplink_filter};

use super::rig::{Client, Rig, chunk, content, device, fleet, name};

/// Downloads an object through a sliding window of exact subscriptions and hands each chunk over once,
/// with its offset.
pub(super) async fn download(
    client: &mut Client,
    (object, size): (Digest, usize),
    window: u32,
    mut each: impl FnMut(usize, &[u8]),
) {
    let count = ChunkMap::new(ByteCount(size as u64)).expect("not empty").count();
    let mut missing: HashSet<String> = (0..count).map(|index| chunk(object, index)).collect();
    let mut next = 0;
    while next < window.min(count) {
        client.slide(None, Some(&chunk(object, next)));
        next += 1;
    }
    while !missing.is_empty() {
        let message = client.message().await;
        if !missing.remove(&message.topic) {
            continue;
        }
        let index: usize = message.topic.rsplit('/').next().expect("a number").parse().expect("a number");
        each(index * CHUNK_BYTES, &message.payload);
        let following = (next < count).then(|| chunk(object, next));
        next += 1;
        client.slide(Some(&message.topic), following.as_deref());
    }
}

#[tokio::test]
async fn a_chunk_is_had_by_subscribing_to_it() {
    let rig = Rig::start().await;
    let mut server = rig.server().await;
    let bytes = content(CHUNK_BYTES + 100);
    let object = rig.publish_object(&mut server, &bytes).await;
    let mut device = rig.device("press-7").await;
    assert!(device.subscribe(&chunk(object, 1)).await);
    let message = device.message().await;
    assert_eq!(message.topic, chunk(object, 1));
    assert!(message.retain);
    assert_eq!(message.payload, bytes[CHUNK_BYTES..]);
}

#[tokio::test]
async fn a_window_of_eight_brings_every_byte_of_a_bundle() {
    let rig = Rig::start().await;
    let mut server = rig.server().await;
    let bytes = content(5 * 1024 * 1024 + 123);
    let object = rig.publish_object(&mut server, &bytes).await;
    let mut device = rig.device("press-7").await;
    let mut received = vec![0; bytes.len()];
    let write = |at: usize, chunk: &[u8]| received[at..at + chunk.len()].copy_from_slice(chunk);
    download(&mut device, (object, bytes.len()), 8, write).await;
    assert!(received == bytes, "the downloaded object differs");
}

#[tokio::test]
async fn a_chunk_that_is_published_later_reaches_who_is_waiting() {
    let rig = Rig::start().await;
    let mut server = rig.server().await;
    let bytes = content(1000);
    let object = rig.objects.put(bytes.as_slice()).expect("stored");
    let mut device = rig.device("press-7").await;
    assert!(device.subscribe(&chunk(object, 0)).await);
    server.publish(&chunk(object, 0), true, bytes.clone()).await;
    assert_eq!(device.message().await.payload, bytes);
}

#[tokio::test]
async fn a_withdrawn_chunk_is_not_had_any_more() {
    let rig = Rig::start().await;
    let mut server = rig.server().await;
    let object = rig.publish_object(&mut server, &content(1000)).await;
    server.publish(&chunk(object, 0), true, "").await;
    let root = name(&Topic::Metadata(FileName::new("root.json").expect("valid")));
    server.publish(&root, true, "root").await;
    let mut device = rig.device("press-7").await;
    device.subscribe_all(&[&chunk(object, 0), &root]).await;
    assert_eq!(device.text().await, (root, "root".to_owned()));
}

#[tokio::test]
async fn only_the_stored_bytes_become_a_chunk() {
    let rig = Rig::start().await;
    let mut server = rig.server().await;
    let bytes = content(2 * CHUNK_BYTES);
    let object = rig.objects.put(bytes.as_slice()).expect("stored");
    let unknown = Digest::of(b"never stored");
    let mut wrong = bytes[..CHUNK_BYTES].to_vec();
    wrong[17] ^= 1;
    server.publish(&chunk(object, 0), true, wrong).await;
    server.publish(&chunk(object, 1), true, bytes[CHUNK_BYTES..][..100].to_vec()).await;
    server.publish(&chunk(object, 2), true, "beyond the end").await;
    server.publish(&chunk(unknown, 0), true, "anything").await;
    let root = name(&Topic::Metadata(FileName::new("root.json").expect("valid")));
    server.publish(&root, true, "root").await;

    let mut device = rig.device("press-7").await;
    let mut topics: Vec<_> = (0..3).map(|index| chunk(object, index)).collect();
    topics.extend([chunk(unknown, 0), root.clone()]);
    device.subscribe_all(&topics.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(device.text().await, (root, "root".to_owned()));
}

#[tokio::test]
async fn a_retained_message_comes_again_on_every_subscription() {
    let rig = Rig::start().await;
    let mut server = rig.server().await;
    let assign = name(&Topic::Assign(device("press-7")));
    server.publish(&assign, true, "run this").await;
    let mut device = rig.device("press-7").await;
    for _ in 0..3 {
        assert!(device.subscribe(&assign).await);
        let message = device.message().await;
        assert_eq!((&message.payload[..], message.retain), (&b"run this"[..], true));
        assert_eq!(message.qos, rumqttc::QoS::AtLeastOnce);
    }
    device.unsubscribe(&assign).await;
    assert!(device.subscribe(&assign).await);
    assert_eq!(device.message().await.payload, "run this");
}

#[tokio::test]
async fn chunks_and_small_messages_survive_a_restart() {
    let rig = Rig::start().await;
    let mut server = rig.server().await;
    let bytes = content(3 * CHUNK_BYTES);
    let object = rig.publish_object(&mut server, &bytes).await;
    server.publish(&chunk(object, 1), true, "").await;
    let assign = name(&Topic::Assign(device("press-7")));
    server.publish(&assign, true, "old").await;
    server.publish(&assign, true, "new").await;
    let gone = name(&Topic::Assign(device("press-8")));
    server.publish(&gone, true, "soon gone").await;
    server.publish(&gone, true, "").await;

    let rig = rig.restart().await;
    let mut device = rig.device("press-7").await;
    device.subscribe_all(&[&assign, &chunk(object, 1), &chunk(object, 2)]).await;
    let mut got = [device.message().await, device.message().await];
    got.sort_by_key(|message| message.topic.clone());
    assert_eq!(got[0].topic, chunk(object, 2));
    assert_eq!(got[0].payload, bytes[2 * CHUNK_BYTES..]);
    assert_eq!((got[1].topic.as_str(), &got[1].payload[..]), (assign.as_str(), &b"new"[..]));

    let mut other = rig.device("press-8").await;
    other.subscribe_all(&[&gone, &chunk(object, 0)]).await;
    assert_eq!(other.message().await.topic, chunk(object, 0));
}

#[tokio::test]
async fn the_server_fetches_every_hello_at_once() {
    const DEVICES: usize = 1500;
    let rig = Rig::start().await;
    let mut server = rig.server().await;
    for number in 0..DEVICES {
        let id = device(&format!("press-{number}"));
        server.publish(&name(&Topic::Hello(id)), true, format!("hello {number}")).await;
    }
    let rig = rig.restart().await;
    let mut server = rig.server().await;
    assert!(server.subscribe(&uplink_filter(&fleet())).await);
    let mut seen = HashSet::new();
    while seen.len() < DEVICES {
        let (topic, text) = server.text().await;
        assert!(text.starts_with("hello "), "{topic}: {text}");
        seen.insert(topic);
    }
}

#[tokio::test]
async fn five_hundred_devices_at_once_get_their_assignments() {
    const DEVICES: usize = 500;
    let rig = Rig::start().await;
    let mut server = rig.server().await;
    let topics: Vec<_> =
        (0..DEVICES).map(|number| name(&Topic::Assign(device(&format!("press-{number}"))))).collect();
    // Half of the assignments are waiting when the devices come, half come while the devices wait.
    for (number, topic) in topics.iter().enumerate().take(DEVICES / 2) {
        server.publish(topic, true, format!("assignment {number}")).await;
    }
    let mut devices = join_all((0..DEVICES).map(|number| {
        let (rig, topic) = (&rig, &topics[number]);
        async move {
            let mut device = rig.device(&format!("press-{number}")).await;
            assert!(device.subscribe(topic).await);
            device
        }
    }))
    .await;
    for (number, topic) in topics.iter().enumerate().skip(DEVICES / 2) {
        server.publish(topic, true, format!("assignment {number}")).await;
    }
    join_all(devices.iter_mut().enumerate().map(|(number, device)| async move {
        assert_eq!(device.text().await.1, format!("assignment {number}"));
    }))
    .await;
}
