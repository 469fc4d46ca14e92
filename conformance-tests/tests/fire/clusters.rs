//! What can be done to servers that elect a leader among them.

use std::{ops::Deref, sync::Arc};

use conformance_tests::{
    Failure, Outcome,
    fire::{Effect, Fault, Lane, Stroke, blocking},
};
use testbed::{Cluster, Error};

use crate::servers::BACK_WITHIN;

/// Whom a fault befalls.
#[derive(Clone, Copy, Debug)]
enum Whom {
    Leader,
    Follower,
    /// The leader and another one.
    Majority,
}

struct Kind {
    name: &'static str,
    about: &'static str,
    whom: Whom,
    lasts: (f64, f64),
    begin: fn(&Cluster, usize) -> Result<(), Error>,
    end: fn(&Cluster, usize) -> Result<(), Error>,
}

const KINDS: [Kind; 9] = [
    Kind {
        name: "leader-killed",
        about: "the leader is killed (SIGKILL), another is elected, and it comes back with the data that it had",
        whom: Whom::Leader,
        lasts: (0.2, 2.5),
        begin: Cluster::kill,
        end: Cluster::restart,
    },
    Kind {
        name: LEADER_FROZEN,
        about: "the leader is frozen while another is elected, and goes on as if nothing were",
        whom: Whom::Leader,
        lasts: (0.5, 2.5),
        begin: Cluster::freeze,
        end: Cluster::thaw,
    },
    Kind {
        name: "leader-cut-off",
        about: "the leader reaches no other member, while clients reach it still",
        whom: Whom::Leader,
        lasts: (0.5, 3.0),
        begin: Cluster::cut_off,
        end: Cluster::heal,
    },
    Kind {
        name: "leader-isolated",
        about: "neither the others nor clients reach the leader",
        whom: Whom::Leader,
        lasts: (0.5, 3.0),
        begin: Cluster::isolate,
        end: Cluster::heal,
    },
    Kind {
        name: "follower-killed",
        about: "a follower is killed (SIGKILL), and comes back with the data that it had",
        whom: Whom::Follower,
        lasts: (0.2, 2.5),
        begin: Cluster::kill,
        end: Cluster::restart,
    },
    Kind {
        name: "follower-frozen",
        about: "a follower is frozen",
        whom: Whom::Follower,
        lasts: (0.5, 2.5),
        begin: Cluster::freeze,
        end: Cluster::thaw,
    },
    Kind {
        name: "follower-cut-off",
        about: "a follower reaches no other member, while clients reach it still",
        whom: Whom::Follower,
        lasts: (0.5, 3.0),
        begin: Cluster::cut_off,
        end: Cluster::heal,
    },
    Kind {
        name: "majority-cut-off",
        about: "two members reach no other, so that nobody has a majority",
        whom: Whom::Majority,
        lasts: (0.2, 1.5),
        begin: Cluster::cut_off,
        end: Cluster::heal,
    },
    Kind {
        name: "majority-killed",
        about: "two members are killed, so that nobody has a majority, and come back",
        whom: Whom::Majority,
        lasts: (0.0, 1.0),
        begin: Cluster::kill,
        end: Cluster::restart,
    },
];

/// The one after which some versions of etcd end leases that are alive.
pub(crate) const LEADER_FROZEN: &str = "leader-frozen";

/// The faults of a cluster; `takes_leases` is those after which leases may be gone that nobody ended.
pub(crate) fn faults<C>(cluster: &Arc<C>, takes_leases: &'static [&'static str]) -> Vec<Fault>
where
    C: Deref<Target = Cluster> + Send + Sync + 'static,
{
    let fault = |kind: &'static Kind| {
        let cluster = Arc::clone(cluster);
        let fault = Fault::new(Lane::Server, kind.name, kind.about, move |chance, scale| {
            let (begins, ends) = (Arc::clone(&cluster), Arc::clone(&cluster));
            let (told, hears) = std::sync::mpsc::channel();
            let other = 1 + chance.below(2);
            let begin = blocking(move || -> Result<(), Error> {
                let leader = begins.await_leader(BACK_WITHIN, |_| true)?;
                let follower = (leader + other) % begins.size();
                let members = match kind.whom {
                    Whom::Leader => vec![leader],
                    Whom::Follower => vec![follower],
                    Whom::Majority => vec![leader, follower],
                };
                for member in members {
                    // Before: what fails may have been done all the same.
                    _ = told.send(member);
                    (kind.begin)(&begins, member)?;
                }
                Ok(())
            });
            let end = blocking(move || -> Result<(), Error> {
                for member in hears {
                    (kind.end)(&ends, member)?;
                }
                ends.await_all(BACK_WITHIN)
            });
            Some(Stroke::new(
                format!("{:?}", kind.whom).to_lowercase(),
                scale.ttls(kind.lasts.0, kind.lasts.1, chance),
                begin,
                end,
            ))
        });
        if takes_leases.contains(&kind.name) { fault.effect(Effect::TakesLeases) } else { fault }
    };
    KINDS.iter().map(fault).collect()
}

/// Returns once every member serves.
pub(crate) async fn serves<C>(cluster: &Arc<C>) -> Outcome
where
    C: Deref<Target = Cluster> + Send + Sync + 'static,
{
    let cluster = Arc::clone(cluster);
    blocking(move || cluster.await_all(BACK_WITHIN)).await
}

/// `host:port` of each member.
pub(crate) fn members(cluster: &Cluster) -> Vec<String> {
    (0..cluster.size()).map(|member| cluster.member(member).host_port().to_owned()).collect()
}

/// What can be done to the cluster as a whole, where it may be out of reach just then.
pub(crate) fn at_once<C, T>(
    cluster: &Arc<C>,
    name: &'static str,
    about: &'static str,
    act: fn(&C) -> Result<T, Error>,
) -> Fault
where
    C: Send + Sync + 'static,
    T: Send + 'static,
{
    let cluster = Arc::clone(cluster);
    Fault::new(Lane::People, name, about, move |_, _| {
        let cluster = Arc::clone(&cluster);
        Some(Stroke::at_once(
            "the cluster",
            blocking(move || -> Result<(), Failure> {
                _ = act(&cluster);
                Ok(())
            }),
        ))
    })
}
