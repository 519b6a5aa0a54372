//! Which of the servers answers.

use std::io;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::options::{Options, Server};

/// The first server that speaks HTTP/2. Each client that the SDK makes leaves a task behind for the life
/// of the process, also one that never connects, and so one is made only where somebody answers.
pub(super) async fn answering(options: &Options, deadline: Instant) -> Result<Server, String> {
    let mut servers = options.servers.clone();
    fastrand::shuffle(&mut servers);
    let mut greeted: FuturesUnordered<_> = servers
        .into_iter()
        .map(|server| async move {
            match timeout_at(deadline, greet(&server.grpc)).await {
                Ok(Ok(())) => Ok(server),
                Ok(Err(error)) => Err(format!("{}: {error}", server.grpc)),
                Err(_) => Err(format!("{}: no answer in time", server.grpc)),
            }
        })
        .collect();
    let mut reasons = Vec::new();
    while let Some(greeted) = greeted.next().await {
        match greeted {
            Ok(server) => return Ok(server),
            Err(why) => reasons.push(why),
        }
    }
    reasons.sort();
    Err(reasons.join("; "))
}

/// Exchanges the first words of HTTP/2: a preface and a frame of settings.
async fn greet(address: &str) -> Result<(), String> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    const SETTINGS: u8 = 4;
    let head = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(PREFACE).await?;
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.map(|_| head)
    };
    let head = head.await.map_err(|error: io::Error| error.to_string())?;
    match head[3] {
        SETTINGS => Ok(()),
        _ => Err("it does not speak gRPC".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;
    use crate::registry::url::Url;

    #[tokio::test]
    async fn who_does_not_answer_in_http2_is_no_server() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = {
            let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap().port()
        };
        let other_port = other.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = other.accept().await.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = stream.read(&mut [0; 64]).await;
        });
        for (port, named) in [
            (silent.local_addr().unwrap().port(), "no answer in time"),
            (other_port, "does not speak gRPC"),
            (closed, "refused"),
        ] {
            let url = Url::parse(&format!("nacos://127.0.0.1?grpc_port={port}")).unwrap();
            let options = Options::of(&url).unwrap();
            let deadline = Instant::now() + Duration::from_millis(100);
            let why = answering(&options, deadline).await.unwrap_err();
            assert!(why.contains(named) && why.contains(&format!(":{port}: ")), "{why}");
        }
    }
}
