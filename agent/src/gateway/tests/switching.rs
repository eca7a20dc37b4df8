//! One release taking over from another while apps ask.

use std::sync::atomic::AtomicBool;

use serin_protocol::ids::BootId;
use serin_protocol::message::Coverage;

use super::*;
use crate::telemetry::Stamp;

#[tokio::test]
async fn a_request_finishes_on_the_release_it_started_with() {
    let stage = Stage::open(quick()).await;
    let gate = Arc::new(Semaphore::new(0));
    let first = served(1, Mood::Answer, Some(Arc::clone(&gate)));
    stage.router.flip(Some(Arc::clone(&first)));
    let body = Bytes::from(rows(&[[1.0, 2.0]]));
    let begun = tokio::spawn(ask(stage.address, Method::POST, "/v2/models/sums/infer", body.clone()));
    eventually(|| first.worker().asked.load(Ordering::SeqCst) > 0).await;
    let left = stage.router.flip(Some(served(2, Mood::Answer, None))).expect("was there");
    assert!(Arc::ptr_eq(&left, &first));
    assert_eq!(stage.infer(body).await.json["model_version"], "2");
    gate.add_permits(1);
    assert_eq!(begun.await.expect("answered").json["model_version"], "1");
}

#[tokio::test]
async fn switching_under_load_loses_no_request() {
    const CALLERS: u64 = 8;
    const EACH: u64 = 50;
    let stage = Stage::open(quick()).await;
    let releases = [served(1, Mood::Answer, None), served(2, Mood::Answer, None)];
    stage.router.flip(Some(Arc::clone(&releases[0])));
    let address = stage.address;
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            tokio::spawn(async move {
                let mut versions = Vec::new();
                for _ in 0..EACH {
                    let body = rows(&[[1.0, 2.0]]).into();
                    let reply = ask(address, Method::POST, "/v2/models/sums/infer", body).await;
                    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
                    // The answer is one release's as a whole.
                    let version = reply.json["model_version"].as_str().expect("text").to_owned();
                    assert_eq!(reply.json["outputs"][1]["data"][0].to_string(), version);
                    versions.push(version);
                }
                versions
            })
        })
        .collect();
    let mut flips = 0;
    while !callers.iter().all(JoinHandle::is_finished) {
        flips += 1;
        stage.router.flip(Some(Arc::clone(&releases[flips % 2])));
        tokio::task::yield_now().await;
    }
    let mut versions = Vec::new();
    for caller in callers {
        versions.extend(caller.await.expect("no caller failed"));
    }
    for (release, version) in releases.iter().zip(["1", "2"]) {
        let answered = versions.iter().filter(|answered| *answered == version).count() as u64;
        assert!(answered > 0, "{flips} flips");
        assert_eq!(counters(release), counted(answered, 0, 0));
    }
    assert_eq!(versions.len() as u64, CALLERS * EACH);
}

/// One request to a release whose worker dies, with `then` done as soon as it has been asked.
async fn asked_while(
    mood: Mood,
    path: &str,
    then: impl FnOnce(&Stage, &Arc<Served<Double>>),
) -> (Reply, Arc<Served<Double>>) {
    let stage = Stage::open(quick()).await;
    let gate = Arc::new(Semaphore::new(0));
    let first = served(1, mood, Some(Arc::clone(&gate)));
    stage.router.flip(Some(Arc::clone(&first)));
    let body = Bytes::from(rows(&[[1.0, 2.0]]));
    let path = path.to_owned();
    let address = stage.address;
    let begun = tokio::spawn(async move { ask(address, Method::POST, &path, body).await });
    eventually(|| first.worker().asked.load(Ordering::SeqCst) > 0).await;
    gate.add_permits(1);
    eventually(|| mood != Mood::Die || counters(&first).errors == 1).await;
    then(&stage, &first);
    (begun.await.expect("answered"), first)
}

#[tokio::test]
async fn an_app_does_not_see_a_rollback() {
    let second = served(2, Mood::Answer, None);
    for mood in [Mood::Die, Mood::Miss, Mood::Stop] {
        let next = Arc::clone(&second);
        let flip = move |stage: &Stage, _: &Arc<Served<Double>>| {
            stage.router.flip(Some(next));
        };
        let (reply, first) = asked_while(mood, "/v2/models/sums/infer", flip).await;
        assert_eq!(reply.json["model_version"], "2", "{reply:?}");
        let failed = u64::from(mood == Mood::Die);
        assert_eq!(counters(&first), counted(failed, failed, 0));
    }
    assert_eq!(counters(&second), counted(3, 0, 0));
}

