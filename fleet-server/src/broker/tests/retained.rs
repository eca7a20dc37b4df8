//! What is retained: by whom, from where, and across restarts.

use std::fs;
use std::sync::Arc;

use serin_protocol::chunk::CHUNK_BYTES;
use serin_protocol::ids::Digest;
use serin_protocol::topic::Topic;
use tempfile::TempDir;

use super::rig::{chunk, content, device, fleet, name};
use crate::broker::retained::{Content, MAX_MESSAGES, RetainedError, RetainedStore};
use crate::registry::objects::ObjectStore;

struct Shelf {
    folder: TempDir,
    objects: Arc<ObjectStore>,
}

impl Shelf {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let objects = Arc::new(ObjectStore::open(folder.path()).expect("opens"));
        Self { folder, objects }
    }

    fn open(&self) -> RetainedStore {
        RetainedStore::open(&self.folder.path().join("retained"), fleet(), self.objects.clone())
            .expect("opens")
    }

    fn log(&self) -> std::path::PathBuf {
        self.folder.path().join("retained/retained.log")
    }
}

fn assign(device_name: &str) -> String {
    name(&Topic::Assign(device(device_name)))
}

fn texts(store: &RetainedStore, filter: &str) -> Vec<String> {
    let text = |content| match content {
        Content::Payload(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Content::Chunk { index, .. } => format!("chunk {index}"),
    };
    store.get(filter).into_iter().map(|retained| text(retained.content)).collect()
}

#[test]
fn the_last_message_counts_and_an_empty_one_removes_it() {
    let shelf = Shelf::new();
    for (payload, expected) in [("one", vec!["one"]), ("two", vec!["two"]), ("", vec![])] {
        let store = shelf.open();
        store.keep(&assign("a"), 1, payload.as_bytes()).expect("kept");
        assert_eq!(texts(&store, &assign("a")), expected);
        drop(store);
        assert_eq!(texts(&shelf.open(), &assign("a")), expected, "after a restart");
    }
    assert_eq!(shelf.open().count(), 0);
}

#[test]
fn a_wildcard_matches_level_by_level() {
    let store = Shelf::new().open();
    for (topic, text) in [
        (name(&Topic::Hello(device("a"))), "hello a"),
        (name(&Topic::Hello(device("b"))), "hello b"),
        (assign("a"), "assign a"),
    ] {
        store.keep(&topic, 1, text.as_bytes()).expect("kept");
    }
    assert_eq!(texts(&store, "serin/1/f/d/+/up/hello"), ["hello a", "hello b"]);
    assert_eq!(texts(&store, "serin/1/f/d/a/#"), ["assign a", "hello a"]);
    assert_eq!(texts(&store, "serin/1/f/#").len(), 3);
    assert!(texts(&store, "serin/1/f/+").is_empty());
    assert!(texts(&store, "serin/1/f/d/+/up/hello/+").is_empty());
}

#[test]
fn a_bundle_is_never_matched_by_a_wildcard() {
    let shelf = Shelf::new();
    let store = shelf.open();
    let bytes = content(10);
    let object = shelf.objects.put(bytes.as_slice()).expect("stored");
    store.keep(&chunk(object, 0), 1, &bytes).expect("kept");
    assert_eq!(texts(&store, &chunk(object, 0)), ["chunk 0"]);
    assert!(texts(&store, "serin/1/f/#").is_empty());
}

#[test]
fn offers_follow_the_object_store() {
    let shelf = Shelf::new();
    let bytes = content(2 * CHUNK_BYTES);
    let object = shelf.objects.put(bytes.as_slice()).expect("stored");
    let store = shelf.open();
    let refused = store.keep(&chunk(object, 0), 1, &bytes[1..=CHUNK_BYTES]);
    assert!(matches!(refused, Err(RetainedError::OtherBytes { .. })));
    let refused = store.keep(&chunk(Digest::of(b"unknown"), 0), 1, b"x");
    assert!(matches!(refused, Err(RetainedError::NoSuchChunk { .. })));
    assert_eq!(store.chunk(&object, 0).expect("readable"), None, "not on offer yet");

    store.keep(&chunk(object, 0), 1, &bytes[..CHUNK_BYTES]).expect("kept");
    store.keep(&chunk(object, 1), 1, &bytes[CHUNK_BYTES..]).expect("kept");
    store.keep(&chunk(object, 0), 1, b"").expect("withdrawn");
    let reopened = shelf.open();
    assert!(!reopened.offers(&object, 0) && reopened.offers(&object, 1));
    assert_eq!(reopened.chunk(&object, 1).expect("readable").as_deref(), Some(&bytes[CHUNK_BYTES..]));

    shelf.objects.remove(&object).expect("removed");
    assert_eq!(store.chunk(&object, 1).expect("readable"), None);
    assert!(!shelf.open().offers(&object, 1));
}

#[test]
fn a_damaged_log_is_set_aside_and_what_was_readable_stays() {
    let shelf = Shelf::new();
    let store = shelf.open();
    store.keep(&assign("a"), 1, b"one").expect("kept");
    store.keep(&assign("b"), 1, b"two").expect("kept");
    let mut bytes = fs::read(shelf.log()).expect("readable");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs::write(shelf.log(), &bytes).expect("written");

    let store = shelf.open();
    assert_eq!(texts(&store, "serin/1/f/#"), ["one"]);
    assert_eq!(fs::read(shelf.log().with_extension("damaged")).expect("set aside"), bytes);
    store.keep(&assign("b"), 1, b"two again").expect("kept");
    assert_eq!(texts(&shelf.open(), "serin/1/f/#"), ["one", "two again"]);
}

#[test]
fn the_log_does_not_grow_with_history() {
    let shelf = Shelf::new();
    let store = shelf.open();
    let payload = |number: u32| [vec![7; 100 * 1024], number.to_le_bytes().to_vec()].concat();
    for number in 0..200 {
        store.keep("serin/1/f/t/timestamp.json", 1, &payload(number)).expect("kept");
    }
    let length = fs::metadata(shelf.log()).expect("there").len();
    assert!(length < 6 * 1024 * 1024, "{length}");
    assert_eq!(
        shelf.open().get("serin/1/f/t/timestamp.json")[0].content,
        Content::Payload(payload(199).into())
    );
}

#[test]
fn a_flood_of_hellos_leaves_room_for_assignments() {
    let store = Shelf::new().open();
    let hello = |number: usize| name(&Topic::Hello(device(&format!("d{number}"))));
    for number in 0..MAX_MESSAGES {
        store.keep(&hello(number), 1, b"h").expect("kept");
    }
    assert!(matches!(store.keep(&hello(MAX_MESSAGES), 1, b"h"), Err(RetainedError::Full)));
    store.keep(&hello(0), 1, b"changed").expect("a known device may change its hello");
    store.keep(&assign("a"), 1, b"run this").expect("the server has its own room");
    store.keep(&hello(1), 1, b"").expect("removed");
    store.keep(&hello(MAX_MESSAGES), 1, b"h").expect("there is room again");
}
