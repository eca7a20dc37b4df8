//! Images of 8 bits a channel: resized and cropped as PIL and torchvision do it, and made into numbers.

use std::cmp::Ordering;
use std::collections::VecDeque;

use serin_protocol::pipeline::{ChannelOrder, Channels, Layout, PerValue, Resampling};

/// An image, row by row from the top, channels of a pixel side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub(crate) channels: usize,
    pub(crate) pixels: Vec<u8>,
}

/// Fraction bits of Pillow's weights: 32, without the 8 of a pixel and 2 for sums beyond it.
const PRECISION_BITS: u32 = 32 - 8 - 2;

impl Image {
    /// The same with other channels. Grey is Pillow's `L24`: ITU-R 601 in 16 fraction bits.
    pub(crate) fn with(self, channels: Channels) -> Self {
        let Self { width, height, pixels, .. } = self;
        let (rgb, _) = pixels.as_chunks::<3>();
        match (self.channels, channels) {
            (1, Channels::Rgb) => {
                let pixels = pixels.iter().flat_map(|grey| [*grey; 3]).collect();
                Self { width, height, channels: 3, pixels }
            }
            (3, Channels::Grey) => {
                let luma = |[r, g, b]: &[u8; 3]| {
                    let sum = u32::from(*r) * 19_595 + u32::from(*g) * 38_470 + u32::from(*b) * 7_471;
                    ((sum + 0x8000) >> 16) as u8
                };
                Self { width, height, channels: 1, pixels: rgb.iter().map(luma).collect() }
            }
            (same, _) => Self { width, height, channels: same, pixels },
        }
    }

    /// The same of another size. Takes memory for both and some rows, however long and narrow it is.
    pub(crate) fn resized(self, width: usize, height: usize, filter: Resampling) -> Self {
        match filter {
            Resampling::Nearest => self.nearest(width, height),
            Resampling::Bilinear if (width, height) == (self.width, self.height) => self,
            Resampling::Bilinear => {
                let wide = Wide { of: &self, width, columns: weights(self.width, width) };
                let pixels = match height.cmp(&self.height) {
                    Ordering::Equal => (0..height).flat_map(|row| wide.row(row)).collect(),
                    Ordering::Greater => wide.heightened(height),
                    Ordering::Less => wide.flattened(height),
                };
                Self { width, height, channels: self.channels, pixels }
            }
        }
    }

    /// Pillow's `ImagingScaleAffine`: places are summed up, rounding errors and all.
    fn nearest(&self, width: usize, height: usize) -> Self {
        let places = |old: usize, new: usize| -> Vec<usize> {
            let step = old as f64 / new as f64;
            let mut place = step * 0.5;
            let mut places = Vec::with_capacity(new);
            for _ in 0..new {
                places.push((place as usize).min(old.saturating_sub(1)));
                place += step;
            }
            places
        };
        let (columns, rows) = (places(self.width, width), places(self.height, height));
        let mut pixels = Vec::with_capacity(width * height * self.channels);
        for row in rows {
            let line = self.line(row);
            for column in &columns {
                let at = column * self.channels;
                pixels.extend_from_slice(line.get(at..at + self.channels).unwrap_or_default());
            }
        }
        Self { width, height, channels: self.channels, pixels }
    }

    fn line(&self, row: usize) -> &[u8] {
        let length = self.width * self.channels;
        self.pixels.get(row * length..(row + 1) * length).unwrap_or_default()
    }

    /// The middle of it; `None` if it is smaller.
    pub(crate) fn center(&self, width: usize, height: usize) -> Option<Self> {
        let margin = |whole: usize, part: usize| {
            let difference = whole.checked_sub(part)?;
            // Half of it, rounded to even where it is no whole number.
            Some(difference / 2 + usize::from(difference % 4 == 3))
        };
        let (left, top) = (margin(self.width, width)?, margin(self.height, height)?);
        let mut pixels = Vec::with_capacity(width * height * self.channels);
        for row in top..top + height {
            let part = left * self.channels..(left + width) * self.channels;
            pixels.extend_from_slice(self.line(row).get(part)?);
        }
        Some(Self { width, height, channels: self.channels, pixels })
    }

