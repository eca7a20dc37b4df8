//! Reference data in any form makes the same profile, and a device counts the same rows as packing did.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use serin_agent::telemetry::{Asked, Recorder, Stamp};
use serin_agent::update::effect::Now;
use serin_fleet_server::bundle::open::read_bundle;
use serin_fleet_server::bundle::reference::{Format, ReferenceRows, columns, profile};
use serin_protocol::ids::{BootId, Digest, Millis, UnixMillis};
use serin_protocol::manifest::Manifest;
use serin_protocol::tensor::{DataType, TensorHeader};
use serin_tests::bundles::{copy_folder, fixtures, fleet, text};

fn manifest() -> Result<Manifest> {
    let digest = Digest([1; 32]);
    let json = json!({
        "format": 1, "model": "m", "version": "1", "owner": "o", "description": "d",
        "lineage": { "git_commit": "0".repeat(40), "weights": digest, "data": digest, "schema_version": "1" },
        "runtime": "tract-0.23", "targets": [],
        "inputs": [
            { "name": "x", "datatype": "FP32", "shape": [-1, 2], "features": ["lux", "kind"] },
            { "name": "city", "datatype": "BYTES", "shape": [-1] },
            { "name": "image", "datatype": "UINT8", "shape": [-1, 3, 2, 2] },
            { "name": "sound", "datatype": "FP32", "shape": [-1, 5] },
        ],
        "outputs": [{ "name": "y", "datatype": "FP32", "shape": [-1] }],
        "prediction": null,
        "watch": {
            "categorical": ["kind", "city"],
            "segments": { "feature": "lux", "named": [{ "name": "night", "below": 0.3 }] },
            "summaries": [
                { "input": "image", "layout": "chw", "of": ["brightness", "contrast", "channels"] },
                { "input": "sound", "of": ["energy", "norm", "distance"] },
            ],
        },
        "measured": { "minimum_memory": 1, "memory_limit": 1, "peak_resident": 1,
                      "latency_p50_micros": 1, "latency_p99_micros": 1, "load_micros": 1 },
        "files": [],
    });
    Ok(serde_json::from_value(json)?)
}

struct Row {
    x: [f32; 2],
    city: String,
    image: [u8; 12],
    sound: [f32; 5],
}

/// Rows of all kinds, some values missing.
fn row(at: u32) -> Row {
    let noise = |turn: u32| f32::from((at.wrapping_mul(2_654_435_761) >> (turn % 20)) as u8) / 255.0;
    Row {
        x: [if at.is_multiple_of(17) { f32::NAN } else { noise(1) }, (at % 21) as f32 / 10.0],
        city: if at.is_multiple_of(11) { String::new() } else { format!("city {}", at % 23) },
        image: std::array::from_fn(|place| (at as usize * 31 + place * 7) as u8),
        sound: std::array::from_fn(|place| noise(place as u32 + 3) - 0.5),
    }
}

fn number(value: f32) -> Value {
    // In full, as the training side writes it.
    if value.is_nan() { Value::Null } else { json!(value) }
}

