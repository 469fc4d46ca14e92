//! What is done to clients: their processes and their clocks.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    control,
    fault::{Fault, Lane, Stroke},
    herd::Herd,
    words::Told,
};

/// The name of the fault that lasts as long as the run: every client's clock has a rate of its own.
pub(super) const RATE: &str = "clock-rate";

/// How long a client that was killed may take to be connected again; servers may be down meanwhile. It only keeps a run from
/// hanging.
const CONNECTS_WITHIN: Duration = Duration::from_secs(600);

/// The faults of clients; `locks` are those whose holders are frozen best.
pub(super) fn faults(herd: &Arc<Herd>, locks: &[&'static str]) -> Vec<Fault> {
    vec![frozen(herd, locks), killed(herd), jumped(herd), rate()]
}

/// What these faults do, for people.
pub(super) const ABOUT: [(&str, &str); 4] = [
    ("frozen", "a client is stopped (SIGSTOP) for 1.2 to 2.5 ttls: mostly one that holds a lock, often amid a write"),
    ("killed", "a client is ended (kill -9) between any two steps, and another is started in its place"),
    ("wall-jump", "a client's wall clock jumps by up to an hour in either direction"),
    (RATE, "each client's clock runs wrong by up to 0.9 %, each its own way, for as long as it lives"),
];

fn about(name: &'static str) -> (&'static str, &'static str) {
    (name, ABOUT.iter().find(|row| row.0 == name).map_or("", |row| row.1))
}

pub(super) fn frozen(herd: &Arc<Herd>, locks: &[&'static str]) -> Fault {
    let (name, about) = about("frozen");
    let (herd, locks) = (Arc::clone(herd), locks.to_vec());
    Fault::new(Lane::Client, name, about, move |chance, scale| {
        // Every other time it is one who writes what nothing fences: the control must fail.
        let narrowed = herd.narrowed.load(Ordering::SeqCst);
        let lock = if narrowed || chance.once_in(2) { control::SET } else { chance.one_of(&locks).copied()? };
        let wished = if !narrowed && chance.once_in(5) { None } else { herd.holder(lock) };
        let claim = herd.claim(wished, chance)?;
        let client = claim.client;
        let (begins, ends) = (Arc::clone(&herd), Arc::clone(&herd));
        let amid = (narrowed || chance.once_in(2)).then(|| chance.between(Duration::ZERO, Duration::from_millis(4)));
        let begin = async move {
            if let Some(later) = amid {
                // It is as good to freeze one that doesn't write just now.
                _ = tokio::time::timeout(Duration::from_millis(100), begins.seen(client).tries.notified()).await;
                tokio::time::sleep(later).await;
            }
            begins.freeze(client).await
        };
        let end = async move {
            let _claim = claim;
            ends.thaw(client).await
        };
        let stroke = Stroke::new(format!("client {client}"), scale.grace + scale.ttls(1.2, 2.5, chance), begin, end);
        Some(stroke.of_clients(vec![herd.number(client)]))
    })
}

fn killed(herd: &Arc<Herd>) -> Fault {
    let (name, about) = about("killed");
    let herd = Arc::clone(herd);
    Fault::new(Lane::Client, name, about, move |chance, scale| {
        let claim = herd.claim(None, chance)?;
        let client = claim.client;
        let (begins, ends) = (Arc::clone(&herd), Arc::clone(&herd));
        let end = async move {
            let _claim = claim;
            ends.revive(client, CONNECTS_WITHIN).await
        };
        let stroke = Stroke::new(
            format!("client {client}"),
            scale.ttls(0.0, 1.0, chance),
            async move { begins.kill(client).await },
            end,
        );
        Some(stroke.of_clients(vec![herd.number(client)]))
    })
}

fn jumped(herd: &Arc<Herd>) -> Fault {
    let (name, about) = about("wall-jump");
    let herd = Arc::clone(herd);
    Fault::new(Lane::Client, name, about, move |chance, _| {
        let claim = herd.claim(None, chance)?;
        let client = claim.client;
        let seconds = i64::try_from(chance.below(7_200)).unwrap_or(0) - 3_600;
        let number = herd.number(client);
        let herd = Arc::clone(&herd);
        let jump = async move {
            let _claim = claim;
            herd.tell(client, &Told::Jump(seconds * 1_000_000)).await
        };
        Some(Stroke::at_once(format!("client {client} by {seconds} s"), jump).of_clients(vec![number]))
    })
}

/// Begun with each client's life; there is nothing to strike.
fn rate() -> Fault {
    let (name, about) = about(RATE);
    Fault::new(Lane::Client, name, about, |_, _| None)
}
