//! A borrow that outlives what the compiler can see.
//!
//! The engine's store insists on data that borrows nothing. What a module is given for one call
//! (a view of the state, a source of reads) does borrow: from the caller's stack. This file is
//! the only one in the crate that works with pointers; `BoundModule::handle` keeps its promise.

use std::{mem, ptr::NonNull};

use crate::{overlay::StateView, reads::Reads};

/// What the caller lends to one call.
pub(crate) struct Lent {
    state: NonNull<dyn StateView>,
    reads: NonNull<dyn Reads>,
}

impl Lent {
    /// Lends both.
    ///
    /// # Safety
    ///
    /// The returned value must be dropped before the borrows `state` and `reads` end.
    pub(crate) unsafe fn new(state: &mut dyn StateView, reads: &mut dyn Reads) -> Lent {
        // SAFETY: only the lifetime changes, and the caller promises to end the value's use first.
        unsafe {
            Lent {
                state: NonNull::from(mem::transmute::<
                    &mut dyn StateView,
                    &'static mut dyn StateView,
                >(state)),
                reads: NonNull::from(mem::transmute::<&mut dyn Reads, &'static mut dyn Reads>(
                    reads,
                )),
            }
        }
    }

    /// The view of the state.
    pub(crate) fn state(&mut self) -> &mut dyn StateView {
        // SAFETY: the pointer comes from a mutable borrow that is still running (see `new`), and
        // `&mut self` keeps it the only one in use.
        unsafe { self.state.as_mut() }
    }

    /// The source of reads.
    pub(crate) fn reads(&mut self) -> &mut dyn Reads {
        // SAFETY: as in `state`.
        unsafe { self.reads.as_mut() }
    }
}
