//! Runs the declared steps: raw inputs to model inputs in place, model outputs to declared outputs.

use serin_protocol::ids::FieldName;
use serin_protocol::manifest::{Manifest, TensorSpec};
use serin_protocol::pipeline::{Pipeline, PostStep, PreStep};
use serin_protocol::tensor::DataType;
use std::borrow::Cow;

/// The class number where none can be told because a score is not a number. It lands below the first
/// bin of the prediction sketch, so that drift shows it.
pub(super) const NO_CLASS: i64 = -1;

/// One input on its way to the model.
#[derive(Clone, Debug)]
pub(super) struct Feed {
    /// Name in the manifest.
    pub(super) name: FieldName,
    /// Lengths of one row.
    pub(super) row_shape: Vec<usize>,
    /// Values of one row.
    pub(super) row_elements: usize,
    /// Name in the ONNX graph.
    pub(super) model_input: String,
    steps: Vec<PreStep>,
}

/// The inputs in manifest order, each with the steps that precede its handing over.
pub(super) fn feeds(manifest: &Manifest, pipeline: &Pipeline) -> Result<Vec<Feed>, String> {
    manifest.inputs.iter().map(|input| feed(input, pipeline)).collect()
}

fn feed(input: &TensorSpec, pipeline: &Pipeline) -> Result<Feed, String> {
    let mut steps = Vec::new();
    for step in pipeline.pre.iter().filter(|step| *step.input() == input.name) {
        match step {
            PreStep::Feed { model_input, .. } => {
                let row_elements = input.row_elements().ok_or("a row has no size")?;
                return Ok(Feed {
                    name: input.name.clone(),
                    row_shape: row_shape(input),
                    row_elements,
                    model_input: model_input.clone(),
                    steps,
                });
            }
            PreStep::Missing { .. } | PreStep::Clip { .. } | PreStep::Affine { .. } => {
                steps.push(step.clone());
            }
        }
    }
    Err(format!("input {} is never fed to the model", input.name))
}

/// Lengths after the first; a manifest that was parsed has only positive ones.
fn row_shape(spec: &TensorSpec) -> Vec<usize> {
    spec.shape.iter().skip(1).map(|length| usize::try_from(*length).unwrap_or(0)).collect()
}

impl Feed {
    /// Applies the steps to whole rows.
    pub(super) fn prepare(&self, values: &mut [f32]) {
        for step in &self.steps {
            match step {
                PreStep::Missing { replace, .. } => {
                    values.iter_mut().filter(|value| value.is_nan()).for_each(|value| *value = *replace);
                }
                PreStep::Clip { min, max, .. } => values.iter_mut().for_each(|value| clip(value, *min, *max)),
                PreStep::Affine { scale, offset, .. } => {
                    for row in values.chunks_mut(self.row_elements) {
                        // A single number stands for all values of the row.
                        for ((value, scale), offset) in
                            row.iter_mut().zip(scale.iter().cycle()).zip(offset.iter().cycle())
                        {
                            *value = *value * scale + offset;
                        }
                    }
                }
                PreStep::Feed { .. } => {}
            }
        }
    }
}

/// Unlike `f32::clamp` this cannot panic, and a missing value stays missing.
fn clip(value: &mut f32, min: f32, max: f32) {
    if *value < min {
        *value = min;
    } else if *value > max {
        *value = max;
    }
}

/// Names of the graph's outputs that are taken, each once.
pub(super) fn taken(pipeline: &Pipeline) -> Vec<&str> {
    let mut names = Vec::new();
    for step in &pipeline.post {
        if let PostStep::Take { model_output, .. } = step
            && !names.contains(&model_output.as_str())
        {
            names.push(model_output.as_str());
        }
    }
    names
}

/// Values of one output, all rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column<'a> {
    /// Lengths, rows first.
    pub(super) shape: Vec<usize>,
    /// The values, row by row.
    pub(super) data: Data<'a>,
}

/// Values of one type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data<'a> {
    /// `FP32`.
    Floats(Vec<f32>),
    /// `INT64`.
    Integers(Vec<i64>),
    /// `BYTES`.
    Texts(Vec<Cow<'a, str>>),
}

impl Data<'_> {
    const fn datatype(&self) -> DataType {
        match self {
            Self::Floats(_) => DataType::Fp32,
            Self::Integers(_) => DataType::Int64,
            Self::Texts(_) => DataType::Bytes,
        }
    }
}

