//! The test programs of the workspace, two at a time where that disturbs neither.
//!
//! Most of a test's time is waiting: for leases to end, for servers to come back. One program after the other left the cores
//! idle for more than half of the time. What a program needs is told by its name, and whoever can't be told is taken
//! to need everything.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// How many run at a time.
const LANES: usize = 2;

/// A program, and where and how cargo would run it.
#[derive(Debug)]
pub(crate) struct Program {
    package: String,
    version: String,
    target: String,
    kind: String,
    executable: PathBuf,
    manifest: PathBuf,
}

/// What a program must not share with another while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// The whole machine: it measures, or keeps all cores busy.
    Machine,
    /// The servers of all stores, or nobody knows.
    Servers,
    /// The servers of one store.
    Store(&'static str),
    /// Nothing that others use.
    Nothing,
}

/// Parts of names, and the store whose servers they stand for.
const STORES: [(&str, &str); 9] = [
    ("postgres", "postgres"),
    ("pgbouncer", "postgres"),
    ("redis", "redis"),
    ("redlock", "redis"),
    ("mongo", "mongo"),
    ("etcd", "etcd"),
    ("zookeeper", "zookeeper"),
    ("sqlite", "sqlite"),
    ("memory", "memory"),
];

/// Programs that search on all cores, or break many servers at once.
const BUSY: [&str; 3] = ["conformance-tests/fire", "lock-verify/models", "lock-verify/simulation"];

/// Packages whose tests ask no server.
const WITHOUT_SERVERS: [&str; 4] = ["lock-core", "lock-macros", "lock-verify", "xtask"];

impl Program {
    fn name(&self) -> String {
        format!("{}/{}", self.package, self.target)
    }

    fn needs(&self) -> Needs {
        let measures = self.target == "load" || self.target.ends_with("cost");
        if measures || BUSY.contains(&&*self.name()) {
            return Needs::Machine;
        }
        if WITHOUT_SERVERS.contains(&&*self.package) {
            return Needs::Nothing;
        }
        // Eight properties at a time, with leases of well below a second: another program's disk and cores would be felt.
        if self.package == "conformance-tests" {
            return Needs::Servers;
        }
        let mut stores: Vec<_> =
            STORES.iter().filter(|(part, _)| self.name().contains(part)).map(|(_, store)| *store).collect();
        stores.dedup();
        match stores[..] {
            [store] => Needs::Store(store),
            _ => Needs::Servers,
        }
    }
}

impl Needs {
    fn bears(self, other: Self) -> bool {
        match (self, other) {
            (Self::Machine, _) | (_, Self::Machine) => false,
            (Self::Nothing, _) | (_, Self::Nothing) => true,
            (Self::Store(one), Self::Store(other)) => one != other,
            _ => false,
        }
    }
}

/// What cargo says of each thing that it built, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    package_id: String,
    #[serde(default)]
    manifest_path: PathBuf,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

/// Builds all test programs.
pub(crate) fn build() -> Result<Vec<Program>, String> {
    let output = crate::cargo()
        .args(["test", "--workspace", "--all-features", "--no-run", "--message-format=json-render-diagnostics"])
        .current_dir(crate::test::root())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("can't run cargo test: {error}"))?;
    if !output.status.success() {
        return Err("the tests don't build".to_owned());
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let programs: Vec<_> = said.lines().filter_map(|line| program(line).transpose()).collect::<Result<_, _>>()?;
    // None would be none that failed.
    if programs.is_empty() {
        return Err("cargo names no test program among what it built".to_owned());
    }
    Ok(programs)
}

fn program(line: &str) -> Result<Option<Program>, String> {
    let message: Message =
        serde_json::from_str(line).map_err(|error| format!("cargo says what can't be read, {line}: {error}"))?;
    let (Some(target), Some(executable)) = (message.target, message.executable) else { return Ok(None) };
    let is_test = message.reason == "compiler-artifact" && message.profile.is_some_and(|profile| profile.test);
    // `path+file:///…/lock-core#0.1.0`, and `…#name@0.1.0` where the folder has another name.
    let (folder, version) = message.package_id.rsplit_once('#').unwrap_or((&message.package_id, ""));
    let (package, version) =
        version.split_once('@').unwrap_or((folder.rsplit('/').next().unwrap_or_default(), version));
    Ok(is_test.then(|| Program {
        package: package.to_owned(),
        version: version.to_owned(),
        target: target.name,
        kind: target.kind.join(", "),
        executable,
        manifest: message.manifest_path,
    }))
}

