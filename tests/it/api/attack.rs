//! Whoever wants to hold the API up, fill its memory, or get past it, while samples are collected. That a connection
//! ends is asserted by its end alone, within a time that no machine needs.

use std::path::Path;

use support::collector::{Collector, Settings};
use support::process::free_address;
use support::usage;
use tokio::net::TcpSocket;
use virt_collector::config;

use super::*;
use crate::rig::{Rig, assert_clean, small};

/// What is attacked.
#[derive(Debug, Clone)]
struct Target {
    address: SocketAddr,
    token: String,
}

impl Target {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A caller with a valid token at another address than the attackers'.
    async fn is_served(&self) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let stream = socket.connect(self.address).await.unwrap();
        let answer = exchange(stream, &Ask::get("operations/").by(&self.token).bytes()).await;
        answer.check();
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// A request with its token, up to the end of the header.
    fn head(&self, method: &str, path: &str, headers: &str) -> Vec<u8> {
        let token = &self.token;
        format!(
            "{method} {BASE}/{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n{headers}\r\n\r\n"
        )
        .into_bytes()
    }
}

/// Waits for the server to close.
async fn closed(stream: &mut TcpStream) -> Vec<u8> {
    tokio::time::timeout(DEADLINE, read_all(stream))
        .await
        .expect("the server closes")
}

/// Writes the same over and over, slowly or as fast as it goes, until the server closes. How much it took, and what it
/// said.
async fn pour(stream: TcpStream, bytes: &[u8], pause: Option<Duration>, most: u64) -> (u64, Vec<u8>) {
    let (mut read, mut write) = stream.into_split();
    let pouring = async {
        let mut n = 0;
        while n < most {
            match write.write(bytes).await {
                Ok(0) | Err(_) => break,
                Ok(written) => n += written as u64,
            }
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
        // What comes after this is for the server to end.
        (n, write)
    };
    let poured = tokio::time::timeout(DEADLINE, async { tokio::join!(pouring, read_all(&mut read)) });
    let ((n, _write), said) = poured.await.expect("the server closes");
    (n, said)
}

const DRIP: Option<Duration> = Some(Duration::from_millis(200));

async fn silence(target: Target) {
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(target.connect().await);
    }
    for stream in &mut streams {
        assert_eq!(closed(stream).await, b"");
    }
    // After an answer as well.
    let mut stream = target.connect().await;
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let said = closed(&mut stream).await;
    assert_eq!(Answer::parse(&said).unwrap().status, 200);
}

async fn slow_headers(target: Target) {
    let mut stream = target.connect().await;
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n")
        .await
        .unwrap();
    let (_, said) = pour(stream, b"x: y\r\n", DRIP, u64::MAX).await;
    assert!(
        Answer::parse(&said).is_none_or(|answer| answer.status != 200),
        "{said:?}"
    );
    let (_, said) = pour(target.connect().await, b"G", DRIP, u64::MAX).await;
    assert!(
        Answer::parse(&said).is_none_or(|answer| answer.status >= 400),
        "{said:?}"
    );
}

async fn slow_bodies(target: Target) {
    for headers in ["content-length: 60000", "transfer-encoding: chunked"] {
        let mut stream = target.connect().await;
        let headers = format!("content-type: application/json\r\n{headers}");
        stream
            .write_all(&target.head("POST", "vms/2/snapshots/", &headers))
            .await
            .unwrap();
        let drop: &[u8] = if headers.contains("chunked") {
            b"1\r\n \r\n"
        } else {
            b" "
        };
        let (_, said) = pour(stream, drop, DRIP, u64::MAX).await;
        let answer = Answer::parse(&said).unwrap();
        answer.check();
        assert_eq!((answer.status, answer.code().as_str()), (408, "body_too_slow"));
    }
}