    /// Appends `(p · scale − mean) / std` of every pixel to `numbers`.
    pub(crate) fn numbers(&self, how: &Normalise<'_>, numbers: &mut Vec<f32>) {
        let scale = how.scale as f32;
        let channel = |at: usize| match how.order {
            ChannelOrder::Same => at,
            ChannelOrder::Reversed => self.channels - 1 - at,
        };
        // What each of 256 bytes becomes, for each channel.
        let table = |at: usize| -> Vec<f32> {
            let (mean, std) = (how.mean.at(at) as f32, how.std.at(at) as f32);
            (0..=u8::MAX).map(|byte| (f32::from(byte) * scale - mean) / std).collect()
        };
        let tables: Vec<Vec<f32>> = (0..self.channels).map(table).collect();
        let number = |table: &Vec<f32>, byte: &u8| table.get(usize::from(*byte)).copied().unwrap_or(f32::NAN);
        numbers.reserve(self.pixels.len());
        match how.layout {
            Layout::Nchw => {
                for (at, table) in tables.iter().enumerate() {
                    let bytes = self.pixels.iter().skip(channel(at)).step_by(self.channels.max(1));
                    numbers.extend(bytes.map(|byte| number(table, byte)));
                }
            }
            Layout::Nhwc => {
                for pixel in self.pixels.chunks(self.channels.max(1)) {
                    for (at, table) in tables.iter().enumerate() {
                        numbers.extend(pixel.get(channel(at)).map(|byte| number(table, byte)));
                    }
                }
            }
        }
    }
}

/// How pixels become numbers.
pub(crate) struct Normalise<'s> {
    pub(crate) layout: Layout,
    pub(crate) order: ChannelOrder,
    pub(crate) scale: f64,
    pub(crate) mean: &'s PerValue,
    pub(crate) std: &'s PerValue,
}

/// An image whose rows are made as wide as wanted when they are asked for, rounded to bytes as between Pillow's two passes.
struct Wide<'i> {
    of: &'i Image,
    width: usize,
    columns: Vec<Weights>,
}

impl Wide<'_> {
    fn row(&self, row: usize) -> Vec<u8> {
        let (line, channels) = (self.of.line(row), self.of.channels);
        if self.width == self.of.width {
            return line.to_vec();
        }
        let mut pixels = Vec::with_capacity(self.width * channels);
        for Weights { first, weights } in &self.columns {
            for channel in 0..channels {
                let from = line.iter().skip(first * channels + channel).step_by(channels);
                pixels.push(weighted(from, weights));
            }
        }
        pixels
    }

    /// Pixels with more rows: each is made of two or three old ones, which are kept until no other needs them.
    fn heightened(&self, height: usize) -> Vec<u8> {
        let mut pixels = Vec::with_capacity(self.width * self.of.channels * height);
        let (mut kept, mut begin) = (VecDeque::new(), 0);
        for Weights { first, weights } in weights(self.of.height, height) {
            while begin < first {
                kept.pop_front();
                begin += 1;
            }
            while kept.len() < weights.len() {
                kept.push_back(self.row(begin + kept.len()));
            }
            let mut sums = self.sums();
            kept.iter().zip(&weights).for_each(|(row, weight)| add(&mut sums, row, *weight));
            pixels.extend(sums.iter().map(|sum| clip(*sum)));
        }
        pixels
    }

    /// Pixels with fewer rows: each old one is part of two or three new ones, whose sums are kept until they are whole.
    fn flattened(&self, height: usize) -> Vec<u8> {
        let mut pixels = Vec::with_capacity(self.width * self.of.channels * height);
        let mut coming = weights(self.of.height, height).into_iter().peekable();
        let mut begun: VecDeque<(Weights, Vec<i32>)> = VecDeque::new();
        for number in 0..self.of.height {
            while let Some(next) = coming.next_if(|next| next.first <= number) {
                begun.push_back((next, self.sums()));
            }
            let row = self.row(number);
            for (Weights { first, weights }, sums) in &mut begun {
                weights.get(number - *first).iter().for_each(|weight| add(sums, &row, **weight));
            }
            while let Some((_, sums)) =
                begun.pop_front_if(|(of, _)| of.first + of.weights.len() <= number + 1)
            {
                pixels.extend(sums.iter().map(|sum| clip(*sum)));
            }
        }
        pixels
    }

    /// Of a new row: nothing but what rounds it.
    fn sums(&self) -> Vec<i32> {
        vec![1 << (PRECISION_BITS - 1); self.width * self.of.channels]
    }
}

