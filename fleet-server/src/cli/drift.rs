//! `serin-fleet drift`.

use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use serin_protocol::ids::ReleaseId;

use super::client::{Client, ClientArgs};
use super::table::{plain, table};
use super::{Failure, Report};

#[derive(Args)]
pub(super) struct DriftArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// The release, as MODEL@VERSION.
    release: ReleaseId,
    /// Only this segment of its inputs.
    #[arg(long, value_name = "NAME")]
    segment: Option<String>,
    /// Features to show, the most moved first.
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 10)]
    limit: usize,
}

#[derive(Deserialize)]
struct Drift {
    fleet: Arm,
    control: Option<Arm>,
    segments: Vec<Segment>,
    #[serde(flatten)]
    whole: Picture,
}

#[derive(Deserialize)]
struct Arm {
    releases: Vec<String>,
    devices: u64,
    requests: u64,
    errors: u64,
}

#[derive(Deserialize)]
struct Segment {
    name: String,
    requests: u64,
    errors: u64,
    #[serde(flatten)]
    picture: Picture,
}

#[derive(Deserialize)]
struct Picture {
    features: Vec<Moved>,
    predictions: Option<Moved>,
    confidence: Option<Moved>,
    entropy: Option<Moved>,
    quality: Option<Quality>,
    control_quality: Option<Quality>,
}

#[derive(Deserialize)]
struct Moved {
    name: String,
    psi: f64,
    ks: Option<f64>,
    seen: u64,
    missing: f64,
    cause: String,
    devices: Vec<Place>,
}

#[derive(Deserialize)]
struct Place {
    device: String,
}

#[derive(Deserialize)]
struct Quality {
    labelled: u64,
    accuracy: Option<Estimate>,
    calibration_error: Option<f64>,
    brier: Option<f64>,
    absolute_error: Option<Estimate>,
    root_squared_error: Option<f64>,
    bias: Option<f64>,
    against_control: Option<Estimate>,
}

#[derive(Deserialize)]
struct Estimate {
    value: f64,
    low: f64,
    high: f64,
}

pub(super) fn run(arguments: &DriftArgs) -> Result<Report, Failure> {
    let DriftArgs { client, release, segment, limit } = arguments;
    let client = Client::new(client)?;
    let json: Value = client.get(&format!("/api/v1/drift?release={release}"))?;
    let drift: Drift = serde_json::from_value(json.clone()).map_err(Failure::new)?;
    let Some(wanted) = segment else {
        return Ok(Report { text: show(release, &drift, *limit), json });
    };
    let names: Vec<&str> = drift.segments.iter().map(|segment| segment.name.as_str()).collect();
    let at = names.iter().position(|name| name == wanted);
    let found = at.and_then(|at| Some((drift.segments.get(at)?, json["segments"].get(at)?.clone())));
    let Some((segment, json)) = found else {
        let there = if names.is_empty() { "it names none".to_owned() } else { names.join(", ") };
        return Err(Failure::new(format!("{release} has no segment {wanted:?}: {there}")));
    };
    let text = format!("{}\n{}", head_of_segment(segment), picture(&segment.picture, *limit));
    Ok(Report { text, json })
}

fn show(release: &ReleaseId, drift: &Drift, limit: usize) -> String {
    let arm = |arm: &Arm| {
        let Arm { releases, devices, requests, errors } = arm;
        format!("{}: {requests} requests on {devices} devices, {errors} failed", plain(&releases.join(", ")))
    };
    let mut lines = vec![arm(&drift.fleet)];
    if let Some(control) = &drift.control {
        lines.push(format!("beside {}", arm(control)));
    }
    if drift.fleet.devices == 0 {
        return format!("no device has reported on {release} in the last hour");
    }
    lines.push(picture(&drift.whole, limit));
    for segment in &drift.segments {
        lines.push(format!("\n{}", head_of_segment(segment)));
        lines.push(picture(&segment.picture, limit));
    }
    lines.join("\n")
}

