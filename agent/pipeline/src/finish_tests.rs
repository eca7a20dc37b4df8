//! The steps after the model compute what they say, also for missing values and ties.

use super::*;
use proptest::prelude::*;

fn name(text: &str) -> FieldName {
    text.parse().expect("name")
}

fn scores_of(rows: usize, values: Vec<f32>) -> Vec<(String, Column<'static>)> {
    let width = values.len() / rows;
    vec![("logits".into(), Column { shape: vec![rows, width], data: Data::Floats(values) })]
}

fn take() -> PostStep {
    PostStep::Take { model_output: "logits".into(), output: name("scores") }
}

fn softmax_step() -> PostStep {
    PostStep::Softmax { output: name("scores") }
}

fn argmax_step() -> PostStep {
    PostStep::Argmax { from: name("scores"), output: name("class") }
}

fn max_step() -> PostStep {
    PostStep::Max { from: name("scores"), output: name("confidence") }
}

fn labels_step() -> PostStep {
    PostStep::Labels { from: name("class"), output: name("label") }
}

#[test]
fn a_class_that_cannot_be_told_is_no_class() {
    let labels = ["a".to_owned(), "b".to_owned()];
    let steps = [take(), softmax_step(), argmax_step(), max_step(), labels_step()];
    let made = finish(&steps, &scores_of(2, vec![f32::NAN, 1.0, 0.0, 1.0]), &labels).expect("runs");
    let column = |wanted: &str| find(&made, &name(wanted)).expect("made").data.clone();
    assert_eq!(column("class"), Data::Integers(vec![NO_CLASS, 1]));
    assert_eq!(column("label"), Data::Texts(vec!["".into(), "b".into()]));
    let Data::Floats(confidence) = column("confidence") else { panic!("floats") };
    assert!(confidence[0].is_nan() && confidence[1] > 0.7);
}

#[test]
fn a_score_that_is_exactly_the_threshold_is_above_it() {
    for at in [0.1_f64, 0.7, 0.9, 1.0 / 3.0] {
        let at_it = at as f32;
        let step = PostStep::Threshold {
            from: name("scores"),
            at: serde_json::from_value(at.into()).expect("one"),
            output: name("yes"),
        };
        let scores = scores_of(3, vec![at_it, at_it.next_down(), f32::NAN]);
        let made = finish(&[take(), step], &scores, &[]).expect("runs");
        assert_eq!(
            find(&made, &name("yes")).expect("made").data,
            Data::Integers(vec![1, 0, NO_CLASS]),
            "{at}"
        );
    }
}

#[test]
fn a_class_without_a_label_is_an_error_that_names_it() {
    let error = finish(&[take(), argmax_step(), labels_step()], &scores_of(1, vec![0.0, 1.0]), &[]);
    assert_eq!(error, Err("post step 2 (labels): class 1 has no line in labels.txt, which has 0".into()));
}

#[test]
fn scores_without_an_axis_to_compare_are_an_error() {
    let flat = vec![("logits".to_owned(), Column { shape: vec![3], data: Data::Floats(vec![0.0; 3]) })];
    assert!(finish(&[take(), argmax_step()], &flat, &[]).is_err());
    let integers =
        vec![("logits".to_owned(), Column { shape: vec![1, 3], data: Data::Integers(vec![0; 3]) })];
    assert!(finish(&[take(), softmax_step()], &integers, &[]).is_err());
}

#[test]
fn an_output_of_another_shape_than_declared_is_refused() {
    let spec = TensorSpec { name: name("y"), datatype: DataType::Fp32, shape: vec![-1, 2], features: vec![] };
    let column = |shape: Vec<usize>| Column { shape, data: Data::Floats(vec![]) };
    assert_eq!(check(&column(vec![3, 2]), &spec, 3), Ok(()));
    assert!(check(&column(vec![2, 2]), &spec, 3).is_err());
    assert!(check(&column(vec![3, 4]), &spec, 3).is_err());
    assert!(check(&column(vec![3]), &spec, 3).is_err());
}

proptest! {
    #[test]
    fn softmax_of_a_row_sums_to_one(rows in 1_usize..5, row in prop::collection::vec(-1e30_f32..1e30, 1..40)) {
        let made = finish(&[take(), softmax_step()], &scores_of(rows, row.repeat(rows)), &[]).expect("runs");
        let Data::Floats(values) = &find(&made, &name("scores")).expect("made").data else { panic!("floats") };
        for row in values.chunks(row.len()) {
            prop_assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            prop_assert!(row.iter().all(|value| (0.0..=1.0).contains(value)));
        }
    }

    #[test]
    fn argmax_is_the_first_of_the_largest(row in prop::collection::vec(0_u8..4, 1..40)) {
        let values: Vec<f32> = row.iter().map(|value| f32::from(*value)).collect();
        let largest = *row.iter().max().expect("not empty");
        let first = row.iter().position(|value| *value == largest).expect("there");
        prop_assert_eq!(argmax(&values), i64::try_from(first).expect("small"));
        prop_assert_eq!(super::largest(&values).to_bits(), f32::from(largest).to_bits());
    }

    #[test]
    fn softmax_keeps_the_order_and_nan_is_never_a_class(row in prop::collection::vec(any::<f32>(), 1..20)) {
        let mut soft = row.clone();
        softmax(&mut soft);
        if row.iter().any(|value| value.is_nan()) {
            prop_assert_eq!(argmax(&row), NO_CLASS);
            prop_assert!(super::largest(&row).is_nan());
            prop_assert!(soft.iter().all(|value| value.is_nan()));
        } else if row.iter().all(|value| value.is_finite()) {
            let best = usize::try_from(argmax(&row)).expect("a class");
            prop_assert!(soft.iter().all(|value| *value <= soft[best]));
        }
    }
}
