//! Acquiring: an entry where there is none, a place in line behind the others, a look whether one's turn has come.

use std::{sync::Arc, time::Duration};

use etcd_client::KeyValue;
use futures_util::future::join_all;
use lock_core::{AcquireRequest, Acquired, FencingToken, Grant, Held, Moment, Renewed, StoreError, Waiting};

use crate::{
    book::{Line, Own, Place, Stand, Who},
    class::{Class, Shared, whole_seconds},
    entry::Entry,
    store::{Store, of_wanted},
    txn::{self, Found},
};

type Answers = Vec<Result<Acquired, StoreError>>;

/// A wish on its way.
struct Wish<'a> {
    request: &'a AcquireRequest,
    who: Who,
    asked: Moment,
    class: Arc<Class>,
    shared: Shared,
    value: Vec<u8>,
    /// Whether an earlier attempt may have left something.
    doubtful: bool,
}

impl Wish<'_> {
    /// For how long a place in line is kept; `None` for one who doesn't wait.
    fn span(&self) -> Option<Duration> {
        span(self.request)
    }

    fn own(&self, place: Place) -> Own {
        Own {
            who: self.who.clone(),
            seconds: self.class.seconds,
            lease: self.shared.id,
            value: self.value.clone(),
            place,
            leaving: false,
        }
    }
}

/// A store of locks in order wakes each waiter by his own predecessor: who says that he waits gets a place.
fn span(request: &AcquireRequest) -> Option<Duration> {
    match request.waiting {
        Waiting::InLine(span) | Waiting::Wake(span) => Some(span.max(request.ttl)),
        _ => None,
    }
}

/// How a wish begins.
enum Begun<'a> {
    Answered(Result<Acquired, StoreError>),
    Wish(Box<Wish<'a>>),
}

