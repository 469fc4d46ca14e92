//! Redis under fire: one server that keeps everything on its disk.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use conformance_tests::{
    Failure, Outcome,
    fire::{Effect, Fault, Ground, Lane, Scale, Scene, Site, Stroke, Wired},
};
use lock_core::LockProvider;
use lock_redis::{
    RedisLocks,
    redis::{self, Client},
};
use testbed::PrivateServer;

use crate::{clocks::Leaps, elsewhere, opened, redis_lists, servers};

pub(crate) struct Ours(Arc<PrivateServer>);

pub(crate) fn start() -> Result<Arc<dyn Ground>, Failure> {
    Ok(Arc::new(Ours(Arc::new(testbed::redis_private_clocked()?))))
}

#[async_trait]
impl Ground for Ours {
    fn scale(&self) -> Scale {
        Scale { ttl: Duration::from_secs(2), grace: Duration::from_millis(500) }
    }

    fn wired(&self) -> Wired {
        Wired::Given(vec![self.0.host_port().to_owned()])
    }

    fn place(&self, by: &[SocketAddr]) -> String {
        servers::by(self.0.url(), &[self.0.host_port()], by)
    }

    fn faults(&self) -> Vec<Fault> {
        let mut faults = servers::faults_of_one(&self.0);
        let urls = vec![self.0.url().to_owned()];
        faults.extend([scripts_forgotten(&urls), listeners_cut(&urls), wiped(&urls)]);
        faults.extend(servers::clocks_of(&self.0, Leaps::Alone));
        faults
    }

    async fn operator(&self) -> Result<Arc<dyn LockProvider>, Failure> {
        Ok(Arc::new(RedisLocks::connect(self.0.url()).await?))
    }

    async fn healed(&self) -> Outcome {
        servers::serves(&self.0).await
    }
}

pub(crate) fn scripts_forgotten(urls: &[String]) -> Fault {
    let about = "the server forgets all scripts (SCRIPT FLUSH)";
    command(Lane::People, "scripts-forgotten", about, urls, &["SCRIPT", "FLUSH"])
}

pub(crate) fn listeners_cut(urls: &[String]) -> Fault {
    let about = "the connections on which clients listen are closed (CLIENT KILL TYPE PUBSUB)";
    command(Lane::People, "listeners-cut", about, urls, &["CLIENT", "KILL", "TYPE", "PUBSUB"])
}

/// Locks, last tokens and all.
fn wiped(urls: &[String]) -> Fault {
    let about = "the server loses all data (FLUSHALL): two may believe, and tokens still rise";
    command(Lane::People, "wiped", about, urls, &["FLUSHALL"]).effect(Effect::DataLoss)
}

/// A command to one of these servers, by chance.
fn command(
    lane: Lane,
    name: &'static str,
    about: &'static str,
    urls: &[String],
    words: &'static [&'static str],
) -> Fault {
    let urls = urls.to_vec();
    Fault::new(lane, name, about, move |chance, _| {
        let number = chance.below(urls.len());
        let url = urls.get(number)?.clone();
        Some(Stroke::at_once(format!("server {number}"), async move {
            let send = async {
                let mut operator = Client::open(url)?.get_multiplexed_async_connection().await?;
                redis::cmd(words[0]).arg(&words[1..]).query_async::<redis::Value>(&mut operator).await
            };
            // The server may be down just now.
            _ = tokio::time::timeout(Duration::from_secs(5), send).await;
            Ok(())
        }))
    })
}

/// A client's, or the operator's.
pub(crate) async fn open(site: Site) -> Result<Scene, Failure> {
    let locks = RedisLocks::builder(site.place.as_str()).clock(Arc::clone(&site.clock)).build().await?;
    let mut sets = vec![("elsewhere", elsewhere::set(&site.folder).await?)];
    if !site.loses_data {
        let (one, other) = (site.place.clone(), site.place.clone());
        sets.push(("guarded", opened(async move { redis_lists::guard_list(&one, "guarded").await }).await?));
        sets.push(("registered", opened(async move { redis_lists::register_list(&other, "registered").await }).await?));
    }
    Ok(Scene { locks: Arc::new(locks), sets, transacted: None, counter: elsewhere::counter(&site.folder).await? })
}
