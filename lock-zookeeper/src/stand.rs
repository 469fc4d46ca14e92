//! How a claim stands in its lock's queue: from the place it has, or a new one.

use std::sync::Arc;

use futures_util::future::{join, join3};
use lock_core::{AcquireRequest, FencingToken, Held, Tick};
use zookeeper_client::{Client, CreateMode, Error, OneshotWatcher, Stat};

use crate::{
    data::{Last, Standing},
    error::Trouble,
    ground::Patience,
    line::Line,
    node::{Entry, is_in_order, prefix, queue},
    table::{Background, Claim, Node, Place, Predecessor},
};

/// What an attempt came to.
pub(crate) enum Turn {
    /// First in the queue.
    Head(Node),
    /// Behind others.
    Behind(Held),
    /// The tick that was asked for was used up before: it, or a later one, which is this.
    Finished(Tick),
    /// Its node was deleted, by people maybe: to be looked at anew.
    Again,
}

impl Line {
    /// How a claim stands, from the place it has or a new one.
    pub(crate) async fn stand(
        &self,
        claim: &Arc<Claim>,
        place: &mut Place,
        path: &str,
        request: &AcquireRequest,
        patience: &Patience<'_>,
    ) -> Result<Turn, Trouble> {
        let client = &claim.session.client;
        let mut children = None;
        if place.node.is_none() && place.doubt {
            place.was_cut = true;
            let listed = synced_children(client, path, patience).await?;
            place.node = match queue(&listed).into_iter().find(|entry| entry.owner == Some(claim.owner)) {
                Some(entry) => self.stat(client, path, &entry, patience).await?,
                None => None,
            };
            place.doubt = false;
            children = place.node.is_some().then_some(listed);
        }
        if let (Some(node), Some(before)) = (&place.node, &mut place.before) {
            match self.look_before(claim, path, node, before, patience).await? {
                Look::Head => return Ok(Turn::Head(node.clone())),
                Look::Behind(held) => return Ok(Turn::Behind(held)),
                Look::Unclear => place.before = None,
                Look::Gone => {
                    *place = Place::default();
                    return Ok(gone(claim));
                }
            }
        }
        let children = match (&place.node, children) {
            (Some(_), Some(children)) => children,
            (Some(_), None) => listed(client, path, patience).await?,
            (None, _) => {
                let (made, children) = self.make(claim, place, path, request, patience).await?;
                place.node = Some(made);
                children
            }
        };
        self.judge(claim, place, path, &children, patience).await
    }

    /// Makes an entry, and reads the queue right behind it.
    async fn make(
        &self,
        claim: &Claim,
        place: &mut Place,
        path: &str,
        request: &AcquireRequest,
        patience: &Patience<'_>,
    ) -> Result<(Node, Vec<String>), Trouble> {
        let client = &claim.session.client;
        let ttl = request.ttl.min(claim.session.timeout);
        let (entry, data) = (format!("{path}/{}", prefix(claim.owner)), Standing::written(&request.holder, ttl));
        let options = self.ground.options(CreateMode::EphemeralSequential);
        loop {
            place.doubt = true;
            let sent = self.ground.now();
            let (made, children) = (client.create(&entry, &data, &options), client.list_children(path));
            let (made, children) = patience.of(async { Ok::<_, Trouble>(join(made, children).await) }).await?;
            match made {
                Ok((stat, number)) => {
                    claim.session.wrote(sent);
                    place.doubt = false;
                    let node = Node { name: format!("{}{number}", prefix(claim.owner)), token: token(&stat) };
                    place.node = Some(node.clone());
                    return Ok((node, children?));
                }
                Err(Error::NoNode) => {
                    place.doubt = false;
                    self.make_container(client, path, patience).await?;
                }
                Err(error) => {
                    let trouble = Trouble::from(error);
                    place.doubt = trouble.is_connection_lost() || trouble.is_driver_gone();
                    return Err(trouble);
                }
            }
        }
    }

