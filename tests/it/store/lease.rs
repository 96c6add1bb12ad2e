//! Lease and fence.

use std::collections::BTreeSet;

use super::*;
use virt_collector::store::registry::Address;

use crate::wait::until;

#[tokio::test]
async fn a_lease_is_taken_once_renewed_and_given_up() {
    let fixture = Fixture::new().await;
    let (a, b) = (fixture.store("a"), fixture.store("b"));
    let platform = a
        .provision_platform("lab", &Address::new(PlatformKind::Esxi, "esx", 443))
        .await
        .unwrap()
        .unwrap();

    let first = a.acquire_lease(platform, &owner("a")).await.unwrap().unwrap();
    assert_eq!(first.epoch, 1);
    assert_eq!(b.acquire_lease(platform, &owner("b")).await.unwrap(), None);
    a.renew_lease(&first).await.unwrap();
    let left = "SELECT extract(epoch FROM until - clock_timestamp())::float8 FROM virt_platform_lease";
    let left: f64 = fixture.sql.query_one(left, &[]).await.unwrap().get(0);
    assert!(
        (LEASE_TTL.as_secs_f64() - 5.0..=LEASE_TTL.as_secs_f64()).contains(&left),
        "{left}"
    );

    // The same owner after a restart takes over from itself at once, and fences what it left behind.
    let second = a.acquire_lease(platform, &owner("a")).await.unwrap().unwrap();
    assert_eq!(second.epoch, 2);
    assert!(matches!(a.renew_lease(&first).await, Err(Error::Fenced { .. })));

    a.release_lease(&second).await.unwrap();
    let third = b.acquire_lease(platform, &owner("b")).await.unwrap().unwrap();
    assert_eq!((third.epoch, third.owner.as_str()), (3, "b"));
    a.release_lease(&second).await.unwrap();
    b.renew_lease(&third).await.unwrap();
    let error = a.acquire_lease(PlatformId(99), &owner("a")).await.unwrap_err();
    assert!(matches!(error, Error::UnknownPlatform { .. }), "{}", said(&error));
    assert!(matches!(a.renew_lease(&second).await, Err(Error::Fenced { .. })));
}

/// As many as there are connections, and more, wait for a slow server, where no deadline of theirs has come yet.
#[tokio::test]
async fn a_lease_is_renewed_while_everything_else_waits_for_the_database() {
    const SLOW: &str = "\
CREATE TABLE public.go_on ();
GRANT SELECT ON public.go_on TO PUBLIC;
CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    WHILE NOT EXISTS (SELECT FROM public.go_on) LOOP PERFORM pg_sleep(0.02); END LOOP;
    RETURN NULL;
END $$;
CREATE TRIGGER slow BEFORE INSERT ON virt_platform FOR EACH STATEMENT EXECUTE FUNCTION public.slow()";
    const WAITING: &str = "\
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    let platform = Platform::new().await;
    let (store, sql) = (platform.store.clone(), &platform.fixture.sql);
    sql.batch_execute(SLOW).await.unwrap();
    let mut others = tokio::task::JoinSet::new();
    for n in 0..12 {
        let (store, name) = (store.clone(), format!("other-{n}"));
        let address = Address::new(PlatformKind::Esxi, "esx", 443);
        others.spawn(async move { store.provision_platform(&name, &address).await });
    }
    until("six wait in the database", async || {
        let n = platform.fixture.number(WAITING).await;
        (n >= 6).then_some(()).ok_or_else(|| format!("{n} wait"))
    })
    .await;

    store.renew_lease(&platform.lease).await.unwrap();
    store
        .announce_collector(&owner("a"), "here", &BTreeSet::new())
        .await
        .unwrap();
    assert!(platform.fixture.number(WAITING).await >= 6, "they still wait");

    sql.batch_execute("INSERT INTO public.go_on DEFAULT VALUES")
        .await
        .unwrap();
    let done = others.join_all().await;
    assert!(done.iter().filter(|added| added.is_ok()).count() >= 6, "{done:?}");
}

/// Every write for a platform, with this lease.
async fn every_write(platform: &mut Platform, lease: &Lease) -> Vec<Result<(), Error>> {
    let vm = platform.vms[0];
    let samples = flush(vec![window_of(vm, [0, 20], 1.0)]);
    let gaps = Flush {
        gaps_new: vec![gap(vm, 0, 100, None)],
        ..Flush::default()
    };
    let mut results = vec![
        platform.writer.write(lease, &samples).await.map(drop),
        platform.writer.write(lease, &gaps).await.map(drop),
        platform.writer.write_staged(lease, &samples).await.map(drop),
    ];
    results.push(
        platform
            .store
            .set_status(lease, &PlatformStatus::of(PlatformState::Connected))
            .await,
    );
    results.push(platform.store.pin_identity(lease, "someone else").await.map(drop));
    results.push(
        platform
            .store
            .sync_inventory(lease, &inventory(), stamp(0))
            .await
            .map(drop),
    );
    results
}

