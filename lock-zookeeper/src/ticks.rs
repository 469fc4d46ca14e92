//! Ticks: what is kept of them, in a node for each lock that outlives the lock's own, and how a grant uses one up.
//!
//! Only who is first in line writes there, in one step with the check that its entry is still there, or with its deletion.
//! So whoever finds itself first sees what all who were first before it wrote; and a step that comes late, after its asker
//! has left, changes nothing.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use lock_core::{AcquireRequest, Acquired, Tick};
use zookeeper_client::{Client, CreateMode, Error, MultiWriteError, MultiWriter};

use crate::{
    data::UsedUp,
    error::Trouble,
    ground::{Ground, Patience},
    line::Line,
    stand::Turn,
    table::{Claim, Node, Place},
};

/// What was found of a lock's ticks.
pub(crate) struct Kept {
    /// `None` if it can't be read.
    pub(crate) used: Option<UsedUp>,
    version: i32,
}

/// What a step writes of a tick: where, what, and over which version, if something is there.
pub(crate) struct Change {
    path: String,
    data: Vec<u8>,
    over: Option<i32>,
}

impl Change {
    /// `kept` is what was found there.
    pub(crate) fn of(path: &str, used: &UsedUp, kept: Option<&Kept>) -> Self {
        Self { path: path.to_owned(), data: used.written(), over: kept.map(|kept| kept.version) }
    }
}

impl Ground {
    /// What is kept at the path of a lock's ticks, if anything is.
    pub(crate) async fn kept_tick(
        &self,
        client: &Client,
        path: &str,
        patience: &Patience<'_>,
    ) -> Result<Option<Kept>, Trouble> {
        match patience.of(client.get_data(path)).await {
            Ok((data, stat)) => Ok(Some(Kept { used: UsedUp::read(&data), version: stat.version })),
            Err(trouble) if trouble.is_no_node() => Ok(None),
            Err(trouble) => Err(trouble.of_tick(path)),
        }
    }

    pub(crate) fn add_change(&self, step: &mut MultiWriter<'_>, change: &Change) -> Result<(), Error> {
        match change.over {
            Some(version) => step.add_set_data(&change.path, &change.data, Some(version)),
            None => step.add_create(&change.path, &change.data, &self.options(CreateMode::Persistent)),
        }
    }

    /// What follows where a step was refused for its change of a tick: it is made anew, by what is there by then, or that
    /// is of no use.
    pub(crate) async fn after_refused_change(
        &self,
        client: &Client,
        change: &Change,
        refusal: Error,
        patience: &Patience<'_>,
    ) -> Result<(), Trouble> {
        match refusal {
            // The parent is missing; or somebody deleted the node just then.
            Error::NoNode => {
                let ticks = self.paths.ticks();
                self.make(client, &ticks, patience).await.map_err(|trouble| trouble.of_tick(&ticks))
            }
            // Written meanwhile, maybe by an attempt of one's own whose answer was lost.
            Error::NodeExists | Error::BadVersion => Ok(()),
            error => Err(Trouble::from(error).of_tick(&change.path)),
        }
    }
}

impl Line {
    /// One look at how a claim stands, and at whether its tick was used up. Who is first has used it up when this is told,
    /// if its grant does that.
    pub(crate) async fn attempt(
        &self,
        claim: &Arc<Claim>,
        place: &mut Place,
        path: &str,
        request: &AcquireRequest,
        patience: &Patience<'_>,
        stepped: &AtomicBool,
    ) -> Result<Turn, Trouble> {
        let turn = self.stand(claim, place, path, request, patience).await?;
        match turn {
            Turn::Head(node) if request.tick.is_some() && claim.token().is_none() => {
                self.use_up(claim, path, node, request, patience, stepped).await
            }
            Turn::Behind(held) => {
                let last = self.finishes(&claim.session.client, request, patience, stepped).await?;
                Ok(last.map_or(Turn::Behind(held), Turn::Finished))
            }
            turn => Ok(turn),
        }
    }

