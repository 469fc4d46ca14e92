//! `leasehold fence`: the check at the resource, for shells.

use std::{os::unix::process::CommandExt, process::Command, sync::Arc};

use leasehold::{Fence, FenceError, FenceRegister, FencingToken, InvalidFence, LockName, Pass, Resource};
use serde_json::{Value, json};

use crate::{
    args::{self, FenceCheck, FenceForget, FenceRules, FenceRun, FenceShow, StoreArg},
    exit::{self, Failure},
    people::print,
    store,
};

/// Does what is to be done with a resource's fence.
///
/// # Errors
/// Usage, a refusal under its own exit code, the store's.
pub(crate) async fn perform(task: &args::Fence) -> Result<u8, Failure> {
    match task {
        args::Fence::Check(task) => check(task).await,
        args::Fence::Run(task) => run(task).await,
        args::Fence::Show(task) => show(task).await,
        args::Fence::Forget(task) => forget(task).await,
    }
}

async fn check(task: &FenceCheck) -> Result<u8, Failure> {
    let resource = Resource::new(&task.resource)?;
    let fence = fence(Some(&task.token), &task.rules)?;
    match raise(&task.store, &resource, &fence, &task.rules).await? {
        Ok(()) if task.json.json => print(&format!("{}\n", json!({ "resource": resource.as_str(), "passed": true }))),
        Ok(()) => Ok(exit::OK),
        Err(refusal) if task.json.json => {
            let line = json!({ "resource": resource.as_str(), "passed": false, "reason": refusal.message });
            print(&format!("{line}\n"))?;
            Ok(refusal.code)
        }
        Err(refusal) => Err(refusal),
    }
}

async fn run(task: &FenceRun) -> Result<u8, Failure> {
    let resource = Resource::new(&task.resource)?;
    let fence = fence(task.token.as_deref(), &task.rules)?;
    raise(&task.store, &resource, &fence, &task.rules).await??;
    let [program, arguments @ ..] = &*task.command else { return Err(Failure::usage("no command is given")) };
    // Only if it can't be started it comes back.
    let error = Command::new(program).args(arguments).env_remove(store::HIDDEN_URL).exec();
    let program = program.to_string_lossy();
    Err(match error.kind() {
        std::io::ErrorKind::NotFound => Failure { code: exit::NOT_FOUND, message: format!("{program}: not found") },
        _ => Failure { code: exit::NOT_EXECUTABLE, message: format!("{program}: can't be run: {error}") },
    })
}

async fn show(task: &FenceShow) -> Result<u8, Failure> {
    let resource = Resource::new(&task.resource)?;
    let (url, fences) = connect(&task.store).await?;
    let highest = store::within(&url, fences.highest(&resource)).await?.map_err(failure)?;
    if task.json.json {
        let (lock, token) = match &highest {
            Some(fence) => (Value::from(fence.lock().as_str()), Value::from(fence.token().get())),
            None => (Value::Null, Value::Null),
        };
        return print(&format!("{}\n", json!({ "resource": resource.as_str(), "lock": lock, "token": token })));
    }
    print(&match highest {
        Some(fence) => format!("\"{resource}\" has seen token {} of \"{}\"\n", fence.token(), fence.lock()),
        None => format!("\"{resource}\" has seen no token\n"),
    })
}

async fn forget(task: &FenceForget) -> Result<u8, Failure> {
    let resource = Resource::new(&task.resource)?;
    if !task.force {
        return Err(Failure::usage(format!(
            "to forget what \"{resource}\" has seen lets late writes pass, if somebody is still at work; \
             say --force if nobody can be"
        )));
    }
    let (url, fences) = connect(&task.store).await?;
    let known = store::within(&url, fences.forget(&resource)).await?.map_err(failure)?;
    if task.json.json {
        return print(&format!("{}\n", json!({ "resource": resource.as_str(), "forgotten": known })));
    }
    print(&match known {
        true => format!("\"{resource}\" has forgotten what it had seen\n"),
        false => format!("\"{resource}\" had seen no token\n"),
    })
}

/// Whether it passes, or the refusal.
async fn raise(
    store: &StoreArg,
    resource: &Resource,
    fence: &Fence,
    rules: &FenceRules,
) -> Result<Result<(), Failure>, Failure> {
    let (url, fences) = connect(store).await?;
    let pass = if rules.once { Pass::Once } else { Pass::Again };
    match store::within(&url, fences.raise(resource, fence, pass)).await? {
        Ok(()) => Ok(Ok(())),
        Err(error) if error.is_refusal() => {
            Ok(Err(Failure { code: rules.refused_exit_code, message: error.to_string() }))
        }
        Err(error) => Err(failure(error)),
    }
}

async fn connect(store: &StoreArg) -> Result<(String, Arc<dyn FenceRegister>), Failure> {
    let url = store::url(store)?;
    if url.to_ascii_lowercase().starts_with("memory:") {
        return Err(Failure::usage("memory: forgets what was seen when this command ends, so it would refuse nothing"));
    }
    let fences = store::within(&url, leasehold::connect_fences(&url)).await??;
    Ok((url, fences))
}

/// The fence that is meant: in one word, or by the token's number and the lock's name; else that of `leasehold run`.
fn fence(token: Option<&str>, rules: &FenceRules) -> Result<Fence, Failure> {
    let wrong = |error: InvalidFence| Failure::usage(error.to_string());
    let of_run = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let token = match (token, &rules.lock) {
        (Some(token), _) => token.to_owned(),
        // A token of the one lock under the name of the other would be taken for what it isn't.
        (None, Some(_)) => return Err(Failure::usage("--lock says of which lock --token is: give both, or neither")),
        (None, None) => of_run("LEASEHOLD_TOKEN")
            .ok_or_else(|| Failure::usage("no token: run it under `leasehold run`, or say --token and --lock"))?,
    };
    if token.contains('@') {
        let fence: Fence = token.parse().map_err(wrong)?;
        return match &rules.lock {
            Some(lock) if lock != fence.lock().as_str() => {
                Err(Failure::usage(format!("--lock is \"{lock}\", and the token is of \"{}\"", fence.lock())))
            }
            _ => Ok(fence),
        };
    }
    let token: FencingToken = token.parse().map_err(wrong)?;
    let Some(lock) = rules.lock.clone().or_else(|| of_run("LEASEHOLD_LOCK")) else {
        return Err(Failure::usage("of which lock is the token? Say --lock NAME, or give it as TOKEN@LOCK"));
    };
    Fence::new(LockName::new(lock)?, token).map_err(wrong)
}

fn failure(error: FenceError) -> Failure {
    match error {
        FenceError::Store(error) => error.into(),
        other => Failure::usage(other.to_string()),
    }
}
