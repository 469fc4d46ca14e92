//! The masters: one message to each at once, and their answers as they come in.

use std::{sync::Arc, time::Duration};

use lock_core::{Applied, Clock, ErrorKind, StoreError};
use redis::Value;
use tokio::sync::mpsc;

use super::scripts;
use crate::{
    error::{self, Remedy},
    node::Node,
    operation::doubting,
    scripts::{Call, Script},
};

/// Independent masters, in the order in which they were named.
#[derive(Debug)]
pub(crate) struct Masters {
    pub(crate) nodes: Vec<Node>,
    pub(crate) clock: Arc<dyn Clock>,
    /// How long a master may take to answer.
    pub(crate) node_timeout: Duration,
}

/// What one master is asked: a script over some of a wave's requests.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) master: usize,
    /// Which requests of the wave it is about; the script answers for each of them in this order.
    pub(crate) about: Vec<usize>,
    pub(crate) call: Call,
}

/// What one master said.
pub(crate) struct Heard {
    pub(crate) master: usize,
    pub(crate) about: Vec<usize>,
    /// One value for each request it is about.
    pub(crate) answers: Result<Vec<Value>, StoreError>,
}

/// Answers on their way.
pub(crate) struct Answers {
    coming: mpsc::UnboundedReceiver<Heard>,
}

impl Masters {
    pub(crate) fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Sends each message; what nobody listens to any more goes on all the same.
    pub(crate) fn send(&self, messages: impl IntoIterator<Item = Message>) -> Answers {
        let (tell, coming) = mpsc::unbounded_channel();
        for Message { master, about, call } in messages {
            let (node, tell, call) = (self.nodes[master].clone(), tell.clone(), Arc::new(call));
            tokio::spawn(async move {
                let answers = run(&node, &call).await.and_then(|value| split(value, about.len()));
                let answers = answers.map_err(|error| named(error, &node));
                // Whoever asked may have heard enough.
                let _ = tell.send(Heard { master, about, answers });
            });
        }
        Answers { coming }
    }

    /// The same message to every master, about the whole wave.
    pub(crate) fn send_all(&self, script: &Arc<Script>, keys: &[Vec<u8>], arguments: &[Vec<u8>]) -> Answers {
        self.send((0..self.count()).map(|master| Message {
            master,
            about: (0..keys.len()).collect(),
            call: Call::new(script, keys.to_vec(), arguments.to_vec()),
        }))
    }

    /// Listens until all have answered, the time is over, or `hear` says that it is decided; those that are about as fast
    /// as the ones that decided it are then heard too, since a lock that more masters agree on lasts better.
    pub(crate) async fn listen(&self, mut answers: Answers, within: Duration, mut hear: impl FnMut(Heard) -> bool) {
        let begun = self.clock.now();
        let mut until = begun + within.min(self.node_timeout);
        let mut decided = false;
        loop {
            let heard = tokio::select! {
                biased;
                heard = answers.coming.recv() => heard,
                () = self.clock.sleep_until(until) => return,
            };
            let Some(heard) = heard else { return };
            if hear(heard) && !decided {
                decided = true;
                let now = self.clock.now();
                until = until.min(now + now.since(begun).max(SHORTEST_PATIENCE));
            }
        }
    }

    /// That too few masters could be heard: of what kind, and what the first of those that failed said.
    pub(crate) fn too_few(&self, answered: usize, failures: &[StoreError], applied: bool) -> StoreError {
        let all = self.count();
        let first = failures.iter().find(|error| !error.is_transient()).or(failures.first());
        let (kind, why) = match first {
            Some(error) => (error.kind(), format!(": {}", without_doubt(error))),
            None => (ErrorKind::Timeout, format!(" within {:?}", self.node_timeout)),
        };
        let message = format!("{answered} of {all} masters answered, {} are needed{why}", super::ballot::quorum(all));
        let new = if applied { StoreError::unknown } else { StoreError::refused };
        let error = new(kind, message);
        match first {
            Some(first) => error.caused_by(first.clone()),
            None => error,
        }
    }
}

/// Those that are slower than this are waited for no longer than the decision took.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(1);

/// Runs it; once more where the connection turns out to have died, which an idle one may have long ago.
///
/// But for releases, all of ours may be run twice: they name the owner, and a claim that is run once more when others had the
/// lock in between gets no token accepted that one of them had. Of a release only the first answer says whether it
/// found anything to release, and a forced one could take the lock from whoever has it by then.
async fn run(node: &Node, call: &Arc<Call>) -> Result<Value, StoreError> {
    let once = [&*scripts::RELEASE, &*scripts::FORCE_RELEASE].iter().any(|script| Arc::ptr_eq(&call.script, script));
    match node.run(call).await {
        Err(first) if error::remedy(&first) == Remedy::Reconnect && (!once || first.applied() == Applied::No) => {
            let in_doubt = first.applied() == Applied::Maybe;
            node.run(call).await.map_err(|error| doubting(error, in_doubt))
        }
        answer => answer,
    }
}

/// Says which master it was.
fn named(error: StoreError, node: &Node) -> StoreError {
    let text = without_doubt(&error);
    if text.contains(node.address()) {
        return error;
    }
    let new = if error.applied() == Applied::Maybe { StoreError::unknown } else { StoreError::refused };
    new(error.kind(), format!("{}: {text}", node.address())).caused_by(error)
}

/// What it says, but for whether it may have been applied: that is said once, of the whole.
fn without_doubt(error: &StoreError) -> String {
    let text = error.to_string();
    text.strip_suffix(" (it may have been applied)").map(str::to_owned).unwrap_or(text)
}

/// The list that a script answers with, of this length.
fn split(value: Value, length: usize) -> Result<Vec<Value>, StoreError> {
    match value {
        Value::Array(answers) if answers.len() == length => Ok(answers),
        _ => Err(super::rows::corrupt("the script's answer has another length")),
    }
}
