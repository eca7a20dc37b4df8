//! The steps before the model, from raw rows to what is handed to it.

use serin_protocol::ids::FieldName;
use serin_protocol::manifest::watch::Pictured;
use serin_protocol::pipeline::{Flow, Kind, PreStep, Stage, shorter};
use serin_protocol::sketch::summary::RowSums;

use super::categories::{Positions, Windows, one_hot, ordinal};
use super::decode;
use super::image::{Image, Normalise};
use super::numbers::{Numbers, Operation, picked};
use super::raw::{Raw, Value};
use super::room;

/// Prepared rows of one tensor handed to the model.
#[derive(Clone, Debug, PartialEq)]
pub enum Fed {
    /// Numbers.
    Numbers(Numbers),
    /// Texts.
    Texts(Vec<String>),
}

impl Fed {
    /// Adds those of more rows, which are of the same kind.
    fn extend(&mut self, more: Self) {
        match (self, more) {
            (Self::Numbers(numbers), Self::Numbers(more)) => numbers.extend(more),
            (Self::Texts(texts), Self::Texts(more)) => texts.extend(more),
            (Self::Numbers(_) | Self::Texts(_), _) => {}
        }
    }
}

/// A tensor handed to the model.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Name in the pipeline.
    pub name: FieldName,
    /// Lengths of one row.
    pub row_shape: Vec<usize>,
    /// Values of one row.
    pub row_elements: usize,
    /// Name in the ONNX graph.
    pub model_input: String,
    /// Whether it holds texts.
    pub is_text: bool,
    /// A name for each value of a row, where they have names.
    pub names: Vec<String>,
}

/// All steps before the model, ready to run.
#[derive(Debug)]
pub struct Preparation {
    flow: Flow,
    /// For each stage, where its categories are.
    positions: Vec<Option<Positions>>,
    /// For each stage, how many pixels a picture has at most behind it.
    most_pixels: Vec<u32>,
    /// Images are large and of any size: with them rows are prepared one by one.
    one_by_one: bool,
    /// What is watched of pictures.
    pictured: Vec<Pictured>,
}

/// A step refuses a value: which of the value's places, and why.
type Refused = (usize, String);

impl Preparation {
    /// For the steps of `flow`. Fails when memory does not suffice for the largest image.
    pub fn of(flow: Flow) -> Result<Self, String> {
        let mut positions = Vec::with_capacity(flow.stages.len());
        for stage in &flow.stages {
            positions.push(match &stage.step {
                PreStep::Ordinal { categories, .. } | PreStep::OneHot { categories, .. } => {
                    Some(Positions::of(categories))
                }
                _ => None,
            });
        }
        let most_pixels = room::most_pixels(&flow);
        room::try_memory(&flow, &most_pixels)?;
        let is_image = |stage: &Stage| matches!(stage.after, Kind::Image { .. });
        let one_by_one = flow.stages.iter().any(is_image);
        Ok(Self { one_by_one, flow, positions, most_pixels, pictured: Vec::new() })
    }

    /// The same, watching pictures.
    #[must_use]
    pub fn watching(self, pictured: Vec<Pictured>) -> Self {
        Self { pictured, ..self }
    }

    /// Numbers about the pictures of one row.
    fn watched(&self) -> usize {
        self.pictured.iter().map(|pictured| pictured.summaries.len()).sum()
    }

    /// What is handed to the model, in the order in which it is.
    pub fn feeds(&self) -> Vec<Feed> {
        let feed = |(name, model_input, kind): (&FieldName, &str, &Kind)| Feed {
            name: name.clone(),
            row_shape: kind.row().to_vec(),
            row_elements: kind.elements().unwrap_or(0),
            model_input: model_input.to_owned(),
            is_text: matches!(kind, Kind::Texts { .. }),
            names: kind.names().to_vec(),
        };
        self.flow.fed().map(feed).collect()
    }

    /// Bytes that the files of pictures of one row have at most, and a little for its other values.
    pub fn largest_files(&self) -> usize {
        room::largest_files(&self.flow)
    }

