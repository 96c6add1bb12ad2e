//! The engine of roll-ups against a real TimescaleDB: the catalogue, the race with a COPY, how often a bucket is made.

use std::collections::BTreeMap;

use virt_collector::model::rollup::{Kind, Level};
use virt_collector::store::rollup::{Due, Made};

use super::*;
use crate::gate::Gate;

const FIVE: &str = "SELECT collected_at, cpu_usage_mhz, cpu_usage_mhz_max::float8, covered_seconds, coarse_seconds \
                    FROM virt_vm_5m WHERE vm_id = $1 ORDER BY 1";

impl Platform {
    /// Everything that is noted.
    async fn roll_up(&self) -> Made {
        let mut made = Made::default();
        loop {
            let more = self.store.roll_up(&self.lease, Due::Whenever).await.unwrap();
            if more.is_nothing() {
                return made;
            }
            made.add(&more);
        }
    }

    async fn write(&mut self, windows: Vec<Window>) {
        self.writer.write(&self.lease, &flush(windows)).await.unwrap();
    }

    /// Average, maximum, covered and coarse seconds of a VM's 5-minute buckets, by the seconds after [`NOON`] at which
    /// they end.
    async fn five_minutes(&self, vm: VmId) -> BTreeMap<i64, (f64, f64, i32, i32)> {
        let rows = self.fixture.sql.query(FIVE, &[&vm.0]).await.unwrap();
        rows.iter()
            .map(|row| {
                let end: Stamp = row.get(0);
                let end = end.micros() / 1_000_000 - NOON;
                (end, (row.get(1), row.get(2), row.get(3), row.get(4)))
            })
            .collect()
    }

    async fn notes(&self) -> i64 {
        self.fixture
            .number("SELECT count(*) FROM virt_rollup_pending")
            .await
    }
}

