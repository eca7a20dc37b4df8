//! What each step before the model makes of the kinds of values it reads, or why it cannot work on them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::kind::{Kind, Precision, elements, unfit};
use super::pre::{Category, Layout, PerValue, PreStep, UnknownCode, UnknownColumn};
use super::{MAX_CATEGORIES, MAX_PIXELS, MAX_SIDE, MAX_WINDOW_BYTES};
use crate::ids::FieldName;

/// Most feature names carried along for one value; a picture's pixels have none.
const MAX_NAMES: usize = 65_536;

/// What `step` makes of values of these `kinds`.
pub(super) fn after(step: &PreStep, kinds: &[Kind]) -> Result<Kind, String> {
    let kind = kinds.first().ok_or("it reads nothing")?;
    let input = step.input();
    match step {
        PreStep::Missing { replace, .. } => arithmetic(kind, input, &[("replace", replace)]),
        PreStep::Affine { scale, offset, .. } => {
            arithmetic(kind, input, &[("scale", scale), ("offset", offset)])
        }
        PreStep::Standard { mean, scale, .. } => {
            not_zero("scale", scale)?;
            arithmetic(kind, input, &[("mean", mean), ("scale", scale)])
        }
        PreStep::Clip { min, max, .. } => {
            ordered(min, max, |low, high| low <= high)?;
            arithmetic(kind, input, &[("min", min), ("max", max)])
        }
        PreStep::MinMax { min, max, .. } => {
            ordered(min, max, |low, high| low < high)?;
            arithmetic(kind, input, &[("min", min), ("max", max)])
        }
        PreStep::Log1p { .. } => arithmetic(kind, input, &[]),
        PreStep::Present { .. } => match kind {
            Kind::Numbers { .. } | Kind::Texts { .. } => Ok(kind.clone()),
            Kind::Image { .. } => Err("an image is never missing".into()),
        },
        PreStep::Indicator { .. } => match kind {
            Kind::Numbers { row, names, .. } | Kind::Texts { row, names } => {
                let names = names.iter().map(|name| format!("{name} is missing")).collect();
                Ok(Kind::Numbers { row: row.clone(), precision: Precision::Single, names })
            }
            Kind::Image { .. } => Err("an image is never missing".into()),
        },
        PreStep::Pick { features, .. } => pick(kind, features),
        PreStep::Concat { .. } => concat(kinds),
        PreStep::Ordinal { categories, numbers, unknown, .. } => {
            if !numbers.is_empty() && numbers.len() != categories.len() {
                return Err(format!("{} numbers for {} categories", numbers.len(), categories.len()));
            }
            let fallback = match unknown {
                UnknownCode::Number(number) => Some(number),
                UnknownCode::Refuse | UnknownCode::Missing => None,
            };
            if !numbers.iter().chain(fallback).all(|number| number.is_finite()) {
                return Err("a number is not finite".into());
            }
            let (row, names) = categorical(kind, categories, input)?;
            Ok(Kind::Numbers { row, precision: Precision::Double, names })
        }
        PreStep::OneHot { categories, unknown, .. } => {
            let (row, names) = categorical(kind, categories, input)?;
            if elements(&row) != Some(1) {
                return Err("it works on one value a row: pick or declare one".into());
            }
            if *unknown == UnknownColumn::Last && categories.len() < 2 {
                return Err("with unknown = \"last\" there must be two categories".into());
            }
            let name = names.first().or(input.map(ToString::to_string).as_ref()).cloned().unwrap_or_default();
            let names = categories.iter().map(|category| format!("{name} = {category}")).collect();
            Ok(Kind::Numbers { row: vec![categories.len()], precision: Precision::Single, names })
        }
        PreStep::DecodeImage { formats, channels, max_pixels, .. } => {
            if formats.is_empty() || formats.len() > 2 {
                return Err("formats must name jpeg, png, or both".into());
            }
            if !(1..=MAX_PIXELS).contains(max_pixels) {
                return Err(format!("max_pixels must be 1 to {MAX_PIXELS}"));
            }
            match kind {
                Kind::Texts { row, .. } if elements(row) == Some(1) => {
                    Ok(Kind::Image { channels: channels.count(), size: None })
                }
                other => Err(unfit("one BYTES value a row", input, other)),
            }
        }
        PreStep::Frame { .. } => frame(kind, input),
        PreStep::Resize { width, height, .. } => resized(kind, input, Some((*width, *height))),
        PreStep::ResizeShorter { length, .. } => {
            let size = match kind {
                Kind::Image { size: Some((width, height)), .. } => {
                    Some(shorter(*width, *height, *length, MAX_PIXELS)?)
                }
                _ => None,
            };
            if *length == 0 || *length > MAX_SIDE {
                return Err(format!("length must be 1 to {MAX_SIDE}"));
            }
            resized(kind, input, size)
        }
        PreStep::CenterCrop { width, height, .. } => {
            if let Kind::Image { size: Some((wide, high)), .. } = kind
                && (width > wide || height > high)
            {
                return Err(format!("the image has {wide} x {high} pixels, {width} x {height} are wanted"));
            }
            resized(kind, input, Some((*width, *height)))
        }
        PreStep::ImageTensor { layout, scale, mean, std, .. } => {
            let Kind::Image { channels, size } = kind else {
                return Err(unfit("an image", input, kind));
            };
            let Some((width, height)) = size else {
                return Err("the image may have any size: resize or crop it to one before".into());
            };
            not_zero("std", std)?;
            if !scale.is_finite() {
                return Err("scale is not finite".into());
            }
            many_enough("mean", mean, *channels)?;
            many_enough("std", std, *channels)?;
            let (width, height) = (*width as usize, *height as usize);
            let row = match layout {
                Layout::Nchw => vec![*channels, height, width],
                Layout::Nhwc => vec![height, width, *channels],
            };
            Ok(Kind::Numbers { row, precision: Precision::Single, names: Vec::new() })
        }
        PreStep::ByteWindows { length, stride, windows, .. } => {
            let bytes = windows.checked_mul(*length).filter(|bytes| (1..=MAX_WINDOW_BYTES).contains(bytes));
            if bytes.is_none() {
                return Err(format!("windows x length must be 1 to {MAX_WINDOW_BYTES}"));
            }
            if !(1..=*length).contains(stride) {
                return Err("stride must be 1 to length".into());
            }
            match kind {
                Kind::Texts { row, .. } if elements(row) == Some(1) => {
                    let row = if *windows == 1 { vec![*length] } else { vec![*windows, *length] };
                    Ok(Kind::Numbers { row, precision: Precision::Single, names: Vec::new() })
                }
                other => Err(unfit("one text a row", input, other)),
            }
        }
        PreStep::Feed { .. } => match kind {
            // Texts for a model that takes texts: an exported encoder of categories.
            Kind::Numbers { .. } | Kind::Texts { .. } => Ok(kind.clone()),
            Kind::Image { .. } => Err(unfit("numbers or texts", input, kind)),
        },
    }
}

