//! The clients' processes, as the run sees them: started, listened to, frozen, killed, started anew.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use lock_core::Moment;
use lock_verify::history::{F, Process};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{Notify, watch},
    task::JoinHandle,
};

use super::{
    chance::Chance,
    client::PLAN,
    pen::Pen,
    stalls::Stalls,
    words::{Plan, Said, Told},
};
use crate::{
    Failure,
    asker::{Outcome, now, within},
    ensure,
};

/// How long a client may take to end when it is told to, on whatever machine: this only keeps a run from hanging.
const ENDS_WITHIN: Duration = Duration::from_secs(600);

/// How many lives of one client have numbers of their own in the history.
const LIVES: u32 = 1_000;

/// All clients of a run. Killed when dropped, also those that are frozen.
#[derive(Debug)]
pub(super) struct Herd {
    slots: Vec<tokio::sync::Mutex<Slot>>,
    seen: Vec<Arc<Seen>>,
    /// Whom a fault befalls just now.
    claimed: Arc<Mutex<BTreeSet<usize>>>,
    pen: Pen,
    errors: PathBuf,
    /// Whether only those are frozen who write what nothing fences.
    pub(super) narrowed: AtomicBool,
}

/// A client that no other fault befalls for as long as this lives.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) client: usize,
    claimed: Arc<Mutex<BTreeSet<usize>>>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.client);
    }
}

/// A client, in its present life.
#[derive(Debug)]
struct Slot {
    plan: Plan,
    life: u32,
    process: Child,
    orders: ChildStdin,
    listener: JoinHandle<Outcome>,
    /// Killed, and nobody in its place yet.
    killed: bool,
    chance: Chance,
}

/// What was heard of a client.
#[derive(Debug)]
pub(super) struct Seen {
    heard: Mutex<Heard>,
    number: AtomicU32,
    /// Raised by each grant.
    pub(super) grants: watch::Sender<u64>,
    /// Told when it begins a write that nothing fences.
    pub(super) tries: Notify,
}

#[derive(Debug, Default)]
struct Heard {
    ready: bool,
    holds: HashMap<String, usize>,
    last_grant: Option<Moment>,
}

impl Herd {
    /// Starts a process for each plan.
    ///
    /// They die with the thread that starts them.
    pub(super) fn start(plans: Vec<Plan>, pen: Pen, errors: PathBuf, chance: &Chance) -> Result<Self, Failure> {
        let seen: Vec<_> = plans.iter().map(|_| Arc::new(Seen::default())).collect();
        let slots = plans.into_iter().zip(&seen).map(|(plan, seen)| {
            let slot = Slot::start(plan, 0, chance.fork(), seen, &errors)?;
            Ok(tokio::sync::Mutex::new(slot))
        });
        Ok(Self {
            slots: slots.collect::<Result<_, Failure>>()?,
            seen,
            claimed: Arc::default(),
            pen,
            errors,
            narrowed: AtomicBool::new(false),
        })
    }

