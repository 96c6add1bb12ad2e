//! The generated site that dashboards are tried with is one that the daemon could have left.

use support::database::{Database, Role};
use support::day::{self, Size};
use support::loader;
use virt_collector::config;
use virt_collector::store::rollup::Due;
use virt_collector::store::{self, Owner, Settings};

#[tokio::test]
async fn the_generated_day_has_an_unbroken_chain_and_the_roll_ups_that_the_daemon_makes() {
    let database = Database::create().await.unwrap();
    loader::schema(&database).await.unwrap();
    let superuser = database.connect(Role::Superuser).await.unwrap();
    day::fill(&superuser, Size { vms: 20, hours: 6 }).await.unwrap();
    let number = async |sql: &str| superuser.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(number("SELECT count(*) FROM virt_chain_break()").await, 0);
    assert!(number("SELECT count(*) FROM virt_vm_metrics").await > 15_000);

    // An hour of the first platform is made anew.
    let account = config::Account {
        url: database.url(Role::Writer),
        password_file: None,
    };
    let settings = config::Database {
        writer: account.clone(),
        owner: None,
        tls: config::DatabaseTls::Auto { ca_file: None },
    };
    let owner = Owner::new("day").unwrap();
    let store = store::Database::new(Settings::new(&settings, &account, &owner).unwrap()).unwrap();
    let platform = store.registered_platform("berlin").await.unwrap().id;
    superuser
        .batch_execute(
            "DELETE FROM virt_platform_lease;
             CREATE TEMP TABLE made AS
             SELECT 'vm 5m' AS kind, vm_id AS id, collected_at, to_jsonb(m) AS bucket FROM virt_vm_metrics_5m AS m
             UNION ALL SELECT 'host 5m', host_id, collected_at, to_jsonb(m) FROM virt_host_metrics_5m AS m
             UNION ALL SELECT 'datastore 5m', datastore_id, collected_at, to_jsonb(m) FROM virt_datastore_metrics_5m AS m
             UNION ALL SELECT 'vm 1h', vm_id, collected_at, to_jsonb(m) FROM virt_vm_metrics_1h AS m
             UNION ALL SELECT 'host 1h', host_id, collected_at, to_jsonb(m) FROM virt_host_metrics_1h AS m
             UNION ALL SELECT 'datastore 1h', datastore_id, collected_at, to_jsonb(m) FROM virt_datastore_metrics_1h AS m;
             CREATE TEMP TABLE remade AS SELECT time_bucket('1 hour', now() - INTERVAL '3 hours') AS until;
             DELETE FROM made USING remade
             WHERE collected_at <= until - INTERVAL '1 hour' OR collected_at > until
                OR NOT CASE split_part(kind, ' ', 1)
                       WHEN 'vm' THEN id IN (SELECT vm_id FROM virt_vm WHERE platform_id = 1)
                       WHEN 'host' THEN id IN (SELECT host_id FROM virt_host WHERE platform_id = 1)
                       ELSE id IN (SELECT datastore_id FROM virt_datastore WHERE platform_id = 1) END;
             DELETE FROM virt_vm_metrics_5m USING made WHERE kind = 'vm 5m' AND vm_id = id
                AND virt_vm_metrics_5m.collected_at = made.collected_at;
             DELETE FROM virt_host_metrics_5m USING made WHERE kind = 'host 5m' AND host_id = id
                AND virt_host_metrics_5m.collected_at = made.collected_at;
             DELETE FROM virt_datastore_metrics_5m USING made WHERE kind = 'datastore 5m' AND datastore_id = id
                AND virt_datastore_metrics_5m.collected_at = made.collected_at;
             DELETE FROM virt_vm_metrics_1h USING made WHERE kind = 'vm 1h' AND vm_id = id
                AND virt_vm_metrics_1h.collected_at = made.collected_at;
             DELETE FROM virt_host_metrics_1h USING made WHERE kind = 'host 1h' AND host_id = id
                AND virt_host_metrics_1h.collected_at = made.collected_at;
             DELETE FROM virt_datastore_metrics_1h USING made WHERE kind = 'datastore 1h' AND datastore_id = id
                AND virt_datastore_metrics_1h.collected_at = made.collected_at;
             DELETE FROM virt_rollup_pending;
             INSERT INTO virt_rollup_pending (bucket, due_at, platform_id, kind, level)
             SELECT until - INTERVAL '5 minutes' * n, now(), 1, kind, '5m'
             FROM remade, generate_series(0, 11) AS n, unnest(ARRAY['vm', 'host', 'datastore']) AS kind",
        )
        .await
        .unwrap();
    assert_eq!(platform.0, 1);
    let lease = store.acquire_lease(platform, &owner).await.unwrap().unwrap();
    while !store.roll_up(&lease, Due::Whenever).await.unwrap().is_nothing() {}

    // Sums are added up in another order, so their last digits may differ.
    let differences = superuser
        .query(
            "WITH daemon AS (
                 SELECT 'vm 5m' AS kind, vm_id AS id, collected_at, to_jsonb(m) AS bucket FROM virt_vm_metrics_5m AS m
                 UNION ALL SELECT 'host 5m', host_id, collected_at, to_jsonb(m) FROM virt_host_metrics_5m AS m
                 UNION ALL SELECT 'datastore 5m', datastore_id, collected_at, to_jsonb(m)
                           FROM virt_datastore_metrics_5m AS m
                 UNION ALL SELECT 'vm 1h', vm_id, collected_at, to_jsonb(m) FROM virt_vm_metrics_1h AS m
                 UNION ALL SELECT 'host 1h', host_id, collected_at, to_jsonb(m) FROM virt_host_metrics_1h AS m
                 UNION ALL SELECT 'datastore 1h', datastore_id, collected_at, to_jsonb(m)
                           FROM virt_datastore_metrics_1h AS m
             )
             SELECT made.kind || ' ' || cell.key || ': ' || cell.value || ' or ' || coalesce(daemon.bucket ->> cell.key, 'none')
             FROM made
             LEFT JOIN daemon USING (kind, id, collected_at)
             CROSS JOIN LATERAL jsonb_each_text(made.bucket) AS cell
             WHERE cell.key <> 'collected_at' AND cell.value IS DISTINCT FROM daemon.bucket ->> cell.key
               AND coalesce(abs(cell.value::float8 - (daemon.bucket ->> cell.key)::float8)
                            > 1e-9 * abs(cell.value::float8), true)
             LIMIT 5",
            &[],
        )
        .await
        .unwrap();
    let differences: Vec<String> = differences.iter().map(|row| row.get(0)).collect();
    assert!(differences.is_empty(), "{differences:#?}");
    let made = number("SELECT count(*) FROM made").await;
    assert!(made > 100, "{made}");
}
