//! What people do to locks.

use std::sync::Arc;

use lock_core::{LockName, LockProvider};
use lock_verify::history::F;

use super::{
    fault::{Fault, Lane, Stroke},
    pen::Pen,
};

/// What these faults do, for people.
pub(super) const ABOUT: [(&str, &str); 1] = [("force-release", "an operator takes a lock away, whoever holds it")];

/// The faults of people, at these locks.
pub(super) fn faults(operator: &Arc<dyn LockProvider>, locks: Vec<String>, pen: &Pen) -> Vec<Fault> {
    let (operator, pen) = (Arc::clone(operator), pen.clone());
    let force = Fault::new(Lane::People, ABOUT[0].0, ABOUT[0].1, move |chance, _| {
        let lock = chance.one_of(&locks)?.clone();
        let (operator, pen) = (Arc::clone(&operator), pen.clone());
        Some(Stroke::at_once(lock.clone(), async move {
            let name = LockName::new(lock.as_str())?;
            let begun = pen.invoke(F::ForceRelease, |event| event.lock(lock.as_str()));
            match operator.force_release(&name).await {
                Ok(_) => pen.ok(&begun, |event| event),
                // The store may be down just now.
                Err(error) => pen.info_with(&begun, &error),
            }
            Ok(())
        }))
    });
    // It takes the leases of that lock alone, which its own call tells.
    vec![force]
}
