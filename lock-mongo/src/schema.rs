//! The servers and the collection as they must be before a lock is kept there.

use std::{sync::Arc, time::Duration};

use lock_core::{ErrorKind, StoreError};
use mongodb::{
    Client, Database,
    bson::{Bson, Document, doc, oid::ObjectId},
    options::{
        Acknowledgment, ClientOptions, DatabaseOptions, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern,
    },
};
use tokio::sync::Semaphore;

use crate::{
    config::{DATABASE, Given, Index, Settings},
    error::{self, Failure},
    heartbeats::Heartbeats,
    operation::Runner,
    pipelines::Pipelines,
    records::millis,
};

/// The index that sweeps idle records, and its field.
const INDEX: &str = "leasehold_forget";
const FORGET_AT: &str = "forget_at";

/// MongoDB 5.0, by the version of its protocol: the first whose `findAndModify` takes variables.
const OLDEST_WIRE_VERSION: i32 = 13;

const UNAUTHORIZED: i32 = 13;
const MAX_TIME_EXPIRED: i32 = 50;
const NO_SUCH_COLLECTION: i32 = 26;
const COLLECTION_EXISTS: i32 = 48;

/// How the servers belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One server by itself.
    Standalone,
    /// A replica set, or a sharded cluster of them behind its routers.
    Replicated,
}

/// Connects, and looks at the servers and the collection; in a task of its own, since the driver's futures must not be
/// dropped, and within the connect timeout and a quarter of it.
pub(crate) async fn open(settings: Settings) -> Result<(Runner, Kind), StoreError> {
    let clock = Arc::clone(&settings.clock);
    let (server, limit) = (settings.server.clone(), settings.connect_timeout * 5 / 4);
    let give_up = clock.now() + limit;
    let heartbeats = Heartbeats::default();
    let seen = heartbeats.clone();
    let task = tokio::spawn(async move { prepare(settings, heartbeats).await });
    tokio::select! {
        opened = task => opened.unwrap_or_else(|error| {
            Err(StoreError::refused(ErrorKind::Other, "the runtime ended the attempt to connect").caused_by(error))
        }),
        () = clock.sleep_until(give_up) => Err(seen.explain().unwrap_or_else(|| {
            StoreError::refused(ErrorKind::Unreachable, format!("{server} didn't answer within {limit:?}"))
        })),
    }
}

async fn prepare(settings: Settings, heartbeats: Heartbeats) -> Result<(Runner, Kind), StoreError> {
    let (database, options) = database(&settings, &heartbeats).await?;
    let found = look(&database, &settings).await;
    let kind = found.map_err(|error| match (error.kind(), heartbeats.explain()) {
        // The driver tells why it found no server as a text of its whole topology.
        (ErrorKind::Unreachable, Some(reason)) if !error.to_string().contains(error::NO_PRIMARY) => reason,
        _ => error,
    })?;
    let runner = Runner {
        collection: database.collection(&settings.collection),
        database,
        pipelines: Pipelines::read()?,
        timeout: settings.operation_timeout,
        clock: settings.clock,
        turns: Arc::new(Semaphore::new(usize::try_from(settings.connections).unwrap_or(1))),
        options,
    };
    Ok((runner, kind))
}

async fn database(
    settings: &Settings,
    heartbeats: &Heartbeats,
) -> Result<(Database, Option<ClientOptions>), StoreError> {
    let named = |database: Database| database.name().to_owned();
    let (client, default, options) = match &settings.given {
        Given::Database(database) => (database.client().clone(), Some(named(database.clone())), None),
        Given::Client(client) => (client.clone(), client.default_database().map(named), None),
        Given::Url(address) => {
            let mut options = address.options(settings.connect_timeout, settings.connections).await?;
            let (default, given) = (options.default_database.clone(), options.clone());
            options.sdam_event_handler = Some(heartbeats.handler());
            let client = Client::with_options(options).map_err(|error| error::of_reading(error.into()))?;
            (client, default, Some(given))
        }
    };
    let name = settings.database.clone().or(default);
    // Whatever is good for the application's own data: locks are kept by a majority and read from the primary.
    let concerns = DatabaseOptions::builder()
        .read_concern(ReadConcern::majority())
        .write_concern(WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build())
        .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
        .build();
    Ok((client.database_with_options(name.as_deref().unwrap_or(DATABASE), concerns), options))
}

