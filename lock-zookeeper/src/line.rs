//! Acquiring: a place in the lock's queue, and what being its head comes to.
//!
//! Who holds a lock is decided by the queue's order alone, and that may be read anywhere: a reading is never older than
//! one's own place in it (a session's requests are answered in order, and its server has seen what it answered for), and
//! nobody gets a place before another's. So who is first in *any* reading that shows its own place is first for good, for
//! as long as its session lives. A reading that is late errs to the other side, and an event follows.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use futures_util::future::join3;
use lock_core::{AcquireRequest, Acquired, Applied, Grant, Held, Moment, StoreError, Waiting, WakeHub};

use crate::{
    data::Standing,
    error::Trouble,
    ground::{Ground, Patience},
    node::queue,
    session::{Sessions, least},
    stand::{Turn, held},
    sweep::Sweeper,
    table::{Claim, Node, Table},
};

/// Who stands in line for this process.
pub(crate) struct Line {
    pub(crate) ground: Arc<Ground>,
    pub(crate) sessions: Sessions,
    pub(crate) table: Arc<Table>,
    pub(crate) wakes: WakeHub<lock_core::OwnerId>,
    pub(crate) sweeper: Sweeper,
}

impl Line {
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        request: &AcquireRequest,
        asked: Moment,
    ) -> Result<Acquired, StoreError> {
        let patience = self.ground.patience(self.ground.operation_timeout);
        // Whether a step of this call was sent that may have used its tick up.
        let stepped = AtomicBool::new(false);
        loop {
            let claim = match self.table.find(&request.name, request.owner) {
                Some(claim) if self.is_over(&claim) => {
                    self.leave(&claim, None, &patience).await?;
                    continue;
                }
                Some(claim) => claim,
                None => {
                    let looks = request.waiting == Waiting::No || request.tick.is_some();
                    if looks
                        && let Some(seen) = self.look(request, &patience, &stepped).await?
                        // The same call may have been asked twice, and its own grant be what was seen.
                        && self.table.find(&request.name, request.owner).is_none()
                    {
                        return Ok(seen);
                    }
                    let session = self.sessions.of(request.ttl, &patience).await?;
                    let due = self.ground.now() + kept_for(request);
                    let claim = self.table.enter(&request.name, request.owner, session, due);
                    self.sweeper.watch_over(self);
                    claim
                }
            };
            match self.take_turn(&claim, request, asked, &patience, &stepped).await {
                Ok(Some(answer)) => return Ok(answer),
                // Its session ended, or it did: once more, with another.
                Ok(None) if !patience.is_over() => {}
                Ok(None) => return Err(patience.silent().told("", Applied::Maybe)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether nothing can come of a claim any more.
    pub(crate) fn is_over(&self, claim: &Claim) -> bool {
        let late = self.table.due(claim).is_none_or(|due| due <= self.ground.now());
        late || claim.has_ended() || claim.is_gone() || claim.session.is_over()
    }

    /// Who isn't going to wait, or asks for a tick, looks first, which costs no write: whether the tick was used up; and who
    /// holds the lock, if somebody does, for who isn't going to wait. `None` if there is nothing in the way.
    ///
    /// With a `sync` before it, so that a lock that was freed anywhere before is seen free.
    async fn look(
        &self,
        request: &AcquireRequest,
        patience: &Patience<'_>,
        stepped: &AtomicBool,
    ) -> Result<Option<Acquired>, StoreError> {
        let mut session = match self.sessions.open_one(request.ttl) {
            Some(session) => session,
            None => self.sessions.of(request.ttl, patience).await?,
        };
        let path = self.ground.paths.lock(&request.name);
        loop {
            let client = &session.client;
            let look = async {
                let (synced, children) = (client.sync(&path), client.list_children(&path));
                let all = join3(synced, children, self.finishes(client, request, patience, stepped));
                let (synced, children, last) = patience.of(async { Ok::<_, Trouble>(all.await) }).await?;
                synced.map_err(Trouble::from)?;
                if let Some(last) = last? {
                    return Ok(Some(Some(Acquired::Finished(last))));
                }
                if request.waiting != Waiting::No {
                    return Ok(Some(None));
                }
                let queue = queue(&children?);
                let Some(head) = queue.first() else { return Ok(Some(None)) };
                match patience.of(client.get_data(&format!("{path}/{}", head.node))).await {
                    Ok((data, _)) => {
                        let standing = Standing::read(&data);
                        Ok(Some(Some(Acquired::Held(held(&standing, None)))))
                    }
                    // Gone meanwhile.
                    Err(trouble) if trouble.is_no_node() => Ok(None),
                    Err(trouble) => Err(trouble),
                }
            };
            match look.await {
                Ok(Some(seen)) => return Ok(seen),
                Ok(None) => {}
                Err(trouble) if trouble.is_no_node() => return Ok(None),
                Err(trouble) if trouble.is_connection_lost() && !patience.is_over() => patience.pause().await,
                Err(trouble) => {
                    session.note(&trouble);
                    if session.is_over() && !patience.is_over() {
                        session = self.sessions.of(request.ttl, patience).await?;
                        continue;
                    }
                    return Err(trouble.told(&path, Applied::No));
                }
            }
        }
    }

    /// Takes a claim's place, or looks how it stands; `None` if the claim is over.
    async fn take_turn(
        &self,
        claim: &Arc<Claim>,
        request: &AcquireRequest,
        asked: Moment,
        patience: &Patience<'_>,
        stepped: &AtomicBool,
    ) -> Result<Option<Acquired>, StoreError> {
        let path = self.ground.paths.lock(&claim.name);
        let mut place = claim.place.lock().await;
        let turn = loop {
            if self.is_over(claim) {
                drop(place);
                self.leave(claim, None, patience).await?;
                return Ok(None);
            }
            // Whoever gives up asking leaves nothing that stays for longer than was asked for.
            self.table.keep_longer(claim, self.ground.now() + kept_for(request));
            match self.attempt(claim, &mut place, &path, request, patience, stepped).await {
                Ok(Turn::Again) if !patience.is_over() => {}
                Ok(turn) => break turn,
                Err(trouble) if trouble.is_connection_lost() && !patience.is_over() => patience.pause().await,
                Err(trouble) if trouble.is_hopeless() => {
                    drop(place);
                    self.leave(claim, None, patience).await?;
                    return Err(trouble.told(&path, Applied::No));
                }
                Err(trouble) => {
                    claim.session.note(&trouble);
                    if claim.session.is_over() && !patience.is_over() {
                        // Seen above.
                        continue;
                    }
                    // Unknown, or a place that stays: nobody may ask again, so it is kept for no longer than asked for.
                    let stays = place.doubt || place.node.is_some();
                    if claim.token().is_none() {
                        self.table.keep_until(claim, asked + kept_for(request));
                    }
                    return Err(trouble.told(&path, if stays { Applied::Maybe } else { Applied::No }));
                }
            }
        };
        if let (Turn::Behind(_), Waiting::InLine(span)) = (&turn, request.waiting) {
            self.table.keep_until(claim, self.ground.now() + span);
        }
        match turn {
            Turn::Head(node) => self.granted(claim, node, request.ttl, asked, patience, &path).await,
            Turn::Behind(held) if matches!(request.waiting, Waiting::InLine(_)) => Ok(Some(Acquired::Held(held))),
            other => {
                drop(place);
                self.leave(claim, None, patience).await?;
                Ok(Some(match other {
                    Turn::Behind(held) => Acquired::Held(Held { position: None, ..held }),
                    Turn::Finished(tick) => Acquired::Finished(tick),
                    Turn::Head(_) | Turn::Again => return Ok(None),
                }))
            }
        }
    }

    /// The grant, once enough of the session is certain; `None` if the claim ended meanwhile.
    async fn granted(
        &self,
        claim: &Claim,
        node: Node,
        ttl: Duration,
        asked: Moment,
        patience: &Patience<'_>,
        path: &str,
    ) -> Result<Option<Acquired>, StoreError> {
        let session = &claim.session;
        let believed = session.await_left(least(session.timeout), patience).await;
        believed.map_err(|trouble| trouble.told(path, Applied::Maybe))?;
        let (token, ttl) = (node.token, session.left(asked).min(ttl));
        let is_held = self.table.hold(claim, node, self.ground.now() + ttl);
        Ok(is_held.then_some(Acquired::Granted(Grant::new(token, ttl))))
    }
}

/// For how long a place is kept of which nobody has learnt that it is held.
fn kept_for(request: &AcquireRequest) -> Duration {
    match request.waiting {
        Waiting::InLine(span) => span.max(request.ttl),
        _ => request.ttl,
    }
}