fn head_of_segment(segment: &Segment) -> String {
    format!("segment {}: {} requests, {} failed", segment.name, segment.requests, segment.errors)
}

fn picture(picture: &Picture, limit: usize) -> String {
    let outputs = [&picture.predictions, &picture.confidence, &picture.entropy].into_iter().flatten();
    let row = |moved: &Moved| {
        let ks = moved.ks.map_or_else(|| "-".into(), |ks| format!("{ks:.3}"));
        let devices: Vec<&str> = moved.devices.iter().map(|place| place.device.as_str()).collect();
        vec![
            moved.name.clone(),
            moved.cause.replace('_', " "),
            format!("{:.3}", moved.psi),
            ks,
            moved.seen.to_string(),
            format!("{:.1}%", moved.missing * 100.0),
            devices.join(" "),
        ]
    };
    let rows: Vec<_> = outputs.chain(picture.features.iter().take(limit)).map(row).collect();
    let mut lines = Vec::new();
    if !rows.is_empty() {
        let heads = ["WHAT", "MOVED BY", "PSI", "KS", "SEEN", "MISSING", "MOST ON"];
        lines.push(table(&heads, &rows));
    }
    if let Some(quality) = &picture.quality {
        lines.push(right(quality, "right"));
    }
    if let Some(quality) = &picture.control_quality {
        lines.push(right(quality, "control right"));
    }
    lines.join("\n")
}

fn right(quality: &Quality, word: &str) -> String {
    let percent = |share: f64| format!("{:.1}%", share * 100.0);
    let number = |name: &str, value: Option<f64>| value.map(|value| format!("{name} {value:.3}"));
    let mut parts = Vec::new();
    if let Some(Estimate { value, low, high }) = &quality.accuracy {
        parts.push(format!("{} ({} to {})", percent(*value), percent(*low), percent(*high)));
    }
    if let Some(Estimate { value, low, high }) = &quality.absolute_error {
        parts.push(format!("mean absolute error {value:.3} ({low:.3} to {high:.3})"));
    }
    parts.extend(number("root mean squared error", quality.root_squared_error));
    parts.extend(number("bias", quality.bias));
    parts.extend(number("calibration error", quality.calibration_error));
    parts.extend(number("Brier score", quality.brier));
    if let Some(Estimate { value, low, high }) = &quality.against_control {
        parts.push(format!("{value:+.3} ({low:+.3} to {high:+.3}) against the control"));
    }
    format!("{word}, of {} labels: {}", quality.labelled, parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn segments_and_quality_are_shown() {
        let moved = json!({ "name": "lux", "psi": 0.31, "ks": null, "seen": 400, "missing": 0.5, "cause": "too_few",
            "devices": [{ "device": "kiosk-07", "psi": 1.0 }] });
        let estimate = json!({ "value": 0.8, "low": 0.49, "high": 0.94 });
        let quality = json!({ "labelled": 10, "accuracy": estimate, "calibration_error": 0.1, "brier": null,
            "absolute_error": null, "root_squared_error": null, "bias": null, "against_control": null });
        let mut picture = json!({ "features": [moved], "predictions": null, "confidence": null, "entropy": null,
            "quality": quality, "control_quality": null });
        let mut segment = picture.clone();
        for (key, value) in [("name", json!("night")), ("requests", json!(7)), ("errors", json!(1))] {
            segment[key] = value;
        }
        let arm = json!({ "releases": ["m@2"], "devices": 3, "requests": 900, "errors": 1 });
        for (key, value) in [("fleet", arm), ("control", Value::Null), ("segments", json!([segment]))] {
            picture[key] = value;
        }
        let text = show(&"m@2".parse().expect("id"), &serde_json::from_value(picture).expect("drift"), 10);
        for part in [
            "m@2: 900 requests on 3 devices, 1 failed",
            "lux   too few   0.310  -   400   50.0%    kiosk-07",
            "right, of 10 labels: 80.0% (49.0% to 94.0%), calibration error 0.100",
            "segment night: 7 requests, 1 failed",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
