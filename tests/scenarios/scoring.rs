//! Scoring in bulk on a device: a file that is interrupted, lines that keep coming, messages on local topics.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rumqttc::{Client, Connection, Event, Incoming, MqttOptions, QoS};
use serde_json::Value;
use serin_tests::broker::Mosquitto;
use serin_tests::lab::{ALL_AT_ONCE, Broker, Lab, PATIENCE};
use serin_tests::process::{Running, program};
use serin_tests::traffic::rows;
use serin_tests::until;

fn lab() -> Result<Lab> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(1)?;
    lab.first_release()?;
    Ok(lab)
}

fn agent(lab: &Lab, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(program("serin-agent")?);
    command.arg("--socket").arg(lab.devices[0].folder.join("agent.sock")).args(arguments);
    Ok(command)
}

fn line(row: &[f32]) -> String {
    serde_json::to_string(row).unwrap_or_default() + "\n"
}

#[test]
fn a_file_that_is_interrupted_in_the_middle_is_scored_once_and_in_order() -> Result<()> {
    const ROWS: usize = 20_000;
    let lab = lab()?;
    let known = rows()?;
    let folder = lab.folder();
    let (input, output) = (folder.join("in.ndjson"), folder.join("out.ndjson"));
    let text: String = known.iter().cycle().take(ROWS).map(|row| line(row)).collect();
    std::fs::write(&input, text)?;
    let arguments = ["batch", input.to_str().context("text")?, output.to_str().context("text")?];

    let part = folder.join("out.ndjson.part");
    let mut first = agent(&lab, &arguments)?.stdout(Stdio::null()).spawn()?;
    let begun = || std::fs::metadata(&part).ok().filter(|part| part.len() > 0);
    until("something is answered", PATIENCE, begun)?;
    first.kill()?;
    first.wait()?;
    assert!(!output.exists());

    let done = agent(&lab, &arguments)?.arg("--json").output()?;
    let said: Value = serde_json::from_slice(&done.stdout)
        .with_context(|| String::from_utf8_lossy(&done.stderr).into_owned())?;
    assert_eq!((&said["rows"], &said["release"]), (&ROWS.into(), &"digits@1.0.0".into()));
    let answers = std::fs::read_to_string(&output)?;
    let answers: Vec<Value> = answers.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(answers.len(), ROWS);
    let alone = lab.devices[0].infer(&known[..64])?;
    let classes =
        alone["outputs"].as_array().context("a list")?.iter().find(|output| output["name"] == "class");
    let classes = classes.and_then(|output| output["data"].as_array()).context("classes")?;
    for (at, answer) in answers.iter().enumerate().filter(|(at, _)| at % known.len() < 64) {
        assert_eq!(answer["class"], classes[at % known.len()], "row {at}");
    }
    Ok(())
}

#[test]
fn lines_are_answered_as_they_come_through_a_change_of_versions() -> Result<()> {
    let lab = lab()?;
    let known = rows()?;
    let mut stream = agent(&lab, &["stream"])?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = stream.stdin.take().context("a pipe")?;
    let mut output = BufReader::new(stream.stdout.take().context("a pipe")?).lines();
    let mut ask = |row: usize| -> Result<Value> {
        input.write_all(line(&known[row % known.len()]).as_bytes())?;
        Ok(serde_json::from_str(&output.next().context("a line")??)?)
    };
    assert_eq!(ask(0)?["version"], "1.0.0");
    lab.publish("digits/v2")?;
    let rollout = lab.server.roll_out("digits@2.0.0", ALL_AT_ONCE)?;
    for row in 1.. {
        let answer = ask(row)?;
        assert!(answer["outputs"]["class"].is_i64(), "{answer}");
        if answer["version"] == "2.0.0" {
            break;
        }
    }
    lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;
    drop(input);
    assert!(output.next().is_none() && stream.wait()?.success());
    Ok(())
}