fn add(sums: &mut [i32], row: &[u8], weight: i32) {
    for (sum, pixel) in sums.iter_mut().zip(row) {
        *sum += i32::from(*pixel) * weight;
    }
}

/// What a new pixel is made of: old ones from `first` on, with their weights.
struct Weights {
    first: usize,
    weights: Vec<i32>,
}

/// Pillow's `precompute_coeffs` for a triangle, with weights in fixed point: for every new pixel the old ones
/// under a triangle around its middle, as wide as a new pixel where an image shrinks.
fn weights(old: usize, new: usize) -> Vec<Weights> {
    let scale = old as f64 / new as f64;
    let support = scale.max(1.0);
    let narrow = 1.0 / support;
    (0..new)
        .map(|at| {
            let center = (at as f64 + 0.5) * scale;
            // Casts cut off and stop at 0, as Pillow's do after its own check.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(old);
            let triangle = |pixel: usize| {
                let distance = ((pixel as f64 - center + 0.5) * narrow).abs();
                if distance < 1.0 { 1.0 - distance } else { 0.0 }
            };
            let raw: Vec<f64> = (first..end).map(triangle).collect();
            let sum: f64 = raw.iter().sum();
            let fixed = |weight: &f64| {
                let share = if sum == 0.0 { *weight } else { weight / sum };
                (0.5 + share * f64::from(1 << PRECISION_BITS)) as i32
            };
            Weights { first, weights: raw.iter().map(fixed).collect() }
        })
        .collect()
}

fn weighted<'p>(pixels: impl Iterator<Item = &'p u8>, weights: &[i32]) -> u8 {
    let sum = pixels.zip(weights).map(|(pixel, weight)| i32::from(*pixel) * weight).sum::<i32>();
    clip(sum + (1 << (PRECISION_BITS - 1)))
}

fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pillow's second pass over a whole image, straight from its definition.
    fn along(image: &Image, height: usize) -> Vec<u8> {
        let mut pixels = Vec::new();
        for Weights { first, weights } in weights(image.height, height) {
            for place in 0..image.width * image.channels {
                let column = (first..image.height).map(|row| &image.line(row)[place]);
                pixels.push(weighted(column, &weights));
            }
        }
        pixels
    }

    proptest! {
        #[test]
        fn resizing_row_by_row_is_resizing_in_two_passes(
            (width, height, pixels) in (1_usize..24, 1_usize..24).prop_flat_map(|(width, height)| {
                (Just(width), Just(height), prop::collection::vec(any::<u8>(), width * height * 3))
            }),
            wide in 1_usize..40,
            high in 1_usize..60,
        ) {
            let image = Image { width, height, channels: 3, pixels };
            let resized = image.clone().resized(wide, high, Resampling::Bilinear);
            let across = image.resized(wide, height, Resampling::Bilinear);
            prop_assert_eq!(across.pixels.len(), wide * height * 3);
            prop_assert_eq!(resized.pixels, if high == height { across.pixels.clone() } else { along(&across, high) });
        }
    }
}
