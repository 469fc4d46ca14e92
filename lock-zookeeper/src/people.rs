//! What people are told of locks, and what they can do.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures_util::future::{join3, try_join_all};
use lock_core::{Applied, Holding, ListRequest, LockName, LockState, LockStatus, StoreError};
use zookeeper_client::{Client, Error};

use crate::{
    data::{Last, Standing},
    error::Trouble,
    ground::{Ground, Patience},
    leave::Leaving,
    names::decoded,
    node::{Entry, queue},
    opening::Opening,
    stand::{synced_children, token},
};

/// How many locks a page of a list has at most.
const LONGEST_PAGE: usize = 1000;

/// So many locks are looked at at once.
const AT_ONCE: usize = 64;

/// A client for questions, with a session as long as the servers grant: it keeps nothing.
pub(crate) struct Front {
    ground: Arc<Ground>,
    client: Opening<Client>,
    /// Whether a question was left unanswered: then the next is asked over another session, maybe at another server.
    silent: AtomicBool,
    longest: std::time::Duration,
}

impl Front {
    pub(crate) fn new(ground: &Arc<Ground>, client: Client) -> Self {
        let longest = client.session_timeout();
        Self { ground: Arc::clone(ground), client: Opening::new(Some(client)), silent: AtomicBool::new(false), longest }
    }

    /// A client whose session goes on.
    pub(crate) async fn client(&self, patience: &Patience<'_>) -> Result<Client, StoreError> {
        let open = async {
            let (client, _) = self.ground.open(self.longest).await?;
            self.silent.store(false, Ordering::SeqCst);
            Ok(client)
        };
        let is_good = |client: &Client| !client.state().is_terminated() && !self.silent.load(Ordering::SeqCst);
        self.client.get(&self.ground, patience, is_good, open).await
    }

