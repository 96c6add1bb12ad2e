//! Connections that hear of changes, in a database that takes each away as soon as it is there: they are made anew, and
//! the database is not hammered.
//!
//! The clock of the runtime stands still but for the steps that a test takes, so that no machine is too slow for it.
#![expect(clippy::disallowed_methods, reason = "helpers of tests have no supervisor")]

use std::sync::mpsc;
use std::time::Duration;

use support::database::{Database, Role};
use support::proxy::{Endpoint, Proxy};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::config::Host;
use tokio_util::sync::CancellationToken;
use virt_collector::app::App;
use virt_collector::config::Config;
use virt_collector::operate;
use virt_collector::secret::{KeyRing, key_file};
use virt_collector::store;

use crate::rig::recorder;

/// Between the loss of one connection and the next attempt.
const PAUSE: Duration = Duration::from_secs(5);

/// As long as this lives, a clock that is paused stands still also while everybody waits for the database: it goes on
/// by itself only where no other thread is at work.
fn hold_the_clock() -> mpsc::Sender<()> {
    let (held, until_dropped) = mpsc::channel();
    drop(tokio::task::spawn_blocking(move || until_dropped.recv()));
    held
}

/// A step of the clock, behind time for whoever does not wait for the clock.
async fn step(sql: &Client) {
    sql.batch_execute("SELECT pg_sleep(0.02)").await.unwrap();
    tokio::time::advance(Duration::from_millis(100)).await;
}

/// Where the server of a database is.
async fn server(database: &Database) -> Endpoint {
    let config: tokio_postgres::Config = database.url(Role::Writer).parse().unwrap();
    let port = config.get_ports().first().copied().unwrap_or(5432);
    match config.get_hosts().first().unwrap() {
        Host::Unix(directory) => Endpoint::Unix(directory.join(format!(".s.PGSQL.{port}"))),
        Host::Tcp(name) => {
            let mut found = tokio::net::lookup_host((name.as_str(), port)).await.unwrap();
            Endpoint::Tcp(found.next().unwrap())
        }
    }
}

fn settings(config: &Config, account: &virt_collector::config::Account) -> store::Settings {
    store::Settings::new(&config.database, account, &store::Owner::random()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn who_hears_of_actions_comes_back_after_a_pause_however_often_the_database_drops_the_connection() {
    let _held = hold_the_clock();
    let database = Database::create().await.unwrap_or_else(|error| panic!("{error}"));
    let sql = database.connect(Role::Superuser).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let proxy = Proxy::unix(directory.path(), server(&database).await).unwrap();
    let path = directory.path().join("config.toml");
    let url = format!(
        "host={} user=virt_writer dbname={}",
        directory.path().display(),
        database.name()
    );
    std::fs::write(&path, format!("[database]\nurl = \"{url}\"\n")).unwrap();
    let config = Config::load(&path).unwrap();
    let store = store::Database::new(settings(&config, &config.database.writer)).unwrap();
    let (teller, mut told) = watch::channel(0);
    let stopping = CancellationToken::new();
    let hearing = tokio::spawn(operate::hear(store, teller, stopping.clone()));

    told.changed().await.unwrap();
    // Whoever may connect may notify. What comes at once is one reason to look, and one more a moment later.
    let notify = format!("NOTIFY {}", store::operation::CHANNEL);
    sql.batch_execute(&notify).await.unwrap();
    told.changed().await.unwrap();
    for _ in 0..50 {
        sql.batch_execute(&notify).await.unwrap();
    }
    assert!(!told.has_changed().unwrap(), "told again at once");
    while !told.has_changed().unwrap() {
        step(&sql).await;
    }
    told.borrow_and_update();

    // Accepted, told to listen, dropped.
    let mut n = 1;
    for _ in 0..2 {
        let lost_at = Instant::now();
        proxy.reset_all();
        while proxy.counts().accepted == n {
            step(&sql).await;
        }
        assert!(
            lost_at.elapsed() >= PAUSE,
            "came back after {:?}",
            lost_at.elapsed()
        );
        told.changed().await.unwrap();
        n += 1;
        assert_eq!(proxy.counts().accepted, n, "one attempt each time");
    }
    // Accepted and dropped before a word.
    proxy.set_target(Endpoint::Unix(directory.path().join("nobody")));
    proxy.reset_all();
    let mut lost_at = Instant::now();
    for _ in 0..3 {
        while proxy.counts().accepted == n {
            step(&sql).await;
        }
        assert!(
            lost_at.elapsed() >= PAUSE,
            "came back after {:?}",
            lost_at.elapsed()
        );
        lost_at = Instant::now();
        n += 1;
    }
    // And there again.
    proxy.set_target(server(&database).await);
    while proxy.counts().accepted == n {
        step(&sql).await;
    }
    told.changed().await.unwrap();
    stopping.cancel();
    hearing.await.unwrap();
}

/// The session that listens on a channel.
async fn listening(sql: &Client, channel: &str) -> Option<i32> {
    let row = sql
        .query_opt(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query = $1",
            &[&format!("LISTEN {channel}")],
        )
        .await;
    row.unwrap().map(|row| row.get(0))
}

#[tokio::test(start_paused = true)]
async fn every_listener_of_the_daemon_that_is_lost_is_made_anew_after_a_pause() {
    let held = hold_the_clock();
    let directory = tempfile::tempdir().unwrap();
    let database = Database::create().await.unwrap_or_else(|error| panic!("{error}"));
    let sql = database.connect(Role::Superuser).await.unwrap();
    let path = directory.path().join("config.toml");
    let text = format!(
        "[database]\nurl = \"{}\"\n[database.owner]\nurl = \"{}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [api]\nlisten = \"127.0.0.1:0\"\n",
        database.url(Role::Writer),
        database.url(Role::Owner)
    );
    std::fs::write(&path, text).unwrap();
    let config = Config::load(&path).unwrap();
    let owner = settings(&config, config.database.owner.as_ref().unwrap());
    store::migrate::apply(&owner).await.unwrap();
    key_file::create(&config.keys.file, &KeyRing::generate().unwrap()).unwrap();
    let app = App::start(config, recorder()).await.unwrap();

    let channels = [
        store::registry::CHANNEL,
        store::operation::CHANNEL,
        store::operation::ENDED,
    ];
    for channel in channels {
        // Lost twice: the second time it was there for a moment only.
        let mut lost = None;
        for _ in 0..2 {
            let lost_at = Instant::now();
            let listens = loop {
                match listening(&sql, channel).await {
                    Some(pid) if Some(pid) != lost => break pid,
                    _ => step(&sql).await,
                }
            };
            if lost.is_some() {
                let after = lost_at.elapsed();
                assert!(after >= PAUSE, "{channel}: came back after {after:?}");
            }
            sql.execute("SELECT pg_terminate_backend($1)", &[&listens])
                .await
                .unwrap();
            lost = Some(listens);
        }
    }
    drop(held);
    app.stop().await.unwrap();
}
