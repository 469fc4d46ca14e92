//! The rule: who passes, and what is seen afterwards.

use lock_core::Pass;

use super::{Registers, Writer, fence};
use crate::{asker::Outcome, ensure};

/// A resource that has seen nothing takes any fence, in both ways to pass, and shows it.
pub async fn the_first_fence_is_taken_and_seen(h: &dyn Registers) -> Outcome {
    for (about, pass) in [("first-again", Pass::Again), ("first-once", Pass::Once)] {
        let w = Writer::new(h, about).await?;
        w.must_show(None).await?;
        w.must_pass(&fence("x", 1)?, pass).await?;
    }
    Ok(())
}

/// The holder writes as often as it likes.
pub async fn the_highest_passes_again(h: &dyn Registers) -> Outcome {
    let w = Writer::new(h, "again").await?;
    for _ in 0..3 {
        w.must_pass(&fence("x", 5)?, Pass::Again).await?;
    }
    Ok(())
}

/// A new holder's token raises what is seen, by one or by much.
pub async fn a_higher_token_is_taken_and_seen(h: &dyn Registers) -> Outcome {
    for (about, pass) in [("higher-again", Pass::Again), ("higher-once", Pass::Once)] {
        let w = Writer::new(h, about).await?;
        // Also where a comparison as text would have it the other way round.
        for token in [9, 10, 11, 99, 100, 1_764_328_000_123_456] {
            w.must_pass(&fence("x", token)?, pass).await?;
        }
    }
    Ok(())
}

/// A late write of a stale holder is told so, and leaves the register as it was.
pub async fn a_lower_token_is_refused_and_changes_nothing(h: &dyn Registers) -> Outcome {
    let w = Writer::new(h, "lower").await?;
    let highest = fence("x", 100)?;
    w.must_pass(&highest, Pass::Again).await?;
    for token in [99, 98, 20, 9, 1] {
        for pass in [Pass::Again, Pass::Once] {
            w.must_be_stale(&fence("x", token)?, pass, &highest).await?;
        }
    }
    w.must_pass(&highest, Pass::Again).await
}

/// Where each token passes once, one that raised the register is used up, however it raised it.
pub async fn once_each_token_passes_once(h: &dyn Registers) -> Outcome {
    let w = Writer::new(h, "once").await?;
    for (token, pass) in [(5, Pass::Once), (6, Pass::Once), (7, Pass::Again)] {
        let highest = fence("x", token)?;
        w.must_pass(&highest, pass).await?;
        w.must_be_stale(&highest, Pass::Once, &highest).await?;
        w.must_pass(&highest, Pass::Again).await?;
    }
    Ok(())
}

/// Tokens of different locks can't be compared: lower, equal and higher ones are refused, and don't change the lock either.
pub async fn a_token_of_another_lock_is_refused_however_high(h: &dyn Registers) -> Outcome {
    let w = Writer::new(h, "other-lock").await?;
    let highest = fence("x", 5)?;
    w.must_pass(&highest, Pass::Again).await?;
    for token in [4, 5, 6, i64::MAX as u64] {
        for pass in [Pass::Again, Pass::Once] {
            w.must_be_of_another_lock(&fence("y", token)?, pass, &highest).await?;
        }
    }
    w.must_pass(&fence("x", 6)?, Pass::Once).await
}

/// Forgetting says whether there was something, and lets another lock in, also with a lower token; other resources stay.
pub async fn forgotten_it_is_open_to_another_lock(h: &dyn Registers) -> Outcome {
    let (w, neighbour) = (Writer::new(h, "forgotten").await?, Writer::new(h, "remembered").await?);
    let forgotten = w.register.forget(&w.resource).await?;
    ensure!(!forgotten, "nothing was seen, and forgetting says that there was something");
    w.must_pass(&fence("x", 50)?, Pass::Again).await?;
    neighbour.must_pass(&fence("x", 50)?, Pass::Again).await?;
    let forgotten = w.register.forget(&w.resource).await?;
    ensure!(forgotten, "something was seen, and forgetting says that there was nothing");
    w.must_show(None).await?;
    ensure!(!w.register.forget(&w.resource).await?, "it was forgotten twice");
    w.must_pass(&fence("y", 7)?, Pass::Once).await?;
    w.must_be_of_another_lock(&fence("x", 51)?, Pass::Again, &fence("y", 7)?).await?;
    neighbour.must_show(Some(&fence("x", 50)?)).await
}

/// Neighbours are told apart where numbers of other kinds run together: at 2^53 (JSON, Lua, JavaScript), at 2^63 - 1.
pub async fn tokens_are_told_apart_to_the_last(h: &dyn Registers) -> Outcome {
    for first in [u64::from(u32::MAX) - 1, (1 << 53) - 1, 1_000_000_000_000_000_000, i64::MAX as u64 - 3] {
        for (about, pass) in [("apart-again", Pass::Again), ("apart-once", Pass::Once)] {
            let w = Writer::new(h, about).await?;
            w.must_pass(&fence("x", first)?, pass).await?;
            for token in first + 1..=first + 3 {
                let (before, highest) = (fence("x", token - 1)?, fence("x", token)?);
                w.must_pass(&highest, pass).await?;
                w.must_be_stale(&before, pass, &highest).await?;
            }
        }
    }
    Ok(())
}

/// What one client raised another sees, also one that comes when the first is gone; and is refused by it.
pub async fn what_was_raised_outlives_its_client(h: &dyn Registers) -> Outcome {
    let Writer { register, resource } = Writer::new(h, "outlives").await?;
    let (old, new) = (fence("x", 5)?, fence("x", 6)?);
    let second = Writer { register: h.register().await?, resource: resource.clone() };
    register.raise(&resource, &old, Pass::Again).await?;
    second.must_show(Some(&old)).await?;
    register.raise(&resource, &new, Pass::Again).await?;
    second.must_be_stale(&old, Pass::Again, &new).await?;
    drop((register, second));
    let third = Writer { register: h.register().await?, resource };
    third.must_be_stale(&old, Pass::Again, &new).await
}
