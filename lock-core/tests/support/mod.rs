//! What the tests of the core stand on.

#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

pub(crate) mod hooked;

pub(crate) use lock_core::testing::{Mishap, Stage};
