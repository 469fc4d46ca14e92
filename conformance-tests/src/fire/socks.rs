//! As much of SOCKS5 (RFC 1928) as a client needs to be led to a server whose address it was told by another: no login,
//! CONNECT, and an address of IPv4 or a name.

use std::{io, net::Ipv4Addr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::wire::Wire;

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const GRANTED: u8 = 0;
const UNREACHABLE: u8 = 4;
const NO_SUCH_COMMAND: u8 = 7;
const NO_SUCH_ADDRESS: u8 = 8;

/// Hears where the client wants to go, and hands its connection on to the wire that leads there.
///
/// The weather is that of the wire: asking for the way takes no time, as the opening of a connection doesn't.
pub(super) async fn serve(mut client: TcpStream, wires: &[Wire]) -> io::Result<()> {
    greet(&mut client).await?;
    let asked = match wanted(&mut client).await? {
        Ok(server) => wires.iter().find(|wire| wire.server() == server).ok_or(UNREACHABLE),
        Err(refusal) => Err(refusal),
    };
    let code = asked.err().unwrap_or(GRANTED);
    // From which address the server is connected to, nobody wants to know.
    client.write_all(&[VERSION, code, 0, IPV4, 0, 0, 0, 0, 0, 0]).await?;
    if let Ok(wire) = asked {
        wire.take(client);
    }
    Ok(())
}

async fn greet(client: &mut TcpStream) -> io::Result<()> {
    must_be_five(client.read_u8().await?)?;
    let mut methods = vec![0; client.read_u8().await?.into()];
    client.read_exact(&mut methods).await?;
    if !methods.contains(&NO_LOGIN) {
        return Err(io::Error::other("a client that wants to log in"));
    }
    client.write_all(&[VERSION, NO_LOGIN]).await
}

/// `host:port`, or the code of what is refused.
async fn wanted(client: &mut TcpStream) -> io::Result<Result<String, u8>> {
    must_be_five(client.read_u8().await?)?;
    let (command, _reserved, kind) = (client.read_u8().await?, client.read_u8().await?, client.read_u8().await?);
    let host = match kind {
        IPV4 => Ipv4Addr::from(client.read_u32().await?).to_string(),
        NAME => {
            let mut name = vec![0; client.read_u8().await?.into()];
            client.read_exact(&mut name).await?;
            String::from_utf8_lossy(&name).into_owned()
        }
        _ => return Ok(Err(NO_SUCH_ADDRESS)),
    };
    let port = client.read_u16().await?;
    Ok(if command == CONNECT { Ok(format!("{host}:{port}")) } else { Err(NO_SUCH_COMMAND) })
}

fn must_be_five(version: u8) -> io::Result<()> {
    if version == VERSION { Ok(()) } else { Err(io::Error::other("a client that doesn't speak SOCKS5")) }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{port::Port, wire::Weather},
        *,
    };
    use tokio::net::TcpListener;

    /// A server that says its number and then what it hears.
    async fn server(number: u8) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    stream.write_u8(number).await.unwrap();
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        address
    }

    fn by_name(address: &str) -> Vec<u8> {
        let (host, port) = address.split_once(':').unwrap();
        let mut request = vec![5, 1, 0, 3, u8::try_from(host.len()).unwrap()];
        request.extend_from_slice(host.as_bytes());
        request.extend_from_slice(&port.parse::<u16>().unwrap().to_be_bytes());
        request
    }

    fn by_number(address: &str) -> Vec<u8> {
        let port = address.split_once(':').unwrap().1.parse::<u16>().unwrap();
        [vec![5, 1, 0, 1, 127, 0, 0, 1], port.to_be_bytes().to_vec()].concat()
    }

    async fn asks(port: &Port, request: &[u8]) -> (u8, TcpStream) {
        let mut client = TcpStream::connect(port.address()).await.unwrap();
        // A login is offered as well, as some clients do.
        client.write_all(&[5, 2, 0, 2]).await.unwrap();
        let mut chosen = [0; 2];
        client.read_exact(&mut chosen).await.unwrap();
        assert_eq!(chosen, [5, 0]);
        client.write_all(request).await.unwrap();
        let mut answer = [0; 10];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!((answer[0], &answer[2..]), (5, [0, 1, 0, 0, 0, 0, 0, 0].as_slice()));
        (answer[1], client)
    }

    #[tokio::test]
    async fn each_is_led_where_it_wants_to_go_under_the_weather_there() {
        let servers = [server(1).await, server(2).await];
        let wires: Vec<_> = servers.iter().map(|server| Wire::to(server)).collect();
        let port = Port::of_all(wires.clone()).await.unwrap();
        for (number, request) in [(1, by_name(&servers[0])), (2, by_number(&servers[1]))] {
            let (code, mut client) = asks(&port, &request).await;
            assert_eq!((code, client.read_u8().await.unwrap()), (GRANTED, number));
            client.write_u8(7).await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), 7);
        }
        wires[1].set(|weather| weather.refuse = true);
        let (_, mut refused) = asks(&port, &by_number(&servers[1])).await;
        assert!(refused.read_u8().await.is_err(), "that wire refuses");
        let (_, mut other) = asks(&port, &by_number(&servers[0])).await;
        assert_eq!(other.read_u8().await.unwrap(), 1);
        wires[1].set(Weather::clear);
        let (_, mut client) = asks(&port, &by_number(&servers[1])).await;
        assert_eq!(client.read_u8().await.unwrap(), 2);
        wires[1].cut();
        assert!(client.read_u8().await.is_err(), "that wire was cut");
    }

    #[tokio::test]
    async fn nobody_is_led_elsewhere() {
        let (known, unknown) = (server(1).await, server(2).await);
        let port = Port::of_all(vec![Wire::to(&known)]).await.unwrap();
        assert_eq!(asks(&port, &by_name(&unknown)).await.0, UNREACHABLE);
        let mut binds = by_name(&known);
        binds[1] = 2;
        assert_eq!(asks(&port, &binds).await.0, NO_SUCH_COMMAND);
        assert_eq!(asks(&port, &[5, 1, 0, 4]).await.0, NO_SUCH_ADDRESS);
        let mut stranger = TcpStream::connect(port.address()).await.unwrap();
        stranger.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        assert!(stranger.read_u8().await.is_err());
    }
}
