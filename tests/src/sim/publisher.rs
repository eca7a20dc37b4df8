//! Releases of the fixture models, packed by the real command line, in a repository whose keys are known.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serin_agent::worker::golden::golden_pass;
use serin_agent::worker::{Worker, WorkerSpec};
use serin_fleet_server::bundle::statement::{chunk_list, describe};
use serin_protocol::assignment::ReleaseRef;
use serin_protocol::bundle::BundleFile;
use serin_protocol::chunk::CHUNK_BYTES;
use serin_protocol::golden::Golden;
use serin_protocol::ids::Digest;
use serin_protocol::release::Release;
use serin_protocol::topic::Topic;
use serin_protocol::trust::forge::Repository;
use serin_protocol::trust::metadata::Serial;
use serin_protocol::trust::{TargetFile, UtcSeconds, layout};

use super::broker::BEGIN;
use super::device::Device;
use crate::bundles::{copy_folder, fixtures, fleet, text};
use crate::process::program;

/// Bytes of noise in a model card, so that a bundle of a small model has several chunks.
const NOISE: usize = 160 * 1024;

/// A release with its bundle.
#[derive(Clone)]
pub struct Published {
    pub release: Release,
    pub statement: Vec<u8>,
    pub digest: Digest,
    pub bundle: Vec<u8>,
    list: Vec<u8>,
}

impl Published {
    /// Packs the fixture `model` (such as `digits/v1`) in `folder`.
    pub fn pack(model: &str, folder: &Path) -> Result<Self> {
        let source = folder.join(model.replace('/', "-"));
        copy_folder(&fixtures().join(model), &source)?;
        let card = source.join("card.md");
        std::fs::write(&card, std::fs::read_to_string(&card)? + &noise(model))?;
        let bundle = source.with_extension("serin");
        fleet(&["bundle", "pack", text(&source), "-o", text(&bundle)])?;
        let release = describe(&bundle)?;
        let statement = release.to_bytes()?.to_vec();
        Ok(Self {
            digest: Digest::of(&statement),
            release,
            statement,
            list: chunk_list(&bundle)?,
            bundle: std::fs::read(&bundle)?,
        })
    }

    /// As an assignment names it.
    pub fn reference(&self) -> ReleaseRef {
        ReleaseRef { id: self.release.id.clone(), statement: self.digest }
    }

    /// Every chunk of its chunk list and bundle.
    pub fn chunks(&self) -> Vec<(Topic, Vec<u8>)> {
        let objects = [(self.release.chunk_list, &self.list), (self.release.bundle, &self.bundle)];
        let cut = objects.into_iter().flat_map(|(object, bytes)| {
            let numbered = bytes.chunks(CHUNK_BYTES).zip(0..);
            numbered
                .map(move |(chunk, index)| (Topic::Chunk { object: object.digest, index }, chunk.to_vec()))
        });
        cut.collect()
    }

    /// Runs the golden vectors against the unpacked release in `dir`, in a real worker under its limit.
    pub fn prove(&self, dir: &Path) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let bytes = std::fs::read(dir.join(BundleFile::Manifest.name()))?;
            let manifest = serin_protocol::manifest::Manifest::parse(&bytes)?;
            let golden = Golden::parse(&std::fs::read(dir.join(BundleFile::Golden.name()))?)?;
            let spec = WorkerSpec {
                program: program("serin-agent")?,
                dir: dir.into(),
                release: self.release.id.clone(),
                memory_limit: self.release.memory,
                groups: None,
                load_deadline: Duration::from_mins(1),
                request_deadline: Duration::from_secs(20),
                require_sandbox: false,
            };
            let worker = Worker::start(spec).await.map_err(|fault| anyhow::anyhow!("{}", fault.reason()))?;
            let report = golden_pass(&worker, &golden, &manifest).await;
            let report = report.map_err(|fault| anyhow::anyhow!("{}", fault.reason()))?;
            anyhow::ensure!(report.cases > 0, "no golden vectors");
            worker.stop().await;
            Ok(())
        })
    }

    /// Copies the release as it is on a device's disk into the machine's own folder `to`.
    pub fn dump(&self, device: &Device, to: &Path) -> Result<()> {
        std::fs::create_dir_all(to)?;
        for file in BundleFile::ALL {
            std::fs::write(to.join(file.name()), device.read(self.digest, file)?)?;
        }
        Ok(())
    }
}

/// A repository that lists `releases` as their owner's, in this order.
pub fn repository(releases: &[Published]) -> Repository {
    let mut repository = Repository::at(UtcSeconds(i64::try_from(BEGIN).expect("in this century")));
    for (published, serial) in releases.iter().zip(1..) {
        let listed = TargetFile::of(&published.statement).with_serial(Serial(serial));
        repository.digits.targets.insert(layout::statement_path(&published.release.id), listed);
    }
    repository
}

/// Text that does not compress, the same for the same model.
fn noise(model: &str) -> String {
    let mut text = String::from("\n<!-- ");
    let mut block = Digest::of(model.as_bytes());
    while text.len() < NOISE {
        block = Digest::of(&block.0);
        // 64 printable characters.
        text.extend(block.0.iter().map(|byte| char::from(b'0' + byte % 64)));
    }
    text + " -->\n"
}