async fn columns(fixture: &Fixture, relation: &str) -> Vec<(String, String)> {
    let rows = fixture
        .sql
        .query(
            "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute \
             WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY 1",
            &[&relation],
        )
        .await
        .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn tables_views_and_history_have_the_measures_of_the_code() {
    let fixture = Fixture::new().await;
    let owned = |pairs: Vec<(String, &str)>| {
        let mut pairs: Vec<(String, String)> = pairs
            .into_iter()
            .map(|(name, kind)| (name, kind.to_owned()))
            .collect();
        pairs.sort();
        pairs
    };
    for kind in Kind::ALL {
        let word = kind.as_str();
        let (weight, head): (&str, &[&str]) = if kind.is_timed() {
            ("seconds", &["covered_seconds", "coarse_seconds"])
        } else {
            ("samples", &["sample_count"])
        };
        let key = format!("{word}_id");
        let time = ("collected_at".to_owned(), "timestamp with time zone");
        for level in Level::ALL {
            let mut table = vec![time.clone(), (key.clone(), "integer")];
            let mut view = table.clone();
            view.push(("interval_seconds".to_owned(), "integer"));
            for name in head {
                table.push(((*name).to_owned(), "integer"));
                view.push(((*name).to_owned(), "integer"));
            }
            for measure in kind.measures() {
                let name = measure.name;
                table.push((format!("{name}_sum"), "double precision"));
                table.push((format!("{name}_{weight}"), "integer"));
                table.push((format!("{name}_max"), measure.sql_type.name()));
                view.push((name.to_owned(), "double precision"));
                view.push((format!("{name}_max"), measure.sql_type.name()));
            }
            let level = level.as_str();
            let relation = format!("virt_{word}_metrics_{level}");
            assert_eq!(columns(&fixture, &relation).await, owned(table), "{relation}");
            let relation = format!("virt_{word}_{level}");
            assert_eq!(columns(&fixture, &relation).await, owned(view), "{relation}");
        }
        let mut history = vec![time, (key, "integer"), ("interval_seconds".to_owned(), "integer")];
        for measure in kind.measures() {
            history.push((measure.name.to_owned(), "double precision"));
            history.push((format!("{}_max", measure.name), "double precision"));
        }
        let function = format!("virt_{word}_history");
        let rows = fixture
            .sql
            .query(
                "SELECT out.name, format_type(out.type, NULL) FROM pg_proc, \
                 unnest(proargnames, proallargtypes, proargmodes) AS out (name, type, mode) \
                 WHERE proname = $1 AND out.mode = 't' ORDER BY 1",
                &[&function],
            )
            .await
            .unwrap();
        let real: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(real, owned(history), "{function}");
    }
}

#[tokio::test]
async fn averages_weigh_by_seconds_and_buckets_end_with_their_last_sample() {
    let mut platform = Platform::new().await;
    let vm = platform.vms[0];
    // The stamp on the edge is the last of its bucket. 10 in 20 s and 1 in a roll-up of 300 s of the source.
    platform
        .write(vec![
            window_of(vm, [280, 300], 10.0),
            window_of(vm, [320], 40.0),
            rolled_up(vm, 900),
        ])
        .await;
    platform.write(vec![window_of(vm, [920], 4.0)]).await;
    let made = platform.roll_up().await;
    assert_eq!(made.buckets, [4, 1, 1]);
    assert_eq!(made.rows, 6);
    let five = platform.five_minutes(vm).await;
    assert_eq!(
        five,
        BTreeMap::from([
            (300, (10.0, 10.0, 40, 0)),
            (600, (40.0, 40.0, 20, 0)),
            (900, (1.0, 1.0, 300, 300)),
            (1200, (4.0, 4.0, 20, 0)),
        ])
    );
    for (view, end) in [("virt_vm_1h", 3600), ("virt_vm_1d", 14 * 3600)] {
        let sql = format!(
            "SELECT collected_at, cpu_usage_percent, cpu_usage_percent_max, covered_seconds, coarse_seconds, \
                    disk_latency_ms, memory_consumed_kib, memory_consumed_kib_max FROM {view}"
        );
        let row = platform.fixture.sql.query_one(&sql, &[]).await.unwrap();
        // (40 x 10 + 20 x 40 + 300 x 1 + 20 x 4) / 380
        let average = 1580.0 / 380.0;
        assert_eq!(row.get::<_, Stamp>(0), stamp(end), "{view}");
        assert!((row.get::<_, f64>(1) - average).abs() < 1e-9, "{view}");
        assert_eq!(row.get::<_, f32>(2), 40.0, "{view}");
        assert_eq!((row.get::<_, i32>(3), row.get::<_, i32>(4)), (380, 300), "{view}");
        assert!((row.get::<_, f64>(5) - average).abs() < 1e-9, "{view}");
        assert!((row.get::<_, f64>(6) - average).abs() < 1e-9, "{view}");
        assert_eq!(row.get::<_, i64>(7), 40, "{view}");
    }
}

#[tokio::test]
async fn a_late_sample_is_added_by_making_its_buckets_anew_of_that_entity_alone() {
    let mut platform = Platform::new().await;
    let (early, late) = (platform.vms[0], platform.vms[1]);
    platform
        .write(vec![
            window_of(early, [20, 40], 10.0),
            window_of(late, [20], 10.0),
        ])
        .await;
    platform.roll_up().await;
    platform.write(vec![window_of(late, [40], 30.0)]).await;
    let noted = "SELECT entity_ids::text FROM virt_rollup_pending";
    let noted: String = platform.fixture.sql.query_one(noted, &[]).await.unwrap().get(0);
    assert_eq!(noted, format!("{{{}}}", late.0));
    let made = platform.roll_up().await;
    assert_eq!((made.buckets, made.rows), ([1, 1, 1], 3));
    assert_eq!(platform.five_minutes(late).await[&300], (20.0, 30.0, 40, 0));
    assert_eq!(platform.five_minutes(early).await[&300], (10.0, 10.0, 40, 0));
}

/// The race that notes are for: the refresh has taken the notes and read the samples when a COPY commits into its bucket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_commits_into_a_bucket_while_it_is_refreshed_is_rolled_up_by_the_next_refresh() {
    let mut platform = Platform::new().await;
    let (first, second) = (platform.vms[0], platform.vms[1]);
    platform
        .write(vec![window_of(first, [20], 10.0), window_of(second, [20], 10.0)])
        .await;
    let gate = Gate::shut(&platform.fixture.database, "virt_vm_metrics_5m").await;
    let (store, lease) = (platform.store.clone(), platform.lease.clone());
    let refresh = tokio::spawn(async move { store.roll_up(&lease, Due::Whenever).await });
    gate.reached().await;
    // A refresh holds up no writer, not even one of the same bucket.
    platform
        .write(vec![window_of(first, [40], 30.0), window_of(second, [40], 30.0)])
        .await;
    gate.open().await;
    let made = refresh.await.unwrap().unwrap();
    assert_eq!(made.buckets, [1, 0, 0]);
    let five = platform.five_minutes(second).await;
    assert_eq!(five[&300], (10.0, 10.0, 20, 0), "it had read the samples before");

    platform.roll_up().await;
    for vm in [first, second] {
        assert_eq!(platform.five_minutes(vm).await[&300], (20.0, 30.0, 40, 0));
    }
    let hours = "SELECT sum(covered_seconds) FROM virt_vm_metrics_1h";
    assert_eq!(platform.fixture.number(hours).await, 80);
    assert_eq!(platform.notes().await, 0);
}

