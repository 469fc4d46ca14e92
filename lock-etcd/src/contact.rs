//! The first contact with the cluster.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp};
use lock_core::{ErrorKind, StoreError};

use crate::{keys::Keys, link::Link, txn};

/// It is told of within this, so that a person isn't kept waiting.
const FIRST_CONTACT: Duration = Duration::from_millis(4200);

/// Sees that a majority answers, and that the keys of this room may be read and written. Writes nothing.
pub(crate) async fn first(link: &Link, keys: &Keys, room: char) -> Result<(), StoreError> {
    let start = format!("{}{room}/", keys.prefix());
    // What comes after the slash.
    let end = format!("{}{room}0", keys.prefix());
    // Never so: but what would be done then is checked, and agreed on by a majority.
    let never = Compare::create_revision(start.as_str(), CompareOp::Greater, i64::MAX - 1);
    let read = TxnOp::get(start.as_str(), Some(GetOptions::new().with_range(end).with_count_only()));
    let txn = Txn::new().when([never]).and_then([TxnOp::put(start, "", None)]).or_else([read]);
    let give_up = link.clock.now() + FIRST_CONTACT.min(link.operation_timeout);
    let checked = link.read_until(give_up, |client| txn::send(client, txn.clone())).await;
    checked.map(drop).map_err(|error| match error.kind() {
        ErrorKind::Unreachable | ErrorKind::Timeout => {
            let message = format!("{}: {error}", link.shown());
            StoreError::refused(error.kind(), message).caused_by(error)
        }
        _ => error,
    })
}