#[tokio::test]
async fn the_fence_refuses_every_write_of_a_deposed_owner_and_of_a_lease_that_ran_out() {
    let mut platform = Platform::new().await;
    let lease = platform.lease.clone();
    let refused = |results: Vec<Result<(), Error>>| {
        for result in results {
            assert!(matches!(result, Err(Error::Fenced { .. })), "{result:?}");
        }
    };

    platform
        .fixture
        .sql
        .batch_execute("UPDATE virt_platform_lease SET until = clock_timestamp()")
        .await
        .unwrap();
    refused(every_write(&mut platform, &lease).await);

    let other = platform.fixture.store("b");
    let taken = other
        .acquire_lease(lease.platform, &owner("b"))
        .await
        .unwrap()
        .unwrap();
    refused(every_write(&mut platform, &lease).await);
    let forged = Lease {
        epoch: taken.epoch,
        ..lease.clone()
    };
    refused(every_write(&mut platform, &forged).await);

    assert_eq!(platform.rows().await, (0, 0, 0));
    let touched = "SELECT count(*) FROM virt_platform WHERE identity IS NOT NULL OR status <> 'disconnected'";
    assert_eq!(platform.fixture.number(touched).await, 0);
    // A refusal leaves no open transaction behind, and the writer as good as before.
    let idle =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
    // The server hears of a closed connection a moment later.
    until("no transaction stands open", async || {
        match platform.fixture.number(idle).await {
            0 => Ok(()),
            n => Err(n.to_string()),
        }
    })
    .await;
    assert!(platform.writer.is_usable());
    for result in every_write(&mut platform, &taken).await.into_iter().take(2) {
        result.unwrap();
    }
}

#[tokio::test]
async fn a_lease_is_no_good_on_another_server_or_on_its_own_started_again() {
    let mut platform = Platform::new().await;
    // The row of a promoted standby may be of before a take-over, and its keys may be given out a second time: that
    // owner and epoch are right says nothing.
    let elsewhere = Lease {
        server: platform.lease.server.minus(Duration::from_micros(1)),
        ..platform.lease.clone()
    };
    for result in every_write(&mut platform, &elsewhere).await {
        assert!(matches!(result, Err(Error::Moved { .. })), "{result:?}");
    }
    let renewed = platform.store.renew_lease(&elsewhere).await;
    assert!(matches!(renewed, Err(Error::Moved { .. })), "{renewed:?}");
    assert_eq!(platform.rows().await, (0, 0, 0));
    platform.store.release_lease(&elsewhere).await.unwrap();
    platform.store.renew_lease(&platform.lease).await.unwrap();

    // Taken anew, it is good.
    let own = platform.lease.owner.clone();
    let anew = platform.store.acquire_lease(platform.lease.platform, &own).await;
    for result in every_write(&mut platform, &anew.unwrap().unwrap())
        .await
        .into_iter()
        .take(2)
    {
        result.unwrap();
    }
}

#[tokio::test]
async fn a_take_over_waits_for_open_writes_and_then_ends_those_of_the_old_owner() {
    let platform = Platform::new().await;
    // A write of the old owner that got through the fence and then stands still.
    let mut stopped: tokio_postgres::Config = platform.fixture.database.url(Role::Writer).parse().unwrap();
    stopped.application_name("virt-collector/a/copy");
    let (stopped, connection) = stopped.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::task::spawn(connection);
    stopped.batch_execute("BEGIN").await.unwrap();
    let fence = "SELECT 1 FROM virt_platform_lease FOR KEY SHARE";
    stopped.query_one(fence, &[]).await.unwrap();

    // It does not hold up a renewal.
    platform.store.renew_lease(&platform.lease).await.unwrap();
    platform
        .fixture
        .sql
        .batch_execute("UPDATE virt_platform_lease SET until = clock_timestamp()")
        .await
        .unwrap();

    let start = Instant::now();
    let other = platform.fixture.store("b");
    let taken = other
        .acquire_lease(platform.lease.platform, &owner("b"))
        .await
        .unwrap()
        .unwrap();
    let took = start.elapsed();
    assert_eq!(taken.epoch, 2);
    assert!(
        (Duration::from_secs(5)..Duration::from_secs(9)).contains(&took),
        "{took:?}"
    );
    assert!(
        stopped.batch_execute("COMMIT").await.is_err(),
        "the old owner's connection has ended"
    );
}

