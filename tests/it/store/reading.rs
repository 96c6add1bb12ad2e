//! The inventory as the API reads it.

use serde_json::{Value, json};
use virt_collector::store::reading::{
    Cluster, Datastore, Filter, Host as HostRow, Listed, Page, Platform as PlatformRow, Reader, Record,
    Scope, Vm as VmRow, newest_sql,
};

use super::*;

const ALL: Page = Page { after: 0, limit: 500 };

/// Two platforms with 3 hosts and 30 VMs each; every third VM is off, every tenth is gone.
const WORLD: &str = "\
INSERT INTO virt_platform (name, type, host, port) VALUES ('east', 'vcenter', 'e', 443), ('west', 'esxi', 'w', 443);
INSERT INTO virt_datacenter (platform_id, moref, name, first_seen_at)
    SELECT platform_id, 'dc', 'DC', now() FROM virt_platform;
INSERT INTO virt_cluster (platform_id, moref, name, datacenter_id, first_seen_at)
    SELECT platform_id, 'c', 'C of ' || p.name, datacenter_id, now()
    FROM virt_platform p JOIN virt_datacenter USING (platform_id);
INSERT INTO virt_host (platform_id, moref, name, power_state, is_connected, in_maintenance, cluster_id, datacenter_id, first_seen_at)
    SELECT p.platform_id, 'host-' || n, p.name || '-esx' || n, 'on', true, false,
           CASE WHEN n < 3 THEN cluster_id END, c.datacenter_id, now()
    FROM virt_platform p JOIN virt_cluster c USING (platform_id), generate_series(1, 3) n ORDER BY 1, n;
INSERT INTO virt_vm (platform_id, moref, name, power_state, is_connected, host_id, datacenter_id, is_template, first_seen_at, removed_at,
                     custom_attributes)
    SELECT p.platform_id, 'vm-' || n, CASE WHEN n = 7 THEN '100%_Sure' ELSE p.name || '-VM' || n END,
           CASE WHEN n % 3 = 0 THEN 'off' ELSE 'on' END, true, h.host_id, h.datacenter_id, false, now(),
           CASE WHEN n % 10 = 0 THEN now() END, '{\"Owner\": \"me\"}'
    FROM virt_platform p, generate_series(1, 30) n, virt_host h
    WHERE h.platform_id = p.platform_id AND h.moref = 'host-' || (n % 3 + 1) ORDER BY 1, n;
INSERT INTO virt_datastore (platform_id, moref, name, datacenter_id, host_ids, capacity_bytes, free_bytes, first_seen_at)
    SELECT platform_id, 'ds-' || n, 'store' || n, (SELECT datacenter_id FROM virt_datacenter d WHERE d.platform_id = p.platform_id),
           ARRAY(SELECT host_id FROM virt_host h WHERE h.platform_id = p.platform_id AND h.moref = 'host-' || n), 1000, 250, now()
    FROM virt_platform p, generate_series(1, 2) n;
INSERT INTO virt_vm_disk (vm_id, disk_key, file, first_seen_at)
    SELECT vm_id, 2000, '[store1] x/x.vmdk', now() FROM virt_vm WHERE moref IN ('vm-1', 'vm-2');
INSERT INTO virt_vm_disk (vm_id, disk_key, file, first_seen_at)
    SELECT vm_id, 2000, '[store10] x/x.vmdk', now() FROM virt_vm WHERE moref = 'vm-3';";

struct World {
    fixture: Fixture,
    reader: Reader,
}

impl World {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        fixture.sql.batch_execute(WORLD).await.unwrap();
        let reader = Reader::new(&fixture.settings(Role::Writer, "reader")).unwrap();
        Self { fixture, reader }
    }

    async fn list<T: Record>(&self, filter: Filter) -> Listed<T> {
        self.reader.list(&filter, ALL).await.unwrap()
    }

    /// Names of VMs, in order.
    async fn vms(&self, filter: Filter) -> Vec<String> {
        let listed: Listed<VmRow> = self.list(filter).await;
        listed.rows.into_iter().map(|vm| vm.name.unwrap()).collect()
    }

    async fn id(&self, sql: &str) -> i32 {
        self.fixture.sql.query_one(sql, &[]).await.unwrap().get(0)
    }
}