/// Runs them all; the names of those that failed. What a program prints is shown when it has ended.
pub(crate) fn run(
    programs: Vec<Program>,
    arguments: &[String],
    environment: &[(&str, &Path)],
) -> Result<Vec<String>, String> {
    let logs = crate::test::target().join("test-logs");
    fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
    let libraries = libraries()?;
    let count = programs.len();
    let lanes = Lanes::of(programs);
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            let (lanes, log, libraries) = (&lanes, logs.join(format!("lane-{lane}.log")), &libraries);
            scope.spawn(move || {
                while let Some(program) = lanes.next() {
                    let began = Instant::now();
                    let ended = one(&program, arguments, environment, libraries, &log);
                    lanes.ended(&program, ended, began.elapsed(), &log);
                }
            });
        }
    });
    let lanes = lanes.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("\n{count} test programs, {} failed", lanes.failed.len());
    Ok(lanes.failed)
}

/// Where libraries are looked for: first the compiler's own, which tests of procedural macros are linked to.
fn libraries() -> Result<OsString, String> {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--print", "sysroot"])
        .output()
        .map_err(|error| format!("can't run rustc: {error}"))?;
    let own = Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("lib");
    let given = std::env::var_os(LIBRARIES).unwrap_or_default();
    let all = std::iter::once(own).chain(std::env::split_paths(&given).filter(|path| !path.as_os_str().is_empty()));
    std::env::join_paths(all).map_err(|error| format!("{LIBRARIES}: {error}"))
}

const LIBRARIES: &str = "LD_LIBRARY_PATH";

/// One program, as cargo runs it.
fn one(
    program: &Program,
    arguments: &[String],
    environment: &[(&str, &Path)],
    libraries: &OsStr,
    log: &Path,
) -> Result<bool, std::io::Error> {
    let out = fs::File::create(log)?;
    let folder = program.manifest.parent().unwrap_or(Path::new("."));
    let status = Command::new(&program.executable)
        .args(arguments)
        .current_dir(folder)
        .envs(environment.iter().copied())
        .env("CARGO_MANIFEST_DIR", folder)
        .env("CARGO_PKG_NAME", &program.package)
        .env("CARGO_PKG_VERSION", &program.version)
        .env(LIBRARIES, libraries)
        .stdin(Stdio::null())
        .stderr(out.try_clone()?)
        .stdout(out)
        .status()?;
    Ok(status.success())
}

/// Who waits, who runs.
struct Lanes(Mutex<Turns>, Condvar);

#[derive(Debug)]
struct Turns {
    waiting: Vec<Program>,
    running: Vec<Needs>,
    failed: Vec<String>,
}

