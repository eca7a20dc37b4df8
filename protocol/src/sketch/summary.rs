//! A few numbers about a row too wide to watch value by value: an image, a piece of sound, an embedding. Computed by
//! this code on reference data and on devices alike: from the raw input, or, where that is a file of an image, from the
//! picture in it as it was decoded, before it is resized, 0 to 255 a channel.

use serde::{Deserialize, Serialize};

/// Most channels of an image.
pub const MAX_CHANNELS: usize = 4;

/// One number about a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Summary {
    /// Mean of all values.
    Brightness,
    /// Standard deviation of all values.
    Contrast,
    /// Mean of the values of one channel.
    Channel(u8),
    /// Root of the mean square: how loud.
    Energy,
    /// Euclidean length.
    Norm,
    /// Euclidean distance from the mean of the reference data.
    Distance,
}

/// How the channels of an image lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Height, width, channels: the channels of a pixel beside each other.
    Hwc,
    /// Channels, height, width: one channel after the other.
    Chw,
}

/// How the values of a row lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Values of a row.
    pub width: usize,
    /// Channels, 1 to [`MAX_CHANNELS`].
    pub channels: usize,
    /// How they lie.
    pub layout: Layout,
}

/// Sums over one row, from which every [`Summary`] of it follows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowSums {
    count: f64,
    mean: f64,
    m2: f64,
    squares: f64,
    channels: [(f64, f64); MAX_CHANNELS],
    from_centroid: f64,
}

impl RowSums {
    /// Of the values of one row in the order they come; what is not finite is left out. `centroid` is the mean of the
    /// reference data, for [`Summary::Distance`].
    pub fn of(values: impl Iterator<Item = f64>, form: Form, centroid: &[f32]) -> Self {
        let mut sums = Self::default();
        let channels = form.channels.clamp(1, MAX_CHANNELS);
        let plane = (form.width / channels).max(1);
        let mut centroid = centroid.iter();
        for (at, value) in values.enumerate() {
            let centre = centroid.next();
            if !value.is_finite() {
                continue;
            }
            let channel = match form.layout {
                Layout::Hwc => at % channels,
                Layout::Chw => (at / plane).min(channels - 1),
            };
            // Welford (1962): an image's spread is small beside its mean.
            sums.count += 1.0;
            let delta = value - sums.mean;
            sums.mean += delta / sums.count;
            sums.m2 += delta * (value - sums.mean);
            sums.squares += value * value;
            if let Some((count, sum)) = sums.channels.get_mut(channel) {
                *count += 1.0;
                *sum += value;
            }
            if let Some(centre) = centre {
                let away = value - f64::from(*centre);
                sums.from_centroid += away * away;
            }
        }
        sums
    }

    /// Of the pixels of one picture, 8 bits a channel, the channels of a pixel beside each other. Exact, whatever the order of
    /// pixels, and many times faster than [`RowSums::of`], as pictures are large.
    pub fn of_pixels(pixels: &[u8], channels: usize) -> Self {
        let channels = channels.clamp(1, MAX_CHANNELS);
        let mut counts = [[0_u64; 256]; MAX_CHANNELS];
        for pixel in pixels.chunks_exact(channels) {
            for (counts, value) in counts.iter_mut().zip(pixel) {
                if let Some(count) = counts.get_mut(usize::from(*value)) {
                    *count += 1;
                }
            }
        }
        let mut sums = Self::default();
        // Of 2^26 values, more than a picture has, each is below 2^43.
        let (mut all, mut sum, mut squares) = (0_u64, 0_u64, 0_u64);
        for (counts, channel) in counts.iter().zip(&mut sums.channels) {
            let (mut of_channel, mut count_of_channel) = (0_u64, 0_u64);
            for (value, count) in (0_u64..).zip(counts) {
                count_of_channel += count;
                of_channel += value * count;
                squares += value * value * count;
            }
            all += count_of_channel;
            sum += of_channel;
            *channel = (count_of_channel as f64, of_channel as f64);
        }
        if all > 0 {
            sums.count = all as f64;
            sums.mean = sum as f64 / all as f64;
            // Exact up to the one division: the two differ little where the spread is small.
            let spread =
                (u128::from(all) * u128::from(squares)).saturating_sub(u128::from(sum) * u128::from(sum));
            sums.m2 = spread as f64 / all as f64;
            sums.squares = squares as f64;
        }
        sums
    }

