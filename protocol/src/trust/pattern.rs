//! Which target paths a delegation covers: shell patterns by path segment, or prefixes of a path's hash.

use alloc::string::String;

use crate::ids::Digest;

/// Longest target path and longest pattern, in bytes: what a file system would take too. Matching costs
/// at most the product of both.
pub const MAX_PATH_BYTES: usize = 1024;

/// Whether `path` matches `pattern`: `*` stands for any characters within one segment, `?` for one, and
/// nothing but a `/` matches a `/` (specification, section 4.5, PATHPATTERN).
pub fn matches(pattern: &str, path: &str) -> bool {
    if pattern.len() > MAX_PATH_BYTES || path.len() > MAX_PATH_BYTES {
        return false;
    }
    let (mut patterns, mut segments) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), segments.next()) {
            (None, None) => return true,
            (Some(pattern), Some(segment)) if segment_matches(pattern, segment) => {}
            _ => return false,
        }
    }
}

/// Whether the SHA-256 of `path`, in hexadecimal, begins with one of `prefixes`.
pub fn hash_matches<'a>(prefixes: impl IntoIterator<Item = &'a String>, path: &str) -> bool {
    let hash = alloc::format!("{}", Digest::of(path.as_bytes()));
    prefixes.into_iter().any(|prefix| hash.starts_with(prefix.as_str()))
}

/// One segment against one pattern; on a mismatch the last `*` takes one character more.
fn segment_matches(pattern: &str, segment: &str) -> bool {
    let (mut pattern, mut rest) = (pattern.chars(), segment.chars());
    let mut star: Option<(core::str::Chars<'_>, core::str::Chars<'_>)> = None;
    loop {
        let mut ahead = pattern.clone();
        match ahead.next() {
            Some('*') => {
                pattern = ahead;
                star = Some((pattern.clone(), rest.clone()));
                continue;
            }
            Some(wanted) => {
                let mut text = rest.clone();
                if text.next().is_some_and(|found| wanted == '?' || wanted == found) {
                    (pattern, rest) = (ahead, text);
                    continue;
                }
            }
            None if rest.as_str().is_empty() => return true,
            None => {}
        }
        let Some((after_star, mut taken)) = star else { return false };
        if taken.next().is_none() {
            return false;
        }
        (pattern, rest) = (after_star.clone(), taken.clone());
        star = Some((after_star, taken));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    #[test]
    fn the_specifications_examples_hold() {
        for (pattern, path, expected) in [
            ("targets/*.tgz", "targets/foo.tgz", true),
            ("targets/*.tgz", "targets/foo.txt", false),
            ("foo-version-?.tgz", "foo-version-a.tgz", true),
            ("foo-version-?.tgz", "foo-version-alpha.tgz", false),
            ("*.tgz", "foo.tgz", true),
            ("*.tgz", "targets/foo.tgz", false),
            ("*", "foo", true),
            ("*", "a/b", false),
            ("models/digits/*", "models/digits/1.0.0.release", true),
            ("models/digits/*", "models/digits/", true),
            ("models/digits/*", "models/digits/../other/1", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("", "", true),
            ("é?", "éü", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn a_pattern_made_to_explode_is_answered_at_once() {
        let pattern = "*a".repeat(400);
        assert!(!matches(&pattern, &"a".repeat(399)));
        assert!(matches(&pattern, &"a".repeat(1024)));
        assert!(!matches("*", &"a".repeat(1025)));
    }

    #[test]
    fn hash_prefixes_select_their_share() {
        let digest = std::format!("{}", Digest::of(b"models/digits/1"));
        assert!(hash_matches(&vec![String::from(&digest[..3])], "models/digits/1"));
        assert!(!hash_matches(&vec![String::from("zz")], "models/digits/1"));
    }

    proptest! {
        #[test]
        fn a_path_matches_itself_and_its_segments_stars(path in "[a-z.]{0,6}(/[a-z.]{0,6}){0,3}") {
            prop_assert!(matches(&path, &path));
            let stars = path.split('/').map(|_| "*").collect::<vec::Vec<_>>().join("/");
            prop_assert!(matches(&stars, &path));
        }
    }
}