impl Store {
    pub(crate) async fn acquire_wave(&self, asked: Vec<&AcquireRequest>) -> Result<Answers, StoreError> {
        let begun = join_all(asked.iter().map(|request| self.begin(request))).await;
        let mut answers: Vec<Option<Result<Acquired, StoreError>>> = Vec::with_capacity(begun.len());
        let (mut wishes, mut places) = (Vec::new(), Vec::new());
        for (at, begun) in begun.into_iter().enumerate() {
            match begun {
                Begun::Answered(answer) => answers.push(Some(answer)),
                Begun::Wish(wish) => {
                    answers.push(None);
                    places.push(at);
                    wishes.push(*wish);
                }
            }
        }
        if !wishes.is_empty() {
            for (at, answer) in places.into_iter().zip(self.take(wishes).await) {
                answers[at] = Some(answer);
            }
        }
        Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(txn::strange()))).collect())
    }

    async fn begin<'a>(&self, request: &'a AcquireRequest) -> Begun<'a> {
        let asked = self.now();
        match self.again(request, asked).await {
            Ok(Some(answer)) => return Begun::Answered(Ok(answer)),
            Ok(None) => {}
            Err(error) => return Begun::Answered(Err(error)),
        }
        let class = self.classes.of(request.ttl);
        let shared = match class.lease(Duration::from_secs(class.seconds) / 4).await {
            Ok(shared) => shared,
            Err(error) => return Begun::Answered(Err(error)),
        };
        let who = (request.name.clone(), request.owner);
        // What an earlier attempt may have written is to be known again.
        let known = self.book.get(&who).map(|(own, _)| own.value);
        let doubtful = known.is_some();
        let value = known.unwrap_or_else(|| fresh_value(request, shared));
        Begun::Wish(Box::new(Wish { request, who, asked, class, shared, value, doubtful }))
    }

    /// The answer to one who is known already; `None` where he begins anew.
    async fn again(&self, request: &AcquireRequest, asked: Moment) -> Result<Option<Acquired>, StoreError> {
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
    async fn begin_anew(&self, who: &Who) -> Result<Option<Acquired>, StoreError> {
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
        let question = txn::ask(&self.keys, &who.0, &key, stand.modified, (&line.before, line.before_created));
        let answered = self.look(&question).await?;
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
    async fn look_around(
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
        if let Some(tick) = request.tick {
            // By now those before him have left, and what they finished is written.
            let answered = self.look(&txn::finished(&self.keys, &who.0, tick)).await?;
            if let Some(finished) = txn::tick_of(&answered.answer)? {
                self.leave_line(who, stand.created).await?;
                return Ok(Some(Acquired::Finished(finished)));
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

    /// Gives a place in line back.
    async fn leave_line(&self, who: &Who, created: i64) -> Result<(), StoreError> {
        // Of this place only: the request may be applied late, when the owner has another.
        let created = Some(created);
        let release = txn::Release { name: &who.0, owner: who.1, created, mark_under: None, rest: None, done: None };
        self.change(&release.txn(&self.keys)).await?;
        self.forget(who);
        Ok(())
    }

    /// Sends the wishes of those who are not known yet.
    async fn take(&self, mut wishes: Vec<Wish<'_>>) -> Answers {
        let mut vain = 0;
        loop {
            for wish in &mut wishes {
                // What was there ended meanwhile: a deletion of its value may yet come.
                if wish.doubtful && self.book.get(&wish.who).is_none() {
                    wish.value = fresh_value(wish.request, wish.shared);
                }
            }
            // Before it is sent: what comes of it is deleted at its end, if nobody takes it up.
            let entered =
                wishes.iter().all(|wish| self.book.enter(wish.own(Place::Doubt), wish.asked + wish.shared.ttl));
            if !entered {
                // Of a group, those that were entered are deleted at their end.
                let message = "an earlier attempt is being taken back at this moment; ask again";
                return wishes
                    .iter()
                    .map(|_| Err(StoreError::refused(lock_core::ErrorKind::Contention, message)))
                    .collect();
            }
            let txns = wishes
                .iter()
                .map(|wish| txn::acquire(&self.keys, wish.request, &wish.value, wish.shared.id, wish.span().is_some()));
            let done = match self.change(&txn::together(txns.collect())).await {
                Ok(done) => done,
                Err(error) => {
                    vain += 1;
                    if vain < 3 && self.take_other_leases(&mut wishes, &error).await {
                        continue;
                    }
                    for wish in &wishes {
                        self.doubts(&wish.class, &error);
                    }
                    return wishes.iter().map(|_| Err(error.clone())).collect();
                }
            };
            if done.in_doubt {
                wishes.iter().for_each(|wish| wish.class.retire());
            }
            let answers = match txn::apart(&done.answer, wishes.len()) {
                Ok(answers) => answers,
                Err(error) => return wishes.iter().map(|_| Err(error.clone())).collect(),
            };
            let (revision, term) = (done.answer.revision, done.answer.term);
            let taken = wishes.iter().zip(answers).map(|(wish, answer)| async move {
                let found = txn::acquired(&answer, wish.request.tick.is_some(), wish.span().is_some())?;
                self.taken(wish, found, revision, term).await
            });
            return join_all(taken).await;
        }
    }

    /// Whether the error says that a lease is gone, and all have good ones now.
    async fn take_other_leases(&self, wishes: &mut [Wish<'_>], error: &StoreError) -> bool {
        for wish in wishes {
            match self.renewed_lease(&wish.class, error).await {
                Ok(true) => match wish.class.current() {
                    Some(shared) => wish.shared = shared,
                    None => return false,
                },
                _ => return false,
            }
        }
        true
    }

    async fn taken(&self, wish: &Wish<'_>, found: Found, revision: i64, term: u64) -> Result<Acquired, StoreError> {
        match found {
            Found::Put => {
                let stand = Stand { created: revision, modified: revision };
                self.granted(wish, wish.own(Place::Held(stand)), stand, term).await
            }
            Found::Queued { before, head, entries } => {
                let position = u32::try_from(entries - 2).ok();
                let held = held_by(&head, position);
                let stand = Stand { created: revision, modified: revision };
                let line = Line {
                    before: before.key().to_vec(),
                    before_created: before.create_revision(),
                    held: held.clone(),
                };
                let until = wish.asked + wish.span().unwrap_or(wish.shared.ttl);
                let own = wish.own(Place::Line(stand, line));
                if !self.queue(own.clone(), until, revision + 1) {
                    self.undo(&own).await;
                }
                Ok(Acquired::Held(held))
            }
            Found::Own { own, head } => self.found_own(wish, &own, &head, term).await,
            Found::Other { head } => {
                self.forget(&wish.who);
                Ok(Acquired::Held(held_by(&head, None)))
            }
            Found::Finished(tick) => {
                if wish.doubtful {
                    self.begin_anew(&wish.who).await?;
                }
                self.forget(&wish.who);
                Ok(Acquired::Finished(tick))
            }
        }
    }

    /// The owner's entry was there: an earlier attempt's, or another process's.
    async fn found_own(
        &self,
        wish: &Wish<'_>,
        own: &KeyValue,
        head: &KeyValue,
        mut term: u64,
    ) -> Result<Acquired, StoreError> {
        if Entry::read(own.value()).rests {
            self.forget(&wish.who);
            return Ok(Acquired::Held(held_by(head, None)));
        }
        let is_head = own.key() == head.key();
        match wish.span() {
            None if !is_head => {
                self.leave_line(&wish.who, own.create_revision()).await?;
                return Ok(Acquired::Held(held_by(head, None)));
            }
            Some(span) if !is_head => {
                let mine = wish.own(Place::Doubt);
                let rest = (wish.shared, wish.asked, wish.asked + span);
                let placed = self.look_around(wish.request, &wish.who, &mine, own.create_revision(), rest).await?;
                // It went at this very moment: asked again, it queues.
                return Ok(placed.unwrap_or_else(|| Acquired::Held(held_by(head, None))));
            }
            _ => {}
        }
        let mut stand = Stand { created: own.create_revision(), modified: own.mod_revision() };
        if own.lease() != wish.shared.id {
            match self.move_entry(&wish.who, stand, own.value(), wish.shared.id).await? {
                Some(moved) => (stand, term) = moved,
                None => {
                    let message = "the entry was changed by somebody else at the same time";
                    return Err(StoreError::unknown(lock_core::ErrorKind::Contention, message));
                }
            }
        }
        let mine = Own { value: own.value().to_vec(), ..wish.own(Place::Held(stand)) };
        self.granted(wish, mine, stand, term).await
    }

    async fn granted(&self, wish: &Wish<'_>, own: Own, stand: Stand, term: u64) -> Result<Acquired, StoreError> {
        // Before it is proven: whatever comes of that, it is there.
        let mut there = self.book.settle(own.clone(), wish.asked + wish.shared.ttl);
        let proven = self.prove(&wish.class, wish.shared, term, &wish.who, wish.asked).await?;
        let told = of_wanted(&proven, wish.class.seconds, whole_seconds(wish.request.ttl));
        there = there && self.book.settle(own.clone(), wish.asked + told);
        if !there {
            self.undo(&own).await;
            let message = "it was given back, or its time was over, before its grant was answered";
            return Err(StoreError::unknown(lock_core::ErrorKind::Contention, message));
        }
        Ok(Acquired::Granted(Grant::new(token_of(stand.created), told)))
    }
}

/// Unlike any other.
fn fresh_value(request: &AcquireRequest, shared: Shared) -> Vec<u8> {
    Entry { rests: false, holder: request.holder.clone(), ttl: shared.ttl }.write()
}

pub(crate) fn token_of(created: i64) -> FencingToken {
    FencingToken::new(u64::try_from(created).unwrap_or(0))
}

/// What is told of the entry at the head of a queue to one who is refused.
fn held_by(head: &KeyValue, position: Option<u32>) -> Held {
    let entry = Entry::read(head.value());
    Held {
        holder: (!entry.rests).then_some(entry.holder),
        // How much is left of its lease would cost another request.
        remaining: Some(entry.ttl),
        position,
    }
}
