//! How the layers below a model say that memory ran out.

/// Whether `text`, from an error, a panic or standard error, says that memory ran out. There are as
/// many wordings as allocating layers: Rust's allocator (abort), tract's tensors (panic), its scratch
/// buffers (panic without words), the system (error 12).
pub fn tells_of_exhaustion(text: &str) -> bool {
    const WORDINGS: [&str; 5] = [
        "memory allocation of",
        "failed to allocate",
        "memory allocation failed",
        "data.is_null()",
        "Cannot allocate memory",
    ];
    WORDINGS.iter().any(|wording| text.contains(wording))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wording_of_exhaustion_is_known() {
        for text in [
            "memory allocation of 1048576 bytes failed",
            "thread 'main' panicked at tract-data/src/blob.rs:76:\nfailed to allocate Layout { size: 9, align: 1 }",
            "assertion failed: !self.data.is_null()",
            "Cannot allocate memory (os error 12)",
        ] {
            assert!(tells_of_exhaustion(text), "{text}");
        }
        assert!(!tells_of_exhaustion("thread 'main' panicked at index out of bounds"));
    }
}
