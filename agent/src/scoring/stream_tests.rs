//! Lines through a real socket to a model that adds up.

use super::*;
use crate::field::cli::tests::{Scene, Shared};
use crate::gateway::tests::Mood;
use crate::scoring::rows::Column;
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

#[test]
fn a_message_is_a_row_or_says_why_not() {
    let column = |name: &str| Column { name: Some(name.into()), datatype: DataType::Fp32, is_image: false };
    let shape = RowShape { columns: vec![column("a"), column("b")] };
    assert_eq!(row_of(b"{\"b\":2,\"a\":1}", &shape), Ok(vec![json!(1), json!(2)]));
    assert_eq!(row_of(b"1,2\n", &shape), Ok(vec![json!(1), json!(2)]));
    for bad in [b"".as_slice(), b"[1]", b"\xff", b"a,c"] {
        assert!(row_of(bad, &shape).is_err(), "{bad:?}");
    }
}
