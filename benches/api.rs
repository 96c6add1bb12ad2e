//! The admin API under load, end to end: how long reads take beside a running collection.
//!
//! The daemon collects a simulated vCenter into a real TimescaleDB while 200 requests a second arrive for half a minute,
//! whether the ones before have been answered or not; a time is counted from when its request was due, so that an answer
//! that comes late delays nothing that is measured. Everything runs on the same machine: daemon, database, simulator and
//! the one who asks.
//!
//! `make bench` runs it; VMS (2000), BENCH_RUNS (5) and BENCH_SECONDS (30, of each run) change it. Fails where the median
//! p99 of the runs is above 100 ms, twice its target, where an answer is not 200, or a poll was skipped or took more than
//! 10 s.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a program for a terminal that may fail loudly, and owns its tasks"
)]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use support::collector::{Collector, Platform, Settings};
use support::database::Database;
use support::process;
use tokio::net::TcpStream;
use tokio::time::Instant;
use vsphere_simulator::{Simulator, Spec};

const PER_SECOND: u32 = 200;
const TARGET: Duration = Duration::from_millis(50);

/// Connections that share the requests: no more than as many are under way at once.
const CONNECTIONS: usize = 16;

/// Longest time for the collection to get going.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let vms = usize::try_from(number("VMS", 2000)).unwrap();
    let (runs, seconds) = (number("BENCH_RUNS", 5), number("BENCH_SECONDS", 30));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(vms, runs, Duration::from_secs(seconds)));
}

async fn run(vms: usize, runs: u64, time: Duration) {
    let database = Database::create().await.unwrap();
    let hosts = (vms / 20).max(1);
    let spec = Spec {
        powered_off: Some(0),
        ..Spec::vcenter(hosts, vms)
    };
    let simulator = Simulator::start(spec).await.unwrap();
    let api = process::free_address().unwrap();
    let settings = Settings {
        interval: Duration::from_secs(20),
        more: format!("[api]\nlisten = \"{api}\"\nrequests_per_second = 1000\n"),
        ..Settings::on(&database, vec![Platform::simulated("busy", &simulator)]).unwrap()
    };
    let directory = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_virt-collector"));
    let mut collector = Collector::prepare(program, directory.path(), &settings).unwrap();
    collector.migrate().await.unwrap();
    collector.command(&["key", "init"]).await.unwrap();
    let created = collector.command(&["token", "create", "bench", "--role", "viewer"]);
    let created = created.await.unwrap();
    let token = created
        .split_whitespace()
        .find(|word| word.starts_with("vc_"))
        .unwrap();
    collector.start().await.unwrap();
    collector.ready(Duration::from_secs(60)).await.unwrap();

    let paths = paths(&mut collector, api, token, vms).await;
    let mut p99s = Vec::new();
    let before = polls(&collector).await;
    for number in 1..=runs {
        let mut times = load(api, token, &paths, time).await;
        times.sort_unstable();
        let at = |percent: usize| {
            let place = times.len() * percent / 100;
            times.get(place.min(times.len() - 1)).unwrap().as_secs_f64() * 1e3
        };
        println!(
            "api: run {number}: {} requests, milliseconds: median {:.1}, p95 {:.1}, p99 {:.1}, most {:.1}",
            times.len(),
            at(50),
            at(95),
            at(99),
            at(100)
        );
        p99s.push(at(99));
    }
    let after = polls(&collector).await;
    collector.stop(Duration::from_secs(45)).await.unwrap();
    simulator.shutdown().await;
    p99s.sort_unstable_by(f64::total_cmp);
    let median = p99s.get(p99s.len() / 2).unwrap();
    let polls = after.n - before.n;
    let late = polls - (after.within_10s - before.within_10s);
    let skipped = after.skipped - before.skipped;
    println!(
        "api: vms={vms} requests_per_second={PER_SECOND} p99_ms={median:.1} p99_ms_least={:.1} p99_ms_most={:.1} \
         polls={polls} late={late} skipped={skipped}",
        p99s.first().unwrap(),
        p99s.last().unwrap(),
    );
    assert!(
        *median <= TARGET.as_secs_f64() * 2e3,
        "more than twice the target"
    );
    assert!(
        polls > 0.0 && late == 0.0 && skipped == 0.0,
        "reads made polls late"
    );
}

