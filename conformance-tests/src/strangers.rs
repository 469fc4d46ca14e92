//! Strangers: what those can't do who no longer hold, or never did.

use lock_core::{FencingToken, OsEntropy, OwnerId, ReleaseRequest, Released, Renewed};

use crate::{
    Harness,
    asker::{Asker, Outcome, fresh_name, ttl},
    ensure,
};

/// L5: A release by one whose lease has passed to a successor leaves the successor (an unlock that looks at the name only frees it).
pub async fn a_stale_release_leaves_the_successor(h: &dyn Harness) -> Outcome {
    let (provider, other) = (h.provider().await?, h.provider().await?);
    let name = fresh_name("stale-release")?;
    let stale = Asker::new(&provider, &name, ttl(&provider, 400));
    let successor = Asker::new(&other, &name, ttl(&provider, 20_000));
    let old = stale.get().await?;
    let new = successor.get_within(old.gone_within(&other)).await?;
    let answer = stale.release(old.token).await?;
    ensure!(answer == Released::NotHeld, "a stale release was answered with {answer:?}");
    // Nor by half of what it knows: the successor's token, the successor's owner, no token at all.
    for (owner, token) in
        [(stale.owner, Some(new.token)), (successor.owner, Some(old.token)), (OwnerId::random(&OsEntropy), None)]
    {
        let answer = provider.release(&ReleaseRequest::new(name.clone(), owner, token)).await?;
        ensure!(answer == Released::NotHeld, "a release by {owner} under {token:?} was answered with {answer:?}");
    }
    successor.must_still_hold(new.token, "after stale releases").await?;
    successor.must_release(new.token).await
}

/// L5: Releasing twice is harmless, to the lock and to the next holder.
pub async fn releasing_twice_is_harmless(h: &dyn Harness) -> Outcome {
    let provider = h.provider().await?;
    let (name, lease) = (fresh_name("twice-released")?, ttl(&provider, 20_000));
    let (first, second) = (Asker::new(&provider, &name, lease), Asker::new(&provider, &name, lease));
    let old = first.get().await?;
    first.must_release(old.token).await?;
    let again = first.release(old.token).await?;
    ensure!(again == Released::NotHeld, "the second release was answered with {again:?}");
    let new = second.get().await?;
    let again = first.release(old.token).await?;
    ensure!(again == Released::NotHeld, "a release after the next grant was answered with {again:?}");
    second.must_still_hold(new.token, "after its predecessor released again").await?;
    second.must_release(new.token).await
}

/// L5: After a forced release and a take-over the old holder can do nothing, and a third still can't get in.
pub async fn after_forced_release_and_take_over_the_old_holder_is_a_stranger(h: &dyn Harness) -> Outcome {
    let provider = h.provider().await?;
    let (name, lease) = (fresh_name("forced")?, ttl(&provider, 20_000));
    let [old, new, third] = [0; 3].map(|_| Asker::new(&provider, &name, lease));
    let first = old.get().await?;
    ensure!(provider.force_release(&name).await?, "a forced release of a held lock says that nobody held it");
    let second = new.get().await?;
    let answer = old.release(first.token).await?;
    ensure!(answer == Released::NotHeld, "the old holder's release was answered with {answer:?}");
    let answer = old.renew(first.token).await?;
    ensure!(answer == Renewed::Lost, "the old holder's renewal was answered with {answer:?}");
    let answer = old.renew(FencingToken::new(second.token.get())).await?;
    ensure!(answer == Renewed::Lost, "a renewal with the new holder's token was answered with {answer:?}");
    third.must_be_refused("taken over after a forced release").await?;
    new.must_still_hold(second.token, "after what the old holder tried").await?;
    new.must_release(second.token).await
}
