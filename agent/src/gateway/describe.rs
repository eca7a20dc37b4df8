//! What the gateway says of itself, of the model and of what it did, as the protocol and its extensions
//! have it. Pure.

use serde_json::{Value, json};
use serin_protocol::ids::ReleaseId;
use serin_protocol::manifest::{Manifest, TensorSpec};

use crate::telemetry::Snapshot;

pub(super) fn server() -> Value {
    json!({
        "name": "serin-agent",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data", "statistics", "labels"],
    })
}

pub(super) fn model(manifest: &Manifest) -> Value {
    let tensors = |specs: &[TensorSpec]| specs.iter().map(tensor).collect::<Vec<_>>();
    json!({
        "name": manifest.model,
        "versions": [manifest.version],
        "platform": "tract_onnx",
        "inputs": tensors(&manifest.inputs),
        "outputs": tensors(&manifest.outputs),
    })
}

/// As the protocol has it, with the names of features as a parameter.
fn tensor(spec: &TensorSpec) -> Value {
    let TensorSpec { name, datatype, shape, features } = spec;
    if features.is_empty() {
        json!({ "name": name, "datatype": datatype, "shape": shape })
    } else {
        json!({ "name": name, "datatype": datatype, "shape": shape, "parameters": { "features": features } })
    }
}

/// The statistics extension, since the agent started: what is counted here, and nothing else. Pre- and
/// postprocessing happen in the worker and are in `compute_infer`; counts by size of batch are not kept.
pub(super) fn statistics(release: &ReleaseId, snapshot: &Snapshot) -> Value {
    let Snapshot { counters, effort, latency: _ } = snapshot;
    let answered = counters.requests.saturating_sub(counters.errors);
    let sum = |count: u64, micros: u64| json!({ "count": count, "ns": micros.saturating_mul(1000) });
    json!({ "model_stats": [{
        "name": release.model,
        "version": release.version,
        "last_inference": effort.last.map_or(0, |last| last.0),
        "inference_count": effort.rows,
        "execution_count": effort.runs,
        "inference_stats": {
            "success": sum(answered, effort.answered_micros),
            "fail": sum(counters.errors, effort.failed_micros),
            "queue": sum(answered, effort.waited_micros),
            "compute_infer": sum(answered, effort.computed_micros),
        },
        "batch_stats": [],
    }] })
}

/// The list of models that could answer: the active release, if there is one.
pub(super) fn repository(active: Option<&ReleaseId>) -> Value {
    let entry = |release: &ReleaseId| json!({ "name": release.model, "version": release.version, "state": "READY", "reason": "" });
    active.into_iter().map(entry).collect()
}
