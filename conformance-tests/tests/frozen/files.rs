//! The list in a file of a directory, fenced by a lock that is kept anywhere.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use conformance_tests::FencedList;
use lock_core::{ErrorKind, FenceError, Lease, Pass, Resource, StoreError};
use lock_fence::files::FileFences;

/// A process that stands still while it is inside keeps all others out until it goes on.
const PATIENCE: Duration = Duration::from_secs(60);

/// The list in the file `name` of a directory, which is what `url` is here.
pub(crate) async fn register_list(url: &str, name: &str) -> Arc<dyn FencedList> {
    let fences = FileFences::open(Path::new(url)).await.unwrap().patience(PATIENCE);
    let (list, path) = (Resource::new(name).unwrap(), Path::new(url).join(name));
    Arc::new(List { fences, list, name: name.to_owned(), path: path.into() })
}

struct List {
    fences: FileFences,
    list: Resource,
    name: String,
    path: Arc<Path>,
}

#[async_trait]
impl FencedList for List {
    async fn append(&self, lease: &Lease, entry: &str) -> Result<(), FenceError> {
        let admission = self.fences.admit(&self.list, lease, Pass::Again).await?;
        let mut text = admission.read(&self.name).await?.unwrap_or_default();
        text.extend_from_slice(format!("{entry}\n").as_bytes());
        Ok(admission.write(&self.name, text).await?)
    }

    /// At the end of the file, whoever is inside: one that is being replaced then may lose it, as befits a write that asks
    /// nobody.
    async fn append_unfenced(&self, entry: &str) -> Result<(), FenceError> {
        let (path, line) = (Arc::clone(&self.path), format!("{entry}\n"));
        let write = move || {
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path)?;
            std::io::Write::write_all(&mut file, line.as_bytes())?;
            file.sync_all()
        };
        tokio::task::spawn_blocking(write).await.unwrap().map_err(failed)
    }

    async fn entries(&self) -> Result<Vec<String>, FenceError> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(failed(error)),
        }
    }
}

fn failed(error: std::io::Error) -> FenceError {
    StoreError::unknown(ErrorKind::Other, "the list can't be used").caused_by(error).into()
}
