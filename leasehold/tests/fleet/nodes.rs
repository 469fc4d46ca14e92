//! How nodes are started and killed: as processes, or as runtimes of this one where the store is its memory.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use leasehold::{Locks, MemoryLocks};
use tokio::runtime::Runtime;

use crate::{
    account::Account,
    node::{PLAN, Plan, work_through},
};

pub(crate) trait Nodes {
    type Node;

    fn start(&self, plan: &Plan, account: Arc<Account>) -> Self::Node;

    /// Ends it as a power cut would. Returns when it has said its last word.
    fn kill(&self, node: &mut Self::Node);

    /// Until it is through with its plan.
    fn wait(&self, node: Self::Node);
}

/// Which node says something: each start is one of its own.
static STARTED: AtomicUsize = AtomicUsize::new(0);

/// Nodes that are processes of this program.
pub(crate) struct Processes {
    url: String,
}

pub(crate) struct Process {
    child: Child,
    listener: Option<JoinHandle<()>>,
}

impl Processes {
    pub(crate) fn on(url: String) -> Self {
        Self { url }
    }
}

impl Nodes for Processes {
    type Node = Process;

    fn start(&self, plan: &Plan, account: Arc<Account>) -> Process {
        let plan = Plan { url: self.url.clone(), ..plan.clone() };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(PLAN, serde_json::to_string(&plan).unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let number = STARTED.fetch_add(1, Ordering::SeqCst);
        let listener = std::thread::spawn(move || {
            for line in out.lines() {
                account.hear(number, serde_json::from_str(&line.unwrap()).unwrap());
            }
        });
        Process { child, listener: Some(listener) }
    }

    fn kill(&self, node: &mut Process) {
        node.child.kill().unwrap();
        node.child.wait().unwrap();
        node.listener.take().unwrap().join().unwrap();
    }

    fn wait(&self, mut node: Process) {
        assert!(node.child.wait().unwrap().success(), "a node failed");
        node.listener.take().unwrap().join().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nodes that are runtimes of this process, over a store in its memory.
pub(crate) struct InThreads {
    store: MemoryLocks,
}

pub(crate) struct Thread {
    runtime: Option<Runtime>,
    through: mpsc::Receiver<()>,
}

impl InThreads {
    pub(crate) fn new() -> Self {
        Self { store: MemoryLocks::new() }
    }
}

impl Nodes for InThreads {
    type Node = Thread;

    fn start(&self, plan: &Plan, account: Arc<Account>) -> Thread {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (locks, plan) = (Locks::new(self.store.clone()), plan.clone());
        let number = STARTED.fetch_add(1, Ordering::SeqCst);
        let (tell, through) = mpsc::channel();
        runtime.spawn(async move {
            let say: crate::node::Say = Arc::new(move |said| account.hear(number, said));
            work_through(&plan, &locks, &say).await;
            drop(say);
            // Nobody listens to one that is killed.
            let _ = tell.send(());
        });
        Thread { runtime: Some(runtime), through }
    }

    fn kill(&self, node: &mut Thread) {
        // Stops its threads wherever they are next; guards that are dropped with them can't release any more.
        node.runtime.take().unwrap().shutdown_timeout(Duration::from_secs(10));
    }

    fn wait(&self, mut node: Thread) {
        node.through.recv().unwrap();
        node.runtime.take().unwrap().shutdown_timeout(Duration::from_secs(10));
    }
}
