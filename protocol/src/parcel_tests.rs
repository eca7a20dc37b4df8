//! A written parcel reads back whatever the pieces; anything else is refused by name.

use super::*;
use proptest::prelude::*;
use std::string::{String, ToString as _};
use std::vec;
use std::vec::Vec;

type Contents = Vec<(Entry, Vec<u8>)>;

fn role(name: &str) -> Entry {
    Entry::Delegated(RoleName::new(name).expect("a name"))
}

fn release() -> ReleaseId {
    "digits@2.0.0".parse().expect("id")
}

fn usual() -> Contents {
    let entries = [
        Entry::Root(1),
        Entry::Root(2),
        Entry::Timestamp,
        Entry::Snapshot,
        Entry::Targets,
        role("digits"),
        Entry::Statement,
        Entry::Bundle,
    ];
    entries.into_iter().zip(1_u8..).map(|(entry, byte)| (entry, vec![byte; usize::from(byte) * 9])).collect()
}

fn written(entries: &Contents) -> Vec<u8> {
    let mut bytes = opening(&release()).to_vec();
    for (entry, contents) in entries {
        bytes.extend(head(entry, contents.len() as u64));
        bytes.extend(contents);
    }
    bytes
}

fn read(bytes: &[u8], step: usize) -> Result<(Option<ReleaseId>, Contents), ParcelError> {
    let mut reader = ParcelReader::default();
    let (mut release, mut entries, mut ended) = (None, Contents::new(), 0);
    for mut piece in bytes.chunks(step) {
        while let Some(found) = reader.next(&mut piece)? {
            match found {
                Piece::Release(id) => release = Some(id),
                Piece::Start(entry, _) => entries.push((entry, Vec::new())),
                Piece::Data(data) => entries.last_mut().expect("started").1.extend(data),
                Piece::End(entry) => {
                    assert_eq!(Some(&entry), entries.last().map(|(entry, _)| entry));
                    ended += 1;
                }
            }
        }
    }
    reader.finish()?;
    assert_eq!(ended, entries.len());
    Ok((release, entries))
}

fn refused(change: impl FnOnce(&mut Contents)) -> String {
    let mut entries = usual();
    change(&mut entries);
    read(&written(&entries), 4096).expect_err("changed").to_string()
}

proptest! {
    #[test]
    fn a_parcel_reads_back_in_pieces_of_any_size(step in 1..700_usize, roots in 1..20_u64, roles in 0..9_usize) {
        let mut entries: Contents = (1..=roots).map(|version| (Entry::Root(version), vec![7; 40])).collect();
        let mut rest = usual().split_off(2);
        let roles = (0..roles).map(|number| (role(&std::format!("r{number}")), vec![1]));
        rest.splice(3..4, roles);
        entries.append(&mut rest);
        prop_assert_eq!(read(&written(&entries), step), Ok((Some(release()), entries)));
    }

    #[test]
    fn any_bytes_are_refused_without_a_crash(bytes: Vec<u8>, step in 1..100_usize, begun: bool) {
        let bytes = if begun { [&opening(&release())[..], &bytes].concat() } else { bytes };
        prop_assert!(read(&bytes, step).is_err());
    }

    /// What is read is what was written: there is no second spelling of anything.
    #[test]
    fn a_changed_byte_is_refused_or_another_content(at: prop::sample::Index, to: u8, step in 1..100_usize) {
        let mut bytes = written(&usual());
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        if let Ok((Some(id), entries)) = read(&bytes, step) {
            let mut again = opening(&id).to_vec();
            for (entry, contents) in &entries {
                again.extend(head(entry, contents.len() as u64));
                again.extend(contents);
            }
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn any_cut_is_noticed(at: prop::sample::Index) {
        let bytes = written(&usual());
        let cut = at.index(bytes.len());
        // An empty bundle is none, so that the last cut lies within it.
        prop_assert_eq!(read(&bytes[..cut], 50), Err(ParcelError::Truncated));
    }
}

#[test]
fn what_is_repeated_left_out_or_out_of_place_is_refused_by_name() {
    assert_eq!(refused(|entries| entries.swap(2, 3)), "the snapshot cannot follow root 2");
    assert_eq!(refused(|entries| drop(entries.remove(4))), "the role digits cannot follow the snapshot");
    assert_eq!(
        refused(|entries| entries.insert(5, entries[5].clone())),
        "the role digits cannot follow the role digits"
    );
    assert_eq!(refused(|entries| drop(entries.drain(..2))), "the timestamp cannot follow the beginning");
    assert_eq!(refused(|entries| drop(entries.remove(6))), "the bundle cannot follow the role digits");
    assert_eq!(
        refused(|entries| entries.push(entries[7].clone())),
        "something follows the end of the bundle"
    );
    assert_eq!(refused(|entries| drop(entries.pop())), "the file is cut off");
}

#[test]
fn no_more_is_read_than_is_of_use() {
    let many = refused(|entries| {
        let roots: Contents = (1..=1025).map(|version| (Entry::Root(version), vec![1])).collect();
        entries.splice(..2, roots);
    });
    assert_eq!(many, "more than 1024 roots");
    let many = refused(|entries| {
        let roles: Contents = (0..33).map(|number| (role(&std::format!("r{number}")), vec![1])).collect();
        entries.splice(5..6, roles);
    });
    assert_eq!(many, "more than 32 delegated roles");
    assert_eq!(
        refused(|entries| entries[2].1 = vec![0; 16 * 1024 + 1]),
        "the timestamp has 16385 bytes; 1 to 16384 are allowed"
    );
    assert_eq!(refused(|entries| entries[6].1.clear()), "the statement has 0 bytes; 1 to 2304 are allowed");
    // Refused by its head, before its contents.
    let mut reader = ParcelReader::default();
    let mut bytes = written(&usual()[..7].to_vec());
    bytes.extend(head(&Entry::Bundle, u64::MAX));
    let mut input = bytes.as_slice();
    let end = loop {
        match reader.next(&mut input) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(end, ParcelError::Size { size: u64::MAX, .. }), "{end:?}");
}

#[test]
fn other_files_are_told_apart() {
    assert_eq!(read(b"\x28\xb5\x2f\xfd........", 3), Err(ParcelError::BareBundle));
    assert_eq!(read(b"PK\x03\x04", 100), Err(ParcelError::NotAParcel));
    assert_eq!(read(b"serin-p2", 1), Err(ParcelError::NotAParcel));
    assert_eq!(read(b"serin-p1\x03a@/", 2), Err(ParcelError::Release));
    for name in ["root", "snapshot", "../x", "a/b", "", ".hidden", "ä"] {
        assert!(RoleName::new(name).is_none(), "{name}");
    }
}
