//! Whether the second form of a model pays: tried in the real worker beside the ONNX file, on the same golden
//! vectors. It costs bytes in every transfer and on every disk, so it is taken only where it clearly gains.

use std::fs;
use std::io;
use std::path::Path;

use serin_protocol::bundle::BundleFile;
use serin_protocol::ids::{ByteCount, Digest};
use serin_protocol::manifest::{FileEntry, Manifest, NnefForm};

use super::engine::FILES;
use super::golden::golden_proof;
use super::prepare;
use super::qualify::{Bench, CEILING, round_up};
use super::verdict::{Fault, FaultKind, Preparation};

/// Starts of either form, by turns, that the medians are of.
const STARTS: usize = 5;
/// It pays when it loads in at most this share of the time, in percent …
const LOAD_PERCENT: u64 = 80;
/// … and saves at least this: below, nobody notices.
const LOAD_MICROS: u64 = 5_000;
/// Or when loading takes at most this share of the memory, in percent.
const MEMORY_PERCENT: u64 = 85;
/// Or when it keeps to what loading may take, and the ONNX file does not: so many times that file …
const LOAD_FILES: u64 = 3;
/// … and this, for the program and what the runtime needs for any model.
const LOAD_BYTES: u64 = 12 << 20;

/// The memory limit may have to grow for it by these shares, in percent: it holds for both forms.
const GROWTH_PERCENT: [u64; 3] = [0, 6, 12];

/// What loading takes, by the medians.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Loading {
    micros: u64,
    /// Largest resident memory in bytes.
    peak: u64,
}

/// Tells what loading does to the model; where the second form pays, puts it beside the model and has `bench` go on
/// with it. `minimum` is the memory that the ONNX file needs; what both need is answered.
pub(super) async fn prepare(
    bench: &mut Bench,
    minimum: ByteCount,
) -> Result<(Preparation, ByteCount), Fault> {
    let spec = &bench.spec;
    let prepared =
        prepare::prepare(&spec.program, &spec.dir, ByteCount(CEILING), spec.load_deadline * 2).await?;
    let mut preparation = Preparation {
        rewrites: prepared.rewrites,
        warnings: prepared.warnings,
        nnef: None,
        nnef_because: String::new(),
    };
    if bench.manifest.nnef.is_some() {
        preparation.nnef.clone_from(&bench.manifest.nnef);
        preparation.nnef_because = "the release has one already".into();
        return Ok((preparation, minimum));
    }
    let (form, bytes) = match prepared.nnef {
        Ok(second) => second,
        Err(why) => {
            preparation.nnef_because = format!("it cannot be written: {why}");
            return Ok((preparation, minimum));
        }
    };
    let beside = bench.spec.dir.join("second-form");
    let trial = lay_out(bench, &beside, form.clone(), &bytes)
        .map_err(|error| Fault::new(FaultKind::Load, format!("{}: {error}", beside.display())))?;
    let tried = try_out(bench, &trial, minimum).await;
    let (needed, because) = match tried {
        Ok((needed, figures)) => (Some(needed), figures),
        Err(why) => (None, why),
    };
    preparation.nnef_because = because;
    let kept = if needed.is_some() { keep(bench, &trial) } else { Ok(()) };
    let cleared = kept.and_then(|()| fs::remove_dir_all(&beside));
    cleared.map_err(|error| Fault::new(FaultKind::Load, format!("{}: {error}", beside.display())))?;
    preparation.nnef = needed.map(|_| form);
    Ok((preparation, needed.unwrap_or(minimum)))
}

/// The same release with the second form, in the new directory `beside`.
fn lay_out(bench: &Bench, beside: &Path, form: NnefForm, bytes: &[u8]) -> io::Result<Bench> {
    let mut manifest: Manifest = bench.manifest.clone();
    manifest.nnef = Some(form);
    let size = ByteCount(bytes.len() as u64);
    let entry = FileEntry { name: BundleFile::Nnef, digest: Digest::of(bytes), size };
    let at = manifest.files.iter().position(|file| file.name > BundleFile::Nnef);
    manifest.files.insert(at.unwrap_or(manifest.files.len()), entry);
    manifest.check().map_err(io::Error::other)?;
    fs::create_dir(beside)?;
    for file in FILES.iter().filter(|file| !matches!(file, BundleFile::Manifest | BundleFile::Nnef)) {
        fs::copy(bench.spec.dir.join(file.name()), beside.join(file.name()))?;
    }
    fs::write(beside.join(BundleFile::Nnef.name()), bytes)?;
    fs::write(beside.join(BundleFile::Manifest.name()), serde_json::to_vec(&manifest)?)?;
    let mut trial = bench.clone();
    beside.clone_into(&mut trial.spec.dir);
    trial.manifest = manifest;
    Ok(trial)
}

