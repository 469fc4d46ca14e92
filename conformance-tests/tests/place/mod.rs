//! Where a store is that is under test, and what keeps it there.

use std::{any::Any, io};

pub(crate) struct Place {
    pub(crate) url: String,
    _kept: Option<Box<dyn Any + Send + Sync>>,
}

impl Place {
    /// The same place under another URL.
    pub(crate) fn called(self, url: impl FnOnce(&str) -> String) -> Self {
        Self { url: url(&self.url), ..self }
    }
}

/// For what this process keeps itself.
impl From<String> for Place {
    fn from(url: String) -> Self {
        Self { url, _kept: None }
    }
}

impl From<testbed::Server> for Place {
    fn from(server: testbed::Server) -> Self {
        Self { url: server.url().to_owned(), _kept: Some(Box::new(server)) }
    }
}

/// For a store that is files: a path at which nothing is yet.
impl From<tempfile::TempDir> for Place {
    fn from(folder: tempfile::TempDir) -> Self {
        Self { url: folder.path().join("kept").display().to_string(), _kept: Some(Box::new(folder)) }
    }
}

/// A fresh folder.
pub(crate) fn folder() -> io::Result<Place> {
    let place: Place = tempfile::tempdir()?.into();
    std::fs::create_dir(&place.url)?;
    Ok(place)
}

/// A fresh file of SQLite.
pub(crate) fn sqlite_file() -> io::Result<Place> {
    Ok(Place::from(tempfile::tempdir()?).called(|path| format!("sqlite:{path}")))
}
