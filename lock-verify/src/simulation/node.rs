//! A node: a process with a client of the locks, on a clock and a runtime of its own.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use lock_core::{Locks, SeededEntropy};
use tokio::runtime::{Builder, Runtime};

use super::{
    chance::Chance,
    clock::NodeClock,
    network::{Line, Link},
    work::{Worker, work},
    world::Shared,
};

/// A process. Its tasks run only when something reaches it, and until all of them wait again.
pub(super) struct Node {
    pub(super) clock: Arc<NodeClock>,
    pub(super) life: u32,
    /// Until when it does nothing.
    pub(super) busy_until: u64,
    /// Whether its timers stand still meanwhile.
    pub(super) suspended: bool,
    runtime: Option<Runtime>,
    idle: Arc<Idle>,
}

/// Tells when all tasks of a runtime wait: it would put its thread to sleep then.
#[derive(Default)]
struct Idle {
    reached: AtomicBool,
    waker: OnceLock<Waker>,
}

/// Does something within the runtime, and ends when all its tasks wait.
struct Step<'a, F> {
    idle: &'a Idle,
    work: Option<F>,
}

impl<F: FnOnce() + Unpin> Future for Step<'_, F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(work) = self.work.take() {
            // The same one in each step: it is the runtime's own.
            self.idle.waker.get_or_init(|| context.waker().clone());
            self.idle.reached.store(false, Relaxed);
            work();
            return Poll::Pending;
        }
        if self.idle.reached.load(Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Node {
    /// A node that has not been started.
    pub(super) fn new(clock: Arc<NodeClock>) -> Self {
        Self { clock, life: 0, busy_until: 0, suspended: false, runtime: None, idle: Arc::default() }
    }

    /// Starts it, for the first time or after its death.
    ///
    /// # Errors
    /// When the system has no runtime to give.
    pub(super) fn start(
        &mut self,
        at: u64,
        node: usize,
        shared: &Arc<Shared>,
        chance: &mut Chance,
    ) -> std::io::Result<()> {
        self.life += 1;
        self.busy_until = at;
        let idle = Arc::<Idle>::default();
        // Weak: the waker keeps the runtime, and that would keep the waker.
        let told = Arc::downgrade(&idle);
        let runtime = Builder::new_current_thread()
            .on_thread_park(move || {
                let Some(told) = told.upgrade() else { return };
                told.reached.store(true, Relaxed);
                if let Some(waker) = told.waker.get() {
                    waker.wake_by_ref();
                }
            })
            .build()?;
        (self.runtime, self.idle) = (Some(runtime), idle);
        let (clock, life) = (self.clock.clone(), self.life);
        let line = Line { shared: shared.clone(), clock: clock.clone(), node, life };
        let (can, tasks, plan) = {
            let mut world = shared.world();
            let tasks = world.plan.tasks;
            world.begins(node, tasks);
            let can = world.plan.capabilities(lock_core::LockProvider::capabilities(&world.store));
            (can, world.plan.tasks, world.plan.clone())
        };
        let link = Link::new(line.clone(), can);
        let locks = Locks::builder(link).clock(clock).entropy(Arc::new(SeededEntropy::new(chance.next()))).build();
        let workers: Vec<_> = (0..tasks)
            .map(|_| Worker {
                line: line.clone(),
                locks: locks.clone(),
                plan: plan.clone(),
                chance: chance.fork(),
                least: Duration::ZERO,
            })
            .collect();
        self.step(at, || {
            for worker in workers {
                tokio::spawn(work(worker));
            }
        });
        Ok(())
    }

    /// Something reaches the node at this moment; it does all that comes of it. When it was through.
    pub(super) fn step(&mut self, at: u64, work: impl FnOnce() + Unpin) -> u64 {
        self.clock.bring_to(at);
        if let Some(runtime) = &self.runtime {
            runtime.block_on(Step { idle: &self.idle, work: Some(work) });
        }
        self.busy_until = self.clock.true_now();
        self.busy_until
    }

    /// Everything that it did and knew is gone.
    pub(super) fn die(&mut self) {
        self.runtime = None;
    }
}