/// Tries the second form of `trial`: the memory that does for both forms, and what was measured. The error says why
/// it is not to be used.
async fn try_out(bench: &Bench, trial: &Bench, minimum: ByteCount) -> Result<(ByteCount, String), String> {
    let (mut plain, mut second) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        for (bench, measured) in [(bench, &mut plain), (trial, &mut second)] {
            let worker = bench.start(ByteCount(CEILING)).await.map_err(|fault| fault.message)?;
            measured.push((worker.load_micros(), worker.peak_resident().unwrap_or_default().0));
            worker.stop().await;
        }
    }
    let (plain, second) = (Loading::of(&plain), Loading::of(&second));
    let figures = format!(
        "it loads in {:.1} ms with {:.1} MiB, the ONNX file in {:.1} ms with {:.1} MiB",
        second.micros as f64 / 1e3,
        second.peak as f64 / f64::from(1 << 20),
        plain.micros as f64 / 1e3,
        plain.peak as f64 / f64::from(1 << 20),
    );
    let file =
        fs::metadata(bench.spec.dir.join(BundleFile::Model.name())).map_err(|error| error.to_string())?;
    if !second.pays_beside(plain, file.len() * LOAD_FILES + LOAD_BYTES) {
        return Err(format!("{figures}: not worth its bytes"));
    }
    let worker = trial.start(ByteCount(CEILING)).await.map_err(|fault| fault.message)?;
    let proved = golden_proof(&worker, &trial.golden, &trial.manifest).await;
    worker.stop().await;
    proved.map_err(|fault| format!("it does not compute the same: {fault}"))?;
    for percent in GROWTH_PERCENT {
        let needed = round_up(minimum.0 + minimum.0 * percent / 100);
        if trial.suffices(ByteCount(needed)).await {
            return Ok((ByteCount(needed), figures));
        }
    }
    Err(format!("{figures}, but needs much more than the {minimum} bytes of the ONNX file to run in"))
}

impl Loading {
    fn of(measured: &[(u64, u64)]) -> Self {
        let median = |mut values: Vec<u64>| {
            values.sort_unstable();
            values.get(values.len() / 2).copied().unwrap_or(0)
        };
        Self {
            micros: median(measured.iter().map(|(micros, _)| *micros).collect()),
            peak: median(measured.iter().map(|(_, peak)| *peak).collect()),
        }
    }

    /// Whether it is worth its bytes, where loading may take `may` bytes of memory.
    const fn pays_beside(self, other: Self, may: u64) -> bool {
        let faster =
            self.micros * 100 <= other.micros * LOAD_PERCENT && self.micros + LOAD_MICROS <= other.micros;
        let smaller = self.peak * 100 <= other.peak * MEMORY_PERCENT;
        faster || smaller || (self.peak <= may && may < other.peak)
    }
}

/// Puts the second form beside the model, and has `bench` go on with it.
fn keep(bench: &mut Bench, trial: &Bench) -> io::Result<()> {
    for file in [BundleFile::Nnef, BundleFile::Manifest] {
        fs::rename(trial.spec.dir.join(file.name()), bench.spec.dir.join(file.name()))?;
    }
    bench.manifest = trial.manifest.clone();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_pays_where_somebody_notices() {
        let plain = Loading { micros: 100_000, peak: 100 };
        let pays = |micros, peak| Loading { micros, peak }.pays_beside(plain, 200);
        assert!(pays(80_000, 100) && pays(150_000, 85));
        assert!(!pays(81_000, 100) && !pays(99_000, 86));
        // Three times as fast, and nobody would notice.
        assert!(!Loading { micros: 2_000, peak: 100 }.pays_beside(Loading { micros: 6_000, peak: 100 }, 200));
        // The file takes more than it may.
        let kept_to = |peak| Loading { micros: 100_000, peak }.pays_beside(plain, 98);
        assert!(kept_to(98) && !kept_to(99));
    }

    #[test]
    fn a_slow_start_among_others_does_not_count() {
        let measured = [(10, 5), (11, 6), (900, 7), (9, 1000), (12, 4)];
        assert_eq!(Loading::of(&measured), Loading { micros: 11, peak: 6 });
    }
}
