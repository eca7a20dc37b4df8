//! The plug is pulled again and again.

use anyhow::Result;
use serin_tests::kill_loop;

#[test]
fn agents_that_are_killed_at_random_moments_come_back_whole_and_every_rollout_ends() -> Result<()> {
    let report = kill_loop::run(8, 20_260_509, &mut |line| println!("{line}"))?;
    assert_eq!(report.kills.values().sum::<u32>(), 8, "{report:?}");
    assert!(!report.outcomes.is_empty(), "{report:?}");
    println!("{report:?}");
    Ok(())
}
