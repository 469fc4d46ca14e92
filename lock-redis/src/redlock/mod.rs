//! Redlock: a lock that a majority of independent masters agrees on.
//!
//! An acquire has two phases. First the masters are *claimed*: each that has the lock free makes the asker its owner for the
//! ttl, and tells the last token it knows of. If a majority did, the asker chooses a token above all of those, and above
//! the masters' clocks. Second, those very masters *accept* it: each that still has the asker as owner, by this very attempt,
//! takes note of it. The lock is held once a majority accepted.
//!
//! Why two phases: the highest of the tokens that the masters give out one by one is given to two grants sooner or later
//! (three masters that count 4, 5 and 1: one grant sees the first two, the next the last two). Here a grant that
//! returned was accepted by a majority, so each later claim of a majority meets one of those masters and learns of the token.
//!
//! *No two calls get one token*, whatever comes late, twice, or after a lease that was ended early, as long as no master loses
//! data. A master accepts only a token above the last one that it knows, or once more the one that it accepted from this owner in
//! this lease. So it accepts a token for one owner, and two majorities share a master. That the asker is the owner there,
//! by this attempt, is not enough: a claim that a master runs twice, since it was sent again when its connection died, makes
//! the asker the owner again after others had the lock. Refused, its next attempt hears of their tokens and chooses a higher one.
//!
//! What an attempt that came to nothing has claimed is taken back by the number of the attempt: a message that was
//! delayed must not free what a later attempt of the same owner relies on.
//!
//! # Fencing
//!
//! There is no script that runs only while a grant holds its lock, as [`RedisLocks::script`](crate::RedisLocks::script) is:
//! no single master can tell. Its tokens rise, so what it protects is fenced by a register where the data is, such as
//! [`RedisFences`](crate::RedisFences).
//!
//! # Ticks
//!
//! A master refuses a claim whose tick it has recorded (`last_tick >= tick`), unless the asker is its live owner. It records
//! the tick in the same write that accepts the token, or that releases with `done`. So a tick is used up once a majority
//! accepted its grant, or took part in that release.
//!
//! *No tick is granted twice*, as long as no master loses data. Two grants are accepted by a majority each, and these share
//! a master. A master accepts while the asker is its owner by a claim that it didn't refuse, and between that claim and the
//! acceptance it is nobody else's. So at the shared master one grant's claim came after the other's acceptance, when the
//! tick was recorded, and was refused. The same holds for a grant after a release with `done`.
//!
//! *No tick is skipped for what a minority has recorded*: the attempt may have gone no further. The answer is
//! [`Finished`](lock_core::Acquired::Finished) only if a majority says so, and with the last tick that a majority has. The
//! others, if they are a majority, grant it: one of them would have it recorded if anybody had been granted it. If some have
//! it recorded, some are taken and some are silent, so that there is no majority for anything, the answer is `Held`, and the
//! asker comes again.
//!
//! *An attempt that comes to nothing takes back its tick*, too: until the lease ends a master keeps the tick before it
//! (`tick_before`). Otherwise attempts that failed at a few masters each would use a tick up together, and a call whose acceptance
//! is in doubt would be refused its own when it asks again. Where the take-back is lost as well, they still may: their callers were
//! told an unknown outcome, and the tick then counts as used up though nobody was granted it. It is as safe as freeing the lock there, which the same write does
//! under the same condition: the attempt was not granted, and no other relies on it. Who asks in between may be told that the
//! tick is used up, as if the owner in doubt had it; that one can have it by asking again. Nobody takes back for a process that
//! died: what a majority accepted for it is used up, as [`AtGrant`](lock_core::TickUse::AtGrant) says.
//!
//! *A release with `done`* is `Released` if a majority took part. If fewer are known to have, the outcome is unknown: where
//! it arrived the tick is recorded and the lock free, elsewhere the lease goes on. Sent again, it makes good what is missing, and
//! is `Released` if a majority took part in this one. `NotHeld` after a failure may mean that the first one did it, as
//! with every store, and never that the tick is still to be had: who wants to know asks for it.

mod ballot;
mod campaign;
mod config;
mod masters;
mod people;
mod provider;
mod records;
mod rows;
mod scripts;

pub use config::Builder;
pub use provider::Redlock;
