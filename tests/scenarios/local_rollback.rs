//! A device on its own takes a release back when the policy that its owner signed says so.

use std::path::Path;

use anyhow::Result;
use serin_tests::lab::{ALL_AT_ONCE, Broker, Lab, PATIENCE};
use serin_tests::traffic::rows;
use serin_tests::until;

/// Not more than nine of ten alike, over 50 or more.
fn may_not_collapse(folder: &Path) -> Result<()> {
    let declaration = std::fs::read_to_string(folder.join("serin.toml"))?;
    let policy = "
[local_rollback]
collapse = { share = \"90%\", predictions = 50, for = \"1s\" }
errors = { share = \"50%\", requests = 200 }
";
    Ok(std::fs::write(folder.join("serin.toml"), format!("{declaration}{policy}"))?)
}

#[test]
fn device_without_a_network_takes_a_release_back_whose_predictions_have_collapsed() -> Result<()> {
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_device("kiosk", "")?;
    lab.first_release()?;
    lab.publish_changed("digits/v2", may_not_collapse)?;
    let rollout = lab.server.roll_out("digits@2.0.0", ALL_AT_ONCE)?;
    lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;
    lab.server.kill();

    // Rows of all kinds are as they should be.
    let rows = rows()?;
    let device = &lab.devices[0];
    for batch in rows.chunks(100).take(3) {
        device.infer(batch)?;
    }
    // An engineer who pins it knows better.
    device.engineer(&["pin"])?;
    let alike: Vec<Vec<f32>> = std::iter::repeat_n(rows[0].clone(), 100).collect();
    until("it is told", PATIENCE, || {
        device.infer(&alike).ok()?;
        device.said().contains("breaks its own policy").then_some(())
    })?;
    assert!(device.runs("2.0.0"), "it is pinned");
    device.engineer(&["unpin"])?;

    until("it is taken back", PATIENCE, || {
        device.infer(&alike).ok()?;
        device.runs("1.0.0").then_some(())
    })?;
    let status = device.status()?;
    assert_eq!(status["previous"]["standing"], "condemned", "{status}");
    let history = device.engineer(&["history"])?.to_string();
    assert!(history.contains("its predictions have collapsed: 100.00% of the last"), "{history}");

    // The older one has no such policy, and nothing brings the other back: not even a start of the agent.
    for _ in 0..5 {
        device.infer(&alike)?;
    }
    let device = &mut lab.devices[0];
    device.stop();
    device.power_on()?;
    until("it answers", PATIENCE, || device.infer(&rows[..1]).ok())?;
    assert!(device.runs("1.0.0"));

    lab.server.crash_and_restart()?;
    let told = lab.until_told("kiosk", &["digits@2.0.0", "committed", "rolled back", "collapsed"])?;
    assert!(told.contains("are class"), "{told}");
    assert!(lab.devices[0].runs("1.0.0"), "the fleet's order was carried out once");
    Ok(())
}
