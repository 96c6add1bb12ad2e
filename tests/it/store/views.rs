//! Views for people: what they show, and that they ask for no more than they show.

use super::*;

/// What `tests/it/fixtures/site.sql` holds.
pub(super) const SITE: &str = include_str!("../fixtures/site.sql");

impl Fixture {
    /// With the small site of two platforms.
    pub(super) async fn site() -> Self {
        let fixture = Self::new().await;
        fixture.sql.batch_execute(SITE).await.unwrap();
        fixture
    }

    /// The first column of a query that has texts.
    pub(super) async fn texts(&self, sql: &str) -> Vec<String> {
        let rows = self
            .sql
            .query(sql, &[])
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        rows.iter()
            .map(|row| row.get::<_, Option<String>>(0).unwrap_or_default())
            .collect()
    }
}

const VMS: &str = "\
SELECT concat_ws(' ', platform, cluster, host, name, power_state, coalesce(cpu_usage_percent::text, '-'))
FROM virt_vm_latest ORDER BY platform, name";

#[tokio::test]
async fn the_newest_sample_of_everything_is_shown_with_its_names_and_none_that_is_older_than_15_minutes() {
    let fixture = Fixture::site().await;
    assert_eq!(
        fixture.texts(VMS).await,
        [
            "berlin lab esx-3 build-7 on 0.75",
            "berlin prod esx-1 db-1 on 72",
            "berlin lab esx-3 off-1 off -",
            "berlin prod esx-1 web-1 on 30",
            "berlin prod esx-2 web-2 on 28",
            "munich esx-9 web-1 on 12",
        ]
    );
    let newest = "SELECT (SELECT min(collected_at) FROM virt_vm_latest) = (SELECT max(collected_at) FROM virt_vm_metrics)";
    assert!(
        fixture
            .sql
            .query_one(newest, &[])
            .await
            .unwrap()
            .get::<_, bool>(0)
    );

    // Without the last 16 minutes every entity is still there, and shows nothing.
    fixture
        .sql
        .batch_execute(
            "DELETE FROM virt_vm_metrics WHERE collected_at > now() - INTERVAL '16 minutes'; \
             DELETE FROM virt_host_metrics WHERE collected_at > now() - INTERVAL '16 minutes'",
        )
        .await
        .unwrap();
    let shown = "SELECT count(*) * 100 + count(collected_at) FROM ";
    assert_eq!(fixture.number(&format!("{shown} virt_vm_latest")).await, 600);
    assert_eq!(fixture.number(&format!("{shown} virt_host_latest")).await, 400);
    assert_eq!(
        fixture
            .texts("SELECT concat_ws(' ', name, hosts, hosts_with_sample, vms_on, cpu_usage_percent) FROM virt_cluster_latest ORDER BY 1")
            .await,
        ["lab 1 0 1", "prod 2 0 3"]
    );

    // What was removed is not there, with its platform or by itself.
    fixture
        .sql
        .batch_execute(
            "UPDATE virt_platform SET removed_at = now() WHERE name = 'munich'; \
             UPDATE virt_host SET removed_at = now() WHERE name = 'esx-3'",
        )
        .await
        .unwrap();
    assert_eq!(fixture.number("SELECT count(*) FROM virt_vm_latest").await, 5);
    assert_eq!(fixture.number("SELECT count(*) FROM virt_host_latest").await, 2);
}

#[tokio::test]
async fn clusters_are_the_sums_of_their_hosts_now_and_before() {
    let fixture = Fixture::site().await;
    let now = "SELECT concat_ws(' ', platform, name, hosts, hosts_with_sample, vms_on, cpu_usage_mhz, cpu_capacity_mhz, \
               cpu_usage_percent, memory_consumed_kib, round(memory_usage_percent::numeric, 2), network_rx_kibps, \
               disk_write_kibps, power_watts) FROM virt_cluster_latest ORDER BY name";
    assert_eq!(
        fixture.texts(now).await,
        [
            "berlin lab 1 1 1 4000 80000 5 64424509 12.00 300 200 180",
            "berlin prod 2 2 3 100000 160000 62.5 826781204 77.00 36000 21000 700",
        ]
    );
    // From samples, 5 minutes, hours and days.
    for span in ["1 hour", "3 days", "20 days", "100 days"] {
        let before = format!(
            "SELECT DISTINCT concat_ws(' ', cluster_id, hosts, cpu_usage_mhz, cpu_capacity_mhz, cpu_usage_percent, \
             round(memory_usage_percent::numeric, 2), network_tx_kibps, power_watts) \
             FROM virt_cluster_history(now() - INTERVAL '{span}', now()) ORDER BY 1"
        );
        assert_eq!(
            fixture.texts(&before).await,
            [
                "1 2 100000 160000 62.5 77.00 27000 700",
                "2 1 4000 80000 5 12.00 200 180"
            ],
            "{span}"
        );
    }
}

