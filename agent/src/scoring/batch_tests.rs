//! Files scored through a real socket by a model that adds up.

use super::*;
use crate::field::cli::tests::{Ended, Scene, Shared};
use crate::field::cli::{Exit, conclude};
use crate::gateway::tests::Mood;
use crate::scoring::bisect::tests::{Double, refusing};

async fn batch(scene: &Scene, input: &str, output: &Path, keep_going: bool) -> Ended {
    batch_at(&scene.socket(), input, output, keep_going).await
}

async fn batch_at(socket: &Path, input: &str, output: &Path, keep_going: bool) -> Ended {
    let (out, err) = (Shared::default(), Shared::default());
    let mut console = Console::new(Box::new(out.clone()), Box::new(err.clone()), false);
    let args = BatchArgs {
        input: input.into(),
        output: output.into(),
        model: None,
        keep_going,
        restart: false,
        json: false,
    };
    let outcome = run(&args, socket, &mut console).await;
    let exit = conclude(outcome.map(|()| Exit::Done), false, &mut console);
    Ended { exit, out: out.text(), err: err.text() }
}

#[tokio::test]
async fn every_row_is_answered_in_its_place() {
    let (scene, _) = Scene::open(Mood::Answer).await;
    let text = (0..1000).fold(String::new(), |text, at| text + &format!("{at},1\n"));
    let input = scene.file("in.csv", &format!("a,b\n{text}"));
    let output = scene.socket().with_file_name("out.csv");
    let ended = batch(&scene, &input, &output, false).await;
    assert_eq!(ended.exit, Exit::Done, "{ended:?}");
    assert!(ended.out.ends_with("out.csv: 1000 rows by sums@1\n"), "{ended:?}");
    let expected = (1..=1000).fold(String::new(), |text, sum| text + &format!("{sum}.0,1\n"));
    assert_eq!(std::fs::read_to_string(&output).expect("there"), format!("sum,class\n{expected}"));
    let again = batch(&scene, &input, &output, false).await;
    assert!(again.exit == Exit::Usage && again.err.contains("exists"), "{again:?}");
}

