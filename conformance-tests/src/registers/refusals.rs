//! What whoever counts refusals is told.

use std::sync::Arc;

use lock_core::{Event, FenceError, Pass, RefusalReason, Resource, TestObserver};

use super::{Registers, Writer, fence, fresh};
use crate::{asker::Outcome, ensure};

/// Each refusal is told when it has come, once and with its reason, and nothing else is. The register tells its store's
/// name, and knows of no class.
pub async fn a_refusal_is_told_once_with_its_reason(h: &dyn Registers) -> Outcome {
    let told = Arc::new(TestObserver::default());
    let w = Writer { register: h.observed(told.clone()).await?, resource: Resource::new(fresh("told"))? };
    for (lock, token, pass, reason) in [
        ("x", 5, Pass::Again, None),
        ("x", 5, Pass::Again, None),
        ("x", 5, Pass::Once, Some(RefusalReason::Used)),
        ("x", 4, Pass::Again, Some(RefusalReason::Stale)),
        ("x", 4, Pass::Once, Some(RefusalReason::Stale)),
        ("y", 9, Pass::Again, Some(RefusalReason::OtherLock)),
        ("x", 6, Pass::Once, None),
    ] {
        let fence = fence(lock, token)?;
        let raised = w.raise(&fence, pass).await;
        let refused = raised.as_ref().err().and_then(FenceError::reason);
        ensure!(raised.is_ok() == reason.is_none() && refused == reason, "{fence} ({pass:?}): {raised:?}");
        let seen = told.take();
        let of_store = seen.iter().all(|told| !told.store.is_empty() && told.class.is_none());
        let events = seen.iter().map(|told| told.event);
        let due = reason.map(|reason| Event::FenceRefused { reason });
        ensure!(of_store && events.eq(due), "{fence} ({pass:?}) came to {raised:?}, and {seen:?} was told");
    }
    w.must_show(Some(&fence("x", 6)?)).await?;
    w.register.forget(&w.resource).await?;
    let seen = told.take();
    ensure!(seen.is_empty(), "a look and forgetting refuse nothing, and {seen:?} was told");
    Ok(())
}
