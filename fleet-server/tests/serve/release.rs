//! Bundles made of nothing but what the server looks at: a manifest, a reference profile, and other files
//! that are what the manifest says.

use serin_protocol::bundle::{BundleFile, TRAILER, header, padding};
use serin_protocol::chunk::{CHUNK_BYTES, ObjectRef};
use serin_protocol::ids::{ByteCount, Digest};
use serin_protocol::manifest::{
    ClassPrediction, FORMAT, FileEntry, Lineage, Manifest, Measured, PredictionSpec, TensorSpec, Watch,
};
use serin_protocol::release::Release;
use serin_protocol::sketch::Bins;
use serin_protocol::sketch::profile::{FeatureProfile, Profile, SketchProfile};
use serin_protocol::tensor::DataType;

/// Classes of the model.
pub const CLASSES: usize = 4;

/// A bundle with its statement.
pub struct Packed {
    pub bundle: Vec<u8>,
    pub release: Release,
    pub statement: Vec<u8>,
    pub profile: Profile,
}

pub fn profile() -> Profile {
    let values: Vec<f32> = (0..400_u16).map(|at| f32::from(at % 20)).collect();
    let classes: Vec<f32> = (0..400_u16).map(|at| f32::from(at % 4)).collect();
    Profile {
        features: vec![FeatureProfile::of("x".parse().expect("name"), &values)],
        predictions: Some(SketchProfile::of(Bins::classes(CLASSES), &classes)),
        confidence: Some(SketchProfile::of(Bins::unit(10), &[0.9; 400])),
        ..Profile::default()
    }
}

/// Packs `model@version` with a model file of `model_bytes` bytes that do not compress.
pub fn pack(version: &str, model_bytes: usize) -> Packed {
    let profile = profile();
    let mut state = 0x9e37_79b9_u32 ^ version.bytes().map(u32::from).sum::<u32>();
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    let model: Vec<u8> = (0..model_bytes).map(|_| next()).collect();
    let contents = |file: BundleFile| match file {
        BundleFile::Manifest => Vec::new(),
        BundleFile::Model => model.clone(),
        BundleFile::Reference => profile.encode().expect("small"),
        BundleFile::Nnef
        | BundleFile::Card
        | BundleFile::Golden
        | BundleFile::Labels
        | BundleFile::Pipeline => file.name().as_bytes().to_vec(),
    };
    let entry = |file: &BundleFile| {
        let bytes = contents(*file);
        FileEntry { name: *file, digest: Digest::of(&bytes), size: ByteCount(bytes.len() as u64) }
    };
    let files = BundleFile::ALL.iter().filter(|file| **file != BundleFile::Manifest).map(entry).collect();
    let manifest = manifest(version, Digest::of(&model), files);
    let manifest_bytes = serde_json::to_vec(&manifest).expect("plain");
    let mut tar = Vec::new();
    for file in BundleFile::ALL {
        let bytes = if file == BundleFile::Manifest { manifest_bytes.clone() } else { contents(file) };
        tar.extend(header(file, bytes.len() as u64));
        tar.extend(&bytes);
        tar.resize(tar.len() + padding(bytes.len() as u64), 0);
    }
    tar.resize(tar.len() + TRAILER, 0);
    let bundle = zstd::encode_all(tar.as_slice(), 3).expect("compresses");
    let release = Release {
        id: manifest.id(),
        bundle: object(&bundle),
        chunk_list: object(&chunk_list(&bundle)),
        unpacked: manifest.unpacked(manifest_bytes.len() as u64),
        memory: manifest.measured.memory_limit,
        runtime: manifest.runtime.clone(),
        targets: heapless::Vec::new(),
        profile: Digest::of(&profile.encode().expect("small")),
        decoders: serin_protocol::release::Decoders::new(),
    };
    let statement = release.to_bytes().expect("fits").to_vec();
    Packed { bundle, release, statement, profile }
}

/// Digests of all chunks.
pub fn chunk_list(bundle: &[u8]) -> Vec<u8> {
    bundle.chunks(CHUNK_BYTES).flat_map(|chunk| Digest::of(chunk).0).collect()
}

fn object(bytes: &[u8]) -> ObjectRef {
    ObjectRef { digest: Digest::of(bytes), size: ByteCount(bytes.len() as u64) }
}

fn manifest(version: &str, weights: Digest, files: Vec<FileEntry>) -> Manifest {
    let tensor = |name: &str, datatype, shape: &[i64], features: &[&str]| TensorSpec {
        name: name.parse().expect("name"),
        datatype,
        shape: shape.to_vec(),
        features: features.iter().map(|feature| feature.parse().expect("name")).collect(),
    };
    Manifest {
        format: FORMAT,
        model: "digits".parse().expect("name"),
        version: version.parse().expect("name"),
        owner: "vision team".into(),
        description: "made for a test".into(),
        lineage: Lineage {
            git_commit: "0".repeat(40),
            weights,
            data: Digest([1; 32]),
            schema_version: "1".into(),
        },
        runtime: "tract-0.23".parse().expect("fits"),
        nnef: None,
        answers: None,
        review: None,
        targets: Vec::new(),
        inputs: vec![tensor("in", DataType::Fp32, &[-1, 1], &["x"])],
        outputs: vec![
            tensor("class", DataType::Int64, &[-1], &[]),
            tensor("confidence", DataType::Fp32, &[-1], &[]),
        ],
        prediction: Some(PredictionSpec::Class(ClassPrediction {
            class: "class".parse().expect("name"),
            confidence: Some("confidence".parse().expect("name")),
            probabilities: None,
            classes: CLASSES,
        })),
        watch: Watch::default(),
        local_rollback: None,
        measured: Measured {
            minimum_memory: ByteCount::from_mib(4),
            memory_limit: ByteCount::from_mib(6),
            peak_resident: ByteCount::from_mib(8),
            latency_p50_micros: 10,
            latency_p99_micros: 20,
            load_micros: 100,
        },
        files,
    }
}
