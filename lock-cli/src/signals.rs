//! The signals that `leasehold run` passes on.

use std::fs;

use nix::sys::signal::{SigSet, Signal};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// What is passed on to the command, or ends the wait for the lock.
const PASSED_ON: [fn() -> SignalKind; 6] = [
    SignalKind::interrupt,
    SignalKind::terminate,
    SignalKind::hangup,
    SignalKind::quit,
    SignalKind::user_defined1,
    SignalKind::user_defined2,
];

/// The signals that arrive from now on, by number.
#[derive(Debug)]
pub(crate) struct Signals(mpsc::UnboundedReceiver<i32>);

/// Blocks what will be passed on, in this thread and in those it starts from now on, until [`Signals::take`].
///
/// Between a handler's installation and its listener's a signal would be handled, and heard by nobody.
pub(crate) fn hold() {
    // It can't fail: the set is a valid one.
    let _ = passed_on().thread_block();
}

fn passed_on() -> SigSet {
    let numbers = PASSED_ON.map(|kind| kind().as_raw_value());
    numbers.into_iter().filter_map(|number| Signal::try_from(number).ok()).collect()
}

impl Signals {
    /// Begins to take signals in, those that were held first. In the thread that held them.
    ///
    /// Those that we were started with as ignored (nohup(1); `&` in a script) stay so, for the command too: an
    /// ignored signal is inherited and a handled one isn't.
    pub(crate) fn take() -> std::io::Result<Self> {
        let ignored = ignored();
        // An ignored SIGCHLD is inherited as well, and then nobody is told how a child ended (sigaction(2)). With a
        // handler it isn't ignored, and what we start has the default again.
        drop(signal(SignalKind::child())?);
        let (sender, receiver) = mpsc::unbounded_channel();
        for kind in PASSED_ON.map(|kind| kind()) {
            let number = kind.as_raw_value();
            if ignored & (1 << (number - 1)) != 0 {
                continue;
            }
            let mut arrivals = signal(kind)?;
            let sender = sender.clone();
            tokio::spawn(async move { while arrivals.recv().await.is_some() && sender.send(number).is_ok() {} });
        }
        // In this thread alone, which is enough: a signal to the process goes to any thread that doesn't block it.
        passed_on().thread_unblock()?;
        Ok(Self(receiver))
    }

    /// The next signal. Cancel safe.
    pub(crate) async fn next(&mut self) -> i32 {
        match self.0.recv().await {
            Some(number) => number,
            None => std::future::pending().await,
        }
    }
}

/// The signals that this process ignores, a bit each (proc(5), `SigIgn`). Where that can't be told: none.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
