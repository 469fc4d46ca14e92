//! The transactions, and how their answers are read.

use etcd_client::{
    Client, Compare, CompareOp, Error as DriverError, GetOptions, KeyValue, PutOptions, SortOrder, SortTarget, Txn,
    TxnOp, TxnOpResponse, TxnResponse,
};
use lock_core::{AcquireRequest, LockName, OwnerId, StoreError, Tick};

use crate::{entry::LIVE, error::corrupt, keys::Keys};

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
    /// The owner has an entry already.
    Own { own: KeyValue, head: KeyValue },
    /// It is somebody else's.
    Other { head: KeyValue },
    /// The tick, or a later one, was finished.
    Finished(Tick),
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

/// Puts an entry where there is none; otherwise tells what is there, or queues.
pub(crate) fn acquire(keys: &Keys, request: &AcquireRequest, value: &[u8], lease: i64, queues: bool) -> Txn {
    let (start, end) = keys.queue(&request.name);
    let own = keys.entry(&request.name, request.owner);
    let put = || TxnOp::put(own.clone(), value, Some(PutOptions::new().with_lease(lease)));
    let head = || TxnOp::get(start.clone(), Some(oldest(end.clone())));
    let theirs = if queues {
        let newest =
            GetOptions::new().with_range(end.clone()).with_sort(SortTarget::Create, SortOrder::Descend).with_limit(2);
        let last =
            TxnOp::put(keys.last(&request.name), request.owner.to_string(), Some(PutOptions::new().with_lease(lease)));
        let queue = Txn::new()
            .when([Compare::create_revision(own.clone(), CompareOp::Equal, 0)])
            .and_then([put(), last, TxnOp::get(start.clone(), Some(newest)), head()])
            .or_else([TxnOp::get(own.clone(), None), head()]);
        vec![TxnOp::txn(queue)]
    } else {
        vec![TxnOp::get(own.clone(), None), head()]
    };
    // Of no keys at all, etcd compares one that isn't there.
    let nobody = Compare::create_revision(start.clone(), CompareOp::Equal, 0).with_range(end.clone());
    let take = Txn::new().when([nobody]).and_then([put()]).or_else(theirs);
    match request.tick {
        None => take,
        Some(tick) => {
            let key = keys.tick(&request.name);
            Txn::new()
                .when([is_finished(key.clone(), tick)])
                .and_then([TxnOp::get(key, None)])
                .or_else([TxnOp::txn(take)])
        }
    }
}

/// Reads the answer to [`acquire`].
pub(crate) fn acquired(answer: &TxnResponse, ticks: bool, queues: bool) -> Result<Found, StoreError> {
    if ticks {
        if let Some(tick) = tick_of(answer)? {
            return Ok(Found::Finished(tick));
        }
        return acquired(&only(answer)?, false, queues);
    }
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
        Some(own) => Found::Own { own, head },
        None => Found::Other { head },
    })
}

/// Whether this waiter's turn has come by the hand of the one before it; if it can't be told, both entries. Reads only.
pub(crate) fn ask(keys: &Keys, name: &LockName, own: &[u8], modified: i64, before: (&[u8], i64)) -> Txn {
    Txn::new()
        .when([
            Compare::mod_revision(own, CompareOp::Equal, modified),
            Compare::value(keys.mark(name), CompareOp::Equal, before.1.to_string()),
        ])
        .or_else([TxnOp::get(own, None), TxnOp::get(before.0, None)])
}

/// Puts an entry under another lease, if it is as it was.
pub(crate) fn move_to(own: &[u8], modified: i64, value: &[u8], lease: i64) -> Txn {
    Txn::new()
        .when([Compare::mod_revision(own, CompareOp::Equal, modified)])
        .and_then([TxnOp::put(own, value, Some(PutOptions::new().with_lease(lease)))])
        .or_else([TxnOp::get(own, None)])
}

/// The last finished tick, for one whose turn came after he had asked for it.
pub(crate) fn finished(keys: &Keys, name: &LockName, tick: Tick) -> Txn {
    let key = keys.tick(name);
    Txn::new().when([is_finished(key.clone(), tick)]).and_then([TxnOp::get(key, None)])
}

/// Reads the answer to [`finished`].
pub(crate) fn tick_of(answer: &TxnResponse) -> Result<Option<Tick>, StoreError> {
    if !answer.succeeded() {
        return Ok(None);
    }
    let tick = gets(answer)?.into_iter().flatten().next().and_then(|tick| tick.value_str().ok()?.parse().ok());
    Ok(Some(Tick(tick.ok_or_else(strange)?)))
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

impl Release<'_> {
    pub(crate) fn txn(&self, keys: &Keys) -> Txn {
        let own = keys.entry(self.name, self.owner);
        let mut ops = match &self.rest {
            Some((value, lease)) => {
                vec![TxnOp::put(own.clone(), value.as_slice(), Some(PutOptions::new().with_lease(*lease)))]
            }
            None => vec![TxnOp::delete(own.clone(), None), TxnOp::txn(self.tidy(keys))],
        };
        if let Some(tick) = self.done {
            let key = keys.tick(self.name);
            let put = TxnOp::put(key.clone(), decimal(tick), None);
            ops.push(TxnOp::txn(Txn::new().when([is_finished(key, tick)]).or_else([put])));
        }
        let grant = match self.created {
            Some(created) => Compare::create_revision(own.clone(), CompareOp::Equal, created),
            None => Compare::create_revision(own.clone(), CompareOp::Greater, 0),
        };
        Txn::new().when([grant, Compare::value(own, CompareOp::Less, LIVE)]).and_then(ops)
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

/// Numbers of one length, so that their order is that of their digits.
fn decimal(Tick(micros): Tick) -> String {
    format!("{micros:020}")
}

fn is_finished(key: Vec<u8>, Tick(micros): Tick) -> Compare {
    match micros.checked_sub(1) {
        Some(before) => Compare::value(key, CompareOp::Greater, decimal(Tick(before))),
        None => Compare::create_revision(key, CompareOp::Greater, 0),
    }
}

/// What each read of an answer found.
pub(crate) fn gets(answer: &TxnResponse) -> Result<Vec<Option<KeyValue>>, StoreError> {
    let found = |op: &TxnOpResponse| Ok(got(Some(op))?.0.into_iter().next());
    answer.op_responses().iter().map(found).collect()
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