    pub(super) fn size(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn seen(&self, client: usize) -> &Arc<Seen> {
        &self.seen[client]
    }

    /// The number of a client's present life in the history.
    pub(super) fn number(&self, client: usize) -> u32 {
        self.seen[client].number.load(Ordering::SeqCst)
    }

    /// How many lives there have been.
    pub(super) fn lives(&self) -> usize {
        (0..self.size()).map(|client| (self.number(client) % LIVES) as usize + 1).sum()
    }

    /// All grants so far.
    pub(super) fn grants(&self) -> u64 {
        self.seen.iter().map(|seen| *seen.grants.borrow()).sum()
    }

    /// Waits until each client is connected, for so long on a machine that isn't stalled.
    pub(super) async fn until_ready(&self, limit: Duration, stalls: &Stalls) -> Outcome {
        let (began, stalled) = (now(), stalls.so_far());
        while let Some(late) = self.seen.iter().position(|seen| !seen.heard().ready) {
            self.must_be_well().await?;
            let (errors, limit) = (self.errors.display(), limit + (stalls.so_far() - stalled));
            ensure!(
                now() < began + limit,
                "client {late} was not connected within {limit:?}; what it had to say is in {errors}"
            );
            crate::asker::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// No client has ended by itself, and none said what makes no sense.
    pub(super) async fn must_be_well(&self) -> Outcome {
        for (client, slot) in self.slots.iter().enumerate() {
            // One that is being killed just now is well.
            let Ok(mut slot) = slot.try_lock() else { continue };
            if !slot.killed && slot.listener.is_finished() {
                (&mut slot.listener).await??;
                let errors = self.errors.display();
                return Err(Failure::new(format!(
                    "client {client} ended by itself; what it had to say is in {errors}"
                )));
            }
        }
        Ok(())
    }

    /// Who holds this lock, by what was heard.
    pub(super) fn holder(&self, lock: &str) -> Option<usize> {
        self.seen.iter().position(|seen| seen.heard().holds.get(lock).is_some_and(|holds| *holds > 0))
    }

    /// Claims this client, or else another, unless faults befall half of all already.
    pub(super) fn claim(&self, wished: Option<usize>, chance: &Chance) -> Option<Claim> {
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        if claimed.len() * 2 >= self.size() {
            return None;
        }
        let free: Vec<_> = (0..self.size()).filter(|client| !claimed.contains(client)).collect();
        let client = wished.filter(|client| free.contains(client)).or_else(|| chance.one_of(&free).copied())?;
        claimed.insert(client);
        Some(Claim { client, claimed: Arc::clone(&self.claimed) })
    }

    /// Stops a process wherever it is, all of its threads.
    pub(super) async fn freeze(&self, client: usize) -> Outcome {
        let slot = self.slots[client].lock().await;
        slot.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub(super) async fn thaw(&self, client: usize) -> Outcome {
        let slot = self.slots[client].lock().await;
        slot.signal(Signal::CONT)
    }

    /// Ends it with SIGKILL: it says goodbye to nobody.
    pub(super) async fn kill(&self, client: usize) -> Outcome {
        let mut slot = self.slots[client].lock().await;
        // Or the end of its pipe would be taken for an end of its own.
        slot.killed = true;
        slot.listener.abort();
        slot.process.kill().await?;
        self.seen[client].heard().gone();
        self.pen.note(Process::Client(slot.plan.number), F::Exit, |event| event);
        Ok(())
    }

    /// Starts a client that was killed, and waits until it is connected.
    pub(super) async fn revive(&self, client: usize, limit: Duration) -> Outcome {
        {
            let mut slot = self.slots[client].lock().await;
            let (plan, life, chance) = (slot.plan.clone(), slot.life + 1, slot.chance.fork());
            ensure!(life < LIVES, "client {client} was killed {life} times, and no more are counted");
            *slot = Slot::start(plan, life, chance, &self.seen[client], &self.errors)?;
        }
        let ends = now() + limit;
        while !self.seen[client].heard().ready {
            let errors = self.errors.display();
            ensure!(
                now() < ends,
                "client {client} was started anew, and not connected within {limit:?}; what it had to say is in {errors}"
            );
            crate::asker::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    pub(super) async fn tell(&self, client: usize, told: &Told) -> Outcome {
        let mut slot = self.slots[client].lock().await;
        slot.tell(told).await
    }

    /// Lets each end what it is about.
    pub(super) async fn stop(self) -> Outcome {
        for slot in &self.slots {
            slot.lock().await.tell(&Told::Stop).await?;
        }
        for (client, slot) in self.slots.into_iter().enumerate() {
            let mut slot = slot.into_inner();
            let what = format!("the end of client {client}");
            let status = within(ENDS_WITHIN, &what, slot.process.wait()).await??;
            self.pen.note(Process::Client(slot.plan.number), F::Exit, |event| event);
            let errors = self.errors.display();
            ensure!(status.success(), "client {client} failed: {status}; what it had to say is in {errors}");
        }
        Ok(())
    }
}

impl Slot {
    fn start(mut plan: Plan, life: u32, chance: Chance, seen: &Arc<Seen>, errors: &PathBuf) -> Result<Self, Failure> {
        plan.number = u32::try_from(plan.client)? * LIVES + life;
        seen.number.store(plan.number, Ordering::SeqCst);
        plan.seed = chance.seed();
        // Half of a percent and more either way, within the one percent that leases allow for.
        plan.ppm = if plan.ppm == 0 { 0 } else { i32::try_from(chance.below(18_000))? - 9_000 };
        let errors = std::fs::OpenOptions::new().create(true).append(true).open(errors)?;
        let mut process = Command::new(std::env::current_exe()?)
            .env(PLAN, serde_json::to_string(&plan)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()?;
        let missing = || Failure::new("a child process without pipes");
        let orders = process.stdin.take().ok_or_else(missing)?;
        let out = process.stdout.take().ok_or_else(missing)?;
        let listener = tokio::spawn(listen(plan.client, out, Arc::clone(seen)));
        Ok(Self { plan, life, process, orders, listener, killed: false, chance })
    }

    fn signal(&self, signal: Signal) -> Outcome {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(kill_process(id.ok_or_else(|| Failure::new("a client has ended"))?, signal)?)
    }

    async fn tell(&mut self, told: &Told) -> Outcome {
        self.orders.write_all(format!("{}\n", serde_json::to_string(told)?).as_bytes()).await?;
        Ok(self.orders.flush().await?)
    }
}

/// Reads as fast as is said: a full pipe would hold a client up.
async fn listen(client: usize, out: ChildStdout, seen: Arc<Seen>) -> Outcome {
    let mut lines = BufReader::new(out).lines();
    while let Some(line) = lines.next_line().await? {
        let said = serde_json::from_str(&line)
            .map_err(|error| Failure::new(format!("client {client} said {line:?}: {error}")))?;
        seen.hear(said);
    }
    Ok(())
}

impl Default for Seen {
    fn default() -> Self {
        Self { heard: Mutex::default(), number: AtomicU32::new(0), grants: watch::Sender::new(0), tries: Notify::new() }
    }
}

impl Seen {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, said: Said) {
        match said {
            Said::Ready => self.heard().ready = true,
            Said::Holds(lock) => {
                let mut heard = self.heard();
                *heard.holds.entry(lock).or_default() += 1;
                heard.last_grant = Some(now());
                drop(heard);
                self.grants.send_modify(|grants| *grants += 1);
            }
            Said::Ends(lock) => {
                if let Some(holds) = self.heard().holds.get_mut(&lock) {
                    *holds = holds.saturating_sub(1);
                }
            }
            Said::Tries => self.tries.notify_waiters(),
        }
    }
}

impl Heard {
    fn gone(&mut self) {
        self.ready = false;
        self.holds.clear();
    }
}
