//! Every fault really happens.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::{Instant, timeout};

use super::*;

/// For what should come at once, on a machine as slow as it likes.
const SOON: Duration = Duration::from_secs(20);
/// For what should not come.
const NOTHING: Duration = Duration::from_millis(150);

/// Gives back what it gets, to anyone.
async fn echo() -> Endpoint {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.ok();
            });
        }
    });
    Endpoint::Tcp(address)
}

async fn proxied() -> (Proxy, TcpStream) {
    let proxy = Proxy::tcp(Protocol::Opaque, echo().await).unwrap();
    let client = TcpStream::connect(proxy.address().unwrap()).await.unwrap();
    (proxy, client)
}

async fn said(client: &mut TcpStream, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    timeout(SOON, client.read_exact(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    bytes
}

/// Reads to the end; the error that ended it, if it was one.
async fn rest(client: &mut TcpStream) -> (Vec<u8>, Option<io::ErrorKind>) {
    let mut bytes = Vec::new();
    let ended = timeout(SOON, client.read_to_end(&mut bytes)).await.unwrap();
    (bytes, ended.err().map(|error| error.kind()))
}

async fn until(what: &str, mut look: impl FnMut() -> bool) {
    timeout(SOON, async {
        while !look() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn bytes_pass_both_ways_and_the_end_of_one_side_is_told_to_the_other() {
    let (proxy, mut client) = proxied().await;
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let (mut from, mut to) = client.split();
    let send = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let (_, received) = timeout(SOON, async { tokio::join!(send, from.read_to_end(&mut got)) })
        .await
        .unwrap();
    received.unwrap();
    assert_eq!(got, sent);
    until("all connections closed", || proxy.counts().open == 0).await;
    let counts = proxy.counts();
    assert_eq!(
        (counts.accepted, counts.bytes_up, counts.bytes_down),
        (1, 1_000_000, 1_000_000)
    );
}

#[tokio::test]
async fn latency_is_added_each_way_and_does_not_cost_throughput() {
    let (proxy, mut client) = proxied().await;
    let latency = Duration::from_millis(60);
    proxy.set_weather(Weather {
        latency_up: latency,
        latency_down: latency,
        ..Weather::default()
    });
    let started = Instant::now();
    client.write_all(b"ping").await.unwrap();
    said(&mut client, 4).await;
    let round_trip = started.elapsed();
    assert!(round_trip >= 2 * latency, "{round_trip:?}");
}

#[tokio::test]
async fn a_throttled_connection_takes_its_time() {
    let (proxy, mut client) = proxied().await;
    proxy.set_weather(Weather {
        throttle: Some(20_000),
        ..Weather::default()
    });
    let started = Instant::now();
    client.write_all(&[7; 8_000]).await.unwrap();
    said(&mut client, 8_000).await;
    let elapsed = started.elapsed();
    assert!(elapsed >= Duration::from_millis(350), "{elapsed:?}");
}

#[tokio::test]
async fn a_stalled_connection_stays_open_and_goes_on_afterwards() {
    let (proxy, mut client) = proxied().await;
    proxy.set_weather(Weather {
        stalled: true,
        ..Weather::default()
    });
    client.write_all(b"ping").await.unwrap();
    let mut bytes = [0; 4];
    assert!(timeout(NOTHING, client.read_exact(&mut bytes)).await.is_err());
    assert_eq!(proxy.counts().open, 1);
    proxy.set_weather(Weather::default());
    assert_eq!(said(&mut client, 4).await, b"ping");
}

#[tokio::test]
async fn a_reset_hits_every_open_connection_and_no_later_one() {
    let (proxy, mut first) = proxied().await;
    let address = proxy.address().unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    for client in [&mut first, &mut second] {
        client.write_all(b"ping").await.unwrap();
        said(client, 4).await;
    }
    proxy.reset_all();
    for client in [&mut first, &mut second] {
        assert_eq!(rest(client).await.1, Some(io::ErrorKind::ConnectionReset));
    }
    assert_eq!(proxy.counts().reset, 2);
    let mut third = TcpStream::connect(address).await.unwrap();
    third.write_all(b"ping").await.unwrap();
    assert_eq!(said(&mut third, 4).await, b"ping");
}

#[tokio::test]
async fn refused_connections_are_refused_and_the_port_stays_ours() {
    let (proxy, mut open) = proxied().await;
    let address = proxy.address().unwrap();
    open.write_all(b"ping").await.unwrap();
    said(&mut open, 4).await;
    proxy.refuse(true);
    // One that comes before the proxy has closed its door is reset.
    let refused = timeout(SOON, async {
        loop {
            match TcpStream::connect(address).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return,
                _not_yet => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    });
    refused.await.unwrap();
    assert!(
        TcpListener::bind(address).await.is_err(),
        "nobody else gets the port"
    );
    open.write_all(b"pong").await.unwrap();
    assert_eq!(said(&mut open, 4).await, b"pong", "open ones stay");
    proxy.refuse(false);
    let mut again = timeout(SOON, async {
        loop {
            if let Ok(client) = TcpStream::connect(address).await {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    again.write_all(b"ping").await.unwrap();
    assert_eq!(said(&mut again, 4).await, b"ping");
}

#[tokio::test]
async fn a_cut_lets_exactly_so_many_bytes_pass() {
    for direction in [Direction::Up, Direction::Down] {
        let (proxy, mut client) = proxied().await;
        client.write_all(b"before").await.unwrap();
        said(&mut client, 6).await;
        proxy.cut_after(direction, 1_000);
        client.write_all(&[7; 600]).await.unwrap();
        said(&mut client, 600).await;
        client.write_all(&[7; 600]).await.unwrap();
        until("the cut", || proxy.counts().cut_bytes == 1).await;
        rest(&mut client).await;
        let counts = proxy.counts();
        match direction {
            Direction::Up => assert_eq!(counts.bytes_up, 1_006),
            Direction::Down => assert_eq!(counts.bytes_down, 1_006),
        }
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_a_reset_for_the_client() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let away = listener.local_addr().unwrap();
    drop(listener);
    let proxy = Proxy::tcp(Protocol::Opaque, Endpoint::Tcp(away)).unwrap();
    let mut client = TcpStream::connect(proxy.address().unwrap()).await.unwrap();
    assert_eq!(
        rest(&mut client).await,
        (Vec::new(), Some(io::ErrorKind::ConnectionReset))
    );
    assert_eq!(proxy.counts().unreachable, 1);
    proxy.set_target(echo().await);
    let mut client = TcpStream::connect(proxy.address().unwrap()).await.unwrap();
    client.write_all(b"ping").await.unwrap();
    assert_eq!(said(&mut client, 4).await, b"ping");
}

#[tokio::test]
async fn a_dropped_proxy_leaves_no_connection() {
    let (proxy, mut client) = proxied().await;
    client.write_all(b"ping").await.unwrap();
    said(&mut client, 4).await;
    let address = proxy.address().unwrap();
    drop(proxy);
    rest(&mut client).await;
    timeout(SOON, async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

fn startup() -> Vec<u8> {
    vec![0, 0, 0, 9, 0, 3, 0, 0, 0]
}

/// A server that notes all it gets and answers every message block with `done`.
async fn server(directory: &Path) -> (Endpoint, tokio::sync::mpsc::Receiver<Vec<u8>>) {
    let endpoint = Endpoint::postgres(directory);
    let Endpoint::Unix(path) = &endpoint else {
        panic!("{endpoint}")
    };
    let listener = UnixListener::bind(path).unwrap();
    let (sender, seen) = tokio::sync::mpsc::channel(100);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut all = Vec::new();
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                all.extend_from_slice(&buffer[..n]);
                stream.write_all(b"done").await.ok();
            }
            sender.send(all).await.ok();
        }
    });
    (endpoint, seen)
}

async fn postgres() -> (
    [tempfile::TempDir; 2],
    Proxy,
    UnixStream,
    tokio::sync::mpsc::Receiver<Vec<u8>>,
) {
    let [real, seen_by_clients] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (target, seen) = server(real.path()).await;
    let proxy = Proxy::unix(seen_by_clients.path(), target).unwrap();
    let Endpoint::Unix(path) = proxy.endpoint() else {
        panic!("{}", proxy.endpoint())
    };
    let mut client = UnixStream::connect(path).await.unwrap();
    client.write_all(&startup()).await.unwrap();
    answered(&mut client).await;
    ([real, seen_by_clients], proxy, client, seen)
}

async fn answered(client: &mut UnixStream) {
    let mut bytes = [0; 4];
    timeout(SOON, client.read_exact(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&bytes, b"done");
}

async fn hears_nothing_more(client: &mut UnixStream) {
    let mut bytes = Vec::new();
    timeout(SOON, client.read_to_end(&mut bytes)).await.unwrap().ok();
    assert_eq!(bytes, b"", "no answer reaches the client");
}

#[tokio::test]
async fn a_commit_reaches_the_server_and_its_answer_does_not_reach_the_client() {
    let (_directories, proxy, mut client, mut seen) = postgres().await;
    proxy.cut_commit(CommitCut::Reply, true);
    let commit = message(b'Q', b"COMMIT\0");
    client.write_all(&commit).await.unwrap();
    answered(&mut client).await;
    client.write_all(&message(b'd', b"row")).await.unwrap();
    answered(&mut client).await;
    client.write_all(&commit).await.unwrap();
    hears_nothing_more(&mut client).await;
    let expected = [startup(), commit.clone(), message(b'd', b"row"), commit].concat();
    assert_eq!(timeout(SOON, seen.recv()).await.unwrap().unwrap(), expected);
    let counts = proxy.counts();
    assert_eq!((counts.commits, counts.copies, counts.cut_commits), (2, 1, 1));
}

#[tokio::test]
async fn a_commit_can_be_lost_on_its_way() {
    let (_directories, proxy, mut client, mut seen) = postgres().await;
    proxy.cut_commit(CommitCut::Request, false);
    client.write_all(&message(b'Q', b"COMMIT\0")).await.unwrap();
    hears_nothing_more(&mut client).await;
    assert_eq!(timeout(SOON, seen.recv()).await.unwrap().unwrap(), startup());
}

#[tokio::test]
async fn a_held_copy_stands_still_until_it_is_reset() {
    let (_directories, proxy, mut client, mut seen) = postgres().await;
    proxy.hold_copy();
    client.write_all(&message(b'd', b"row")).await.unwrap();
    answered(&mut client).await;
    until("held", || proxy.counts().held_copies == 1).await;
    client.write_all(&message(b'd', b"another")).await.unwrap();
    let mut bytes = [0; 4];
    assert!(timeout(NOTHING, client.read_exact(&mut bytes)).await.is_err());
    proxy.reset_all();
    hears_nothing_more(&mut client).await;
    let expected = [startup(), message(b'd', b"row")].concat();
    assert_eq!(timeout(SOON, seen.recv()).await.unwrap().unwrap(), expected);
}

#[tokio::test]
async fn a_unix_socket_is_gone_with_its_proxy() {
    let (directories, proxy, _client, _seen) = postgres().await;
    drop(proxy);
    assert_eq!(std::fs::read_dir(directories[1].path()).unwrap().count(), 0);
}
