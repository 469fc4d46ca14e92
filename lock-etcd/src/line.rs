//! Of one who is known already: whether his turn has come, and what he leaves when he goes.

use std::time::Duration;

use etcd_client::KeyValue;
use lock_core::{AcquireRequest, Acquired, Grant, Moment, Renewed, StoreError, Tick, Waiting};

use crate::{
    acquire::{held_by, token_of},
    book::{Line, Own, Place, Stand, Who},
    class::{Shared, whole_seconds},
    entry::Entry,
    store::{Store, of_wanted},
    txn::{self, Turn},
};

/// A store of locks in order wakes each waiter by his own predecessor: who says that he waits gets a place.
pub(crate) fn span(request: &AcquireRequest) -> Option<Duration> {
    match request.waiting {
        Waiting::InLine(span) | Waiting::Wake(span) => Some(span.max(request.ttl)),
        _ => None,
    }
}

impl Store {
    /// The answer to one who is known already; `None` where he begins anew.
    pub(crate) async fn again(&self, request: &AcquireRequest, asked: Moment) -> Result<Option<Acquired>, StoreError> {
        let who = (request.name.clone(), request.owner);
        let Some((own, until)) = self.book.get(&who) else { return Ok(None) };
        if own.leaving || until <= asked {
            return self.begin_anew(&who).await;
        }
        match &own.place {
            Place::Doubt => Ok(None),
            Place::Held(stand) => {
                let token = token_of(stand.created);
                match self.extend(&who, token, request.ttl, asked).await? {
                    Renewed::Held(ttl) => Ok(Some(Acquired::Granted(Grant::new(token, ttl)))),
                    // Its end came while the store was asked, or it isn't there.
                    _ => self.begin_anew(&who).await,
                }
            }
            Place::Line(stand, line) => match span(request) {
                Some(span) => self.ask(request, &who, &own, (*stand, line), asked, asked + span).await,
                None => {
                    self.leave_line(&who, stand.created).await?;
                    Ok(None)
                }
            },
        }
    }

    /// Has what is leaving deleted first, so that nothing that comes now is deleted with it.
    pub(crate) async fn begin_anew(&self, who: &Who) -> Result<Option<Acquired>, StoreError> {
        if let Some(own) = self.book.leave(who) {
            self.expire(&own).await?;
        }
        Ok(None)
    }

    /// Whether the turn of one who waits has come.
    async fn ask(
        &self,
        request: &AcquireRequest,
        who: &Who,
        own: &Own,
        (stand, line): (Stand, &Line),
        asked: Moment,
        until: Moment,
    ) -> Result<Option<Acquired>, StoreError> {
        let class = self.classes.of(Duration::from_secs(own.seconds));
        let shared = class.lease(Duration::from_secs(own.seconds) / 2).await?;
        let key = self.key(who);
        let question = txn::ask(&self.keys, request, &key, stand.modified, (&line.before, line.before_created));
        let answered = self.look(&question).await?;
        let last = txn::last_tick(&answered.answer, if answered.answer.succeeded() { 0 } else { 2 })?;
        if let Some(finished) = last.filter(|last| !last.is_of(who.1)).and_then(|last| last.finishes(request)) {
            // He needn't wait for whoever is before him.
            return self.leave_finished(who, stand.created, finished).await.map(Some);
        }
        if answered.answer.succeeded() && shared.id == own.lease {
            return self.turn(request, who, own, (stand, shared, answered.term), asked).await;
        }
        let mut found = txn::gets(&answered.answer)?.into_iter();
        let (mine, before) = (found.next().flatten(), found.next().flatten());
        let in_place = |kv: &KeyValue| kv.mod_revision() == stand.modified && kv.lease() == shared.id;
        let still = before.is_some_and(|before| before.create_revision() == line.before_created);
        if still && mine.as_ref().is_some_and(in_place) {
            if !self.book.extend(who, until, |_| {}) {
                return self.begin_anew(who).await;
            }
            // A watch that the store gave up (compaction) woke him; from here on he hears again.
            self.wakes.follow_again(who, &line.before, answered.revision + 1);
            return Ok(Some(Acquired::Held(line.held.clone())));
        }
        self.look_around(request, who, own, stand.created, (shared, asked, until)).await
    }

