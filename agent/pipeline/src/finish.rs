//! The steps after the model, from its outputs to the declared ones.

use serin_protocol::ids::FieldName;
use serin_protocol::manifest::TensorSpec;
use serin_protocol::pipeline::{Pipeline, PostStep};
use serin_protocol::tensor::DataType;
use std::borrow::Cow;

use super::boxes::{self, Suppression};

/// The class number where none can be told because a score is not a number. It lands below the first
/// bin of the prediction sketch, so that drift shows it.
pub(crate) const NO_CLASS: i64 = -1;

/// Names of the graph's outputs that are taken, each once.
pub fn taken(pipeline: &Pipeline) -> Vec<&str> {
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
pub struct Column<'a> {
    /// Lengths, rows first.
    pub shape: Vec<usize>,
    /// The values, row by row.
    pub data: Data<'a>,
}

/// Values of one type.
#[derive(Clone, Debug, PartialEq)]
pub enum Data<'a> {
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
pub fn finish<'a>(
    steps: &[PostStep],
    model: &[(String, Column<'a>)],
    labels: &'a [String],
) -> Result<Vec<(FieldName, Column<'a>)>, String> {
    let mut made: Vec<(FieldName, Column<'a>)> = Vec::with_capacity(steps.len());
    for (number, step) in steps.iter().enumerate() {
        run(step, model, labels, &mut made)
            .map_err(|error| format!("post step {number} ({}): {error}", step.name()))?;
    }
    Ok(made)
}

fn run<'a>(
    step: &PostStep,
    model: &[(String, Column<'a>)],
    labels: &'a [String],
    made: &mut Vec<(FieldName, Column<'a>)>,
) -> Result<(), String> {
    let (output, column) = match step {
        PostStep::Take { model_output, output } => {
            let found = model.iter().find(|(name, _)| name == model_output);
            let (_, column) = found.ok_or_else(|| format!("the model has no output {model_output:?}"))?;
            (output, column.clone())
        }
        PostStep::Softmax { output } => {
            let (values, width) = in_place(made, output)?;
            values.chunks_mut(width).for_each(softmax);
            return Ok(());
        }
        PostStep::Sigmoid { output } => {
            let (values, _) = in_place(made, output)?;
            values.iter_mut().for_each(|value| *value = sigmoid(*value));
            return Ok(());
        }
        PostStep::Argmax { from, output } => {
            let (values, width, shape) = scores(made, from)?;
            (output, Column { shape, data: Data::Integers(values.chunks(width).map(argmax).collect()) })
        }
        PostStep::Max { from, output } => {
            let (values, width, shape) = scores(made, from)?;
            (output, Column { shape, data: Data::Floats(values.chunks(width).map(largest).collect()) })
        }
        PostStep::Pick { from, index, output } => {
            let (values, width, shape) = scores(made, from)?;
            if *index >= width {
                return Err(format!(
                    "{from} has {width} values in its last axis, there is no number {index}"
                ));
            }
            let picked = values.iter().skip(*index).step_by(width).copied().collect();
            (output, Column { shape, data: Data::Floats(picked) })
        }
        PostStep::Threshold { from, at, output } => {
            let column = find(made, from)?;
            let (Data::Floats(values), width) = (&column.data, column.shape.last().copied().unwrap_or(1))
            else {
                return Err(unfit(column, from));
            };
            let numbers = at.numbers().len();
            if numbers != 1 && (numbers != width || column.shape.len() < 2) {
                return Err(format!("{numbers} thresholds for {width} values in the last axis of {from}"));
            }
            let above = |(place, value): (usize, &f32)| {
                let threshold = at.at(place % width.max(1));
                if value.is_nan() { NO_CLASS } else { i64::from(*value >= threshold as f32) }
            };
            let data = Data::Integers(values.iter().enumerate().map(above).collect());
            (output, Column { shape: column.shape.clone(), data })
        }
        PostStep::TopK { from, k, classes, scores: best } => {
            let (values, width, mut shape) = scores(made, from)?;
            if *k > width {
                return Err(format!("{from} has {width} values in its last axis, not {k}"));
            }
            let (places, values): (Vec<i64>, Vec<f32>) =
                values.chunks(width).flat_map(|row| top(row, *k)).unzip();
            shape.push(*k);
            made.push((classes.clone(), Column { shape: shape.clone(), data: Data::Integers(places) }));
            (best, Column { shape, data: Data::Floats(values) })
        }
        PostStep::Labels { from, output } => {
            let column = find(made, from)?;
            let Data::Integers(classes) = &column.data else {
                return Err(format!(
                    "{from} is {}, labels need class numbers",
                    column.data.datatype().name()
                ));
            };
            let text = |class: &i64| label(*class, labels).map(Cow::Borrowed);
            let texts = classes.iter().map(text).collect::<Result<_, _>>()?;
            (output, Column { shape: column.shape.clone(), data: Data::Texts(texts) })
        }
        PostStep::Nms { boxes, form, scores, least, overlap, most, kept, classes, kept_scores } => {
            let how = Suppression { form: *form, least: *least, overlap: *overlap, most: *most };
            let (corners, numbers, values) = suppressed(made, boxes, scores, &how)?;
            made.push((kept.clone(), corners));
            made.push((classes.clone(), numbers));
            (kept_scores, values)
        }
    };
    made.push((output.clone(), column));
    Ok(())
}

/// What is left of the boxes of all rows: their corners, classes and scores.
fn suppressed<'a>(
    made: &[(FieldName, Column<'a>)],
    boxes: &FieldName,
    scores: &FieldName,
    how: &Suppression,
) -> Result<(Column<'a>, Column<'a>, Column<'a>), String> {
    let (places, points) = (find(made, boxes)?, find(made, scores)?);
    let (Data::Floats(all_boxes), [rows, count, 4]) = (&places.data, places.shape.as_slice()) else {
        return Err(format!("{boxes} must be FP32 [rows, boxes, 4], not {:?}", places.shape));
    };
    let (Data::Floats(all_scores), [_, _, classes]) = (&points.data, points.shape.as_slice()) else {
        return Err(format!("{scores} must be FP32 [rows, boxes, classes], not {:?}", points.shape));
    };
    if points.shape.get(..2) != places.shape.get(..2) || *count == 0 || *classes == 0 {
        return Err(format!("{boxes} and {scores} are not about the same boxes"));
    }
    let (mut corners, mut numbers, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (boxes, scores) in all_boxes.chunks(count * 4).zip(all_scores.chunks(count * classes)) {
        let kept = boxes::suppress(boxes, scores, *classes, how);
        for kept in &kept {
            corners.extend(kept.corners);
            numbers.push(kept.class);
            values.push(kept.score);
        }
        let absent = how.most - kept.len();
        corners.extend(std::iter::repeat_n(0.0, absent * 4));
        numbers.extend(std::iter::repeat_n(NO_CLASS, absent));
        values.extend(std::iter::repeat_n(0.0, absent));
    }
    let column = |shape: &[usize], data| Column { shape: shape.to_vec(), data };
    Ok((
        column(&[*rows, how.most, 4], Data::Floats(corners)),
        column(&[*rows, how.most], Data::Integers(numbers)),
        column(&[*rows, how.most], Data::Floats(values)),
    ))
}

fn absent(name: &FieldName) -> String {
    format!("no step made {name}")
}

/// The column made under `name`.
pub fn find<'m, 'a>(made: &'m [(FieldName, Column<'a>)], name: &FieldName) -> Result<&'m Column<'a>, String> {
    made.iter().find(|(made, _)| made == name).map(|(_, column)| column).ok_or_else(|| absent(name))
}

/// The floats of `name`, which has an axis besides rows, the length of its last axis, and its shape without that.
fn scores<'m>(
    made: &'m [(FieldName, Column<'_>)],
    name: &FieldName,
) -> Result<(&'m [f32], usize, Vec<usize>), String> {
    let column = find(made, name)?;
    match (&column.data, column.shape.as_slice()) {
        (Data::Floats(values), [rows, between @ .., width]) if *width > 0 => {
            let shape = std::iter::once(*rows).chain(between.iter().copied()).collect();
            Ok((values, *width, shape))
        }
        _ => Err(unfit(column, name)),
    }
}

/// The floats of `name` to be changed, and the length of its last axis.
fn in_place<'m>(
    made: &'m mut [(FieldName, Column<'_>)],
    name: &FieldName,
) -> Result<(&'m mut [f32], usize), String> {
    let column = made.iter_mut().find(|(made, _)| made == name).map(|(_, column)| column);
    let column = column.ok_or_else(|| absent(name))?;
    let wrong = unfit(column, name);
    match (&mut column.data, column.shape.as_slice()) {
        (Data::Floats(values), [_, .., width]) if *width > 0 => Ok((values, *width)),
        _ => Err(wrong),
    }
}

