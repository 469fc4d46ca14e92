//! `status`, `list` and `release`: for people who look after locks.

use std::{
    io::{self, Write},
    time::{Duration, SystemTime},
};

use comfy_table::{Table, presets};
use leasehold::{HolderInfo, ListRequest, LockName, LockState, LockStatus};
use serde_json::{Value, json};

use crate::{
    args::{List, Release, Status},
    duration, exit,
    exit::Failure,
    store,
};

/// How many locks are asked for at a time.
const PAGE: u32 = 500;

/// Shows one lock.
///
/// # Errors
/// The store's.
pub(crate) async fn status(task: &Status) -> Result<u8, Failure> {
    let name = LockName::new(&task.name)?;
    let url = store::url(&task.store)?;
    let locks = store::connect(&url).await?;
    let known = store::within(&url, locks.provider().inspect(&name)).await??;
    let known = known.unwrap_or(LockStatus { name, state: LockState::Free, last_token: None, waiters: None });
    if task.json.json {
        return print(&format!("{}\n", as_json(&known)));
    }
    let mut lines = format!("{}\n", sentence(&known));
    if let LockState::Held(holding) = &known.state {
        lines += &format!("  token      {}\n  owner      {}\n", holding.token, holding.owner);
        lines += &format!("  since      {}\n", moment(&holding.holder));
        lines += &format!("  remaining  {} unless it is renewed\n", duration::show(holding.remaining));
    } else if let Some(token) = known.last_token {
        lines += &format!("  last token {token}\n");
    }
    if let Some(waiters) = known.waiters {
        lines += &format!("  waiting    {waiters}\n");
    }
    print(&lines)
}

/// Shows all locks, page by page.
///
/// # Errors
/// The store's.
pub(crate) async fn list(task: &List) -> Result<u8, Failure> {
    let url = store::url(&task.store)?;
    let locks = store::connect(&url).await?;
    let mut after = None;
    let mut all = Vec::new();
    loop {
        let request = ListRequest { prefix: task.prefix.clone(), after, limit: PAGE };
        let page = store::within(&url, locks.provider().list(&request)).await??;
        after = page.last().map(|status| status.name.clone());
        let more = page.len() >= PAGE as usize;
        all.extend(page);
        if !more {
            break;
        }
    }
    if task.json.json {
        return print(&format!("{}\n", Value::from(all.iter().map(as_json).collect::<Vec<_>>())));
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["NAME", "STATE", "HOLDER", "SINCE", "REMAINING", "TOKEN"]);
    for status in &all {
        table.add_row(row(status));
    }
    print(&format!("{}\n", table.trim_fmt()))
}

/// Takes a lock away.
///
/// # Errors
/// Usage without `--force`; the store's.
pub(crate) async fn release(task: &Release) -> Result<u8, Failure> {
    let name = LockName::new(&task.name)?;
    if !task.force {
        return Err(Failure::usage(format!(
            "this takes \"{name}\" away from whoever holds it, who may still be at work and learns of it only at the \
             next renewal; look at `leasehold status` first, then say --force"
        )));
    }
    let url = store::url(&task.store)?;
    let locks = store::connect(&url).await?;
    let taken = store::within(&url, locks.provider().force_release(&name)).await??;
    if task.json.json {
        return print(&format!("{}\n", json!({ "name": name.as_str(), "released": taken })));
    }
    print(&if taken {
        format!("\"{name}\" was taken away from its holder\n")
    } else {
        format!("\"{name}\" was not held by anybody\n")
    })
}

/// Writes a result on stdout.
///
/// # Errors
/// Nobody takes it, other than by closing a pipe (`| head`).
pub(crate) fn print(text: &str) -> Result<u8, Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::internal(format!("the result can't be written: {error}")))
        }
        _ => Ok(exit::OK),
    }
}

fn sentence(status: &LockStatus) -> String {
    let name = &status.name;
    match &status.state {
        LockState::Free => format!("\"{name}\" is free"),
        LockState::Resting(left) => {
            format!("\"{name}\" is held by nobody, and can be had in {}", duration::show(*left))
        }
        LockState::Held(holding) => format!("\"{name}\" is held by {}", holding.holder),
        _ => format!("\"{name}\" is in a state that this version doesn't know"),
    }
}

fn row(status: &LockStatus) -> [String; 6] {
    let token = |token: Option<_>| token.map(|token: leasehold::FencingToken| token.to_string()).unwrap_or_default();
    let name = status.name.to_string();
    match &status.state {
        LockState::Held(holding) => [
            name,
            "held".to_owned(),
            holding.holder.to_string(),
            moment(&holding.holder),
            duration::show(holding.remaining),
            holding.token.to_string(),
        ],
        LockState::Resting(left) => {
            [name, "resting".to_owned(), String::new(), String::new(), duration::show(*left), token(status.last_token)]
        }
        _ => [name, "free".to_owned(), String::new(), String::new(), String::new(), token(status.last_token)],
    }
}

/// When the holder asked, by its own clock.
fn moment(holder: &HolderInfo) -> String {
    let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(holder.since_micros));
    // What a store returns is not trusted: RFC 3339 ends with the year 9999.
    let since = since.filter(|_| holder.since_micros < 253_402_300_800_000_000);
    since.map(|since| humantime::format_rfc3339_seconds(since).to_string()).unwrap_or_default()
}

fn as_json(status: &LockStatus) -> Value {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let mut object = json!({
        "name": status.name.as_str(),
        "last_token": status.last_token,
        "waiters": status.waiters,
    });
    let state = match &status.state {
        LockState::Free => json!({ "state": "free" }),
        LockState::Resting(left) => json!({ "state": "resting", "remaining_ms": millis(*left) }),
        LockState::Held(holding) => json!({
            "state": "held",
            "token": holding.token,
            "owner": holding.owner.to_string(),
            "remaining_ms": millis(holding.remaining),
            "holder": {
                "host": holding.holder.host,
                "pid": holding.holder.pid,
                "label": holding.holder.label,
                "since": moment(&holding.holder),
            },
        }),
        _ => json!({ "state": "unknown" }),
    };
    if let (Some(object), Value::Object(state)) = (object.as_object_mut(), state) {
        object.extend(state);
    }
    object
}