#[tokio::test]
async fn a_bucket_whose_samples_are_gone_stays_what_it_was() {
    let mut platform = Platform::new().await;
    let vm = platform.vms[0];
    platform.write(vec![window_of(vm, [20, 40, 60], 10.0)]).await;
    platform.roll_up().await;
    // Retention drops the chunk; the bucket is noted all the same, with one sample of the next chunk or with none.
    for (left, what) in [(1, "a part"), (0, "nothing")] {
        let cut = format!(
            "DELETE FROM virt_vm_metrics WHERE ctid NOT IN (SELECT ctid FROM virt_vm_metrics LIMIT {left}); \
             INSERT INTO virt_rollup_pending (bucket, due_at, platform_id, kind, level) \
             SELECT collected_at, clock_timestamp(), {}, 'vm', '5m' FROM virt_vm_metrics_5m",
            platform.lease.platform
        );
        platform.fixture.sql.batch_execute(&cut).await.unwrap();
        assert_eq!(platform.roll_up().await.rows, 0, "{what} is left");
        assert_eq!(
            platform.five_minutes(vm).await[&300],
            (10.0, 10.0, 60, 0),
            "{what}"
        );
    }
}

#[tokio::test]
async fn what_is_rolled_back_leaves_no_note_and_what_is_stored_around_duplicates_does() {
    let mut platform = Platform::new().await;
    let vm = platform.vms[0];
    platform.write(vec![window_of(vm, [20], 10.0)]).await;
    platform.roll_up().await;
    let twice = flush(vec![window_of(vm, [20, 40], 30.0)]);
    let error = platform.writer.write(&platform.lease, &twice).await.unwrap_err();
    assert_eq!(error.class(), Class::Duplicate);
    assert_eq!(platform.notes().await, 0);

    let mut writer = platform.store.writer().await.unwrap();
    let written = writer.write_staged(&platform.lease, &twice).await.unwrap();
    assert_eq!((written.vm_rows, written.duplicates), (1, 1));
    platform.roll_up().await;
    assert_eq!(platform.five_minutes(vm).await[&300], (20.0, 30.0, 40, 0));
}

#[tokio::test]
async fn a_collector_that_lost_the_platform_makes_no_roll_up_and_forgets_no_note() {
    let mut platform = Platform::new().await;
    platform.write(vec![window_of(platform.vms[0], [20], 10.0)]).await;
    let expire = "UPDATE virt_platform_lease SET until = clock_timestamp()";
    platform.fixture.sql.batch_execute(expire).await.unwrap();
    let error = platform
        .store
        .roll_up(&platform.lease, Due::Whenever)
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Fenced);
    assert_eq!(platform.notes().await, 1);
    assert_eq!(
        platform
            .fixture
            .number("SELECT count(*) FROM virt_vm_metrics_5m")
            .await,
        0
    );
}

#[tokio::test]
async fn what_is_not_due_waits_and_the_oldest_comes_first() {
    let mut platform = Platform::new().await;
    let vm = platform.vms[0];
    // Nine buckets; a transaction makes six.
    platform
        .write(vec![window_of(vm, (0..9).map(|bucket| 20 + 300 * bucket), 10.0)])
        .await;
    let lease = platform.lease.clone();
    assert!(
        platform
            .store
            .roll_up(&lease, Due::Now)
            .await
            .unwrap()
            .is_nothing()
    );
    let pending = platform.store.rollups_pending(&lease).await.unwrap();
    assert_eq!((pending.notes, pending.is_due), (9, false));
    // What is over waits for a minute, so that what comes with it is made with it; the last two are not settled.
    let passes = "UPDATE virt_rollup_pending SET due_at = due_at - INTERVAL '61 seconds'";
    platform.fixture.sql.batch_execute(passes).await.unwrap();
    assert!(platform.store.rollups_pending(&lease).await.unwrap().is_due);
    let made = platform.store.roll_up(&lease, Due::Now).await.unwrap();
    assert_eq!(made.buckets, [6, 0, 0]);
    let ends: Vec<i64> = platform.five_minutes(vm).await.into_keys().collect();
    assert_eq!(ends, [300, 600, 900, 1200, 1500, 1800]);
    let made = platform.store.roll_up(&lease, Due::Now).await.unwrap();
    assert_eq!(made.buckets, [1, 0, 0]);
    let pending = platform.store.rollups_pending(&lease).await.unwrap();
    assert!(!pending.is_due && pending.first_due.is_some(), "{pending:?}");
}

