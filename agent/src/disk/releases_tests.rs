//! Bundles on real files: what is sound is staged, shared and collected; what is not is refused by
//! name and leaves nothing behind.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use serin_protocol::bundle::{TRAILER, header, padding};
use serin_protocol::chunk::ObjectRef;
use serin_protocol::golden::{Golden, GoldenCase, GoldenInput, GoldenTensor};
use serin_protocol::ids::TargetClass;
use serin_protocol::message::Reason;
use serin_protocol::sketch::Bins;
use serin_protocol::sketch::profile::{FeatureProfile, Profile, SketchProfile};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;

/// The contents of a small sound bundle, to be spoiled by a test before it is packed.
struct Draft {
    manifest: Value,
    contents: Vec<(BundleFile, Vec<u8>)>,
}

/// A packed bundle on disk and the statement that fits it.
struct Packed {
    path: PathBuf,
    statement: Release,
    digest: Digest,
}

fn draft(version: &str, model: &[u8]) -> Draft {
    let input = GoldenInput { name: "x".parse().expect("name"), values: vec![0.5, 1.0].into() };
    let output = GoldenTensor { name: "class".parse().expect("name"), values: vec![1.0] };
    let golden = Golden {
        relative: 1e-4,
        absolute: 1e-5,
        fed: vec![],
        cases: vec![GoldenCase { inputs: vec![input], outputs: vec![output], ..GoldenCase::default() }],
    };
    let feature = |name: &str| FeatureProfile::of(name.parse().expect("name"), &[0.0, 1.0, 2.0]);
    let profile = Profile {
        features: vec![feature("a"), feature("b")],
        predictions: Some(SketchProfile::of(Bins::classes(2), &[])),
        ..Profile::default()
    };
    let pipeline = json!({
        "pre": [{"op": "feed", "input": "x", "model_input": "X"}],
        "post": [
            {"op": "take", "model_output": "Y", "output": "y"},
            {"op": "argmax", "from": "y", "output": "class"},
        ],
    });
    let contents = vec![
        (BundleFile::Card, b"# A card\n".to_vec()),
        (BundleFile::Golden, golden.encode().expect("small")),
        (BundleFile::Labels, b"no\nyes\n".to_vec()),
        (BundleFile::Model, model.to_vec()),
        (BundleFile::Pipeline, pipeline.to_string().into_bytes()),
        (BundleFile::Reference, profile.encode().expect("small")),
    ];
    let mut draft = Draft {
        manifest: json!({
            "format": 1, "model": "digits", "version": version, "owner": "vision", "description": "",
            "lineage": {"git_commit": "0".repeat(40), "weights": "", "data": Digest([1; 32]),
                "schema_version": "1"},
            "runtime": "tract-0.23", "targets": ["linux-x86_64"],
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2], "features": ["a", "b"]}],
            "outputs": [{"name": "class", "datatype": "INT64", "shape": [-1]}],
            "prediction": {"class": "class", "confidence": null, "classes": 2},
            "measured": {"minimum_memory": 1, "memory_limit": 2, "peak_resident": 3,
                "latency_p50_micros": 4, "latency_p99_micros": 5, "load_micros": 6},
            "files": [],
        }),
        contents,
    };
    draft.list_files();
    draft
}

impl Draft {
    /// Brings the manifest's list of files up to date with the contents.
    fn list_files(&mut self) {
        let entries = self.contents.iter().map(
            |(file, bytes)| json!({"name": file.name(), "digest": Digest::of(bytes), "size": bytes.len()}),
        );
        self.manifest["files"] = entries.collect();
        let model = self.contents.iter().find(|(file, _)| *file == BundleFile::Model);
        self.manifest["lineage"]["weights"] = json!(Digest::of(&model.expect("a model").1));
    }

    fn replace(&mut self, file: BundleFile, bytes: &[u8]) {
        let entry = self.contents.iter_mut().find(|(name, _)| *name == file);
        entry.expect("there").1 = bytes.to_vec();
    }

