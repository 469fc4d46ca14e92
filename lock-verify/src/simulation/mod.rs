//! The core under simulated networks and clocks: one seed is one run, to the byte.
