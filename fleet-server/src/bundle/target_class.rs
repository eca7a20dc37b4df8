//! Whether a model fits the classes of devices that it is packed for: those that everybody knows, and others by their
//! files.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serin_protocol::class_needs::ClassNeeds;
use serin_protocol::ids::{ByteCount, TargetClass};
use serin_protocol::manifest::Manifest;
use serin_protocol::target::{BUILT_IN, MAX_TARGET_BYTES, TargetSpec};

/// A model was refused for one of its classes, or the class is not known.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// No class of this name, and no file either.
    #[error("there is no class {name:?} of devices, and no such file; known are {}", known.join(", "))]
    Unknown {
        /// What was named.
        name: String,
        /// The classes that everybody knows.
        known: Vec<String>,
    },
    /// `serin.toml` names a class of which nothing is known.
    #[error(
        "serin.toml has the model packed for {class}, a class of devices that is not known; known are {}",
        known.join(", ")
    )]
    Undescribed {
        /// The class.
        class: TargetClass,
        /// The classes that everybody knows, and those whose files were given.
        known: Vec<String>,
    },
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not describe a class.
    #[error("{}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The place and what is wrong there.
        message: String,
    },
    /// The model needs more memory than the class has for models.
    #[error(
        "the model needs {needed} bytes of memory; a device of {class} has {memory}, of which models may have half"
    )]
    Memory {
        /// The class.
        class: TargetClass,
        /// The limit that was measured.
        needed: ByteCount,
        /// RAM of its smallest device.
        memory: ByteCount,
    },
    /// The bundle does not fit on the class's storage as often as updates need.
    #[error(
        "an update needs {needed} bytes of storage (two releases unpacked and one packed); a device of {class} has {flash}"
    )]
    Flash {
        /// The class.
        class: TargetClass,
        /// Bytes that an update needs.
        needed: ByteCount,
        /// Storage of its smallest device.
        flash: ByteCount,
    },
}

/// The classes that everybody knows.
pub fn built_in() -> Vec<TargetSpec> {
    // They are compiled in, and a test reads them all.
    BUILT_IN.iter().filter_map(|text| toml::from_str(text).ok()).collect()
}

/// The class that `named` names: one that everybody knows, or that a file describes.
pub fn find(named: &str) -> Result<TargetSpec, TargetError> {
    let known = built_in();
    if let Some(spec) = known.iter().find(|spec| spec.class.as_ref() == named) {
        return Ok(spec.clone());
    }
    let path = Path::new(named);
    if path.is_file() {
        return read(path);
    }
    let known = known.iter().map(|spec| spec.class.to_string()).collect();
    Err(TargetError::Unknown { name: named.into(), known })
}

/// What a model packed for `classes` needs of each of them, which must be among those `known`.
pub fn needs(classes: &[TargetClass], known: &[TargetSpec]) -> Result<Vec<ClassNeeds>, TargetError> {
    let needs = |class: &TargetClass| match known.iter().find(|spec| spec.class == *class) {
        Some(spec) => Ok(spec.needs()),
        None => Err(TargetError::Undescribed {
            class: class.clone(),
            known: known.iter().map(|spec| spec.class.to_string()).collect(),
        }),
    };
    classes.iter().map(needs).collect()
}

fn read(path: &Path) -> Result<TargetSpec, TargetError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_TARGET_BYTES as u64 + 1).read_to_string(&mut text))
        .map_err(|source| TargetError::Io { path: path.into(), source })?;
    let malformed = |message: String| TargetError::Malformed { path: path.into(), message };
    if text.len() > MAX_TARGET_BYTES {
        return Err(malformed(format!("more than {MAX_TARGET_BYTES} bytes")));
    }
    toml::from_str(&text).map_err(|error| malformed(error.to_string().trim_end().into()))
}

/// Whether the model of `manifest` leaves a device of `spec` the memory that everything else needs.
pub fn fits_memory(spec: &TargetSpec, manifest: &Manifest) -> Result<(), TargetError> {
    let (class, needed, memory) = (spec.class.clone(), manifest.measured.memory_limit, spec.memory);
    if needed.0 > memory.0 / 2 { Err(TargetError::Memory { class, needed, memory }) } else { Ok(()) }
}

/// Whether a device of `spec` can hold the release that runs, this one unpacked, and its bundle.
pub fn fits_flash(spec: &TargetSpec, unpacked: ByteCount, bundle: ByteCount) -> Result<(), TargetError> {
    let needed = ByteCount(unpacked.0.saturating_mul(2).saturating_add(bundle.0));
    let (class, flash) = (spec.class.clone(), spec.flash);
    if needed > flash { Err(TargetError::Flash { class, needed, flash }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::open::read as read_bundle;
    use crate::bundle::open::tests::good;

    #[test]
    fn every_class_of_the_repository_can_be_read() {
        assert_eq!(built_in().len(), BUILT_IN.len());
        for spec in built_in() {
            let features = &spec.cpu_features;
            assert!(spec.memory.0 >= 128 << 20 && spec.flash > spec.memory, "{spec:?}");
            assert!(features.iter().all(|feature| !feature.is_empty()));
            assert_eq!(needs(std::slice::from_ref(&spec.class), &built_in()).expect("known"), [spec.needs()]);
        }
    }

    #[test]
    fn a_class_of_ones_own_is_read_from_its_file() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("tiny.toml");
        let text = "class = 'tiny'\ntriple = 'armv7-unknown-linux-gnueabihf'\nmemory = '64MiB'\nflash = '1MiB'\n\
                    cpu_features = []\nkernel = '4.19'\n";
        std::fs::write(&path, text).expect("written");
        let spec = find(path.to_str().expect("utf-8")).expect("a class");
        let mut manifest = read_bundle(good().as_slice()).expect("good").manifest;
        manifest.measured.memory_limit = ByteCount::from_mib(32);
        assert!(fits_memory(&spec, &manifest).is_ok());
        manifest.measured.memory_limit = ByteCount::from_mib(33);
        let error = fits_memory(&spec, &manifest).expect_err("too much").to_string();
        assert!(error.contains("tiny") && error.contains("34603008"), "{error}");
        let half = ByteCount(1 << 19);
        assert!(fits_flash(&spec, half, ByteCount(0)).is_ok());
        assert!(fits_flash(&spec, half, ByteCount(1)).expect_err("too much").to_string().contains("1048577"));

        std::fs::write(&path, text.replace("64MiB", "64 potatoes")).expect("written");
        let error = find(path.to_str().expect("utf-8")).expect_err("malformed").to_string();
        assert!(error.contains("tiny.toml") && error.contains("64 potatoes"), "{error}");
        let error = find("linux-vax").expect_err("unknown").to_string();
        assert!(error.contains("linux-vax") && error.contains("linux-armv7"), "{error}");
    }
}
