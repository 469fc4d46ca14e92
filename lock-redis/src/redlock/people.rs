//! What people are told: what a majority of the masters say of a lock.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::join_all;
use lock_core::{Holding, ListRequest, LockName, LockState, LockStatus, OwnerId, StoreError};

use super::{
    ballot::quorum,
    masters::{Heard, Masters},
    records::Records,
    rows::{self, Sight},
    scripts,
};
use crate::{
    link::Link,
    list::{LONGEST_SCAN, names_after, too_many_keys},
    operation::Runner,
};

/// How many locks a page of a list has at most.
const LONGEST_PAGE: u32 = 1000;

/// The state of each of these locks, in their order; `None` where no master that answered has a record.
pub(crate) async fn inspect(
    masters: &Masters,
    records: &Records,
    names: &[LockName],
) -> Result<Vec<Option<LockStatus>>, StoreError> {
    let (keys, arguments) = records.inspect(names);
    let (mut sights, mut answered, mut failures) = (vec![Vec::new(); names.len()], 0, Vec::new());
    let hear = |Heard { about, answers, .. }: Heard| {
        let read = answers.and_then(|answers| answers.iter().map(rows::sight).collect::<Result<Vec<_>, _>>());
        match read {
            Ok(read) => {
                answered += 1;
                about.into_iter().zip(read).for_each(|(at, sight)| sights[at].extend(sight));
            }
            Err(error) => failures.push(error),
        }
        answered == masters.count()
    };
    masters.listen(masters.send_all(&scripts::INSPECT, &keys, &arguments), masters.node_timeout, hear).await;
    if answered < quorum(masters.count()) {
        return Err(masters.too_few(answered, &failures, false));
    }
    let count = masters.count();
    Ok(names.iter().zip(sights).map(|(name, sights)| status(name, &sights, answered, count)).collect())
}

/// A page of the locks that some master has a record of, in byte order.
pub(crate) async fn list(
    masters: &Masters,
    records: &Records,
    request: &ListRequest,
) -> Result<Vec<LockStatus>, StoreError> {
    let give_up = masters.clock.now() + LONGEST_SCAN;
    tokio::select! {
        page = page(masters, records, request) => page,
        () = masters.clock.sleep_until(give_up) => Err(too_many_keys()),
    }
}

async fn page(masters: &Masters, records: &Records, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
    let most = request.limit.clamp(1, LONGEST_PAGE) as usize;
    let mut after = request.after.clone();
    loop {
        let names = names(masters, records, &request.prefix, after.as_ref(), most).await?;
        let Some(last) = names.last().cloned() else { return Ok(Vec::new()) };
        let page: Vec<LockStatus> = inspect(masters, records, &names).await?.into_iter().flatten().collect();
        if !page.is_empty() {
            return Ok(page);
        }
        // All of them went meanwhile; an empty page would say that no more follow.
        after = Some(last);
    }
}

async fn names(
    masters: &Masters,
    records: &Records,
    beginning: &str,
    after: Option<&LockName>,
    most: usize,
) -> Result<Vec<LockName>, StoreError> {
    let looking = masters.nodes.iter().map(|node| {
        let link = Link::Node(node.clone());
        let runner = Runner { link, timeout: masters.node_timeout, clock: Arc::clone(&masters.clock) };
        async move { names_after(&runner, &records.keys, beginning, after, most).await }
    });
    let (mut names, mut answered, mut failures) = (BTreeSet::new(), 0, Vec::new());
    for found in join_all(looking).await {
        match found {
            Ok(found) => {
                answered += 1;
                names.extend(found);
            }
            Err(error) => failures.push(error),
        }
    }
    if answered < quorum(masters.count()) {
        return Err(masters.too_few(answered, &failures, false));
    }
    Ok(names.into_iter().take(most).collect())
}

fn status(name: &LockName, sights: &[Sight], answered: usize, masters: usize) -> Option<LockStatus> {
    let last_token = sights.iter().filter_map(|sight| sight.last).max();
    let state = match held(sights, quorum(masters)) {
        Some(holding) => LockState::Held(holding),
        None => match taken(sights, answered, masters) {
            Some(rest) => LockState::Resting(rest),
            None => LockState::Free,
        },
    };
    (!sights.is_empty()).then(|| LockStatus { name: name.clone(), state, last_token, waiters: None })
}

/// Who a majority says has it, under a token that was accepted.
fn held(sights: &[Sight], quorum: usize) -> Option<Holding> {
    let of = |owner: OwnerId| sights.iter().filter(move |sight| sight.owner == Some(owner));
    let owner = sights.iter().filter_map(|sight| sight.owner).find(|owner| of(*owner).count() >= quorum)?;
    let token = of(owner).filter_map(|sight| sight.granted).max()?;
    let mut remaining: Vec<Duration> = of(owner).map(|sight| sight.remaining).collect();
    remaining.sort_unstable_by(|one, other| other.cmp(one));
    let holder = of(owner).find_map(|sight| sight.holder.clone()).unwrap_or_default();
    // A majority keeps it for so long.
    Some(Holding { owner, token, remaining: remaining[quorum - 1], holder })
}

/// How long until a majority of the masters may be had, as far as those that answered know; `None` if it may be had now.
fn taken(sights: &[Sight], answered: usize, masters: usize) -> Option<Duration> {
    let mut taken: Vec<Duration> = sights.iter().map(|sight| sight.taken).filter(|taken| !taken.is_zero()).collect();
    taken.sort_unstable();
    let free = answered - taken.len();
    let missing = quorum(masters).checked_sub(free).filter(|missing| *missing > 0)?;
    taken.get(missing - 1).or(taken.last()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lock_core::FencingToken;

    fn sight(owner: u128, granted: u64, millis: u64) -> Sight {
        let span = Duration::from_millis(millis);
        Sight {
            owner: (owner > 0).then(|| OwnerId::from_u128(owner)),
            granted: (granted > 0).then(|| FencingToken::new(granted)),
            remaining: span,
            taken: span,
            holder: None,
            last: Some(FencingToken::new(granted)),
        }
    }

    fn state(sights: &[Sight], masters: usize) -> LockState {
        status(&LockName::new("x").unwrap(), sights, masters, masters).unwrap().state
    }

    #[test]
    fn a_majority_says_who_has_it_and_for_how_long() {
        let sights = [sight(1, 7, 30), sight(1, 7, 10), sight(1, 0, 20), sight(2, 6, 90)];
        let LockState::Held(holding) = state(&sights, 5) else { panic!("{sights:?}") };
        assert_eq!((holding.owner, holding.token.get()), (OwnerId::from_u128(1), 7));
        assert_eq!(holding.remaining, Duration::from_millis(10));
    }

    #[test]
    fn a_minority_holds_nothing() {
        assert_eq!(state(&[sight(1, 7, 30)], 3), LockState::Free);
        assert_eq!(state(&[sight(1, 7, 30), sight(2, 6, 10)], 3), LockState::Resting(Duration::from_millis(10)));
        let silent = status(&LockName::new("x").unwrap(), &[sight(1, 7, 30)], 2, 3).unwrap().state;
        assert!(matches!(silent, LockState::Resting(_)), "the third may be its holder's too: {silent:?}");
        assert_eq!(state(&[sight(0, 7, 30), sight(0, 7, 10)], 3), LockState::Resting(Duration::from_millis(10)));
    }
}