    /// `count` rows from row `first` on, in the order of [`Self::feeds`]. What is watched of their pictures goes behind
    /// `seen`, row by row. The error names step, row and feature.
    pub fn prepare(
        &self,
        raw: &[Raw<'_>],
        first: usize,
        count: usize,
        seen: &mut Vec<f32>,
    ) -> Result<Vec<Fed>, String> {
        if !self.one_by_one || count < 2 {
            return self.run(raw, first, count, seen);
        }
        let mut all = self.run(raw, first, 1, seen)?;
        for row in first + 1..first + count {
            let more = self.run(raw, row, 1, seen)?;
            all.iter_mut().zip(more).for_each(|(all, more)| all.extend(more));
        }
        Ok(all)
    }

    fn run(
        &self,
        raw: &[Raw<'_>],
        first: usize,
        count: usize,
        seen: &mut Vec<f32>,
    ) -> Result<Vec<Fed>, String> {
        let behind = seen.len();
        seen.resize(behind + count * self.watched(), f32::NAN);
        let seen = seen.get_mut(behind..).unwrap_or_default();
        let mut values: Vec<Value<'_>> =
            raw.iter().map(|raw| raw.rows(first, count)).collect::<Result<_, _>>()?;
        values.resize_with(self.flow.places, || Value::None);
        let mut fed = Vec::new();
        let facts = self.positions.iter().zip(&self.most_pixels);
        for (stage, (positions, most)) in self.flow.stages.iter().zip(facts) {
            let made = match &stage.step {
                PreStep::Feed { .. } => {
                    match take(&mut values, stage.writes) {
                        Value::Numbers(numbers) => fed.push(Fed::Numbers(numbers)),
                        Value::Texts(texts) => {
                            let texts = utf8(&texts).map_err(|refused| told(stage, first, refused))?;
                            fed.push(Fed::Texts(texts));
                        }
                        Value::Images(_) | Value::None => {}
                    }
                    continue;
                }
                PreStep::Concat { .. } => Ok(concat(stage, &values, count)),
                PreStep::Indicator { .. } => Ok(indicator(get(&values, stage))),
                PreStep::Pick { features, .. } => Ok(pick(get(&values, stage), &stage.before, features)),
                PreStep::DecodeImage { .. }
                | PreStep::Frame { .. }
                | PreStep::Resize { .. }
                | PreStep::ResizeShorter { .. }
                | PreStep::CenterCrop { .. }
                | PreStep::ImageTensor { .. } => picture(stage, *most, take(&mut values, stage.writes)),
                _ => apply(stage, positions.as_ref(), take(&mut values, stage.writes)),
            };
            let made = made.map_err(|refused| told(stage, first, refused))?;
            if let (PreStep::DecodeImage { .. }, Value::Images(images)) = (&stage.step, &made) {
                self.look_at(images, stage.writes, seen);
            }
            if let Some(place) = values.get_mut(stage.writes) {
                *place = made;
            }
        }
        Ok(fed)
    }
}

impl Preparation {
    /// Writes what is watched of decoded `images`, one a row, of the input at `place` into those rows' places in `seen`.
    fn look_at(&self, images: &[Image], place: usize, seen: &mut [f32]) {
        let Some(pictured) = self.pictured.iter().find(|pictured| pictured.place == place) else { return };
        for (image, row) in images.iter().zip(seen.chunks_mut(self.watched().max(1))) {
            let sums = RowSums::of_pixels(&image.pixels, image.channels);
            for (number, summary) in row.iter_mut().skip(pictured.first).zip(&pictured.summaries) {
                *number = sums.get(*summary);
            }
        }
    }
}

/// Texts as models take them.
fn utf8(texts: &[&[u8]]) -> Result<Vec<String>, Refused> {
    let text = |(at, text): (usize, &&[u8])| {
        std::str::from_utf8(text).map(str::to_owned).map_err(|_| (at, "the text is not UTF-8".to_owned()))
    };
    texts.iter().enumerate().map(text).collect()
}

/// The refusal in words.
fn told(stage: &Stage, first: usize, (at, why): Refused) -> String {
    let row = stage.before.elements().unwrap_or(1).max(1);
    let step = format!("pre step {} ({})", stage.number, stage.step.name());
    let input = stage.step.input().map_or("", AsRef::as_ref);
    let feature = stage.before.names().get(at % row).map_or(input, String::as_str);
    format!("{step}, row {}, feature {feature}: {why}", first + at / row)
}

fn take<'r>(values: &mut [Value<'r>], place: usize) -> Value<'r> {
    values.get_mut(place).map_or(Value::None, |value| std::mem::replace(value, Value::None))
}

