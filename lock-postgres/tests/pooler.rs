//! Behind PgBouncer: noticed, and nothing left in its sessions.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{collections::BTreeSet, time::Duration};

use common::{
    again, ask, give_back, granted, name,
    pooler::{Pooler, in_time},
    seconds, take,
};
use lock_core::{
    Acquired, Applied, Clock, ErrorKind, LockProvider, LockState, OwnerId, Released, Renewed, SystemClock, Waiting,
    Wake,
};
use lock_postgres::PostgresLocks;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgPool, Row,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// The settings that our statements run under.
const OURS: [&str; 9] = [
    "default_transaction_isolation",
    "enable_bitmapscan",
    "enable_hashjoin",
    "enable_mergejoin",
    "enable_seqscan",
    "idle_in_transaction_session_timeout",
    "jit",
    "plan_cache_mode",
    "statement_timeout",
];

/// Everything works there that doesn't need to be woken.
async fn works(locks: &PostgresLocks) {
    let (request, grant) = take(locks, "x").await;
    assert!(matches!(locks.acquire(&ask("x", seconds(30))).await.unwrap(), Acquired::Held(_)));
    assert_eq!(locks.renew(&again(&request, grant)).await.unwrap(), Renewed::Held(request.ttl));
    let status = locks.inspect(&request.name).await.unwrap().unwrap();
    assert!(matches!(status.state, LockState::Held(holding) if holding.owner == request.owner));
    assert_eq!(locks.release(&give_back(&request, grant)).await.unwrap(), Released::Released);
    assert!(!locks.force_release(&request.name).await.unwrap());
}

