//! The fence: writers that go on without their lease, or stand still with it, against a take-over in the store.
#![expect(
    clippy::disallowed_methods,
    reason = "writers of a test have no supervisor; the test waits for them"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, future};
use support::database::{Database, Role};
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::types::Type;
use virt_collector::config::{Account, Database as DatabaseConfig, DatabaseTls, PlatformKind};
use virt_collector::model::ids::PlatformId;
use virt_collector::store::registry::Address;
use virt_collector::store::{self, Error, FENCE_SQL, Lease, Owner, migrate};

use crate::wait::until;

/// A migrated database with some platforms, all held by `a`.
struct Fixture {
    database: Database,
    sql: Client,
    a: store::Database,
    b: store::Database,
    leases: Vec<Lease>,
}

impl Fixture {
    async fn new(n_platforms: usize) -> Self {
        let database = Database::create().await.unwrap_or_else(|error| panic!("{error}"));
        let settings = |role, name: &str| {
            let account = Account {
                url: database.url(role),
                password_file: None,
            };
            let config = DatabaseConfig {
                writer: account.clone(),
                owner: None,
                tls: DatabaseTls::Auto { ca_file: None },
            };
            store::Settings::new(&config, &account, &owner(name)).unwrap()
        };
        migrate::apply(&settings(Role::Owner, "migration")).await.unwrap();
        let a = store::Database::new(settings(Role::Writer, "a")).unwrap();
        let b = store::Database::new(settings(Role::Writer, "b")).unwrap();
        let mut leases = Vec::new();
        for n in 0..n_platforms {
            let platform = a
                .provision_platform(&format!("p{n}"), &Address::new(PlatformKind::VCenter, "vc", 443))
                .await
                .unwrap()
                .unwrap();
            leases.push(a.acquire_lease(platform, &owner("a")).await.unwrap().unwrap());
        }
        let sql = database.connect(Role::Superuser).await.unwrap();
        Self {
            database,
            sql,
            a,
            b,
            leases,
        }
    }