    fn tar(&self) -> Vec<u8> {
        let manifest = serde_json::to_vec(&self.manifest).expect("json");
        let mut tar = Vec::new();
        let first = (BundleFile::Manifest, manifest);
        for (file, bytes) in std::iter::once(&first).chain(&self.contents) {
            tar.extend(header(*file, bytes.len() as u64));
            tar.extend(bytes);
            tar.extend(vec![0; padding(bytes.len() as u64)]);
        }
        tar.extend([0; TRAILER]);
        tar
    }

    fn unpacked(&self) -> ByteCount {
        let manifest = serde_json::to_vec(&self.manifest).expect("json").len();
        let rest: usize = self.contents.iter().map(|(_, bytes)| bytes.len()).sum();
        ByteCount((manifest + rest) as u64)
    }

    fn pack(&self, dir: &Path) -> Packed {
        self.pack_bytes(dir, &zstd::encode_all(self.tar().as_slice(), 3).expect("compresses"))
    }

    /// `packed` as the bundle, with a statement that fits it as far as it can.
    fn pack_bytes(&self, dir: &Path, packed: &[u8]) -> Packed {
        let bundle = ObjectRef { digest: Digest::of(packed), size: ByteCount(packed.len() as u64) };
        let path = dir.join(format!("{}.serin", bundle.digest));
        fs::write(&path, packed).expect("written");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let profile = self.contents.iter().find(|(file, _)| *file == BundleFile::Reference);
        let statement = Release {
            id: format!("digits@{}", text(&self.manifest["version"])).parse().expect("id"),
            bundle,
            chunk_list: bundle,
            unpacked: self.unpacked(),
            memory: ByteCount(2),
            runtime: "tract-0.23".parse().expect("fits"),
            targets: [TargetClass::new("linux-x86_64").expect("name").into()].into_iter().collect(),
            profile: Digest::of(&profile.expect("a profile").1),
            decoders: serin_protocol::release::Decoders::new(),
        };
        Packed { path, digest: bundle.digest, statement }
    }
}

struct Device {
    dir: tempfile::TempDir,
    store: ReleaseStore,
}

fn device() -> Device {
    let dir = tempfile::tempdir().expect("tempdir");
    fs::create_dir(dir.path().join("in")).expect("created");
    let store = ReleaseStore::open(Files::real(), &dir.path().join("state")).expect("opens");
    Device { dir, store }
}

impl Device {
    fn inbox(&self) -> PathBuf {
        self.dir.path().join("in")
    }

    fn stage(&self, packed: &Packed) -> Result<Manifest, StageError> {
        self.store.stage(&packed.path, &packed.statement, packed.digest)
    }

    /// Every file and directory of the state, relative.
    fn state(&self) -> Vec<String> {
        fn walk(dir: &Path, root: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(dir).expect("listed") {
                let path = entry.expect("entry").path();
                found.push(path.strip_prefix(root).expect("below").display().to_string());
                if path.is_dir() {
                    walk(&path, root, found);
                }
            }
        }
        let root = self.dir.path().join("state");
        let mut found = Vec::new();
        walk(&root, &root, &mut found);
        found.sort();
        found
    }

    /// Expects the bundle to be refused with `complaint` in the error, reported as the bundle's fault,
    /// leaving the state as it was.
    fn refuses(&self, packed: &Packed, complaint: &str) {
        let before = self.state();
        let error = self.stage(packed).expect_err(complaint);
        assert!(error.to_string().contains(complaint), "{error}, expected: {complaint}");
        assert!(matches!(error.reason(), Reason::BadBundle(_)), "{error}");
        assert_eq!(self.state(), before, "{complaint}");
        assert!(self.store.open_release(packed.digest).expect("readable").is_none());
    }
}

