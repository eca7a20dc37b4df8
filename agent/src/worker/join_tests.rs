//! Requests run together: who is joined, and that everybody gets what he would have got alone.

use proptest::prelude::*;
use serin_protocol::frame::Prediction;
use serin_protocol::tensor::DataType;

use super::*;

const OPEN: Bounds = Bounds { rows: 16, row_micros: Some(100) };

fn header(name: &str, datatype: DataType, shape: &[u32], bytes: usize) -> TensorHeader {
    let shape = shape.iter().copied().collect();
    TensorHeader { name: name.parse().expect("name"), datatype, shape, bytes: bytes as u64 }
}

/// A request of two inputs, `x` of three values and `y` of one for each row, numbered from `first` on.
fn request(rows: u32, first: u32) -> (Vec<TensorHeader>, Bytes) {
    let x = (first..first + rows).flat_map(|row| [row as f32, 0.5, -1.0]);
    let y = (first..first + rows).map(|row| row as f32 * 2.0);
    let body: Vec<u8> = x.chain(y).flat_map(f32::to_le_bytes).collect();
    let count = rows as usize;
    let inputs = vec![
        header("x", DataType::Fp32, &[rows, 3], count * 12),
        header("y", DataType::Fp32, &[rows], count * 4),
    ];
    (inputs, body.into())
}

/// What a model would answer that repeats the first value of `x` as a number and as texts.
fn answer(inputs: &[TensorHeader], body: &[u8]) -> Inferred {
    let x = split_body(inputs, body).expect("consistent")[0];
    let numbers: Vec<f32> = x
        .as_chunks::<12>()
        .0
        .iter()
        .map(|row| f32::from_le_bytes(*row.first_chunk().expect("four")))
        .collect();
    let rows = u32::try_from(numbers.len()).expect("few");
    let mut body: Vec<u8> = numbers.iter().flat_map(|number| (*number as i64).to_le_bytes()).collect();
    let fixed = body.len();
    for number in &numbers {
        for text in [format!("{number}"), String::new()] {
            body.extend(u32::try_from(text.len()).expect("short").to_le_bytes());
            body.extend(text.as_bytes());
        }
    }
    let outputs = vec![
        header("class", DataType::Int64, &[rows], fixed),
        header("label", DataType::Bytes, &[rows, 2], body.len() - fixed),
    ];
    let predictions = numbers
        .iter()
        .map(|number| Prediction::Class { class: *number as i64, confidence: 0.5, entropy: 0.25 })
        .collect();
    // Two numbers about each row's picture.
    let seen = numbers.iter().flat_map(|number| [*number, -number]).flat_map(f32::to_le_bytes);
    let (body, pictures) = (body.into(), seen.collect::<Vec<u8>>().into());
    Inferred { micros: 9, waited_micros: 0, company: Company::Alone, outputs, body, predictions, pictures }
}

fn count(requests: &[(Vec<TensorHeader>, Bytes)], bounds: &Bounds) -> usize {
    together(requests.iter().map(|(inputs, _)| inputs.as_slice()), bounds)
}

#[test]
fn those_who_wait_and_are_alike_run_together_up_to_the_bounds() {
    let four: Vec<_> = (0..4).map(|_| request(1, 0)).collect();
    assert_eq!(count(&four, &OPEN), 4);
    assert_eq!(count(&four, &Bounds { rows: 3, ..OPEN }), 3);
    assert_eq!(count(&four, &Bounds { rows: 1, ..OPEN }), 1);
    // As long as nobody knows what a row costs, it could be too much.
    assert_eq!(count(&four, &Bounds { row_micros: None, ..OPEN }), 1);
    // The second adds 15 ms to the first, the third would add 30.
    assert_eq!(count(&four, &Bounds { row_micros: Some(15_000), ..OPEN }), 2);
    assert_eq!(count(&[], &OPEN), 0);
}

#[test]
fn one_that_differs_ends_the_run_and_is_not_overtaken() {
    let mut requests: Vec<_> = (0..4).map(|_| request(1, 0)).collect();
    requests[2].0[1].name = "z".parse().expect("name");
    assert_eq!(count(&requests, &OPEN), 2);
    let mut requests = vec![request(1, 0), request(0, 0)];
    assert_eq!(count(&requests, &OPEN), 1);
    requests.reverse();
    assert_eq!(count(&requests, &OPEN), 1);
    let wide = |shape: &[u32]| vec![header("x", DataType::Fp32, shape, 4 << 19)];
    assert_eq!(together([wide(&[1, 1]).as_slice(), &wide(&[1, 1])], &OPEN), 1);
    assert_eq!(together([wide(&[1, 1]).as_slice(), &wide(&[1, 2])], &OPEN), 1);
}

#[test]
fn what_cannot_be_told_apart_is_not_split() {
    let (inputs, body) = request(3, 0);
    let whole = answer(&inputs, &body);
    assert!(split(&whole, &[1, 2]).is_some());
    assert!(split(&whole, &[1, 1]).is_none() && split(&whole, &[2, 2]).is_none());
    let mut fewer = whole.clone();
    fewer.predictions.pop();
    assert!(split(&fewer, &[1, 2]).is_none());
    let mut cut = whole;
    cut.outputs[1].bytes -= 1;
    assert!(split(&cut, &[1, 2]).is_none());
}

proptest! {
    #[test]
    fn everybody_gets_what_he_would_have_got_alone(rows in prop::collection::vec(1_u32..6, 1..8)) {
        let mut first = 0;
        let requests: Vec<_> = rows.iter().map(|rows| {
            first += rows;
            request(*rows, first - rows)
        }).collect();
        let asked: Vec<_> = requests.iter().map(|(inputs, body)| (inputs.as_slice(), body)).collect();
        let joined = join(&asked).expect("alike");
        prop_assert!(joined.inputs.iter().all(TensorHeader::is_consistent));
        let answers = split(&answer(&joined.inputs, &joined.parts.concat()), &rows).expect("consistent");
        for (number, ((inputs, body), together)) in requests.iter().zip(&answers).enumerate() {
            prop_assert_eq!(together, &Inferred {
                company: if number == 0 { Company::First } else { Company::Another },
                ..answer(inputs, body)
            });
        }
    }

    #[test]
    fn bounds_hold_whatever_waits(
        rows in prop::collection::vec(0_u32..40, 0..40),
        most in 1_u32..17,
        row_micros in prop::option::of(0_u64..50_000),
    ) {
        let requests: Vec<_> = rows.iter().map(|rows| request(*rows, 0)).collect();
        let count = count(&requests, &Bounds { rows: most, row_micros });
        prop_assert!(count <= rows.len() && (count > 0 || rows.is_empty()));
        if count > 1 {
            let total: u32 = rows[..count].iter().sum();
            let extra = u64::from(total - rows[0]) * row_micros.expect("known");
            prop_assert!(total <= most && extra <= MAX_EXTRA_MICROS && !rows[..count].contains(&0));
        }
    }

    #[test]
    fn any_answer_is_split_or_not(
        body: Vec<u8>, shape in prop::collection::vec(0_u32..5, 0..4), texts: bool, rows: Vec<u32>,
    ) {
        let datatype = if texts { DataType::Bytes } else { DataType::Fp32 };
        let outputs = vec![header("o", datatype, &shape, body.len())];
        let (body, predictions) = (Bytes::from(body), Vec::new());
        let pictures = body.clone();
        let inferred =
            Inferred { micros: 1, waited_micros: 0, company: Company::Alone, outputs, body, predictions, pictures };
        let _ = split(&inferred, &rows);
    }
}
