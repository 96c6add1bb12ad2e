//! What is too old goes, and nothing else does.

use virt_collector::config::{Keep, Retention};
use virt_collector::store::retention::{Compression, RELATIONS};

use super::*;
use crate::wait::until;

/// A row a day up to `days` ago, in each of the tables.
async fn fill(fixture: &Fixture, relations: &[&str], days: i32) {
    let mut sql = String::new();
    for relation in relations {
        let kind = relation.split('_').nth(1).unwrap();
        let counted = match (kind, relation.ends_with("_metrics")) {
            ("datastore", _) => "",
            (_, true) => ", interval_seconds",
            (_, false) => ", covered_seconds",
        };
        let value = if counted.is_empty() { "" } else { ", 20" };
        let more: String = needed(fixture, relation)
            .await
            .iter()
            .map(|column| format!(", {column}"))
            .collect();
        let zeros = ", 0".repeat(more.matches(',').count());
        sql.push_str(&format!(
            "INSERT INTO {relation} (collected_at, {kind}_id{counted}{more}) \
             SELECT now() - days * INTERVAL '1 day', 1{value}{zeros} FROM generate_series(0, {days}) AS days;"
        ));
    }
    fixture.sql.batch_execute(&sql).await.unwrap();
}

/// Columns that have to be filled.
async fn needed(fixture: &Fixture, relation: &str) -> Vec<String> {
    let rows = fixture
        .sql
        .query(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND attnotnull \
             AND attname NOT IN ('collected_at', 'host_id', 'vm_id', 'datastore_id', 'interval_seconds', 'covered_seconds')",
            &[&relation],
        )
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

impl Fixture {
    /// Age in days of the oldest row.
    async fn oldest(&self, relation: &str) -> i64 {
        self.number(&format!(
            "SELECT round(extract(epoch FROM now() - min(collected_at)) / 86400)::bigint FROM {relation}"
        ))
        .await
    }

    async fn chunks(&self, relation: &str) -> i64 {
        self.number(&format!("SELECT count(*) FROM show_chunks('{relation}')"))
            .await
    }

    /// Ends of chunks, as the bound that a retention of so many days has.
    async fn expected(&self, relation: &str, days: i64) -> i64 {
        self.number(&format!(
            "SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_name = '{relation}' \
             AND range_end > now() - INTERVAL '{days} days'"
        ))
        .await
    }
}

fn keep(raw: u16, five_minutes: u16, hour: u16) -> Retention {
    Retention {
        raw: Keep::Days(raw),
        five_minutes: Keep::Days(five_minutes),
        hour: Keep::Days(hour),
        ..Retention::default()
    }
}

#[tokio::test]
async fn what_is_older_than_it_is_kept_goes_by_chunks_and_the_rest_stays() {
    let fixture = Fixture::new().await;
    let store = fixture.store("a");
    fill(&fixture, &RELATIONS, 24).await;
    let retention = keep(3, 6, 12);
    store.set_retention(&retention).await.unwrap();
    let mut expected = Vec::new();
    for (relation, days) in RELATIONS.iter().zip([3, 6, 12, 100_000].iter().cycle()) {
        expected.push((*relation, fixture.expected(relation, *days).await));
    }

    let turn = store.drop_expired(&retention).await.unwrap().unwrap();
    assert!(turn.kept_back.is_empty() && turn.delayed.is_empty(), "{turn:?}");
    let mut left = Vec::new();
    for relation in RELATIONS {
        left.push((relation, fixture.chunks(relation).await));
    }
    assert_eq!(left, expected);
    // A row every day: the oldest one that is left lies in the chunk that the bound cuts.
    for (relation, (least, most)) in RELATIONS
        .iter()
        .zip([(3, 3), (6, 6), (12, 18), (24, 24)].iter().cycle())
    {
        let oldest = fixture.oldest(relation).await;
        assert!((*least..=*most).contains(&oldest), "{relation}: {oldest}");
    }
    assert_eq!(
        turn.dropped
            .iter()
            .map(|dropped| dropped.relation)
            .collect::<Vec<_>>(),
        RELATIONS
            .into_iter()
            .filter(|relation| !relation.ends_with("_1d"))
            .collect::<Vec<_>>()
    );

    // The next turn has nothing to do; a shorter retention takes more.
    let turn = store.drop_expired(&retention).await.unwrap().unwrap();
    assert!(turn.dropped.is_empty(), "{turn:?}");
    let shorter = keep(2, 6, 12);
    store.set_retention(&shorter).await.unwrap();
    let turn = store.drop_expired(&shorter).await.unwrap().unwrap();
    assert_eq!(
        turn.dropped
            .iter()
            .map(|dropped| dropped.relation)
            .collect::<Vec<_>>(),
        ["virt_host_metrics", "virt_vm_metrics", "virt_datastore_metrics"]
    );
    let in_force = store.retention_in_force().await.unwrap();
    assert!(in_force.is(&shorter) && !in_force.is(&retention), "{in_force:?}");
    let noted = "SELECT count(*) FROM virt_retention WHERE dropped_before > now() - INTERVAL '3 days' AND keep = '2 days'";
    assert_eq!(fixture.number(noted).await, 3);
}

#[tokio::test]
async fn a_chunk_that_is_yet_to_be_rolled_up_stays_until_it_is() {
    let platform = Platform::new().await;
    let fixture = &platform.fixture;
    let relations = [
        "virt_vm_metrics",
        "virt_vm_metrics_5m",
        "virt_host_metrics",
        "virt_host_metrics_5m",
    ];
    fill(fixture, &relations, 8).await;
    let retention = keep(3, 4, 12);
    platform.store.set_retention(&retention).await.unwrap();
    // The bucket that ends where the chunk of 6 days ago does: its samples are in that chunk.
    fixture
        .sql
        .batch_execute(
            "INSERT INTO virt_rollup_pending SELECT date_trunc('day', now(), 'UTC') - INTERVAL '5 days', now(), \
             platform_id, kind, level, NULL FROM virt_platform, (VALUES ('vm', '5m'), ('host', '1h')) AS p (kind, level)",
        )
        .await
        .unwrap();
    let turn = platform.store.drop_expired(&retention).await.unwrap().unwrap();
    let kept: Vec<(&str, i64)> = turn
        .kept_back
        .iter()
        .map(|kept| (kept.relation, kept.pending))
        .collect();
    // Samples of VMs are needed for it, and the roll-up itself is where it is written to; of hosts the finer roll-ups.
    assert!(kept.contains(&("virt_vm_metrics", 1)), "{kept:?}");
    assert!(kept.contains(&("virt_host_metrics_5m", 1)), "{kept:?}");
    assert!(
        !kept.iter().any(|(relation, _)| *relation == "virt_host_metrics"),
        "{kept:?}"
    );
    assert_eq!(fixture.oldest("virt_vm_metrics").await, 6);
    assert_eq!(fixture.oldest("virt_host_metrics_5m").await, 6);
    assert_eq!(fixture.oldest("virt_host_metrics").await, 3);

    // What a platform had left when its collection ended, somebody makes, and then it goes.
    fixture
        .sql
        .batch_execute(
            "UPDATE virt_platform SET removed_at = now(); UPDATE virt_platform_lease SET until = now(); \
             UPDATE virt_rollup_pending SET due_at = now() - INTERVAL '11 minutes'",
        )
        .await
        .unwrap();
    let turn = platform.store.drop_expired(&retention).await.unwrap().unwrap();
    assert!(turn.kept_back.is_empty(), "{turn:?}");
    // In the last hour of the day its samples are there, and a coarser bucket is noted.
    let noted =
        "SELECT count(*) FROM virt_rollup_pending WHERE (kind, level) IN (('vm', '5m'), ('host', '1h'))";
    assert_eq!(fixture.number(noted).await, 0);
    assert_eq!(fixture.oldest("virt_vm_metrics").await, 3);
}

#[tokio::test]
async fn one_collector_at_a_time_drops_and_who_reads_delays_its_chunk_alone() {
    let fixture = Fixture::new().await;
    let store = fixture.store("a");
    fill(&fixture, &["virt_vm_metrics", "virt_host_metrics"], 8).await;
    let retention = keep(3, 180, 365);
    store.set_retention(&retention).await.unwrap();

    let reader = fixture.database.connect(Role::Reader).await.unwrap();
    reader
        .batch_execute(
            "BEGIN; SELECT count(*) FROM virt_vm_metrics WHERE collected_at < now() - INTERVAL '5 days'",
        )
        .await
        .unwrap();
    let (one, other) = tokio::join!(store.drop_expired(&retention), async {
        // The first one waits for the reader by now or will; whoever comes second leaves it to it.
        let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted \
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        until("a turn", async || match fixture.number(held).await {
            0 => Err("nobody holds the lock".to_owned()),
            _ => Ok(()),
        })
        .await;
        fixture.store("b").drop_expired(&retention).await
    });
    assert!(other.unwrap().is_none());
    let turn = one.unwrap().unwrap();
    assert_eq!(turn.delayed.len(), 1, "{turn:?}");
    assert_eq!(turn.delayed[0].0, "virt_vm_metrics");
    assert_eq!(fixture.oldest("virt_vm_metrics").await, 8);
    assert_eq!(fixture.oldest("virt_host_metrics").await, 3);

    reader.batch_execute("COMMIT").await.unwrap();
    let turn = store.drop_expired(&retention).await.unwrap().unwrap();
    assert!(turn.delayed.is_empty(), "{turn:?}");
    assert_eq!(fixture.oldest("virt_vm_metrics").await, 3);
}

#[tokio::test]
async fn the_service_drops_through_the_function_alone_and_the_function_refuses_what_is_young() {
    let fixture = Fixture::new().await;
    fill(&fixture, &["virt_vm_metrics"], 8).await;
    let writer = fixture.database.connect(Role::Writer).await.unwrap();
    let reader = fixture.database.connect(Role::Reader).await.unwrap();
    for (client, sql) in [
        (
            &writer,
            "SELECT drop_chunks('virt_vm_metrics', now() - INTERVAL '30 days')",
        ),
        (
            &writer,
            "SELECT * FROM virt_drop_chunks('virt_vm_metrics', '47 hours')",
        ),
        (&writer, "SELECT * FROM virt_drop_chunks('virt_vm_metrics', NULL)"),
        (&writer, "SELECT * FROM virt_drop_chunks('virt_vm', '30 days')"),
        (&writer, "SELECT * FROM virt_drop_chunks('pg_class', '30 days')"),
        (&writer, "SELECT virt_compress_after('1 day')"),
        (&writer, "DELETE FROM virt_retention"),
        (
            &reader,
            "SELECT * FROM virt_drop_chunks('virt_vm_metrics', '30 days')",
        ),
        (&reader, "SELECT virt_compress_after('7 days')"),
    ] {
        let error = client.batch_execute(sql).await.expect_err(sql);
        assert_eq!(
            error.code().map(|code| code.code()),
            Some("42501"),
            "{sql}: {error:?}"
        );
    }
    assert_eq!(fixture.chunks("virt_vm_metrics").await, 9);
    // Nobody's own objects stand in front of what the function names.
    let pinned = "SELECT count(*) FROM pg_proc WHERE prosecdef AND proname LIKE 'virt%' \
                  AND NOT 'search_path=pg_catalog, public, pg_temp' = ANY (coalesce(proconfig, '{}'))";
    assert_eq!(fixture.number(pinned).await, 0);
}

#[tokio::test]
async fn a_clock_that_is_set_into_the_future_takes_nothing_with_it() {
    let fixture = Fixture::new().await;
    let store = fixture.store("a");
    // As if the clock had been set a year ahead since: everything is a year old, and nothing is newer.
    let raw = ["virt_vm_metrics", "virt_host_metrics", "virt_datastore_metrics"];
    fill(&fixture, &raw, 4).await;
    fixture
        .sql
        .batch_execute(
            "CREATE TEMP TABLE moved AS SELECT * FROM virt_vm_metrics; DELETE FROM virt_vm_metrics; \
             DELETE FROM virt_host_metrics; DELETE FROM virt_datastore_metrics; \
             SELECT drop_chunks(relation, older_than => now() + INTERVAL '2 days') \
             FROM unnest(ARRAY['virt_vm_metrics', 'virt_host_metrics', 'virt_datastore_metrics']::regclass[]) AS relation; \
             UPDATE moved SET collected_at = collected_at - INTERVAL '365 days'; \
             INSERT INTO virt_vm_metrics SELECT * FROM moved",
        )
        .await
        .unwrap();
    let retention = keep(6, 180, 365);
    store.set_retention(&retention).await.unwrap();
    let turn = store.drop_expired(&retention).await.unwrap().unwrap();
    assert!(turn.dropped.is_empty(), "{turn:?}");
    assert_eq!(fixture.chunks("virt_vm_metrics").await, 5);
}

#[tokio::test]
async fn explained_gap_rows_end_with_the_samples_around_them() {
    let platform = Platform::new().await;
    let fixture = &platform.fixture;
    fill(fixture, &["virt_vm_metrics"], 12).await;
    fixture
        .sql
        .batch_execute(
            "UPDATE virt_vm SET removed_at = now() - INTERVAL '8 days' WHERE moref = 'vm-2'; \
             INSERT INTO virt_collection_gap (from_time, to_time, platform_id, entity_id, entity_kind, state, reason) \
             SELECT now() - days_from * INTERVAL '1 day', now() - days_to * INTERVAL '1 day', platform_id, \
                    (SELECT vm_id FROM virt_vm WHERE moref = vm), 'vm', state, reason FROM virt_platform, (VALUES \
               ('vm-1', 11, 7, 'explained', 'expired'), ('vm-1', 11, 2, 'explained', 'expired'), \
               ('vm-1', 2, 1, 'explained', 'expired'), ('vm-1', 10, 8, 'open', NULL), \
               ('vm-2', 9, NULL, 'explained', 'removed'), ('vm-3', 9, NULL, 'explained', 'powered_off')) \
               AS gap (vm, days_from, days_to, state, reason)",
        )
        .await
        .unwrap();
    let retention = keep(3, 180, 365);
    platform.store.set_retention(&retention).await.unwrap();
    let turn = platform.store.drop_expired(&retention).await.unwrap().unwrap();
    assert_eq!(turn.gaps, 2);
    let left = fixture
        .sql
        .query(
            "SELECT vm.moref || ' ' || coalesce(reason, 'open') || ' ' || round(extract(epoch FROM now() - from_time) / 86400) \
             FROM virt_collection_gap JOIN virt_vm AS vm ON vm_id = entity_id ORDER BY 1",
            &[],
        )
        .await
        .unwrap();
    let left: Vec<String> = left.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        left,
        [
            "vm-1 expired 11",
            "vm-1 expired 2",
            "vm-1 open 10",
            "vm-3 powered_off 9"
        ]
    );
}

