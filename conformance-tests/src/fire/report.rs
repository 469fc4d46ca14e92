//! What a run came to.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use lock_verify::{
    history::{Event, F, History, Kind, read},
    laws::{
        Facts, Law, Report, Terms, Violation, judge,
        timeline::{Shown, draw},
    },
};

use super::{
    about::About,
    client, control,
    last_look::{COUNTED, files},
    owners,
};
use crate::Failure;

/// A run that came to its end, and what the laws say to it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Burnt {
    /// Which store.
    pub store: String,
    /// Where the history is.
    pub folder: PathBuf,
    /// By which its chance can be drawn again.
    pub seed: u64,
    /// How many clients there were.
    pub clients: usize,
    /// For how long there were faults.
    pub took: Duration,
    /// For how long the machine itself stood still meanwhile.
    pub stalled: Duration,
    /// Calls of clients, by what they did and how they ended.
    pub calls: BTreeMap<String, usize>,
    /// How many grants clients were told of.
    pub grants: usize,
    /// How many of them were lost.
    pub lost: usize,
    /// Fenced writes that were accepted, and those that were refused.
    pub writes: [usize; 2],
    /// Faults by name, and how often they were made: also those of the run that were not.
    pub faults: BTreeMap<String, usize>,
    /// The faults that were chosen; `None` if it was all that the store has.
    pub chosen: Option<Vec<String>>,
    /// What is broken, each with the smallest stretch that shows it.
    pub broken: Vec<String>,
    /// What each law's check came to.
    pub laws: Report,
    /// How often two believed where the store had lost what it knew, its clock had leapt, or leases were taken from outside.
    pub expected: u64,
    /// How often a token fell where nothing fenced, by the same checker.
    pub falls: u64,
}

impl Burnt {
    /// Judges a history that was kept, as the run did that recorded it.
    ///
    /// # Errors
    /// Files that can't be read as a history.
    pub fn again(folder: &Path) -> Result<Self, Failure> {
        Self::judge(About::read(folder)?, folder)
    }

    pub(super) fn judge(about: About, folder: &Path) -> Result<Self, Failure> {
        let terms = &about.terms();
        let About { store, seed, clients, took, stalled, faults, chosen, .. } = about;
        let history = read(&files(folder, client::HISTORY)?)?.history;
        let history = owners::told(&history, &files(folder, owners::FILES)?)?;
        let events = history.events();
        let count = |f, kind| events.iter().filter(|event| event.f == f && event.kind == kind).count();
        let mut calls = BTreeMap::new();
        for event in events.iter().filter(|event| event.kind != Kind::Invoke && event.f != F::Fault) {
            *calls.entry(format!("{:?} {:?}", event.f, event.kind).to_lowercase()).or_default() += 1;
        }
        merged(&history, folder)?;
        let laws = judge(&history, terms);
        if let Some(first) = laws.violations().next() {
            let facts = Facts::new(&history, terms);
            fs::write(folder.join(PICTURE), draw(&facts, &Shown::violation(&facts, first)))?;
        }
        let mut broken: Vec<String> = laws.violations().take(TOLD).map(|broken| told(broken, events)).collect();
        broken.extend(counted(&history, folder)?);
        broken.extend(untested(&laws, terms.fair));
        let falls = falls_of(folder, terms)?;
        if falls == 0 {
            broken.push("too tame: holders were frozen, and no token fell in what nothing fences".to_owned());
        }
        Ok(Self {
            store,
            seed,
            clients,
            took,
            stalled,
            grants: count(F::Acquire, Kind::Ok),
            lost: count(F::Lost, Kind::Ok),
            writes: [count(F::Write, Kind::Ok), count(F::Write, Kind::Fail)],
            expected: laws.of(Law::Belief).map_or(0, |belief| belief.excused),
            calls,
            faults,
            chosen,
            broken,
            falls,
            laws,
            folder: folder.to_owned(),
        })
    }

    /// Whether all laws held, and the control failed as it must.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.broken.is_empty()
    }
}

