//! What turned out to be true, held against what was predicted. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use core::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serin_protocol::frame::Prediction;
use serin_protocol::manifest::PredictionSpec;
use serin_protocol::sketch::{ClassQuality, Quality, ValueQuality};

/// What turned out to be true of a row.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Truth {
    /// A class number, or a value.
    Number(f64),
    /// What a class is called, or a number as a text.
    Text(String),
    /// Neither: no class and no value, and no reason to refuse the labels that were told with it.
    Neither(Neither),
}

/// What is neither a number nor a text. How much it holds is of no interest.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Neither {
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
    /// A list or an object.
    Many(IgnoredAny),
}

impl fmt::Display for Neither {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Null => f.write_str("null"),
            Self::Many(_) => f.write_str("a list or an object"),
        }
    }
}

/// Why a truth is not counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrue {
    /// Its release declares no prediction.
    #[error("the release declares no prediction that could be right or wrong")]
    NoPrediction,
    /// It is none of the classes.
    #[error("{0} is none of the release's classes, which are numbered 0 to {last} or named in labels.txt", last = .1.saturating_sub(1))]
    NoClass(String, usize),
    /// It is no number.
    #[error("{0} is not a finite number, and the release predicts a value")]
    NoValue(String),
    /// The release is not on this device any more.
    #[error("the release that answered is not on this device any more")]
    Gone,
}

impl Truth {
    fn shown(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            // In full it may be as long as a request.
            Self::Text(text) => format!("{:?}", text.chars().take(60).collect::<String>()),
            Self::Neither(neither) => neither.to_string(),
        }
    }

    fn number(&self) -> Option<f64> {
        let number = match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Neither(_) => None,
        };
        number.filter(|number: &f64| number.is_finite())
    }

    /// The class meant: by its name, else by its number.
    fn class(&self, labels: &[String], classes: usize) -> Option<i64> {
        let named = match self {
            Self::Text(text) => labels.iter().position(|label| label == text),
            Self::Number(_) | Self::Neither(_) => None,
        };
        let numbered = || self.number().filter(|number| number.fract() == 0.0 && *number >= 0.0);
        let class = named.or_else(|| numbered().map(|number| number as usize))?;
        (class < classes).then(|| i64::try_from(class).ok())?
    }
}

/// Counts in `quality` how right `predicted` was.
pub(super) fn count(
    quality: &mut Option<Quality>,
    spec: Option<&PredictionSpec>,
    labels: &[String],
    predicted: Prediction,
    truth: &Truth,
) -> Result<(), Untrue> {
    match (spec, predicted) {
        (Some(PredictionSpec::Class(spec)), Prediction::Class { class, confidence, .. }) => {
            let right = truth.class(labels, spec.classes);
            let right = right.ok_or_else(|| Untrue::NoClass(truth.shown(), spec.classes))? == class;
            if let Quality::Classes(classes) =
                quality.get_or_insert_with(|| Quality::Classes(ClassQuality::default()))
            {
                classes.record(right, confidence);
            }
            Ok(())
        }
        (Some(PredictionSpec::Value { .. }), Prediction::Value(value)) => {
            let number = truth.number().ok_or_else(|| Untrue::NoValue(truth.shown()))?;
            if let Quality::Values(values) =
                quality.get_or_insert_with(|| Quality::Values(ValueQuality::default()))
            {
                values.record(value, number);
            }
            Ok(())
        }
        (_, _) => Err(Untrue::NoPrediction),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_protocol::manifest::ClassPrediction;

    fn classes() -> PredictionSpec {
        let class = "class".parse().expect("name");
        PredictionSpec::Class(ClassPrediction { class, confidence: None, probabilities: None, classes: 3 })
    }

    #[test]
    fn a_class_is_known_by_its_name_or_its_number() {
        // A label that looks like a number is that label.
        let labels = ["cat", "dog", "0"].map(str::to_owned);
        let class = |truth: &Truth| truth.class(&labels, 3);
        let text = |text: &str| Truth::Text(text.into());
        assert_eq!([class(&text("dog")), class(&text("0")), class(&text("1"))], [Some(1), Some(2), Some(1)]);
        assert_eq!(class(&Truth::Number(0.0)), Some(0));
        for none in [Truth::Number(3.0), Truth::Number(-1.0), Truth::Number(0.5), text("cow"), text("")] {
            assert_eq!(class(&none), None, "{none:?}");
        }
    }

    #[test]
    fn what_was_right_is_counted_and_nonsense_is_not() {
        let mut quality = None;
        let predicted = Prediction::of_class(1, 0.9);
        let mut count = |truth| count(&mut quality, Some(&classes()), &[], predicted, &truth);
        assert_eq!(count(Truth::Number(1.0)), Ok(()));
        assert_eq!(count(Truth::Number(2.0)), Ok(()));
        let error = count(Truth::Number(7.0)).expect_err("no class").to_string();
        assert!(error.contains("7 is none of") && error.contains("0 to 2"), "{error}");
        let Some(Quality::Classes(seen)) = quality else { panic!("counted") };
        assert_eq!((seen.labelled, seen.right), (2, 1));
    }

    #[test]
    fn what_is_neither_text_nor_number_is_told_what_it_should_be() {
        for (json, shown) in [
            ("true", "true"),
            ("null", "null"),
            ("[1]", "a list or an object"),
            ("{\"a\":1}", "a list or an object"),
        ] {
            let truth: Truth = serde_json::from_str(json).expect("read");
            let counted = count(&mut None, Some(&classes()), &[], Prediction::of_class(1, 0.9), &truth);
            let why = counted.expect_err(json).to_string();
            assert!(why.starts_with(&format!("{shown} is none of the release's classes")), "{why}");
        }
    }

    #[test]
    fn a_value_is_a_finite_number() {
        let spec = PredictionSpec::Value { value: "price".parse().expect("name") };
        let mut quality = None;
        let mut count = |truth| count(&mut quality, Some(&spec), &[], Prediction::Value(10.0), &truth);
        assert_eq!(count(Truth::Text("12.5".into())), Ok(()));
        assert!(matches!(count(Truth::Text("much".into())), Err(Untrue::NoValue(_))));
        assert!(matches!(count(Truth::Number(f64::INFINITY)), Err(Untrue::NoValue(_))));
        let Some(Quality::Values(seen)) = quality else { panic!("counted") };
        assert_eq!((seen.labelled, seen.absolute), (1, 2.5));
    }

    #[test]
    fn a_release_that_predicts_nothing_is_neither_right_nor_wrong() {
        let counted = count(&mut None, None, &[], Prediction::Value(1.0), &Truth::Number(1.0));
        assert_eq!(counted, Err(Untrue::NoPrediction));
    }
}