async fn endless_bodies(target: Target) {
    const GIB: u64 = 1 << 30;
    let chunk = [&b"10000\r\n"[..], &[b' '; 0x10000], b"\r\n"].concat();
    for (headers, piece) in [
        ("content-length: 1073741824", &[b' '; 1 << 16][..]),
        ("transfer-encoding: chunked", &chunk[..]),
    ] {
        for head in [
            target.head(
                "POST",
                "vms/2/snapshots/",
                &format!("content-type: application/json\r\n{headers}"),
            ),
            format!("POST {BASE}/vms/2/snapshots/ HTTP/1.1\r\nhost: x\r\n{headers}\r\n\r\n").into_bytes(),
            format!("POST /nowhere HTTP/1.1\r\nhost: x\r\n{headers}\r\n\r\n").into_bytes(),
            target.head("GET", "operations/", headers),
        ] {
            let mut stream = target.connect().await;
            stream.write_all(&head).await.unwrap();
            let (taken, said) = pour(stream, piece, None, GIB).await;
            // The kernels between here and there hold some; nobody holds a gigabyte.
            assert!(taken < GIB / 8, "{taken} bytes were taken");
            // The answer can be lost where the rest of the request was thrown away behind it.
            if let Some(answer) = Answer::parse(&said) {
                answer.check();
                assert!(matches!(answer.status, 400 | 401 | 404 | 413), "{answer:?}");
                assert_eq!(answer.rest, b"");
            }
        }
    }
}

