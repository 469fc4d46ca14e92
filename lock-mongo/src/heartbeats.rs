//! Why no server answers: what the driver's monitors ran into.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use lock_core::{ErrorKind, StoreError};
use mongodb::{
    error::{Error, ErrorKind as DriverKind},
    event::{EventHandler, sdam::SdamEvent},
};

use crate::{error::one_line, url::shown};

/// The last failure of each server, by its address; none of those that answer.
#[derive(Clone, Default)]
pub(crate) struct Heartbeats(Arc<Mutex<BTreeMap<String, Error>>>);

impl Heartbeats {
    pub(crate) fn handler(&self) -> EventHandler<SdamEvent> {
        let seen = Arc::clone(&self.0);
        EventHandler::Callback(Arc::new(move |event| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                SdamEvent::ServerHeartbeatFailed(event) => {
                    drop(seen.insert(shown(&event.server_address), event.failure))
                }
                SdamEvent::ServerHeartbeatSucceeded(event) => drop(seen.remove(&shown(&event.server_address))),
                _ => {}
            }
        }))
    }

    /// What is the matter with one of the servers that can't be talked to, in a sentence. Nothing of those that are silent:
    /// what the driver says of its topology says that as well, and which of the others are there.
    pub(crate) fn explain(&self) -> Option<StoreError> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let silent = |error: &Error| matches!(error.kind.as_ref(), DriverKind::Io(cause) if cause.kind() == io::ErrorKind::TimedOut);
        let (server, error) = seen.iter().find(|(_, error)| !silent(error))?;
        let (kind, message) = explain(server, error);
        Some(StoreError::refused(kind, message).caused_by(error.clone()))
    }
}

fn explain(server: &str, error: &Error) -> (ErrorKind, String) {
    let text = one_line(&error.to_string());
    match error.kind.as_ref() {
        DriverKind::Io(cause) => match cause.kind() {
            io::ErrorKind::ConnectionRefused => (
                ErrorKind::Unreachable,
                format!("nothing listens at {server}: check that the server runs, and its port"),
            ),
            io::ErrorKind::InvalidData if text.contains("certificate") => (
                ErrorKind::InvalidConfig,
                format!(
                    "{server} didn't prove who it is: {cause}. Name the authority to trust with tlsCAFile=FILE in the URL"
                ),
            ),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => (
                ErrorKind::Unreachable,
                format!(
                    "{server} closed the connection or speaks another language: check its port, and whether both sides use TLS ({cause})"
                ),
            ),
            _ if text.contains("lookup") => {
                (ErrorKind::Unreachable, format!("the host of {server} can't be found: check its name ({cause})"))
            }
            _ => (ErrorKind::Unreachable, format!("can't connect to {server}: {cause}")),
        },
        DriverKind::DnsResolve { .. } => {
            (ErrorKind::Unreachable, format!("the host of {server} can't be found: check its name"))
        }
        _ => (ErrorKind::Unreachable, format!("can't connect to {server}: {text}")),
    }
}