fn get<'v, 'r>(values: &'v [Value<'r>], stage: &Stage) -> &'v Value<'r> {
    stage.reads.first().and_then(|place| values.get(*place)).unwrap_or(&Value::None)
}

/// Steps that change a value in place. Kinds were checked when the release was loaded; a value of another
/// kind is passed on as it is.
fn apply<'r>(stage: &Stage, positions: Option<&Positions>, value: Value<'r>) -> Result<Value<'r>, Refused> {
    let row = stage.before.elements().unwrap_or(1);
    let operation = match &stage.step {
        PreStep::Missing { replace, .. } => Operation::Missing(replace),
        PreStep::Clip { min, max, .. } => Operation::Clip(min, max),
        PreStep::Affine { scale, offset, .. } => Operation::Affine(scale, offset),
        PreStep::Standard { mean, scale, .. } => Operation::Standard(mean, scale),
        PreStep::MinMax { min, max, .. } => Operation::MinMax(min, max),
        PreStep::Log1p { .. } => Operation::Log1p,
        PreStep::Present { .. } => return present(value),
        PreStep::Ordinal { numbers, unknown, .. } => {
            return positions.map_or(Ok(Value::None), |positions| {
                ordinal(&value, positions, numbers, *unknown).map(Value::Numbers)
            });
        }
        PreStep::OneHot { categories, unknown, .. } => {
            return positions.map_or(Ok(Value::None), |positions| {
                one_hot(&value, positions, categories.len(), *unknown).map(Value::Numbers)
            });
        }
        PreStep::ByteWindows { length, stride, windows, padding, offset, long, input: _ } => {
            let windows = Windows {
                length: *length,
                stride: *stride,
                count: *windows,
                padding: *padding,
                offset: *offset,
                long: *long,
            };
            return match value {
                Value::Texts(texts) => windows.over(&texts).map(Value::Numbers),
                other => Ok(other),
            };
        }
        _ => return Ok(value),
    };
    Ok(match value {
        Value::Numbers(numbers) => Value::Numbers(numbers.compute(row, &operation)),
        other => other,
    })
}