    /// Finds one's place by looking at those before.
    pub(crate) async fn look_around(
        &self,
        request: &AcquireRequest,
        who: &Who,
        own: &Own,
        created: i64,
        (shared, asked, until): (Shared, Moment, Moment),
    ) -> Result<Option<Acquired>, StoreError> {
        let seen = self.neighbours(who, created).await?;
        let Some(mine) = seen.own.filter(|kv| !Entry::read(kv.value()).rests) else {
            // The lease at the store ended, or somebody deleted the entry: it begins at the end of the line.
            self.forget(who);
            return Ok(None);
        };
        let (mut stand, mut term) = (Stand { created, modified: mine.mod_revision() }, seen.term);
        if mine.lease() != shared.id {
            match self.move_entry(who, stand, mine.value(), shared.id).await? {
                Some(moved) => (stand, term) = moved,
                None => {
                    self.forget(who);
                    return Ok(None);
                }
            }
        }
        let own = Own { lease: shared.id, value: mine.value().to_vec(), ..own.clone() };
        let Some(before) = seen.before else {
            return self.turn(request, who, &own, (stand, shared, term), asked).await;
        };
        let held = match &own.place {
            Place::Line(_, line) => line.held.clone(),
            _ => held_by(&before, None),
        };
        let line = Line { before: before.key().to_vec(), before_created: before.create_revision(), held: held.clone() };
        if !self.queue(Own { place: Place::Line(stand, line), ..own }, until, seen.revision + 1) {
            return self.begin_anew(who).await;
        }
        Ok(Some(Acquired::Held(held)))
    }

    /// Grants what has come to one who waited, unless his time was over meanwhile, or what he wants it for is done.
    async fn turn(
        &self,
        request: &AcquireRequest,
        who: &Who,
        own: &Own,
        (stand, shared, term): (Stand, Shared, u64),
        asked: Moment,
    ) -> Result<Option<Acquired>, StoreError> {
        match self.use_up(request, stand.created).await? {
            Turn::Open => {}
            Turn::Used(last) => return self.leave_finished(who, stand.created, last.tick).await.map(Some),
            Turn::Gone => {
                self.forget(who);
                return Ok(None);
            }
        }
        let class = self.classes.of(Duration::from_secs(own.seconds));
        let proven = self.prove(&class, shared, term, who, asked).await?;
        let told = of_wanted(&proven, own.seconds, whole_seconds(request.ttl));
        if !self.book.settle(Own { place: Place::Held(stand), ..own.clone() }, asked + told) {
            return self.begin_anew(who).await;
        }
        self.wakes.unfollow(who);
        Ok(Some(Acquired::Granted(Grant::new(token_of(stand.created), told))))
    }

    /// Looks at the tick of one who comes first by now, and uses it up where the grant does.
    pub(crate) async fn use_up(&self, request: &AcquireRequest, created: i64) -> Result<Turn, StoreError> {
        let Some(tick) = request.tick else { return Ok(Turn::Open) };
        if request.used_by_grant().is_none() {
            // By now those before him have left, and what they finished is written.
            return txn::looked_at(&self.look(&txn::look_at_tick(&self.keys, &request.name, tick)).await?.answer);
        }
        let done = self.change(&txn::use_up(&self.keys, request, tick, created)).await?;
        Ok(match txn::used_up(&done.answer.answer)? {
            // An attempt whose answer was lost, for this very entry.
            Turn::Used(last) if last.is_of(request.owner) => Turn::Open,
            turn => turn,
        })
    }

    /// Answers one whose tick was used up; his place goes with it.
    pub(crate) async fn leave_finished(&self, who: &Who, created: i64, last: Tick) -> Result<Acquired, StoreError> {
        self.leave_line(who, created).await?;
        Ok(Acquired::Finished(last))
    }

    /// Gives a place in line back.
    pub(crate) async fn leave_line(&self, who: &Who, created: i64) -> Result<(), StoreError> {
        // Of this place only: the request may be applied late, when the owner has another.
        let created = Some(created);
        let release = txn::Release { name: &who.0, owner: who.1, created, mark_under: None, rest: None, done: None };
        self.change(&release.txn(&self.keys)).await?;
        self.forget(who);
        Ok(())
    }
}