/// What is asked for in turn, once the collection has stored something of everything.
async fn paths(collector: &mut Collector, api: SocketAddr, token: &str, vms: usize) -> Vec<String> {
    let started = Instant::now();
    let base = "/api/virt-center";
    let page = format!("{base}/vms/?limit=100&power_state=on");
    let ids = loop {
        collector.must_run().unwrap();
        assert!(started.elapsed() < PATIENCE, "no VM has a sample");
        tokio::time::sleep(Duration::from_secs(1)).await;
        if polls(collector).await.n < 2.0 {
            continue;
        }
        let (status, body) = get(&mut connect(api).await, &page, token).await;
        assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let items = body.get("items").and_then(|items| items.as_array()).unwrap();
        let ids: Vec<i64> = items
            .iter()
            .map(|vm| vm.get("id").unwrap().as_i64().unwrap())
            .collect();
        if ids.len() == vms.min(100) {
            break ids;
        }
    };
    let mut paths = vec![page];
    let lists = [
        "platforms/",
        "hosts/?limit=50",
        "datastores/",
        "clusters/",
        "operations/",
    ];
    paths.extend(lists.map(|list| format!("{base}/{list}")));
    paths.extend(ids.iter().take(10).map(|id| format!("{base}/vms/{id}/")));
    paths
}

/// Sends requests at their times and returns how long after its time each was answered.
async fn load(api: SocketAddr, token: &str, paths: &[String], time: Duration) -> Vec<Duration> {
    let start = Instant::now();
    let total = usize::try_from(time.as_secs()).unwrap() * PER_SECOND as usize;
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = Vec::new();
    for _ in 0..CONNECTIONS {
        let (next, token, paths) = (Arc::clone(&next), token.to_owned(), paths.to_vec());
        workers.push(tokio::spawn(async move {
            let mut connection = connect(api).await;
            let mut times = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return times;
                }
                let due = start + Duration::from_secs(1) / PER_SECOND * u32::try_from(number).unwrap();
                tokio::time::sleep_until(due).await;
                let path = paths.get(number % paths.len()).unwrap();
                if connection.is_closed() {
                    connection = connect(api).await;
                }
                let (status, body) = get(&mut connection, path, &token).await;
                times.push(due.elapsed());
                assert_eq!(
                    status,
                    StatusCode::OK,
                    "{path}: {}",
                    String::from_utf8_lossy(&body)
                );
            }
        }));
    }
    let mut times = Vec::new();
    for worker in workers {
        times.extend(worker.await.unwrap());
    }
    times
}

type Connection = hyper::client::conn::http1::SendRequest<Empty<Bytes>>;

async fn connect(api: SocketAddr) -> Connection {
    let stream = TcpStream::connect(api).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    // Ends with its sender.
    drop(tokio::spawn(connection));
    sender
}

async fn get(connection: &mut Connection, path: &str, token: &str) -> (StatusCode, Bytes) {
    let mut bearer = String::new();
    write!(bearer, "Bearer {token}").unwrap();
    let request = Request::get(path)
        .header(header::HOST, "localhost")
        .header(header::AUTHORIZATION, bearer)
        .body(Empty::new())
        .unwrap();
    connection.ready().await.unwrap();
    let response = connection.send_request(request).await.unwrap();
    let status = response.status();
    (status, response.into_body().collect().await.unwrap().to_bytes())
}

/// Live polls up to now.
struct Polls {
    n: f64,
    within_10s: f64,
    skipped: f64,
}

async fn polls(collector: &Collector) -> Polls {
    let metrics = collector.metrics().await.unwrap();
    let sum = |name: &str, labels: &[&str]| -> f64 {
        let lines = metrics.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        lines
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    };
    const LIVE: &str = r#"lane="live""#;
    Polls {
        n: sum("virt_collector_poll_duration_seconds_count", &[LIVE]),
        within_10s: sum(
            "virt_collector_poll_duration_seconds_bucket",
            &[LIVE, r#"le="10""#],
        ),
        skipped: sum("virt_collector_polls_skipped_total", &[LIVE]),
    }
}