#[test]
fn a_sound_bundle_is_staged_once_and_opens_with_its_files() {
    let device = device();
    let packed = draft("1", b"weights").pack(&device.inbox());
    assert!(device.store.open_release(packed.digest).expect("readable").is_none());
    let manifest = device.stage(&packed).expect("staged");
    let release = device.store.open_release(packed.digest).expect("sound").expect("here");
    assert_eq!(release.manifest, manifest);
    assert_eq!(fs::read(release.path(BundleFile::Model)).expect("read"), b"weights");
    device.store.verify(&release, Some(&packed.statement)).expect("sound");
    assert_eq!(device.store.list().expect("listed"), [packed.digest]);

    let before = device.state();
    fs::remove_file(&packed.path).expect("there");
    assert_eq!(device.stage(&packed).expect("already here"), manifest);
    assert_eq!(device.state(), before);
}

#[test]
fn equal_files_of_two_releases_are_one_file_on_disk() {
    let device = device();
    let first = draft("1", b"weights one").pack(&device.inbox());
    let second = draft("2", b"weights two").pack(&device.inbox());
    device.stage(&first).expect("staged");
    device.stage(&second).expect("staged");
    let inode = |packed: &Packed, file: BundleFile| {
        let release = device.store.open_release(packed.digest).expect("sound").expect("here");
        fs::metadata(release.path(file)).expect("there").ino()
    };
    assert_eq!(inode(&first, BundleFile::Golden), inode(&second, BundleFile::Golden));
    assert_ne!(inode(&first, BundleFile::Model), inode(&second, BundleFile::Model));
}

#[test]
fn collection_keeps_what_is_named_with_all_its_files() {
    let device = device();
    let packed: Vec<Packed> =
        ["1", "2", "3"].map(|version| draft(version, version.as_bytes()).pack(&device.inbox())).into();
    for packed in &packed {
        device.stage(packed).expect("staged");
    }
    let stray = device.dir.path().join("state/staging/interrupted");
    fs::create_dir(&stray).expect("created");
    fs::write(stray.join("model.onnx"), b"half").expect("written");
    let keep = [packed[1].digest, Digest([9; 32])];
    let removed = device.store.remove_except(&keep).expect("collected");
    // Their manifests and models; everything else is shared with the one that stays.
    assert_eq!(removed, Removed { releases: 2, files: 4 });
    assert!(!stray.exists());
    assert_eq!(device.store.list().expect("listed"), [packed[1].digest]);
    let kept = device.store.open_release(packed[1].digest).expect("sound").expect("here");
    device.store.verify(&kept, Some(&packed[1].statement)).expect("whole");
    assert_eq!(device.store.remove_except(&keep).expect("again"), Removed::default());
    device.store.remove_except(&[]).expect("collected");
    assert_eq!(device.state(), ["files", "releases", "staging"]);
}

#[test]
fn a_path_that_leaves_the_bundle_and_an_extra_file_are_refused_by_name() {
    let device = device();
    let sound = draft("1", b"weights");
    let mut escaping = sound.tar();
    escaping[..16].copy_from_slice(b"../../etc/passwd");
    let packed = sound.pack_bytes(&device.inbox(), &zstd::encode_all(escaping.as_slice(), 3).expect("zstd"));
    device.refuses(&packed, "../../etc/passwd");

    let mut extra = sound.tar();
    extra.truncate(extra.len() - TRAILER);
    extra.extend(header(BundleFile::Card, 0));
    extra.extend([0; TRAILER]);
    let packed = sound.pack_bytes(&device.inbox(), &zstd::encode_all(extra.as_slice(), 3).expect("zstd"));
    device.refuses(&packed, "padding after the last file");
}

#[test]
fn a_zip_bomb_is_refused_by_the_signed_size() {
    let device = device();
    // The manifest admits to the size, the statement does not.
    let honest = draft("1", &vec![0; 40 << 20]);
    let mut packed = honest.pack(&device.inbox());
    assert!(packed.statement.bundle.size < ByteCount(100_000));
    packed.statement.unpacked = ByteCount(10_000);
    device.refuses(&packed, "more than the signed 10000 bytes");

    // The manifest hides it.
    let mut hidden = draft("1", b"weights");
    let unpacked = hidden.unpacked();
    hidden.replace(BundleFile::Model, &vec![0; 40 << 20]);
    let mut packed = hidden.pack(&device.inbox());
    packed.statement.unpacked = unpacked;
    device.refuses(&packed, "more than the signed");

    // It follows the container.
    let sound = draft("1", b"weights");
    for (tail, complaint) in
        [(40 << 20, "more than the signed"), (1, "something follows the end of the bundle")]
    {
        let mut padded = sound.tar();
        padded.extend(vec![0; tail]);
        let packed = zstd::encode_all(padded.as_slice(), 3).expect("zstd");
        device.refuses(&sound.pack_bytes(&device.inbox(), &packed), complaint);
    }
}