#[tokio::test]
async fn a_request_that_killed_a_worker_is_not_given_to_the_next_one_of_the_same_release() {
    let again = served(1, Mood::Answer, None);
    let next = Arc::clone(&again);
    let flip = move |stage: &Stage, _: &Arc<Served<Double>>| {
        stage.router.flip(Some(next));
    };
    let (reply, _first) = asked_while(Mood::Die, "/v2/models/sums/infer", flip).await;
    reply.is_error(503, "memory limit");
    assert_eq!(again.worker().asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_request_that_only_waited_for_a_worker_goes_to_the_next_one_of_the_same_release() {
    let again = served(1, Mood::Answer, None);
    let next = Arc::clone(&again);
    let flip = move |stage: &Stage, _: &Arc<Served<Double>>| {
        stage.router.flip(Some(next));
    };
    let (reply, first) = asked_while(Mood::Miss, "/v2/models/sums/versions/1/infer", flip).await;
    assert_eq!((reply.status, &reply.json["model_version"]), (StatusCode::OK, &"1".into()), "{reply:?}");
    assert_eq!((counters(&first), counters(&again)), (counted(0, 0, 0), counted(1, 0, 0)));
}

#[tokio::test]
async fn a_request_that_comes_over_waits_for_room_and_not_for_ever() {
    let full = served(2, Mood::Busy, None);
    let next = Arc::clone(&full);
    let flip = move |stage: &Stage, _: &Arc<Served<Double>>| {
        stage.router.flip(Some(next));
    };
    let (reply, _first) = asked_while(Mood::Miss, "/v2/models/sums/infer", flip).await;
    reply.is_error(429, "waiting");
    assert_eq!(full.worker().asked.load(Ordering::SeqCst), 1, "it waits to be let in and does not ask again");
    assert_eq!(counters(&full), counted(0, 0, 1));
}

#[tokio::test]
async fn workers_that_keep_dying_are_not_tried_for_ever() {
    let stage = Stage::open(quick()).await;
    let releases = [served(1, Mood::Miss, None), served(2, Mood::Miss, None)];
    stage.router.flip(Some(Arc::clone(&releases[0])));
    let begun = tokio::spawn(ask(
        stage.address,
        Method::POST,
        "/v2/models/sums/infer",
        Bytes::from(rows(&[[1.0, 2.0]])),
    ));
    let asked = || releases.iter().map(|one| one.worker().asked.load(Ordering::SeqCst)).sum::<usize>();
    let mut flips = 0;
    while !begun.is_finished() {
        flips += 1;
        stage.router.flip(Some(Arc::clone(&releases[flips % 2])));
        tokio::task::yield_now().await;
    }
    begun.await.expect("answered").is_error(503, "before it came");
    assert_eq!(asked(), 4);
}

#[tokio::test]
async fn a_request_for_one_version_is_not_answered_by_another() {
    let flip = |stage: &Stage, _: &Arc<Served<Double>>| {
        stage.router.flip(Some(served(2, Mood::Answer, None)));
    };
    let (reply, _first) = asked_while(Mood::Die, "/v2/models/sums/versions/1/infer", flip).await;
    reply.is_error(503, "memory limit");
}

#[tokio::test]
async fn a_request_is_asked_again_once_only() {
    let flip = |stage: &Stage, _: &Arc<Served<Double>>| {
        stage.router.flip(Some(served(2, Mood::Die, None)));
    };
    let (reply, _first) = asked_while(Mood::Die, "/v2/models/sums/infer", flip).await;
    reply.is_error(503, "memory limit");
}

fn at(millis: u64) -> Now {
    Now { wall: UnixMillis(millis), elapsed: Millis(millis) }
}

#[test]
fn who_asks_while_one_version_gives_way_to_another_is_never_told_that_there_is_none() {
    const TURNS: usize = 20_000;
    let router = Router::default();
    let releases = [served(1, Mood::Answer, None), served(2, Mood::Answer, None)];
    router.flip(Some(Arc::clone(&releases[0])));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ask = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("built");
            let mut told_none = 0;
            while !over.load(Ordering::SeqCst) {
                let found = runtime.block_on(router.current_or_coming(Duration::from_secs(20)));
                told_none += usize::from(found.is_none());
            }
            told_none
        };
        let askers = [scope.spawn(ask), scope.spawn(ask)];
        for turn in 0..TURNS {
            router.suspend();
            router.flip(Some(Arc::clone(&releases[turn % 2])));
        }
        over.store(true, Ordering::SeqCst);
        assert_eq!(askers.map(|asker| asker.join().expect("ended")), [0, 0]);
    });
}

fn stamp() -> Stamp {
    Stamp::new("d".parse().expect("id"), BootId(1))
}

#[tokio::test]
async fn only_the_release_that_answers_reports_quiet_windows() {
    let router = Router::default();
    let releases = [served(1, Mood::Answer, None), served(2, Mood::Answer, None)];
    let mut stamp = stamp();
    let mut quiet = |millis| {
        let reports =
            |served: &Arc<Served<Double>>| served.recording().lock().roll(at(millis), &mut stamp).len();
        [&releases[0], &releases[1]].map(reports)
    };
    assert_eq!(quiet(1000), [0, 0]);
    router.flip(Some(Arc::clone(&releases[0])));
    assert_eq!(quiet(2000), [1, 0]);
    router.flip(Some(Arc::clone(&releases[1])));
    // Both were there within this window.
    assert_eq!(quiet(3000), [1, 1]);
    assert_eq!(quiet(4000), [0, 1]);
    router.flip(None);
    assert_eq!(quiet(5000), [0, 1]);
    assert_eq!(quiet(6000), [0, 0]);
}

#[tokio::test]
async fn a_new_worker_of_the_same_release_is_no_gap_in_its_windows() {
    let router = Router::default();
    let first = served(1, Mood::Answer, None);
    router.flip(Some(Arc::clone(&first)));
    let mut stamp = stamp();
    first.recording().lock().roll(at(1000), &mut stamp);
    let double = Double { class: 1, mood: Mood::Answer, gate: None, asked: Arc::default() };
    let again = Served::new(Arc::new(manifest(1)), double, first.recording().clone());
    router.flip(Some(Arc::new(again)));
    let report = first.recording().lock().roll(at(2000), &mut stamp).remove(0);
    assert_eq!(report.coverage, Coverage::Empty);
}
