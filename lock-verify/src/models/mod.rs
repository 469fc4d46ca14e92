//! Small models of the protocols, searched to the end.
