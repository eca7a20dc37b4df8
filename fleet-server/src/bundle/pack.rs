//! From a model folder to a packed bundle: draft, measure on the device program, profile, write.

use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use serin_protocol::bundle::BundleFile;
use serin_protocol::manifest::{Manifest, ManifestError, TensorSpec};
use serin_protocol::sketch::profile::{Profile, ProfileError};
use serin_protocol::target::TargetSpec;

use super::container::{self, Contents};
use super::measurements::{
    self, Measurements, MeasurementsError, SecondForm, Subject, UNMEASURED, second_form_path,
};
use super::model_folder::{ModelFolder, ModelFolderError, StoredFile, store};
use super::open::{BundleReadError, OpenedBundle, read_bundle};
use super::qualify::{self, Preparation, QualifyError};
use super::reference::{Images, ReferenceError};
use super::target_class::{self, TargetError};

/// What to pack, and how.
#[derive(Clone, Debug)]
pub struct PackOrder {
    /// The model folder.
    pub folder: PathBuf,
    /// The bundle to write.
    pub output: PathBuf,
    /// The device program, where it is named.
    pub program: Option<PathBuf>,
    /// Where measurements are kept; `measured.json` in the folder unless named.
    pub measurements: Option<PathBuf>,
    /// Measure although there are measurements.
    pub remeasure: bool,
    /// Classes of devices that it is packed for besides those in `serin.toml`: names, or files that describe one.
    pub targets: Vec<String>,
}

/// A bundle that was packed.
#[derive(Debug)]
pub struct Packed {
    /// Its contents, read back.
    pub opened: OpenedBundle,
    /// Whether the measurements were made now, rather than before.
    pub measured_now: bool,
    /// What loading rewrites in the model, where the device program told.
    pub preparation: Option<Preparation>,
    /// What works and should be seen to, a sentence each.
    pub warnings: Vec<String>,
}

