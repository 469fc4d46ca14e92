//! The rule as one atomic step of the server: a filter that finds what may be written, and what is set with it.
//!
//! It goes as an upsert by `_id`: where the filter finds nothing because the fence is too low, the insert that follows runs
//! into the document that is there (E11000). So a refusal is an error of the server, and within a transaction it ends that.

use lock_core::{ErrorKind, Fence, FenceError, LockName, Pass, Resource, StoreError, admit};
use mongodb::bson::{Bson, Document, doc};

use crate::{leases::fresh, operation::doubting, records::corrupt};

/// One fence at one resource's document.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) resource: Resource,
    fence: Fence,
    pass: Pass,
    /// A number of this very step. It makes each step a write, also where the token stays: only a write conflicts with
    /// somebody else's raise in a transaction that is open at the same time. And a step whose answer was lost finds itself.
    number: i64,
}

impl Step {
    pub(super) fn new(resource: &Resource, fence: Fence, pass: Pass) -> Self {
        Self { resource: resource.clone(), fence, pass, number: fresh() }
    }

    pub(super) fn lock(&self) -> &LockName {
        self.fence.lock()
    }

    /// The resource's document, if the fence passes there.
    pub(super) fn filter(&self) -> Document {
        let lock = doc! { "$eq": self.lock().as_str(), "$not": { "$type": "array" } };
        doc! { "_id": id(&self.resource), "lock": lock, "token": passes(&self.fence, self.pass) }
    }

    pub(super) fn update(&self) -> Document {
        doc! { "$set": stamp(&self.fence, self.number) }
    }

    /// Whether the step changed this document itself, by an attempt whose answer was lost, and nobody did since.
    pub(super) fn is_done(&self, found: Option<&Document>) -> bool {
        found.is_some_and(|found| found.get("changed_by") == Some(&Bson::Int64(self.number)))
    }

    /// What a document says to the step that didn't find it, where an attempt of it may have been left unanswered: then, as a
    /// majority has the document.
    pub(super) fn judged(&self, found: Option<&Document>, in_doubt: bool) -> Result<(), FenceError> {
        if in_doubt && self.is_done(found) {
            return Ok(());
        }
        match self.refused(found) {
            // The unanswered one may have used the token up.
            Err(FenceError::Stale(stale)) if in_doubt && stale.highest == stale.token => {
                Err(doubting(StoreError::refused(ErrorKind::Contention, stale.to_string()), in_doubt).into())
            }
            Err(FenceError::Store(error)) => Err(doubting(error, in_doubt).into()),
            judged => judged,
        }
    }

    /// What a document says to the step that didn't find it.
    pub(super) fn refused(&self, found: Option<&Document>) -> Result<(), FenceError> {
        admit(found.map(seen).transpose()?.as_ref(), &self.resource, &self.fence, self.pass)?;
        // It would pass now: the document was changed, or made, or forgotten in between.
        let message = format!("the fence of \"{}\" was changed at the same time", self.resource);
        Err(StoreError::refused(ErrorKind::Contention, message).into())
    }
}

