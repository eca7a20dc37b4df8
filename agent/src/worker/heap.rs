//! Memory that loading and the first runs needed and nobody needs any more, given back to the system.

/// Gives back what is free in the heap: it stays with the process otherwise, several times what the model needs.
/// Costs a millisecond or so and nothing afterwards.
pub(super) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "the C library's allocator has no safe interface")]
    // SAFETY: no pointers are passed, and any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
