//! What golden vectors do not prove although they are in order: said at packing, where it can still be changed.

use std::collections::BTreeMap;

use serin_protocol::golden::{Golden, GoldenCase};
use serin_protocol::ids::FieldName;
use serin_protocol::pipeline::{Flow, PreStep};

/// Most that outputs differ by, as a share, where only rounding differs.
const MOST_ROUNDING: f32 = 0.1;

/// What is wrong with where the golden outputs come from, if anything is: only the training side's runtime can
/// show that the device's computes something else.
pub(super) fn about_producer(producer: Option<&str>) -> Option<String> {
    match producer.map(str::trim) {
        None | Some("") => Some(
            "serin.toml, [golden] does not say what computed the expected outputs. They must come from the \
             training side's runtime: add producer = \"onnxruntime 1.32\", or what it was"
                .into(),
        ),
        Some(producer) => {
            let own = ["tract", "serin"].iter().any(|name| producer.to_lowercase().contains(name));
            own.then(|| {
                format!(
                    "golden outputs computed by {producer} prove nothing: devices run the same. Have the \
                     training side's runtime compute them"
                )
            })
        }
    }
}

/// What of the pipeline no case proves, if that is so: steps change values on their way to the model, and nothing says
/// what the training side handed to it.
pub(super) fn about_steps(golden: &Golden, flow: &Flow) -> Option<String> {
    if golden.cases.iter().any(GoldenCase::says_fed) {
        return None;
    }
    // These two hand on what they read. All others change, choose or order values.
    let hands_on = |step: &PreStep| matches!(step, PreStep::Feed { .. } | PreStep::Present { .. });
    let mut steps: Vec<&str> = Vec::new();
    for stage in flow.stages.iter().filter(|stage| !hands_on(&stage.step)) {
        if !steps.contains(&stage.step.name()) {
            steps.push(stage.step.name());
        }
    }
    if steps.is_empty() {
        return None;
    }
    let fed: Vec<String> = flow
        .fed()
        .filter(|(_, _, kind)| kind.elements().is_some())
        .map(|(_, input, _)| format!("{input:?}: [...]"))
        .collect();
    Some(format!(
        "pipeline.json changes what the model takes ({}), and no golden case says what that must be: a step that \
         differs from training shows only where outputs differ, without its feature. Have the training side write \
         beside the inputs what it handed to the model: \"tensors\": {{{}}}",
        steps.join(", "),
        fed.join(", ")
    ))
}

/// What tolerances let pass that is no rounding, a sentence each.
pub(super) fn about_tolerances(golden: &Golden) -> Vec<String> {
    let mut doubts = Vec::new();
    if golden.relative > MOST_ROUNDING {
        doubts.push(format!(
            "serin.toml, [golden]: relative = {:e} lets pass what is wrong by more than a tenth; rounding differs by 1e-3 at \
             most",
            golden.relative
        ));
    }
    let mut largest: BTreeMap<&FieldName, f32> = BTreeMap::new();
    for output in golden.cases.iter().flat_map(|case| &case.outputs) {
        let own = largest.entry(&output.name).or_default();
        *own = output.values.iter().fold(*own, |most, value| most.max(value.abs()));
    }
    // Outputs that are 0 in all cases have nothing to be compared with.
    if let Some((name, most)) = largest.into_iter().find(|(_, most)| *most > 0.0 && *most <= golden.absolute)
    {
        doubts.push(format!(
            "serin.toml, [golden]: absolute = {:e} is as much as any expected value of {name} ({most:e} at most): one that is \
             always 0 would pass",
            golden.absolute
        ));
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_protocol::golden::GoldenTensor;
    use serin_protocol::manifest::TensorSpec;
    use serin_protocol::pipeline::Pipeline;
    use serin_protocol::tensor::DataType;

    const FEED: &str = r#"{"op": "feed", "input": "x", "model_input": "X"}"#;

    /// The doubt about `steps` where the only case says `tensors`.
    fn doubt(steps: &str, tensors: Vec<GoldenTensor>) -> Option<String> {
        let input = TensorSpec {
            name: "x".parse().expect("name"),
            datatype: DataType::Fp32,
            shape: vec![-1],
            features: Vec::new(),
        };
        let steps = format!("{{\"pre\": [{steps}], \"post\": []}}");
        let flow = Pipeline::read(steps.as_bytes()).expect("steps").flow(&[input]).expect("sound");
        let cases = vec![GoldenCase { tensors, ..GoldenCase::default() }];
        about_steps(&Golden { relative: 0.0, absolute: 0.0, fed: vec![], cases }, &flow)
    }

    #[test]
    fn tolerances_that_let_everything_pass_are_doubted() {
        let doubts = |relative, absolute| {
            let name = |name: &str| name.parse().expect("name");
            let outputs = vec![
                GoldenTensor { name: name("share"), values: vec![0.25, -0.5] },
                GoldenTensor { name: name("class"), values: vec![0.0] },
            ];
            let cases = vec![GoldenCase { outputs, ..GoldenCase::default() }];
            about_tolerances(&Golden { relative, absolute, fed: vec![], cases })
        };
        assert!(doubts(1e-3, 0.1).is_empty());
        let said = doubts(1e30, 0.5);
        assert!(
            said.len() == 2 && said[0].contains("relative = 1e30") && said[1].contains("share"),
            "{said:?}"
        );
    }

    #[test]
    fn steps_that_no_case_proves_are_doubted() {
        assert_eq!(doubt(FEED, vec![]), None);
        assert_eq!(doubt(&format!(r#"{{"op": "present", "input": "x"}}, {FEED}"#), vec![]), None);
        let logged = format!(r#"{{"op": "log1p", "input": "x"}}, {FEED}"#);
        let said = doubt(&logged, vec![]).expect("doubted");
        assert!(said.contains("(log1p)") && said.contains(r#""tensors": {"X": [...]}"#), "{said}");
        let tensor = GoldenTensor { name: "x".parse().expect("name"), values: vec![0.5] };
        assert_eq!(doubt(&logged, vec![tensor]), None);
    }
}
