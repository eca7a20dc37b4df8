//! A written bundle reads back whatever the pieces; anything else is refused by name.

use super::*;
use proptest::prelude::*;
use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, vec};

fn packed(contents: &[Vec<u8>]) -> Vec<u8> {
    packed_as(&BundleFile::ALL, contents)
}

fn packed_as(files: &[BundleFile], contents: &[Vec<u8>]) -> Vec<u8> {
    let mut bundle = Vec::new();
    for (file, contents) in files.iter().zip(contents) {
        bundle.extend(header(*file, contents.len() as u64));
        bundle.extend(contents);
        bundle.extend(vec![0; padding(contents.len() as u64)]);
    }
    bundle.extend([0; TRAILER]);
    bundle
}

fn unpacked(bundle: &[u8], step: usize) -> Result<Vec<Vec<u8>>, BundleError> {
    let mut reader = BundleReader::default();
    let mut files = Vec::new();
    for mut piece in bundle.chunks(step) {
        while let Some(found) = reader.next(&mut piece)? {
            match found {
                Piece::Start(..) => files.push(Vec::new()),
                Piece::Data(data) => files.last_mut().expect("started").extend(data),
                Piece::End(_) => {}
            }
        }
    }
    reader.finish()?;
    Ok(files)
}

fn seven() -> Vec<Vec<u8>> {
    (0..7_u8).map(|file| vec![file; usize::from(file) * 300]).collect()
}

fn with_first_header(change: impl Fn(&mut [u8])) -> String {
    let mut bundle = packed(&seven());
    change(&mut bundle[..BLOCK]);
    unpacked(&bundle, 4096).expect_err("changed").to_string()
}

proptest! {
    #[test]
    fn a_bundle_reads_back_in_pieces_of_any_size(
        contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 7), step in 1..2000_usize
    ) {
        prop_assert_eq!(unpacked(&packed(&contents), step), Ok(contents));
    }

    #[test]
    fn any_bytes_are_refused_without_a_crash(bytes: Vec<u8>, step in 1..100_usize) {
        prop_assert!(unpacked(&bytes, step).is_err());
    }

    #[test]
    fn any_cut_is_noticed(at: prop::sample::Index) {
        let bundle = packed(&seven());
        let cut = at.index(bundle.len());
        prop_assert_eq!(unpacked(&bundle[..cut], 700), Err(BundleError::Truncated));
    }
}

#[test]
fn other_tools_can_read_it() {
    let folder = std::env::temp_dir().join(format!("serin-tar-{}", std::process::id()));
    std::fs::write(&folder, packed(&seven())).expect("writable");
    let listing = std::process::Command::new("tar").arg("tvf").arg(&folder).output().expect("tar runs");
    std::fs::remove_file(&folder).expect("there");
    let listing = String::from_utf8(listing.stdout).expect("text");
    assert_eq!(listing.lines().count(), 7, "{listing}");
    assert!(listing.contains("model.onnx"), "{listing}");
}

#[test]
fn paths_links_and_extra_entries_are_refused_by_name() {
    let escaped = with_first_header(|header| header[..16].copy_from_slice(b"../../etc/passwd"));
    assert!(escaped.contains("../../etc/passwd"), "{escaped}");
    let link = with_first_header(|header| header[156] = b'2');
    assert!(link.contains("canonical"), "{link}");
    let mut extra = packed(&seven());
    extra.truncate(extra.len() - TRAILER);
    extra.extend(header(BundleFile::Card, 0));
    extra.extend([0; TRAILER]);
    assert!(unpacked(&extra, 512).is_err());
    let mut twice = packed(&seven());
    twice.extend([0; 1]);
    assert_eq!(unpacked(&twice, 512), Err(BundleError::Trailing));
}

#[test]
fn a_file_larger_than_its_kind_is_refused_before_its_contents() {
    let mut reader = BundleReader::default();
    let block = header(BundleFile::Manifest, 300 * 1024);
    let refused = reader.next(&mut block.as_slice());
    assert!(matches!(refused, Err(BundleError::TooLarge { name: "manifest.json", .. })), "{refused:?}");
}

#[test]
fn the_second_form_of_the_model_may_be_there_at_its_place_only() {
    let eight: Vec<Vec<u8>> = (0..8_u8).map(|file| vec![file; usize::from(file) * 300]).collect();
    assert_eq!(unpacked(&packed_as(&BundleFile::ORDER, &eight), 700), Ok(eight.clone()));
    let mut elsewhere = BundleFile::ORDER;
    elsewhere.swap(4, 5);
    let refused = unpacked(&packed_as(&elsewhere, &eight), 700);
    assert!(matches!(refused, Err(BundleError::UnexpectedEntry(_))), "{refused:?}");
}
