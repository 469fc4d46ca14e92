//! Acquiring: an entry where there is none, a place in line behind the others, a look whether one's turn has come.

use std::{sync::Arc, time::Duration};

use etcd_client::KeyValue;
use futures_util::future::join_all;
use lock_core::{AcquireRequest, Acquired, FencingToken, Grant, Held, Moment, StoreError};

use crate::{
    book::{Line, Own, Place, Stand, Who},
    class::{Class, Shared, whole_seconds},
    entry::Entry,
    line::span,
    store::{Store, of_wanted},
    tick::LastTick,
    txn::{self, Found, Turn},
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
            let (revision, term, in_doubt) = (done.answer.revision, done.answer.term, done.in_doubt);
            let taken = wishes.iter().zip(answers).map(|(wish, answer)| async move {
                let found = txn::acquired(&answer, wish.request.tick.is_some(), wish.span().is_some())?;
                let answer = self.taken(wish, found, revision, term).await?;
                wish.request.after_doubt(answer, in_doubt)
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
            Found::Own { own, head, last } => self.found_own(wish, &own, &head, last, term).await,
            Found::Other { head } => {
                self.forget(&wish.who);
                Ok(Acquired::Held(held_by(&head, None)))
            }
            Found::Finished(last) => {
                if wish.doubtful {
                    self.begin_anew(&wish.who).await?;
                }
                self.forget(&wish.who);
                Ok(Acquired::Finished(last.tick))
            }
        }
    }

    /// The owner's entry was there: an earlier attempt's, or another process's.
    async fn found_own(
        &self,
        wish: &Wish<'_>,
        own: &KeyValue,
        head: &KeyValue,
        last: Option<LastTick>,
        mut term: u64,
    ) -> Result<Acquired, StoreError> {
        let finished = last.and_then(|last| last.finishes(wish.request));
        if Entry::read(own.value()).rests {
            self.forget(&wish.who);
            return Ok(finished.map_or_else(|| Acquired::Held(held_by(head, None)), Acquired::Finished));
        }
        let by_this_grant = last.is_some_and(|last| last.is_of(wish.who.1));
        if let Some(finished) = finished.filter(|_| !by_this_grant) {
            return self.leave_finished(&wish.who, own.create_revision(), finished).await;
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
            // Queued by an earlier attempt, and first by now.
            _ if !by_this_grant && wish.request.used_by_grant().is_some() => {
                match self.use_up(wish.request, own.create_revision()).await? {
                    Turn::Open => {}
                    Turn::Used(last) => {
                        return self.leave_finished(&wish.who, own.create_revision(), last.tick).await;
                    }
                    Turn::Gone => {
                        self.forget(&wish.who);
                        return Ok(Acquired::Held(held_by(head, None)));
                    }
                }
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
pub(crate) fn held_by(head: &KeyValue, position: Option<u32>) -> Held {
    let entry = Entry::read(head.value());
    Held {
        holder: (!entry.rests).then_some(entry.holder),
        // How much is left of its lease would cost another request.
        remaining: Some(entry.ttl),
        position,
    }
}