/// Each acknowledged increment is in the counter, and nothing else but those in doubt.
fn counted(history: &History, folder: &Path) -> Result<Option<String>, Failure> {
    let value: usize = fs::read_to_string(folder.join(COUNTED))?.trim().parse()?;
    let mut ends: HashMap<_, Kind> = HashMap::new();
    for event in history.events().iter().filter(|event| is_increment(event)) {
        ends.insert((event.process, event.call), event.kind);
    }
    let of = |wanted: &[Kind]| ends.values().filter(|kind| wanted.contains(kind)).count();
    let (sure, in_doubt) = (of(&[Kind::Ok]), of(&[Kind::Info, Kind::Invoke]));
    let fits = (sure..=sure + in_doubt).contains(&value);
    Ok((!fits).then(|| {
        format!("law 4: the counter is {value}, with {sure} increments acknowledged and {in_doubt} more in doubt")
    }))
}

fn is_increment(event: &Event) -> bool {
    event.f == F::Write && event.resource.as_deref() == Some("counter")
}

/// How often law 4 was broken where it must be, by the same checker.
fn falls_of(folder: &Path, terms: &Terms) -> Result<u64, Failure> {
    let control = read(&files(folder, control::HISTORY)?)?.history;
    Ok(judge(&control, terms).of(Law::Resource).map_or(0, |resource| resource.broken))
}

/// The history in one file, for other checkers.
const MERGED: &str = "merged.jsonl";
/// The first violation, drawn.
const PICTURE: &str = "violation.svg";

fn merged(history: &History, folder: &Path) -> Result<(), Failure> {
    let mut file = BufWriter::new(fs::File::create(folder.join(MERGED))?);
    for event in history.events() {
        serde_json::to_writer(&mut file, event)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}

/// Laws for which a run without anything to check shows nothing.
const MUST_BE_TESTED: [Law; 8] = [
    Law::Belief,
    Law::Fence,
    Law::Stability,
    Law::Resource,
    Law::Strangers,
    Law::Liveness,
    Law::Finality,
    Law::Silence,
];

fn untested(laws: &Report, fair: bool) -> impl Iterator<Item = String> {
    let must = MUST_BE_TESTED.into_iter().chain(fair.then_some(Law::Order));
    let untested = must.filter(|law| laws.of(*law).is_none_or(|finding| finding.checked == 0));
    untested.map(|law| format!("too tame: there was nothing to check {law} by"))
}

/// What is broken, with the stretch that shows it.
fn told(broken: &Violation, events: &[Event]) -> String {
    let line = |at: &usize| serde_json::to_string(&events[*at]).unwrap_or_default();
    let stretch: Vec<_> = broken.events.iter().take(MOST).map(line).collect();
    format!("{}: {}\n  {}", broken.law, broken.told, stretch.join("\n  "))
}

/// How many events of a stretch are told.
const MOST: usize = 24;

/// How many violations are told.
const TOLD: usize = 5;

impl fmt::Display for Burnt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, seed, grants, lost, writes: [accepted, refused], expected, falls, .. } = self;
        let faults: Vec<_> = self.faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
        write!(
            f,
            "{store}, seed {seed}: {:.1} min, {grants} grants ({lost} lost), fenced writes {accepted} accepted and {refused} \
             refused, {expected} expected overlaps, unfenced tokens fell {falls} times, the machine stood still for {:.1?}; \
             faults: {}; ",
            self.took.as_secs_f64() / 60.0,
            self.stalled,
            faults.join(", "),
        )?;
        if self.is_clean() {
            return f.write_str("clean");
        }
        let (minutes, clients) = (self.took.as_secs_f64() / 60.0, self.clients);
        let chosen = self.chosen.as_ref().map_or(String::new(), |names| format!(" --faults {}", names.join(",")));
        write!(
            f,
            "BROKEN: {}\nthe history is in {}; again: cargo xtask fire --store {store} --minutes {minutes:.1} --seed {seed} \
             --clients {clients}{chosen}",
            self.broken.join("; "),
            self.folder.display(),
        )
    }
}
