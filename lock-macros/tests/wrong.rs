//! Wrong use is told at the right place, with what to write instead.
//!
//! What is expected stands beside each program; `TRYBUILD=overwrite cargo test -p lock-macros` writes it anew. The texts
//! that are the compiler's own are those of the toolchain that the project builds with.

#[test]
fn wrong_use_is_told() {
    trybuild::TestCases::new().compile_fail("tests/wrong/*.rs");
}
