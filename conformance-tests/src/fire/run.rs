//! One run, from the first process to the history on the disk.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use lock_core::{Entropy, LockProvider, OsEntropy};
use lock_verify::history::{Effect, Process, Recorder};
use tokio::task::JoinSet;

use super::{
    about::About,
    chance::Chance,
    client::{self, play},
    clock::WrongClock,
    control,
    fault::{Fault, Lane},
    ground::{Ground, Wired},
    herd::Herd,
    last_line, last_look,
    nemesis::Nemesis,
    network::Network,
    on_clients, on_network,
    pen::Pen,
    people,
    report::Burnt,
    scene::{Scene, Site},
    silence,
    stalls::Stalls,
    tasks::TRANSACTED,
    words::Plan,
};
use crate::{
    Failure,
    asker::{Outcome, now, sleep},
    ensure,
};

/// Clients in processes of their own, on a store that is broken in every way it has, by a seed.
///
/// The module's page says what a run is.
#[derive(Clone, Debug)]
#[must_use]
pub struct Fire {
    pub(super) store: String,
    folder: PathBuf,
    length: Duration,
    pub(super) seed: u64,
    pub(super) clients: usize,
    kept: usize,
    pub(super) faults: Option<Vec<String>>,
}

/// How long a client may take to connect to servers that are well, on a machine that isn't stalled.
pub(super) const CONNECTS_WITHIN: Duration = Duration::from_secs(120);

/// How late a noisy machine may be with what has to happen soon after all was healed.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// How many ttls a run goes on after the last fault, so that those who wait show that they are served.
const CALM: u32 = 3;

/// How many times its length a run may take, if what nothing fences kept its order so far.
const AT_MOST: u32 = 2;

/// And beyond that, for the control: most runs need none of it, and one on a slow machine is slower and no failure.
const CONTROL: Duration = Duration::from_secs(300);

/// How often a line tells how the run goes.
const TELLS: Duration = Duration::from_secs(10);

impl Fire {
    /// Six clients for half a minute; `folder` takes the history, and must be empty or not there.
    pub fn new(store: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        Self {
            store: store.into(),
            folder: folder.into(),
            length: Duration::from_secs(30),
            seed: OsEntropy.next_u64(),
            clients: 6,
            kept: 500,
            faults: None,
        }
    }

    /// For how long there are faults: at least so long, and longer only if what nothing fences kept its order so far.
    pub fn length(mut self, length: Duration) -> Self {
        self.length = length;
        self
    }

    /// What all chance is drawn from, to draw it again. The machine's own timing isn't repeated.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How many processes, at least three.
    pub fn clients(mut self, clients: usize) -> Self {
        self.clients = clients.max(3);
        self
    }

    /// How many leases the first client keeps beside its other work.
    pub fn kept(mut self, kept: usize) -> Self {
        self.kept = kept.max(1);
        self
    }

    /// Only these faults; all that the store has, if it isn't said.
    pub fn faults(mut self, faults: Vec<String>) -> Self {
        self.faults = Some(faults);
        self
    }

    /// In a process that was started to be a client: its whole life. `None` in any other.
    ///
    /// To be called first in `main`, before anything is printed. `open` connects to the store and to what is written under
    /// its locks; it is called until it succeeds.
    pub fn play<O>(open: O) -> Option<ExitCode>
    where
        O: AsyncFn(Site) -> Result<Scene, Failure>,
    {
        play(open)
    }

    /// All faults that a run on this ground has: lane, name, and what they do.
    #[must_use]
    pub fn menu(ground: &dyn Ground) -> Vec<(Lane, &'static str, &'static str)> {
        let mut menu: Vec<_> = on_clients::ABOUT.iter().map(|(name, about)| (Lane::Client, *name, *about)).collect();
        if ground.wired() != Wired::Nowhere {
            menu.extend(on_network::about().into_iter().map(|(name, about)| (Lane::Network, name, about)));
        }
        menu.extend(ground.faults().into_iter().map(|fault| (fault.lane, fault.name, fault.about)));
        menu.extend(people::ABOUT.iter().map(|(name, about)| (Lane::People, *name, *about)));
        menu
    }

