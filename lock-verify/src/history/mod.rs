//! What the clients of a run did and saw, event by event.
