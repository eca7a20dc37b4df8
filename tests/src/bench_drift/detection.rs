//! How soon drift is found in data known to drift.

use anyhow::Result;
use serin_tests::drifting::KNOWN;

pub(crate) fn measure() -> Result<Vec<String>> {
    println!("\n| data | feature | drifts | false alarms before | found after |\n|---|---|---|---|---|");
    let mut missed = Vec::new();
    for known in KNOWN {
        for found in known.play()? {
            let drifts = known.drifting.contains(&found.feature.as_str());
            let (alarms, delay) = (found.alarms_before(known.change), found.delay_from(known.change));
            let rows = delay.map(|windows| format!("{} rows", (windows + 1) * known.window));
            println!(
                "| {} | {} | {} | {alarms} of {} | {} |",
                known.name,
                found.feature,
                if drifts { "yes" } else { "no" },
                known.change,
                rows.as_deref().unwrap_or("never"),
            );
            if alarms > 0 || drifts != delay.is_some() {
                missed.push(format!("{}: {} is judged wrongly", known.name, found.feature));
            }
        }
    }
    Ok(missed)
}
