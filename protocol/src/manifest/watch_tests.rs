//! What is watched is what was declared, in a fixed order, or refused by name.

use super::*;
use crate::manifest::tests::manifest_json;
use serde_json::{Value, json};

fn watching(watch: &Value) -> Result<Manifest, String> {
    let mut json = manifest_json();
    json["inputs"] = json!([
        { "name": "x", "datatype": "FP32", "shape": [-1, 2], "features": ["a", "b"] },
        { "name": "city", "datatype": "BYTES", "shape": [-1] },
        { "name": "image", "datatype": "UINT8", "shape": [-1, 4, 4, 3] },
        { "name": "sound", "datatype": "FP32", "shape": [-1, 160] },
    ]);
    json["watch"] = watch.clone();
    Manifest::parse(&serde_json::to_vec(&json).expect("json")).map_err(|error| format!("{error}"))
}

#[test]
fn features_come_in_the_order_of_their_inputs() {
    let manifest = watching(&json!({
        "categorical": ["b", "city"],
        "summaries": [
            { "input": "sound", "of": ["energy"] },
            { "input": "image", "layout": "hwc", "of": ["channels", "contrast"] },
        ],
        "segments": { "feature": "city", "named": [{ "name": "north", "values": ["Oslo"] }] },
    }))
    .expect("sound");
    let features = manifest.features();
    let names: Vec<&str> = features.iter().map(|feature| feature.name.as_str()).collect();
    let channels = ["image.channel0", "image.channel1", "image.channel2"];
    assert_eq!(names, [&["a", "b", "city"], &channels[..], &["image.contrast", "sound.energy"]].concat());
    assert_eq!(features[0].source, Source::Value(0));
    assert_eq!(features[1].source, Source::Category(1));
    assert_eq!(features[2].source, Source::Text);
    assert_eq!(features[5].source, Source::Summary(Summary::Channel(2)));
    let form = manifest.watch.form(&manifest.inputs[2]).expect("summarized");
    assert_eq!((form.width, form.channels, form.layout), (48, 3, Layout::Hwc));
    assert_eq!(manifest.watch.form(&manifest.inputs[0]), None);
}

#[test]
fn numbers_about_pictures_lie_in_the_order_of_inputs() {
    let mut json = manifest_json();
    json["inputs"] = json!([
        { "name": "front", "datatype": "BYTES", "shape": [-1] },
        { "name": "x", "datatype": "FP32", "shape": [-1, 4] },
        { "name": "back", "datatype": "BYTES", "shape": [-1, 1] },
    ]);
    json["watch"] = json!({ "summaries": [
        { "input": "back", "image": "grey", "of": ["channels", "energy"] },
        { "input": "x", "of": ["norm"] },
        { "input": "front", "image": "rgb", "of": ["channels", "brightness"] },
    ] });
    let manifest = Manifest::parse(&serde_json::to_vec(&json).expect("json")).expect("sound");
    let pictures = manifest.watch.pictures(&manifest.inputs);
    let told: Vec<_> = pictures
        .iter()
        .map(|picture| (picture.place, picture.first, picture.summaries.len(), picture.channels))
        .collect();
    assert_eq!(told, [(0, 0, 4, Channels::Rgb), (2, 4, 2, Channels::Grey)]);
    let features = manifest.features();
    let names: Vec<&str> = features.iter().map(|feature| feature.name.as_str()).collect();
    let front = ["front.channel0", "front.channel1", "front.channel2", "front.brightness"];
    assert_eq!(names, [&front[..], &["x.norm", "back.channel0", "back.energy"]].concat());
    assert_eq!(manifest.watch.form(&manifest.inputs[0]), None);
}

#[test]
fn what_cannot_be_watched_is_named() {
    for (watch, says) in [
        (json!({ "categorical": ["c"] }), "c is neither a feature"),
        (json!({ "categorical": ["sound"] }), "sound is neither a feature"),
        (json!({ "summaries": [{ "input": "y", "of": ["norm"] }] }), "no input y"),
        (json!({ "summaries": [{ "input": "city", "of": ["norm"] }] }), "holds texts"),
        (json!({ "summaries": [{ "input": "sound", "of": [] }] }), "which numbers"),
        (json!({ "summaries": [{ "input": "sound", "of": ["norm", "norm"] }] }), "twice"),
        (json!({ "summaries": [{ "input": "sound", "layout": "hwc", "of": ["channels"] }] }), "need layout"),
        (json!({ "summaries": [{ "input": "image", "of": ["channels"] }] }), "need layout"),
        (
            json!({ "segments": { "feature": "z", "named": [{ "name": "n", "values": [1] }] } }),
            "z is no watched",
        ),
        (
            json!({ "summaries": [{ "input": "sound", "image": "rgb", "of": ["norm"] }] }),
            "not one BYTES value",
        ),
        (json!({ "summaries": [{ "input": "city", "image": "grey", "of": ["norm"] }] }), "neither norm"),
        (
            json!({ "summaries": [{ "input": "city", "image": "grey", "layout": "hwc", "of": ["contrast"] }] }),
            "leave it out",
        ),
        (json!({ "colour": true }), "colour"),
    ] {
        let error = watching(&watch).expect_err(says);
        assert!(error.contains(says), "{error}");
    }
}