/// A model was not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The model folder is not in order.
    #[error(transparent)]
    Folder(#[from] ModelFolderError),
    /// The kept measurements are not in order.
    #[error(transparent)]
    Measurements(#[from] MeasurementsError),
    /// The device program refuses the model, or cannot be asked.
    #[error(transparent)]
    Qualify(#[from] QualifyError),
    /// The reference profile is too large.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The manifest is too large.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A file or folder cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bundle that was written is not one that devices would take.
    #[error("the packed bundle does not read back: {0}")]
    ReadBack(#[from] BundleReadError),
    /// It is not for one of its classes of devices.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The packed bundle is too large to be transferred.
    #[error("the packed bundle cannot be transferred: {0}")]
    Size(#[from] serin_protocol::chunk::ChunkMapError),
}

impl PackError {
    /// What the operator can do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Qualify(error) => error.hint(),
            Self::Measurements(MeasurementsError::Malformed { .. }) => {
                Some("pass --remeasure to measure anew and replace it".into())
            }
            Self::Measurements(MeasurementsError::Io { .. }) => {
                Some("name a file that can be written with --measurements FILE".into())
            }
            Self::Target(TargetError::Memory { .. } | TargetError::Flash { .. }) => {
                Some("take the class out of targets in serin.toml, or pack a smaller model".into())
            }
            Self::Target(TargetError::Undescribed { .. }) => Some(
                "describe the class in a file like those in targets/, and give it with --target FILE".into(),
            ),
            Self::Measurements(MeasurementsError::Predictions(_))
            | Self::Target(_)
            | Self::Folder(_)
            | Self::Profile(_)
            | Self::Manifest(_)
            | Self::Write { .. }
            | Self::ReadBack(_)
            | Self::Size(_) => None,
        }
    }
}

/// Packs a model; `say` is told what is about to take time.
pub fn pack(order: &PackOrder, say: &dyn Fn(&str)) -> Result<Packed, PackError> {
    let mut folder = ModelFolder::read(&order.folder)?;
    let named = order.targets.iter().map(|named| target_class::find(named)).collect::<Result<Vec<_>, _>>()?;
    let mut classes = target_class::built_in();
    classes.retain(|spec| named.iter().all(|named| named.class != spec.class));
    let mut targets = folder.declared_targets().to_vec();
    for spec in named {
        // Where nothing is declared it is packed for any, and now for these.
        if !targets.contains(&spec.class) {
            targets.push(spec.class.clone());
        }
        classes.push(spec);
    }
    folder.pack_for(target_class::needs(&targets, &classes)?);
    // Measuring needs a manifest, and the manifest measurements: a draft without them goes first.
    let draft_profile = folder.watched.profile.encode()?;
    let draft = folder.manifest(UNMEASURED, &draft_profile, None)?;
    let path = order.measurements.clone().unwrap_or_else(|| order.folder.join(measurements::FILE));
    let (measurements, measured_now) = measurements(order, &path, &folder, &draft, &draft_profile, say)?;
    let second = measurements.second_form_beside(&path);
    let rows = folder.reference.len();
    folder.see(measurements.pictures(&draft, rows)?);
    let mut profile = folder.watched.profile.clone();
    measurements.add_predictions(&mut profile, &draft, rows, folder.watched.division())?;
    let profile = profile.encode()?;
    let manifest = folder.manifest(measurements.measured, &profile, second.as_ref())?;
    classes.retain(|spec| targets.contains(&spec.class));
    classes.iter().try_for_each(|spec| target_class::fits_memory(spec, &manifest))?;
    say(&format!("packing {}", manifest.id()));
    let second = second.as_ref().map(|(_, file)| file);
    let opened = write(&order.output, &folder, &encode(&manifest)?, &profile, second, &classes)?;
    let preparation = measurements.preparation;
    let mut warnings =
        preparation.as_ref().map(|preparation| preparation.warnings.clone()).unwrap_or_default();
    warnings.extend(folder.doubts_about_golden());
    Ok(Packed { opened, measured_now, preparation, warnings })
}

/// The kept measurements where they are of this very model, else new ones.
fn measurements(
    order: &PackOrder,
    path: &Path,
    folder: &ModelFolder,
    draft: &Manifest,
    profile: &[u8],
    say: &dyn Fn(&str),
) -> Result<(Measurements, bool), PackError> {
    let subject = Subject::of(draft);
    if !order.remeasure
        && let Some(kept) = Measurements::read(path)?
    {
        let intact = |second: (_, StoredFile)| {
            store(&second.1.path, second.1.size.0).is_ok_and(|found| found.digest == second.1.digest)
        };
        match kept.subject.difference(&subject) {
            None if kept.second_form_beside(path).is_none_or(intact) => return Ok((kept, false)),
            None => say(&format!("{} is not what was kept", second_form_path(path).display())),
            Some(changed) => say(&format!("{changed} has changed since {} was written", path.display())),
        }
    }
    let program = qualify::find_program(order.program.as_deref())?;
    say(&format!("measuring {} with {}", draft.id(), program.display()));
    let staged =
        tempfile::tempdir().map_err(|source| PackError::Write { path: std::env::temp_dir(), source })?;
    let rows = stage(staged.path(), folder, draft, profile)?;
    let qualified = qualify::qualify(&program, staged.path(), rows.as_deref())?;
    let preparation = qualified.preparation;
    let form = preparation.as_ref().and_then(|preparation| preparation.nnef.clone());
    let second_form = form.map(|form| keep_second_form(staged.path(), path, form)).transpose()?;
    let made = Measurements {
        subject,
        measured: qualified.measured,
        preparation,
        second_form,
        predictions: qualified.predictions,
        pictures: qualified.pictures,
    };
    // Before they are kept: predictions that contradict the declaration must not wait for the next time.
    let (rows, division) = (folder.reference.len(), folder.watched.division());
    made.add_predictions(&mut Profile::default(), draft, rows, division)?;
    made.pictures(draft, rows)?;
    Ok((made.keep(path)?, true))
}

/// Moves the second form that the device program left in `dir` beside the measurements at `path`.
fn keep_second_form(
    dir: &Path,
    path: &Path,
    form: serin_protocol::manifest::NnefForm,
) -> Result<SecondForm, PackError> {
    let to = second_form_path(path);
    let made = dir.join(BundleFile::Nnef.name());
    fs::copy(made, &to).map_err(|source| PackError::Write { path: to.clone(), source })?;
    let StoredFile { digest, size, .. } = store(&to, BundleFile::Nnef.max_bytes())?;
    Ok(SecondForm { form, digest, size })
}

/// Lays out the files in `dir` as a device would unpack them; returns the file with the reference rows,
/// where there is something to predict or to see.
fn stage(
    dir: &Path,
    folder: &ModelFolder,
    draft: &Manifest,
    profile: &[u8],
) -> Result<Option<PathBuf>, PackError> {
    let failed = |source| PackError::Write { path: dir.into(), source };
    let manifest = encode(draft)?;
    for file in BundleFile::ALL {
        let path = dir.join(file.name());
        match contents(file, folder, &manifest, profile, None) {
            Some(Contents::Bytes(bytes)) => fs::write(&path, bytes).map_err(failed)?,
            Some(Contents::Stored(stored)) => fs::copy(&stored.path, &path).map(drop).map_err(failed)?,
            None => {}
        }
    }
    if draft.prediction.is_none() && draft.watch.pictures(&draft.inputs).is_empty() {
        return Ok(None);
    }
    let path = dir.join("rows.ndjson");
    let mut out = BufWriter::new(fs::File::create(&path).map_err(failed)?);
    let image_inputs = folder.image_inputs()?;
    let mut images = Images::of(&folder.path);
    let mut text = |row: usize, input: &TensorSpec, cell: &str| -> Result<Value, PackError> {
        if !image_inputs.contains(&input.name) || cell.is_empty() {
            return Ok(Value::from(cell));
        }
        let file = images.read(cell).map_err(|what| {
            let place = format!("row {}, column {}", row + 1, input.name);
            ModelFolderError::Reference(ReferenceError::At { file: folder.data_file(), place, what })
        })?;
        Ok(json!({ "hex": hex::encode(file) }))
    };
    let columns: Vec<_> = draft
        .inputs
        .iter()
        .map(|input| (input, folder.reference.texts(&input.name), folder.reference.input(input)))
        .collect();
    for row in 0..folder.reference.len() {
        let mut inputs = Map::new();
        for (input, texts, numbers) in &columns {
            let values: Vec<Value> = match texts.and_then(|texts| texts.get(row)) {
                Some(cell) => vec![text(row, input, cell)?],
                // What is no number is written as null.
                None => numbers.row(row).map(|number| json!(number)).collect(),
            };
            inputs.insert(input.name.to_string(), values.into());
        }
        let written = serde_json::to_writer(&mut out, &json!({ "inputs": inputs })).map_err(io::Error::from);
        written.and_then(|()| out.write_all(b"\n")).map_err(failed)?;
    }
    out.flush().map_err(failed)?;
    Ok(Some(path))
}

fn contents<'a>(
    file: BundleFile,
    folder: &'a ModelFolder,
    manifest: &'a [u8],
    profile: &'a [u8],
    second: Option<&'a StoredFile>,
) -> Option<Contents<'a>> {
    Some(match file {
        BundleFile::Nnef => Contents::Stored(second?),
        BundleFile::Manifest => Contents::Bytes(manifest),
        BundleFile::Card => Contents::Bytes(&folder.card),
        BundleFile::Golden => Contents::Bytes(&folder.golden),
        BundleFile::Labels => Contents::Bytes(&folder.labels),
        BundleFile::Model => Contents::Stored(&folder.model),
        BundleFile::Pipeline => Contents::Bytes(&folder.pipeline),
        BundleFile::Reference => Contents::Bytes(profile),
    })
}

