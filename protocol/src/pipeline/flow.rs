//! How values go through the steps before the model: of which kind and shape each is behind every step.
//! Worked out when a release is packed and when it is loaded, so that running it cannot meet a surprise.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::kind::{Kind, elements};
use super::pre::PreStep;
use super::rules::after;
use super::{MAX_ROW_VALUES, MAX_STEPS};
use crate::ids::FieldName;
use crate::manifest::TensorSpec;

/// A step with what goes into it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// Its number among the steps, from 0.
    pub number: usize,
    /// The step.
    pub step: PreStep,
    /// Places of the values it reads.
    pub reads: Vec<usize>,
    /// The place it writes to.
    pub writes: usize,
    /// What the first value it reads was before it.
    pub before: Kind,
    /// What it writes.
    pub after: Kind,
}

/// All steps in order. Values have places: inputs first, in the order of the manifest, then what is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// The steps, [`PreStep::Feed`] among them.
    pub stages: Vec<Stage>,
    /// How many places there are.
    pub places: usize,
}

/// A value while steps are checked.
struct Live {
    place: usize,
    /// `None` once it was handed to the model.
    kind: Option<Kind>,
    /// Whether anything was made of it.
    read: bool,
}

impl Flow {
    pub(super) fn of(steps: &[PreStep], inputs: &[TensorSpec]) -> Result<Self, String> {
        if steps.len() > MAX_STEPS {
            return Err(format!("pre: more than {MAX_STEPS} steps"));
        }
        let mut live = BTreeMap::new();
        for (place, input) in inputs.iter().enumerate() {
            live.insert(input.name.clone(), Live { place, kind: Some(Kind::of(input)), read: false });
        }
        let mut flow = Self { stages: Vec::with_capacity(steps.len()), places: live.len() };
        for (number, step) in steps.iter().enumerate() {
            let stage = flow
                .stage(number, step, &mut live)
                .map_err(|error| format!("pre step {number} ({}): {error}", step.name()))?;
            if let PreStep::Feed { model_input, .. } = step
                && flow.fed().any(|(_, fed, _)| fed == model_input)
            {
                return Err(format!("pre step {number} (feed): {model_input:?} is fed twice"));
            }
            flow.stages.push(stage);
        }
        if let Some((name, _)) = live.iter().find(|(_, value)| value.kind.is_some() && !value.read) {
            return Err(format!("{name} must be fed to the model, or used for something that is"));
        }
        if flow.fed().next().is_none() {
            return Err("nothing is fed to the model".into());
        }
        Ok(flow)
    }

    fn stage(
        &mut self,
        number: usize,
        step: &PreStep,
        live: &mut BTreeMap<FieldName, Live>,
    ) -> Result<Stage, String> {
        let (reads, kinds) = read(step, live)?;
        let before = kinds.first().cloned().ok_or("it reads nothing")?;
        let after = after(step, &kinds)?;
        if let Kind::Numbers { row, .. } = &after
            && elements(row).is_none()
        {
            return Err(format!("a row would have more than {MAX_ROW_VALUES} values"));
        }
        let writes = match step {
            PreStep::Indicator { output, .. }
            | PreStep::Pick { output, .. }
            | PreStep::Concat { output, .. } => {
                let place = self.places;
                let made = Live { place, kind: Some(after.clone()), read: false };
                if live.insert(output.clone(), made).is_some() {
                    return Err(format!("{output} exists already"));
                }
                self.places += 1;
                place
            }
            in_place => {
                let value = in_place.input().and_then(|input| live.get_mut(input));
                let value = value.ok_or("it reads nothing")?;
                value.kind = match in_place {
                    PreStep::Feed { .. } => None,
                    _ => Some(after.clone()),
                };
                value.place
            }
        };
        Ok(Stage { number, step: step.clone(), reads, writes, before, after })
    }

    /// What is handed to the model: the value's name, the model's name for it, and what it is.
    pub fn fed(&self) -> impl Iterator<Item = (&FieldName, &str, &Kind)> {
        self.stages.iter().filter_map(|stage| match &stage.step {
            PreStep::Feed { input, model_input } => Some((input, model_input.as_str(), &stage.after)),
            _ => None,
        })
    }
}

/// Places and kinds of what `step` reads.
fn read(step: &PreStep, live: &mut BTreeMap<FieldName, Live>) -> Result<(Vec<usize>, Vec<Kind>), String> {
    let names: Vec<&FieldName> = match step {
        PreStep::Concat { inputs, .. } => inputs.iter().collect(),
        one => one.input().into_iter().collect(),
    };
    let makes = matches!(step, PreStep::Indicator { .. } | PreStep::Pick { .. } | PreStep::Concat { .. });
    let mut reads = Vec::with_capacity(names.len());
    let mut kinds = Vec::with_capacity(names.len());
    for name in names {
        let value = live.get_mut(name).ok_or_else(|| format!("there is no input {name}"))?;
        let kind = value.kind.clone().ok_or_else(|| format!("{name} was fed to the model already"))?;
        value.read |= makes;
        reads.push(value.place);
        kinds.push(kind);
    }
    Ok((reads, kinds))
}