/// The `_id` of a resource's document: its name, in which `%` and all but visible ASCII and spaces is percent-encoded.
///
/// A refusal comes as an error whose message shows the `_id`, and the server cuts a long one: in the middle of a letter of
/// several bytes as well, and what is no UTF-8 the driver can't read.
pub(super) fn id(resource: &Resource) -> String {
    let byte = |byte: u8| match byte {
        b' '..=b'~' if byte != b'%' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    resource.as_str().bytes().map(byte).collect()
}

/// Which tokens let a fence pass. What no version writes never matches: an array would by any of its elements.
pub(super) fn passes(fence: &Fence, pass: Pass) -> Document {
    // One that isn't known here passes as rarely as any.
    let passes = match pass {
        Pass::Again => "$lte",
        _ => "$lt",
    };
    doc! { "$type": "long", "$gte": 1_i64, passes: fence.token_i64(), "$not": { "$type": "array" } }
}

/// What is written of a fence, by the step with this number.
pub(super) fn stamp(fence: &Fence, number: i64) -> Document {
    doc! { "lock": fence.lock().as_str(), "token": fence.token_i64(), "changed_by": number }
}

/// The fence that stands in a document.
pub(super) fn seen(found: &Document) -> Result<Fence, StoreError> {
    let unreadable = |what: &str| corrupt(format!("the register holds what no version of this writes: {what}"));
    let Some(Bson::String(lock)) = found.get("lock") else { return Err(unreadable("the lock's name is no text")) };
    let lock = LockName::new(lock).map_err(|error| unreadable(&error.to_string()))?;
    let token = match found.get("token") {
        Some(Bson::Int64(token)) => token.to_string(),
        other => return Err(unreadable(&format!("the token is {other:?}, and not a long"))),
    };
    let token = token.parse().map_err(|error| unreadable(&format!("{error}")))?;
    Fence::new(lock, token).map_err(|error| unreadable(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lock_core::{Applied, FencingToken};

    fn step(token: u64, pass: Pass) -> Step {
        let fence = Fence::new(LockName::new("x").unwrap(), FencingToken::new(token)).unwrap();
        Step::new(&Resource::new("r").unwrap(), fence, pass)
    }

    #[test]
    fn what_refused_it_is_told_and_its_own_write_is_recognised() {
        let once = step(5, Pass::Once);
        let found = |number| doc! { "_id": "r", "lock": "x", "token": 5_i64, "changed_by": number };
        assert!(once.is_done(Some(&found(once.number))));
        assert!(!once.is_done(Some(&found(once.number.wrapping_add(1)))) && !once.is_done(None));
        let error = once.refused(Some(&found(once.number.wrapping_add(1)))).unwrap_err();
        assert!(matches!(error, FenceError::Stale(_)), "{error}");
        assert!(once.judged(Some(&found(once.number)), true).is_ok());
        assert!(once.judged(Some(&found(once.number)), false).is_err());
        for found in [None, Some(found(0))] {
            let error = step(6, Pass::Again).refused(found.as_ref()).unwrap_err();
            assert!(matches!(&error, FenceError::Store(error) if error.kind() == ErrorKind::Contention), "{error}");
        }
    }

    /// The first attempt may have done it, and what a majority has may be older, or somebody else's since.
    #[test]
    fn after_an_unanswered_attempt_only_what_refuses_it_for_good_is_told_as_not_applied() {
        let found =
            |lock: &str, token: i64| Some(doc! { "_id": "r", "lock": lock, "token": token, "changed_by": 0_i64 });
        for (step, found, sure) in [
            (step(5, Pass::Again), None, false),
            (step(5, Pass::Again), found("x", 4), false),
            (step(5, Pass::Once), found("x", 5), false),
            (step(5, Pass::Again), found("x", -1), false),
            (step(5, Pass::Again), found("x", 6), true),
            (step(5, Pass::Once), found("x", 6), true),
            (step(5, Pass::Again), found("y", 4), true),
        ] {
            let applied = |in_doubt| step.judged(found.as_ref(), in_doubt).unwrap_err().applied();
            assert_eq!((applied(false), applied(true) == Applied::No), (Applied::No, sure), "{found:?}");
        }
    }

    #[test]
    fn what_no_version_writes_is_told_as_such() {
        for (field, value) in [
            ("token", Bson::Int64(-5)),
            ("token", Bson::Int64(0)),
            ("token", Bson::Int32(5)),
            ("token", Bson::Double(5.0)),
            ("token", "5".into()),
            ("token", Bson::Array(vec![Bson::Int64(5)])),
            ("token", Bson::Null),
            ("lock", Bson::Int64(5)),
            ("lock", "".into()),
        ] {
            let mut found = doc! { "_id": "r", "lock": "x", "token": 5_i64 };
            found.insert(field, value);
            let error = step(6, Pass::Again).refused(Some(&found)).unwrap_err();
            assert!(matches!(&error, FenceError::Store(error) if error.kind() == ErrorKind::Corrupt), "{error}");
        }
    }
}