    /// The last tick that was used up, if that of the wish was with it; the server may be behind and know an earlier one.
    /// Nothing is asked for a wish without a tick.
    pub(crate) async fn finishes(
        &self,
        client: &Client,
        request: &AcquireRequest,
        patience: &Patience<'_>,
        stepped: &AtomicBool,
    ) -> Result<Option<Tick>, Trouble> {
        if request.tick.is_none() {
            return Ok(None);
        }
        let path = self.ground.paths.tick(&request.name);
        let kept = self.ground.kept_tick(client, &path, patience).await?;
        finished(request, used(kept.as_ref(), &path)?, stepped)
    }

    /// Judges a tick for who is first in line and doesn't hold the lock yet, and uses it up if its grant does that.
    async fn use_up(
        &self,
        claim: &Claim,
        path: &str,
        node: Node,
        request: &AcquireRequest,
        patience: &Patience<'_>,
        stepped: &AtomicBool,
    ) -> Result<Turn, Trouble> {
        let (client, tick_path) = (&claim.session.client, self.ground.paths.tick(&claim.name));
        let own = format!("{path}/{}", node.name);
        loop {
            let kept = self.ground.kept_tick(client, &tick_path, patience).await?;
            let used = used(kept.as_ref(), &tick_path)?;
            // Its grant was made, and the answer lost.
            if used.is_some_and(|used| used.is_by(node.token, &node.name)) {
                return Ok(Turn::Head(node));
            }
            if let Some(last) = finished(request, used, stepped)? {
                return Ok(Turn::Finished(last));
            }
            let Some(tick) = request.used_by_grant() else { return Ok(Turn::Head(node)) };
            let change = Change::of(&tick_path, &UsedUp::by_grant(tick, node.token, &node.name), kept.as_ref());
            stepped.store(true, Ordering::SeqCst);
            let sent = self.ground.now();
            let commit = {
                let mut step = client.new_multi_writer();
                step.add_check_version(&own, ANY_VERSION)?;
                self.ground.add_change(&mut step, &change)?;
                step.commit()
            };
            match patience.of(async { Ok::<_, Trouble>(commit.await) }).await? {
                Ok(_) => {
                    claim.session.wrote(sent);
                    return Ok(Turn::Head(node));
                }
                // Its entry is gone: the next look begins with that.
                Err(MultiWriteError::OperationFailed { index: 0, source: Error::NoNode }) => return Ok(Turn::Again),
                Err(MultiWriteError::OperationFailed { index: 1, source }) => {
                    self.ground.after_refused_change(client, &change, source, patience).await?;
                }
                Err(error) => return Err(Error::from(error).into()),
            }
        }
    }
}

/// Asks whether a node is there, whatever was written to it.
const ANY_VERSION: i32 = -1;

/// The last tick, if that of the wish was used up with it; trouble if it was by a grant of this very call, which has
/// stepped before, and whose entry is gone since.
fn finished(request: &AcquireRequest, used: Option<&UsedUp>, stepped: &AtomicBool) -> Result<Option<Tick>, Trouble> {
    let Some(used) = used.filter(|used| request.is_finished(Some(used.tick))) else { return Ok(None) };
    let own = stepped.load(Ordering::SeqCst) && used.is_of(request.owner);
    let answer = request.after_doubt(Acquired::Finished(used.tick), own);
    answer.map(|_| Some(used.tick)).map_err(Trouble::Told)
}

fn used<'a>(kept: Option<&'a Kept>, path: &str) -> Result<Option<&'a UsedUp>, Trouble> {
    let Some(kept) = kept else { return Ok(None) };
    kept.used.as_ref().map(Some).ok_or_else(|| {
        Trouble::Corrupt(format!("{path} isn't a tick: write the last one that was used up, or delete it"))
    })
}
