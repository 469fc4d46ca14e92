//! The transactions, and how their answers are read.

use etcd_client::{
    Client, Compare, CompareOp, Error as DriverError, GetOptions, KeyValue, PutOptions, SortOrder, SortTarget, Txn,
    TxnOp, TxnOpResponse, TxnResponse,
};
use lock_core::{AcquireRequest, LockName, OwnerId, StoreError, Tick};

use crate::{
    entry::LIVE,
    error::corrupt,
    keys::Keys,
    tick::{LastTick, is_used_up},
};

/// An answer with the numbers that stand in its header: those of a nested transaction have none of their own.
pub(crate) struct Answered {
    pub(crate) answer: TxnResponse,
    pub(crate) revision: i64,
    pub(crate) term: u64,
}

/// What an acquire found.
pub(crate) enum Found {
    /// It was free, and is this owner's now.
    Put,
    /// It is somebody's, and this owner stands in line behind this entry.
    Queued { before: KeyValue, head: KeyValue, entries: i64 },
    /// The owner has an entry already; with the last tick, where one was asked for.
    Own { own: KeyValue, head: KeyValue, last: Option<LastTick> },
    /// It is somebody else's.
    Other { head: KeyValue },
    /// The owner has no entry, and the tick, or a later one, was used up.
    Finished(LastTick),
}

/// What one whose turn has come found of his tick.
pub(crate) enum Turn {
    /// It is his.
    Open,
    /// It, or a later one, was used up.
    Used(LastTick),
    /// The entry isn't there any more, or is kept taken by nobody.
    Gone,
}

pub(crate) async fn send(client: Client, txn: Txn) -> Result<Answered, DriverError> {
    let answer = client.kv_client().txn(txn).await?;
    let (revision, term) = answer.header().map_or((0, 0), |header| (header.revision(), header.raft_term()));
    Ok(Answered { answer, revision, term })
}

/// Several as one; a single one as it is.
pub(crate) fn together(mut txns: Vec<Txn>) -> Txn {
    match txns.len() {
        1 => txns.remove(0),
        _ => Txn::new().and_then(txns.into_iter().map(TxnOp::txn).collect::<Vec<_>>()),
    }
}

/// The answers to each of those that were sent [`together`].
pub(crate) fn apart(answered: &Answered, sent: usize) -> Result<Vec<TxnResponse>, StoreError> {
    if sent == 1 {
        return Ok(vec![answered.answer.clone()]);
    }
    let answers: Vec<_> = answered.answer.op_responses().into_iter().map(nested).collect::<Result<_, _>>()?;
    if answers.len() == sent { Ok(answers) } else { Err(strange()) }
}

/// Puts an entry where there is none, and uses its tick up if grants do; otherwise tells what is there, or queues.
///
/// Who has an entry is told of it before his tick is looked at: a grant whose answer was lost used that up itself.
pub(crate) fn acquire(keys: &Keys, request: &AcquireRequest, value: &[u8], lease: i64, queues: bool) -> Txn {
    let (start, end) = keys.queue(&request.name);
    let own = keys.entry(&request.name, request.owner);
    let put = || TxnOp::put(own.clone(), value, Some(PutOptions::new().with_lease(lease)));
    let head = || TxnOp::get(start.clone(), Some(oldest(end.clone())));
    let last_tick = || request.tick.map(|_| TxnOp::get(keys.tick(&request.name), None));
    let known = || [TxnOp::get(own.clone(), None), head()].into_iter().chain(last_tick());
    let theirs = if queues {
        let newest =
            GetOptions::new().with_range(end.clone()).with_sort(SortTarget::Create, SortOrder::Descend).with_limit(2);
        let last =
            TxnOp::put(keys.last(&request.name), request.owner.to_string(), Some(PutOptions::new().with_lease(lease)));
        let queue = Txn::new()
            .when([Compare::create_revision(own.clone(), CompareOp::Equal, 0)])
            .and_then([put(), last, TxnOp::get(start.clone(), Some(newest)), head()])
            .or_else(known().collect::<Vec<_>>());
        vec![TxnOp::txn(queue)]
    } else {
        known().collect()
    };
    // Of no keys at all, etcd compares one that isn't there.
    let nobody = Compare::create_revision(start.clone(), CompareOp::Equal, 0).with_range(end.clone());
    let grant: Vec<_> = [put()].into_iter().chain(tick_put(keys, request)).collect();
    let take = Txn::new().when([nobody]).and_then(grant).or_else(theirs);
    match request.tick {
        None => take,
        Some(tick) => Txn::new()
            .when([
                Compare::create_revision(own.clone(), CompareOp::Equal, 0),
                is_used_up(keys.tick(&request.name), tick),
            ])
            .and_then(last_tick().into_iter().collect::<Vec<_>>())
            .or_else([TxnOp::txn(take)]),
    }
}

