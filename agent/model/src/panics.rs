//! Panics of the code that runs models. An index that a model computes from its input, or is given as one, may lie outside
//! of what it picks from; tract then panics where it has no error. It is an answer like any other, and costs nobody a worker.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Longest text of a panic that is passed on; some show whole values.
const MAX_CHARS: usize = 500;

thread_local! {
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread will be caught: whoever hooks panics to end the process then leaves it alive.
pub fn are_caught() -> bool {
    CAUGHT.get()
}

/// Calls `run`; what it panicked with is the error. Whatever `run` was changing is to be thrown away then.
///
/// # Errors
/// The text of the panic.
pub fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    let outer = CAUGHT.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(run));
    CAUGHT.set(outer);
    outcome.map_err(|panic| format!("the runtime gave up: {}", text_of(panic.as_ref())))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no reason is given").chars().take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_the_next_one_is_not_caught() {
        assert!(!are_caught());
        assert_eq!(caught(are_caught), Ok(true));
        let nothing: [u8; 0] = [];
        let place = nothing.len() + 7;
        let error = caught(|| nothing[place]).expect_err("out of bounds");
        assert!(error.contains("index out of bounds") && error.contains('7'), "{error}");
        assert_eq!(caught(|| caught(|| panic!("inner")).is_err() && are_caught()), Ok(true));
        assert!(!are_caught());
    }
}