/// Steps on images, and to and from them. An image has `most` pixels behind it at most.
fn picture<'r>(stage: &Stage, most: u32, value: Value<'r>) -> Result<Value<'r>, Refused> {
    match (&stage.step, value) {
        (PreStep::DecodeImage { formats, channels, max_pixels, .. }, Value::Texts(files)) => {
            let decoded = files.iter().enumerate().map(|(at, file)| {
                let image = decode::decode(file, formats, *max_pixels).map_err(|why| (at, why))?;
                Ok(image.with(*channels))
            });
            decoded.collect::<Result<_, _>>().map(Value::Images)
        }
        (PreStep::Frame { .. }, Value::Numbers(Numbers::Bytes(bytes))) => {
            let [height, width, channels] = stage.before.row() else { return Ok(Value::None) };
            let (width, height, channels) = (*width, *height, *channels);
            let image = |pixels: &[u8]| Image { width, height, channels, pixels: pixels.to_vec() };
            Ok(Value::Images(bytes.chunks(width * height * channels).map(image).collect()))
        }
        (PreStep::Resize { width, height, filter, .. }, Value::Images(images)) => {
            let resized = |image: Image| image.resized(*width as usize, *height as usize, *filter);
            Ok(Value::Images(images.into_iter().map(resized).collect()))
        }
        (PreStep::ResizeShorter { length, filter, .. }, Value::Images(images)) => {
            let resized = images.into_iter().enumerate().map(|(at, image)| {
                // Within 65,535 a side.
                let (width, height) = shorter(image.width as u32, image.height as u32, *length, most)
                    .map_err(|why| (at, why))?;
                Ok(image.resized(width as usize, height as usize, *filter))
            });
            resized.collect::<Result<_, _>>().map(Value::Images)
        }
        (PreStep::CenterCrop { width, height, .. }, Value::Images(images)) => {
            let cropped = images.iter().enumerate().map(|(at, image)| {
                image.center(*width as usize, *height as usize).ok_or_else(|| {
                    let found = format!("the image has {} x {} pixels", image.width, image.height);
                    (at, format!("{found}, less than {width} x {height}"))
                })
            });
            cropped.collect::<Result<_, _>>().map(Value::Images)
        }
        (PreStep::ImageTensor { layout, order, scale, mean, std, .. }, Value::Images(images)) => {
            let how = Normalise { layout: *layout, order: *order, scale: *scale, mean, std };
            let mut numbers = Vec::new();
            images.iter().for_each(|image| image.numbers(&how, &mut numbers));
            Ok(Value::Numbers(Numbers::Singles(numbers)))
        }
        (_, other) => Ok(other),
    }
}

fn present(value: Value<'_>) -> Result<Value<'_>, Refused> {
    let missing = match &value {
        Value::Numbers(numbers) => numbers.first_missing(),
        Value::Texts(texts) => texts.iter().position(|text| text.is_empty()),
        Value::Images(_) | Value::None => None,
    };
    missing.map_or(Ok(value), |at| Err((at, "the value is missing".into())))
}

fn indicator<'r>(value: &Value<'_>) -> Value<'r> {
    Value::Numbers(Numbers::Singles(match value {
        Value::Numbers(numbers) => numbers.missing(),
        Value::Texts(texts) => texts.iter().map(|text| f32::from(u8::from(text.is_empty()))).collect(),
        Value::Images(_) | Value::None => Vec::new(),
    }))
}

fn pick<'r>(value: &Value<'r>, kind: &Kind, features: &[FieldName]) -> Value<'r> {
    let row = kind.elements().unwrap_or(1);
    let place = |name: &FieldName| kind.names().iter().position(|known| known == name.as_str());
    let columns: Vec<usize> = features.iter().filter_map(place).collect();
    match value {
        Value::Numbers(numbers) => Value::Numbers(numbers.pick(row, &columns)),
        Value::Texts(texts) => Value::Texts(picked(texts, row, &columns)),
        Value::Images(_) | Value::None => Value::None,
    }
}

/// Values of all inputs of the stage side by side, in the wider precision.
fn concat<'r>(stage: &Stage, values: &[Value<'_>], rows: usize) -> Value<'r> {
    let parts = stage.reads.iter().filter_map(|place| match values.get(*place) {
        Some(Value::Numbers(numbers)) => Some(numbers),
        _ => None,
    });
    let parts: Vec<&Numbers> = parts.collect();
    let each = |take: &mut dyn FnMut(f64)| {
        for row in 0..rows {
            for numbers in &parts {
                let width = numbers.len() / rows.max(1);
                (row * width..(row + 1) * width).for_each(|at| take(numbers.at(at)));
            }
        }
    };
    if parts.iter().any(|numbers| matches!(numbers, Numbers::Doubles(_))) {
        let mut all = Vec::new();
        each(&mut |number| all.push(number));
        return Value::Numbers(Numbers::Doubles(all));
    }
    let mut all = Vec::new();
    each(&mut |number| all.push(number as f32));
    Value::Numbers(Numbers::Singles(all))
}

#[cfg(test)]
#[path = "prepare_tests.rs"]
mod tests;
