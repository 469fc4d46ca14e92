//! Many at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use futures_util::future::join_all;
use lock_core::{Entropy, FenceError, OsEntropy, Pass, Resource};

use super::{Registers, fence, fresh};
use crate::{
    Failure,
    asker::{Outcome, SOON, within},
    ensure,
};

/// How many raise at once, over how many clients, and how often it is done.
const AT_ONCE: u64 = 64;
const CLIENTS: usize = 4;
const ROUNDS: usize = 3;

/// Of 64 at once, in random order, the highest stays; and nobody is told that it passed who asked after a higher one had
/// been told so. Who looks meanwhile never sees the highest fall.
pub async fn of_many_at_once_the_highest_stays(h: &dyn Registers) -> Outcome {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(h.register().await?);
    }
    for round in 0..ROUNDS {
        let resource = Resource::new(fresh("many"))?;
        let passed = Arc::new(AtomicU64::new(0));
        let raises = (0..AT_ONCE).map(|at| (OsEntropy.next_u64(), at + 1));
        let mut tokens: Vec<(u64, u64)> = raises.collect();
        tokens.sort_unstable();
        let raises = tokens.into_iter().enumerate().map(|(turn, (_, token))| {
            let (register, resource, passed) = (clients[turn % CLIENTS].clone(), resource.clone(), passed.clone());
            let pass = if round % 2 == 0 { Pass::Again } else { Pass::Once };
            tokio::spawn(async move {
                let before = passed.load(Ordering::SeqCst);
                match register.raise(&resource, &fence("x", token)?, pass).await {
                    Ok(()) => {
                        passed.fetch_max(token, Ordering::SeqCst);
                        ensure!(token > before, "token {token} passed, after {before} had been told that it passed");
                        Ok(())
                    }
                    Err(FenceError::Stale(stale)) => {
                        ensure!(stale.highest.get() > token, "{token} was refused for a lower one: {stale}");
                        Ok(())
                    }
                    Err(error) => Err(Failure::from(error)),
                }
            })
        });
        let raises = join_all(raises.collect::<Vec<_>>());
        let done = Arc::new(AtomicBool::new(false));
        let looks = tokio::spawn({
            let (register, resource, done) = (h.register().await?, resource.clone(), done.clone());
            async move {
                let mut last = 0;
                while !done.load(Ordering::SeqCst) {
                    let seen = register.highest(&resource).await?.map_or(0, |fence| fence.token().get());
                    ensure!(seen >= last, "the highest fell from {last} to {seen}");
                    last = seen;
                    tokio::task::yield_now().await;
                }
                Ok(())
            }
        });
        let raised = within(SOON * 3, "raising 64 at once", raises).await?;
        done.store(true, Ordering::SeqCst);
        looks.await??;
        for raised in raised {
            raised??;
        }
        let seen = clients[0].highest(&resource).await?;
        ensure!(seen == Some(fence("x", AT_ONCE)?), "{AT_ONCE} was the highest of those that were raised: {seen:?}");
    }
    Ok(())
}

/// Of 64 at once with one token, of which each is to pass once, one does.
pub async fn of_many_with_one_token_one_passes_once(h: &dyn Registers) -> Outcome {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(h.register().await?);
    }
    for _ in 0..ROUNDS {
        let resource = Resource::new(fresh("once-of-many"))?;
        let raises = (0..AT_ONCE).map(|turn| {
            let (register, resource) = (clients[turn as usize % CLIENTS].clone(), resource.clone());
            tokio::spawn(async move {
                match register.raise(&resource, &fence("x", 5)?, Pass::Once).await {
                    Ok(()) => Ok(1_u32),
                    Err(FenceError::Stale(_)) => Ok(0),
                    Err(error) => Err(Failure::from(error)),
                }
            })
        });
        let mut passed = 0;
        let raises = join_all(raises.collect::<Vec<_>>());
        for raised in within(SOON * 3, "raising one token 64 times at once", raises).await? {
            passed += raised??;
        }
        ensure!(passed == 1, "one token that passes once was told {passed} times that it passed");
    }
    Ok(())
}