async fn a_pooler_is_noticed_whether_it_refuses_our_settings_or_drops_them() {
    let pooler = Pooler::new().await;
    for set in [
        "SHOW VERSION",
        "SET ignore_startup_parameters = 'extra_float_digits'",
        "SET ignore_startup_parameters = 'options, extra_float_digits'",
        "SET pool_mode = 'session'",
    ] {
        pooler.console(set).await;
        let locks = pooler.locks().await;
        let Wake::Poll(every) = locks.capabilities().wake else {
            panic!("{set}: {:?}", locks.capabilities());
        };
        assert_eq!(every, Duration::from_millis(500), "the default");
        let error = locks.watch(&name("x"), OwnerId::from_u128(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        works(&locks).await;
        // The application's own settings of the driver do no harm.
        for theirs in ["statement-cache-capacity=3", "application_name=theirs"] {
            let url = format!("{}?{theirs}", pooler.url());
            works(&PostgresLocks::builder(url).schema(&pooler.place.schema).build().await.unwrap()).await;
        }
    }
    let direct = pooler.place.locks().await;
    assert_eq!(direct.capabilities().wake, Wake::Event);
    let brief = pooler.builder().poll_interval(Duration::from_millis(50)).build().await.unwrap();
    assert_eq!(brief.capabilities().wake, Wake::Poll(Duration::from_millis(50)));
    pooler.clear().await;
}

async fn a_pooler_is_noticed_by_the_age_of_its_sessions_where_settings_tell_nothing() {
    let pooler = Pooler::new().await;
    // What we ask for is what the database has anyway: that the pooler drops it makes no difference.
    for setting in [
        "default_transaction_isolation = 'read committed'",
        "enable_bitmapscan = off",
        "enable_hashjoin = off",
        "enable_mergejoin = off",
        "enable_seqscan = off",
        "jit = off",
        "plan_cache_mode = force_generic_plan",
        "statement_timeout = 5000",
    ] {
        pooler.place.sql(&format!("ALTER DATABASE {} SET {setting}", pooler.database)).await;
    }
    pooler.console("SET ignore_startup_parameters = 'options, extra_float_digits'").await;
    let options: PgConnectOptions = pooler.url().parse().unwrap();
    let mut other = PgConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("SELECT 1").execute(&mut other).await.unwrap();
    let oldest = format!(
        "SELECT coalesce(max(1000 * extract(epoch FROM clock_timestamp() - backend_start)), 0)::bigint
         FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid() AND query = 'SELECT 1'",
        pooler.database
    );
    in_time(async {
        while pooler.place.number(&oldest).await < 2500 {
            SystemClock.sleep_until(SystemClock.now() + Duration::from_millis(50)).await;
        }
    })
    .await;
    let locks = pooler.locks().await;
    assert_eq!(locks.capabilities().wake, Wake::Poll(Duration::from_millis(500)));
    works(&locks).await;
    assert_eq!(pooler.place.locks().await.capabilities().wake, Wake::Event);
    pooler.clear().await;
}

async fn what_no_pooler_can_do_is_refused_with_the_reason() {
    let pooler = Pooler::new().await;
    let url = format!("{}?options=-c%20search_path%3Dtheirs", pooler.url());
    let error = PostgresLocks::builder(url).build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReady, "{error}");
    assert!(error.to_string().contains("leave it out of the URL"), "{error}");
    println!("{error}");
    pooler.console("SET pool_mode = 'statement'").await;
    let error = pooler.builder().build().await.unwrap_err();
    assert_eq!((error.kind(), error.applied()), (ErrorKind::NotReady, Applied::No), "{error}");
    assert!(error.to_string().contains("pool_mode to transaction"), "{error}");
    println!("{error}");
    pooler.clear().await;
}

/// Notes, just before a commit, which of our settings are in force for it.
const NOTE_COMMITS: &str = "
    CREATE TABLE {s}.seen (settings text);
    CREATE FUNCTION {s}.note() RETURNS trigger LANGUAGE plpgsql AS $f$
    BEGIN
        INSERT INTO {s}.seen SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings
            WHERE name IN ('idle_in_transaction_session_timeout', 'jit', 'statement_timeout', 'synchronous_commit',
                           'transaction_isolation');
        RETURN NULL;
    END $f$;
    CREATE CONSTRAINT TRIGGER note AFTER INSERT OR UPDATE ON {s}.locks
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {s}.note();";

/// What a session keeps between transactions.
const STATE: &str = "
    SELECT pg_backend_pid() AS pid,
        ARRAY(SELECT name FROM pg_settings WHERE name = ANY($1) AND setting <> reset_val) AS changed,
        (SELECT count(*) FROM pg_prepared_statements WHERE name <> '') AS prepared,
        current_setting('statement_timeout') AS timeout,
        current_setting('transaction_isolation') AS isolation";

async fn settings_are_in_force_for_us_and_leak_to_nobody() {
    let pooler = Pooler::new().await;
    let clients = [
        pooler.builder().operation_timeout(seconds(5)).build().await.unwrap(),
        pooler.builder().operation_timeout(Duration::from_millis(900)).build().await.unwrap(),
    ];
    pooler.place.sql(NOTE_COMMITS).await;
    take(&clients[0], "a").await;
    take(&clients[1], "b").await;
    let schema = &pooler.place.schema;
    let seen: Vec<String> =
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT settings FROM \"{schema}\".seen ORDER BY settings DESC")))
            .fetch_all(&pooler.place.admin)
            .await
            .unwrap();
    let expected = |pause, timeout| {
        format!(
            "idle_in_transaction_session_timeout={pause} jit=off statement_timeout={timeout} synchronous_commit=on \
             transaction_isolation=read committed"
        )
    };
    assert_eq!(seen, [expected(900, 900), expected(1000, 5000)]);
    pooler.place.sql("DROP FUNCTION {s}.note CASCADE").await;

    // Both at once, so that each of several sessions served both.
    let working: Vec<_> = (0..16)
        .map(|task| {
            let locks = clients[task % 2].clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    let (request, grant) = take(&locks, &format!("{task} {round}")).await;
                    locks.renew(&again(&request, grant)).await.unwrap();
                    locks.release(&give_back(&request, grant)).await.unwrap();
                }
            })
        })
        .collect();
    for task in working {
        task.await.unwrap();
    }

    // All sessions of the pool at once: each is held by a transaction while the next is asked for.
    let servers = pooler.console("SHOW SERVERS").await;
    let ours = servers.iter().filter(|row| row.get::<&str, _>("database") == pooler.database);
    let mut left: BTreeSet<i32> = ours.map(|row| row.get("remote_pid")).collect();
    println!("{} sessions in the pool", left.len());
    assert!(!left.is_empty());
    let options: PgConnectOptions = pooler.url().parse().unwrap();
    let others = PgPoolOptions::new().max_connections(20);
    let others: PgPool = others.connect_lazy_with(options.extra_float_digits(None).statement_cache_capacity(0));
    let mut held = Vec::new();
    while !left.is_empty() {
        let mut other = others.begin().await.unwrap();
        let state = sqlx::query(STATE).bind(OURS.as_slice()).persistent(false).fetch_one(&mut *other).await.unwrap();
        let pid: i32 = state.get("pid");
        assert!(left.remove(&pid), "a new session, while these idle: {left:?}");
        assert_eq!(state.get::<Vec<String>, _>("changed"), [""; 0]);
        assert_eq!(state.get::<i64, _>("prepared"), 0);
        assert_eq!(state.get::<&str, _>("timeout"), "77777ms", "the database's own");
        assert_eq!(state.get::<&str, _>("isolation"), "serializable", "the database's own");
        held.push(other);
    }
    drop(held);
    others.close().await;
    pooler.clear().await;
}