#[test]
fn a_window_beyond_the_limit_is_refused() {
    let device = device();
    // A frame header that asks for 2^28 bytes: no single segment, window exponent 18.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x90, 0x01, 0x00, 0x00];
    device.refuses(&draft("1", b"w").pack_bytes(&device.inbox(), &frame), "too much memory");
}

#[test]
fn a_truncated_bundle_is_refused_wherever_it_is_cut() {
    let device = device();
    let sound = draft("1", b"weights");
    let whole = zstd::encode_all(sound.tar().as_slice(), 3).expect("zstd");
    for cut in [0, 3, whole.len() / 2, whole.len() - 1] {
        device.refuses(&sound.pack_bytes(&device.inbox(), &whole[..cut]), "cut off");
    }
    // Cut before it was compressed.
    let tar = sound.tar();
    let short = zstd::encode_all(&tar[..tar.len() - 1], 3).expect("zstd");
    device.refuses(&sound.pack_bytes(&device.inbox(), &short), "cut off");
}

#[test]
fn bytes_after_the_compressed_stream_are_refused() {
    let device = device();
    let sound = draft("1", b"weights");
    let mut twice = zstd::encode_all(sound.tar().as_slice(), 3).expect("zstd");
    twice.extend(zstd::encode_all(&b"more"[..], 3).expect("zstd"));
    device.refuses(&sound.pack_bytes(&device.inbox(), &twice), "something follows the compressed bundle");
}

#[test]
fn a_bundle_other_than_the_signed_one_is_refused() {
    let device = device();
    let mut packed = draft("1", b"weights").pack(&device.inbox());
    packed.statement.bundle.digest = Digest([7; 32]);
    device.refuses(&packed, "signed are");
}

#[test]
fn a_file_that_differs_from_its_listing_is_refused_by_name() {
    let device = device();
    let mut changed = draft("1", b"weights");
    changed.replace(BundleFile::Model, b"wEights");
    device.refuses(&changed.pack(&device.inbox()), "model.onnx has digest");
    let mut shorter = draft("1", b"weights");
    let unpacked = shorter.unpacked();
    shorter.replace(BundleFile::Labels, b"no\nyes");
    let mut packed = shorter.pack(&device.inbox());
    packed.statement.unpacked = unpacked;
    device.refuses(&packed, "labels.txt has 6 bytes, the manifest lists 7");
}

#[test]
fn contents_that_do_not_parse_are_refused_by_name() {
    let device = device();
    for (file, bytes, complaint) in [
        (BundleFile::Pipeline, &b"{}"[..], "pipeline.json"),
        (BundleFile::Golden, &b""[..], "golden vectors"),
        (BundleFile::Reference, &b"?"[..], "reference profile"),
    ] {
        let mut draft = draft("1", b"weights");
        draft.replace(file, bytes);
        draft.list_files();
        device.refuses(&draft.pack(&device.inbox()), complaint);
    }
    let mut other = draft("1", b"weights");
    let none = Profile::default();
    other.replace(BundleFile::Reference, &none.encode().expect("small"));
    other.list_files();
    device.refuses(&other.pack(&device.inbox()), "has 0 features, the manifest 2");
    let mut unknown = draft("1", b"weights");
    unknown.manifest["surprise"] = json!(1);
    device.refuses(&unknown.pack(&device.inbox()), "surprise");
}

