//! What the laws of the locks are proved with: [`history`] records what clients saw, [`laws`] judges it, [`models`] are
//! searched to the end, and [`simulation`] runs the core itself under a network and clocks that misbehave by a seed.

pub mod history;
pub mod laws;
pub mod models;
pub mod simulation;