    /// A connection of `a`, as far as the server knows.
    async fn writer(&self) -> Client {
        let mut config: tokio_postgres::Config = self.database.url(Role::Writer).parse().unwrap();
        config.application_name("virt-collector/a/copy");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// The renewal of all leases failed for so long that they have run out.
    async fn leases_run_out(&self) {
        self.sql
            .batch_execute("UPDATE virt_platform_lease SET until = clock_timestamp()")
            .await
            .unwrap();
    }

    async fn count(&self, sql: &str) -> i64 {
        self.sql.query_one(sql, &[]).await.unwrap().get(0)
    }
}

fn owner(name: &str) -> Owner {
    Owner::new(name).unwrap()
}

/// The fence, as the first statement of a transaction; false where it says no.
async fn fenced(writer: &Client, lease: &Lease) -> Result<bool, tokio_postgres::Error> {
    writer.batch_execute("BEGIN").await?;
    let passed = writer
        .query_typed_opt(
            FENCE_SQL,
            &[
                (&lease.platform.0, Type::INT4),
                (&lease.owner.as_str(), Type::TEXT),
                (&lease.epoch, Type::INT8),
                (&lease.server, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Ok(passed.is_some_and(|row| row.get(0)))
}

const INSERT: &str = "INSERT INTO virt_vm_metrics (vm_id, collected_at, interval_seconds) VALUES ";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_overlapping_writers_without_renewal_do_not_delay_a_take_over() {
    const N_WRITERS: u8 = 4;
    let fixture = Fixture::new(1).await;
    let lease = fixture.leases.first().unwrap();

    // Each writes on until the fence refuses it; at any moment most of them are inside a transaction.
    let write = async |n: u8| {
        let mut writer = fixture.writer().await;
        for round in 0.. {
            let work = format!(
                "SELECT pg_sleep(1.{n}); {INSERT} ({n}, '2026-01-31 10:00:00+00'::timestamptz + {round} * INTERVAL '20 s', 20); COMMIT"
            );
            match fenced(&writer, lease).await {
                Ok(false) => return round,
                // Its connection was ended: a writer connects again.
                Err(_) => writer = fixture.writer().await,
                Ok(true) if writer.batch_execute(&work).await.is_err() => writer = fixture.writer().await,
                Ok(true) => {}
            }
        }
        0
    };
    let take_over = async {
        let inside = "SELECT count(*) FROM pg_stat_activity \
                      WHERE datname = current_database() AND query LIKE 'SELECT pg_sleep%' AND state = 'active'";
        until("all writers are inside a transaction", async || {
            let n = fixture.count(inside).await;
            if n == i64::from(N_WRITERS) {
                Ok(())
            } else {
                Err(n.to_string())
            }
        })
        .await;
        fixture.leases_run_out().await;
        let start = Instant::now();
        let taken = fixture
            .b
            .acquire_lease(lease.platform, &owner("b"))
            .await
            .unwrap();
        let committed = fixture.count("SELECT count(*) FROM virt_vm_metrics").await;
        (taken, start.elapsed(), committed)
    };
    let ((taken, took, committed), rounds) =
        future::join(take_over, future::join_all((0..N_WRITERS).map(write))).await;
    assert_eq!(taken.map(|taken| taken.epoch), Some(2));
    assert!(took < Duration::from_secs(10), "{took:?}");
    let afterwards = fixture.count("SELECT count(*) FROM virt_vm_metrics").await;
    assert_eq!(
        committed, afterwards,
        "no row after the take-over; rounds: {rounds:?}"
    );
}

/// A write that got through the fence and then stands still.
struct Zombie {
    writer: Client,
    platform: PlatformId,
    copy: Option<std::pin::Pin<Box<tokio_postgres::CopyInSink<Bytes>>>>,
}

impl Zombie {
    /// Every other one stands still inside COPY, the others before COMMIT.
    async fn new(fixture: &Fixture, lease: &Lease) -> Self {
        let writer = fixture.writer().await;
        assert!(fenced(&writer, lease).await.unwrap());
        let id = lease.platform.0;
        let copy = if id % 2 == 0 {
            let into = "COPY virt_vm_metrics (vm_id, collected_at, interval_seconds) FROM STDIN";
            let mut sink = Box::pin(writer.copy_in::<_, Bytes>(into).await.unwrap());
            let row = Bytes::from(format!("{id}\t2026-01-31 10:00:20+00\t20\n"));
            sink.send(row).await.unwrap();
            sink.flush().await.unwrap();
            Some(sink)
        } else {
            let insert = format!("{INSERT} ({id}, '2026-01-31 10:00:20+00', 20)");
            writer.batch_execute(&insert).await.unwrap();
            None
        };
        Self {
            writer,
            platform: lease.platform,
            copy,
        }
    }

    async fn goes_on(self) -> Result<(), tokio_postgres::Error> {
        if let Some(mut copy) = self.copy {
            copy.as_mut().finish().await?;
        }
        self.writer.batch_execute("COMMIT").await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_fifty_zombies_is_committed_and_none_delays_its_take_over() {
    const N_PLATFORMS: usize = 50;
    let fixture = Fixture::new(N_PLATFORMS).await;
    // The chunk is there: making it would let one zombie block another.
    let chunk = format!("{INSERT} (0, '2026-01-31 10:00:00+00', 20)");
    fixture.sql.batch_execute(&chunk).await.unwrap();

    for leases in fixture.leases.chunks(N_PLATFORMS / 2) {
        // Good for these, whatever was done to the others.
        future::try_join_all(leases.iter().map(|lease| fixture.a.renew_lease(lease)))
            .await
            .unwrap();
        let zombies = future::join_all(leases.iter().map(|lease| Zombie::new(&fixture, lease))).await;
        // Their renewals pass, as long as they come.
        future::try_join_all(leases.iter().map(|lease| fixture.a.renew_lease(lease)))
            .await
            .unwrap();
        fixture.leases_run_out().await;

        // More at a time than the pool has connections.
        let start = Instant::now();
        let taken = zombies.iter().map(async |zombie| {
            let taken = fixture.b.acquire_lease(zombie.platform, &owner("b")).await;
            (taken.unwrap().map(|lease| lease.epoch), start.elapsed())
        });
        for (epoch, took) in future::join_all(taken).await {
            assert_eq!(epoch, Some(2));
            assert!(took < Duration::from_secs(10), "{took:?}");
        }
        for zombie in zombies {
            let platform = zombie.platform;
            assert!(
                zombie.goes_on().await.is_err(),
                "the zombie of {platform} committed"
            );
        }
        for lease in leases {
            let renewed = fixture.a.renew_lease(lease).await;
            assert!(matches!(renewed, Err(Error::Fenced { .. })), "{renewed:?}");
        }
    }
    let zombies = fixture
        .count("SELECT count(*) FROM virt_vm_metrics WHERE vm_id > 0")
        .await;
    assert_eq!(zombies, 0);
}

#[tokio::test]
async fn a_collector_counts_from_its_announcement_until_it_withdraws_or_is_silent() {
    let fixture = Fixture::new(2).await;
    let (a, b) = (owner("a"), owner("b"));
    let both = BTreeSet::from(["p0".to_owned(), "p1".to_owned()]);
    assert!(!fixture.a.announce_collector(&a, "here", &both).await.unwrap());
    assert!(!fixture.b.announce_collector(&b, "there", &both).await.unwrap());
    assert!(!fixture.a.announce_collector(&a, "here", &both).await.unwrap());
    let left = "SELECT count(*) FROM virt_collector \
                WHERE until - clock_timestamp() BETWEEN INTERVAL '25 s' AND INTERVAL '30 s' \
                  AND started_at <= clock_timestamp() AND host_name IN ('here', 'there')";
    assert_eq!(fixture.count(left).await, 2);

    // `a` holds both; one of them is due to `b`, which gets it once `a` has given it up.
    let seen = fixture.b.collectors().await.unwrap();
    assert_eq!(seen.standing(&a, &both).give.as_deref(), Some("p1"));
    assert_eq!(seen.standing(&b, &both).take, BTreeSet::new());
    fixture
        .a
        .release_lease(fixture.leases.last().unwrap())
        .await
        .unwrap();
    let seen = fixture.b.collectors().await.unwrap();
    assert_eq!(seen.standing(&b, &both).take, BTreeSet::from(["p1".to_owned()]));

    // Silent for too long: it does not count, and learns so when it is back.
    let silence = "UPDATE virt_collector SET until = clock_timestamp() WHERE owner = 'b'";
    fixture.sql.batch_execute(silence).await.unwrap();
    assert_eq!(fixture.a.collectors().await.unwrap().live.len(), 1);
    assert!(fixture.b.announce_collector(&b, "there", &both).await.unwrap());
    assert!(!fixture.b.announce_collector(&b, "there", &both).await.unwrap());

    // What a killed one left is cleared by the others, a day later.
    let long_ago = "UPDATE virt_collector SET until = clock_timestamp() - INTERVAL '25 h' WHERE owner = 'b'";
    fixture.sql.batch_execute(long_ago).await.unwrap();
    fixture.a.announce_collector(&a, "here", &both).await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM virt_collector").await, 1);
    fixture.a.withdraw_collector(&a).await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM virt_collector").await, 0);
}