async fn look(database: &Database, settings: &Settings) -> Result<Kind, StoreError> {
    let hello = database.client().database("admin").run_command(doc! { "hello": 1 }).await;
    let hello = hello.map_err(|error| error::of_reading(error.into()))?;
    let kind = judge(&hello)?;
    check_collection(database, &settings.collection).await?;
    let (collection, limit) = (settings.collection.as_str(), settings.connect_timeout / 2);
    if kind == Kind::Replicated {
        find_majority(database, collection, limit).await?;
    }
    try_to_write(database, collection, limit).await.map_err(error::of_reading)?;
    if settings.index == Index::No {
        create(database, collection, limit).await.map_err(error::of_reading)?;
        return Ok(kind);
    }
    match ensure_index(database, collection, settings.index == Index::Create, limit).await {
        Err(failure) if failure.code() == Some(UNAUTHORIZED) => Err(no_right_to_index(collection, failure)),
        Err(failure) => Err(error::of_reading(failure)),
        Ok(true) => Ok(kind),
        Ok(false) => Err(no_index(collection)),
    }
}

fn judge(hello: &Document) -> Result<Kind, StoreError> {
    let not_ready = |message: &str| Err(StoreError::refused(ErrorKind::NotReady, message));
    if hello.get_i32("maxWireVersion").unwrap_or_default() < OLDEST_WIRE_VERSION {
        return not_ready("the server is older than MongoDB 5.0, which is the oldest that can keep these locks");
    }
    let is_router = hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
    if !is_router && !hello.get_bool("isWritablePrimary").unwrap_or_default() {
        return not_ready("this server is no primary: name the whole replica set, without directConnection");
    }
    let in_set = is_router || hello.get_str("setName").is_ok();
    Ok(if in_set { Kind::Replicated } else { Kind::Standalone })
}

/// What stands there already must be able to keep each name apart.
async fn check_collection(database: &Database, collection: &str) -> Result<(), StoreError> {
    let command = doc! { "listCollections": 1, "filter": { "name": collection }, "authorizedCollections": true };
    // A role may lack the right to look; then it is the administrator's care.
    let Ok(answer) = database.run_command(command).await else { return Ok(()) };
    let batch = answer.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let Some(Bson::Document(found)) = batch.ok().and_then(|batch| batch.first()) else { return Ok(()) };
    let options = found.get_document("options").cloned().unwrap_or_default();
    let wrong = if found.get_str("type").is_ok_and(|kind| kind != "collection") {
        "is a view or holds time series"
    } else if options.contains_key("collation") {
        "has a collation, by which different names may be one"
    } else if options.get_bool("capped").unwrap_or_default() {
        "is capped, so that it forgets records"
    } else {
        return Ok(());
    };
    Err(StoreError::refused(ErrorKind::NotReady, format!("the collection {collection} {wrong}; name another one")))
}

/// A linearizable read is answered once a majority has confirmed that this server is still its primary.
async fn find_majority(database: &Database, collection: &str, limit: Duration) -> Result<(), StoreError> {
    let command = doc! {
        "find": collection,
        "filter": { "_id": ObjectId::new() },
        "limit": 1,
        "singleBatch": true,
        "readConcern": { "level": "linearizable" },
        "maxTimeMS": millis(limit),
    };
    let found = database.run_command(command).await.map_err(Failure::from);
    found.map(drop).map_err(|failure| match failure.code() {
        Some(MAX_TIME_EXPIRED) => StoreError::refused(
            ErrorKind::Unreachable,
            format!("no majority of the replica set answered within {limit:?}: check that its members run and see each other"),
        ),
        // A primary that has lost its majority notices, sooner or later, and steps down.
        Some(code) if error::is_state_change(code) => StoreError::refused(
            ErrorKind::Unreachable,
            "the primary stepped down when asked whether a majority follows it: check that the set's members run and see each other, and try again",
        ),
        _ => error::of_reading(failure),
    })
}

