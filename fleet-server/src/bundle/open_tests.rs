//! Bundles that break the rules are refused by name.

use super::*;
use proptest::prelude::*;
use serin_protocol::bundle::{TRAILER, header, padding};
use serin_protocol::golden::{GoldenCase, GoldenInput, GoldenTensor};
use serin_protocol::ids::FieldName;
use serin_protocol::manifest::{FORMAT, FileEntry, Lineage, TensorSpec};
use serin_protocol::sketch::Bins;
use serin_protocol::sketch::profile::FeatureProfile;
use serin_protocol::tensor::DataType;

use crate::bundle::measurements::UNMEASURED;

const PIPELINE: &[u8] = br#"{"pre": [{"op": "feed", "input": "x", "model_input": "x"}],
    "post": [{"op": "take", "model_output": "y", "output": "y"}]}"#;

/// The files of a small, good bundle.
fn files() -> Vec<(BundleFile, Vec<u8>)> {
    let name = |name: &str| -> FieldName { name.parse().expect("name") };
    let spec = |field: &str, features: &[&str]| TensorSpec {
        name: name(field),
        datatype: DataType::Fp32,
        shape: vec![-1],
        features: features.iter().map(|feature| name(feature)).collect(),
    };
    let case = GoldenCase {
        inputs: vec![GoldenInput { name: name("x"), values: vec![1.0].into() }],
        outputs: vec![GoldenTensor { name: name("y"), values: vec![1.0] }],
        ..GoldenCase::default()
    };
    let golden = Golden { relative: 0.0, absolute: 0.0, fed: vec![], cases: vec![case] };
    let profile =
        Profile { features: vec![FeatureProfile::of(name("a"), &[1.0, 2.0])], ..Profile::default() };
    let mut files = vec![
        (BundleFile::Card, b"# card".to_vec()),
        (BundleFile::Golden, golden.encode().expect("small")),
        (BundleFile::Labels, b"no\nyes\n".to_vec()),
        (BundleFile::Model, vec![7; 3000]),
        (BundleFile::Pipeline, PIPELINE.to_vec()),
        (BundleFile::Reference, profile.encode().expect("small")),
    ];
    let entry = |(name, bytes): &(BundleFile, Vec<u8>)| FileEntry {
        name: *name,
        digest: Digest::of(bytes),
        size: ByteCount(bytes.len() as u64),
    };
    let manifest = Manifest {
        format: FORMAT,
        model: "m".parse().expect("name"),
        version: "1".parse().expect("name"),
        owner: "us".into(),
        description: "A model.".into(),
        lineage: Lineage {
            git_commit: "0".repeat(40),
            weights: Digest::of(&[7; 3000]),
            data: Digest::of(b"data"),
            schema_version: "1".into(),
        },
        runtime: "tract-0.23".parse().expect("short"),
        nnef: None,
        answers: None,
        review: None,
        targets: Vec::new(),
        inputs: vec![spec("x", &["a"])],
        outputs: vec![spec("y", &[])],
        prediction: None,
        watch: serin_protocol::manifest::Watch::default(),
        local_rollback: None,
        measured: UNMEASURED,
        files: files.iter().map(entry).collect(),
    };
    files.insert(0, (BundleFile::Manifest, serde_json::to_vec(&manifest).expect("plain")));
    files
}