#[tokio::test]
async fn compression_follows_the_edition_and_compressed_chunks_take_samples_and_go_with_the_others() {
    let mut platform = Platform::new().await;
    let retention = keep(9, 180, 365);
    let probe = platform.store.ready().await.unwrap();
    let compression = platform.store.set_retention(&retention).await.unwrap();
    let policies = "SELECT count(*) FROM timescaledb_information.jobs WHERE hypertable_name IN \
                    ('virt_host_metrics', 'virt_vm_metrics') AND proc_name = 'policy_compression'";
    let in_force = platform.store.retention_in_force().await.unwrap();
    if probe.edition == Edition::Apache {
        assert_eq!(compression, Compression::Edition);
        assert_eq!(in_force.compress_after, None);
        assert_eq!(platform.fixture.number(policies).await, 0);
        // Were it asked to, it would say that it cannot.
        let compressed = platform
            .fixture
            .sql
            .batch_execute("ALTER TABLE virt_vm_metrics SET (timescaledb.compress)")
            .await;
        assert!(compressed.is_err());
        return;
    }
    assert_eq!(compression, Compression::On);
    assert_eq!(in_force.compress_after.as_deref(), Some("7 days"));
    assert_eq!(platform.fixture.number(policies).await, 2);

    // Asked again, nothing changes; another age is taken over; never takes the policy away, and back it comes.
    let job = "SELECT min(job_id)::bigint FROM timescaledb_information.jobs WHERE hypertable_name = 'virt_vm_metrics'";
    let before = platform.fixture.number(job).await;
    platform.store.set_retention(&retention).await.unwrap();
    assert_eq!(platform.fixture.number(job).await, before);
    let later = Retention {
        compress_after: Keep::Days(14),
        ..retention
    };
    platform.store.set_retention(&later).await.unwrap();
    let in_force = platform.store.retention_in_force().await.unwrap();
    assert_eq!(in_force.compress_after.as_deref(), Some("14 days"));
    let never = Retention {
        compress_after: Keep::Forever,
        ..retention
    };
    assert_eq!(
        platform.store.set_retention(&never).await.unwrap(),
        Compression::Off
    );
    assert_eq!(platform.fixture.number(policies).await, 0);
    platform.store.set_retention(&retention).await.unwrap();

    // Samples into a compressed chunk: new ones are stored, those that are there stay single.
    let vm = platform.vms[0];
    let stored = window_of(vm, [0, 20, 40], 1.0);
    platform
        .writer
        .write(&platform.lease, &flush(vec![stored]))
        .await
        .unwrap();
    let compress = "SELECT count(compress_chunk(chunk)) FROM show_chunks('virt_vm_metrics') AS chunk";
    assert_eq!(platform.fixture.number(compress).await, 1);
    let more = window_of(vm, [60, 80], 1.0);
    platform
        .writer
        .write(&platform.lease, &flush(vec![more]))
        .await
        .unwrap();
    // Repeated, the whole flush takes the way that leaves out what is there.
    let again = flush(vec![window_of(vm, [0, 20, 40, 60, 80, 100], 1.0)]);
    let error = platform.writer.write(&platform.lease, &again).await.unwrap_err();
    assert_eq!(error.class(), Class::Duplicate, "{error:?}");
    let written = platform
        .writer
        .write_staged(&platform.lease, &again)
        .await
        .unwrap();
    assert_eq!(written.duplicates, 5, "{written:?}");
    assert_eq!(platform.rows().await.1, 6);

    // And a compressed chunk goes like any other, once it is rolled up.
    fill(&platform.fixture, &["virt_vm_metrics"], 12).await;
    platform
        .fixture
        .sql
        .batch_execute("DELETE FROM virt_rollup_pending")
        .await
        .unwrap();
    platform
        .fixture
        .sql
        .batch_execute("SELECT compress_chunk(chunk, if_not_compressed => true) FROM show_chunks('virt_vm_metrics', older_than => INTERVAL '7 days') AS chunk")
        .await
        .unwrap();
    let turn = platform.store.drop_expired(&retention).await.unwrap().unwrap();
    assert!(
        turn.dropped
            .iter()
            .any(|dropped| dropped.relation == "virt_vm_metrics"),
        "{turn:?}"
    );
    assert_eq!(platform.fixture.oldest("virt_vm_metrics").await, 9);
}
