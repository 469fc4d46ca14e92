//! A document that carries its own fence: the check without a transaction, since one update of one document is atomic.

use std::{sync::Arc, time::Duration};

use lock_core::{
    ErrorKind, Fence, FenceError, FenceReport, LockName, Observer, Pass, Resource, StoreError, ToFence, admit,
};
use mongodb::{
    Collection,
    bson::{Binary, Bson, Document, doc, spec::BinarySubtype},
    error::Error,
    options::{Acknowledgment, ReadConcern, ReadPreference, SelectionCriteria, UpdateModifications, WriteConcern},
};

use super::step::{passes, seen, stamp};
use crate::{error, leases::fresh, provider::STORE, records::corrupt};

/// The field of the document that its fence stands in.
const FIELD: &str = "fence";

/// The field of the fence that its lock is compared by. By the collection's collation, if it has one, different texts may be
/// one, as "x" and "X"; bytes never are.
const EXACT: &str = "lock_bytes";

const TIMEOUT: Duration = Duration::from_secs(5);

/// A fenced write of one document that carries its own fence, in its field `fence`: no transaction, no other message.
///
/// It works on a standalone server as well, and in a collection with a collation. The first fenced write gives a document its fence; from then on, write it in
/// no other way. The field holds the `lock` to read and its `lock_bytes` to be compared, the highest `token`, and a number of
/// the write's own.
///
/// ```no_run
/// # async fn example(client: mongodb::Client, lease: lock_core::Lease) -> Result<(), Box<dyn std::error::Error>> {
/// use lock_core::Pass;
/// use lock_mongo::{DocumentFence, mongodb::bson::{Document, doc}};
///
/// let accounts = client.database("prod").collection::<Document>("accounts");
/// let fence = DocumentFence::new(&lease, Pass::Again)?;
/// // Before the first read: from here on the holder before this one is refused.
/// fence.update_one(&accounts, 7, doc! {}).await?;
/// fence.update_one(&accounts, 7, doc! { "$inc": { "balance": -100 } }).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct DocumentFence {
    fence: Fence,
    pass: Pass,
    timeout: Duration,
    report: FenceReport,
}

impl DocumentFence {
    /// Writes under this grant.
    ///
    /// # Errors
    /// [`FenceError::Invalid`] for a lease that isn't exclusive.
    pub fn new(fence: &impl ToFence, pass: Pass) -> Result<Self, FenceError> {
        Ok(Self { fence: fence.to_fence()?, pass, timeout: TIMEOUT, report: FenceReport::new(STORE) })
    }

