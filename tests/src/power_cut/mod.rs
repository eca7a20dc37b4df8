//! Every update path of a device, with every operation on its disk killed, cut, torn or failing, and the
//! device that comes back looked at.

pub mod matrix;
pub mod paths;

use anyhow::{Context as _, Result};

use self::matrix::{Mishap, Outcome, survive};
use self::paths::{Path, Stock};

/// Cells of one path and one mishap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub cells: usize,
    /// The update completed after all.
    pub completed: usize,
    /// It was rejected with a reason.
    pub rejected: usize,
}

impl Tally {
    pub const fn survived(&self) -> usize {
        self.completed + self.rejected
    }
}

/// One path with all that can happen on it.
pub struct Row {
    pub path: Path,
    /// Operations on its disk, from switching on to the end.
    pub operations: usize,
    /// Those that change something.
    pub changes: usize,
    /// In the order of [`Mishap::ALL`].
    pub tallies: Vec<Tally>,
    /// The cells that were not survived: where, what, and how it ended.
    pub failures: Vec<String>,
}

/// Takes `path` once for every operation on its disk and everything that can happen at it. `stride` leaves
/// operations out: 1 takes them all.
pub fn row(path: Path, stock: &Stock, stride: usize, mut progress: impl FnMut()) -> Result<Row> {
    let scene = path.scene(stock).with_context(|| path.name())?;
    let steps = matrix::steps(path, &scene).with_context(|| path.name())?;
    let mut row = Row {
        path,
        operations: steps.len(),
        changes: steps.iter().filter(|step| step.changes()).count(),
        tallies: vec![Tally::default(); Mishap::ALL.len()],
        failures: Vec::new(),
    };
    for (at, step) in steps.iter().enumerate().step_by(stride) {
        for (mishap, tally) in Mishap::ALL.into_iter().zip(&mut row.tallies) {
            if !mishap.applies(step) {
                continue;
            }
            tally.cells += 1;
            match survive(path, &scene, at, mishap) {
                Ok(Outcome::Completed) => tally.completed += 1,
                Ok(Outcome::Rejected) => tally.rejected += 1,
                Err(error) => row.failures.push(format!(
                    "{}: {} at operation {at}, {} {}: {error:#}",
                    path.name(),
                    mishap.name(),
                    step.operation,
                    step.path.display()
                )),
            }
            progress();
        }
    }
    Ok(row)
}