#[tokio::test]
async fn rows_that_make_no_sense_end_it_or_stand_with_their_error() {
    let (scene, _) = Scene::open(Mood::Answer).await;
    let input = scene.file("in.ndjson", "{\"a\":1,\"b\":2}\n{\"a\":1,\"c\":2}\n{\"a\":3,\"b\":4}\n");
    let output = scene.socket().with_file_name("out.ndjson");
    let ended = batch(&scene, &input, &output, false).await;
    assert!(ended.exit == Exit::Usage && ended.err.contains("line 2: the model has no feature"), "{ended:?}");
    let output = scene.socket().with_file_name("other.ndjson");
    let ended = batch(&scene, &input, &output, true).await;
    assert!(ended.out.ends_with("3 rows by sums@1, 1 of them with an error\n"), "{ended:?}");
    let lines = std::fs::read_to_string(&output).expect("there");
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!([lines[0], lines[2]], [r#"{"class":1,"sum":3.0}"#, r#"{"class":1,"sum":7.0}"#]);
    assert!(lines[1].contains("\"error\":\"line 2: the model has no feature"), "{lines:?}");
    let table = scene.socket().with_file_name("out.csv");
    batch(&scene, &input, &table, true).await;
    let text = std::fs::read_to_string(&table).expect("there");
    assert!(
        text.starts_with(
            "sum,class,error\n3.0,1,\n,,\"line 2: the model has no feature \"\"c\"\"\"\n7.0,1,\n"
        ),
        "{text}"
    );
}

#[tokio::test]
async fn what_was_interrupted_goes_on_where_it_was() {
    let (scene, _) = Scene::open(Mood::Answer).await;
    let input = scene.file("in.csv", "1,1\n2,2\n3,3\n");
    let output = scene.socket().with_file_name("out.csv");
    let (_, input_bytes, input_modified) = open(Path::new(&input)).expect("there");
    let origin = Origin { input_bytes, input_modified, release: "sums@1".into(), keep_going: false };
    let mut begun = Output::open(&output, origin, false).expect("begun");
    begun.set_columns(vec![("sum".into(), 1), ("class".into(), 1)]);
    begun.append("sum,class\nbefore,1\n", 1, 0).expect("written");
    begun.checkpoint().expect("durable");
    drop(begun);
    let ended = batch(&scene, &input, &output, false).await;
    assert!(ended.err.contains("going on behind row 1"), "{ended:?}");
    assert_eq!(std::fs::read_to_string(&output).expect("there"), "sum,class\nbefore,1\n4.0,1\n6.0,1\n");
}

#[tokio::test]
async fn a_model_that_fails_ends_it_and_what_was_answered_is_kept() {
    let (scene, _) = Scene::open(Mood::Fail).await;
    let input = scene.file("in.csv", "1,1\n");
    let output = scene.socket().with_file_name("out.csv");
    let ended = batch(&scene, &input, &output, false).await;
    let cause = "line 1: inference failed: division by cucumber";
    assert!(ended.exit == Exit::Refused && ended.err.contains(cause), "{ended:?}");
    assert!(!output.exists() && output.with_file_name("out.csv.checkpoint").exists());
}

#[tokio::test]
async fn a_row_that_the_model_refuses_ends_it_by_name_or_stands_with_its_error() {
    for (status, exit) in [(400, Exit::Usage), (500, Exit::Refused)] {
        let double = Double::open("INT64", refusing(&[0, 40], status, "an unknown category"));
        let text = (0..100).fold("a,b\n".to_owned(), |text, row| text + &format!("{row},0\n"));
        let input = double.path("in.csv");
        std::fs::write(&input, text).expect("writable");
        let input = input.to_str().expect("text");
        let ended = batch_at(&double.socket(), input, &double.path("out.csv"), false).await;
        assert!(ended.exit == exit && ended.err.contains("line 2: an unknown category"), "{ended:?}");
        // Even where the first one is refused, which a request of its own would say nothing of the columns of.
        let ended = batch_at(&double.socket(), input, &double.path("kept.csv"), true).await;
        assert!(ended.out.ends_with("100 rows by sums@1, 2 of them with an error\n"), "{ended:?}");
        let text = std::fs::read_to_string(double.path("kept.csv")).expect("there");
        let expected = (0..100).fold("a,error\n".to_owned(), |text, row| match row {
            0 | 40 => text + &format!(",line {}: an unknown category\n", row + 2),
            row => text + &format!("{row},\n"),
        });
        assert_eq!(text, expected);
    }
}

#[tokio::test]
async fn a_row_that_kills_the_worker_is_not_asked_about_again() {
    let (scene, served) = Scene::open(Mood::Die).await;
    let input = scene.file("in.csv", "1,1\n");
    let output = scene.socket().with_file_name("out.csv");
    let ended = batch(&scene, &input, &output, false).await;
    assert!(ended.exit == Exit::Refused && ended.err.contains("line 1: the worker died"), "{ended:?}");
    assert_eq!(served.worker().asked.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn wrong_rows_before_an_interruption_are_counted() {
    let (scene, _) = Scene::open(Mood::Answer).await;
    let input = scene.file("in.ndjson", "[1]\n[2,2]\n[3]\n");
    let output = scene.socket().with_file_name("out.ndjson");
    let (_, input_bytes, input_modified) = open(Path::new(&input)).expect("there");
    let origin = Origin { input_bytes, input_modified, release: "sums@1".into(), keep_going: true };
    let mut begun = Output::open(&output, origin, false).expect("begun");
    begun.append("{\"error\":\"before\"}\n", 1, 1).expect("written");
    begun.checkpoint().expect("durable");
    drop(begun);
    let ended = batch(&scene, &input, &output, true).await;
    assert!(ended.out.ends_with("3 rows by sums@1, 2 of them with an error\n"), "{ended:?}");
}

#[tokio::test]
async fn no_file_is_named_what_it_is_not() {
    let (scene, _) = Scene::open(Mood::Answer).await;
    let input = scene.file("in.csv", "1,1\n");
    for name in ["out.parquet", "out.PARQUET", "out.csv.gz"] {
        let output = scene.socket().with_file_name(name);
        let ended = batch(&scene, &input, &output, false).await;
        assert!(ended.exit == Exit::Usage && ended.err.contains("is not written"), "{ended:?}");
        assert!(ended.err.contains(".csv") && ended.err.contains(".ndjson"), "{ended:?}");
        assert!(!output.with_file_name(format!("{name}.part")).exists());
    }
}

#[tokio::test]
async fn columns_are_known_before_the_first_answer() {
    let (scene, _) = Scene::open(Mood::Answer).await;
    let wrong = "x,x\n".repeat(300);
    for (name, rows, expected) in [("bad", wrong + "1,2\n", 301), ("empty", String::new(), 0)] {
        let input = scene.file("in.csv", &format!("a,b\n{rows}"));
        let output = scene.socket().with_file_name(format!("{name}.csv"));
        let ended = batch(&scene, &input, &output, true).await;
        assert_eq!(ended.exit, Exit::Done, "{ended:?}");
        let text = std::fs::read_to_string(&output).expect("there");
        assert!(text.starts_with("sum,class,error\n"), "{text}");
        assert_eq!(text.lines().count(), expected + 1);
        assert!(expected == 0 || text.ends_with("\n3.0,1,\n"), "{text}");
    }
}

#[tokio::test]
async fn standard_input_and_output_are_for_streams() {
    let (scene, _) = Scene::open(Mood::Answer).await;
    let input = scene.file("in.csv", "1,1\n");
    for (input, output) in [("-", "out.csv"), (input.as_str(), "-")] {
        let ended = batch(&scene, input, Path::new(output), false).await;
        assert!(ended.exit == Exit::Usage && ended.err.contains("stream"), "{ended:?}");
    }
    assert!(!Path::new("-").exists());
}