/// What a grant of this wish writes of its tick: only where that wasn't used up, so it never falls.
fn tick_put(keys: &Keys, request: &AcquireRequest) -> Option<TxnOp> {
    let last = LastTick { tick: request.used_by_grant()?, owner: Some(request.owner) };
    Some(TxnOp::put(keys.tick(&request.name), last.write(), None))
}

/// Reads the answer to [`acquire`].
pub(crate) fn acquired(answer: &TxnResponse, ticks: bool, queues: bool) -> Result<Found, StoreError> {
    if !ticks {
        return taken(answer, queues);
    }
    if answer.succeeded() {
        return Ok(Found::Finished(only_tick(answer)?));
    }
    taken(&only(answer)?, queues)
}

fn taken(answer: &TxnResponse, queues: bool) -> Result<Found, StoreError> {
    if answer.succeeded() {
        return Ok(Found::Put);
    }
    let inner = if queues { only(answer)? } else { answer.clone() };
    let ops = inner.op_responses();
    if queues && inner.succeeded() {
        let (newest, entries) = got(ops.get(2))?;
        let (head, _) = got(ops.get(3))?;
        let (Some(before), Some(head)) = (newest.into_iter().nth(1), head.into_iter().next()) else {
            return Err(strange());
        };
        return Ok(Found::Queued { before, head, entries });
    }
    let (own, _) = got(ops.first())?;
    let (head, _) = got(ops.get(1))?;
    let head = head.into_iter().next().ok_or_else(strange)?;
    Ok(match own.into_iter().next() {
        Some(own) => Found::Own { own, head, last: last_tick(&inner, 2)? },
        None => Found::Other { head },
    })
}

/// Whether this waiter's turn has come by the hand of the one before it; if it can't be told, both entries. Either way the
/// last tick, where one is asked for. Reads only.
pub(crate) fn ask(
    keys: &Keys,
    request: &AcquireRequest,
    own: &[u8],
    modified: i64,
    (before, created): (&[u8], i64),
) -> Txn {
    let last_tick = || request.tick.map(|_| TxnOp::get(keys.tick(&request.name), None));
    let both = [TxnOp::get(own, None), TxnOp::get(before, None)];
    Txn::new()
        .when([
            Compare::mod_revision(own, CompareOp::Equal, modified),
            Compare::value(keys.mark(&request.name), CompareOp::Equal, created.to_string()),
        ])
        .and_then(last_tick().into_iter().collect::<Vec<_>>())
        .or_else(both.into_iter().chain(last_tick()).collect::<Vec<_>>())
}

/// Puts an entry under another lease, if it is as it was.
pub(crate) fn move_to(own: &[u8], modified: i64, value: &[u8], lease: i64) -> Txn {
    Txn::new()
        .when([Compare::mod_revision(own, CompareOp::Equal, modified)])
        .and_then([TxnOp::put(own, value, Some(PutOptions::new().with_lease(lease)))])
        .or_else([TxnOp::get(own, None)])
}