/// Raw pixels as an image.
fn frame(kind: &Kind, input: Option<&FieldName>) -> Result<Kind, String> {
    let Kind::Numbers { row, precision: Precision::Byte, .. } = kind else {
        return Err(unfit("UINT8 pixels", input, kind));
    };
    let [height, width, channels @ (1 | 3)] = row.as_slice() else {
        return Err(unfit("pixels of shape [height, width, 1 or 3]", input, kind));
    };
    let side = |length: &usize| u32::try_from(*length).ok().filter(|length| *length <= MAX_SIDE);
    let (Some(width), Some(height)) = (side(width), side(height)) else {
        return Err(format!("an image has at most {MAX_SIDE} pixels a side"));
    };
    resized(&Kind::Image { channels: *channels, size: None }, input, Some((width, height)))
}

/// Numbers stay what they are; the constants must fit them.
fn arithmetic(
    kind: &Kind,
    input: Option<&FieldName>,
    constants: &[(&str, &PerValue)],
) -> Result<Kind, String> {
    let Kind::Numbers { row, precision, names } = kind else {
        return Err(unfit("numbers", input, kind));
    };
    let count = elements(row).unwrap_or(0);
    constants.iter().try_for_each(|(name, numbers)| many_enough(name, numbers, count))?;
    let precision = (*precision).max(Precision::Single);
    Ok(Kind::Numbers { row: row.clone(), precision, names: names.clone() })
}

fn many_enough(name: &str, numbers: &PerValue, wanted: usize) -> Result<(), String> {
    let given = numbers.numbers();
    if !given.iter().all(|number| number.is_finite()) {
        return Err(format!("{name} is not finite"));
    }
    if given.len() == 1 || given.len() == wanted {
        return Ok(());
    }
    Err(format!("{name} needs one number, or one for each of the {wanted} values, not {}", given.len()))
}

fn not_zero(name: &str, numbers: &PerValue) -> Result<(), String> {
    // Single precision must not make a zero of it either.
    if numbers.numbers().iter().any(|number| (*number as f32).abs() < f32::MIN_POSITIVE) {
        return Err(format!("{name} is 0, nothing can be divided by that"));
    }
    Ok(())
}