    /// One number about the row; NaN, which is missing, where it has no value that counts.
    pub fn get(&self, summary: Summary) -> f32 {
        if self.count == 0.0 {
            return f32::NAN;
        }
        let value = match summary {
            Summary::Brightness => self.mean,
            Summary::Contrast => libm::sqrt(self.m2 / self.count),
            Summary::Channel(channel) => match self.channels.get(usize::from(channel)) {
                Some((count, sum)) if *count > 0.0 => sum / count,
                Some(_) | None => f64::NAN,
            },
            Summary::Energy => libm::sqrt(self.squares / self.count),
            Summary::Norm => libm::sqrt(self.squares),
            Summary::Distance => libm::sqrt(self.from_centroid),
        };
        value as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn near(left: f32, right: f64) {
        assert!((f64::from(left) - right).abs() <= 1e-5 * right.abs().max(1.0), "{left} is not {right}");
    }

    #[test]
    fn channels_are_found_in_both_layouts() {
        // Two pixels, red and green: (1, 10), (3, 30).
        let beside = RowSums::of(
            [1.0, 10.0, 3.0, 30.0].into_iter(),
            Form { width: 4, channels: 2, layout: Layout::Hwc },
            &[],
        );
        let apart = RowSums::of(
            [1.0, 3.0, 10.0, 30.0].into_iter(),
            Form { width: 4, channels: 2, layout: Layout::Chw },
            &[],
        );
        for sums in [beside, apart] {
            near(sums.get(Summary::Channel(0)), 2.0);
            near(sums.get(Summary::Channel(1)), 20.0);
            assert!(sums.get(Summary::Channel(2)).is_nan());
            near(sums.get(Summary::Brightness), 11.0);
            // numpy.std([1, 10, 3, 30])
            near(sums.get(Summary::Contrast), 11.467_344_941_179_714);
        }
    }

    #[test]
    fn an_embedding_has_a_length_and_a_distance() {
        let form = Form { width: 2, channels: 1, layout: Layout::Hwc };
        let sums = RowSums::of([3.0, 4.0].into_iter(), form, &[3.0, 1.0]);
        near(sums.get(Summary::Norm), 5.0);
        near(sums.get(Summary::Distance), 3.0);
        near(sums.get(Summary::Energy), 12.5_f64.sqrt());
    }

    #[test]
    fn a_row_of_nothing_is_missing() {
        let form = Form { width: 2, channels: 1, layout: Layout::Hwc };
        let sums = RowSums::of([f64::NAN, f64::INFINITY].into_iter(), form, &[]);
        assert!(sums.get(Summary::Brightness).is_nan() && sums.get(Summary::Norm).is_nan());
    }

    #[test]
    fn a_grey_picture_of_one_value_has_no_contrast() {
        let sums = RowSums::of_pixels(&[200; 12], 1);
        near(sums.get(Summary::Brightness), 200.0);
        near(sums.get(Summary::Contrast), 0.0);
        assert!(RowSums::of_pixels(&[], 3).get(Summary::Brightness).is_nan());
    }

    proptest! {
        #[test]
        fn pixels_are_summed_up_as_their_values_are(
            pixels in prop::collection::vec(any::<[u8; 3]>(), 1..60), grey: bool
        ) {
            let pixels: Vec<u8> = pixels.into_iter().flatten().collect();
            let channels = if grey { 1 } else { 3 };
            let form = Form { width: pixels.len(), channels, layout: Layout::Hwc };
            let one_by_one = RowSums::of(pixels.iter().map(|value| f64::from(*value)), form, &[]);
            let counted = RowSums::of_pixels(&pixels, channels);
            let all = [Summary::Brightness, Summary::Contrast, Summary::Energy, Summary::Norm];
            for summary in all.into_iter().chain((0..channels as u8).map(Summary::Channel)) {
                near(counted.get(summary), one_by_one.get(summary).into());
            }
        }

        #[test]
        fn any_values_give_numbers_or_nothing(
            values in prop::collection::vec(any::<f32>(), 0..40), width in 0_usize..40, channels in 0_usize..9
        ) {
            let form = Form { width, channels, layout: Layout::Chw };
            let sums = RowSums::of(values.iter().map(|value| f64::from(*value)), form, &[1.0; 7]);
            let finite: Vec<f32> = values.into_iter().filter(|value| value.is_finite()).collect();
            prop_assert_eq!(sums.get(Summary::Brightness).is_nan(), finite.is_empty());
        }
    }
}