/// Whether the tick was used up before the turn of one who leaves that to his release. Reads only.
pub(crate) fn look_at_tick(keys: &Keys, name: &LockName, tick: Tick) -> Txn {
    let key = keys.tick(name);
    Txn::new().when([is_used_up(key.clone(), tick)]).and_then([TxnOp::get(key, None)])
}

/// Reads the answer to [`look_at_tick`].
pub(crate) fn looked_at(answer: &TxnResponse) -> Result<Turn, StoreError> {
    Ok(if answer.succeeded() { Turn::Used(only_tick(answer)?) } else { Turn::Open })
}

/// Uses a tick up by the grant of one whose turn came after he had queued, if his entry is there.
///
/// That it is the first isn't compared again, which would read the whole line: nothing comes before an entry that was
/// the first once.
pub(crate) fn use_up(keys: &Keys, request: &AcquireRequest, tick: Tick, created: i64) -> Txn {
    let key = keys.tick(&request.name);
    let there = is_there(&keys.entry(&request.name, request.owner), created);
    let put: Vec<_> = tick_put(keys, request).into_iter().collect();
    let open = Txn::new().when(there.clone()).and_then(put);
    let mut used = there.to_vec();
    used.push(is_used_up(key.clone(), tick));
    Txn::new().when(used).and_then([TxnOp::get(key, None)]).or_else([TxnOp::txn(open)])
}

/// Whether an entry is the one that was created then, and the lock isn't kept taken by nobody since.
pub(crate) fn is_there(own: &[u8], created: i64) -> [Compare; 2] {
    [Compare::create_revision(own, CompareOp::Equal, created), Compare::value(own, CompareOp::Less, LIVE)]
}

/// Reads the answer to [`use_up`].
pub(crate) fn used_up(answer: &TxnResponse) -> Result<Turn, StoreError> {
    if answer.succeeded() {
        return Ok(Turn::Used(only_tick(answer)?));
    }
    Ok(if only(answer)?.succeeded() { Turn::Open } else { Turn::Gone })
}

/// What a release does.
pub(crate) struct Release<'a> {
    pub(crate) name: &'a LockName,
    pub(crate) owner: OwnerId,
    /// Of which grant, or whatever it is.
    pub(crate) created: Option<i64>,
    /// Under which lease to leave a mark for the next one, if there is one.
    pub(crate) mark_under: Option<i64>,
    /// What the entry becomes, and under which lease, if the lock is to rest.
    pub(crate) rest: Option<(Vec<u8>, i64)>,
    pub(crate) done: Option<Tick>,
}

/// What a release took from its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Hold,
    /// In line: it held nothing.
    Place,
    Nothing,
}