async fn header_bombs(target: Target) {
    let start = b"GET /livez HTTP/1.1\r\nhost: x\r\n";
    let long = [b'x'; 1 << 16];
    for (first, piece) in [
        (&start[..], &b"a: b\r\n"[..]),
        (&[start, &b"x: "[..]].concat()[..], &long[..]),
        (b"GET /", &long[..]),
        (b"GET /livez?", &long[..]),
        (b"", &long[..]),
        (b"", b"\r\n"),
        (b"", b"\0"),
    ] {
        let mut stream = target.connect().await;
        stream.write_all(first).await.unwrap();
        let (taken, said) = pour(stream, piece, None, 1 << 30).await;
        assert!(taken < 1 << 27, "{taken} bytes were taken");
        let answer = Answer::parse(&said);
        assert!(
            answer.is_none_or(|answer| matches!(answer.status, 400 | 414 | 431)),
            "{said:?}"
        );
    }
    let many = format!("GET /livez HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(100));
    let answer = exchange(target.connect().await, many.as_bytes()).await;
    assert_eq!(answer.status, 431, "{answer:?}");
}

async fn a_thousand(target: Target) {
    let mut streams = Vec::new();
    for n in 0..1_000 {
        let mut stream = target.connect().await;
        // Some talk, a little.
        if n % 3 == 0 {
            drop(stream.write_all(b"GET /live").await);
        }
        streams.push(stream);
    }
    for stream in &mut streams {
        let said = closed(stream).await;
        assert!(
            Answer::parse(&said).is_none_or(|answer| answer.status >= 400),
            "{said:?}"
        );
    }
}

async fn guesses(target: Target) {
    let mut statuses = Vec::new();
    for n in 0..100 {
        let guess = format!("vc_{}_{}", n % 5 + 1, "A".repeat(43));
        let ask = Ask::get("operations/").by(&guess);
        let answer = exchange(target.connect().await, &ask.bytes()).await;
        answer.check();
        statuses.push(answer.status);
    }
    assert!(
        statuses.iter().all(|status| matches!(status, 401 | 429)),
        "{statuses:?}"
    );
    assert!(
        statuses.iter().filter(|status| **status == 429).count() > 50,
        "{statuses:?}"
    );
}

/// Everything at once but the thousand, which would take the places of the others.
async fn attack(target: &Target) {
    let attacks = [
        tokio::task::spawn(silence(target.clone())),
        tokio::task::spawn(slow_headers(target.clone())),
        tokio::task::spawn(slow_bodies(target.clone())),
        tokio::task::spawn(endless_bodies(target.clone())),
        tokio::task::spawn(header_bombs(target.clone())),
        tokio::task::spawn(guesses(target.clone())),
    ];
    for attack in attacks {
        target.is_served().await;
        attack.await.unwrap();
    }
    let thousand = tokio::task::spawn(a_thousand(target.clone()));
    while !thousand.is_finished() {
        target.is_served().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    thousand.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_are_collected_on_time_and_whole_while_the_api_is_attacked() {
    let rig = Rig::new(small()).await;
    let ring = KeyRing::generate().unwrap();
    key_file::create(&rig.keys_file(), &ring).unwrap();
    let mut config = rig.config();
    config.api = Some(config::Api {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: None,
        trusted_proxies: Vec::new(),
        limits: ApiLimits {
            connections: 256,
            connections_per_address: 64,
            requests_per_second: 1_000,
            actions_per_minute: 10,
            open_operations: 8,
        },
    });
    let daemon = rig.start_with(config).await;
    let target = Target {
        address: daemon.0.api_address().unwrap(),
        token: token(&rig.store(), &ring, "attacked", "admin", None).await,
    };
    let attacked = target.clone();
    let attack = tokio::task::spawn(async move { attack(&attacked).await });
    let mut polls = 0;
    // At least ten minutes of samples, and for as long as the attack lasts.
    while polls < 30 || !attack.is_finished() {
        rig.pass(Duration::from_secs(20));
        let report = daemon.poll().await;
        assert_eq!(
            (report.n_rows, report.error.as_ref()),
            (usize::try_from(rig.n_entities()).unwrap(), None),
            "poll {polls}: {report:?}"
        );
        polls += 1;
    }
    attack.await.unwrap();
    println!("{polls} polls during the attack");
    assert_clean(&rig.verdict().await);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attack_does_not_fill_the_memory_of_the_daemon() {
    const MOST: u64 = 48 << 20;
    let directory = tempfile::tempdir().unwrap();
    let database = Database::create().await.unwrap_or_else(|error| panic!("{error}"));
    let api = free_address().unwrap();
    let settings = Settings {
        more: format!("[api]\nlisten = \"{api}\"\nrequests_per_second = 1000\n"),
        ..Settings::on(&database, Vec::new()).unwrap()
    };
    let program = Path::new(env!("CARGO_BIN_EXE_virt-collector"));
    let mut collector = Collector::prepare(program, directory.path(), &settings).unwrap();
    collector.migrate().await.unwrap();
    collector.command(&["key", "init"]).await.unwrap();
    let token = collector
        .command(&["token", "create", "attacked", "--role", "admin"])
        .await
        .unwrap();
    let token = token
        .lines()
        .find(|line| line.starts_with("vc_"))
        .unwrap()
        .to_owned();
    collector.start().await.unwrap();
    collector.ready(DEADLINE).await.unwrap();
    let process = collector.pid().unwrap();
    let target = Target { address: api, token };
    target.is_served().await;
    let before = usage::resident_kib(process).unwrap() << 10;
    attack(&target).await;
    collector.must_run().unwrap();
    let [after, peak] =
        [usage::resident_kib, usage::most_resident_kib].map(|memory| memory(process).unwrap() << 10);
    println!(
        "resident {} MiB before, {} MiB after, at most {} MiB",
        before >> 20,
        after >> 20,
        peak >> 20
    );
    assert!(peak - before < MOST, "{} MiB more", (peak - before) >> 20);
    let open = collector.metrics().await.unwrap();
    assert!(
        open.contains("virt_collector_http_connections{endpoint=\"api\"} 0"),
        "all of them are gone"
    );
    collector.end(DEADLINE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_stands_behind_a_request_is_taken_for_another() {
    let api = Api::new().await;
    let target = Target {
        address: api.address(),
        token: api.token("admin", "admin", None).await,
    };
    let hidden = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    let post = format!(
        "POST {BASE}/vms/2/power-on/ HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n",
        target.token
    );
    let get = "GET /livez HTTP/1.1\r\nhost: x\r\n";
    let n = hidden.len();
    for (what, bytes, statuses) in [
        (
            "length and chunks",
            format!("{post}content-length: {n}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
            &[202, 400][..],
        ),
        (
            "chunks and length",
            format!("{post}transfer-encoding: chunked\r\ncontent-length: {n}\r\n\r\n0\r\n\r\n{hidden}"),
            &[202, 409, 400],
        ),
        (
            "chunks twice",
            format!(
                "{post}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
            &[202, 409, 400],
        ),
        (
            "two lengths",
            format!("{post}content-length: 0\r\ncontent-length: {n}\r\n\r\n{hidden}"),
            &[400],
        ),
        (
            "a list of lengths",
            format!("{post}content-length: 0, {n}\r\n\r\n{hidden}"),
            &[400],
        ),
        (
            "a signed length",
            format!("{post}content-length: +0\r\n\r\n{hidden}"),
            &[400],
        ),
        (
            "a negative length",
            format!("{post}content-length: -1\r\n\r\n{hidden}"),
            &[400],
        ),
        (
            "a length in hex",
            format!("{post}content-length: 0x0\r\n\r\n{hidden}"),
            &[400],
        ),
        (
            "a huge length",
            format!("{post}content-length: 99999999999999999999\r\n\r\n{hidden}"),
            &[400],
        ),
        (
            "no chunks",
            format!("{post}transfer-encoding: identity\r\n\r\n{hidden}"),
            &[400],
        ),
        (
            "unknown chunks",
            format!("{post}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"),
            &[400],
        ),
        (
            "chunks not last",
            format!("{post}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
            &[400],
        ),
        (
            "a space before the colon",
            format!("{post}transfer-encoding : chunked\r\n\r\n0\r\n\r\n{hidden}"),
            &[400],
        ),
        (
            "a folded line",
            format!("{post}x: a\r\n transfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
            &[400],
        ),
        (
            "a bare CR",
            format!("{post}x: a\rcontent-length: {n}\r\n\r\n{hidden}"),
            &[400],
        ),
        ("a NUL", format!("{post}x: a\0b\r\n\r\n{hidden}"), &[400]),
        (
            "a chunk of nonsense",
            format!("{post}transfer-encoding: chunked\r\n\r\nz\r\n\r\n{hidden}"),
            &[400],
        ),
        (
            "a chunk too large for a number",
            format!("{post}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{hidden}"),
            &[400],
        ),
        (
            "a chunk without its end",
            format!("{post}transfer-encoding: chunked\r\n\r\n2\r\n{{}}XX0\r\n\r\n{hidden}"),
            &[400],
        ),
        (
            "extensions of chunks",
            format!(
                "{post}content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2;a=\"b\"\r\n{{}}\r\n0\r\n\r\n{hidden}"
            ),
            &[202, 409],
        ),
        (
            "trailers",
            format!(
                "{post}transfer-encoding: chunked\r\n\r\n0\r\nauthorization: Bearer x\r\ncontent-length: 9\r\n\r\n{hidden}"
            ),
            &[202, 409, 400],
        ),
        (
            "a body of a GET",
            format!("{get}content-length: {n}\r\n\r\n{hidden}"),
            &[400],
        ),
        (
            "chunks of a GET",
            format!("{get}transfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
            &[200, 400],
        ),
        (
            "no host",
            format!("GET /livez HTTP/1.1\r\nconnection: close\r\n\r\n{hidden}"),
            &[400],
        ),
        ("two hosts", format!("{get}host: y\r\n\r\n{hidden}"), &[400]),
        ("an old version", format!("GET /livez\r\n\r\n{hidden}"), &[400]),
        (
            "a new version",
            format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{hidden}"),
            &[0, 400, 505],
        ),
        (
            "a version of its own",
            format!("GET /livez HTTP/9.9\r\n\r\n{hidden}"),
            &[400, 505],
        ),
        (
            "an upgrade",
            format!("{get}connection: upgrade, close\r\nupgrade: h2c\r\n\r\n"),
            &[200],
        ),
        (
            "a tunnel",
            format!("CONNECT 127.0.0.1:22 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n{hidden}"),
            &[400, 404, 405],
        ),
        (
            "another server",
            format!("GET http://127.0.0.1:22/livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n{hidden}"),
            &[200, 400],
        ),
    ] {
        let mut stream = target.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let said = closed(&mut stream).await;
        let said = String::from_utf8_lossy(&said);
        let status = Answer::parse(said.as_bytes()).map_or(0, |answer| answer.status);
        assert!(statuses.contains(&status), "{what}: {said}");
        assert!(said.matches("HTTP/1.1 ").count() <= 1, "{what}: {said}");
    }
    // Two that are two are answered as two.
    let mut stream = target.connect().await;
    stream
        .write_all(format!("{hidden}{}", hidden.replace("host", "connection: close\r\nhost")).as_bytes())
        .await
        .unwrap();
    let first = Answer::parse(&closed(&mut stream).await).unwrap();
    assert_eq!(
        (first.status, Answer::parse(&first.rest).unwrap().status),
        (200, 200)
    );
    api.stop().await;
}
