//! How large pictures may be behind each step, and the memory that takes. A picture within the declared `max_pixels` may be long and
//! narrow, and grow when its shorter side gets a length: without a bound of its own that would be the worker's end.

use serin_protocol::pipeline::{Flow, Kind, MAX_PIXELS, PreStep, Stage};

/// Bytes that decoding takes for every pixel at most: 6 for the coefficients of a progressive JPEG, 3 or 4 for
/// what is decoded, as many for a copy in other channels, and the file.
pub(crate) const DECODING: usize = 14 + FILE;

/// Bytes of a file for every pixel: as many as a PNG of four channels has that cannot be compressed. Only those of 16 bits a
/// channel have more.
const FILE: usize = 4;

/// Bytes of what a request for one row has beside its pictures, and of what a file has beside its pixels.
const BESIDE: usize = 64 * 1024;

/// How much larger than the largest that is decoded a picture may be whose shorter side is given: as much as decoding leaves room for.
const GROWTH: u32 = 3;

/// … and, where that is more, how long for its width.
const ASPECT: u32 = 4;

/// Most pixels of a picture behind each stage; 0 where there is none.
pub(crate) fn most_pixels(flow: &Flow) -> Vec<u32> {
    let mut places = vec![0_u32; flow.places];
    let most = flow.stages.iter().map(|stage| {
        let Some(most) = places.get_mut(stage.writes) else { return 0 };
        *most = behind(stage, *most);
        *most
    });
    most.collect()
}

fn behind(stage: &Stage, before: u32) -> u32 {
    match (&stage.step, &stage.after) {
        (PreStep::DecodeImage { max_pixels, .. }, _) => *max_pixels,
        (_, Kind::Image { size: Some((width, height)), .. }) => width.saturating_mul(*height),
        (PreStep::ResizeShorter { length, .. }, _) => {
            let long = length.saturating_mul(*length).saturating_mul(ASPECT);
            before.saturating_mul(GROWTH).max(long).min(MAX_PIXELS)
        }
        (_, Kind::Image { .. }) => before,
        (_, Kind::Numbers { .. } | Kind::Texts { .. }) => 0,
    }
}

/// Bytes that the files of pictures of one row have at most, and [`BESIDE`] them; 0 where a row has none.
pub(crate) fn largest_files(flow: &Flow) -> usize {
    let files = flow.stages.iter().filter_map(|stage| match &stage.step {
        PreStep::DecodeImage { max_pixels, .. } => {
            Some((*max_pixels as usize).saturating_mul(FILE).saturating_add(BESIDE))
        }
        _ => None,
    });
    files.fold(0, usize::saturating_add)
}

/// Takes as much memory as the pictures of a row take, and gives it back. Done while a model is loaded, so that a limit
/// under which it loads is one under which they are decoded and resized. `most` is of [`most_pixels`].
pub(crate) fn try_memory(flow: &Flow, most: &[u32]) -> Result<(), String> {
    let mut places = vec![(0_usize, 0_usize); flow.places];
    for (stage, most) in flow.stages.iter().zip(most) {
        let Kind::Image { channels, .. } = stage.after else { continue };
        let Some((now, peak)) = places.get_mut(stage.writes) else { continue };
        let before = std::mem::replace(now, (*most as usize).saturating_mul(channels));
        let takes = match stage.step {
            PreStep::DecodeImage { .. } => (*most as usize).saturating_mul(DECODING),
            _ => before.saturating_add(*now),
        };
        *peak = takes.max(*peak);
    }
    let wanted = places.iter().fold(0_usize, |sum, (_, peak)| sum.saturating_add(*peak));
    if wanted == 0 {
        return Ok(());
    }
    let mut bytes: Vec<u8> = Vec::new();
    bytes.try_reserve_exact(wanted).map_err(|_| format!("memory allocation of {wanted} bytes failed"))?;
    // Written to, so that it counts where only what is touched counts.
    bytes.resize(wanted, 1);
    std::hint::black_box(&bytes);
    Ok(())
}
