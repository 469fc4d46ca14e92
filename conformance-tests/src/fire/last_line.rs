//! The last line: when all was healed, each client queues once for one lock, behind one another, and then asks once more as the
//! holder that it was.
//!
//! What laws 5 and 8 are judged by comes by chance while there are faults, and in a short run, or on a slow machine, it may not
//! come. Here it does: nobody joins the line before the one ahead is told to stand in it, and nobody asks as a holder of before
//! while nobody else holds.

use std::{path::Path, sync::Arc, time::Duration};

use lock_core::{Fairness, LockProvider};
use lock_verify::history::{Process, Recorder};
use tokio::{sync::watch, task::JoinSet};

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

    async fn hold(&self) -> Result<Hold, Failure> {
        let hold = self.holds.hold(LOCK, self.wish).await;
        hold.ok_or_else(|| Failure::new("the last line came to a halt; the history has the error"))
    }

    /// Returns when it is told to stand in line, if it is that kind of store.
    async fn queued(&self) -> Outcome {
        if self.wish.fair {
            let mut told = self.told.clone();
            within(TELLS_WITHIN, "a place in the last line", told.wait_for(|told| *told > 0)).await??;
        }
        Ok(())
    }
}

/// Lets each stand in it once.
pub(super) async fn stand(scenes: &[Scene], folder: &Path, scale: Scale, chance: &Chance) -> Outcome {
    // Nobody is told to stop.
    let (_go_on, stopped) = watch::channel(false);
    let member = |(number, scene)| Member::new(number, scene, folder, scale.ttl, stopped.clone()).map(Arc::new);
    let members: Vec<_> = scenes.iter().enumerate().map(member).collect::<Result<_, _>>()?;
    let [first, others @ ..] = &members[..] else { return Ok(()) };

    let hold = first.hold().await?;
    let mut line = JoinSet::new();
    for member in others {
        let waits = Arc::clone(member);
        line.spawn(async move {
            let hold = waits.hold().await?;
            waits.holds.give_back(hold).await;
            Ok::<_, Failure>(())
        });
        member.queued().await?;
    }
    first.holds.give_back(hold).await;
    let all = scale.ttl + scale.grace;
    within(all * u32::try_from(others.len())? + TELLS_WITHIN, "the end of the last line", async {
        while let Some(passed) = line.join_next().await {
            passed??;
        }
        Ok::<_, Failure>(())
    })
    .await??;

    let hold = first.hold().await?;
    for member in others {
        member.holds.be_a_stranger(chance).await;
    }
    first.holds.give_back(hold).await;
    Ok(members.iter().try_for_each(|member| member.pen.finish())?)
}