    /// Runs it. Then the history is in the folder, and what was seen is judged.
    ///
    /// The clients live as long as the thread that polls this first, so let `block_on` do that.
    ///
    /// # Errors
    /// That the run itself failed: a server that didn't come back, a client that ended by itself, a fault that is unknown.
    /// Broken laws are in what it returns.
    pub async fn burn<O>(&self, ground: &dyn Ground, open: O) -> Result<Burnt, Failure>
    where
        O: AsyncFn(Site) -> Result<Scene, Failure>,
    {
        fs::create_dir_all(&self.folder)?;
        let chosen = self.chosen(ground)?;
        let (chance, stalls) = (Chance::new(self.seed), Stalls::start());
        let pen = Pen::new(Recorder::to_file(self.history("nemesis"))?, Process::Nemesis);
        let network = Network::lay(self.clients, &ground.wired()).await?;
        let plans = (0..self.clients).map(|client| self.plan(client, ground, &network, &chosen)).collect();
        let herd = Arc::new(Herd::start(plans, pen.clone(), self.folder.join("errors.txt"), &chance.fork())?);
        herd.until_ready(CONNECTS_WITHIN, &stalls).await?;

        let began = now();
        let operator = stalls.patiently(CONNECTS_WITHIN, async || ground.operator().await).await?;
        let faults = self.faults_of(ground, &operator, &network, &herd, &pen, &chosen);
        let nemesis = Nemesis::new(pen.clone(), ground.scale());
        let (mut lanes, heeding) = (JoinSet::new(), chance.fork());
        for lane in LANES {
            let of_lane = faults.iter().filter(|fault| fault.lane == lane).cloned().collect();
            let control = (lane == Lane::Client).then(|| on_clients::frozen(&herd, &[]));
            lanes.spawn(Arc::clone(&nemesis).rage(lane, of_lane, control, chance.fork()));
        }
        let heed = nemesis.heed(ground, &heeding);
        tokio::pin!(heed);
        let mut ended = tokio::select! {
            ended = until_one_fails(&mut lanes) => ended,
            ended = self.until_enough(&herd, &nemesis) => ended,
            Err(unheard) = &mut heed => return self.broken_off(&nemesis, lanes, unheard).await,
        };
        nemesis.cease();
        // What goes on is ended, also if something failed: servers that stand still wouldn't be removed.
        while let Some(lane) = tokio::select! {
            lane = lanes.join_next() => lane,
            Err(unheard) = &mut heed => return self.broken_off(&nemesis, lanes, unheard).await,
        } {
            ended = ended.and(lane?);
        }
        ended?;
        let burnt_for = now().since(began);
        let served = async {
            ground.healed().await?;
            self.until_served(&herd, ground, &stalls).await
        };
        tokio::select! {
            served = served => served?,
            Err(unheard) = &mut heed => return Err(unheard),
        }
        // They have the clients as well.
        drop(faults);
        let herd = Arc::into_inner(herd).ok_or_else(|| Failure::new("a fault still has the clients"))?;
        let made = chosen.counted(&nemesis, &herd);
        herd.stop().await?;
        // What there is by now can be judged, whatever becomes of the rest.
        About::new(self, burnt_for, stalls.so_far(), made.clone(), ground, &*operator).write(&self.folder)?;
        let mut scenes = Vec::new();
        for client in 0..self.clients {
            let site = self.site(ground, network.addresses(client))?;
            scenes.push(stalls.patiently(CONNECTS_WITHIN, async || open(site.clone()).await).await?);
        }
        last_line::stand(&scenes, &self.folder, ground.scale(), &chance.fork()).await?;
        let counter = Pen::new(Recorder::to_file(self.history("silence"))?, silence::COUNTER);
        silence::listen(&scenes, Arc::clone(&operator), &network, ground, &counter).await?;
        counter.finish()?;
        drop(scenes);
        let site = self.site(ground, &[])?;
        let scene = stalls.patiently(CONNECTS_WITHIN, async || open(site.clone()).await).await?;
        last_look::read(&scene, &self.folder, &stalls).await?;
        pen.finish()?;
        let about = About::new(self, burnt_for, stalls.so_far(), made, ground, &*operator);
        about.write(&self.folder)?;
        Burnt::judge(about, &self.folder)
    }

    /// Ends what goes on before the run fails.
    async fn broken_off(&self, nemesis: &Nemesis, mut lanes: JoinSet<Outcome>, why: Failure) -> Result<Burnt, Failure> {
        nemesis.cease();
        while let Some(lane) = lanes.join_next().await {
            if let Err(failure) = lane.map_err(Failure::from).flatten() {
                eprintln!("{}: {failure}", self.store);
            }
        }
        Err(why)
    }

    fn plan(&self, client: usize, ground: &dyn Ground, network: &Network, chosen: &Chosen) -> Plan {
        Plan {
            store: self.store.clone(),
            place: ground.place(network.addresses(client)),
            folder: self.folder.clone(),
            client,
            number: 0,
            seed: 0,
            ppm: i32::from(chosen.has(on_clients::RATE)),
            ttl: ground.scale().ttl,
            tasks: TASKS,
            keeps: if client == 0 { self.kept } else { 0 },
            kept: self.kept,
            loses_data: chosen.loses_data(ground),
        }
    }

    /// The faults by name; an unknown one is an error that names those that there are.
    fn chosen(&self, ground: &dyn Ground) -> Result<Chosen, Failure> {
        let menu = Self::menu(ground);
        let names: Vec<String> = match &self.faults {
            None => menu.iter().map(|(_, name, _)| (*name).to_owned()).collect(),
            Some(names) => names.clone(),
        };
        for name in &names {
            let known = menu.iter().any(|(_, known, _)| known == name);
            let all = || menu.iter().map(|(_, name, _)| *name).collect::<Vec<_>>().join(", ");
            ensure!(known, "there is no fault {name:?} of {}; there are {}", self.store, all());
        }
        Ok(Chosen(names))
    }

