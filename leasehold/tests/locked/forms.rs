//! The functions it goes on: each keeps its shape, and only what it returns changes.

use std::{fmt::Display, sync::Arc};

use leasehold::{MemoryLocks, prelude::*, testing::Stage, with_locks};

#[leasehold::locked(name = "plain")]
async fn plain() {}

/// With a comment, an attribute, and a visibility of its own.
#[must_use]
#[leasehold::locked(name = "mail-{shard:03}-{to.name}")]
#[inline]
pub(crate) async fn mail(shard: u32, mut count: usize, to: &Recipient<'_>) -> String {
    count += 1;
    format!("{} to {} under {}", count, to.name, lease!().name())
}

pub(crate) struct Recipient<'a> {
    name: &'a str,
}

#[locked(name = "generic-{what}")]
async fn generic<'a, T, const N: usize>(what: T, rest: &'a [u8; N]) -> (T, &'a u8)
where
    T: Display + Clone,
{
    (what.clone(), &rest[0])
}

#[locked(name = "patterns-{a}-{b}")]
async fn patterns((a, b): (u32, u32), [first, ..]: [u8; 3], hidden: impl Display + Send) -> impl Display {
    format!("{a}{b}{first}{hidden}")
}

#[derive(Debug, PartialEq)]
struct Broken(&'static str);

#[locked(name = "fallible")]
async fn fallible(how: &str) -> Result<u32, Broken> {
    if how == "early" {
        return Err(Broken("early"));
    }
    how.parse().map_err(|_| Broken("not a number"))
}

/// Nothing but `?` and `return`: the type has to come from the signature.
#[locked(name = "inferred")]
async fn inferred(text: &str) -> Result<Vec<u32>, Box<dyn std::error::Error + Send + Sync>> {
    let numbers = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
    return Ok(numbers);
}

struct Service {
    locks: Locks,
    tenant: String,
    served: u32,
}

impl Service {
    #[locked(name = "tenant-{self.tenant}", locks = self.locks)]
    async fn by_reference(&self, more: u32) -> u32 {
        self.served + more
    }

    #[locked(name = "tenant-{self.tenant}", locks = &self.locks)]
    async fn by_mutable_reference(&mut self) -> Result<u32, Broken> {
        self.served += 1;
        Ok(self.served)
    }

    #[locked(name = format!("tenant-{}", self.tenant), locks = self.locks.clone())]
    async fn by_value(self) -> String {
        self.tenant
    }

    #[locked(name = "tenant-{self.tenant}", locks = self.locks)]
    async fn by_arc(self: Arc<Self>) -> u32 {
        self.served
    }

    #[locked(name = "Self")]
    async fn associated() -> Option<Self> {
        None
    }
}

trait Job {
    async fn work(&self) -> Result<Outcome<u32>, LockError>;
}

impl Job for Service {
    #[locked(name = "trait", locks = self.locks)]
    async fn work(&self) -> u32 {
        self.served
    }
}

fn needs_send<T: Send>(future: T) -> T {
    future
}

#[tokio::test]
async fn every_form_runs_and_gives_what_it_gave() {
    let locks = Locks::new(MemoryLocks::new());
    let service = || Service { locks: locks.clone(), tenant: "acme".into(), served: 4 };
    let to = Recipient { name: "ann" };
    let all = async {
        assert_eq!(plain().await.unwrap(), Outcome::Ran(()));
        let mailed = needs_send(mail(7, 1, &to)).await.unwrap().ran().unwrap();
        assert_eq!(mailed, "2 to ann under mail-007-ann");
        assert_eq!(generic("x", &[5, 6]).await.unwrap().ran().unwrap(), ("x", &5));
        let text = patterns((1, 2), [3, 4, 5], '6').await.unwrap().ran().unwrap().to_string();
        assert_eq!(text, "1236");
        assert_eq!(fallible("7").await.unwrap(), Outcome::Ran(Ok(7)));
        assert_eq!(fallible("early").await.unwrap(), Outcome::Ran(Err(Broken("early"))));
        assert_eq!(needs_send(inferred("1,2")).await.unwrap().ran().unwrap().unwrap(), [1, 2]);
        assert_eq!(items("7").await.unwrap(), Outcome::Ran(Ok(7)));
        assert_eq!(items("x").await.unwrap(), Outcome::Ran(Err(Broken("no number"))));
        assert!(Service::associated().await.unwrap().ran().unwrap().is_none());
    };
    with_locks(locks.clone(), all).await;
    assert_eq!(needs_send(service().by_reference(1)).await.unwrap(), Outcome::Ran(5));
    assert_eq!(service().by_mutable_reference().await.unwrap(), Outcome::Ran(Ok(5)));
    assert_eq!(service().by_value().await.unwrap(), Outcome::Ran("acme".to_owned()));
    assert_eq!(Arc::new(service()).by_arc().await.unwrap(), Outcome::Ran(4));
    assert_eq!(service().work().await.unwrap(), Outcome::Ran(4));
}

/// Its own `Result`, and an attribute within: neither is meant by the signature.
#[locked(name = "items")]
async fn items(text: &str) -> Result<u32, Broken> {
    #![allow(unused_mut)]
    use std::io::Result;
    struct Broken(u32);
    fn read(text: &str) -> Result<Broken> {
        text.parse().map(Broken).map_err(|_| std::io::ErrorKind::InvalidData.into())
    }
    let mut number = read(text).map_err(|_| self::Broken("no number"))?;
    Ok(number.0)
}

/// Says when it is dropped, and whether that was under a lock.
struct Noisy(Arc<std::sync::Mutex<Vec<bool>>>);

impl Drop for Noisy {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(leasehold::current().is_some());
    }
}

#[locked(name = "unused")]
async fn unused(_: Noisy, _permit: Noisy, (_first, _): (Noisy, u32)) {}

#[tokio::test]
async fn what_the_body_does_not_use_is_dropped_under_the_lock_all_the_same() {
    let dropped = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noisy = || Noisy(dropped.clone());
    let locks = Locks::new(MemoryLocks::new());
    with_locks(locks, unused(noisy(), noisy(), (noisy(), 1))).await.unwrap().ran().unwrap();
    assert_eq!(*dropped.lock().unwrap(), [true, true, true]);
}

#[locked(name = "deep")]
async fn first(stage: &Stage) -> u64 {
    let token = lease!().token().get();
    let inner = second(stage, token).await.unwrap().ran().unwrap();
    assert_eq!(inner, token);
    token
}

#[locked(name = "other")]
async fn second(stage: &Stage, outer: u64) -> u64 {
    assert_eq!(lease!().name().as_str(), "other");
    third(stage, outer).await.unwrap().ran().unwrap()
}

#[locked(name = "deep")]
async fn third(stage: &Stage, outer: u64) -> u64 {
    assert_eq!(leasehold::assert_locked("other").name().as_str(), "other");
    assert_eq!((lease!().token().get(), lease!().name().as_str()), (outer, "deep"), "joined");
    fourth(stage).await.unwrap().ran().unwrap()
}

#[locked(name = "deep")]
async fn fourth(stage: &Stage) -> u64 {
    fifth(stage).await.unwrap().ran().unwrap()
}

#[locked(name = "deep")]
async fn fifth(stage: &Stage) -> u64 {
    stage.pass(std::time::Duration::from_millis(1)).await;
    lease!().token().get()
}

#[tokio::test(start_paused = true)]
async fn locked_functions_of_one_lock_join_however_deep_they_are() {
    let stage = Stage::new();
    let mine = stage.clone();
    tokio::spawn(with_locks(stage.locks(), async move { first(&mine).await })).await.unwrap().unwrap().ran().unwrap();
    assert_eq!(stage.asked(leasehold::Operation::Acquire), 2, "one for each lock");
}

#[tokio::test]
async fn without_installed_locks_the_error_says_what_to_do() {
    let LockError::Store(error) = plain().await.unwrap_err() else { panic!("another error") };
    assert_eq!(error.kind(), leasehold::ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("leasehold::install(locks)"), "{error}");
}

#[tokio::test]
#[should_panic = "lease!() is for code that runs under a lock"]
async fn a_lease_outside_of_one_is_a_mistake() {
    let _ = lease!();
}
