//! `shepherd.wit` as Rust types, generated.
//!
//! Only the types and the two exports are used from here. The imports are linked by hand in
//! `imports.rs`, because every host call charges fuel and the generated traits do not reach it.

#![allow(missing_docs, reason = "the documentation is in the WIT file")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "module",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { default: trappable },
});