fn scope(names: &[&str]) -> Scope {
    Some(names.iter().map(|name| (*name).to_owned()).collect())
}

fn named(prefix: &str, numbers: impl IntoIterator<Item = i32>) -> Vec<String> {
    let name = |n| match n {
        7 => "100%_Sure".to_owned(),
        n => format!("{prefix}-VM{n}"),
    };
    numbers.into_iter().map(name).collect()
}

#[tokio::test]
async fn filters_of_vms_are_alone_and_together_what_they_say() {
    let world = World::new().await;
    let there = |keep: fn(i32) -> bool| (1..=30).filter(move |n| n % 10 != 0 && keep(*n));
    let east = || Filter {
        scope: scope(&["east"]),
        ..Filter::default()
    };
    assert_eq!(world.vms(east()).await, named("east", there(|_| true)));
    assert_eq!(world.vms(Filter::default()).await.len(), 54);
    let platforms = vec![
        world
            .id("SELECT platform_id FROM virt_platform WHERE name = 'west'")
            .await,
    ];
    let of_west = Filter {
        platforms,
        ..Filter::default()
    };
    assert_eq!(world.vms(of_west.clone()).await, named("west", there(|_| true)));
    // The scope is a limit, whatever is asked for.
    let out_of_scope = Filter {
        scope: scope(&["east", "nowhere"]),
        ..of_west
    };
    assert_eq!(world.vms(out_of_scope).await, Vec::<String>::new());
    let nothing = Filter {
        scope: scope(&[]),
        ..Filter::default()
    };
    assert_eq!(world.vms(nothing).await, Vec::<String>::new());

    let gone = Filter {
        removed: true,
        ..east()
    };
    assert_eq!(world.vms(gone).await, named("east", [10, 20, 30]));
    let off = Filter {
        power_state: Some(PowerState::Off),
        ..east()
    };
    assert_eq!(world.vms(off.clone()).await, named("east", there(|n| n % 3 == 0)));
    let host = world
        .id("SELECT host_id FROM virt_host WHERE name = 'east-esx1'")
        .await;
    let off_on_host = Filter {
        host: Some(host),
        ..off
    };
    assert_eq!(world.vms(off_on_host).await, named("east", there(|n| n % 3 == 0)));
    let cluster = world
        .id("SELECT cluster_id FROM virt_cluster WHERE name = 'C of east'")
        .await;
    let in_cluster = Filter {
        cluster: Some(cluster),
        ..Filter::default()
    };
    assert_eq!(world.vms(in_cluster).await, named("east", there(|n| n % 3 != 2)));
    let store = world
        .id("SELECT datastore_id FROM virt_datastore JOIN virt_platform p USING (platform_id) WHERE p.name = 'east' AND moref = 'ds-1'")
        .await;
    let on_datastore = Filter {
        datastore: Some(store),
        ..Filter::default()
    };
    assert_eq!(world.vms(on_datastore).await, named("east", [1, 2]));
    for (text, expected) in [
        ("VM2", vec![2, 21, 22, 23, 24, 25, 26, 27, 28, 29]),
        ("vm21", vec![21]),
        ("%_", vec![7]),
        ("'; DROP TABLE virt_vm; --", vec![]),
    ] {
        let containing = Filter {
            name_contains: Some(text.to_owned()),
            ..east()
        };
        assert_eq!(world.vms(containing).await, named("east", expected), "{text}");
    }
    for (text, expected) in [
        ("east-VM2", vec![2]),
        ("east-vm2", vec![]),
        ("100%_Sure", vec![7]),
    ] {
        let exactly = Filter {
            name: Some(text.to_owned()),
            ..east()
        };
        assert_eq!(world.vms(exactly).await, named("east", expected), "{text}");
    }
}