/// Runs the steps after the model. `model` gives the model's outputs by their names in the graph.
pub(super) fn finish<'a>(
    steps: &[PostStep],
    model: &[(String, Column<'a>)],
    labels: &'a [String],
) -> Result<Vec<(FieldName, Column<'a>)>, String> {
    let mut made: Vec<(FieldName, Column<'a>)> = Vec::with_capacity(steps.len());
    for step in steps {
        match step {
            PostStep::Take { model_output, output } => {
                let found = model.iter().find(|(name, _)| name == model_output);
                let (_, column) = found.ok_or_else(|| format!("the model has no output {model_output:?}"))?;
                made.push((output.clone(), column.clone()));
            }
            PostStep::Softmax { output } => {
                let column = made.iter_mut().find(|(name, _)| name == output).map(|(_, column)| column);
                let (values, width) = scores(column.ok_or_else(|| absent(output))?, output)?;
                values.chunks_mut(width).for_each(softmax);
            }
            PostStep::Argmax { from, output } => {
                let mut column = find(&made, from)?.clone();
                let (values, width) = scores(&mut column, from)?;
                let classes = values.chunks(width).map(argmax).collect();
                column.shape.pop();
                made.push((output.clone(), Column { shape: column.shape, data: Data::Integers(classes) }));
            }
            PostStep::Max { from, output } => {
                let mut column = find(&made, from)?.clone();
                let (values, width) = scores(&mut column, from)?;
                let largest = values.chunks(width).map(largest).collect();
                column.shape.pop();
                made.push((output.clone(), Column { shape: column.shape, data: Data::Floats(largest) }));
            }
            PostStep::Labels { from, output } => {
                let column = find(&made, from)?;
                let Data::Integers(classes) = &column.data else {
                    return Err(format!(
                        "{from} is {}, labels need class numbers",
                        column.data.datatype().name()
                    ));
                };
                let text = |class: &i64| label(*class, labels).map(Cow::Borrowed);
                let texts = classes.iter().map(text).collect::<Result<_, _>>()?;
                let shape = column.shape.clone();
                made.push((output.clone(), Column { shape, data: Data::Texts(texts) }));
            }
        }
    }
    Ok(made)
}

fn absent(name: &FieldName) -> String {
    format!("no step made {name}")
}

/// The column made under `name`.
pub(super) fn find<'m, 'a>(
    made: &'m [(FieldName, Column<'a>)],
    name: &FieldName,
) -> Result<&'m Column<'a>, String> {
    made.iter().find(|(made, _)| made == name).map(|(_, column)| column).ok_or_else(|| absent(name))
}

/// The floats of a column with an axis besides rows, and the length of its last axis.
fn scores<'m>(column: &'m mut Column<'_>, name: &FieldName) -> Result<(&'m mut [f32], usize), String> {
    let datatype = column.data.datatype();
    match (&mut column.data, column.shape.as_slice()) {
        (Data::Floats(values), [_, .., width]) if *width > 0 => Ok((values, *width)),
        (Data::Floats(_), shape) => {
            Err(format!("{name} has shape {shape:?}, there is nothing to compare in a row"))
        }
        (Data::Integers(_) | Data::Texts(_), _) => {
            Err(format!("{name} is {}, scores must be FP32", datatype.name()))
        }
    }
}

/// Softmax of one row, shifted by its largest value so that nothing overflows. NaN makes all NaN.
fn softmax(row: &mut [f32]) {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for value in row.iter_mut() {
        *value = (*value - largest).exp();
        sum += *value;
    }
    row.iter_mut().for_each(|value| *value /= sum);
}

/// Position of the largest value, the first of equals; [`NO_CLASS`] when one is NaN.
fn argmax(row: &[f32]) -> i64 {
    let mut best: Option<(i64, f32)> = None;
    for (at, value) in (0_i64..).zip(row) {
        if value.is_nan() {
            return NO_CLASS;
        }
        if best.is_none_or(|(_, largest)| *value > largest) {
            best = Some((at, *value));
        }
    }
    best.map_or(NO_CLASS, |(at, _)| at)
}

/// The largest value; NaN when one is NaN.
fn largest(row: &[f32]) -> f32 {
    row.iter().copied().reduce(|a, b| if a.is_nan() || a >= b { a } else { b }).unwrap_or(f32::NAN)
}

/// The text for a class; none for a class that could not be told. A number without a line is an error
/// of the bundle, not an empty answer.
fn label(class: i64, labels: &[String]) -> Result<&str, String> {
    if class == NO_CLASS {
        return Ok("");
    }
    let line = usize::try_from(class).ok().and_then(|class| labels.get(class));
    line.map(String::as_str)
        .ok_or_else(|| format!("class {class} has no line in labels.txt, which has {}", labels.len()))
}

/// Checks that a column is what the manifest declares.
pub(super) fn check(column: &Column<'_>, spec: &TensorSpec, rows: usize) -> Result<(), String> {
    let fits = column.shape.first() == Some(&rows)
        && column.shape.len() == spec.shape.len()
        && column.shape.iter().skip(1).copied().eq(row_shape(spec));
    if !fits || column.data.datatype() != spec.datatype {
        return Err(format!(
            "output {} is {} of shape {:?}, the manifest declares {} {:?}",
            spec.name,
            column.data.datatype().name(),
            column.shape,
            spec.datatype.name(),
            spec.shape
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