/// 75 minutes around midnight as the daemon lives them: a poll a minute, one VM whose samples settle a minute later
/// than the others', and a look every 20 seconds. Time passes for the notes only.
#[tokio::test]
async fn in_normal_running_every_bucket_is_made_once() {
    let mut platform = Platform::new().await;
    platform
        .fixture
        .sql
        .batch_execute(
            "CREATE TABLE made (relation text, entity integer, bucket timestamptz);
             GRANT INSERT ON made TO PUBLIC;
             CREATE FUNCTION note_made() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 INSERT INTO public.made VALUES (TG_ARGV[0], (to_jsonb(NEW) ->> TG_ARGV[1])::integer, NEW.collected_at);
                 RETURN NULL;
             END $$;
             DO $$
             DECLARE
                 kind text;
                 level text;
             BEGIN
                 FOREACH kind IN ARRAY ARRAY['host', 'vm'] LOOP
                     FOREACH level IN ARRAY ARRAY['5m', '1h', '1d'] LOOP
                         EXECUTE format(
                             'CREATE TRIGGER made AFTER INSERT OR UPDATE ON virt_%s_metrics_%s FOR EACH ROW
                              EXECUTE FUNCTION note_made(%L, %L)', kind, level, kind || ' ' || level, kind || '_id');
                     END LOOP;
                 END LOOP;
             END $$",
        )
        .await
        .unwrap();
    let hosts = platform.hosts.clone();
    let vms = platform.vms.clone();
    // 13 h 30 min after ten o'clock it is 23:30.
    let start = 13 * 3600 + 1800;
    for minute in 0..75 {
        let now = start + minute * 60;
        let stamps = |behind: i64| [now - 40, now - 20, now].map(|at| at - behind);
        let mut windows: Vec<Window> = hosts
            .iter()
            .map(|host| window_of(*host, stamps(0), 1.0))
            .collect();
        windows.extend(vms[..2].iter().map(|vm| window_of(*vm, stamps(0), 1.0)));
        windows.push(window_of(vms[2], stamps(60), 1.0));
        // A poll comes in several transactions.
        let others = windows.split_off(3);
        platform.write(windows).await;
        platform.write(others).await;
        for _ in 0..3 {
            let passes = "UPDATE virt_rollup_pending SET due_at = due_at - INTERVAL '20 seconds'";
            platform.fixture.sql.batch_execute(passes).await.unwrap();
            while !platform
                .store
                .roll_up(&platform.lease, Due::Now)
                .await
                .unwrap()
                .is_nothing()
            {}
        }
    }
    let rows = platform
        .fixture
        .sql
        .query(
            "SELECT relation, count(*), max(n)::int8 FROM ( \
                 SELECT relation, entity, bucket, count(*) AS n FROM made GROUP BY 1, 2, 3) AS bucket \
             GROUP BY 1 ORDER BY 1",
            &[],
        )
        .await
        .unwrap();
    let made: Vec<(&str, i64, i64)> = rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    // From 23:30 to 0:40, the hour and the day that ended at midnight.
    assert_eq!(
        made,
        [
            ("host 1d", 2, 1),
            ("host 1h", 2, 1),
            ("host 5m", 2 * 15, 1),
            ("vm 1d", 3, 1),
            ("vm 1h", 3, 1),
            ("vm 5m", 3 * 15, 1),
        ]
    );
    let least = "SELECT min(covered_seconds)::int8 FROM virt_vm_metrics_5m WHERE collected_at > '2026-01-31 23:35+00'";
    assert_eq!(platform.fixture.number(least).await, 300, "and each is complete");
}

#[tokio::test]
async fn capacity_of_datastores_is_averaged_over_its_readings() {
    let platform = Platform::new().await;
    let sql = &platform.fixture.sql;
    sql.execute(
        "INSERT INTO virt_datastore (platform_id, moref, is_accessible, capacity_bytes, free_bytes, first_seen_at) \
         VALUES ($1, 'datastore-1', true, 1000, 400, now())",
        &[&platform.lease.platform.0],
    )
    .await
    .unwrap();
    for (at, free) in [(20, 400), (280, 200), (3_000, 900)] {
        sql.execute("UPDATE virt_datastore SET free_bytes = $1", &[&i64::from(free)])
            .await
            .unwrap();
        platform
            .store
            .store_capacity(&platform.lease, stamp(at), stamp(at))
            .await
            .unwrap();
    }
    // The same instant once more is the same reading.
    platform
        .store
        .store_capacity(&platform.lease, stamp(3_000), stamp(3_000))
        .await
        .unwrap();
    assert_eq!(platform.notes().await, 3);
    assert_eq!(platform.roll_up().await.buckets, [2, 1, 1]);
    let shown = async |view: &str| -> Vec<(f64, i64, i32, Option<f64>)> {
        let rows = sql
            .query(
                &format!(
                    "SELECT used_bytes, used_bytes_max, sample_count, uncommitted_bytes FROM {view} ORDER BY collected_at"
                ),
                &[],
            )
            .await
            .unwrap();
        rows.iter()
            .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
            .collect()
    };
    assert_eq!(
        shown("virt_datastore_5m").await,
        [(700.0, 800, 2, None), (100.0, 100, 1, None)]
    );
    for view in ["virt_datastore_1h", "virt_datastore_1d"] {
        assert_eq!(shown(view).await, [(500.0, 800, 3, None)], "{view}");
    }
}