fn ordered(min: &PerValue, max: &PerValue, holds: impl Fn(f64, f64) -> bool) -> Result<(), String> {
    let count = min.numbers().len().max(max.numbers().len());
    match (0..count).find(|at| !holds(min.at(*at), max.at(*at))) {
        Some(at) => Err(format!("min is not below max (value {at})")),
        None => Ok(()),
    }
}

fn pick(kind: &Kind, features: &[FieldName]) -> Result<Kind, String> {
    if features.is_empty() {
        return Err("it picks nothing".into());
    }
    let known = kind.names();
    if let Some(unknown) = features.iter().find(|name| known.iter().all(|known| known != name.as_str())) {
        return Err(format!("there is no feature {unknown}"));
    }
    let row = vec![features.len()];
    let names = features.iter().map(ToString::to_string).collect();
    match kind {
        Kind::Numbers { precision, .. } => Ok(Kind::Numbers { row, precision: *precision, names }),
        Kind::Texts { .. } => Ok(Kind::Texts { row, names }),
        Kind::Image { .. } => Err("an image has no features".into()),
    }
}

fn concat(kinds: &[Kind]) -> Result<Kind, String> {
    let (mut count, mut precision) = (0_usize, Precision::Single);
    let mut names = Vec::new();
    for kind in kinds {
        let Kind::Numbers { row, precision: own, names: more } = kind else {
            return Err(format!("it puts numbers side by side, one of its inputs is {}", kind.describe()));
        };
        let values = elements(row).unwrap_or(0);
        count = count.saturating_add(values);
        precision = precision.max(*own);
        // One without names has numbers instead.
        if count <= MAX_NAMES {
            let numbered = (names.len()..names.len() + values).map(|at| format!("value {at}"));
            if more.len() == values { names.extend_from_slice(more) } else { names.extend(numbered) }
        }
    }
    if names.len() != count {
        names.clear();
    }
    Ok(Kind::Numbers { row: vec![count], precision, names })
}

/// Shape and names of values that categories are told of.
fn categorical(
    kind: &Kind,
    categories: &[Category],
    input: Option<&FieldName>,
) -> Result<(Vec<usize>, Vec<String>), String> {
    if !(1..=MAX_CATEGORIES).contains(&categories.len()) {
        return Err(format!("1 to {MAX_CATEGORIES} categories are needed, not {}", categories.len()));
    }
    let mut sorted: Vec<String> = categories.iter().map(ToString::to_string).collect();
    sorted.sort_unstable();
    if let Some((twice, _)) = sorted.iter().zip(sorted.iter().skip(1)).find(|(one, other)| one == other) {
        return Err(format!("the category {twice:?} is listed twice"));
    }
    match kind {
        Kind::Numbers { row, names, .. } => {
            if categories.iter().any(|category| matches!(category, Category::Text(_))) {
                return Err(unfit("texts, as a category is one", input, kind));
            }
            Ok((row.clone(), names.clone()))
        }
        Kind::Texts { row, names } => Ok((row.clone(), names.clone())),
        Kind::Image { .. } => Err(unfit("texts or numbers", input, kind)),
    }
}

/// The size of an image of `width` by `height` whose shorter side gets `length` pixels, of which there may be `most`.
///
/// # Errors
/// It would have more, or be longer than [`MAX_SIDE`].
pub fn shorter(width: u32, height: u32, length: u32, most: u32) -> Result<(u32, u32), String> {
    let scaled = |long: u32, short: u32| u64::from(long) * u64::from(length) / u64::from(short.max(1));
    let (wide, high) = if width <= height {
        (u64::from(length), scaled(height, width))
    } else {
        (scaled(width, height), u64::from(length))
    };
    match (u32::try_from(wide), u32::try_from(high)) {
        (Ok(wide), Ok(high)) if wide.saturating_mul(high) <= most && wide.max(high) <= MAX_SIDE => {
            Ok((wide, high))
        }
        _ => Err(format!("resized it would have {wide} x {high} pixels, at most {most} are allowed")),
    }
}

fn resized(kind: &Kind, input: Option<&FieldName>, size: Option<(u32, u32)>) -> Result<Kind, String> {
    let Kind::Image { channels, .. } = kind else {
        return Err(unfit("an image", input, kind));
    };
    if let Some((width, height)) = size {
        let fits = width.checked_mul(height).is_some_and(|pixels| (1..=MAX_PIXELS).contains(&pixels));
        if !fits || width.max(height) > MAX_SIDE {
            return Err(format!("width x height must be 1 to {MAX_PIXELS} pixels"));
        }
    }
    Ok(Kind::Image { channels: *channels, size })
}
