//! Many requests at once to one real worker: who runs together, who waits, who is refused.

use serin_agent::worker::process::QUEUE;

use super::*;

#[tokio::test]
async fn rows_together_are_answered_like_rows_alone() {
    let dir = unpack("digits/v2");
    let (_, golden) = parts(dir.path());
    let worker = Worker::start(spec(dir.path())).await.expect("starts");
    let mut alone = Vec::new();
    for case in 0..golden.cases.len() {
        let one = Golden { cases: vec![golden.cases[case].clone()], ..golden.clone() };
        let (inputs, body) = request(&one, 1);
        alone.push(worker.infer(inputs, body).await.expect("answers"));
    }
    for rows in [1, 7, 16, 17, 64] {
        let (inputs, body) = request(&golden, rows);
        let together = worker.infer(inputs, body).await.expect("answers");
        let names: Vec<&str> = together.outputs.iter().map(|output| output.name.as_str()).collect();
        assert_eq!(names, ["probabilities", "class", "confidence", "label"]);
        let probabilities = floats(&together, "probabilities");
        assert_eq!((probabilities.len(), together.predictions.len()), (rows * 10, rows));
        for (row, prediction) in together.predictions.iter().enumerate() {
            let alone = &alone[row % golden.cases.len()];
            assert_eq!(prediction.class(), alone.predictions[0].class());
            assert!((prediction.confidence() - alone.predictions[0].confidence()).abs() < 1e-5);
            let expected = floats(alone, "probabilities");
            let row = &probabilities[row * 10..(row + 1) * 10];
            assert!(row.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{row:?} {expected:?}");
        }
    }
}

#[tokio::test]
async fn a_model_that_hangs_is_killed_at_the_deadline_and_who_waits_was_never_asked() {
    let dir = unpack("broken/hangs");
    let (_, golden) = parts(dir.path());
    let impatient = WorkerSpec {
        memory_limit: ByteCount::from_mib(512),
        request_deadline: Duration::from_millis(300),
        ..spec(dir.path())
    };
    let worker = Worker::start(impatient).await.expect("loads");
    let (inputs, body) = request(&golden, 1);
    let ask = || worker.infer(inputs.clone(), body.clone());
    let (first, second, third) = tokio::join!(ask(), ask(), ask());
    assert_eq!(first, Err(InferError::Died(WorkerDeath::Hung)));
    for answer in [second, third] {
        assert_eq!(answer, Err(InferError::Unasked(WorkerDeath::Hung)));
    }
    assert_eq!(worker.death().await, Some(WorkerDeath::Hung));
}

#[tokio::test]
async fn a_request_of_more_rows_than_there_is_time_for_is_refused_and_kills_nobody() {
    let dir = unpack("broken/memory_hungry");
    let (_, golden) = parts(dir.path());
    let busy = WorkerSpec {
        memory_limit: ByteCount::from_mib(1024),
        request_deadline: Duration::from_secs(1),
        ..spec(dir.path())
    };
    let worker = Worker::start(busy).await.expect("loads");
    let (inputs, body) = request(&golden, 4000);
    let refused = worker.infer(inputs, body).await.expect_err("too many");
    let InferError::Input(text) = refused else { panic!("{refused}") };
    assert!(text.contains("of 4000 rows were done in 1000 ms"), "{text}");
    let (inputs, body) = request(&golden, 1);
    worker.infer(inputs, body).await.expect("it lives");
}

#[tokio::test]
async fn requests_that_wait_run_together_and_each_gets_its_own_answer() {
    let dir = unpack("digits/v2");
    let (_, golden) = parts(dir.path());
    let worker = Worker::start(spec(dir.path())).await.expect("starts");
    let mut alone = Vec::new();
    for case in &golden.cases {
        let one = Golden { cases: vec![case.clone()], ..golden.clone() };
        let (inputs, body) = request(&one, 1);
        let answer = worker.infer(inputs.clone(), body.clone()).await.expect("answers");
        assert!(answer.company.leads());
        alone.push((inputs, body, answer));
    }
    let mut waiting = tokio::task::JoinSet::new();
    for (number, (inputs, body, _)) in alone.iter().enumerate() {
        let (worker, inputs, body) = (worker.clone(), inputs.clone(), body.clone());
        waiting.spawn(async move { (number, worker.infer(inputs, body).await) });
    }
    // A caller's mistake among them is his alone.
    let (wrong, rows) = (header("colour", DataType::Fp32, &[1, 1], 4), alone.len());
    let bad = worker.clone();
    waiting.spawn(async move { (rows, bad.infer(vec![wrong], Bytes::from_static(&[0; 4])).await) });
    let mut runs = 0;
    while let Some(answer) = waiting.join_next().await {
        let (number, outcome) = answer.expect("no panic");
        let Some((_, _, expected)) = alone.get(number) else {
            assert!(matches!(outcome, Err(InferError::Input(_))), "{outcome:?}");
            continue;
        };
        let answer = outcome.expect("answers");
        runs += usize::from(answer.company.leads());
        assert_eq!(answer.predictions[0].class(), expected.predictions[0].class());
        assert_eq!(answer.outputs, expected.outputs);
        let close = |name| {
            floats(&answer, name).iter().zip(floats(expected, name)).all(|(a, b)| (a - b).abs() < 1e-5)
        };
        assert!(close("probabilities") && close("confidence"));
    }
    assert!(runs < rows, "{runs} runs for {rows} requests");
}

#[tokio::test]
async fn who_comes_when_the_queue_is_full_is_told_at_once() {
    let dir = unpack("broken/hangs");
    let (_, golden) = parts(dir.path());
    let patient = WorkerSpec { memory_limit: ByteCount::from_mib(512), ..spec(dir.path()) };
    let worker = Worker::start(patient).await.expect("loads");
    let (inputs, body) = request(&golden, 1);
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..QUEUE + 2 {
        let (worker, inputs, body) = (worker.clone(), inputs.clone(), body.clone());
        waiting.spawn(async move { worker.infer(inputs, body).await });
    }
    // The first to come back is the one for whom there is no room; all others wait for the model.
    let first = waiting.join_next().await.expect("some").expect("no panic");
    assert_eq!(first, Err(InferError::Busy));
    worker.stop().await;
    let mut stopped = 0;
    while let Some(answer) = waiting.join_next().await {
        match answer.expect("no panic") {
            Err(InferError::Stopped) => stopped += 1,
            Err(InferError::Busy) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(stopped >= QUEUE, "{stopped}");
}