    fn faults_of(
        &self,
        ground: &dyn Ground,
        operator: &Arc<dyn LockProvider>,
        network: &Arc<Network>,
        herd: &Arc<Herd>,
        pen: &Pen,
        chosen: &Chosen,
    ) -> Vec<Fault> {
        let mut faults = on_clients::faults(herd, &["counter", TRANSACTED, "queue"]);
        faults.extend(on_network::faults(network, herd));
        faults.extend(ground.faults());
        let kept = (0..self.kept.min(5)).map(|number| format!("kept-{number}"));
        let taken = ["counter", "queue", TRANSACTED, control::SET].map(str::to_owned).into_iter().chain(kept).collect();
        faults.extend(people::faults(operator, taken, pen));
        faults.retain(|fault| chosen.has(fault.name));
        faults
    }

    /// Until the time is over, and what nothing fences has lost its order.
    async fn until_enough(&self, herd: &Herd, nemesis: &Nemesis) -> Outcome {
        let began = now();
        let mut tells = began + TELLS;
        loop {
            sleep(Duration::from_millis(250)).await;
            herd.must_be_well().await?;
            let passed = now().since(began);
            let falls = || control::entries(&self.folder).map(|entries| control::falls(&entries));
            if now() >= tells {
                tells = now() + TELLS;
                eprintln!(
                    "{}: {:.0} of {:.0} s, {} grants, {} faults, unfenced tokens fell {} times; now: {}",
                    self.store,
                    passed.as_secs_f64(),
                    self.length.as_secs_f64(),
                    herd.grants(),
                    nemesis.done().values().sum::<usize>(),
                    falls()?,
                    nemesis.goes_on().join(", "),
                );
            }
            if passed >= self.length {
                if falls()? > 0 || passed >= self.length * AT_MOST + CONTROL {
                    return Ok(());
                }
                nemesis.narrow();
                herd.narrowed.store(true, Ordering::SeqCst);
            }
        }
    }

    /// After all was healed, each client is granted something soon, and goes on for a while.
    async fn until_served(&self, herd: &Herd, ground: &dyn Ground, stalls: &Stalls) -> Outcome {
        let scale = ground.scale();
        let (began, stalled) = (now(), stalls.so_far());
        let before: Vec<u64> = (0..herd.size()).map(|client| *herd.seen(client).grants.borrow()).collect();
        for (client, before) in before.into_iter().enumerate() {
            let mut grants = herd.seen(client).grants.subscribe();
            loop {
                let limit = (scale.ttl + scale.grace) * 10 + SOON + (stalls.so_far() - stalled);
                let left = (began + limit).since(now());
                ensure!(
                    !left.is_zero(),
                    "law 7: client {client} was granted nothing for {limit:?} after all was healed"
                );
                let more = grants.wait_for(|grants| *grants > before);
                if tokio::time::timeout(left, more).await.is_ok() {
                    break;
                }
            }
            herd.must_be_well().await?;
        }
        sleep((scale.ttl + scale.grace) * CALM).await;
        herd.must_be_well().await
    }

    /// Where this process itself finds the servers, when everybody has ended.
    fn site(&self, ground: &dyn Ground, by: &[SocketAddr]) -> Result<Site, Failure> {
        Ok(Site {
            store: self.store.clone(),
            place: ground.place(by),
            folder: self.folder.clone(),
            clock: Arc::new(WrongClock::new(0)),
            loses_data: self.chosen(ground)?.loses_data(ground),
        })
    }

    fn history(&self, of: &str) -> PathBuf {
        self.folder.join(format!("{}-{of}.jsonl", client::HISTORY))
    }
}

/// How many tasks each client has.
const TASKS: usize = 4;

/// In which faults go on at the same time; two befall clients.
const LANES: [Lane; 6] = [Lane::Client, Lane::Client, Lane::Network, Lane::Server, Lane::Clock, Lane::People];

/// The names of the faults of a run.
struct Chosen(Vec<String>);

impl Chosen {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|chosen| chosen == name)
    }

    /// How often each was made; none is left out.
    fn counted(&self, nemesis: &Nemesis, herd: &Herd) -> BTreeMap<String, usize> {
        let done = nemesis.done();
        let count = |name: &String| match name.as_str() {
            // As old as each client's life.
            on_clients::RATE => herd.lives(),
            name => done.get(name).copied().unwrap_or(0),
        };
        // And what was not chosen, but done by servers themselves.
        let unchosen = done.iter().map(|(name, count)| ((*name).to_owned(), *count));
        unchosen.chain(self.0.iter().map(|name| (name.clone(), count(name)))).collect()
    }

    fn loses_data(&self, ground: &dyn Ground) -> bool {
        ground.faults().iter().any(|fault| fault.effect == Effect::DataLoss && self.has(fault.name))
    }
}

/// Returns when a lane has failed; never if none does.
async fn until_one_fails(lanes: &mut JoinSet<Outcome>) -> Outcome {
    while let Some(ended) = lanes.join_next().await {
        ended??;
    }
    std::future::pending().await
}
