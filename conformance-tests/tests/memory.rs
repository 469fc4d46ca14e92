//! The suite over the in-memory provider.

conformance_tests::suite!(conformance_tests::MemoryHarness);
