//! The last line: when all was healed and all clients have ended, one of each client's kind queues for one lock, and then asks
//! once more as the holder that it was.
//!
//! What laws 5 and 8 are judged by comes by chance while there are faults, and in a short run, or on a slow machine, it may not
//! come. Here it does: where the store keeps an order, nobody joins the line before the one ahead is told to stand in it; and
//! somebody holds while those ask who held before.

use std::{path::Path, sync::Arc, time::Duration};

use lock_core::{Fairness, LockProvider};
use lock_verify::history::{Process, Recorder};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::{
    chance::Chance,
    client::HISTORY,
    clock::WrongClock,
    holds::{Hold, Holds, Wish},
    owners::{FILES, Owners},
    pen::Pen,
    recorded::Recorded,
    scale::Scale,
    scene::Scene,
};
use crate::{
    Failure,
    asker::{Outcome, within},
    ensure,
};

/// Who stands in it, in the history, counted down from here.
const FIRST: u32 = u32::MAX - 2;

const LOCK: &str = "last-line";

/// How long a store may take to tell somebody of his place, on a machine that is hardly there.
const TELLS_WITHIN: Duration = Duration::from_secs(120);

/// One client in the line.
struct Member {
    holds: Holds,
    pen: Pen,
    wish: Wish,
    /// How often the store told it to stand in line.
    told: watch::Receiver<u64>,
}

impl Member {
    fn new(
        number: usize,
        scene: &Scene,
        folder: &Path,
        ttl: Duration,
        stopped: watch::Receiver<bool>,
    ) -> Result<Self, Failure> {
        let process = FIRST - u32::try_from(number)?;
        let file = |of: &str| folder.join(format!("{of}-line-{number}.jsonl"));
        let pen = Pen::new(Recorder::to_file(file(HISTORY))?, Process::Client(process));
        let owners = Owners::to_file(file(FILES), process)?;
        let recorded = Recorded::new(Arc::clone(&scene.locks), pen.clone(), owners);
        let (told, fair) = (recorded.told_to_queue(), recorded.capabilities().fairness == Fairness::Fifo);
        let holds = Holds::new(Arc::new(recorded), WrongClock::new(0), pen.clone(), ttl, stopped).unheard();
        Ok(Self { holds, pen, wish: Wish { ttl, wait: None, fair }, told })
    }

    async fn hold(&self) -> Option<Hold> {
        self.holds.hold(LOCK, self.wish).await
    }
}

/// How often a line is formed anew that moved on too early.
const LINES: usize = 5;

/// Lets each stand in a line once.
pub(super) async fn stand(scenes: &[Scene], folder: &Path, scale: Scale, chance: &Chance) -> Outcome {
    // Nobody is told to stop.
    let (_go_on, stopped) = watch::channel(false);
    let member = |(number, scene)| Member::new(number, scene, folder, scale.ttl, stopped.clone()).map(Arc::new);
    let members: Vec<_> = scenes.iter().enumerate().map(member).collect::<Result<_, _>>()?;
    let [first, others @ ..] = &members[..] else { return Ok(()) };
    let (mut lines, mut stood) = (0, false);
    while !stood && lines < LINES {
        (lines, stood) = (lines + 1, line(first, others, scale, chance).await?);
    }
    ensure!(
        stood,
        "the last line moved on or came to a halt before all stood in it, {lines} times; the history has why"
    );
    for member in &members {
        // Releases behind what was given up.
        _ = timeout(TELLS_WITHIN, member.holds.locks.settled()).await;
        member.pen.finish()?;
    }
    Ok(())
}

/// One line. False if it moved on before all stood in it, as one does whose first has lost the lock, or if somebody wasn't
/// granted it: a machine that stands still does both.
async fn line(first: &Arc<Member>, others: &[Arc<Member>], scale: Scale, chance: &Chance) -> Result<bool, Failure> {
    let all = (scale.ttl + scale.grace) * u32::try_from(others.len())? + TELLS_WITHIN;
    let Some(hold) = within(all, "the head of the last line", first.hold()).await? else { return Ok(false) };
    let mut line = JoinSet::new();
    let mut stood = true;
    for member in others {
        let (mut told, before) = (member.told.clone(), *member.told.borrow());
        let waits = Arc::clone(member);
        line.spawn(async move {
            match waits.hold().await {
                Some(hold) => {
                    waits.holds.give_back(hold).await;
                    true
                }
                None => false,
            }
        });
        if member.wish.fair {
            stood = tokio::select! {
                told = within(TELLS_WITHIN, "a place in the last line", told.wait_for(|told| *told > before)) => {
                    told??;
                    true
                }
                Some(ended) = line.join_next() => {
                    ended?;
                    false
                }
            };
        }
        if !stood {
            break;
        }
    }
    first.holds.give_back(hold).await;
    within(all, "the end of the last line", async {
        while let Some(passed) = line.join_next().await {
            stood &= passed?;
        }
        Ok::<_, Failure>(())
    })
    .await??;

    let Some(hold) = within(all, "the last line's lock", first.hold()).await? else { return Ok(false) };
    for member in others {
        member.holds.be_a_stranger(chance).await;
    }
    first.holds.give_back(hold).await;
    Ok(stood)
}
