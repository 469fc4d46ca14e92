//! Leaving a lock's queue, as its holder or from among those who wait; and renewing a place in it.

use std::sync::Arc;

use lock_core::{
    Applied, ErrorKind, FencingToken, Moment, ReleaseRequest, Released, RenewRequest, Renewed, StoreError, Tick,
};
use zookeeper_client::{Client, Error, EventType, MultiWriteError, OneshotWatcher};

use crate::{
    data::{Last, UsedUp},
    error::Trouble,
    ground::{Ground, Patience},
    line::Line,
    node::queue,
    people::Front,
    session::least,
    stand::{synced_children, token},
    table::{Background, Claim, Hold, Node, Place},
    ticks::Change,
};

/// A node to be deleted.
pub(crate) struct Leaving<'a> {
    /// The lock's own node.
    pub(crate) path: &'a str,
    /// The entry's name.
    pub(crate) node: &'a str,
    /// Its token, if it is the holder's.
    pub(crate) held: Option<FencingToken>,
    /// The tick that is finished with it, and where that is written.
    pub(crate) done: Option<(Tick, String)>,
}

impl Ground {
    /// Deletes an entry; `false` if it wasn't there. A holder's end is told in the same step to who comes next.
    pub(crate) async fn delete(
        &self,
        client: &Client,
        leaving: &Leaving<'_>,
        patience: &Patience<'_>,
    ) -> Result<bool, Trouble> {
        let entry = format!("{}/{}", leaving.path, leaving.node);
        let Some(held) = leaving.held else { return plainly(client, &entry, patience).await };
        loop {
            let tick = self.tick_change(client, leaving, patience).await?;
            let commit = {
                let mut step = client.new_multi_writer();
                step.add_delete(&entry, None)?;
                step.add_set_data(leaving.path, &Last::written(held, leaving.node), None)?;
                if let Some(change) = &tick {
                    self.add_change(&mut step, change)?;
                }
                step.commit()
            };
            let outcome = patience.of(async { Ok::<_, Trouble>(commit.await) }).await?;
            match (outcome, &tick) {
                (Ok(_), _) => return Ok(true),
                (Err(MultiWriteError::OperationFailed { index: 0, source: Error::NoNode }), _) => return Ok(false),
                // The lock's own node is another program's, which lets us stand in line and nothing else.
                (Err(MultiWriteError::OperationFailed { index: 1, source: Error::NoAuth }), None) => {
                    return plainly(client, &entry, patience).await;
                }
                (Err(MultiWriteError::OperationFailed { index: 2, source }), Some(change)) => {
                    self.after_refused_change(client, change, source, patience).await?;
                }
                (Err(error), _) => return Err(Error::from(error).into()),
            }
        }
    }

    /// What is to be written of a finished tick; nothing if it, or a later one, is there.
    async fn tick_change(
        &self,
        client: &Client,
        leaving: &Leaving<'_>,
        patience: &Patience<'_>,
    ) -> Result<Option<Change>, Trouble> {
        let Some((done, path)) = &leaving.done else { return Ok(None) };
        let kept = self.kept_tick(client, path, patience).await?;
        // What can't be read is written over: it says nothing.
        let is_there = kept.as_ref().and_then(|kept| kept.used.as_ref()).is_some_and(|used| used.tick >= *done);
        Ok((!is_there).then(|| Change::of(path, &UsedUp::by_release(*done), kept.as_ref())))
    }
}

async fn plainly(client: &Client, entry: &str, patience: &Patience<'_>) -> Result<bool, Trouble> {
    match patience.of(client.delete(entry, None)).await {
        Ok(()) => Ok(true),
        Err(trouble) if trouble.is_no_node() => Ok(false),
        Err(trouble) => Err(trouble),
    }
}

