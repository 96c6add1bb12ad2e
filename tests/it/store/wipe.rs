//! Everything of one platform, and nothing of another.

use std::sync::Mutex;

use virt_collector::store::wipe::{Step, wipe};

use super::*;

/// Tables that no platform is in.
const SHARED: [&str; 4] = [
    "virt_schema_migration",
    "virt_collector",
    "virt_api_token",
    "virt_retention",
];

/// How a row of each table is known to be a platform's.
fn condition(table: &str) -> &'static str {
    match table {
        "virt_platform" => "TRUE",
        table if table.starts_with("virt_host_metrics") => {
            "host_id IN (SELECT host_id FROM virt_host WHERE platform_id = $1)"
        }
        table if table.starts_with("virt_datastore_metrics") => {
            "datastore_id IN (SELECT datastore_id FROM virt_datastore WHERE platform_id = $1)"
        }
        table if table.starts_with("virt_vm_") => {
            "vm_id IN (SELECT vm_id FROM virt_vm WHERE platform_id = $1)"
        }
        "virt_api_idempotency" => {
            "operation_id IN (SELECT operation_id FROM virt_operation WHERE platform_id = $1)"
        }
        _ => "platform_id = $1",
    }
}

impl Fixture {
    async fn tables(&self) -> Vec<String> {
        self.texts(
            "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' \
             AND relname LIKE 'virt%' AND relname <> 'virt_audit_log' ORDER BY 1",
        )
        .await
    }

    /// Number and checksum of a platform's rows in each table.
    async fn rows_of(&self, platform: i32) -> BTreeMap<String, (i64, String)> {
        let mut all = BTreeMap::new();
        for table in self.tables().await {
            if SHARED.contains(&table.as_str()) {
                continue;
            }
            let condition = condition(&table).replace("$1", &platform.to_string());
            let condition = if table == "virt_platform" {
                format!("platform_id = {platform}")
            } else {
                condition
            };
            let row = self
                .sql
                .query_one(
                    &format!(
                        "SELECT count(*), coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM {table} AS t WHERE {condition}"
                    ),
                    &[],
                )
                .await
                .unwrap_or_else(|error| panic!("{table}: {error:?}"));
            all.insert(table, (row.get(0), row.get(1)));
        }
        all
    }

    /// The small site, with a row of both platforms in every table.
    async fn full_site() -> Self {
        let fixture = Self::site().await;
        fixture
            .sql
            .batch_execute(
                "INSERT INTO virt_rollup_pending SELECT now(), now(), platform_id, 'vm', '5m', NULL FROM virt_platform; \
                 INSERT INTO virt_collection_gap (platform_id, entity_kind, entity_id, from_time, state) \
                 VALUES (2, 'vm', 8, now() - INTERVAL '5 minutes', 'open'); \
                 INSERT INTO virt_platform_lease SELECT platform_id, 'gone', 1, now() FROM virt_platform; \
                 INSERT INTO virt_platform_credential SELECT platform_id, 'k', 'x' FROM virt_platform; \
                 INSERT INTO virt_datacenter (platform_id, moref, name, first_seen_at) VALUES (2, 'datacenter-2', 'ha', now()); \
                 INSERT INTO virt_cluster (platform_id, moref, name, first_seen_at) VALUES (2, 'domain-c8', 'prod', now()); \
                 INSERT INTO virt_resource_pool (platform_id, moref, name, first_seen_at) VALUES (2, 'resgroup-1', 'R', now()); \
                 INSERT INTO virt_api_token (name, role, key_id, mac, expires_at) VALUES ('t', 'admin', 'k', 'x', now()); \
                 INSERT INTO virt_operation (operation_id, platform_id, vm_id, action, requested_by, request_id) \
                 SELECT gen_random_uuid(), platform_id, vm_id, 'power_on', 't', 'r' FROM virt_vm WHERE name = 'web-1'; \
                 INSERT INTO virt_api_idempotency SELECT 1, platform_id::text, 'x', operation_id FROM virt_operation; \
                 INSERT INTO virt_audit_log (entry, actor, request_id, action, platform) VALUES ('intent', 't', 'r', 'power_on', 'berlin')",
            )
            .await
            .unwrap();
        // Where the edition has it, samples lie in compressed chunks.
        if fixture.store("probe").probe().await.unwrap().edition == Edition::Community {
            fixture
                .sql
                .batch_execute(
                    "ALTER TABLE virt_vm_metrics SET (timescaledb.compress, timescaledb.compress_segmentby = 'vm_id'); \
                     SELECT compress_chunk(chunk) FROM show_chunks('virt_vm_metrics') AS chunk",
                )
                .await
                .unwrap();
        }
        fixture
    }

