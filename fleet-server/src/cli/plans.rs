//! Plans, and what they would do.

use serde::Deserialize;
use serde_json::Value;

use super::client::Client;
use super::rollout::PlanArgs;
use super::table::{plain, table};
use super::{Failure, Report};
use crate::rollout::notation::instant;
use crate::rollout::plan::Plan;
use serin_protocol::ids::UnixMillis;

/// Devices named per stage; `--json` names all.
const SHOWN: usize = 8;

#[derive(Deserialize)]
struct Preview {
    release: String,
    salt: String,
    stages: Vec<Stage>,
    control: Vec<String>,
    pinned: u32,
    not_meant: u64,
}

#[derive(Deserialize)]
struct Stage {
    share: String,
    purpose: String,
    approval: bool,
    devices: Vec<Told>,
    over: u64,
    too_slow: bool,
}

#[derive(Deserialize)]
struct Told {
    device: String,
    at: u64,
}

/// The plan with everything it leaves to defaults.
pub(super) fn show(arguments: &PlanArgs) -> Result<Report, Failure> {
    let plan = arguments.read()?.unwrap_or_else(Plan::default);
    plan.check().map_err(Failure::new)?;
    let text = toml::to_string(&plan).map_err(Failure::new)?;
    let json = serde_json::to_value(&plan).map_err(Failure::new)?;
    Ok(Report { text: text.trim_end().to_owned(), json })
}

/// Which devices would get the release when.
pub(super) fn dry_run(client: &Client, release: &str, arguments: &PlanArgs) -> Result<Report, Failure> {
    let json: Value = client.post("/api/v1/rollouts/plan", &arguments.wanted(release)?)?;
    let preview: Preview = serde_json::from_value(json.clone())
        .map_err(|error| Failure::new(format!("the server's answer makes no sense: {error}")))?;
    Ok(Report { text: text(&preview), json })
}

fn text(preview: &Preview) -> String {
    let mut rows = Vec::new();
    for (index, stage) in preview.stages.iter().enumerate() {
        let first = stage.devices.first().map_or_else(|| "-".into(), |told| moment(told.at));
        let last = stage.devices.last().map_or_else(|| "-".into(), |told| moment(told.at));
        let names: Vec<&str> = stage.devices.iter().take(SHOWN).map(|told| told.device.as_str()).collect();
        let more = stage.devices.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let note = match (stage.approval, stage.too_slow) {
            (_, true) => "its time is over before all are told",
            (true, false) => "after an operator's approval",
            (false, false) => "",
        };
        rows.push(vec![
            format!("{}", index + 1),
            stage.share.clone(),
            stage.purpose.clone(),
            stage.devices.len().to_string(),
            first,
            last,
            moment(stage.over),
            format!("{}{more}", names.join(" ")),
            note.to_owned(),
        ]);
    }
    let heading = ["STAGE", "SHARE", "FOR", "NEW", "FIRST TOLD", "LAST TOLD", "OVER", "DEVICES", ""];
    let mut notes = vec![format!("{} devices are compared with until the last stage", preview.control.len())];
    if preview.pinned > 0 {
        notes.push(format!("{} are pinned and left out", preview.pinned));
    }
    if preview.not_meant > 0 {
        notes.push(format!("{} are not meant", preview.not_meant));
    }
    let release = plain(&preview.release);
    format!(
        "{}\n\n{}. Times are the earliest; devices that are offline come when they are back.\n\
         Nothing has moved. `rollout start --release {release} --salt {}` begins with these devices.",
        table(&heading, &rows),
        notes.join(", "),
        plain(&preview.salt)
    )
}

fn moment(at: u64) -> String {
    instant::text(UnixMillis(at))
}
