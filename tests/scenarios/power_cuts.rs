//! A part of `make power-cut`: every path, every so many operations.

use anyhow::Result;
use serin_tests::power_cut::paths::{Path, Stock};
use serin_tests::power_cut::row;

/// So many operations apart, and no divisor of how many a step takes, so that all kinds are met.
const STRIDE: usize = 19;

#[test]
fn a_device_comes_back_with_a_verified_model_from_a_cut_anywhere() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stock = Stock::pack(folder.path())?;
    for path in Path::ALL {
        let row = row(path, &stock, STRIDE, || {})?;
        assert!(row.changes > 0, "{} changes nothing", path.name());
        assert_eq!(row.failures, Vec::<String>::new(), "{}", path.name());
    }
    Ok(())
}