    async fn remove(&self, name: &str) {
        self.sql
            .batch_execute(&format!(
                "UPDATE virt_platform SET removed_at = now() WHERE name = '{name}'"
            ))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn what_is_collected_is_not_wiped() {
    let fixture = Fixture::full_site().await;
    let owner = fixture.settings(Role::Owner, "wipe");
    let before = (fixture.rows_of(1).await, fixture.rows_of(2).await);
    let refused = async |name: &str, part: &str| {
        let error = wipe(&owner, name, |_| ()).await.unwrap_err();
        assert!(said(&error).contains(part), "{part}\n{}", said(&error));
    };
    refused(
        "berlin",
        "remove it (virt-collector platform remove berlin) or pause it",
    )
    .await;
    refused("rome", "does not exist").await;
    // Removed, but its collector has not let go yet.
    fixture.remove("berlin").await;
    fixture
        .sql
        .batch_execute("UPDATE virt_platform_lease SET until = now() + INTERVAL '20 s'")
        .await
        .unwrap();
    refused("berlin", "is still held").await;
    // The service may not do it.
    let writer = fixture.settings(Role::Writer, "wipe");
    let error = wipe(&writer, "berlin", |_| ()).await.unwrap_err();
    assert!(
        said(&error).contains("may not act as virt_owner"),
        "{}",
        said(&error)
    );
    fixture
        .sql
        .batch_execute(
            "UPDATE virt_platform SET removed_at = NULL; UPDATE virt_platform_lease SET until = '2026-01-01'",
        )
        .await
        .unwrap();
    let rows =
        |all: &BTreeMap<String, (i64, String)>| -> Vec<i64> { all.values().map(|(rows, _)| *rows).collect() };
    assert_eq!(rows(&fixture.rows_of(1).await), rows(&before.0));
    assert_eq!(rows(&fixture.rows_of(2).await), rows(&before.1));
}

#[tokio::test]
async fn a_removed_platform_goes_with_everything_and_no_row_of_another_is_touched() {
    let fixture = Fixture::full_site().await;
    fixture.remove("berlin").await;
    let (berlin, munich) = (fixture.rows_of(1).await, fixture.rows_of(2).await);
    for rows in [&berlin, &munich] {
        let empty: Vec<&String> = rows
            .iter()
            .filter(|(_, (n, _))| *n == 0)
            .map(|(table, _)| table)
            .collect();
        assert!(empty == ["virt_vm_snapshot"] || empty.is_empty(), "{empty:?}");
    }
    let done = wipe(&fixture.settings(Role::Owner, "wipe"), "berlin", |_| ())
        .await
        .unwrap();
    assert!(done.is_gone);
    for (table, (rows, _)) in fixture.rows_of(1).await {
        assert_eq!(rows, 0, "{table}");
    }
    assert_eq!(fixture.rows_of(2).await, munich);
    // Rows of VMs and hosts that are nobody's any more.
    for kind in ["vm", "host", "datastore"] {
        for level in ["", "_5m", "_1h", "_1d"] {
            let orphans = format!(
                "SELECT count(*) FROM virt_{kind}_metrics{level} AS m LEFT JOIN virt_{kind} AS e USING ({kind}_id) \
                 WHERE e.{kind}_id IS NULL"
            );
            assert_eq!(fixture.number(&orphans).await, 0, "{kind}{level}");
        }
    }
    // What was counted is what was there; the lease and the platform itself go without being counted.
    for (table, (rows, _)) in &berlin {
        if !["virt_platform", "virt_platform_lease"].contains(&table.as_str()) {
            let told = done.rows.get(table.as_str()).copied().unwrap_or(0);
            assert_eq!(i64::try_from(told).unwrap(), *rows, "{table}");
        }
    }
    let log = "SELECT concat_ws(' ', entry, actor, action, platform, outcome, after ->> 'gone', \
               (after -> 'deleted' ->> 'virt_vm_metrics')::int > 0) FROM virt_audit_log ORDER BY audit_id";
    assert_eq!(
        fixture.texts(log).await,
        [
            "intent t power_on berlin",
            "intent command platform.wipe berlin",
            "outcome command platform.wipe berlin ok true t"
        ]
    );
}

#[tokio::test]
async fn a_wipe_that_was_killed_goes_on_and_a_platform_in_maintenance_starts_anew() {
    let fixture = Fixture::full_site().await;
    fixture
        .sql
        .batch_execute(
            "UPDATE virt_platform SET in_maintenance = true, status = 'maintenance', identity = 'that one' \
             WHERE name = 'berlin'",
        )
        .await
        .unwrap();
    let munich = fixture.rows_of(2).await;
    let samples = fixture.number("SELECT count(*) FROM virt_vm_metrics").await;
    let owner = fixture.settings(Role::Owner, "wipe");
    // Killed once the samples of VMs are gone: the future is dropped at its next wait.
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let stop = Mutex::new(Some(stop));
    let tell = |step: &Step| {
        if step.table == "virt_vm_metrics"
            && let Some(stop) = stop.lock().unwrap().take()
        {
            stop.send(()).unwrap();
        }
    };
    tokio::select! {
        biased;
        _ = stopped => {}
        done = wipe(&owner, "berlin", tell) => panic!("not killed: {done:?}"),
    }
    assert!(fixture.number("SELECT count(*) FROM virt_vm_metrics").await < samples);
    assert_eq!(
        fixture
            .number("SELECT count(*) FROM virt_vm WHERE platform_id = 1")
            .await,
        7
    );

    // Another run waits until its lease has run out; however long this takes, it has not yet.
    let another = fixture.settings(Role::Owner, "another");
    fixture
        .sql
        .batch_execute(
            "UPDATE virt_platform_lease SET until = now() + INTERVAL '1 hour' WHERE platform_id = 1",
        )
        .await
        .unwrap();
    let error = wipe(&another, "berlin", |_| ()).await.unwrap_err();
    assert!(said(&error).contains("is still held"), "{}", said(&error));
    fixture
        .sql
        .batch_execute("UPDATE virt_platform_lease SET until = now() WHERE platform_id = 1")
        .await
        .unwrap();
    let done = wipe(&another, "berlin", |_| ()).await.unwrap();
    assert!(
        !done.is_gone && !done.rows.contains_key("virt_host_metrics"),
        "{done:?}"
    );
    for (table, (rows, _)) in fixture.rows_of(1).await {
        let stays =
            ["virt_platform", "virt_platform_credential", "virt_platform_lease"].contains(&table.as_str());
        assert_eq!(rows, i64::from(stays), "{table}");
    }
    assert_eq!(fixture.rows_of(2).await, munich);
    let platform = "SELECT concat_ws(' ', name, status, in_maintenance, coalesce(identity, '-')) FROM virt_platform \
                    WHERE platform_id = 1";
    assert_eq!(fixture.texts(platform).await, ["berlin maintenance t -"]);
    assert!(fixture.store("a").registered_platform("berlin").await.is_ok());
}