#[tokio::test]
async fn filters_of_the_other_objects_are_what_they_say() {
    let world = World::new().await;
    let cluster = world
        .id("SELECT cluster_id FROM virt_cluster WHERE name = 'C of west'")
        .await;
    let filter = Filter {
        cluster: Some(cluster),
        ..Filter::default()
    };
    let hosts: Listed<HostRow> = world.list(filter.clone()).await;
    let names: Vec<_> = hosts
        .rows
        .iter()
        .map(|host| host.name.as_deref().unwrap())
        .collect();
    assert_eq!(names, ["west-esx1", "west-esx2"]);
    let stores: Listed<Datastore> = world.list(filter).await;
    assert_eq!(stores.rows.len(), 2);
    let filter = Filter {
        host: Some(hosts.rows[0].id),
        ..Filter::default()
    };
    let stores: Listed<Datastore> = world.list(filter).await;
    let [store] = &stores.rows[..] else {
        panic!("{stores:?}")
    };
    assert_eq!(
        (store.name.as_deref(), store.used_bytes, store.usage_percent),
        (Some("store1"), Some(750), Some(75.0))
    );
    let filter = Filter {
        datastore: Some(store.id),
        ..Filter::default()
    };
    let mounting: Listed<HostRow> = world.list(filter).await;
    assert_eq!(mounting.rows, hosts.rows[..1]);
    let clusters: Listed<Cluster> = world
        .list(Filter {
            name_contains: Some("EAST".to_owned()),
            ..Filter::default()
        })
        .await;
    assert_eq!(clusters.rows[0].datacenter.as_deref(), Some("DC"));

    // A platform that was removed takes its objects with it.
    world
        .fixture
        .sql
        .batch_execute("UPDATE virt_platform SET removed_at = now(), is_active = false WHERE name = 'west'")
        .await
        .unwrap();
    let platforms: Listed<PlatformRow> = world.list(Filter::default()).await;
    assert_eq!(
        platforms
            .rows
            .iter()
            .map(|platform| (platform.name.as_str(), platform.hosts, platform.vms))
            .collect::<Vec<_>>(),
        [("east", 3, 27)]
    );
    let gone = Filter {
        removed: true,
        ..Filter::default()
    };
    let hosts: Listed<HostRow> = world.list(gone).await;
    assert_eq!(hosts.rows.len(), 3);
    assert!(hosts.rows.iter().all(|host| host.removed_at.is_some()));
}