/// Changes nothing, and fails where the role or the server wouldn't let us.
async fn try_to_write(database: &Database, collection: &str, limit: Duration) -> Result<(), Failure> {
    let command = doc! {
        "update": collection,
        "updates": [{ "q": { "_id": ObjectId::new() }, "u": { "$set": { "forget_at": Bson::Null } } }],
        "maxTimeMS": millis(limit),
    };
    Ok(database.run_command(command).await.map(drop)?)
}

/// Creates a collection that may be there already. Without the right to, the first write will.
async fn create(database: &Database, collection: &str, limit: Duration) -> Result<(), Failure> {
    let command = doc! {
        "create": collection,
        "writeConcern": { "w": "majority", "j": true, "wtimeout": millis(limit) },
        "maxTimeMS": millis(limit),
    };
    match database.run_command(command).await.map_err(Failure::from) {
        Err(failure) if !matches!(failure.code(), Some(COLLECTION_EXISTS | UNAUTHORIZED)) => Err(failure),
        _ => Ok(()),
    }
}

/// Whether the index is there; creates it if it may.
pub(crate) async fn ensure_index(
    database: &Database,
    collection: &str,
    create: bool,
    limit: Duration,
) -> Result<bool, Failure> {
    if !create {
        return has_index(database, collection).await;
    }
    let command = doc! {
        "createIndexes": collection,
        // Whoever has no such field is never swept, and each record has it later than the end of its lease by the
        // retention.
        "indexes": [{ "key": { FORGET_AT: 1 }, "name": INDEX, "expireAfterSeconds": 0 }],
        "maxTimeMS": millis(limit),
    };
    match database.run_command(command).await.map_err(Failure::from) {
        Ok(_) => Ok(true),
        Err(failure) if failure.code() == Some(UNAUTHORIZED) => match has_index(database, collection).await {
            Ok(true) => Ok(true),
            _ => Err(failure),
        },
        Err(failure) => Err(failure),
    }
}

async fn has_index(database: &Database, collection: &str) -> Result<bool, Failure> {
    let answer = match database.run_command(doc! { "listIndexes": collection }).await.map_err(Failure::from) {
        Err(failure) if failure.code() == Some(NO_SUCH_COLLECTION) => return Ok(false),
        answer => answer?,
    };
    let batch = answer.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let sweeps = |index: &Bson| {
        index.as_document().is_some_and(|index| {
            index.get_document("key").is_ok_and(|key| key.keys().eq([FORGET_AT]))
                && index.contains_key("expireAfterSeconds")
        })
    };
    Ok(batch.is_ok_and(|batch| batch.iter().any(sweeps)))
}

/// For `mongosh`.
pub(crate) fn create_by_hand(collection: &str) -> String {
    let collection = serde_json::Value::from(collection);
    format!(
        "db.getCollection({collection}).createIndex({{{FORGET_AT}: 1}}, {{name: \"{INDEX}\", expireAfterSeconds: 0}})"
    )
}

fn no_index(collection: &str) -> StoreError {
    let message = format!("the index that sweeps idle records is missing: {}", create_by_hand(collection));
    StoreError::refused(ErrorKind::NotReady, message)
}

fn no_right_to_index(collection: &str, failure: Failure) -> StoreError {
    let message = format!(
        "the user may not create the index that sweeps idle records: grant it createIndex (where the index is there, listIndexes will do), or let an administrator run {}",
        create_by_hand(collection)
    );
    let error = StoreError::refused(ErrorKind::Denied, message);
    if let Failure::Driver(cause) = failure { error.caused_by(cause) } else { error }
}