#[test]
fn messages_on_a_local_topic_are_answered_in_order_even_when_the_stream_is_killed() -> Result<()> {
    const MESSAGES: usize = 300;
    let lab = lab()?;
    let known = rows()?;
    let folder = lab.folder().join("local");
    std::fs::create_dir(&folder)?;
    let broker = Mosquitto::start(&folder)?;
    let address = format!("127.0.0.1:{}", broker.port);
    let stream = || -> Result<_> {
        let arguments = ["stream", "--mqtt", &address, "--from", "camera/+/row", "--to", "camera/class"];
        Ok(agent(&lab, &arguments)?.stderr(Stdio::null()).spawn()?)
    };
    let mut first = stream()?;
    let options = |name: &str| {
        let mut options = MqttOptions::new(name, "127.0.0.1", broker.port);
        options.set_keep_alive(Duration::from_secs(5));
        options
    };
    let (reader, mut answers) = Client::new(options("app"), 1000);
    reader.subscribe("camera/class", QoS::AtLeastOnce)?;
    let mut next = |patience: Duration| -> Result<Value> {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = answers.recv_timeout(left).map_err(|_| anyhow::anyhow!("no answer came"))??;
            if let Event::Incoming(Incoming::Publish(answer)) = event {
                return Ok(serde_json::from_slice(&answer.payload)?);
            }
        }
    };
    let send =
        |at: usize| reader.publish("camera/1/row", QoS::AtLeastOnce, false, line(&known[at % known.len()]));
    // Until both have subscribed.
    until("the first is answered", PATIENCE, || {
        send(0).ok()?;
        next(Duration::from_millis(200)).ok()
    })?;
    let mut came = Vec::new();
    for at in 0..MESSAGES {
        send(at)?;
        if at == MESSAGES / 2 {
            // In the middle of answering.
            came.push(next(PATIENCE)?);
            first.kill()?;
            first.wait()?;
        }
    }
    let mut second = stream()?;
    let alone = lab.devices[0].infer(&known[..MESSAGES.min(known.len())])?;
    let classes =
        alone["outputs"].as_array().context("a list")?.iter().find(|output| output["name"] == "class");
    let classes: Vec<i64> = serde_json::from_value(classes.context("classes")?["data"].clone())?;
    let wanted: Vec<i64> = (0..MESSAGES).map(|at| classes[at % known.len()]).collect();
    // None is lost and none overtakes another; around the kill some may come twice.
    let (mut matched, mut seen) = (0, 0);
    while matched < wanted.len() {
        let answer = match came.pop() {
            Some(came) => came,
            None => next(PATIENCE)?,
        };
        let class = answer["outputs"]["class"].as_i64().with_context(|| answer.to_string())?;
        matched += usize::from(class == wanted[matched]);
        seen += 1;
        assert!(seen < 2 * MESSAGES, "{matched} of {MESSAGES} came in order");
    }
    second.kill()?;
    second.wait()?;
    Ok(())
}

/// Messages and answers at a local broker, from an app's side.
struct App {
    client: Client,
    answers: Connection,
}

impl App {
    fn join(port: u16) -> Result<Self> {
        let mut options = MqttOptions::new("app", "127.0.0.1", port);
        options.set_keep_alive(Duration::from_secs(5));
        let (client, answers) = Client::new(options, 1000);
        client.subscribe("camera/class", QoS::AtLeastOnce)?;
        Ok(Self { client, answers })
    }

    fn next(&mut self, patience: Duration) -> Result<Value> {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.answers.recv_timeout(left).map_err(|_| anyhow::anyhow!("no answer came"))??;
            if let Event::Incoming(Incoming::Publish(answer)) = event {
                return Ok(serde_json::from_slice(&answer.payload)?);
            }
        }
    }

    fn until_answered(&mut self, text: &str) -> Result<Value> {
        until("a message is answered", PATIENCE, || {
            self.client.publish("camera/1/row", QoS::AtLeastOnce, false, text).ok()?;
            self.next(Duration::from_millis(200)).ok()
        })
    }
}

#[test]
fn messages_are_answered_on_though_the_broker_is_restarted_and_forgets_every_session() -> Result<()> {
    let lab = lab()?;
    let known = rows()?;
    let folder = lab.folder().join("local");
    std::fs::create_dir(&folder)?;
    let mut broker = Mosquitto::start(&folder)?;
    let address = format!("127.0.0.1:{}", broker.port);
    let arguments = ["stream", "--mqtt", &address, "--from", "camera/+/row", "--to", "camera/class"];
    let mut stream = Running::start(&mut agent(&lab, &arguments)?, &folder.join("stream.log"))?;
    for _ in 0..3 {
        let mut app = App::join(broker.port)?;
        let answer = app.until_answered(&line(&known[0]))?;
        assert!(answer["outputs"]["class"].is_i64(), "{answer}");
        // In the middle of answering: some answers are on their way, and never will be acknowledged.
        for row in known.iter().cycle().take(500) {
            app.client.publish("camera/1/row", QoS::AtLeastOnce, false, line(row))?;
        }
        app.next(PATIENCE)?;
        broker.crash_and_restart()?;
    }
    let mut app = App::join(broker.port)?;
    app.until_answered(&line(&known[0]))?;
    // One that the model does not take is an error in its place, and no reason to end.
    app.client.publish("camera/1/row", QoS::AtLeastOnce, false, "[1]")?;
    until("the error comes", PATIENCE, || {
        app.next(PATIENCE).ok().filter(|answer| answer["error"].is_string())
    })?;
    assert!(stream.is_running(), "{}", stream.said());
    Ok(())
}