#[tokio::test]
async fn pages_show_each_row_once_whatever_comes_and_goes_between_them() {
    let world = World::new().await;
    let filter = Filter {
        scope: scope(&["east"]),
        ..Filter::default()
    };
    let mut seen = Vec::new();
    let mut after = 0;
    loop {
        let page: Listed<VmRow> = world
            .reader
            .list(&filter, Page { after, limit: 5 })
            .await
            .unwrap();
        assert!(page.rows.len() <= 5);
        seen.extend(page.rows.iter().map(|vm| vm.id));
        // Rows before and behind where the reader stands go, and one comes.
        world
            .fixture
            .sql
            .batch_execute(
                "UPDATE virt_vm SET removed_at = now() WHERE vm_id = \
                     (SELECT min(vm_id) FROM virt_vm WHERE removed_at IS NULL); \
                 INSERT INTO virt_vm (platform_id, moref, name, power_state, is_connected, is_template, first_seen_at) \
                 SELECT min(platform_id), 'new-' || gen_random_uuid(), 'new', 'on', true, false, now() FROM virt_platform",
            )
            .await
            .unwrap();
        if seen.len() > 40 {
            break;
        }
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    let mut unique = seen.clone();
    unique.dedup();
    assert_eq!(seen, unique);
    assert!(seen.is_sorted());
    let originals = world
        .id("SELECT max(vm_id) FROM virt_vm WHERE name <> 'new'")
        .await;
    assert_eq!(seen.iter().filter(|id| **id <= originals).count(), 27);

    // A list that ends with a full page says so.
    let exact: Listed<Cluster> = world
        .reader
        .list(&Filter::default(), Page { after: 0, limit: 2 })
        .await
        .unwrap();
    assert_eq!((exact.rows.len(), exact.next), (2, None));
}

#[tokio::test]
async fn one_object_is_found_within_the_scope_only_also_when_it_is_gone() {
    let world = World::new().await;
    let gone = world
        .id("SELECT vm_id FROM virt_vm WHERE name = 'east-VM10'")
        .await;
    let vm: Option<VmRow> = world.reader.find(&None, gone).await.unwrap();
    let vm = vm.unwrap();
    assert!(vm.removed_at.is_some());
    let shown = serde_json::to_value(&vm).unwrap();
    assert_eq!(shown["platform"], "east");
    assert_eq!(shown["custom_attributes"], json!({ "Owner": "me" }));
    let names: Vec<&str> = VmRow::FIELDS.iter().map(|field| field.name).collect();
    let members: Vec<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    let mut sorted_members = members.clone();
    sorted_members.sort_unstable();
    assert_eq!(sorted_members, sorted);
    assert!(
        world
            .reader
            .find::<VmRow>(&scope(&["east"]), gone)
            .await
            .unwrap()
            .is_some()
    );
    assert!(
        world
            .reader
            .find::<VmRow>(&scope(&["west"]), gone)
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        world
            .reader
            .find::<VmRow>(&None, i32::MAX)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn no_secret_of_a_platform_is_among_what_is_read() {
    let world = World::new().await;
    world
        .fixture
        .sql
        .batch_execute(
            "INSERT INTO virt_platform_credential (platform_id, key_id, sealed) \
             SELECT platform_id, 'k', '\\x5ea1ed'::bytea FROM virt_platform WHERE name = 'west'",
        )
        .await
        .unwrap();
    let platforms: Listed<PlatformRow> = world.list(Filter::default()).await;
    let shown = serde_json::to_string(&platforms.rows).unwrap();
    assert!(!shown.contains("5ea1ed"), "{shown}");
    // Of config.toml or here.
    assert!(platforms.rows.iter().all(|platform| platform.has_password));
}

#[tokio::test]
async fn the_server_refuses_a_write_on_the_sessions_of_reads_and_ends_what_takes_too_long() {
    let world = World::new().await;
    world.list::<Cluster>(Filter::default()).await;
    let sessions = world
        .fixture
        .number(
            "SELECT count(*) FROM pg_stat_activity \
             WHERE datname = current_database() AND application_name LIKE 'virt-collector/reader/%'",
        )
        .await;
    assert_eq!(sessions, 1);
    // A reader in a transaction that holds a table is waited for by nobody for long.
    world
        .fixture
        .sql
        .batch_execute("BEGIN; LOCK TABLE virt_cluster IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let error = world
        .reader
        .list::<Cluster>(&Filter::default(), ALL)
        .await
        .unwrap_err();
    assert!(said(&error).contains("57014"), "{}", said(&error));
    world.fixture.sql.batch_execute("ROLLBACK").await.unwrap();
    world.list::<Cluster>(Filter::default()).await;
    // A statement that writes, hidden behind a table that is read.
    world
        .fixture
        .sql
        .batch_execute(
            "ALTER TABLE virt_cluster RENAME TO kept; \
             CREATE FUNCTION write() RETURNS boolean LANGUAGE sql VOLATILE AS \
                 'UPDATE virt_platform SET host = name RETURNING true'; \
             CREATE VIEW virt_cluster AS SELECT * FROM kept WHERE write(); \
             GRANT SELECT ON virt_cluster TO virt_writer",
        )
        .await
        .unwrap();
    let error = world
        .reader
        .list::<Cluster>(&Filter::default(), ALL)
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::NotWritable, "{}", said(&error));
}

#[tokio::test]
async fn of_several_servers_reads_find_the_primary_too() {
    let world = World::new().await;
    let url = world.fixture.database.url(Role::Writer);
    let url = url.replacen("host=", "host=/nonexistent,", 1);
    assert!(url.contains("/nonexistent,"), "{url}");
    let reader = Reader::new(&settings_for(&url, "reader").unwrap()).unwrap();
    let listed = reader.list::<Cluster>(&Filter::default(), ALL).await.unwrap();
    assert!(!listed.rows.is_empty());
}

/// All nodes of a plan.
fn nodes(plan: &Value, found: &mut Vec<(String, String)>) {
    let text = |key: &str| plan[key].as_str().unwrap_or_default().to_owned();
    found.push((text("Node Type"), text("Relation Name")));
    for child in plan["Plans"].as_array().into_iter().flatten() {
        nodes(child, found);
    }
}

#[tokio::test]
async fn newest_samples_are_found_by_index_in_the_newest_chunk_at_ten_thousand_vms() {
    let fixture = Fixture::new().await;
    // Three days of chunks; each VM has samples of now, and some of long ago.
    fixture
        .sql
        .batch_execute(
            "INSERT INTO virt_platform (name, type, host, port) VALUES ('east', 'vcenter', 'e', 443); \
             INSERT INTO virt_vm_metrics (collected_at, vm_id, interval_seconds, cpu_usage_percent, memory_active_kib, cpu_usage_mhz) \
             SELECT date_trunc('second', now()) - ago, vm, 20, vm + 0.5, vm * 1000000000::bigint, NULL \
             FROM generate_series(1, 10000) vm, unnest(ARRAY['40 s', '60 s', '1 day', '2 days']::interval[]) ago \
             WHERE vm <> 4 OR ago > '1 hour'; \
             ANALYZE virt_vm_metrics",
        )
        .await
        .unwrap();
    let reader = Reader::new(&fixture.settings(Role::Writer, "reader")).unwrap();
    let ids: Vec<i32> = (1..=500).chain([20_000]).collect();
    let newest = reader.newest(EntityKind::Vm, &ids).await.unwrap();
    assert_eq!(newest.len(), 499);
    assert!(!newest.contains_key(&4), "the newest one is a day old");
    let shown = serde_json::to_value(&newest[&7]).unwrap();
    assert_eq!(shown["cpu_usage_percent"], 7.5);
    assert_eq!(shown["memory_active_kib"], 7_000_000_000_i64);
    assert_eq!(shown["cpu_usage_mhz"], Value::Null);
    assert_eq!(shown["interval_seconds"], 20);
    assert_eq!(
        shown.as_object().unwrap().len(),
        2 + Column::of(EntityKind::Vm).len()
    );
    let age = fixture
        .sql
        .query_one(
            "SELECT (now() - $1::text::timestamptz) BETWEEN '40 s' AND '55 s'",
            &[&shown["collected_at"].as_str().unwrap()],
        )
        .await
        .unwrap();
    assert!(age.get::<_, bool>(0), "{shown}");

    let explain = format!("EXPLAIN (FORMAT JSON, ANALYZE) {}", newest_sql(EntityKind::Vm));
    let explain = explain.replace(
        "$1",
        &format!(
            "'{{{}}}'::int[]",
            ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        ),
    );
    let plan: String = match &fixture.sql.simple_query(&explain).await.unwrap()[1] {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).unwrap().to_owned(),
        other => panic!("{other:?}"),
    };
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let mut found = Vec::new();
    nodes(&plan[0]["Plan"], &mut found);
    let chunks: Vec<_> = found
        .iter()
        .filter(|(_, relation)| relation.starts_with("_hyper"))
        .collect();
    assert!(!chunks.is_empty(), "{found:?}");
    assert!(chunks.iter().all(|(node, _)| node == "Index Scan"), "{found:?}");
    // Around midnight the last minutes lie in two.
    assert!(chunks.len() <= 2, "{found:?}");
}