impl Lanes {
    fn of(mut programs: Vec<Program>) -> Self {
        // Those that bear nobody come last, so that nobody waits for them.
        programs.sort_by_key(|program| (program.needs() == Needs::Machine, program.needs() == Needs::Nothing));
        Self(Mutex::new(Turns { waiting: programs, running: Vec::new(), failed: Vec::new() }), Condvar::new())
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next that bears those that run; `None` when none is left.
    fn next(&self) -> Option<Program> {
        let mut turns = self.turns();
        while !turns.waiting.is_empty() {
            let fits = |program: &Program| turns.running.iter().all(|needs| needs.bears(program.needs()));
            if let Some(at) = turns.waiting.iter().position(fits) {
                let program = turns.waiting.remove(at);
                turns.running.push(program.needs());
                eprintln!("xtask: {} begins; {} more wait", program.name(), turns.waiting.len());
                return Some(program);
            }
            turns = self.1.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// Shows what it printed; in one piece, since the other lane has things to show as well.
    fn ended(&self, program: &Program, ended: std::io::Result<bool>, took: Duration, log: &Path) {
        let printed = fs::read(log).unwrap_or_default();
        let mut turns = self.turns();
        let (name, seconds) = (program.name(), took.as_secs_f64());
        let mut out = std::io::stdout().lock();
        // The tests' own outcome doesn't depend on whether anybody reads it.
        _ = writeln!(out, "\n     Running {} of {} ({seconds:.1} s)", program.target, program.package);
        _ = out.write_all(&printed).and_then(|()| out.flush());
        if !matches!(ended, Ok(true)) {
            let why = ended.err().map_or(String::new(), |error| format!(": {error}"));
            eprintln!("xtask: {name} ({}) FAILED{why}", program.kind);
            turns.failed.push(name);
        }
        if let Some(at) = turns.running.iter().position(|needs| *needs == program.needs()) {
            turns.running.remove(at);
        }
        self.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(package: &str, target: &str) -> Program {
        let (version, kind) = ("0.1.0".to_owned(), "test".to_owned());
        let (executable, manifest) = (PathBuf::new(), PathBuf::new());
        Program { package: package.to_owned(), version, target: target.to_owned(), kind, executable, manifest }
    }

    #[test]
    fn needs_are_told_by_names() {
        assert_eq!(named("lock-etcd", "fence_cost").needs(), Needs::Machine);
        assert_eq!(named("lock-etcd", "races").needs(), Needs::Store("etcd"));
        assert_eq!(named("conformance-tests", "pgbouncer").needs(), Needs::Servers);
        assert_eq!(named("lock-cli", "postgres").needs(), Needs::Store("postgres"));
        assert_eq!(named("lock-verify", "simulation").needs(), Needs::Machine);
        assert_eq!(named("lock-core", "guard").needs(), Needs::Nothing);
        assert_eq!(named("lock-cli", "exit_codes").needs(), Needs::Servers);
    }

    #[test]
    fn programs_of_one_store_run_one_after_the_other_and_those_that_measure_alone() {
        let lanes = Lanes::of(vec![
            named("lock-redis", "load"),
            named("lock-redis", "tokens"),
            named("lock-redis", "ticks"),
            named("lock-mongo", "ticks"),
        ]);
        let log = Path::new("/nonexistent");
        let next = || lanes.next().map(|program| program.name());
        assert_eq!(next().as_deref(), Some("lock-redis/tokens"));
        assert_eq!(next().as_deref(), Some("lock-mongo/ticks"), "not a second one of redis");
        lanes.ended(&named("lock-redis", "tokens"), Ok(true), Duration::ZERO, log);
        assert_eq!(next().as_deref(), Some("lock-redis/ticks"));
        lanes.ended(&named("lock-redis", "ticks"), Ok(false), Duration::ZERO, log);
        lanes.ended(&named("lock-mongo", "ticks"), Ok(true), Duration::ZERO, log);
        assert_eq!(next().as_deref(), Some("lock-redis/load"));
        lanes.ended(&named("lock-redis", "load"), Ok(true), Duration::ZERO, log);
        assert_eq!(next(), None);
        assert_eq!(lanes.turns().failed, ["lock-redis/ticks"]);
    }

    #[test]
    fn what_cargo_says_of_a_test_program_is_understood() {
        let said = |id: &str, test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"{id}","manifest_path":"/w/x/Cargo.toml",
                "target":{{"kind":["test"],"name":"races"}},"profile":{{"test":{test}}},"executable":"/w/t/races-1"}}"#
            )
        };
        let program = |line: &str| program(line).unwrap();
        let of_name = program(&said("path+file:///w/x#lock-etcd@0.1.0", true)).unwrap();
        assert_eq!((of_name.name().as_str(), of_name.version.as_str()), ("lock-etcd/races", "0.1.0"));
        let of_folder = program(&said("path+file:///w/lock-etcd#0.1.0", true)).unwrap();
        assert_eq!((of_folder.name().as_str(), of_folder.version.as_str()), ("lock-etcd/races", "0.1.0"));
        assert!(program(&said("path+file:///w/x#lock-etcd@0.1.0", false)).is_none(), "what tests start is no test");
        assert!(program(r#"{"reason":"build-finished","success":true}"#).is_none());
    }
}