    /// Makes the lock's own node. The server removes it some time after the last entry is gone.
    async fn make_container(&self, client: &Client, path: &str, patience: &Patience<'_>) -> Result<(), Trouble> {
        let options = self.ground.options(CreateMode::Container);
        match patience.of(client.create(path, b"", &options)).await {
            Ok(_) | Err(Trouble::Said(Error::NodeExists)) => Ok(()),
            Err(trouble) if trouble.is_no_node() => {
                self.ground.make(client, &self.ground.paths.locks(), patience).await
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// The token of a node that was found.
    async fn stat(
        &self,
        client: &Client,
        path: &str,
        entry: &Entry,
        patience: &Patience<'_>,
    ) -> Result<Option<Node>, Trouble> {
        let stat = patience.of(client.check_stat(&format!("{path}/{}", entry.node))).await?;
        Ok(stat.map(|stat| Node { name: entry.node.clone(), token: token(&stat) }))
    }

    /// What a list of the queue says to the one at `place`.
    async fn judge(
        &self,
        claim: &Arc<Claim>,
        place: &mut Place,
        path: &str,
        children: &[String],
        patience: &Patience<'_>,
    ) -> Result<Turn, Trouble> {
        let client = &claim.session.client;
        let mut queue = queue(children);
        loop {
            let own = place.node.as_ref().and_then(|node| queue.iter().position(|entry| entry.node == node.name));
            let (Some(node), Some(own)) = (&place.node, own) else {
                *place = Place::default();
                return Ok(gone(claim));
            };
            if claim.token().is_none() && !is_in_order(&queue, own) {
                return Err(Trouble::Corrupt(format!(
                    "the entries of {path} can't be told apart by number: nobody may ask for the lock until it is gone or made anew"
                )));
            }
            if own == 0 {
                return Ok(Turn::Head(node.clone()));
            }
            let before = format!("{path}/{}", queue[own - 1].node);
            let head = format!("{path}/{}", queue[0].node);
            let (watched, head) = (client.check_and_watch_stat(&before), client.get_data(&head));
            let (watched, head) = patience.of(async { Ok::<_, Trouble>(join(watched, head).await) }).await?;
            let (stat, watcher) = watched?;
            if stat.is_none() {
                queue = self::queue(&listed(client, path, patience).await?);
                continue;
            }
            let standing = head.map(|(data, _)| Standing::read(&data)).unwrap_or_default();
            let position = u32::try_from(own - 1).unwrap_or(u32::MAX);
            place.before = Some(Predecessor {
                node: queue[own - 1].node.clone(),
                watch: Some(self.wake_after(claim, watcher)),
                position,
                remaining: standing.remaining(),
                holder: Some(standing.holder.clone()),
            });
            return Ok(Turn::Behind(held(&standing, Some(position))));
        }
    }

    /// How one stands who was behind somebody: asked without reading the queue, however long it is.
    async fn look_before(
        &self,
        claim: &Arc<Claim>,
        path: &str,
        node: &Node,
        before: &mut Predecessor,
        patience: &Patience<'_>,
    ) -> Result<Look, Trouble> {
        let client = &claim.session.client;
        let (own_path, before_path) = (format!("{path}/{}", node.name), format!("{path}/{}", before.node));
        // Sent in this order, in one go.
        let (own, stat, last) = (client.check_stat(&own_path), client.check_stat(&before_path), client.get_data(path));
        let answers = patience.of(async { Ok::<_, Trouble>(join3(own, stat, last).await) }).await?;
        let (own, mut stat, last) = (answers.0?, answers.1?, answers.2);
        if own.is_none() {
            return Ok(Look::Gone);
        }
        let is_watched = before.watch.as_ref().is_some_and(|watch| !watch.is_finished());
        if stat.is_some() && !is_watched {
            // Woken by something else than its end.
            let (still, watcher) = patience.of(client.check_and_watch_stat(&before_path)).await?;
            before.watch = Some(self.wake_after(claim, watcher));
            stat = still;
        }
        if stat.is_some() {
            let (holder, remaining) = (before.holder.clone(), before.remaining);
            return Ok(Look::Behind(Held { holder, remaining, position: Some(before.position) }));
        }
        // A holder that leaves says so in the same step. Who was before the predecessor had left before that; so if the
        // predecessor held the lock, nobody is before this one.
        let held_it = last.is_ok_and(|(data, _)| Last::was(&data, &before.node));
        Ok(if held_it { Look::Head } else { Look::Unclear })
    }

    /// Wakes the owner when what is watched changes.
    fn wake_after(&self, claim: &Claim, watcher: OneshotWatcher) -> Background {
        let (wakes, owner) = (self.wakes.clone(), claim.owner);
        tokio::spawn(async move {
            watcher.changed().await;
            wakes.wake_one(&owner);
        })
        .into()
    }
}

/// What becomes of a claim whose node isn't there any more: what was held is lost, who waited stands in line anew.
fn gone(claim: &Claim) -> Turn {
    claim.lose();
    Turn::Again
}

/// How one stands behind somebody.
enum Look {
    Head,
    Behind(Held),
    /// The predecessor has left without having been the holder, or something else is to be found out.
    Unclear,
    /// One's own node isn't there.
    Gone,
}

/// What the queue is, as far as this server has seen. The servers remove a lock's own node some time after its last entry.
async fn listed(client: &Client, path: &str, patience: &Patience<'_>) -> Result<Vec<String>, Trouble> {
    match patience.of(client.list_children(path)).await {
        Err(trouble) if trouble.is_no_node() => Ok(Vec::new()),
        children => children,
    }
}

/// What the queue is by now, everywhere.
pub(crate) async fn synced_children(
    client: &Client,
    path: &str,
    patience: &Patience<'_>,
) -> Result<Vec<String>, Trouble> {
    let (synced, children) = (client.sync(path), client.list_children(path));
    let (synced, children) = patience.of(async { Ok::<_, Trouble>(join(synced, children).await) }).await?;
    match (synced, children) {
        (_, Err(Error::NoNode)) => Ok(Vec::new()),
        (Err(error), _) | (_, Err(error)) => Err(error.into()),
        (Ok(()), Ok(children)) => Ok(children),
    }
}

/// The position in the total order of all writes at which a node was made.
pub(crate) fn token(stat: &Stat) -> FencingToken {
    FencingToken::new(u64::try_from(stat.czxid).unwrap_or(0))
}

pub(crate) fn held(standing: &Standing, position: Option<u32>) -> Held {
    Held { holder: Some(standing.holder.clone()), remaining: standing.remaining(), position }
}
