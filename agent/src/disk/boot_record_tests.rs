//! Whatever happens to the copy being written, loading gives the old or the new record.

use super::*;
use proptest::prelude::*;
use std::fs;
use std::path::Path;

fn open(dir: &Path) -> (BootStore, Loaded) {
    BootStore::open(Files::real(), dir.to_owned()).expect("opens")
}

fn payload(dir: &Path) -> Option<Vec<u8>> {
    open(dir).1.record.map(|(_, payload)| payload)
}

#[test]
fn a_fresh_device_has_no_record_and_no_fault() {
    let dir = tempfile::tempdir().expect("tempdir");
    assert!(open(dir.path()).1.is_fresh());
}

#[test]
fn the_last_saved_record_is_loaded_and_the_one_before_is_kept() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (mut store, _) = open(dir.path());
    for round in 1..=5_u8 {
        assert_eq!(store.save(&[round]).expect("saved"), Generation(u64::from(round)));
        assert_eq!(payload(dir.path()), Some(vec![round]));
    }
    // Generation 5 is in boot.a; without it generation 4 is still there.
    fs::remove_file(dir.path().join("boot.a")).expect("there");
    let (mut store, loaded) = open(dir.path());
    assert_eq!(loaded.record, Some((Generation(4), vec![4])));
    assert!(loaded.faults.is_empty());
    store.save(&[9]).expect("saved");
    assert!(dir.path().join("boot.a").exists());
    assert_eq!(payload(dir.path()), Some(vec![9]));
}

#[test]
fn a_failed_save_never_touches_the_valid_copy() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (mut store, _) = open(dir.path());
    store.save(b"good").expect("saved");
    // boot.b cannot be written: a directory has its name.
    fs::create_dir(dir.path().join("boot.b")).expect("created");
    for _ in 0..3 {
        assert!(matches!(store.save(b"new"), Err(BootError::File(_))));
        let (_, loaded) = open(dir.path());
        assert_eq!(loaded.record, Some((Generation(1), b"good".to_vec())));
        assert!(matches!(loaded.faults.as_slice(), [CopyFault::Unreadable(_)]));
    }
    fs::remove_dir(dir.path().join("boot.b")).expect("empty");
    assert_eq!(store.save(b"new").expect("saved"), Generation(5));
    assert_eq!(payload(dir.path()), Some(b"new".to_vec()));
}

#[test]
fn missing_corrupt_and_unreadable_are_three_answers() {
    let dir = tempfile::tempdir().expect("tempdir");
    fs::write(dir.path().join("boot.a"), b"garbage").expect("written");
    let (_, lost) = open(dir.path());
    assert!(lost.record.is_none() && !lost.is_fresh());
    assert_eq!(lost.faults[0].to_string(), "boot.a is corrupt: it is cut off");
    fs::create_dir(dir.path().join("boot.b")).expect("created");
    let unreadable = BootStore::open(Files::real(), dir.path().to_owned());
    assert!(matches!(unreadable, Err(BootError::File(_))));
}

#[test]
fn a_payload_over_the_bound_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (mut store, _) = open(dir.path());
    store.save(&vec![1; MAX_PAYLOAD_BYTES]).expect("just fits");
    let actual = MAX_PAYLOAD_BYTES + 1;
    assert!(
        matches!(store.save(&vec![1; actual]), Err(BootError::TooLarge { actual: found }) if found == actual)
    );
    assert_eq!(payload(dir.path()).map(|payload| payload.len()), Some(MAX_PAYLOAD_BYTES));
}

#[test]
fn a_later_format_is_named_and_a_flipped_bit_is_not_taken_for_one() {
    let mut bytes = encode(Generation(1), b"x");
    bytes[8] = 2;
    assert_eq!(decode(&bytes), Err("its checksum is wrong"));
    let end = bytes.len() - CHECKSUM_BYTES;
    let sum = crc32fast::hash(&bytes[..end]).to_le_bytes();
    bytes[end..].copy_from_slice(&sum);
    assert_eq!(decode(&bytes), Err("it has a format version that this agent does not read"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A cut while writing leaves any prefix of the new copy, followed by nothing, by zeros, by garbage
    /// or by what the older copy had there.
    #[test]
    fn a_torn_write_loads_as_old_or_new(
        saved in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..4),
        new in prop::collection::vec(any::<u8>(), 0..200),
        cut in any::<prop::sample::Index>(),
        tail in prop_oneof![
            Just(None),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(Some),
            (0..300_usize).prop_map(|zeros| Some(vec![0; zeros])),
        ],
    ) {
        let dir = tempfile::tempdir().expect("tempdir");
        let (mut store, _) = open(dir.path());
        for payload in &saved {
            store.save(payload).expect("saved");
        }
        let copy = dir.path().join(store.keep.map_or(CopyName::A, CopyName::other).file_name());
        let before = fs::read(&copy).unwrap_or_default();
        let whole = encode(Generation(store.highest + 1), &new);
        let cut = cut.index(whole.len() + 1);
        let mut torn = whole[..cut].to_vec();
        torn.extend(tail.unwrap_or_else(|| before.get(cut..).unwrap_or_default().to_vec()));
        fs::write(&copy, &torn).expect("written");

        let old = saved.last().expect("at least one");
        let loaded = payload(dir.path()).expect("never nothing");
        prop_assert!(loaded == *old || loaded == new);
        if torn == whole {
            prop_assert_eq!(&loaded, &new);
        }
        // And the device goes on from either.
        let (mut store, _) = open(dir.path());
        store.save(b"next").expect("saved");
        prop_assert_eq!(payload(dir.path()), Some(b"next".to_vec()));
    }

    #[test]
    fn any_bytes_are_a_copy_or_a_fault(bytes: Vec<u8>) {
        if let Ok((generation, payload)) = decode(&bytes) {
            prop_assert_eq!(encode(generation, &payload), bytes);
        }
    }
}
