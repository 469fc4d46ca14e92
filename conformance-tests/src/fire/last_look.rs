//! The last look: what all resources have when everybody has ended.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lock_verify::history::{Entry, F, Process, Recorder};

use super::{client, control, pen::Pen, run::CONNECTS_WITHIN, scene::Scene, stalls::Stalls, tasks::TRANSACTED};
use crate::{Failure, asker::Outcome};

/// The file with what the counter was in the end.
pub(super) const COUNTED: &str = "counted.txt";

/// Who reads everything in the end.
const READER: Process = Process::Client(u32::MAX);

/// Reads everything into the history, and what nothing fences into the control's.
pub(super) async fn read(scene: &Scene, folder: &Path, stalls: &Stalls) -> Outcome {
    let reader = |of: &str| -> Result<Pen, Failure> {
        let file = folder.join(format!("{of}-read.jsonl"));
        Ok(Pen::new(Recorder::to_file(file)?, READER))
    };
    let pen = reader(client::HISTORY)?;
    let record = |name: &str, entries: Vec<Entry>| {
        let begun = pen.invoke(F::Read, |event| event.resource(name));
        pen.ok(&begun, |event| event.entries(entries));
    };
    for (name, list) in &scene.sets {
        record(name, parsed(&stalls.patiently(CONNECTS_WITHIN, async || Ok(list.entries().await?)).await?)?);
    }
    if let Some(set) = &scene.transacted {
        record(TRANSACTED, parsed(&stalls.patiently(CONNECTS_WITHIN, async || Ok(set.entries().await?)).await?)?);
    }
    let counted = stalls.patiently(CONNECTS_WITHIN, async || Ok(scene.counter.value().await?)).await?;
    fs::write(folder.join(COUNTED), counted.to_string())?;

    pen.finish()?;

    let control = reader(control::HISTORY)?;
    let begun = control.invoke(F::Read, |event| event.resource(control::SET));
    let entries = control::entries(folder)?;
    control.ok(&begun, |event| event.entries(entries));
    Ok(control.finish()?)
}

fn parsed(texts: &[String]) -> Result<Vec<Entry>, Failure> {
    Ok(texts.iter().map(|text| control::parse(text)).collect::<Result<_, _>>()?)
}

/// The files of the history proper.
pub(super) fn files(folder: &Path, of: &str) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(&format!("{of}-")) && name.ends_with(".jsonl") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
