//! Apps that ask a device by the Open Inference Protocol: tritonclient over TCP, and plain HTTP over the Unix
//! socket; through mistakes of all kinds and through a switch of versions.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use serin_tests::bundles::fixtures;
use serin_tests::device::Device;
use serin_tests::lab::{ALL_AT_ONCE, Broker, Lab, PATIENCE};
use serin_tests::traffic::rows;

use crate::tuf_interop::script;

fn client(device: &Device, command: &str, more: &[&str]) -> Command {
    let mut client = script("oip_client.py");
    client.arg(command).arg(format!("127.0.0.1:{}", device.gateway));
    client.arg(fixtures().join("digits/traffic.csv")).args(more);
    client
}

/// Every call of the client is answered as it expects.
fn calls(device: &Device, version: &str, warm: &str) -> Result<()> {
    let output = client(device, "calls", &[version, warm]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A client that asks until it is told to stop.
struct Load(Child);

impl Load {
    fn start(device: &Device) -> Result<Self> {
        let mut client = client(device, "load", &[]);
        let mut child = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let said = child.stdout.as_mut().context("piped")?;
        // A byte at a time, so that nothing of what comes later is taken.
        BufReader::with_capacity(1, said).read_line(&mut line)?;
        ensure!(line.trim() == "asking", "{line}");
        Ok(Self(child))
    }

    fn stop(mut self) -> Result<Value> {
        drop(self.0.stdin.take());
        let mut said = String::new();
        self.0.stdout.take().context("piped")?.read_to_string(&mut said)?;
        ensure!(self.0.wait()?.success(), "{said}");
        Ok(serde_json::from_str(&said)?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends `head` and `body` over the device's Unix socket; the status line, the headers, and what follows.
fn over_socket(device: &Device, head: &str, body: &[u8]) -> Result<(String, Vec<u8>)> {
    let mut stream = UnixStream::connect(device.folder.join("agent.sock"))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let head = format!("{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no headers")?;
    let body = answer.split_off(end + 4);
    Ok((String::from_utf8(answer)?.to_lowercase(), body))
}

fn plain_http_over_the_socket(device: &Device, version: &str) -> Result<()> {
    let (head, body) = over_socket(device, "GET /v2/health/ready HTTP/1.1", b"")?;
    assert!(head.starts_with("http/1.1 200") && body == br#"{"ready":true}"#, "{head}");
    let (head, body) = over_socket(device, "GET /v2/models/digits HTTP/1.1", b"")?;
    let model: Value = serde_json::from_slice(&body)?;
    assert!(head.starts_with("http/1.1 200") && model["versions"] == json!([version]), "{head} {model}");

    let row = rows()?.swap_remove(0);
    let input = |rest: Value| {
        let mut input = json!({ "name": "pixels", "datatype": "FP32", "shape": [1, 64] });
        input.as_object_mut().expect("object").extend(rest.as_object().expect("object").clone());
        json!({ "id": "1", "inputs": [input], "outputs": [{ "name": "class" }] })
    };
    let written = input(json!({ "data": row })).to_string();
    let post = "POST /v2/models/digits/infer HTTP/1.1\r\nX-Request-Id: from-the-app";
    let (head, body) = over_socket(device, post, written.as_bytes())?;
    assert!(head.starts_with("http/1.1 200") && head.contains("x-request-id: from-the-app"), "{head}");
    let as_json: Value = serde_json::from_slice(&body)?;

    let text = input(json!({ "parameters": { "binary_data_size": 256 } })).to_string();
    let raw: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
    let post = format!("{post}\r\nInference-Header-Content-Length: {}", text.len());
    let (head, body) = over_socket(device, &post, &[text.as_bytes(), &raw].concat())?;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let as_raw: Value = serde_json::from_slice(&body)?;
    assert_eq!(as_raw, as_json);
    let (head, body) = over_socket(device, &post, &[text.as_bytes(), &raw[1..]].concat())?;
    let error: Value = serde_json::from_slice(&body)?;
    assert!(head.starts_with("http/1.1 400") && error["error"].to_string().contains("255 bytes"), "{error}");
    let (head, _) = over_socket(device, "GET /v2/models/digits/versions/9.9.9 HTTP/1.1", b"")?;
    assert!(head.starts_with("http/1.1 404"), "{head}");
    Ok(())
}

#[test]
fn apps_are_answered_by_the_protocol_and_do_not_notice_a_switch() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_device("device-01", "")?;
    lab.first_release()?;
    calls(&lab.devices[0], "1.0.0", "-")?;
    plain_http_over_the_socket(&lab.devices[0], "1.0.0")?;
    // Mistakes are counted as such, and none as the release's error.
    let traffic = lab.devices[0].status()?["active"]["traffic"].clone();
    assert!(traffic["refused"].as_u64() >= Some(15) && traffic["errors"] == 0, "{traffic}");

    let load = Load::start(&lab.devices[0])?;
    lab.publish("digits/v2")?;
    let rollout = lab.server.roll_out("digits@2.0.0", ALL_AT_ONCE)?;
    lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;
    let said = load.stop()?;
    assert_eq!(said["failed"], json!([]), "{said}");
    let answered = |version: &str| said["versions"][version].as_u64().unwrap_or_default();
    assert!(answered("1.0.0") > 0 && answered("2.0.0") > 0, "{said}");
    // Those that waited were run together: fewer runs than inferences, each of one row.
    let count = |name: &str| said[name].as_u64().unwrap_or_default();
    assert!(count("executions") < count("inferences"), "{said}");

    calls(&lab.devices[0], "2.0.0", "1.0.0")?;
    plain_http_over_the_socket(&lab.devices[0], "2.0.0")
}