async fn who_waits_at_the_server_itself_is_woken_through_the_pooler() {
    let pooler = Pooler::new().await;
    let (holder, waiter) = (pooler.locks().await, pooler.place.locks().await);
    let (request, grant) = take(&holder, "x").await;
    let mut watch = waiter.watch(&name("x"), OwnerId::from_u128(1)).await.unwrap();
    let mut wish = ask("x", seconds(30));
    wish.waiting = Waiting::Wake(seconds(60));
    assert!(matches!(waiter.acquire(&wish).await.unwrap(), Acquired::Held(_)));
    holder.release(&give_back(&request, grant)).await.unwrap();
    in_time(watch.woken()).await;
    granted(waiter.acquire(&wish).await.unwrap());
    drop((watch, waiter));
    pooler.clear().await;
}

async fn what_a_pair_costs() {
    let pooler = Pooler::new().await;
    let clients = [pooler.place.locks().await, pooler.locks().await];
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..500 {
        for (client, took) in clients.iter().zip(&mut took) {
            let began = SystemClock.now();
            let (request, grant) = take(client, "x").await;
            client.release(&give_back(&request, grant)).await.unwrap();
            took.push(SystemClock.now().since(began));
        }
    }
    took.iter_mut().for_each(|took| took.sort());
    let at = |way: usize, percent: usize| took[way][(took[way].len() - 1) * percent / 100];
    for (way, called) in ["direct", "pooled"].into_iter().enumerate() {
        println!("acquire and release, {called}: p50 {:?}, p90 {:?}", at(way, 50), at(way, 90));
    }
    assert!(at(1, 50) < at(0, 50) + Duration::from_millis(20), "eight round trips in place of two");
    pooler.clear().await;
}

testbed::server_tests!(testbed::tests::private_pgbouncer_can_be_had =>
    a_pooler_is_noticed_whether_it_refuses_our_settings_or_drops_them,
    a_pooler_is_noticed_by_the_age_of_its_sessions_where_settings_tell_nothing,
    what_no_pooler_can_do_is_refused_with_the_reason,
    settings_are_in_force_for_us_and_leak_to_nobody,
    who_waits_at_the_server_itself_is_woken_through_the_pooler,
    what_a_pair_costs,
);
