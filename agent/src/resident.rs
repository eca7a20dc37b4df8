//! Memory that a process holds and does not need now, given back to the system: free parts of the heap, and pages of the
//! program that only starting or loading needed.

/// Gives back both.
pub(crate) fn give_back() {
    trim_heap();
    drop_program();
}

/// Gives back what is free in the heap: it stays with the process otherwise, several times what a model needs.
/// Costs a millisecond or so and nothing afterwards.
pub(crate) fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "the C library's allocator has no safe interface")]
    // SAFETY: no pointers are passed, and any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives back the pages of the program's code and constants. They are in the file, and most likely stay in the system's
/// cache of it: what is needed again comes back by 16 pages at once, in some microseconds each time. Without this a
/// process keeps whatever it ran once, of which loading a model is the most.
pub(crate) fn drop_program() {
    #[cfg(all(target_os = "linux", any(target_env = "gnu", target_env = "musl")))]
    program::drop_pages();
}

#[cfg(all(target_os = "linux", any(target_env = "gnu", target_env = "musl")))]
#[expect(unsafe_code, reason = "where the program lies is told by the dynamic linker only")]
mod program {
    use std::ffi::{c_int, c_void};

    use rustix::mm::{Advice, madvise};

    pub(super) fn drop_pages() {
        // SAFETY: the callback is what `dl_iterate_phdr` asks for, does not unwind, and uses no data.
        unsafe {
            libc::dl_iterate_phdr(Some(drop_pages_of), std::ptr::null_mut());
        }
    }

    /// Drops the pages of the first object, which is the program itself. Not those of its libraries: who preloads one may
    /// have it change their code, which would be lost.
    unsafe extern "C" fn drop_pages_of(
        object: *mut libc::dl_phdr_info,
        _size: usize,
        _data: *mut c_void,
    ) -> c_int {
        let page = rustix::param::page_size();
        // SAFETY: the linker passes a description that is valid during the call.
        let object = unsafe { &*object };
        // SAFETY: it has so many headers there.
        let headers = unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
        for header in headers {
            if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
                continue;
            }
            let (Ok(base), Ok(at), Ok(length)) = (
                usize::try_from(object.dlpi_addr),
                usize::try_from(header.p_vaddr),
                usize::try_from(header.p_memsz),
            ) else {
                continue;
            };
            let begin = base.wrapping_add(at);
            let first = begin & !(page - 1);
            // SAFETY: a segment that is not writable is mapped from the file as it is: what is dropped is read from there
            // again when it is touched. Segments that can be written begin on pages of their own.
            let _ = unsafe {
                madvise(
                    std::ptr::with_exposed_provenance_mut(first),
                    begin - first + length,
                    Advice::LinuxDontNeed,
                )
            };
        }
        1
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn mapped_from_files() -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:"))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    }

    #[test]
    fn the_program_runs_on_without_the_pages_that_it_gave_back() {
        let before = mapped_from_files().expect("told by Linux");
        drop_program();
        let after = mapped_from_files().expect("told by Linux");
        assert!(after < before, "{before} KiB before, {after} KiB after");
        trim_heap();
        drop_program();
    }
}