impl Release<'_> {
    pub(crate) fn txn(&self, keys: &Keys) -> Txn {
        let own = keys.entry(self.name, self.owner);
        let mut ops = match &self.rest {
            Some((value, lease)) => {
                vec![TxnOp::put(own.clone(), value.as_slice(), Some(PutOptions::new().with_lease(*lease)))]
            }
            None => vec![TxnOp::delete(own.clone(), None), TxnOp::txn(self.tidy(keys))],
        };
        if self.created.is_none() {
            // Before all else: the entry may be a place in line.
            let (start, end) = keys.queue(self.name);
            ops.insert(0, TxnOp::get(start, Some(oldest(end))));
        }
        if let Some(tick) = self.done {
            let key = keys.tick(self.name);
            let put = TxnOp::put(key.clone(), LastTick { tick, owner: None }.write(), None);
            ops.push(TxnOp::txn(Txn::new().when([is_used_up(key, tick)]).or_else([put])));
        }
        let grant = match self.created {
            Some(created) => Compare::create_revision(own.clone(), CompareOp::Equal, created),
            None => Compare::create_revision(own.clone(), CompareOp::Greater, 0),
        };
        Txn::new().when([grant, Compare::value(own, CompareOp::Less, LIVE)]).and_then(ops)
    }

    /// Reads the answer.
    pub(crate) fn left(&self, keys: &Keys, answer: &TxnResponse) -> Result<Left, StoreError> {
        if !answer.succeeded() {
            return Ok(Left::Nothing);
        }
        // Only holders know a token.
        if self.created.is_some() {
            return Ok(Left::Hold);
        }
        let (head, _) = got(answer.op_responses().first())?;
        let head = head.first().ok_or_else(strange)?;
        Ok(if head.key() == keys.entry(self.name, self.owner) { Left::Hold } else { Left::Place })
    }

    /// Leaves word for the next in line, and nothing where there is none.
    fn tidy(&self, keys: &Keys) -> Txn {
        let (last, mark) = (keys.last(self.name), keys.mark(self.name));
        let was_last = Compare::value(last.clone(), CompareOp::Equal, self.owner.to_string());
        let clear = [TxnOp::delete(last.clone(), None), TxnOp::delete(mark.clone(), None)];
        let cleared = Txn::new().when([was_last]).and_then(clear);
        match (self.created, self.mark_under) {
            (Some(created), Some(lease)) => {
                let tell = TxnOp::put(mark, created.to_string(), Some(PutOptions::new().with_lease(lease)));
                let nobody = Compare::create_revision(last, CompareOp::Equal, 0);
                Txn::new().when([nobody]).or_else([TxnOp::txn(cleared.or_else([tell]))])
            }
            _ => cleared,
        }
    }
}

/// Deletes an entry if this holds, and what it left behind if it was the last in line.
pub(crate) fn delete(keys: &Keys, name: &LockName, owner: OwnerId, when: impl Into<Vec<Compare>>) -> Txn {
    let tidy = Release { name, owner, created: None, mark_under: None, rest: None, done: None }.tidy(keys);
    Txn::new().when(when).and_then([TxnOp::delete(keys.entry(name, owner), None), TxnOp::txn(tidy)])
}

/// The oldest entry of a queue.
pub(crate) fn oldest(end: Vec<u8>) -> GetOptions {
    GetOptions::new().with_range(end).with_sort(SortTarget::Create, SortOrder::Ascend).with_limit(1)
}

/// What each read of an answer found.
pub(crate) fn gets(answer: &TxnResponse) -> Result<Vec<Option<KeyValue>>, StoreError> {
    let found = |op: &TxnOpResponse| Ok(got(Some(op))?.0.into_iter().next());
    answer.op_responses().iter().map(found).collect()
}

/// The last tick, where the read at this place of an answer found one.
pub(crate) fn last_tick(answer: &TxnResponse, at: usize) -> Result<Option<LastTick>, StoreError> {
    let last = gets(answer)?.into_iter().nth(at).flatten();
    last.map(|last| LastTick::read(last.value())).transpose()
}

/// The last tick that an answer of nothing else tells.
fn only_tick(answer: &TxnResponse) -> Result<LastTick, StoreError> {
    last_tick(answer, 0)?.ok_or_else(strange)
}

fn got(op: Option<&TxnOpResponse>) -> Result<(Vec<KeyValue>, i64), StoreError> {
    match op {
        Some(TxnOpResponse::Get(got)) => Ok((got.kvs().to_vec(), got.count())),
        _ => Err(strange()),
    }
}

fn only(answer: &TxnResponse) -> Result<TxnResponse, StoreError> {
    nested(answer.op_responses().into_iter().next().ok_or_else(strange)?)
}

fn nested(op: TxnOpResponse) -> Result<TxnResponse, StoreError> {
    match op {
        TxnOpResponse::Txn(answer) => Ok(answer),
        _ => Err(strange()),
    }
}

pub(crate) fn strange() -> StoreError {
    corrupt("the server's answer doesn't fit the transaction")
}