#[tokio::test]
async fn a_renewal_that_comes_during_a_take_over_wins_or_loses_cleanly() {
    let fixture = Fixture::new().await;
    let (a, b) = (fixture.store("a"), fixture.store("b"));
    let platform = a
        .provision_platform("lab", &Address::new(PlatformKind::VCenter, "vc", 443))
        .await
        .unwrap()
        .unwrap();
    let mut lease = a.acquire_lease(platform, &owner("a")).await.unwrap().unwrap();
    for round in 0..20 {
        fixture
            .sql
            .batch_execute("UPDATE virt_platform_lease SET until = clock_timestamp()")
            .await
            .unwrap();
        let rival = owner(if round % 2 == 0 { "b" } else { "a" });
        let (renewed, taken) = tokio::join!(a.renew_lease(&lease), b.acquire_lease(platform, &rival));
        match (renewed, taken.unwrap()) {
            (Ok(()), None) => {}
            // The renewal came first and was overtaken: of its own name, or after the row was read as expired.
            (Ok(()), Some(taken)) if rival == lease.owner => lease = taken,
            (Err(Error::Fenced { .. }), Some(taken)) => lease = taken,
            other => panic!("round {round}: {other:?}"),
        }
        let holder: (String, i64) = {
            let row = fixture
                .sql
                .query_one("SELECT owner, epoch FROM virt_platform_lease", &[])
                .await
                .unwrap();
            (row.get(0), row.get(1))
        };
        assert_eq!(holder, (lease.owner.as_str().to_owned(), lease.epoch));
    }
}

/// What can happen to a lease. Owners and old leases are named by their place.
#[derive(Debug, Clone, Copy)]
enum Event {
    Acquire(usize),
    /// With the lease that this owner was given last, however long ago.
    Renew(usize),
    Release(usize),
    Write(usize),
    /// Its time to live passes.
    RunOut,
}

/// The lease as `store::lease` describes it, without a database.
#[derive(Debug, Default)]
struct Model {
    held: Option<(usize, i64)>,
    good: bool,
    given: [Option<i64>; 3],
}

impl Model {
    fn acquire(&mut self, owner: usize) -> Option<i64> {
        let epoch = match self.held {
            None => 1,
            Some((holder, epoch)) if holder == owner || !self.good => epoch + 1,
            Some(_) => return None,
        };
        (self.held, self.good, self.given[owner]) = (Some((owner, epoch)), true, Some(epoch));
        Some(epoch)
    }

    fn is_holder(&self, owner: usize) -> bool {
        self.given[owner].is_some_and(|epoch| self.held == Some((owner, epoch)))
    }
}

#[test]
fn whatever_three_owners_do_in_whatever_order_only_one_can_write_and_epochs_only_grow() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    let owner_place = || 0_usize..3;
    let event = prop_oneof![
        3 => owner_place().prop_map(Event::Acquire),
        2 => owner_place().prop_map(Event::Renew),
        1 => owner_place().prop_map(Event::Release),
        3 => owner_place().prop_map(Event::Write),
        2 => Just(Event::RunOut),
    ];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fixture = runtime.block_on(Fixture::new());
    let stores = ["a", "b", "c"].map(|name| fixture.store(name));
    let config = Config {
        cases: 48,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let server = runtime.block_on(async {
        let row = fixture
            .sql
            .query_one("SELECT pg_postmaster_start_time()", &[])
            .await;
        row.unwrap().get(0)
    });
    let n_case = std::cell::Cell::new(0);
    TestRunner::new_with_rng(config, rng)
        .run(&proptest::collection::vec(event, 1..40), |events| {
            n_case.set(n_case.get() + 1);
            runtime.block_on(async {
                let name = format!("case-{}", n_case.get());
                let platform = stores[0]
                    .provision_platform(&name, &Address::new(PlatformKind::VCenter, &name, 443))
                    .await
                    .unwrap()
                    .unwrap();
                let mut model = Model::default();
                for event in events {
                    let lease_of = |place: usize, model: &Model| Lease {
                        platform,
                        owner: owner(["a", "b", "c"][place]),
                        // One that was never given cannot be used.
                        epoch: model.given[place].unwrap_or(0),
                        server,
                    };
                    match event {
                        Event::Acquire(place) => {
                            let name = owner(["a", "b", "c"][place]);
                            let taken = stores[place].acquire_lease(platform, &name).await.unwrap();
                            let epoch = taken.map(|lease| lease.epoch);
                            assert_eq!(epoch, model.acquire(place), "{event:?}");
                        }
                        Event::Renew(place) => {
                            let renewed = stores[place].renew_lease(&lease_of(place, &model)).await;
                            assert_eq!(renewed.is_ok(), model.is_holder(place), "{event:?} {renewed:?}");
                            model.good |= model.is_holder(place);
                        }
                        Event::Release(place) => {
                            stores[place]
                                .release_lease(&lease_of(place, &model))
                                .await
                                .unwrap();
                            model.good &= !model.is_holder(place);
                        }
                        Event::Write(place) => {
                            let status = PlatformStatus::of(PlatformState::Connected);
                            let written = stores[place].set_status(&lease_of(place, &model), &status).await;
                            let may = model.good && model.is_holder(place);
                            assert_eq!(written.is_ok(), may, "{event:?} {written:?}");
                        }
                        Event::RunOut => {
                            let run_out = "UPDATE virt_platform_lease SET until = clock_timestamp() \
                                           WHERE platform_id = $1 AND until > clock_timestamp()";
                            fixture.sql.execute(run_out, &[&platform.0]).await.unwrap();
                            model.good = false;
                        }
                    }
                }
            });
            Ok(())
        })
        .unwrap();
    // The fixture's connections belong to the runtime.
    runtime.block_on(async move { drop((stores, fixture)) });
}