#[test]
fn a_device_counts_reference_rows_as_packing_did() -> Result<()> {
    let manifest = manifest()?;
    let rows: Vec<Row> = (0..500).map(row).collect();
    let line = |row: &Row| {
        json!({
            "lux": number(row.x[0]), "kind": number(row.x[1]), "city": row.city,
            "image": row.image, "sound": row.sound.map(number),
        })
        .to_string()
    };
    let lines = rows.iter().map(line).collect::<Vec<_>>().join("\n");
    let wanted = columns(&manifest.inputs, &manifest.watch, false);
    let reference = ReferenceRows::read(Format::JsonLines, lines.into(), wanted)?;
    let packed = profile(&reference, &manifest.inputs, &manifest.watch, &[]).profile;
    // As devices read it.
    let packed = serin_protocol::sketch::profile::Profile::parse(&packed.encode()?)?;

    let now = |millis| Now { wall: UnixMillis(millis), elapsed: Millis(millis) };
    let profile = Arc::new(packed.clone());
    let mut recorder = Recorder::new(&manifest, profile, Digest([2; 32]), Millis(1000), now(0))?;
    for batch in rows.chunks(7) {
        let texts: Vec<u8> = batch
            .iter()
            .flat_map(|row| [&(row.city.len() as u32).to_le_bytes()[..], row.city.as_bytes()].concat())
            .collect();
        let parts = [
            (
                "sound",
                DataType::Fp32,
                vec![5],
                batch.iter().flat_map(|row| row.sound.map(f32::to_le_bytes).concat()).collect(),
            ),
            (
                "x",
                DataType::Fp32,
                vec![2],
                batch.iter().flat_map(|row| row.x.map(f32::to_le_bytes).concat()).collect(),
            ),
            ("image", DataType::Uint8, vec![3, 2, 2], batch.iter().flat_map(|row| row.image).collect()),
            ("city", DataType::Bytes, vec![], texts),
        ];
        let header = |(name, datatype, lengths, bytes): &(&str, DataType, Vec<u32>, Vec<u8>)| {
            let shape = std::iter::once(batch.len() as u32).chain(lengths.iter().copied()).collect();
            anyhow::Ok(TensorHeader {
                name: name.parse()?,
                datatype: *datatype,
                shape,
                bytes: bytes.len() as u64,
            })
        };
        let inputs = parts.iter().map(header).collect::<Result<Vec<_>>>()?;
        let body: Vec<u8> = parts.iter().flat_map(|(_, _, _, bytes)| bytes.clone()).collect();
        recorder.answered(Asked { inputs: &inputs, body: &body, parameters: &Map::new() }, &[], 100);
    }
    let mut stamp = Stamp::new("d1".parse()?, BootId(1));
    let reports = recorder.cut(now(500), &mut stamp);
    assert_eq!(reports.len(), 2, "night and the rest");
    assert_eq!(packed.features.len(), 3 + 5 + 3);
    for report in &reports {
        for (feature, seen) in packed.features.iter().zip(&report.features) {
            let expected = feature.sketch.in_segment(report.segment);
            let counts =
                |histogram: &serin_protocol::sketch::Histogram| histogram.categories().collect::<Vec<_>>();
            assert_eq!(counts(seen), counts(expected), "{} in segment {}", feature.name, report.segment);
            assert!((seen.mean - expected.mean).abs() < 1e-9, "{}", feature.name);
        }
    }
    let all = packed.features.iter().find(|feature| feature.name.as_str() == "city").context("watched")?;
    assert_eq!(all.distinct, 23);
    Ok(())
}

/// What `numpy.save` makes of single-precision rows.
fn npy(rows: &[Vec<f32>]) -> Result<Vec<u8>> {
    let width = rows.first().context("a row")?.len();
    let header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {width}), }}\n", rows.len());
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len())?.to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(rows.concat().iter().flat_map(|value| value.to_le_bytes()));
    Ok(bytes)
}

#[test]
fn data_scientist_packs_the_same_reference_profile_from_any_form_of_the_same_rows() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("digits");
    copy_folder(&fixtures().join("digits/v1"), &source)?;
    let csv = std::fs::read_to_string(source.join("reference.csv"))?;
    let mut lines = csv.lines();
    let names: Vec<&str> = lines.next().context("a header")?.split(',').collect();
    let rows = lines
        .map(|line| line.split(',').map(str::parse).collect::<Result<Vec<f32>, _>>())
        .collect::<Result<Vec<_>, _>>()?;
    let objects = rows.iter().map(|row| {
        let members = names.iter().zip(row).map(|(name, value)| ((*name).to_owned(), json!(value)));
        Value::Object(members.collect()).to_string()
    });
    let ndjson = objects.collect::<Vec<_>>().join("\n");
    let mut profiles = Vec::new();
    for (name, bytes) in [
        ("reference.csv", csv.clone().into_bytes()),
        ("reference.ndjson", ndjson.into_bytes()),
        ("reference.npy", npy(&rows)?),
    ] {
        for old in ["reference.csv", "reference.ndjson", "reference.npy"] {
            let _ = std::fs::remove_file(source.join(old));
        }
        std::fs::write(source.join(name), bytes)?;
        let bundle = folder.path().join("digits.serin");
        fleet(&["bundle", "pack", text(&source), "-o", text(&bundle)])?;
        let opened = read_bundle(&bundle)?;
        anyhow::ensure!(opened.profile.features.len() == 64 && opened.profile.predictions.is_some());
        profiles.push(opened.profile);
    }
    assert!(profiles.iter().all(|profile| *profile == profiles[0]));
    // Two at once leave open which is meant.
    std::fs::write(source.join("reference.csv"), csv)?;
    let bundle = folder.path().join("other.serin");
    let error = fleet(&["bundle", "pack", text(&source), "-o", text(&bundle)]).expect_err("two files");
    assert!(error.to_string().contains("reference.csv and reference.npy are here"), "{error}");
    Ok(())
}
