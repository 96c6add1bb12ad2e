//! Flushes that fail: what is stored already, what the database refuses, what it cannot do now. Nothing is lost,
//! nothing is stored twice, the chain holds, and the log says it once.

use std::time::Duration;

use support::database::Role;
use support::oracle::Verdict;
use tokio::time::Instant;
use tokio_postgres::Client;
use virt_collector::app::App;
use virt_collector::config::PlatformKind;
use virt_collector::ingest::writers::Writers;
use virt_collector::model::columns::Column;
use virt_collector::model::gap::{GapLane, NewGap, Step};
use virt_collector::model::ids::{EntityId, VmId};
use virt_collector::model::sample::{Cell, RowHead, Window};
use virt_collector::store::{Class, Database, Error, Flush, Lease, Owner, Settings};
use virt_collector::units::Stamp;

use crate::rig::{Daemon, PLATFORM, Rig, assert_whole, recorder, small};
use crate::thread_log::Log;
use crate::wait::until;
use virt_collector::store::registry::Address;

const MINUTE: Duration = Duration::from_secs(60);

async fn superuser(rig: &Rig) -> Client {
    rig.database.connect(Role::Superuser).await.unwrap()
}

/// The backend that rows are copied through, while it waits for a lock.
async fn blocked_copy(sql: &Client) -> i32 {
    until("the COPY waits for a lock", async || {
        let row = sql
            .query_opt(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
                 AND application_name LIKE 'virt-collector/%/copy-%' AND wait_event_type = 'Lock'",
                &[],
            )
            .await
            .unwrap();
        row.map(|row| row.get(0)).ok_or_else(|| "none".to_owned())
    })
    .await
}