impl Line {
    /// Ends a claim and deletes what it has at the server; whether it held the lock until now.
    pub(crate) async fn leave(
        &self,
        claim: &Claim,
        done: Option<Tick>,
        patience: &Patience<'_>,
    ) -> Result<Released, StoreError> {
        self.table.end(claim);
        let mut place = claim.place.lock().await;
        let path = self.ground.paths.lock(&claim.name);
        let done = done.map(|tick| (tick, self.ground.paths.tick(&claim.name)));
        let mut answers_lost = false;
        loop {
            if claim.session.is_over() {
                self.table.remove(claim);
                return Ok(Released::NotHeld);
            }
            match self.delete_all(claim, &mut place, &path, done.clone(), patience).await {
                Ok(was_there) => {
                    self.table.remove(claim);
                    let own = answers_lost && claim.token().is_some();
                    if own && !was_there && done.is_some() {
                        // By the attempt whose answer was lost, with its tick; or by force, without.
                        let message = "it isn't yours any more; whether its tick was recorded isn't known";
                        return Err(StoreError::unknown(ErrorKind::Unreachable, message));
                    }
                    let released = was_there || own;
                    return Ok(if released { Released::Released } else { Released::NotHeld });
                }
                Err(trouble) if trouble.is_connection_lost() && !patience.is_over() => {
                    answers_lost = true;
                    patience.pause().await;
                }
                Err(trouble) if trouble.is_denied() => {
                    // Its session alone can end it, and does when it keeps nothing else.
                    self.sessions.retire(&claim.session);
                    self.table.remove(claim);
                    let message = format!("{path} doesn't let its entries be deleted: this one ends with its session");
                    return Err(StoreError::unknown(ErrorKind::Denied, message));
                }
                Err(trouble) => {
                    claim.session.note(&trouble);
                    if !claim.session.is_over() {
                        return Err(trouble.told(&path, Applied::Maybe));
                    }
                }
            }
        }
    }

    /// Whether what was deleted held the lock.
    async fn delete_all(
        &self,
        claim: &Claim,
        place: &mut Place,
        path: &str,
        done: Option<(Tick, String)>,
        patience: &Patience<'_>,
    ) -> Result<bool, Trouble> {
        let (client, session) = (&claim.session.client, &claim.session);
        place.before = None;
        if place.node.is_none() && !place.doubt {
            return Ok(false);
        }
        let mut held = false;
        if let Some(node) = place.node.clone() {
            let leaving = Leaving { path, node: &node.name, held: claim.token(), done: done.clone() };
            let sent = self.ground.now();
            let was_there = self.ground.delete(client, &leaving, patience).await?;
            session.wrote(sent);
            held = was_there && leaving.held.is_some();
            place.node = None;
            // Where an answer was lost there may be another, made late.
            if !place.was_cut {
                return Ok(held);
            }
            place.doubt = true;
        }
        let queue = queue(&synced_children(client, path, patience).await?);
        for (at, entry) in queue.iter().enumerate().filter(|(_, entry)| entry.owner == Some(claim.owner)) {
            let stat = patience.of(client.check_stat(&format!("{path}/{}", entry.node))).await?;
            let token = stat.filter(|_| at == 0).map(|stat| token(&stat));
            let leaving = Leaving { path, node: &entry.node, held: token, done: done.clone() };
            held |= self.ground.delete(client, &leaving, patience).await? && token.is_some();
        }
        *place = Place::default();
        Ok(held)
    }

    pub(crate) async fn release(&self, front: &Front, request: &ReleaseRequest) -> Result<Released, StoreError> {
        if !request.keep_for.is_zero() {
            let message = "what ZooKeeper keeps ends with its session: the process itself must keep the lock";
            return Err(StoreError::refused(ErrorKind::Unsupported, message));
        }
        let patience = self.ground.patience(self.ground.operation_timeout);
        let Some(claim) = self.table.find(&request.name, request.owner) else {
            return self.release_elsewhere(front, request, &patience).await;
        };
        if request.token.is_some_and(|token| claim.token() != Some(token)) {
            return Ok(Released::NotHeld);
        }
        let over = self.is_over(&claim);
        let left = self.leave(&claim, request.done, &patience).await?;
        Ok(if over { Released::NotHeld } else { left })
    }