fn container(files: &[(BundleFile, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (file, contents) in files {
        bytes.extend_from_slice(&header(*file, contents.len() as u64));
        bytes.extend_from_slice(contents);
        bytes.resize(bytes.len() + padding(contents.len() as u64), 0);
    }
    bytes.resize(bytes.len() + TRAILER, 0);
    bytes
}

/// A small, good bundle as packed.
pub(in crate::bundle) fn good() -> Vec<u8> {
    packed(&container(&files()))
}

fn packed(container: &[u8]) -> Vec<u8> {
    zstd::encode_all(container, 1).expect("memory")
}

fn refusal(container: &[u8]) -> BundleReadError {
    read(packed(container).as_slice()).expect_err("must be refused")
}

fn replaced(file: BundleFile, contents: &[u8]) -> Vec<u8> {
    let mut files = files();
    files.iter_mut().filter(|(name, _)| *name == file).for_each(|(_, old)| *old = contents.to_vec());
    container(&files)
}

#[test]
fn a_good_bundle_is_read_with_its_own_digest() {
    let bytes = good();
    let opened = read(bytes.as_slice()).expect("good");
    assert_eq!(opened.bundle.digest, Digest::of(&bytes));
    assert_eq!(opened.bundle.size.0, bytes.len() as u64);
    assert_eq!(
        (opened.labels.as_slice(), opened.card.as_str()),
        (["no".into(), "yes".into()].as_slice(), "# card")
    );
    let sum: u64 = files().iter().map(|(_, contents)| contents.len() as u64).sum();
    assert_eq!(opened.unpacked.0, sum);
}

#[test]
fn a_bomb_is_refused_before_it_goes_off() {
    // What follows a header is taken only as far as the manifest allows.
    let mut files = files();
    files[4].1 = vec![0; 64 << 20];
    let error = refusal(&container(&files));
    assert!(matches!(error, BundleReadError::FileSize { name: "model.onnx", .. }), "{error}");
    let mut endless = container(&self::files());
    endless.resize(endless.len() + (64 << 20), 0);
    assert!(matches!(refusal(&endless), BundleReadError::Container(BundleError::Trailing)));
}

#[test]
fn a_window_larger_than_devices_accept_is_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("memory");
    encoder.window_log(28).expect("known");
    encoder.include_contentsize(false).expect("known");
    std::io::Write::write_all(&mut encoder, &container(&files())).expect("memory");
    let bytes = encoder.finish().expect("memory");
    assert!(matches!(read(bytes.as_slice()), Err(BundleReadError::Compression(_))));
}

#[test]
fn another_path_or_file_is_refused_by_name() {
    let good = container(&files());
    let mut outside = good.clone();
    outside[..11].copy_from_slice(b"../evil.txt");
    outside[11..13].fill(0);
    let error = refusal(&outside).to_string();
    assert!(error.contains("../evil.txt"), "{error}");
    let mut extra = good[..good.len() - TRAILER].to_vec();
    extra.extend_from_slice(&header(BundleFile::Card, 0));
    assert!(matches!(refusal(&extra), BundleReadError::Container(_)));
}

#[test]
fn what_is_cut_off_or_followed_by_something_is_refused() {
    let good = good();
    for length in [0, 1, 10, good.len() / 2, good.len() - 1] {
        let error = read(&good[..length]).expect_err("cut off");
        let truncated =
            matches!(error, BundleReadError::CutOff | BundleReadError::Container(BundleError::Truncated));
        assert!(truncated, "{length}: {error}");
    }
    let mut followed = good.clone();
    followed.push(0);
    assert!(matches!(read(followed.as_slice()), Err(BundleReadError::Trailing)));
    let mut twice = good.clone();
    twice.extend_from_slice(&good);
    assert!(matches!(read(twice.as_slice()), Err(BundleReadError::Trailing)));
    let short = container(&files());
    assert!(matches!(refusal(&short[..short.len() - 1]), BundleReadError::Container(BundleError::Truncated)));
}

#[test]
fn contents_that_the_manifest_does_not_list_are_refused() {
    let error = refusal(&replaced(BundleFile::Model, &[8; 3000]));
    assert!(matches!(error, BundleReadError::FileDigest { name: "model.onnx", .. }), "{error}");
    let error = refusal(&replaced(BundleFile::Card, b"# other card"));
    assert!(matches!(error, BundleReadError::FileSize { name: "card.md", .. }), "{error}");
    let error = refusal(&replaced(BundleFile::Manifest, b"{}"));
    assert!(matches!(error, BundleReadError::Manifest(_)), "{error}");
}

/// The good bundle with `contents` for `file`, and a manifest that lists them.
fn consistent(file: BundleFile, contents: &[u8]) -> Vec<u8> {
    let mut files = files();
    let mut manifest = Manifest::parse(&files[0].1).expect("good");
    for entry in manifest.files.iter_mut().filter(|entry| entry.name == file) {
        entry.digest = Digest::of(contents);
        entry.size = ByteCount(contents.len() as u64);
    }
    files[0].1 = serde_json::to_vec(&manifest).expect("plain");
    files.iter_mut().filter(|(name, _)| *name == file).for_each(|(_, old)| *old = contents.to_vec());
    container(&files)
}

#[test]
fn listed_contents_must_also_parse() {
    let says = |file, contents: &[u8]| refusal(&consistent(file, contents)).to_string();
    assert!(says(BundleFile::Pipeline, b"{}").contains("pipeline.json"));
    assert!(says(BundleFile::Golden, b"x").contains("golden"));
    assert!(says(BundleFile::Labels, b"\xff").contains("labels.txt is not UTF-8"));
    assert!(says(BundleFile::Reference, b"\xff").contains("reference profile"));
    let none = Profile::default();
    assert!(says(BundleFile::Reference, &none.encode().expect("small")).contains("features"));
    let about_predictions = Profile {
        features: vec![FeatureProfile::of("a".parse().expect("name"), &[1.0])],
        predictions: Some(serin_protocol::sketch::profile::SketchProfile::of(Bins::classes(2), &[0.0])),
        ..Profile::default()
    };
    assert!(says(BundleFile::Reference, &about_predictions.encode().expect("small")).contains("prediction"));
}

proptest! {
    #[test]
    fn a_flipped_bit_is_noticed(at in 0_usize..4096, bit in 0_u8..8) {
        let mut bytes = container(&files());
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        // A value in the manifest may change to another good one; all else is bound by digest or form.
        let manifest = 512..512 + files()[0].1.len();
        let result = read(packed(&bytes).as_slice());
        prop_assert!(result.is_err() || manifest.contains(&at));
    }

    #[test]
    fn any_bytes_are_a_bundle_or_an_error(bytes: Vec<u8>) {
        prop_assert!(read(bytes.as_slice()).is_err());
        prop_assert!(read(packed(&bytes).as_slice()).is_err());
    }
}
