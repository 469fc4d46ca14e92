//! All wires of a run, and how clients are made to go by them.

use std::{io, net::SocketAddr, sync::Arc};

use super::{ground::Wired, port::Port, sentinel::Alias, wire::Wire};

/// A wire from each client to each server.
#[derive(Debug)]
pub(super) struct Network {
    clients: Vec<Ways>,
}

/// Those of one client.
#[derive(Debug, Default)]
struct Ways {
    /// By server.
    wires: Vec<Wire>,
    /// By which the client gets to the wires.
    ports: Vec<Port>,
    /// Those of them that the client is told where the servers are by.
    told: Vec<SocketAddr>,
}

/// Which wires; `None` is all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Befalls {
    pub(super) client: Option<usize>,
    pub(super) server: Option<usize>,
}

impl Network {
    pub(super) async fn lay(clients: usize, wired: &Wired) -> io::Result<Arc<Self>> {
        let mut ways = Vec::new();
        for _ in 0..clients {
            ways.push(Ways::lay(wired).await?);
        }
        Ok(Arc::new(Self { clients: ways }))
    }

    /// Where a client is told that the servers are.
    pub(super) fn addresses(&self, client: usize) -> &[SocketAddr] {
        &self.clients[client].told
    }

    /// How many servers there are to be cut off from.
    pub(super) fn servers(&self) -> usize {
        self.clients.first().map_or(0, |ways| ways.wires.len())
    }

    /// How much clients have sent so far; `None` if they don't reach their servers by wires.
    pub(super) fn requests(&self) -> Option<u64> {
        let wires = || self.clients.iter().flat_map(|ways| &ways.wires);
        (self.servers() > 0).then(|| wires().map(|wire| wire.passed().requests).sum())
    }

    pub(super) fn of(&self, befalls: &Befalls) -> impl Iterator<Item = &Wire> {
        let all = self.clients.iter().enumerate();
        let some = all.filter(|(client, _)| befalls.client.is_none_or(|only| only == *client));
        some.flat_map(|(_, ways)| ways.wires.iter().enumerate())
            .filter(|(server, _)| befalls.server.is_none_or(|only| only == *server))
            .map(|(_, wire)| wire)
    }
}

impl Ways {
    async fn lay(wired: &Wired) -> io::Result<Self> {
        match wired {
            Wired::Nowhere => Ok(Self::default()),
            Wired::Given(servers) => Self::to_each(servers).await,
            Wired::Told { sentinel, servers } => {
                let mut ways = Self::to_each(servers).await?;
                let aliases = servers.iter().zip(&ways.told).map(|(server, wire)| Alias::new(server, *wire));
                let wire = Wire::telling(sentinel, aliases.collect::<io::Result<_>>()?);
                let port = Port::of(wire.clone()).await?;
                ways.told = vec![port.address()];
                ways.wires.push(wire);
                ways.ports.push(port);
                Ok(ways)
            }
            Wired::Proxied(servers) => {
                let wires: Vec<_> = servers.iter().map(|server| Wire::to(server)).collect();
                let port = Port::of_all(wires.clone()).await?;
                Ok(Self { wires, told: vec![port.address()], ports: vec![port] })
            }
        }
    }

    async fn to_each(servers: &[String]) -> io::Result<Self> {
        let mut ways = Self::default();
        for server in servers {
            let wire = Wire::to(server);
            let port = Port::of(wire.clone()).await?;
            ways.told.push(port.address());
            ways.wires.push(wire);
            ways.ports.push(port);
        }
        Ok(ways)
    }
}