    /// Gives back what another session holds.
    async fn release_elsewhere(
        &self,
        front: &Front,
        request: &ReleaseRequest,
        patience: &Patience<'_>,
    ) -> Result<Released, StoreError> {
        let path = &self.ground.paths.lock(&request.name);
        let own = |client: Client| async move {
            let queue = queue(&synced_children(&client, path, patience).await?);
            let Some(at) = queue.iter().position(|entry| entry.owner == Some(request.owner)) else { return Ok(None) };
            let stat = patience.of(client.check_stat(&format!("{path}/{}", queue[at].node))).await?;
            Ok(stat.map(|stat| (queue[at].node.clone(), (at == 0).then(|| token(&stat)))))
        };
        let Some((node, held)) = front.ask(path, patience, own).await? else { return Ok(Released::NotHeld) };
        if request.token.is_some_and(|token| held != Some(token)) {
            return Ok(Released::NotHeld);
        }
        let done = request.done.map(|tick| (tick, self.ground.paths.tick(&request.name)));
        let was_there = front.take_away(&Leaving { path, node: &node, held, done }, patience).await?;
        Ok(if was_there && held.is_some() { Released::Released } else { Released::NotHeld })
    }

    /// Renews without a message: the session's heartbeats renew all that lives off it. That the node is still there is
    /// known by a watch on it, from the first renewal on.
    pub(crate) async fn renew(&self, request: &RenewRequest, asked: Moment) -> Result<Renewed, StoreError> {
        let Some(claim) = self.table.find(&request.name, request.owner) else { return Ok(Renewed::Lost) };
        if self.is_over(&claim) || claim.token() != Some(request.token) {
            return Ok(Renewed::Lost);
        }
        let session = &claim.session;
        let path = self.ground.paths.lock(&claim.name);
        let patience = self.ground.patience(self.ground.operation_timeout.min(session.timeout));
        let unwatched = match &*claim.hold() {
            Hold::Held { node, watch: None } => Some(node.clone()),
            _ => None,
        };
        let renewed = async {
            if let Some(node) = unwatched {
                self.watch_own(&claim, &path, node, &patience).await?;
            }
            // Where writes are slow that doesn't come soon; then what is certain already is enough.
            let soon = self.ground.patience((session.timeout / 12).min(self.ground.operation_timeout));
            match session.await_left(session.fresh(), &soon).await {
                Ok(()) => Ok(()),
                Err(_) => session.await_left(least(session.timeout), &patience).await,
            }
        };
        match renewed.await {
            Ok(()) if self.is_over(&claim) => Ok(Renewed::Lost),
            Ok(()) if self.table.keep_longer(&claim, self.ground.now() + request.ttl) => {
                // As long as it is kept, and as the session is certain.
                Ok(Renewed::Held(session.left(asked).min(request.ttl)))
            }
            Ok(()) => Ok(Renewed::Lost),
            Err(trouble) => {
                session.note(&trouble);
                if self.is_over(&claim) {
                    return Ok(Renewed::Lost);
                }
                Err(trouble.told(&path, Applied::Maybe))
            }
        }
    }

    async fn watch_own(
        &self,
        claim: &Arc<Claim>,
        path: &str,
        node: Node,
        patience: &Patience<'_>,
    ) -> Result<(), Trouble> {
        let own = format!("{path}/{}", node.name);
        let (stat, watcher) = patience.of(claim.session.client.check_and_watch_stat(&own)).await?;
        let mut hold = claim.hold();
        // Nothing, if it was given back meanwhile.
        if let Hold::Held { watch, .. } = &mut *hold {
            if stat.is_none() {
                *hold = Hold::Gone;
            } else {
                *watch = Some(until_gone(claim, watcher));
            }
        }
        Ok(())
    }
}

/// Notes that a holder's node is gone when that is told.
fn until_gone(claim: &Arc<Claim>, watcher: OneshotWatcher) -> Background {
    let claim = Arc::downgrade(claim);
    let task = tokio::spawn(async move {
        let event = watcher.changed().await;
        let Some(claim) = claim.upgrade() else { return };
        let mut hold = claim.hold();
        if let Hold::Held { watch, .. } = &mut *hold {
            if event.event_type == EventType::NodeDeleted {
                *hold = Hold::Gone;
            } else {
                // Somebody wrote to it: watched anew at the next renewal.
                *watch = None;
            }
        }
    });
    task.into()
}