#[test]
fn a_manifest_that_contradicts_the_statement_is_refused_with_both_values() {
    let device = device();
    let sound = draft("1", b"weights");
    let refused = |change: &dyn Fn(&mut Release), complaint: &str| {
        let mut packed = sound.pack(&device.inbox());
        change(&mut packed.statement);
        device.refuses(&packed, complaint);
    };
    refused(
        &|signed| signed.id = "digits@2".parse().expect("id"),
        "the release digits@1, signed is digits@2",
    );
    refused(&|signed| signed.memory = ByteCount(1), "the memory limit 2, signed is 1");
    refused(&|signed| signed.targets.clear(), "the targets [linux-x86_64], signed is []");
    refused(&|signed| signed.runtime.clear(), "the runtime");
    refused(&|signed| signed.profile = Digest([3; 32]), "the digest of reference.bin");
    refused(&|signed| signed.unpacked.0 += 1, "the unpacked size");
}

#[test]
fn a_refused_bundle_leaves_an_earlier_release_untouched() {
    let device = device();
    let first = draft("1", b"weights").pack(&device.inbox());
    device.stage(&first).expect("staged");
    let mut second = draft("2", b"weights").pack(&device.inbox());
    second.statement.bundle.size.0 += 1;
    device.refuses(&second, "signed are");
    let release = device.store.open_release(first.digest).expect("sound").expect("here");
    device.store.verify(&release, Some(&first.statement)).expect("sound");
}

#[test]
fn damage_is_found_and_staging_again_repairs_it() {
    let device = device();
    let packed = draft("1", b"weights").pack(&device.inbox());
    device.stage(&packed).expect("staged");
    let open = || device.store.open_release(packed.digest);
    let release = open().expect("sound").expect("here");
    for (file, from, to) in
        [(BundleFile::Model, "weights", "wEights"), (BundleFile::Manifest, "\"vision\"", "\"visiom\"")]
    {
        let path = release.path(file);
        // The same length, and the manifest still parses: only a digest can tell.
        let text = fs::read_to_string(&path).expect("read");
        fs::write(&path, text.replace(from, to)).expect("written");
        let error = device.store.verify(&release, None).expect_err("changed");
        assert!(error.to_string().contains(file.name()), "{error}");
        // Missing altogether: noticed without hashing, and mended.
        fs::remove_file(&path).expect("there");
        assert!(matches!(open(), Err(ReleaseError::Damaged { what: "is missing", .. })));
        device.stage(&packed).expect("staged anew");
        let mended = open().expect("sound").expect("here");
        device.store.verify(&mended, Some(&packed.statement)).expect("sound again");
    }
}

#[test]
fn a_full_or_failing_disk_is_reported_as_storage() {
    let device = device();
    let packed = draft("1", b"weights").pack(&device.inbox());
    fs::remove_dir(device.dir.path().join("state/staging")).expect("empty");
    fs::write(device.dir.path().join("state/staging"), b"a file").expect("written");
    let error = device.stage(&packed).expect_err("no directory to build in");
    assert!(matches!(error.reason(), Reason::Storage(_)), "{error}");
    assert!(device.store.free_space().expect("known").0 > 0);
}

#[test]
fn a_disk_that_fails_at_the_last_step_leaves_nothing_of_the_release() {
    let device = device();
    let packed = draft("1", b"weights").pack(&device.inbox());
    let releases = device.dir.path().join("state/releases");
    fs::remove_dir(&releases).expect("empty");
    fs::write(&releases, b"a file").expect("written");
    let error = device.stage(&packed).expect_err("nowhere to go");
    assert!(matches!(error.reason(), Reason::Storage(_)), "{error}");
    assert_eq!(device.state(), ["files", "releases", "staging"]);
    fs::remove_file(&releases).expect("there");
    fs::create_dir(&releases).expect("created");
    device.stage(&packed).expect("the disk works again");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever byte of the packed bundle changes, it is refused and leaves nothing.
    #[test]
    fn any_damage_to_a_bundle_is_refused(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let device = device();
        let packed = draft("1", b"weights").pack(&device.inbox());
        let mut bytes = fs::read(&packed.path).expect("read");
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        fs::File::create(&packed.path).and_then(|mut file| file.write_all(&bytes)).expect("written");
        device.refuses(&packed, "");
    }
}
