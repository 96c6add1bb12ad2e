//! The inventory: what changes on the server is in SQL at once, and nothing goes by mistake.

use std::time::Duration;

use support::database::Role;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use virt_collector::inventory::{Discovery, Health};
use virt_collector::model::filter::Filter;
use virt_collector::store::{Database, Lease, Owner};
use virt_collector::supervise::Tasks;
use virt_collector::supervise::trigger::trigger;
use virt_collector::telemetry::metrics::PlatformMetrics;
use virt_collector::vsphere;
use virt_collector::vsphere::Vsphere;
use vsphere_simulator::rules::{Action, Rule};
use vsphere_simulator::{Event, RingFate};

use crate::rig::{Rig, small};
use crate::thread_log::Log;
use crate::wait;
use virt_collector::store::registry::Address;

/// Waits until a query that counts finds `wanted`; answers how long that took.
async fn counts(client: &tokio_postgres::Client, sql: &str, wanted: i64) -> Duration {
    let start = Instant::now();
    wait::until(sql, async || {
        let found: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
        if found == wanted {
            Ok(())
        } else {
            Err(format!("{found} instead of {wanted}"))
        }
    })
    .await;
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_in_sql_without_another_reading() {
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let client = rig.client().await;
    let (world, calls) = (rig.simulator.world(), rig.simulator.calls());
    let readings = || {
        let full = ["CreateFilter", "CreateContainerView", "RetrievePropertiesEx"];
        full.map(|method| calls.count(method))
    };
    let before = readings();
    let mut took = Vec::new();
    // So many that telling them takes more than one answer.
    let vms = world.running_vms();
    let hosts = world.hosts();
    world.rename(&vms[0], "renamed%2f1").unwrap();
    took.push(
        counts(
            &client,
            "SELECT count(*) FROM virt_vm WHERE name = 'renamed/1'",
            1,
        )
        .await,
    );
    world.power_off(&vms[1]).unwrap();
    let off = format!(
        "SELECT count(*) FROM virt_vm WHERE moref = '{}' AND power_state = 'off'",
        vms[1]
    );
    took.push(counts(&client, &off, 1).await);

    let here = "SELECT h.moref FROM virt_vm v JOIN virt_host h USING (host_id) WHERE v.moref = $1";
    let from: String = client.query_one(here, &[&vms[2]]).await.unwrap().get(0);
    // A placement lasts.
    rig.pass(Duration::from_secs(1));
    let to = hosts.iter().find(|host| **host != from).unwrap();
    world.move_vm(&vms[2], to, RingFate::Kept).unwrap();
    let moved = format!(
        "SELECT count(*) FROM virt_vm_placement p JOIN virt_vm v USING (vm_id) JOIN virt_host h ON h.host_id = p.host_id \
         WHERE v.moref = '{}' AND ((h.moref = '{from}' AND to_time IS NOT NULL) OR (h.moref = '{to}' AND to_time IS NULL))",
        vms[2]
    );
    took.push(counts(&client, &moved, 2).await);

    for name in ["one", "two"] {
        world
            .apply(Event::CreateSnapshot {
                vm: vms[3].clone(),
                name: name.to_owned(),
            })
            .unwrap();
    }
    let tree =
        "SELECT count(*) FROM virt_vm_snapshot_tree WHERE path = 'one / two' AND depth = 2 AND is_current";
    took.push(counts(&client, tree, 1).await);
    world
        .apply(Event::RemoveSnapshot {
            vm: vms[3].clone(),
            name: "one".to_owned(),
        })
        .unwrap();
    took.push(
        counts(
            &client,
            "SELECT count(*) FROM virt_vm_snapshot WHERE removed_at IS NOT NULL",
            1,
        )
        .await,
    );
    took.push(
        counts(
            &client,
            "SELECT count(*) FROM virt_vm_snapshot_tree WHERE path = 'two' AND depth = 1",
            1,
        )
        .await,
    );

    let new = world.create_vm(Some("new"), None).unwrap();
    took.push(
        counts(
            &client,
            "SELECT count(*) FROM virt_vm WHERE name = 'new' AND removed_at IS NULL",
            1,
        )
        .await,
    );
    world.delete_vm(&new).unwrap();
    took.push(
        counts(
            &client,
            "SELECT count(*) FROM virt_vm WHERE name = 'new' AND removed_at IS NOT NULL",
            1,
        )
        .await,
    );
    let parts = "SELECT count(*) FROM virt_vm_disk JOIN virt_vm v USING (vm_id) \
                 WHERE v.name = 'new' AND virt_vm_disk.removed_at IS NULL";
    took.push(counts(&client, parts, 0).await);
    // A wait for changes ends by itself after 20 s, the second reading comes after minutes: whoever were told of nothing
    // would be four times too late. The middle one counts, so that a machine that hangs for a moment is no failure.
    took.sort_unstable();
    let middle = took[took.len() / 2];
    assert!(middle < Duration::from_secs(5), "{took:?}");
    assert_eq!(readings(), before, "nothing was read again");

    // What changes in silence is read at the interval, or on request.
    world
        .apply(Event::SetStatus {
            entity: vms[4].clone(),
            status: "red".to_owned(),
        })
        .unwrap();
    daemon.discover().await;
    counts(
        &client,
        "SELECT count(*) FROM virt_vm WHERE overall_status = 'red'",
        1,
    )
    .await;
    daemon.stop().await;
}

/// In one thread, whose lines are kept.
#[tokio::test]
async fn a_lost_session_ends_in_the_same_state_and_is_no_trouble_to_tell() {
    let log = Log::start();
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let client = rig.client().await;
    let world = rig.simulator.world();
    let vms = world.running_vms();
    rig.simulator.sessions().expire_all();
    world.rename(&vms[0], "meanwhile").unwrap();
    world.create_vm(Some("new"), None).unwrap();
    counts(
        &client,
        "SELECT count(*) FROM virt_vm WHERE name IN ('meanwhile', 'new')",
        2,
    )
    .await;
    world.rename(&vms[0], "after").unwrap();
    counts(&client, "SELECT count(*) FROM virt_vm WHERE name = 'after'", 1).await;
    counts(
        &client,
        "SELECT count(*) FROM virt_vm WHERE removed_at IS NOT NULL",
        0,
    )
    .await;
    assert_eq!(rig.simulator.calls().count("CreateFilter"), 2);
    assert_eq!(log.lines(&["platform in error"]), Vec::<String>::new());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_or_partial_answer_removes_nothing() {
    let rig = Rig::new(small()).await;
    rig.start().await.stop().await;
    let client = rig.client().await;
    let world = rig.simulator.world();
    let all = "SELECT count(*) FROM (SELECT 1 FROM virt_vm WHERE removed_at IS NULL \
               UNION ALL SELECT 1 FROM virt_host WHERE removed_at IS NULL \
               UNION ALL SELECT 1 FROM virt_datastore WHERE removed_at IS NULL) AS every";
    let there: i64 = client.query_one(all, &[]).await.unwrap().get(0);
    assert_eq!(there, 13 + 3 + 2);

    // A server that starts: first it shows nothing, then a part.
    let nothing = "<returnval><version>1</version><truncated>false</truncated></returnval>";
    let body = format!(
        "<soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\"><soapenv:Body>\
         <WaitForUpdatesExResponse xmlns=\"urn:vim25\">{nothing}</WaitForUpdatesExResponse>\
         </soapenv:Body></soapenv:Envelope>"
    );
    let rule = rig.simulator.rules().add(
        Rule::on(
            "WaitForUpdatesEx",
            Action::Body {
                text: body,
                content_type: "text/xml".to_owned(),
            },
        )
        .times(1),
    );
    let daemon = rig.start().await;
    daemon.discover().await;
    counts(&client, all, there).await;
    daemon.stop().await;
    rig.simulator.rules().remove(rule);

    // What went while nobody looked could as well be not there yet.
    world.delete_vm(&world.running_vms()[0]).unwrap();
    let daemon = rig.start().await;
    daemon.discover().await;
    counts(&client, all, there).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_is_shown_is_in_sql() {
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let client = rig.client().await;
    let whole = [
        "SELECT count(*) FROM virt_datacenter WHERE name = 'DC-1'",
        "SELECT count(*) FROM virt_cluster JOIN virt_datacenter USING (datacenter_id) \
         WHERE host_count = 3 AND effective_host_count = 3 AND total_cpu_mhz > 0 AND total_memory_mib > 0 \
         AND drs_enabled AND ha_enabled AND virt_cluster.overall_status = 'green'",
        "SELECT count(*) FROM virt_resource_pool JOIN virt_cluster USING (cluster_id) \
         WHERE virt_resource_pool.name = 'Resources' AND parent_id IS NULL",
    ];
    for sql in whole {
        counts(&client, sql, 1).await;
    }
    counts(
        &client,
        "SELECT count(*) FROM virt_datastore WHERE cardinality(host_ids) = 3 AND type = 'VMFS' AND is_accessible \
         AND used_bytes = capacity_bytes - free_bytes AND round(usage_percent) = 67 AND used_gb > 6000",
        2,
    )
    .await;
    counts(
        &client,
        "SELECT count(*) FROM virt_host JOIN virt_cluster USING (cluster_id) WHERE management_ip LIKE '10.200.%' \
         AND vendor = 'Synthetic Inc.' AND socket_count > 0 AND core_count > 0 AND cpu_mhz > 0 AND memory_mib > 0 \
         AND virt_host.version = '8.0.3' AND build = '24022510' AND booted_at IS NOT NULL \
         AND connection_state = 'connected'",
        3,
    )
    .await;
    counts(
        &client,
        "SELECT count(*) FROM virt_vm JOIN virt_datacenter USING (datacenter_id) WHERE folder_path = '/DC-1' \
         AND guest_os IS NOT NULL AND committed_bytes > 0 AND (resource_pool_id IS NULL) = is_template",
        13,
    )
    .await;
    counts(
        &client,
        "SELECT count(*) FROM virt_vm_disk WHERE capacity_bytes > 0 AND file LIKE '[datastore-%'",
        26,
    )
    .await;
    counts(
        &client,
        "SELECT count(*) FROM virt_vm_nic JOIN virt_vm USING (vm_id) WHERE type = 'vmxnet3' AND network = 'VM Network' \
         AND mac LIKE '00:50:56:%' AND cardinality(ip_addresses) = \
             CASE tools_running WHEN 'guestToolsRunning' THEN 2 ELSE 0 END",
        13,
    )
    .await;
    counts(
        &client,
        "SELECT count(*) FROM virt_vm_placement WHERE to_time IS NULL",
        13,
    )
    .await;
    counts(
        &client,
        "SELECT count(*) FROM virt_datastore_metrics WHERE capacity_bytes > 0",
        2,
    )
    .await;
    counts(
        &client,
        "SELECT count(DISTINCT cluster_id) FROM virt_cluster_metrics WHERE hosts = 3 AND cpu_usage_mhz > 0",
        1,
    )
    .await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_limits_what_is_stored_and_polled_and_follows_names() {
    let rig = Rig::new(small()).await;
    let client = rig.client().await;
    let world = rig.simulator.world();
    let vms = world.running_vms();
    world.rename(&vms[0], "web-1").unwrap();
    world.rename(&vms[1], "web%2f2").unwrap();
    let filter = |include: &[&str]| {
        let mut config = rig.config();
        let datacenters = vec!["DC-1".to_owned()];
        config.platforms[0].filter = Filter::parse(datacenters, include, &["**/web-9"]).unwrap();
        config
    };
    let daemon = rig.start_with(filter(&["/DC-1/host/**", "/DC-1/vm/web*"])).await;
    let stored = "SELECT count(*) FROM virt_vm WHERE removed_at IS NULL AND name IN ('web-1', 'web/2') AND host_id IS NOT NULL";
    counts(&client, stored, 2).await;
    counts(&client, "SELECT count(*) FROM virt_vm", 2).await;
    counts(
        &client,
        "SELECT count(*) FROM virt_host WHERE removed_at IS NULL",
        3,
    )
    .await;
    let report = daemon.poll().await;
    assert_eq!(report.n_entities, 3 + 2, "{report:?}");

    // A name that comes to match is in, one that ceases to is out, and neither is read again.
    world.rename(&vms[2], "web-3").unwrap();
    counts(
        &client,
        "SELECT count(*) FROM virt_vm WHERE name = 'web-3' AND removed_at IS NULL",
        1,
    )
    .await;
    world.rename(&vms[0], "db-1").unwrap();
    counts(
        &client,
        "SELECT count(*) FROM virt_vm WHERE name = 'web-1' AND removed_at IS NOT NULL",
        1,
    )
    .await;
    world.rename(&vms[2], "web-9").unwrap();
    counts(
        &client,
        "SELECT count(*) FROM virt_vm WHERE removed_at IS NULL",
        1,
    )
    .await;
    assert_eq!(rig.simulator.calls().count("CreateFilter"), 1);
    daemon.stop().await;

    // A filter that takes nothing is a mistake more often than a wish.
    let daemon = rig.start_with(filter(&["/DC-2/**"])).await;
    daemon.discover().await;
    counts(
        &client,
        "SELECT count(*) FROM virt_vm WHERE removed_at IS NULL",
        1,
    )
    .await;
    counts(
        &client,
        "SELECT count(*) FROM virt_host WHERE removed_at IS NULL",
        3,
    )
    .await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_without_hosts_polls_its_vms_and_a_rename_out_of_all_of_it_removes_nothing() {
    let rig = Rig::new(small()).await;
    let client = rig.client().await;
    let world = rig.simulator.world();
    let vms = world.running_vms();
    world.rename(&vms[0], "web-1").unwrap();
    let mut config = rig.config();
    config.platforms[0].filter = Filter::parse(Vec::new(), &["/DC-1/vm/web*"], &[] as &[&str]).unwrap();
    let daemon = rig.start_with(config).await;
    let report = daemon.poll().await;
    assert_eq!((report.n_entities, report.error), (1, None));
    let stored = "SELECT count(*) FROM virt_vm_metrics JOIN virt_vm USING (vm_id) WHERE name = 'web-1'";
    let n: i64 = client.query_one(stored, &[]).await.unwrap().get(0);
    assert!(n > 0);

    // Rather somebody renamed what the filter names than that all of it is to go.
    world.rename(&vms[0], "db-1").unwrap();
    daemon.discover().await;
    counts(
        &client,
        "SELECT count(*) FROM virt_vm WHERE removed_at IS NULL",
        1,
    )
    .await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn allowed_custom_attributes_are_stored_and_followed_and_no_others() {
    let rig = Rig::new(small()).await;
    let client = rig.client().await;
    let world = rig.simulator.world();
    let vms = world.running_vms();
    let set = |vm: &str, name: &str, value: &str| {
        world
            .apply(Event::SetAttribute {
                vm: vm.to_owned(),
                name: name.to_owned(),
                value: value.to_owned(),
            })
            .unwrap();
    };
    set(&vms[0], "Backup", "a diary that nobody asked for");
    set(&vms[0], "Owner", "K\u{f6}nig & \"S\u{f6}hne\"");
    set(&vms[1], "Backup", "another one");
    let mut config = rig.config();
    config.inventory.custom_attributes = vec!["Owner".to_owned(), "Cost centre".to_owned()];
    let daemon = rig.start_with(config).await;
    let attributes = |wanted: &str| {
        let vm = &vms[0];
        format!("SELECT count(*) FROM virt_vm WHERE moref = '{vm}' AND custom_attributes = '{wanted}'")
    };
    counts(
        &client,
        &attributes("{\"Owner\": \"K\u{f6}nig & \\\"S\u{f6}hne\\\"\"}"),
        1,
    )
    .await;
    let with = "SELECT count(*) FROM virt_vm WHERE custom_attributes IS NOT NULL";
    counts(&client, with, 1).await;

    set(&vms[0], "Owner", "Meyer");
    set(&vms[0], "Cost centre", "4711");
    counts(
        &client,
        &attributes("{\"Owner\": \"Meyer\", \"Cost centre\": \"4711\"}"),
        1,
    )
    .await;
    // A value that goes, and a name that is another one.
    set(&vms[0], "Owner", "");
    counts(&client, &attributes("{\"Cost centre\": \"4711\"}"), 1).await;
    let rename = |name: &str, to: &str| {
        let (name, to) = (name.to_owned(), to.to_owned());
        world.apply(Event::RenameAttribute { name, to }).unwrap();
    };
    rename("Cost centre", "Kostenstelle");
    counts(&client, with, 0).await;
    rename("Kostenstelle", "Owner 2");
    rename("Owner", "Former owner");
    rename("Owner 2", "Owner");
    counts(&client, &attributes("{\"Owner\": \"4711\"}"), 1).await;
    daemon.stop().await;

    // Who is no longer allowed is no longer stored.
    let daemon = rig.start().await;
    daemon.discover().await;
    counts(&client, with, 0).await;
    daemon.stop().await;
}

/// The inventory loop alone, over the rig's platform.
struct Loop {
    database: Database,
    lease: Lease,
    tasks: Tasks,
}

impl Loop {
    async fn start(rig: &Rig, confirm: Duration) -> Self {
        let config = rig.config();
        let platform = config.platforms.first().unwrap();
        let database = rig.store();
        let id = database
            .provision_platform(
                &platform.name,
                &Address::new(platform.kind, &platform.host, platform.port),
            )
            .await
            .unwrap()
            .unwrap();
        let lease = database
            .acquire_lease(id, &Owner::random())
            .await
            .unwrap()
            .unwrap();
        // Nobody renews it here.
        let sql = rig.database.connect(Role::Superuser).await.unwrap();
        sql.batch_execute("UPDATE virt_platform_lease SET until = 'infinity'")
            .await
            .unwrap();
        let options = vsphere::Options::new(platform, &config.collection);
        let (_trigger, triggered) = trigger();
        let discovery = Discovery {
            lease: lease.clone(),
            interval: Duration::from_secs(3600),
            confirm,
            filter: Filter::default(),
            attributes: Vec::new(),
            vsphere: Vsphere::new(options).unwrap(),
            database: database.clone(),
            inventory: watch::channel(None).0,
            health: watch::channel(Health::Unknown).0,
            lost: CancellationToken::new(),
            triggered,
            metrics: PlatformMetrics::new("lab"),
        };
        let tasks = Tasks::new();
        tasks.spawn("discovery", discovery.run(tasks.stopping()));
        Self {
            database,
            lease,
            tasks,
        }
    }

    async fn stop(self) {
        self.tasks.stop();
        assert!(self.tasks.join(Duration::from_secs(60)).await.is_empty());
        self.database.release_lease(&self.lease).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stays_missing_is_gone_with_the_second_reading_and_not_with_the_first() {
    let rig = Rig::new(small()).await;
    rig.start().await.stop().await;
    let client = rig.client().await;
    let gone = "SELECT count(*) FROM virt_vm WHERE removed_at IS NOT NULL";
    let world = rig.simulator.world();
    let calls = rig.simulator.calls();
    let readings = async |wanted: u64| {
        wait::until("complete readings", async || match calls.count("CreateFilter") {
            found if found >= wanted => Ok(()),
            found => Err(format!("{found} of {wanted}")),
        })
        .await;
    };
    world.delete_vm(&world.running_vms()[0]).unwrap();

    // Two readings within an hour, which is how long this loop waits, are as good as one.
    let before = calls.count("CreateFilter");
    let long = Loop::start(&rig, Duration::from_secs(3600)).await;
    readings(before + 1).await;
    rig.simulator.sessions().expire_all();
    readings(before + 2).await;
    // It has stored what it read when it tells of a change.
    world.rename(&world.running_vms()[0], "changed").unwrap();
    counts(&client, "SELECT count(*) FROM virt_vm WHERE name = 'changed'", 1).await;
    counts(&client, gone, 0).await;
    long.stop().await;

    let short = Loop::start(&rig, Duration::from_secs(1)).await;
    counts(&client, gone, 1).await;
    short.stop().await;
}
