//! Bytes as text in the standard alphabet of RFC 4648 (section 4), padded: how files lie in rows of text. Each bytes have
//! one text, and any other is refused.

use alloc::string::String;
use alloc::vec::Vec;

use base64::engine::general_purpose::STANDARD;
use base64::{DecodeError, Engine as _};

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
    if !text.len().is_multiple_of(4) {
        return Err(Base64Error::Length(text.len()));
    }
    STANDARD.decode(text).map_err(|error| match error {
        DecodeError::InvalidByte(at, _) => Base64Error::Character(at),
        DecodeError::InvalidLength(_)
        | DecodeError::InvalidLastSymbol { .. }
        | DecodeError::InvalidPadding => Base64Error::End,
    })
}

/// The text of `bytes`.
pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
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
