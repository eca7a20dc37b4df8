//! Files to images, with the decoders that this agent was built with. Nothing is decoded before its header was
//! found within the bound.

use serin_protocol::release::{Decoder, Decoders};

use super::image::Image;

/// How base64 of a JPEG and of a PNG begins.
const BASE64: [&[u8]; 2] = [b"/9j/", b"iVBORw0KGgo"];

/// The decoders that this agent was built with.
pub fn decoders() -> Decoders {
    let built = |decoder: &Decoder| match decoder {
        Decoder::Jpeg => cfg!(feature = "jpeg"),
        Decoder::Png => cfg!(feature = "png"),
    };
    Decoder::ALL.into_iter().filter(built).collect()
}

/// Decodes `file`, which must be of one of `formats` and have at most `most` pixels.
pub(crate) fn decode(file: &[u8], formats: &[Decoder], most: u32) -> Result<Image, String> {
    let decoder = match Decoder::of(file) {
        Some(decoder) => decoder,
        None if file.is_empty() => return Err("the image is missing".into()),
        None if BASE64.iter().any(|head| file.starts_with(head)) => {
            return Err(
                "it is base64 of a file, whose bytes are wanted as they are: send them as binary tensor data"
                    .into(),
            );
        }
        None => return Err("it is neither a JPEG nor a PNG file".into()),
    };
    if !formats.contains(&decoder) {
        return Err(format!("{} files are not accepted", decoder.name()));
    }
    match decoder {
        Decoder::Jpeg => jpeg(file, most),
        Decoder::Png => png(file, most),
    }
}

/// The number of pixels, if it is within the bound.
#[cfg(any(feature = "jpeg", feature = "png"))]
fn bounded(width: usize, height: usize, most: u32) -> Result<usize, String> {
    let pixels = width.checked_mul(height).filter(|pixels| (1..=most as usize).contains(pixels));
    pixels.ok_or_else(|| format!("it has {width} x {height} pixels, at most {most} are accepted"))
}

#[cfg(feature = "jpeg")]
fn jpeg(file: &[u8], most: u32) -> Result<Image, String> {
    use zune_jpeg::JpegDecoder;
    use zune_jpeg::zune_core::bytestream::ZCursor;
    use zune_jpeg::zune_core::colorspace::ColorSpace;
    use zune_jpeg::zune_core::options::DecoderOptions;

    let side = serin_protocol::pipeline::MAX_SIDE as usize;
    let options = DecoderOptions::default().set_max_width(side).set_max_height(side).set_strict_mode(true);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
    let broken = |error: &dyn std::fmt::Display| format!("the JPEG file is broken: {error}");
    decoder.decode_headers().map_err(|error| broken(&error))?;
    let (width, height) = decoder.dimensions().ok_or("the JPEG file says no size")?;
    let pixels = bounded(width, height, most)?;
    let (space, channels) = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => (ColorSpace::Luma, 1),
        Some(ColorSpace::YCbCr | ColorSpace::RGB) => (ColorSpace::RGB, 3),
        _ => return Err("only grey and RGB JPEG files are supported".into()),
    };
    let options = decoder.options().jpeg_set_out_colorspace(space);
    decoder.set_options(options);
    let decoded = decoder.decode().map_err(|error| broken(&error))?;
    if decoded.len() != pixels * channels {
        return Err(broken(&"its pixels do not fit its size"));
    }
    Ok(Image { width, height, channels, pixels: decoded })
}

#[cfg(not(feature = "jpeg"))]
fn jpeg(_: &[u8], _: u32) -> Result<Image, String> {
    Err("this agent was built without a JPEG decoder".into())
}

#[cfg(feature = "png")]
fn png(file: &[u8], most: u32) -> Result<Image, String> {
    use png::{ColorType, Decoder, Limits, Transformations};

    let broken = |error: &dyn std::fmt::Display| format!("the PNG file is broken: {error}");
    let limit = (most as usize).saturating_mul(super::room::DECODING);
    let mut decoder = Decoder::new_with_limits(std::io::Cursor::new(file), Limits { bytes: limit });
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(|error| broken(&error))?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    let pixels = bounded(width, height, most)?;
    let size = reader.output_buffer_size().ok_or_else(|| broken(&"its size is absurd"))?;
    let mut decoded = vec![0; size];
    let frame = reader.next_frame(&mut decoded).map_err(|error| broken(&error))?;
    decoded.truncate(frame.buffer_size());
    let (given, channels) = match frame.color_type {
        ColorType::Grayscale => (1, 1),
        ColorType::GrayscaleAlpha => (2, 1),
        ColorType::Rgb => (3, 3),
        ColorType::Rgba => (4, 3),
        ColorType::Indexed => return Err(broken(&"it has no palette")),
    };
    if decoded.len() != pixels * given {
        return Err(broken(&"its pixels do not fit its size"));
    }
    if given != channels {
        decoded = decoded.chunks(given).flat_map(|pixel| pixel.iter().take(channels).copied()).collect();
    }
    Ok(Image { width, height, channels, pixels: decoded })
}

#[cfg(not(feature = "png"))]
fn png(_: &[u8], _: u32) -> Result<Image, String> {
    Err("this agent was built without a PNG decoder".into())
}
