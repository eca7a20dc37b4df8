//! What was predicted for each row, taken from the declared outputs. Pure.

use serin_pipeline::{Column, Data};
use serin_protocol::frame::Prediction;
use serin_protocol::ids::FieldName;
use serin_protocol::manifest::PredictionSpec;

/// One prediction a row out of the outputs `made`.
pub(super) fn of(spec: &PredictionSpec, made: &[(FieldName, Column<'_>)]) -> Result<Vec<Prediction>, String> {
    let spec = match spec {
        PredictionSpec::Class(spec) => spec,
        PredictionSpec::Value { value } => {
            return Ok(floats(made, value)?.iter().map(|value| Prediction::Value(*value)).collect());
        }
    };
    let Data::Integers(classes) = &serin_pipeline::find(made, &spec.class)?.data else {
        return Err(format!("{} is not INT64", spec.class));
    };
    let confidences = spec.confidence.as_ref().map(|name| floats(made, name)).transpose()?;
    let probabilities = spec.probabilities.as_ref().map(|name| floats(made, name)).transpose()?;
    let confidence = |row: usize| confidences.and_then(|values| values.get(row)).copied().unwrap_or(f32::NAN);
    let entropy = |row: usize| {
        let width = spec.classes.max(1);
        let values = probabilities.and_then(|values| values.get(row * width..(row + 1) * width));
        values.map_or(f32::NAN, entropy)
    };
    let prediction = |(row, class): (usize, &i64)| Prediction::Class {
        class: *class,
        confidence: confidence(row),
        entropy: entropy(row),
    };
    Ok(classes.iter().enumerate().map(prediction).collect())
}

fn floats<'a>(made: &'a [(FieldName, Column<'_>)], name: &FieldName) -> Result<&'a [f32], String> {
    match &serin_pipeline::find(made, name)?.data {
        Data::Floats(values) => Ok(values),
        Data::Integers(_) | Data::Texts(_) => Err(format!("{name} is not FP32")),
    }
}

/// Entropy of probabilities over the largest that so many can have, 0..=1 (Shannon 1948). What does not add up to one is
/// taken as shares of its sum; NaN where that is nothing, or a share is negative or no number.
fn entropy(probabilities: &[f32]) -> f32 {
    let sum: f64 = probabilities.iter().map(|share| f64::from(*share)).sum();
    let sound = probabilities.iter().all(|share| *share >= 0.0);
    if !sound || !sum.is_finite() || sum <= 0.0 {
        return f32::NAN;
    }
    if probabilities.len() < 2 {
        return 0.0;
    }
    let shares = probabilities.iter().map(|share| f64::from(*share) / sum).filter(|share| *share > 0.0);
    let bits: f64 = shares.map(|share| -share * share.ln()).sum();
    (bits / (probabilities.len() as f64).ln()).clamp(0.0, 1.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_protocol::manifest::ClassPrediction;

    fn name(text: &str) -> FieldName {
        text.parse().expect("name")
    }

    fn column(shape: &[usize], data: Data<'static>) -> Column<'static> {
        Column { shape: shape.to_vec(), data }
    }

    #[test]
    fn entropy_is_none_when_sure_and_whole_when_torn() {
        assert!(entropy(&[0.0, 1.0, 0.0]).abs() < 1e-9);
        assert!((entropy(&[0.25; 4]) - 1.0).abs() < 1e-6);
        // scipy.stats.entropy([.7, .2, .1]) / numpy.log(3)
        assert!((entropy(&[0.7, 0.2, 0.1]) - 0.729_846_9).abs() < 1e-6);
        assert!((entropy(&[7.0, 2.0, 1.0]) - entropy(&[0.7, 0.2, 0.1])).abs() < 1e-6);
        for none in [&[f32::NAN, 1.0][..], &[-0.1, 1.1], &[0.0, 0.0], &[f32::INFINITY, 1.0]] {
            assert!(entropy(none).is_nan(), "{none:?}");
        }
        assert!(entropy(&[1.0]).abs() < 1e-9);
    }

    #[test]
    fn every_row_has_its_class_its_confidence_and_its_entropy() {
        let spec = PredictionSpec::Class(ClassPrediction {
            class: name("class"),
            confidence: Some(name("best")),
            probabilities: Some(name("p")),
            classes: 2,
        });
        let made = [
            (name("p"), column(&[2, 2], Data::Floats(vec![0.5, 0.5, 0.0, 1.0]))),
            (name("best"), column(&[2], Data::Floats(vec![0.5, 1.0]))),
            (name("class"), column(&[2], Data::Integers(vec![0, 1]))),
        ];
        let expected = [
            Prediction::Class { class: 0, confidence: 0.5, entropy: 1.0 },
            Prediction::Class { class: 1, confidence: 1.0, entropy: 0.0 },
        ];
        assert_eq!(of(&spec, &made).expect("sound"), expected);
        let value = PredictionSpec::Value { value: name("best") };
        assert_eq!(of(&value, &made).expect("sound"), [Prediction::Value(0.5), Prediction::Value(1.0)]);
        assert!(of(&PredictionSpec::Value { value: name("class") }, &made).is_err());
    }
}
