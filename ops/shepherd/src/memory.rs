//! Memory of the process: the allocator, and how soon it gives back what is free.
//!
//! A lane is many small keys and values, and glibc's allocator took a third of its time. mimalloc
//! keeps pages that became free for a while by default, which a lane over a busy chain turns into a
//! quarter more memory and no measurable time (ops/docs/decisions.md).

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of `mi_option_t`, the same in versions 2 and 3; the crate has no name
/// for it.
const PURGE_DELAY: c_int = 15;

unsafe extern "C" {
    fn mi_option_set(option: c_int, value: c_long);
}

/// Lets free pages go at once. To be called first.
pub fn give_back_at_once() {
    // SAFETY: it sets a number that the allocator reads, and may be called at any time.
    unsafe { mi_option_set(PURGE_DELAY, 0) }
}
