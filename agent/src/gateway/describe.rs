//! What the gateway says of itself, of the model and of what it did, as the protocol and its extensions
//! have it. Pure.

use serde_json::{Value, json};
use serin_protocol::ids::{FieldName, ReleaseId, Version};
use serin_protocol::manifest::{Manifest, TensorSpec};
use serin_protocol::release::Decoder;

use crate::telemetry::Snapshot;

pub(super) fn server() -> Value {
    json!({
        "name": "serin-agent",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data", "statistics", "labels"],
    })
}

/// A model that answers in these `versions`; `formats` are those of the files that an input takes, where it takes images.
pub(super) fn model<'a>(
    manifest: &Manifest,
    versions: &[&Version],
    formats: impl Fn(&FieldName) -> Option<&'a [Decoder]>,
) -> Value {
    let inputs = manifest.inputs.iter().map(|spec| tensor(spec, formats(&spec.name)));
    json!({
        "name": manifest.model,
        "versions": versions,
        "platform": "tract_onnx",
        "inputs": inputs.collect::<Vec<_>>(),
        "outputs": manifest.outputs.iter().map(|spec| tensor(spec, None)).collect::<Vec<_>>(),
    })
}

/// As the protocol has it, with the names of features, or the formats of files, as a parameter.
fn tensor(spec: &TensorSpec, formats: Option<&[Decoder]>) -> Value {
    let TensorSpec { name, datatype, shape, features } = spec;
    let parameters = match formats {
        Some(formats) => json!({ "formats": formats }),
        None if features.is_empty() => {
            return json!({ "name": name, "datatype": datatype, "shape": shape });
        }
        None => json!({ "features": features }),
    };
    json!({ "name": name, "datatype": datatype, "shape": shape, "parameters": parameters })
}

/// The statistics extension, of one release since the agent started: what is counted here, and nothing else. Pre- and
/// postprocessing happen in the worker and are in `compute_infer`; counts by size of batch are not kept.
pub(super) fn statistics(release: &ReleaseId, snapshot: &Snapshot) -> Value {
    // Counters have what a release computed as a shadow too.
    let Snapshot { effort, counters: _, latency: _ } = snapshot;
    let sum = |count: u64, micros: u64| json!({ "count": count, "ns": micros.saturating_mul(1000) });
    json!({
        "name": release.model,
        "version": release.version,
        "last_inference": effort.last.map_or(0, |last| last.0),
        "inference_count": effort.rows,
        "execution_count": effort.runs,
        "inference_stats": {
            "success": sum(effort.answered, effort.answered_micros),
            "fail": sum(effort.failed, effort.failed_micros),
            "queue": sum(effort.answered, effort.waited_micros),
            "compute_infer": sum(effort.answered, effort.computed_micros),
        },
        "batch_stats": [],
    })
}

/// The list of models that could answer.
pub(super) fn repository<'a>(answering: impl Iterator<Item = &'a ReleaseId>) -> Value {
    let entry = |release: &ReleaseId| json!({ "name": release.model, "version": release.version, "state": "READY", "reason": "" });
    answering.map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_protocol::tensor::DataType;

    #[test]
    fn an_input_of_images_says_which_files_it_takes() {
        let name: FieldName = "photo".parse().expect("name");
        let spec =
            TensorSpec { name: name.clone(), datatype: DataType::Bytes, shape: vec![-1], features: vec![] };
        let plain = json!({ "name": "photo", "datatype": "BYTES", "shape": [-1] });
        assert_eq!(tensor(&spec, None), plain);
        let formats = json!({ "formats": ["jpeg", "png"] });
        assert_eq!(tensor(&spec, Some(&Decoder::ALL))["parameters"], formats);
    }
}