/// The backends that rows are copied through.
async fn copy_pids(sql: &Client) -> Vec<i32> {
    let rows = sql
        .query(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
             AND application_name LIKE 'virt-collector/%/copy-%' ORDER BY 1",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// A counter of the platform. The registry is the process's: other tests count, too, so only growth says something.
fn counted(metric: &str) -> u64 {
    let rendered = recorder().render();
    let series = rendered
        .lines()
        .find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    series.map_or(0, |value| value.parse().unwrap())
}

/// Every sample is stored but those that were refused, and the chain holds.
#[track_caller]
fn assert_poisoned(verdict: &Verdict, n_refused: u64, reasons: &[(&str, u64)]) {
    let counts = (
        verdict.missing,
        verdict.duplicate,
        verdict.wrong,
        verdict.unexplained,
        verdict.open,
    );
    assert_eq!(
        counts,
        (n_refused, 0, 0, 0, 0),
        "{verdict}\n{:#?}",
        verdict.details
    );
    let reasons: Vec<(String, u64)> = reasons
        .iter()
        .map(|(reason, n)| ((*reason).to_owned(), *n))
        .collect();
    assert_eq!(verdict.reasons.clone().into_iter().collect::<Vec<_>>(), reasons);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_stored_already_are_left_out_and_counted() {
    const DUPLICATES: &str = "virt_collector_rows_duplicate_total{platform=\"lab\"}";
    let mut rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    rig.pass(MINUTE);
    daemon.poll().await;
    daemon.stop().await;
    let (sql, other) = (superuser(&rig).await, superuser(&rig).await);
    // The newest minute of the VMs is taken away. Most of it comes back behind the daemon's back: a transaction that
    // is still open when the watermarks are read commits while the first flush waits for it.
    sql.batch_execute(
        "CREATE TABLE kept AS SELECT * FROM virt_vm_metrics \
         WHERE collected_at > (SELECT max(collected_at) - interval '60 s' FROM virt_vm_metrics); \
         DELETE FROM virt_vm_metrics WHERE collected_at IN (SELECT collected_at FROM kept)",
    )
    .await
    .unwrap();
    other.batch_execute("BEGIN").await.unwrap();
    let n_stored = other
        .execute(
            "INSERT INTO virt_vm_metrics SELECT * FROM kept \
             WHERE collected_at > (SELECT min(collected_at) FROM kept)",
            &[],
        )
        .await
        .unwrap();
    assert!(n_stored > 0);
    let before = counted(DUPLICATES);
    rig.healthy_from_now();
    let (daemon, ()) = tokio::join!(rig.start(), async {
        blocked_copy(&sql).await;
        other.batch_execute("COMMIT").await.unwrap();
    });
    rig.pass(3 * MINUTE);
    assert_eq!(daemon.poll().await.error, None);
    assert_whole(&rig.verdict().await);
    assert!(counted(DUPLICATES) - before >= n_stored, "{n_stored} of them");
    daemon.stop().await;
}

/// Makes the database refuse a sample of an entity.
async fn refuse(sql: &Client, kind: &str, id: i32, stamp: i64) {
    sql.batch_execute(&format!(
        "ALTER TABLE virt_{kind}_metrics ADD CONSTRAINT poison_{id} \
         CHECK (NOT ({kind}_id = {id} AND collected_at = to_timestamp({stamp}))) NOT VALID"
    ))
    .await
    .unwrap();
}

#[tokio::test]
async fn refused_rows_are_left_out_and_explained_and_all_others_stored() {
    const POISON: &str = "virt_collector_samples_dropped_total{platform=\"lab\",reason=\"poison\"}";
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let sql = superuser(&rig).await;
    let newest: i64 = sql
        .query_one(
            "SELECT extract(epoch FROM max(collected_at))::int8 FROM virt_vm_metrics",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    let ids = |rows: Vec<tokio_postgres::Row>| rows.iter().map(|row| row.get(0)).collect::<Vec<i32>>();
    let vms = ids(sql
        .query("SELECT DISTINCT vm_id FROM virt_vm_metrics ORDER BY 1", &[])
        .await
        .unwrap());
    let hosts = ids(sql
        .query("SELECT DISTINCT host_id FROM virt_host_metrics ORDER BY 1", &[])
        .await
        .unwrap());
    // Of a poll's three samples: the first, one in the middle, the newest, and two neighbours.
    refuse(&sql, "vm", vms[0], newest + 20).await;
    refuse(&sql, "vm", vms[3], newest + 40).await;
    refuse(&sql, "host", hosts[1], newest + 60).await;
    sql.batch_execute(&format!(
        "ALTER TABLE virt_vm_metrics ADD CONSTRAINT poison_two CHECK (NOT (vm_id = {} \
         AND collected_at IN (to_timestamp({}), to_timestamp({})))) NOT VALID",
        vms[7],
        newest + 20,
        newest + 40
    ))
    .await
    .unwrap();

    let log = Log::start();
    let before = counted(POISON);
    rig.pass(MINUTE);
    let report = daemon.poll().await;
    let n_entities = rig.n_entities() as usize;
    assert_eq!((report.error, report.n_rows), (None, n_entities * 3 - 5));
    rig.pass(2 * MINUTE);
    let report = daemon.poll().await;
    assert_eq!((report.error, report.n_rows), (None, n_entities * 6));

    let verdict = rig.verdict().await;
    assert_poisoned(&verdict, 5, &[("poison", 4)]);
    let mut gaps: Vec<(String, i32, i64, i64)> = Vec::new();
    let rows = sql
        .query(
            "SELECT entity_kind, entity_id, extract(epoch FROM from_time)::int8, extract(epoch FROM to_time)::int8 \
             FROM virt_collection_gap ORDER BY 1, 2",
            &[],
        )
        .await
        .unwrap();
    gaps.extend(rows.iter().map(|row| {
        (
            row.get(0),
            row.get(1),
            row.get::<_, i64>(2) - newest,
            row.get::<_, i64>(3) - newest,
        )
    }));
    let expected = [
        ("host", hosts[1], 40, 80),
        ("vm", vms[0], 0, 40),
        ("vm", vms[3], 20, 60),
        ("vm", vms[7], 0, 60),
    ];
    assert_eq!(
        gaps,
        expected.map(|(kind, id, from, to)| (kind.to_owned(), id, from, to))
    );
    // The newest row of the host came twice, and was told and counted once.
    assert!(counted(POISON) - before >= 5);
    let told = log.lines(&["ERROR", "refuses a row"]);
    assert_eq!(told.len(), 5, "{told:#?}");
    let middle = Stamp::from_seconds(newest + 40).to_string();
    let words = [
        "refuses a row",
        &format!("vm {}", vms[3]),
        &middle,
        "violates check constraint",
    ];
    assert_eq!(log.lines(&words).len(), 1, "{told:#?}");
    assert!(log.lines(&["flush failed"]).is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_rows_inside_gaps_end_the_gap_and_are_explained() {
    let mut rig = Rig::new(small()).await;
    let sql = superuser(&rig).await;
    // In the hour before the first start, in every VM at once, and none of them known to the database yet.
    let now = rig.simulator.clock().now() / 1_000_000;
    let first = now - 1_800 - now.rem_euclid(20);
    let refuse_all = async |name: &str, stamp: i64| {
        sql.batch_execute(&format!(
            "ALTER TABLE virt_vm_metrics ADD CONSTRAINT {name} CHECK (collected_at <> to_timestamp({stamp})) NOT VALID"
        ))
        .await
        .unwrap();
    };
    refuse_all("one", first).await;
    let daemon = rig.start().await;
    let n_vms = rig.simulator.world().running_vms().len() as u64;
    rig.pass(2 * MINUTE);
    daemon.poll().await;
    let verdict = rig.verdict().await;
    assert_poisoned(&verdict, n_vms, &[("poison", n_vms)]);
    daemon.stop().await;

    // And in the gap that an outage leaves.
    let now = rig.simulator.clock().now() / 1_000_000;
    rig.pass(40 * MINUTE);
    refuse_all("two", now - now.rem_euclid(20) + 600).await;
    let daemon = rig.start().await;
    rig.pass(2 * MINUTE);
    daemon.poll().await;
    daemon.back_fill().await;
    rig.healthy_from_now();
    rig.pass(3 * MINUTE);
    daemon.poll().await;
    let verdict = rig.verdict().await;
    assert_poisoned(&verdict, n_vms, &[("poison", 2 * n_vms)]);
    daemon.stop().await;
}

/// Some parts of a flush are committed, then the trouble is another one: only the rows themselves tell which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_that_ends_half_stored_is_asked_for_again_from_where_the_rows_end() {
    // Counted apart from the other tests.
    const NAME: &str = "half";
    let rig = Rig::new(small()).await;
    let mut config = rig.config();
    config.collection.entities_per_request = 100;
    config.platforms[0].name = NAME.to_owned();
    let app = App::start(config, recorder()).await.unwrap();
    let poll = async || app.platform(NAME).unwrap().poll_now().await.unwrap();
    assert_eq!(poll().await.error, None);
    app.platform(NAME).unwrap().back_fill_now().await.unwrap();
    let sql = superuser(&rig).await;
    let count = async || -> i64 {
        let counted =
            "SELECT (SELECT count(*) FROM virt_vm_metrics) + (SELECT count(*) FROM virt_host_metrics)";
        sql.query_one(counted, &[]).await.unwrap().get(0)
    };
    let before = count().await;
    // The last VM but one is refused, and at the last one the transaction fails.
    sql.batch_execute(
        "CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ \
         DECLARE newest int := (SELECT max(vm_id) FROM virt_vm_metrics); BEGIN \
         IF NEW.vm_id = newest - 1 THEN RAISE EXCEPTION 'refused' USING ERRCODE = '23514'; END IF; \
         IF NEW.vm_id = newest THEN RAISE EXCEPTION 'not now' USING ERRCODE = '40001'; END IF; \
         RETURN NEW; END $$; \
         CREATE TRIGGER trouble BEFORE INSERT ON virt_vm_metrics FOR EACH ROW EXECUTE FUNCTION trouble()",
    )
    .await
    .unwrap();
    rig.pass(MINUTE);
    assert!(poll().await.error.is_some());
    let half = count().await;
    let all = before + 3 * i64::try_from(rig.n_entities()).unwrap();
    assert!(before < half && half < all, "{before} {half} {all}");
    sql.batch_execute("DROP TRIGGER trouble ON virt_vm_metrics")
        .await
        .unwrap();
    until("a poll goes well", async || {
        poll().await.error.map_or(Ok(()), Err)
    })
    .await;
    assert_eq!(count().await, all);
    assert_eq!(
        counted("virt_collector_rows_duplicate_total{platform=\"half\"}"),
        0
    );
    let breaks = sql.query("SELECT * FROM virt_chain_break()", &[]).await.unwrap();
    assert!(breaks.is_empty());
    app.stop().await.unwrap();
}

/// Polls until one goes well.
async fn recover(daemon: &Daemon) {
    until("a poll goes well", async || {
        let report = daemon.poll().await;
        report.error.map_or(Ok(()), Err)
    })
    .await;
}

/// A trigger that fails every row with this SQLSTATE.
fn raise(code: &str) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         RAISE EXCEPTION 'made by the test' USING ERRCODE = '{code}'; END $$; \
         CREATE TRIGGER trouble BEFORE INSERT ON virt_vm_metrics FOR EACH ROW EXECUTE FUNCTION trouble()"
    )
}

#[tokio::test]
async fn each_class_of_trouble_is_waited_for_told_once_and_survived() {
    const NO_TRIGGER: &str = "DROP TRIGGER trouble ON virt_vm_metrics";
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let sql = superuser(&rig).await;
    let log = Log::start();
    // Made how, mended how, failures, and what is told.
    let revoke = "REVOKE INSERT ON virt_vm_metrics FROM virt_writer".to_owned();
    let grant = "GRANT INSERT ON virt_vm_metrics TO virt_writer";
    let cases = [
        (raise("40001"), NO_TRIGGER, 3, ["WARN", "SQLSTATE 40001"]),
        (
            raise("25006"),
            NO_TRIGGER,
            3,
            ["WARN", "looking for one that does"],
        ),
        (
            raise("53100"),
            NO_TRIGGER,
            1,
            ["ERROR", "database disk full: free space or drop chunks"],
        ),
        (revoke, grant, 3, ["ERROR", "permission denied"]),
    ];
    for (make, mend, n_failures, told) in cases {
        let pids = copy_pids(&sql).await;
        sql.batch_execute(&make).await.unwrap();
        rig.pass(MINUTE);
        let started = Instant::now();
        for _ in 0..n_failures {
            assert!(daemon.poll().await.error.is_some(), "{told:?}");
        }
        sql.batch_execute(mend).await.unwrap();
        recover(&daemon).await;
        if told[1].contains("disk full") {
            assert!(
                started.elapsed() >= Duration::from_secs(5),
                "{:?}",
                started.elapsed()
            );
        }
        assert_ne!(
            copy_pids(&sql).await,
            pids,
            "{told:?}: a new connection finds a new primary"
        );
        assert_eq!(log.lines(&told).len(), 1, "{told:?}: {:#?}", log.lines(&[]));
    }
    let over = log.lines(&["INFO", "samples are stored again"]);
    assert_eq!(over.len(), 4, "{:#?}", log.lines(&[]));
    rig.pass(2 * MINUTE);
    assert_eq!(daemon.poll().await.error, None);
    assert_whole(&rig.verdict().await);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_not_had_in_time_costs_no_sample() {
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let sql = superuser(&rig).await;
    // Readers pass, writers wait: until their lock_timeout.
    sql.batch_execute("BEGIN; LOCK TABLE virt_vm_metrics IN EXCLUSIVE MODE")
        .await
        .unwrap();
    rig.pass(MINUTE);
    assert!(daemon.poll().await.error.is_some());
    sql.batch_execute("COMMIT").await.unwrap();
    recover(&daemon).await;
    rig.pass(2 * MINUTE);
    daemon.poll().await;
    assert_whole(&rig.verdict().await);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_ended_in_the_middle_of_a_flush_costs_no_sample() {
    const REQUERIED: &str = "virt_collector_samples_dropped_total{platform=\"lab\",reason=\"requeried\"}";
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let (sql, holder) = (superuser(&rig).await, superuser(&rig).await);
    for _ in 0..3 {
        let before = counted(REQUERIED);
        holder
            .batch_execute("BEGIN; LOCK TABLE virt_vm_metrics IN EXCLUSIVE MODE")
            .await
            .unwrap();
        rig.pass(MINUTE);
        let (report, ()) = tokio::join!(daemon.poll(), async {
            let pid = blocked_copy(&sql).await;
            sql.execute("SELECT pg_terminate_backend($1)", &[&pid])
                .await
                .unwrap();
            holder.batch_execute("COMMIT").await.unwrap();
        });
        assert!(report.error.is_some());
        assert!(counted(REQUERIED) > before);
        recover(&daemon).await;
    }
    rig.pass(2 * MINUTE);
    daemon.poll().await;
    assert_whole(&rig.verdict().await);
    daemon.stop().await;
}

/// A platform of its own in the database, and a sample of its only VM.
async fn owned(database: &Database, name: &str, vm: i32) -> (Lease, impl Fn(i64) -> Flush) {
    let owner = Owner::random();
    let platform = database
        .provision_platform(name, &Address::new(PlatformKind::VCenter, name, 443))
        .await
        .unwrap()
        .unwrap();
    let lease = database.acquire_lease(platform, &owner).await.unwrap().unwrap();
    let start = jiff::Timestamp::now().as_second();
    let sample = move |seconds: i64| {
        let entity = EntityId::from(VmId(vm));
        let mut window = Window::with_capacity(entity, 1);
        let head = RowHead {
            stamp: Stamp::from_seconds(start + seconds),
            interval_seconds: 20,
            host: None,
            cpus: 1,
            complete: true,
        };
        assert!(window.push(head, &vec![Cell::new(1.0); Column::of(entity.kind).len()]));
        Flush {
            windows: vec![window],
            ..Flush::default()
        }
    };
    (lease, sample)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_is_free_after_the_deadline_and_a_cancelled_flush_leaves_nothing() {
    let rig = Rig::new(small()).await;
    let db = rig.config().database;
    let database = Database::new(Settings::new(&db, &db.writer, &Owner::random()).unwrap()).unwrap();
    let (one, one_sample) = owned(&database, PLATFORM, 1).await;
    // Platforms take the four slots in turn; the fifth shares that of the first.
    for name in ["second", "third", "fourth"] {
        let address = Address::new(PlatformKind::VCenter, name, 443);
        database.provision_platform(name, &address).await.unwrap();
    }
    let (two, two_sample) = owned(&database, "other", 2).await;
    let writers = Writers::new(database.clone());
    // Before the server itself gives up, which is after 5 s.
    let hasty = Writers::new(database.clone()).with_deadline(Duration::from_secs(3));
    let sql = superuser(&rig).await;
    let lock = "BEGIN; LOCK TABLE virt_vm_metrics IN EXCLUSIVE MODE";
    writers.write(&one, &one_sample(0)).await.unwrap();

    sql.batch_execute(lock).await.unwrap();
    let (first, second) = (one_sample(20), two_sample(20));
    let (first, second) = tokio::join!(hasty.write(&one, &first), hasty.write(&two, &second));
    for result in [first, second] {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Deadline { .. }), "{error}");
        assert_eq!(error.class(), Class::Connection);
    }
    sql.batch_execute("COMMIT").await.unwrap();
    hasty.write(&two, &two_sample(40)).await.unwrap();
    drop(hasty);

    sql.batch_execute(lock).await.unwrap();
    let flush = one_sample(40);
    {
        let mut write = std::pin::pin!(writers.write(&one, &flush));
        tokio::select! {
            result = &mut write => panic!("{result:?}"),
            _pid = blocked_copy(&sql) => {}
        }
    }
    sql.batch_execute("COMMIT").await.unwrap();
    until("the cancelled flush's connection is gone", async || {
        let pids = copy_pids(&sql).await;
        if pids.is_empty() {
            Ok(())
        } else {
            Err(format!("{pids:?}"))
        }
    })
    .await;
    writers.write(&one, &flush).await.unwrap();
    let rows = sql
        .query(
            "SELECT vm_id, count(*), extract(epoch FROM max(collected_at) - min(collected_at))::int8 \
             FROM virt_vm_metrics GROUP BY 1 ORDER BY 1",
            &[],
        )
        .await
        .unwrap();
    let rows: Vec<(i32, i64, i64)> = rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    assert_eq!(rows, [(1, 2, 40), (2, 1, 0)]);
}

/// A connection whose COMMIT has been sent and waits for something on the server looks dead from here. Nothing of it
/// may be committed once the watermarks have been read.
#[tokio::test]
async fn what_an_abandoned_connection_has_under_way_is_ended_before_watermarks_are_read() {
    let rig = Rig::new(small()).await;
    let db = rig.config().database;
    let database = Database::new(Settings::new(&db, &db.writer, &Owner::random()).unwrap()).unwrap();
    let (lease, sample) = owned(&database, PLATFORM, 1).await;
    let writers = Writers::new(database.clone());
    let sql = superuser(&rig).await;
    sql.batch_execute(
        "CREATE FUNCTION public.wait_at_commit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ \
         BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END $$; \
         CREATE CONSTRAINT TRIGGER wait_at_commit AFTER INSERT ON virt_collection_gap DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION public.wait_at_commit()",
    )
    .await
    .unwrap();
    sql.batch_execute("SELECT pg_advisory_lock(42)").await.unwrap();
    let flush = Flush {
        gaps_new: vec![NewGap {
            entity: EntityId::from(VmId(1)),
            step: Step {
                from: Stamp::from_seconds(0),
                to: Some(Stamp::from_seconds(100)),
                to_interval: 20,
                initial: false,
            },
            reason: None,
            hint: None,
            lane: GapLane::Ring,
            ask_after: None,
        }],
        ..sample(100)
    };
    let committing = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                      AND application_name LIKE 'virt-collector/%/copy-%' AND wait_event = 'advisory'";
    let committing = async || {
        until("the COMMIT to wait on the server", async || {
            let n: i64 = sql.query_one(committing, &[]).await.unwrap().get(0);
            if n == 1 { Ok(()) } else { Err(n.to_string()) }
        })
        .await;
    };
    {
        let mut write = std::pin::pin!(writers.write(&lease, &flush));
        tokio::select! {
            result = &mut write => panic!("{result:?}"),
            () = committing() => {}
        }
    }
    committing().await;

    writers.end_doubtful(lease.platform).await.unwrap();
    // Of one that is under way it is not said that it is abandoned.
    {
        let mut write = Box::pin(writers.write(&lease, &flush));
        tokio::select! {
            result = &mut write => panic!("{result:?}"),
            () = committing() => {}
        }
        // From here on it is neither waited for nor given up.
        let mut end = std::pin::pin!(writers.end_doubtful(lease.platform));
        assert!(futures_util::poll!(&mut end).is_pending(), "it waits for its end");
        drop(write);
        end.await.unwrap();
    }
    sql.batch_execute("SELECT pg_advisory_unlock(42)").await.unwrap();
    assert_eq!(copy_pids(&sql).await, Vec::<i32>::new());
    let counts = "SELECT (SELECT count(*) FROM virt_vm_metrics), (SELECT count(*) FROM virt_collection_gap)";
    let row = sql.query_one(counts, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, 0));

    // The slot works again, and what ended well is not ended.
    writers.write(&lease, &sample(100)).await.unwrap();
    let before = copy_pids(&sql).await;
    writers.end_doubtful(lease.platform).await.unwrap();
    assert_eq!((copy_pids(&sql).await, before.len()), (before, 1));
}
