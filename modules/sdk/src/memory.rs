//! Where a module's memory comes from, in the component only.
//!
//! ```text
//! stack, data │ FIRST_BYTES, there from the start │ what is grown beyond
//! ```
//!
//! A fresh instance handles every record, and growing its memory is the dearest thing most of
//! them would do: the host changes the protection of pages for it, and changes it back afterwards.
//! The standard library's allocator grows with the first byte it is asked for. This is the same
//! allocator, over memory that is part of the instance already; a page of it that is never
//! touched costs nothing.

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::{Cell, UnsafeCell},
    ptr,
};

use dlmalloc::{Allocator, Dlmalloc};

/// Enough for a block of some hundred logs.
const FIRST_BYTES: usize = 512 << 10;

/// Memory grows by a multiple of this: once more in a while, not with every page.
const STEP_BYTES: usize = 256 << 10;

const PAGE_BYTES: usize = 64 << 10;

/// Aligned as the allocator wants its segments.
#[repr(C, align(16))]
struct First(UnsafeCell<[u8; FIRST_BYTES]>);

// SAFETY: a module has one thread.
unsafe impl Sync for First {}

/// Zero, and so no part of the component's file.
static FIRST: First = First(UnsafeCell::new([0; FIRST_BYTES]));

/// Linear memory, as the allocator asks for it.
struct Linear {
    first_given: Cell<bool>,
}

// SAFETY: what it hands out is zeroed, belongs to nobody else, and is never taken back.
unsafe impl Allocator for Linear {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        if size <= FIRST_BYTES && !self.first_given.replace(true) {
            return (FIRST.0.get().cast(), FIRST_BYTES, 0);
        }
        let Some(bytes) = size.checked_next_multiple_of(STEP_BYTES) else {
            return (ptr::null_mut(), 0, 0);
        };
        match core::arch::wasm32::memory_grow::<0>(bytes / PAGE_BYTES) {
            usize::MAX => (ptr::null_mut(), 0, 0),
            page => (ptr::without_provenance_mut(page * PAGE_BYTES), bytes, 0),
        }
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        ptr::null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        PAGE_BYTES
    }
}

struct Memory(UnsafeCell<Dlmalloc<Linear>>);

// SAFETY: a module has one thread.
unsafe impl Sync for Memory {}

#[global_allocator]
static MEMORY: Memory =
    Memory(UnsafeCell::new(Dlmalloc::new_with_allocator(Linear { first_given: Cell::new(false) })));

// SAFETY: every method passes its contract on. The cell is not borrowed twice: there is one
// thread, and the allocator calls nothing that allocates.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { (*self.0.get()).malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe { (*self.0.get()).calloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { (*self.0.get()).free(memory, layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe { (*self.0.get()).realloc(memory, layout.size(), layout.align(), size) }
    }
}
