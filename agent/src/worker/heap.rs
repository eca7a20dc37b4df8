//! How the C library's heap is used: sparingly while a model is loaded, swiftly while it runs, and given back in between.

use crate::resident;

/// While loading, blocks from this size on are mapped apart and go back to the system one by one: weights are copied
/// several times, and the heap would keep the room between them. Smaller ones gain nothing (measured with 64 KiB).
const APART_WHILE_LOADING: i32 = 256 << 10;
/// While running, blocks from this size on: mapping costs a page fault for every 4 KiB of every run.
const APART_WHILE_RUNNING: i32 = 8 << 20;
/// Free memory at the end of the heap that is kept for the next run.
const KEPT_WHILE_RUNNING: i32 = 16 << 20;

/// To be called before a model is loaded.
pub(super) fn sparingly() {
    set(APART_WHILE_LOADING, APART_WHILE_LOADING);
}

/// To be called when it is loaded.
pub(super) fn swiftly() {
    resident::trim_heap();
    set(APART_WHILE_RUNNING, KEPT_WHILE_RUNNING);
}

/// Without effect where the C library is another.
fn set(apart: i32, kept: i32) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "the C library's allocator has no safe interface")]
    // SAFETY: no pointers are passed, and both parameters take any number.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, apart);
        libc::mallopt(libc::M_TRIM_THRESHOLD, kept);
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = (apart, kept);
}
