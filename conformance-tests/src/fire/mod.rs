//! Real fire: clients in processes of their own, on servers that are broken in every way there is, by a seed; everything
//! they did is a history, which the laws judge.

mod about;
mod chance;
mod client;
mod clock;
mod control;
mod fault;
mod ground;
mod herd;
mod holds;
mod nemesis;
mod on_clients;
mod on_network;
mod owners;
mod pen;
mod people;
mod recorded;
mod report;
mod run;
mod scale;
mod scene;
mod stalls;
mod tasks;
mod wire;
mod words;

pub use chance::Chance;
pub use clock::WrongClock;
pub use fault::{Fault, Lane, Stroke, blocking};
pub use ground::Ground;
pub use lock_verify::history::Effect;
pub use report::Burnt;
pub use run::Fire;
pub use scale::Scale;
pub use scene::{Begun, FencedCounter, NotCommitted, Scene, Site, TransactedSet};
