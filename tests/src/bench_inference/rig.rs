//! A device that serves the digits, and the same release in a worker without anything around it.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde_json::json;
use serin_agent::worker::{Worker, WorkerSpec};
use serin_protocol::ids::ByteCount;
use serin_protocol::tensor::{DataType, TensorHeader};
use serin_tests::device::Device;
use serin_tests::lab::{Broker, Lab};
use serin_tests::memory::of_process;
use serin_tests::process::program;
use serin_tests::samples::Samples;
use serin_tests::traffic::rows;

use crate::http::Question;

/// How tensors travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As JSON, both ways.
    Json,
    /// Raw behind the JSON, both ways.
    Raw,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "JSON",
            Self::Raw => "raw",
        })
    }
}

pub(crate) struct Rig {
    lab: Lab,
    rows: Vec<Vec<f32>>,
}

impl Rig {
    pub(crate) fn new() -> Result<Self> {
        let mut lab = Lab::new(Broker::Embedded)?;
        lab.add_device("bench", "")?;
        lab.first_release()?;
        lab.server.kill();
        Ok(Self { lab, rows: rows()? })
    }

    fn device(&self) -> Result<&Device> {
        self.lab.devices.first().context("no device")
    }

    fn values(&self, rows: usize) -> Vec<f32> {
        self.rows.iter().cycle().take(rows).flatten().copied().collect()
    }

    pub(crate) fn question(&self, form: Form, rows: usize) -> Result<Question> {
        let values = self.values(rows);
        let address = format!("127.0.0.1:{}", self.device()?.gateway);
        let model = "digits".to_owned();
        let outputs = json!([{ "name": "probabilities" }]);
        if form == Form::Json {
            let input = json!({ "name": "pixels", "datatype": "FP32", "shape": [rows, 64], "data": values });
            let body = json!({ "inputs": [input], "outputs": outputs }).to_string().into_bytes();
            return Ok(Question { address, model, headers: String::new(), body });
        }
        let input = json!({
            "name": "pixels", "datatype": "FP32", "shape": [rows, 64],
            "parameters": { "binary_data_size": values.len() * 4 },
        });
        let outputs = json!([{ "name": "probabilities", "parameters": { "binary_data": true } }]);
        let mut body = json!({ "inputs": [input], "outputs": outputs }).to_string().into_bytes();
        let headers = format!("Inference-Header-Content-Length: {}\r\n", body.len());
        body.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        Ok(Question { address, model, headers, body })
    }

    /// Time in pipeline and model alone, as the worker itself measures it.
    pub(crate) fn bare(&self, rows: usize, warm_up: usize, requests: usize) -> Result<Samples> {
        let releases = self.device()?.folder.join("releases");
        let release = std::fs::read_dir(releases)?.next().context("no release on the device")??;
        let status = self.device()?.status()?;
        let limit = status["active"]["memory_limit"].as_u64().context("no limit")?;
        let spec = WorkerSpec {
            program: program("serin-agent")?,
            dir: release.path(),
            release: "digits@1.0.0".parse()?,
            memory_limit: ByteCount(limit),
            groups: None,
            load_deadline: Duration::from_mins(1),
            request_deadline: Duration::from_secs(10),
            require_sandbox: false,
        };
        let values = self.values(rows);
        let header = TensorHeader {
            name: "pixels".parse()?,
            datatype: DataType::Fp32,
            shape: [u32::try_from(rows)?, 64].into_iter().collect(),
            bytes: values.len() as u64 * 4,
        };
        let body: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let body = bytes::Bytes::from(body);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let worker = Worker::start(spec).await.map_err(|fault| anyhow!("{fault}"))?;
            let mut samples = Samples::default();
            for at in 0..warm_up + requests {
                let inferred = worker.infer(vec![header.clone()], body.clone()).await?;
                if at >= warm_up {
                    samples.push(Duration::from_micros(inferred.micros));
                }
            }
            worker.stop().await;
            Ok(samples)
        })
    }

    /// Bytes of agent and worker.
    pub(crate) fn resident(&self) -> Result<(u64, u64)> {
        let device = self.device()?;
        let worker = device.status()?["active"]["worker"]["pid"].as_u64().context("no worker")?;
        let agent = device.id().context("it does not run")?;
        let of = |pid| Ok::<_, anyhow::Error>(of_process(pid)?.proportional);
        Ok((of(agent)?, of(u32::try_from(worker)?)?))
    }
}