    pub(crate) async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        let patience = &self.ground.patience(self.ground.operation_timeout);
        let path = self.ground.paths.lock(name);
        self.ask(&path, patience, |client| async move { self.status(&client, name, patience).await }).await
    }

    pub(crate) async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        let patience = &self.ground.patience(self.ground.operation_timeout);
        let most = usize::try_from(request.limit).unwrap_or(LONGEST_PAGE).clamp(1, LONGEST_PAGE);
        let locks = &self.ground.paths.locks();
        let children =
            self.ask(locks, patience, |client| async move { synced_children(&client, locks, patience).await }).await?;
        let mut names: Vec<LockName> = children
            .iter()
            .filter_map(|child| decoded(child))
            .filter(|name| name.as_str().starts_with(&request.prefix))
            .filter(|name| request.after.as_ref().is_none_or(|after| name > after))
            .collect();
        names.sort_unstable();
        let mut page = Vec::new();
        for names in names.chunks(most.min(AT_ONCE)) {
            let look = |client| async move {
                try_join_all(names.iter().map(|name| self.status(&client, name, patience))).await
            };
            let found = self.ask(locks, patience, look).await?;
            page.extend(found.into_iter().flatten());
            if page.len() >= most {
                page.truncate(most);
                break;
            }
        }
        Ok(page)
    }

    pub(crate) async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        let patience = &self.ground.patience(self.ground.operation_timeout);
        let path = &self.ground.paths.lock(name);
        loop {
            let head = |client: Client| async move {
                let queue = queue(&synced_children(&client, path, patience).await?);
                let Some(head) = queue.into_iter().next() else { return Ok(None) };
                let stat = patience.of(client.check_stat(&format!("{path}/{}", head.node))).await?;
                Ok(Some((head.node, stat.map(|stat| token(&stat)))))
            };
            let Some((node, held)) = self.ask(path, patience, head).await? else { return Ok(false) };
            // It alone is meant, also where an answer is lost and it is tried again: not who has the lock after it.
            let leaving = Leaving { path, node: &node, held, done: None };
            if held.is_some() && self.take_away(&leaving, patience).await? {
                return Ok(true);
            }
            // Gone between the look and the step: the next one is meant.
        }
    }

    /// Deletes this entry, and no other; `false` if it was gone before.
    pub(crate) async fn take_away(&self, leaving: &Leaving<'_>, patience: &Patience<'_>) -> Result<bool, StoreError> {
        let mut answers_lost = false;
        loop {
            let client = self.client(patience).await.map_err(|error| match answers_lost {
                true => StoreError::unknown(error.kind(), "an attempt was left unanswered").caused_by(error),
                false => error,
            })?;
            match self.ground.delete(&client, leaving, patience).await {
                // Gone by the attempt whose answer was lost, or by its holder just then: it is as was wanted.
                Ok(was_there) => return Ok(was_there || answers_lost),
                Err(trouble) => {
                    answers_lost = true;
                    self.after(trouble, patience)
                        .await
                        .map_err(|trouble| trouble.told(leaving.path, Applied::Maybe))?;
                }
            }
        }
    }

    /// Asks once more where the connection broke; a question changes nothing.
    pub(crate) async fn ask<T, F: Future<Output = Result<T, Trouble>>>(
        &self,
        path: &str,
        patience: &Patience<'_>,
        question: impl Fn(Client) -> F,
    ) -> Result<T, StoreError> {
        loop {
            match question(self.client(patience).await?).await {
                Ok(answer) => return Ok(answer),
                Err(trouble) => {
                    self.after(trouble, patience).await.map_err(|trouble| trouble.told(path, Applied::No))?;
                }
            }
        }
    }

    /// Takes in what went wrong with a request: after a silence the next is asked over another session.
    pub(crate) fn note(&self, trouble: &Trouble) {
        if trouble.is_silence() || trouble.is_driver_gone() {
            self.silent.store(true, Ordering::SeqCst);
        }
    }

    /// What follows from a failure: it may be tried again, or there is no more to be had.
    async fn after(&self, trouble: Trouble, patience: &Patience<'_>) -> Result<(), Trouble> {
        let may_go_on = trouble.is_connection_lost() || trouble.is_driver_gone() || trouble.is_session_over();
        let is_last = !may_go_on || patience.is_over();
        self.note(&trouble);
        if may_go_on && is_last {
            self.silent.store(true, Ordering::SeqCst);
        }
        if is_last {
            return Err(trouble);
        }
        patience.pause().await;
        Ok(())
    }

    /// What is known of a lock; nothing where nobody left a trace.
    async fn status(
        &self,
        client: &Client,
        name: &LockName,
        patience: &Patience<'_>,
    ) -> Result<Option<LockStatus>, Trouble> {
        let path = self.ground.paths.lock(name);
        loop {
            let (synced, children, last) = (client.sync(&path), client.list_children(&path), client.get_data(&path));
            let (synced, children, last) =
                patience.of(async { Ok::<_, Trouble>(join3(synced, children, last).await) }).await?;
            let (children, last) = match (children, last) {
                (Err(Error::NoNode), _) | (_, Err(Error::NoNode)) => return Ok(None),
                (children, last) => (children?, last?.0),
            };
            synced?;
            let queue = queue(&children);
            let last = Last::token(&last);
            let Some(head) = queue.first() else {
                let free = |token| LockStatus {
                    name: name.clone(),
                    state: LockState::Free,
                    last_token: Some(token),
                    waiters: Some(0),
                };
                return Ok(last.map(free));
            };
            match patience.of(client.get_data(&format!("{path}/{}", head.node))).await {
                Ok((data, stat)) => {
                    let token = token(&stat);
                    let state = LockState::Held(holding(head, token, &Standing::read(&data)));
                    let waiters = u64::try_from(queue.len() - 1).ok();
                    return Ok(Some(LockStatus { name: name.clone(), state, last_token: Some(token), waiters }));
                }
                // Gone meanwhile.
                Err(trouble) if trouble.is_no_node() => {}
                Err(trouble) => return Err(trouble),
            }
        }
    }
}

/// Another program's entry has no owner of ours; its token tells it from others.
fn holding(head: &Entry, token: lock_core::FencingToken, standing: &Standing) -> Holding {
    Holding {
        owner: head.owner.unwrap_or(lock_core::OwnerId::from_u128(u128::from(token.get()))),
        token,
        remaining: standing.remaining().unwrap_or_default(),
        holder: standing.holder.clone(),
    }
}
