//! Bytes as text in the standard alphabet of RFC 4648 (section 4), padded: how files lie in rows of text. Each bytes have
//! one text, and any other is refused.

use alloc::string::String;
use alloc::vec::Vec;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A text is not bytes in base64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Base64Error {
    /// It was cut off, or is not padded.
    #[error("base64 comes in groups of 4 characters, {0} are given")]
    Length(usize),
    /// Something else than letters, digits, `+` and `/`, or `=` before the end.
    #[error("character {0} is none of base64")]
    Character(usize),
    /// The last characters say more than bytes have.
    #[error("the end is not what base64 makes of any bytes")]
    End,
}

/// The bytes of `text`. No whitespace is passed over.
///
/// # Errors
/// What is wrong with the text; characters count from 0.
pub fn decode(text: &str) -> Result<Vec<u8>, Base64Error> {
    let bytes = text.as_bytes();
    let (groups, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(Base64Error::Length(bytes.len()));
    }
    let mut decoded = Vec::with_capacity(groups.len() * 3);
    for (at, group) in groups.iter().enumerate() {
        let is_last = at + 1 == groups.len();
        let padding = match group {
            [_, _, b'=', b'='] if is_last => 2,
            [_, _, _, b'='] if is_last => 1,
            _ => 0,
        };
        let mut number = 0_u32;
        for (place, character) in group.iter().enumerate() {
            let digit = if place >= 4 - padding { Some(0) } else { digit(*character) };
            number = number << 6 | digit.ok_or(Base64Error::Character(4 * at + place))?;
        }
        let [_, first, second, third] = number.to_be_bytes();
        match (padding, second, third) {
            (0, ..) => decoded.extend([first, second, third]),
            (1, _, 0) => decoded.extend([first, second]),
            (2, 0, 0) => decoded.push(first),
            _ => return Err(Base64Error::End),
        }
    }
    Ok(decoded)
}

/// The text of `bytes`.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let number = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = number >> (18 - 6 * place) & 63;
            let character = ALPHABET.get(digit as usize).copied().unwrap_or(b'=');
            text.push(char::from(if place <= group.len() { character } else { b'=' }));
        }
    }
    text
}

const fn digit(character: u8) -> Option<u32> {
    let number = match character {
        b'A'..=b'Z' => character - b'A',
        b'a'..=b'z' => character - b'a' + 26,
        b'0'..=b'9' => character - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(number as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Section 10 of the RFC.
    #[test]
    fn the_rfcs_examples_hold() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Ok(bytes.as_bytes()));
        }
        assert_eq!(decode("+/+/"), Ok(alloc::vec![0xFB, 0xFF, 0xBF]));
    }

    #[test]
    fn another_text_is_refused() {
        assert_eq!(decode("Zg"), Err(Base64Error::Length(2)));
        assert_eq!(decode("Zm9v\n"), Err(Base64Error::Length(5)));
        assert_eq!(decode("Zm9vZ-=="), Err(Base64Error::Character(5)));
        assert_eq!(decode("Zg==Zg=="), Err(Base64Error::Character(2)));
        assert_eq!(decode("Z==="), Err(Base64Error::Character(1)));
        assert_eq!(decode("Zh=="), Err(Base64Error::End));
        assert_eq!(decode("Zm9="), Err(Base64Error::End));
    }

    proptest! {
        #[test]
        fn bytes_survive(bytes: std::vec::Vec<u8>) {
            prop_assert_eq!(decode(&encode(&bytes)), Ok(bytes));
        }

        #[test]
        fn what_is_read_is_the_only_text(text in "[A-Za-z0-9+/=]{0,16}") {
            if let Ok(bytes) = decode(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