/// `manifest.json`: fields in the order of their declaration, so that equal manifests are equal bytes.
fn encode(manifest: &Manifest) -> Result<Vec<u8>, ManifestError> {
    let mut bytes =
        serde_json::to_vec_pretty(manifest).map_err(|error| ManifestError::Malformed(error.to_string()))?;
    bytes.push(b'\n');
    Manifest::parse(&bytes)?;
    Ok(bytes)
}

/// Writes the bundle, and gives it its name only when it reads back.
fn write(
    output: &Path,
    folder: &ModelFolder,
    manifest: &[u8],
    profile: &[u8],
    second: Option<&StoredFile>,
    classes: &[TargetSpec],
) -> Result<OpenedBundle, PackError> {
    let failed = |source| PackError::Write { path: output.into(), source };
    let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut file = container::unfinished(parent.unwrap_or(Path::new("."))).map_err(failed)?;
    let file_contents = |name| contents(name, folder, manifest, profile, second);
    container::write(file.as_file_mut(), file_contents).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    let opened = read_bundle(file.path())?;
    serin_protocol::chunk::ChunkMap::new(opened.bundle.size)?;
    let fits = |spec| target_class::fits_flash(spec, opened.unpacked, opened.bundle.size);
    classes.iter().try_for_each(fits)?;
    file.persist(output).map_err(|error| failed(error.error))?;
    Ok(opened)
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
