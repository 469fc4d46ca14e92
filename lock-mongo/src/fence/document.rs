//! A document that carries its own fence: the check without a transaction, since one update of one document is atomic.

use lock_core::{ErrorKind, Fence, FenceError, Operation, Pass, Resource, StoreError, ToFence, admit};
use mongodb::{
    Collection,
    bson::{Bson, Document, doc},
    error::Error,
    options::{Acknowledgment, ReadConcern, ReadPreference, SelectionCriteria, UpdateModifications, WriteConcern},
};

use super::step::{passes, seen, stamp};
use crate::{error, leases::fresh, records::corrupt};

/// The field of the document that its fence stands in.
const FIELD: &str = "fence";

/// A fenced write of one document that carries its own fence, in its field `fence`: no transaction, no other message.
///
/// It works on a standalone server as well. The first fenced write gives a document its fence; from then on, write it in
/// no other way.
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
}

impl DocumentFence {
    /// Writes under this grant.
    ///
    /// # Errors
    /// [`FenceError::Invalid`] for a lease that isn't exclusive.
    pub fn new(fence: &impl ToFence, pass: Pass) -> Result<Self, FenceError> {
        Ok(Self { fence: fence.to_fence()?, pass })
    }

    /// The documents that this filter finds and whose fence lets this one pass, or that have none yet. For a command of
    /// one's own, together with [`update`](Self::update); what it doesn't find is refused, or isn't there.
    #[must_use]
    pub fn filter(&self, filter: Document) -> Document {
        let none_yet = doc! { FIELD: { "$exists": false } };
        let passes = passes(&format!("{FIELD}."), &self.fence, self.pass);
        let passes = doc! { "$and": [{ FIELD: { "$not": { "$type": "array" } } }, passes] };
        doc! { "$and": [filter, { "$or": [none_yet, passes] }] }
    }

    /// This update, operators or a pipeline, with the fence put in. One that touches the field `fence` itself is refused by
    /// the server, or is overruled.
    #[must_use]
    pub fn update(&self, update: impl Into<UpdateModifications>) -> UpdateModifications {
        // A number of this write's own: see `Step`.
        let mark = stamp(&self.fence, fresh());
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
        let at = |error: StoreError| error.at("mongo", Operation::Fence, Some(self.fence.lock()));
        let id = doc! { "_id": id.into() };
        let majority = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
        let write = collection.update_one(self.filter(id.clone()), self.update(update)).write_concern(majority);
        let written = write.await.map_err(|cause| at(error::of_command(cause.into())))?;
        if written.matched_count > 0 {
            return Ok(true);
        }
        let Some(found) = look(collection, &id).await.map_err(|cause| at(error::of_reading(cause.into())))? else {
            return Ok(false);
        };
        let highest = match found.get(FIELD) {
            None => None,
            Some(Bson::Document(fence)) => Some(seen(fence).map_err(at)?),
            Some(_) => return Err(at(corrupt("the document's fence is no document")).into()),
        };
        admit(highest.as_ref(), &named(collection, &id)?, &self.fence, self.pass)?;
        // It would pass now: the document was made or changed in between.
        Err(at(StoreError::refused(ErrorKind::Contention, "the document's fence was changed at the same time")).into())
    }
}

/// What a write was just refused by, whether a majority has it yet or not.
async fn look<T: Send + Sync>(collection: &Collection<T>, id: &Document) -> Result<Option<Document>, Error> {
    let documents = collection.clone_with_type::<Document>();
    let look = documents.find_one(id.clone()).projection(doc! { FIELD: 1 }).read_concern(ReadConcern::local());
    look.selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary)).await
}

/// The document, as errors name it.
fn named<T: Send + Sync>(collection: &Collection<T>, id: &Document) -> Result<Resource, StoreError> {
    let id = id.get("_id").map(Bson::to_string).unwrap_or_default();
    let name = format!("{}/{id}", collection.namespace());
    let cut = (0..=Resource::MAX_BYTES.min(name.len())).rev().find(|at| name.is_char_boundary(*at)).unwrap_or_default();
    Resource::new(&name[..cut])
}
