//! Questions and answers as lines of JSON over loopback: what the test program keeps itself, for its child processes.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt},
    sync::Mutex,
};

/// Answers until this process ends, each client in a thread of its own; where, as `host:port`.
pub(crate) fn serve<Q, A>(answer: impl Fn(Q) -> A + Send + Sync + 'static) -> io::Result<String>
where
    Q: DeserializeOwned,
    A: Serialize,
{
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            std::thread::spawn(move || attend(&client, &*answer));
        }
    });
    Ok(address)
}

/// Answers one client until it is gone.
fn attend<Q: DeserializeOwned, A: Serialize>(client: &TcpStream, answer: &impl Fn(Q) -> A) -> io::Result<()> {
    client.set_nodelay(true)?;
    for line in BufReader::new(client).lines() {
        let answer = answer(serde_json::from_str(&line?)?);
        let mut line = serde_json::to_string(&answer)?;
        line.push('\n');
        (&*client).write_all(line.as_bytes())?;
    }
    Ok(())
}

type Connection = tokio::io::BufReader<tokio::net::TcpStream>;

/// Asks, one question at a time.
#[derive(Debug)]
pub(crate) struct Client {
    address: String,
    /// Taken out while a question is under way: one that is broken off leaves none behind.
    connection: Mutex<Option<Connection>>,
}

impl Client {
    pub(crate) fn new(address: &str) -> Self {
        Self { address: address.to_owned(), connection: Mutex::default() }
    }

    pub(crate) async fn ask<A: DeserializeOwned>(&self, question: &(impl Serialize + Sync)) -> io::Result<A> {
        let mut kept = self.connection.lock().await;
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => {
                let stream = tokio::net::TcpStream::connect(&self.address).await?;
                stream.set_nodelay(true)?;
                tokio::io::BufReader::new(stream)
            }
        };
        let mut line = serde_json::to_string(question)?;
        line.push('\n');
        connection.write_all(line.as_bytes()).await?;
        line.clear();
        connection.read_line(&mut line).await?;
        let answer = serde_json::from_str(&line)?;
        *kept = Some(connection);
        Ok(answer)
    }
}
