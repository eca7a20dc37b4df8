//! Lines through a real socket to a model that adds up.

use std::time::Duration;

use super::*;
use crate::field::cli::tests::{Scene, Shared};
use crate::gateway::tests::Mood;
use crate::scoring::bisect::tests::{Double, refusing};
use crate::scoring::shape::Column;
use serin_protocol::tensor::DataType;

async fn stream(scene: &Scene, input: &'static str) -> (Result<(), CliError>, String) {
    let out = Shared::default();
    let mut console = Console::new(Box::new(out.clone()), Box::new(io::sink()), false);
    let outcome = run(None, &scene.socket(), input.as_bytes(), &mut console).await;
    (outcome, out.text())
}

#[tokio::test]
async fn a_line_in_is_a_line_out_in_order() {
    let (scene, _) = Scene::open(Mood::Answer).await;
    let (outcome, out) = stream(&scene, "[1,2]\n[3\n[5,6]\n").await;
    assert!(outcome.is_ok(), "{outcome:?}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&lines[0]["version"], &lines[0]["outputs"]["sum"]), (&json!("1"), &json!(3.0)));
    assert!(lines[1]["error"].as_str().is_some_and(|why| why.starts_with("line 2")), "{out}");
    assert_eq!((&lines[2]["outputs"]["sum"], lines.len()), (&json!(11.0), 3));
}

#[tokio::test]
async fn a_header_that_makes_no_sense_ends_it() {
    let (scene, _) = Scene::open(Mood::Answer).await;
    let (outcome, out) = stream(&scene, "a,c\n1,2\n").await;
    assert!(matches!(outcome, Err(CliError::Usage { .. })) && out.is_empty(), "{outcome:?}");
}

#[tokio::test]
async fn a_row_that_the_model_refuses_has_its_error_in_its_place_and_the_next_are_answered() {
    for (status, why) in
        [(400, "an unknown category"), (503, "the worker died: no answer before the deadline")]
    {
        let double = Double::open("INT64", refusing(&[40], status, why));
        let out = Shared::default();
        let mut console = Console::new(Box::new(out.clone()), Box::new(io::sink()), false);
        let input = (0..100).fold(String::new(), |text, row| text + &format!("[{row},0]\n"));
        let input = io::Cursor::new(input);
        let socket = double.socket();
        let running = run(None, &socket, input, &mut console);
        tokio::time::timeout(Duration::from_secs(20), running).await.expect("an end").expect("to the end");
        let text = out.text();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 100);
        for (row, line) in lines.iter().enumerate() {
            if row == 40 {
                assert_eq!(line["error"], format!("line 41: {why}"));
            } else {
                assert_eq!(line["outputs"]["a"], row);
            }
        }
    }
}

#[tokio::test]
async fn a_line_that_is_too_long_has_its_error_in_its_place() {
    let (scene, _) = Scene::open(Mood::Answer).await;
    let long = "9".repeat(2 << 20);
    for text in [format!("1,2\n1,{long}\n3,4\n"), format!("[1,2]\n[1,{long}]\n[3,4]\n")] {
        let (outcome, out) = stream(&scene, Box::leak(text.into_boxed_str())).await;
        let lines: Vec<&str> = out.lines().collect();
        assert!(outcome.is_ok() && lines.len() == 3, "{outcome:?} {out}");
        assert!(lines[1].contains("line 2: the line is too long") && lines[2].contains("7.0"), "{out}");
    }
}

#[test]
fn a_message_is_a_row_or_says_why_not() {
    let column = |name: &str| Column { name: Some(name.into()), datatype: DataType::Fp32, is_image: false };
    let shape = RowShape { columns: vec![column("a"), column("b")] };
    assert_eq!(row_of(b"{\"b\":2,\"a\":1}", &shape).values, Ok(vec![json!(1), json!(2)]));
    assert_eq!(row_of(b"1,2\n", &shape).values, Ok(vec![json!(1), json!(2)]));
    for bad in [b"".as_slice(), b"[1]", b"\xff", b"a,c"] {
        assert!(row_of(bad, &shape).values.is_err(), "{bad:?}");
    }
}
