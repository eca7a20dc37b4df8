//! What is done with a request once its answer is on its way: nobody waits for being counted.

use std::future::poll_fn;
use std::task::Poll;

/// Lets whatever was woken before go on first, once.
///
/// On the agent's runtime of one thread tasks run in the order they were woken, and those that a socket wakes come
/// behind all of them. So a connection that was handed an answer writes it now, and what is done after this is done
/// before the next request is looked at: whoever asks for counts or tells the truth, knowing the answer, finds it
/// counted. [`tokio::task::yield_now`] would look at sockets first.
pub(super) async fn after_those_who_wait() {
    let mut went = false;
    poll_fn(|context| {
        if std::mem::replace(&mut went, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn whoever_was_woken_before_goes_first() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |what: &'static str| {
            let order = Arc::clone(&order);
            move || order.lock().expect("sound").push(what)
        };
        let (answer, answered) = tokio::sync::oneshot::channel::<()>();
        let (written, counted) = (note("written"), note("counted"));
        let connection = tokio::spawn(async move {
            answered.await.expect("answered");
            written();
        });
        tokio::task::yield_now().await;
        tokio::spawn(async move {
            answer.send(()).expect("awaited");
            after_those_who_wait().await;
            counted();
        })
        .await
        .expect("no panic");
        connection.await.expect("no panic");
        assert_eq!(*order.lock().expect("sound"), ["written", "counted"]);
    }
}
