//! What is done to the ways between clients and servers.

use std::{sync::Arc, time::Duration};

use super::{
    chance::Chance,
    fault::{Fault, Lane, Stroke},
    herd::Herd,
    network::{Befalls, Network},
    scale::Scale,
    wire::Weather,
};

/// Changes the weather on a wire, given a time that was drawn.
type Change = fn(&mut Weather, Duration);

struct Kind {
    name: &'static str,
    about: &'static str,
    /// How many ttls it lasts.
    lasts: (f64, f64),
    begins: Change,
    /// Whether connections are closed as it begins, and as it ends.
    cuts: (bool, bool),
}

const KINDS: [Kind; 7] = [
    Kind {
        name: "replies-lost",
        about: "what a client asks for is done, and no answer reaches it; then its connections break",
        lasts: (0.05, 0.8),
        begins: |weather, _| weather.lose_replies = true,
        cuts: (false, true),
    },
    Kind {
        name: "requests-held",
        about: "one way only: a client's requests are stuck, and reach the server late, maybe when it has given up",
        lasts: (0.2, 2.0),
        begins: |weather, _| weather.hold_requests = true,
        cuts: (false, false),
    },
    Kind {
        name: "replies-held",
        about: "the other way only: what the servers answer is stuck, and comes late",
        lasts: (0.2, 2.0),
        begins: |weather, _| weather.hold_replies = true,
        cuts: (false, false),
    },
    Kind {
        name: "stalled",
        about: "both ways: nothing passes and nothing breaks",
        lasts: (0.2, 2.0),
        begins: |weather, _| (weather.hold_requests, weather.hold_replies) = (true, true),
        cuts: (false, false),
    },
    Kind {
        name: "delayed",
        about: "all that passes takes longer, by up to a fifth of a ttl each way",
        lasts: (0.5, 3.0),
        begins: |weather, drawn| weather.delay = drawn,
        cuts: (false, false),
    },
    Kind {
        name: "cut",
        about: "connections are closed, also those on which clients listen; new ones are served",
        lasts: (0.0, 0.0),
        begins: |_, _| {},
        cuts: (true, false),
    },
    Kind {
        name: "refused",
        about: "connections are closed, and new ones as they are made",
        lasts: (0.2, 2.0),
        begins: |weather, _| weather.refuse = true,
        cuts: (true, false),
    },
];

/// What these faults do, for people.
pub(super) fn about() -> Vec<(&'static str, &'static str)> {
    KINDS.iter().map(|kind| (kind.name, kind.about)).collect()
}

/// The faults of the network; none if clients don't reach their servers by wires.
pub(super) fn faults(network: &Arc<Network>, herd: &Arc<Herd>) -> Vec<Fault> {
    if network.servers() == 0 {
        return Vec::new();
    }
    let fault = |kind: &'static Kind| {
        let (network, herd) = (Arc::clone(network), Arc::clone(herd));
        Fault::new(Lane::Network, kind.name, kind.about, move |chance, scale| {
            Some(strike(kind, &network, &herd, chance, scale))
        })
    };
    KINDS.iter().map(fault).collect()
}

fn strike(kind: &'static Kind, network: &Arc<Network>, herd: &Arc<Herd>, chance: &Chance, scale: &Scale) -> Stroke {
    // Mostly one client, mostly on the way to all servers.
    let client = (!chance.once_in(4)).then(|| chance.below(herd.size()));
    let one_server = network.servers() > 1 && chance.once_in(3);
    let befalls = Befalls { client, server: one_server.then(|| chance.below(network.servers())) };
    let drawn = chance.between(Duration::from_millis(1), scale.ttl / 5);
    let lasts = scale.ttls(kind.lasts.0, kind.lasts.1, chance);
    let (begins, ends) = (Arc::clone(network), Arc::clone(network));
    let begin = async move {
        for wire in begins.of(&befalls) {
            wire.set(|weather| (kind.begins)(weather, drawn));
            if kind.cuts.0 {
                wire.cut();
            }
        }
        Ok(())
    };
    let end = async move {
        for wire in ends.of(&befalls) {
            // What is lost stays lost: the connection ends before its replies are let through again.
            if kind.cuts.1 {
                wire.cut();
            }
            wire.set(Weather::clear);
        }
        Ok(())
    };
    let clients = client.map_or("all clients".to_owned(), |client| format!("client {client}"));
    let servers = befalls.server.map_or(String::new(), |server| format!(" to server {server}"));
    let stroke = Stroke::new(format!("{clients}{servers}"), lasts, begin, end);
    stroke.of_clients(client.map(|client| herd.number(client)).into_iter().collect())
}
