//! The laws, as checks of a history.