fn unfit(column: &Column<'_>, name: &FieldName) -> String {
    match &column.data {
        Data::Floats(_) => {
            format!("{name} has shape {:?}, there is nothing to compare in a row", column.shape)
        }
        Data::Integers(_) | Data::Texts(_) => {
            format!("{name} is {}, scores must be FP32", column.data.datatype().name())
        }
    }
}

fn sigmoid(value: f32) -> f32 {
    1.0 / (1.0 + (-value).exp())
}

/// Places and values of the `k` largest of a row, the first of equals first; what is no number comes last, as
/// [`NO_CLASS`].
fn top(row: &[f32], k: usize) -> Vec<(i64, f32)> {
    let mut places: Vec<(i64, f32)> = (0_i64..).zip(row.iter().copied()).collect();
    let order = |a: &(i64, f32), b: &(i64, f32)| {
        a.1.is_nan()
            .cmp(&b.1.is_nan())
            .then(b.1.partial_cmp(&a.1).unwrap_or(std::cmp::Ordering::Equal))
            .then(a.0.cmp(&b.0))
    };
    if k < places.len() {
        places.select_nth_unstable_by(k, order);
        places.truncate(k);
    }
    places.sort_unstable_by(order);
    places.into_iter().map(|(at, value)| (if value.is_nan() { NO_CLASS } else { at }, value)).collect()
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
pub fn check(column: &Column<'_>, spec: &TensorSpec, rows: usize) -> Result<(), String> {
    let fits = column.shape.first() == Some(&rows)
        && column.shape.len() == spec.shape.len()
        && column.shape.iter().skip(1).copied().eq(row(spec));
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

/// Lengths after the first; a manifest that was parsed has only positive ones.
fn row(spec: &TensorSpec) -> impl Iterator<Item = usize> {
    spec.shape.iter().skip(1).map(|length| usize::try_from(*length).unwrap_or(0))
}

#[cfg(test)]
#[path = "finish_tests.rs"]
mod tests;
