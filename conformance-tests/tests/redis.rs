//! The suite over Redis: one server, whose every write is on its disk before its answer.

mod redis_server;

conformance_tests::suite!(redis_server::Place);
