//! Fenced scripts: a script of the application's runs only if its fence passes, in one atomic step with the check.
//!
//! The check stands before the application's script, in one script that the server runs as a whole.

mod config;
mod fences;
mod held;
mod refusal;
mod script;

pub use config::FencesBuilder;
pub use fences::{FencedCall, FencedScript, RedisFences};
pub use held::{HeldCall, HeldScript};
