//! What can be done to any server of the testbed.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use conformance_tests::{
    Outcome,
    fire::{Fault, Lane, Stroke, blocking},
};
use testbed::{Error, PrivateServer};

use crate::clocks::{self, Leaps};

/// How long a server may take to serve again, on whatever machine: this only keeps a run from hanging.
pub(crate) const BACK_WITHIN: Duration = Duration::from_secs(300);

/// The URL, with these addresses for its hosts, in their order; as it is, if there are none.
pub(crate) fn by(url: &str, hosts: &[&str], by: &[SocketAddr]) -> String {
    let mut place = url.to_owned();
    for (host, by) in hosts.iter().zip(by) {
        place = place.replacen(host, &by.to_string(), 1);
    }
    place
}

/// Freezes, kills and restarts the only server.
pub(crate) fn faults_of_one(server: &Arc<PrivateServer>) -> Vec<Fault> {
    let one = std::slice::from_ref(server);
    vec![
        some("server-frozen", FREEZES, one, 1, (0.2, 2.0), freeze, thaw),
        some(
            "server-killed",
            "the server is killed (SIGKILL), and started again with the data that it had",
            one,
            1,
            (0.0, 1.5),
            kill,
            revive,
        ),
        some(
            "server-restarted",
            "the server is shut down in order, and started again",
            one,
            1,
            (0.0, 0.0),
            restart,
            nothing,
        ),
    ]
}

/// The same to one of several servers that know nothing of each other, and to a majority of them.
pub(crate) fn faults_of_several(servers: &[Arc<PrivateServer>]) -> Vec<Fault> {
    let most = servers.len() / 2 + 1;
    vec![
        some("server-frozen", FREEZES, servers, 1, (0.2, 2.0), freeze, thaw),
        some(
            "server-killed",
            "one server is killed (SIGKILL), and started again with the data that it had",
            servers,
            1,
            (0.0, 1.5),
            kill,
            revive,
        ),
        some(
            "majority-frozen",
            "a majority of the servers is frozen for up to 2 ttls",
            servers,
            most,
            (0.2, 2.0),
            freeze,
            thaw,
        ),
        some(
            "majority-killed",
            "a majority of the servers is killed, and started again with the data they had",
            servers,
            most,
            (0.0, 1.5),
            kill,
            revive,
        ),
    ]
}

const FREEZES: &str = "a server is frozen for up to 2 ttls: connections stay open, and nothing answers";

type Act = fn(&PrivateServer) -> Result<(), Error>;

fn freeze(server: &PrivateServer) -> Result<(), Error> {
    server.pause()
}

fn thaw(server: &PrivateServer) -> Result<(), Error> {
    server.unpause()
}

fn kill(server: &PrivateServer) -> Result<(), Error> {
    server.kill()
}

fn revive(server: &PrivateServer) -> Result<(), Error> {
    server.start()?;
    server.await_ready(BACK_WITHIN)
}

fn restart(server: &PrivateServer) -> Result<(), Error> {
    server.restart()?;
    server.await_ready(BACK_WITHIN)
}

fn nothing(_: &PrivateServer) -> Result<(), Error> {
    Ok(())
}

/// A fault of so many of these servers, for so many ttls.
fn some(
    name: &'static str,
    about: &'static str,
    servers: &[Arc<PrivateServer>],
    count: usize,
    (least, most): (f64, f64),
    begin: Act,
    end: Act,
) -> Fault {
    let servers = servers.to_vec();
    Fault::new(Lane::Server, name, about, move |chance, scale| {
        let first = chance.below(servers.len());
        let befalls: Vec<_> = (0..count).map(|next| (first + next) % servers.len()).collect();
        let chosen: Vec<_> = befalls.iter().map(|number| Arc::clone(&servers[*number])).collect();
        let each = |act: Act, servers: Vec<Arc<PrivateServer>>| {
            blocking(move || servers.iter().try_for_each(|server| act(server)))
        };
        let target = format!("server {befalls:?}");
        Some(Stroke::new(target, scale.ttls(least, most, chance), each(begin, chosen.clone()), each(end, chosen)))
    })
}

/// The faults of its clocks, one for each member.
pub(crate) fn clocks_of(server: &Arc<PrivateServer>, leaps: Leaps) -> Vec<Fault> {
    let owned = Arc::clone(server);
    clocks::faults(server.clocks(), leaps, move |member, ahead| owned.set_clock(member, ahead))
}

/// Returns once it serves.
pub(crate) async fn serves(server: &Arc<PrivateServer>) -> Outcome {
    let server = Arc::clone(server);
    blocking(move || server.await_ready(BACK_WITHIN)).await
}