#[tokio::test]
async fn questions_are_answered_from_roll_ups() {
    let fixture = Fixture::site().await;
    for (question, answer) in [
        (
            "SELECT concat_ws(' ', platform, host, name, round(cpu_ready_percent::numeric, 2), cpu_costop_percent_max, \
             covered_seconds) FROM virt_vm_by_ready() LIMIT 2",
            &[
                "berlin esx-1 db-1 8.25 3.5 3600",
                "berlin esx-1 web-1 1.50 0.25 3600",
            ][..],
        ),
        (
            "SELECT name || ' ' || covered_seconds FROM virt_vm_by_ready(now() - INTERVAL '2 days', now()) LIMIT 1",
            &["db-1 172800"],
        ),
        (
            "SELECT concat_ws(' ', host, name, cpu_usage_percent, network_kibps, disk_kibps) FROM virt_vm_idle()",
            &["esx-3 build-7 0.75 4 6"],
        ),
        ("SELECT name FROM virt_vm_idle('1 day')", &["build-7"]),
        ("SELECT name FROM virt_vm_idle(disk_kibps => 5)", &[]),
        ("SELECT name FROM virt_vm_idle(cpu_percent => 0.7)", &[]),
        (
            "SELECT name FROM virt_vm_idle('1 day', at_least => '25 hours')",
            &[],
        ),
        (
            "SELECT concat_ws(' ', platform, name, snapshot, extract(day FROM age)) FROM virt_vm_snapshot_old()",
            &[
                "berlin web-1 before the upgrade 43",
                "berlin web-1 before the upgrade / second try 12",
            ],
        ),
        ("SELECT name FROM virt_vm_snapshot_old('30 days')", &["web-1"]),
        (
            "SELECT concat_ws(' ', name, usage_percent, round(growth_bytes_per_day / 1073741824), \
             round(days_until_full::numeric, 1)) FROM virt_datastore_filling()",
            &["fast-1 90 20 10.2", "local-9 50 0", "archive-1 40 0"],
        ),
        (
            "SELECT round(days_until_full::numeric, 1)::text FROM virt_datastore_filling('30 days') LIMIT 1",
            &["10.2"],
        ),
        (
            "SELECT concat_ws(' ', platform, name, limits, cpu_usage_percent, memory_usage_percent, vms_on) \
             FROM virt_host_near_limit()",
            &["berlin esx-1 cpu, memory 85 93 2"],
        ),
        (
            "SELECT name || ' ' || limits FROM virt_host_near_limit('2 days', 40, 60, 0.5)",
            &["esx-1 cpu, memory, ready", "esx-2 cpu, memory, ready"],
        ),
        (
            "SELECT concat_ws(' ', day = (now() AT TIME ZONE 'UTC')::date - 1, platform, entity_kind, reason, gaps, entities, missing) \
             FROM virt_collection_gap_by_day() WHERE reason = 'expired'",
            &[
                "t berlin host expired 3 3 06:00:00",
                "t berlin vm expired 4 4 08:00:00",
            ],
        ),
    ] {
        assert_eq!(fixture.texts(question).await, *answer, "{question}");
    }
    // Over midnight a gap counts on both days, and its time is told once.
    fixture
        .sql
        .batch_execute(
            "DELETE FROM virt_collection_gap; \
             INSERT INTO virt_collection_gap (platform_id, entity_kind, entity_id, from_time, to_time, state) \
             SELECT 1, 'vm', 1, midnight - INTERVAL '30 minutes', midnight + INTERVAL '10 seconds', 'open' \
             FROM date_trunc('day', now(), 'UTC') AS midnight",
        )
        .await
        .unwrap();
    assert_eq!(
        fixture
            .texts("SELECT concat_ws(' ', state, coalesce(reason, '?'), missing) FROM virt_collection_gap_by_day()")
            .await,
        ["open ? 00:00:10", "open ? 00:30:00"]
    );
}

#[tokio::test]
async fn the_last_hour_of_a_host_is_found_by_its_name_through_the_index() {
    let fixture = Fixture::site().await;
    let samples = "SELECT collected_at, cpu_usage_percent, memory_usage_percent FROM virt_host_samples \
                   WHERE name = 'esx-1' AND collected_at > now() - INTERVAL '1 hour' ORDER BY collected_at";
    let rows = fixture.sql.query(samples, &[]).await.unwrap();
    assert!((179..=180).contains(&rows.len()), "{}", rows.len());
    assert!(
        rows.iter()
            .all(|row| (row.get::<_, f32>(1), row.get::<_, f32>(2)) == (85.0, 93.0))
    );
    let named = "SELECT DISTINCT concat_ws(' ', platform, cluster, host, name, vcpu_count) FROM virt_vm_samples \
                 WHERE name = 'web-1' AND collected_at > now() - INTERVAL '10 minutes' ORDER BY 1";
    assert_eq!(
        fixture.texts(named).await,
        ["berlin prod esx-1 web-1 4", "munich esx-9 web-1 2"]
    );

    // Even with days of samples only those of the host are looked at. They reach into the future, as no chunk may be
    // so small that reading all of it is cheaper: that of today is, soon after midnight.
    fixture
        .sql
        .batch_execute(
            "INSERT INTO virt_host_metrics (collected_at, host_id, interval_seconds) \
             SELECT stamp, host_id, 20 FROM virt_host, \
             generate_series(now() - INTERVAL '20 hours', now() - INTERVAL '2 hours', INTERVAL '20 s') AS stamp; \
             INSERT INTO virt_host_metrics (collected_at, host_id, interval_seconds) \
             SELECT stamp, host_id, 20 FROM virt_host, \
             generate_series(now() + INTERVAL '20 s', date_trunc('day', now(), 'UTC') + INTERVAL '47 hours', \
                             INTERVAL '20 s') AS stamp; \
             ANALYZE",
        )
        .await
        .unwrap();
    let plan = fixture.texts(&format!("EXPLAIN {samples}")).await.join("\n");
    assert!(
        plan.contains("_virt_host_metrics_key") && !plan.contains("Seq Scan on _hyper"),
        "{plan}"
    );
    let latest = fixture
        .texts("EXPLAIN SELECT * FROM virt_vm_latest")
        .await
        .join("\n");
    assert!(
        latest.contains("_virt_vm_metrics_key") && !latest.contains("Seq Scan on _hyper"),
        "{latest}"
    );
}