    /// Tells refusals by [`update_one`](Self::update_one) to this observer, for metrics. What a command of one's own doesn't
    /// find is told to nobody.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.report = self.report.observer(observer);
        self
    }

    /// How long the server may take for a write, the majority's word included, and as long again for the look after one that
    /// was refused. Default 5 s; in whole milliseconds.
    ///
    /// A server that falls silent isn't given up: only the client's own limits are for that.
    #[must_use]
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        // None at all would be no limit.
        self.timeout = timeout.max(Duration::from_millis(1));
        self
    }

    /// The documents that this filter finds and whose fence lets this one pass, or that have none yet. For a command of
    /// one's own, together with [`update`](Self::update); what it doesn't find is refused, or isn't there.
    #[must_use]
    pub fn filter(&self, filter: Document) -> Document {
        let none_yet = doc! { FIELD: { "$exists": false } };
        let is = |value: Bson| doc! { "$eq": value, "$not": { "$type": "array" } };
        let passes = doc! {
            "$and": [{ FIELD: { "$not": { "$type": "array" } } }],
            format!("{FIELD}.lock"): is(self.fence.lock().as_str().into()),
            format!("{FIELD}.{EXACT}"): is(exact(self.fence.lock()).into()),
            format!("{FIELD}.token"): passes(&self.fence, self.pass),
        };
        doc! { "$and": [filter, { "$or": [none_yet, passes] }] }
    }

    /// This update, operators or a pipeline, with the fence put in. One that touches the field `fence` itself is refused by
    /// the server, or is overruled.
    #[must_use]
    pub fn update(&self, update: impl Into<UpdateModifications>) -> UpdateModifications {
        // A number of this write's own: see `Step`.
        let mut mark = stamp(&self.fence, fresh());
        mark.insert(EXACT, exact(self.fence.lock()));
        match update.into() {
            UpdateModifications::Pipeline(mut stages) => {
                stages.push(doc! { "$set": { FIELD: { "$literal": mark } } });
                stages.into()
            }
            UpdateModifications::Document(mut operators) => {
                match operators.get_mut("$set") {
                    Some(Bson::Document(set)) => drop(set.insert(FIELD, mark)),
                    // The server refuses what is no document there.
                    Some(_) => {}
                    None => drop(operators.insert("$set", doc! { FIELD: mark })),
                }
                operators.into()
            }
            // None that is known here could be fenced; and the driver refuses an empty one.
            _ => Document::new().into(),
        }
    }

    /// Writes one document, by its `_id`, if the fence passes there; `false` if there is no such document. It is told once
    /// a majority has it in its journal.
    ///
    /// Sent once by us: whether the driver sends it again when a connection breaks is for the client's `retryWrites`, with
    /// which the server still writes once.
    ///
    /// Not cancel safe, as no future of the driver is: dropped in the middle, it may have been written or not.
    ///
    /// # Errors
    /// [`FenceError::Stale`] and [`FenceError::OtherLock`]; [`FenceError::Store`], which says whether it may have been
    /// written. Among these [`ErrorKind::Corrupt`], not written: the document's fence is what no version writes.
    pub async fn update_one<T: Send + Sync>(
        &self,
        collection: &Collection<T>,
        id: impl Into<Bson>,
        update: impl Into<UpdateModifications>,
    ) -> Result<bool, FenceError> {
        let updated = self.updated(collection, doc! { "_id": id.into() }, update.into()).await;
        self.report.told(Some(self.fence.lock()), updated)
    }

    async fn updated<T: Send + Sync>(
        &self,
        collection: &Collection<T>,
        id: Document,
        update: UpdateModifications,
    ) -> Result<bool, FenceError> {
        let documents = collection.clone_with_type::<Document>();
        let majority =
            WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(self.timeout).build();
        // An update takes no limit of time in the driver, and this does.
        let write = documents.find_one_and_update(self.filter(id.clone()), self.update(update)).write_concern(majority);
        let written = write.projection(doc! { "_id": 1 }).max_time(self.timeout).await;
        if written.map_err(|cause| error::of_command(cause.into()))?.is_some() {
            return Ok(true);
        }
        let found = look(&documents, &id, self.timeout).await.map_err(|cause| error::of_reading(cause.into()))?;
        let Some(found) = found else { return Ok(false) };
        let highest = match found.get(FIELD) {
            None => None,
            Some(Bson::Document(fence)) => Some(seen_exactly(fence)?),
            Some(_) => return Err(corrupt("the document's fence is no document").into()),
        };
        admit(highest.as_ref(), &named(collection, &id)?, &self.fence, self.pass)?;
        // It would pass now: the document was made or changed in between.
        Err(StoreError::refused(ErrorKind::Contention, "the document's fence was changed at the same time").into())
    }
}

/// What a write was just refused by, whether a majority has it yet or not.
async fn look(documents: &Collection<Document>, id: &Document, limit: Duration) -> Result<Option<Document>, Error> {
    let look = documents.find_one(id.clone()).projection(doc! { FIELD: 1 }).read_concern(ReadConcern::local());
    look.selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary)).max_time(limit).await
}

fn exact(lock: &LockName) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: lock.as_str().as_bytes().to_vec() }
}

/// The fence that stands in the document, where its lock is one in both ways of writing it.
fn seen_exactly(fence: &Document) -> Result<Fence, StoreError> {
    let seen = seen(fence)?;
    if fence.get(EXACT) != Some(&Bson::Binary(exact(seen.lock()))) {
        return Err(corrupt(format!("the document's fence has another {EXACT} than its lock")));
    }
    Ok(seen)
}

/// The document, as errors name it.
fn named<T: Send + Sync>(collection: &Collection<T>, id: &Document) -> Result<Resource, StoreError> {
    let id = id.get("_id").map(Bson::to_string).unwrap_or_default();
    // A resource's name has no NUL, and a text that is an `_id` may.
    let name = format!("{}/{id}", collection.namespace()).replace('\0', "\u{fffd}");
    let cut = (0..=Resource::MAX_BYTES.min(name.len())).rev().find(|at| name.is_char_boundary(*at)).unwrap_or_default();
    Resource::new(&name[..cut])
}
