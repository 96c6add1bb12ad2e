//! Inventory.

use super::*;
use virt_collector::store::registry::Address;

/// The versions of all inventory rows: another one means that the row was written.
async fn versions(platform: &Platform) -> Vec<(String, String)> {
    let sql = "SELECT moref, ctid::text || xmin::text || xmax::text FROM virt_host UNION ALL \
               SELECT moref, ctid::text || xmin::text || xmax::text FROM virt_vm ORDER BY 1";
    let rows = platform.fixture.sql.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn only_changed_objects_are_written() {
    let platform = Platform::new().await;
    let before = versions(&platform).await;
    let known = platform
        .store
        .sync_inventory(&platform.lease, &inventory(), stamp(0))
        .await
        .unwrap();
    assert_eq!(
        versions(&platform).await,
        before,
        "nothing changed, nothing is written or locked"
    );
    assert_eq!((known.hosts.len(), known.vms.len()), (2, 3));

    let mut changed = inventory();
    changed.vms[1].name = Some("renamed".to_owned());
    changed.hosts[1].maintenance = true;
    platform
        .store
        .sync_inventory(&platform.lease, &changed, stamp(20))
        .await
        .unwrap();
    let after = versions(&platform).await;
    let written: Vec<&str> = before
        .iter()
        .zip(&after)
        .filter(|(b, a)| b != a)
        .map(|(b, _)| b.0.as_str())
        .collect();
    assert_eq!(written, ["host-2", "vm-2"]);
    // Keys are not used up by rows that are there already.
    let next: i64 = platform
        .fixture
        .number("SELECT last_value FROM virt_vm_vm_id_seq")
        .await;
    assert_eq!(next, 3);
}

/// The shortest of a few comparisons of so many VMs with as many stored ones, which were never analyzed.
async fn compared(n_vms: usize) -> Duration {
    let platform = Platform::new().await;
    let many = Inventory {
        hosts: inventory().hosts,
        vms: (0..n_vms).map(|n| vm(&format!("vm-{n}"), "host-1")).collect(),
        ..Inventory::default()
    };
    let mut shortest = Duration::MAX;
    for round in 0..4 {
        let start = Instant::now();
        let known = platform
            .store
            .sync_inventory(&platform.lease, &many, stamp(round))
            .await
            .unwrap();
        assert_eq!(known.vms.len(), n_vms);
        // The first one writes.
        if round > 0 {
            shortest = shortest.min(start.elapsed());
        }
    }
    shortest
}

#[tokio::test]
async fn a_large_inventory_is_compared_in_proportion_to_its_size_also_before_the_first_analyze() {
    let (few, many) = (compared(1_000).await, compared(10_000).await);
    // Every object against every other costs a hundred times as much.
    assert!(many < few * 40, "1,000: {few:?}, 10,000: {many:?}");
}

#[tokio::test]
async fn a_property_that_is_missing_keeps_its_value_but_a_state_does_not() {
    let platform = Platform::new().await;
    let bare = Inventory {
        hosts: vec![
            Host {
                name: None,
                uuid: None,
                threads: None,
                power: PowerState::Unknown,
                connected: false,
                ..host("host-1")
            },
            host("host-2"),
        ],
        vms: vec![
            Vm {
                name: None,
                instance_uuid: None,
                bios_uuid: None,
                vcpus: None,
                memory_mib: None,
                power: PowerState::Unknown,
                host: None,
                ..vm("vm-1", "host-1")
            },
            vm("vm-2", "host-1"),
            vm("vm-3", "host-2"),
        ],
        ..Inventory::default()
    };
    let known = platform
        .store
        .sync_inventory(&platform.lease, &bare, stamp(0))
        .await
        .unwrap();
    assert_eq!(known.vms[0].placement, None);
    let row = platform
        .fixture
        .sql
        .query_one(
            "SELECT h.name, h.hardware_uuid, h.thread_count, h.power_state, h.is_connected, v.name, v.instance_uuid, \
             v.vcpu_count, v.memory_mib, v.power_state, v.host_id, v.host_since IS NULL \
             FROM virt_host h, virt_vm v WHERE h.moref = 'host-1' AND v.moref = 'vm-1'",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "name of host-1");
    assert_eq!(row.get::<_, &str>(1), "uuid of host-1");
    assert_eq!(
        (row.get::<_, i32>(2), row.get::<_, &str>(3), row.get::<_, bool>(4)),
        (32, "unknown", false)
    );
    assert_eq!(
        (row.get::<_, &str>(5), row.get::<_, &str>(6)),
        ("name of vm-1", "instance of vm-1")
    );
    assert_eq!((row.get::<_, i32>(7), row.get::<_, i64>(8)), (4, 8192));
    assert_eq!(
        (
            row.get::<_, &str>(9),
            row.get::<_, Option<i32>>(10),
            row.get::<_, bool>(11)
        ),
        ("unknown", None, true)
    );
}

#[tokio::test]
async fn placement_counts_from_when_it_was_first_seen() {
    let platform = Platform::new().await;
    let sync = async |vms: Vec<Vm>, seconds| {
        let inventory = Inventory {
            hosts: inventory().hosts,
            vms,
            ..Inventory::default()
        };
        let known = platform
            .store
            .sync_inventory(&platform.lease, &inventory, stamp(seconds))
            .await
            .unwrap();
        known.vms[0].placement
    };
    let [first, second] = [platform.hosts[0], platform.hosts[1]];
    let others = || vec![vm("vm-2", "host-1"), vm("vm-3", "host-2")];
    let on = |host: &str| [vec![vm("vm-1", host)], others()].concat();
    assert_eq!(
        sync(on("host-1"), 0).await,
        Some((first, stamp(-7200))),
        "since first contact"
    );
    assert_eq!(sync(on("host-2"), 20).await, Some((second, stamp(20))), "moved");
    assert_eq!(sync(on("host-2"), 40).await, Some((second, stamp(20))));
    assert_eq!(
        sync(on("host-9"), 60).await,
        None,
        "a host that is not in the reading"
    );
    assert_eq!(sync(on("host-2"), 80).await, Some((second, stamp(80))));
    sync(others(), 100).await;
    assert_eq!(
        sync(on("host-2"), 120).await,
        Some((second, stamp(120))),
        "back after it was gone"
    );
}

#[tokio::test]
async fn what_vanishes_is_marked_never_deleted_and_an_empty_reading_removes_nothing() {
    let platform = Platform::new().await;
    let removed = async || {
        let sql = "SELECT moref FROM virt_host WHERE removed_at IS NOT NULL UNION ALL \
                   SELECT moref FROM virt_vm WHERE removed_at IS NOT NULL ORDER BY 1";
        let rows = platform.fixture.sql.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect::<Vec<String>>()
    };
    let sync = async |inventory: &Inventory, seconds| {
        platform
            .store
            .sync_inventory(&platform.lease, inventory, stamp(seconds))
            .await
            .unwrap()
    };
    let known = sync(&Inventory::default(), 0).await;
    assert!(known.hosts.is_empty() && known.vms.is_empty());
    assert_eq!(removed().await, Vec::<String>::new());

    let mut less = inventory();
    less.vms.remove(0);
    less.hosts.remove(1);
    let known = sync(&less, 20).await;
    assert_eq!((known.hosts.len(), known.vms.len()), (1, 2));
    assert_eq!(removed().await, ["host-2", "vm-1"]);
    let at = "SELECT extract(epoch FROM removed_at)::bigint FROM virt_vm WHERE moref = 'vm-1'";
    assert_eq!(platform.fixture.number(at).await, NOON + 20);
    // Seen as gone once is enough: the time stays.
    sync(&less, 40).await;
    assert_eq!(platform.fixture.number(at).await, NOON + 20);

    let known = sync(&inventory(), 60).await;
    assert_eq!(removed().await, Vec::<String>::new());
    assert_eq!(known.vms[0].id, platform.vms[0], "the same row again");

    // Without any host, but with VMs: the hosts were not shown.
    sync(
        &Inventory {
            hosts: Vec::new(),
            vms: inventory().vms,
            ..Inventory::default()
        },
        80,
    )
    .await;
    assert_eq!(removed().await, Vec::<String>::new());
    // The last VM of a platform may well be deleted.
    sync(
        &Inventory {
            hosts: inventory().hosts,
            vms: Vec::new(),
            ..Inventory::default()
        },
        100,
    )
    .await;
    assert_eq!(removed().await, ["vm-1", "vm-2", "vm-3"]);
}

#[tokio::test]
async fn an_object_that_is_shown_twice_and_odd_names_are_stored_once_and_whole() {
    let platform = Platform::new().await;
    let mut odd = inventory();
    odd.vms.push(Vm {
        name: Some("caf\u{e9} \0'; DROP TABLE virt_vm --".to_owned()),
        ..vm("vm-1", "host-1")
    });
    let known = platform
        .store
        .sync_inventory(&platform.lease, &odd, stamp(0))
        .await
        .unwrap();
    assert_eq!(known.vms.len(), 3);
    let row = platform
        .fixture
        .sql
        .query_one("SELECT name FROM virt_vm WHERE moref = 'vm-1'", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "caf\u{e9} '; DROP TABLE virt_vm --");
}

#[tokio::test]
async fn the_same_reference_on_two_platforms_is_two_objects() {
    let platform = Platform::new().await;
    let lease = platform.other().await;
    let known = platform
        .store
        .sync_inventory(&lease, &inventory(), stamp(0))
        .await
        .unwrap();
    assert!(known.vms.iter().all(|vm| !platform.vms.contains(&vm.id)));
    assert_eq!(
        known.vms[0].placement.map(|(host, _)| host),
        Some(known.hosts[0].id)
    );
}

#[tokio::test]
async fn a_platform_keeps_its_key_and_its_identity() {
    let platform = Platform::new().await;
    let (store, lease) = (&platform.store, &platform.lease);
    let address = Address::new(PlatformKind::VCenter, "vc.example.com", 8443);
    let again = store.provision_platform("lab", &address).await.unwrap().unwrap();
    let revision = "SELECT revision FROM virt_platform";
    let before = platform.fixture.number(revision).await;
    assert!(!store.describe_platform(lease, &address).await.unwrap());
    assert_eq!(platform.fixture.number(revision).await, before + 1);
    assert!(!store.describe_platform(lease, &address).await.unwrap());
    assert_eq!(
        platform.fixture.number(revision).await,
        before + 1,
        "nothing changed"
    );
    assert_eq!(again, lease.platform);
    let row = platform
        .fixture
        .sql
        .query_one("SELECT host, port FROM virt_platform", &[])
        .await
        .unwrap();
    assert_eq!(
        (row.get::<_, &str>(0), row.get::<_, i32>(1)),
        ("vc.example.com", 8443)
    );

    assert_eq!(store.pin_identity(lease, "uuid-1").await.unwrap(), Pinned::First);
    assert_eq!(store.pin_identity(lease, "uuid-1").await.unwrap(), Pinned::Same);
    assert_eq!(
        store.pin_identity(lease, "uuid-2").await.unwrap(),
        Pinned::Other("uuid-1".to_owned())
    );
    assert_eq!(store.pin_identity(lease, "uuid-1").await.unwrap(), Pinned::Same);
}

#[tokio::test]
async fn every_status_can_be_stored_and_its_time_is_that_of_the_change() {
    let platform = Platform::new().await;
    let set = async |status: PlatformStatus| {
        platform.store.set_status(&platform.lease, &status).await.unwrap();
        let sql = "SELECT status, status_class, status_reason, version, \
                   extract(epoch FROM status_since)::float8, last_success_at IS NOT NULL FROM virt_platform";
        let row = platform.fixture.sql.query_one(sql, &[]).await.unwrap();
        let words: [Option<String>; 4] = [0, 1, 2, 3].map(|column| row.get(column));
        (words, row.get::<_, f64>(4), row.get::<_, bool>(5))
    };
    for class in ErrorClass::ALL {
        let status = PlatformStatus {
            reason: Some("why".to_owned()),
            ..PlatformStatus::of(PlatformState::Error(class))
        };
        let (words, _, succeeded) = set(status).await;
        assert_eq!(
            words[..3],
            ["error", class.as_str(), "why"].map(|word| Some(word.to_owned()))
        );
        assert!(!succeeded);
    }
    let connected = PlatformStatus {
        version: Some("8.0.3".to_owned()),
        ..PlatformStatus::of(PlatformState::Connected)
    };
    let (_, since, succeeded) = set(connected).await;
    assert!(succeeded);
    let (words, still, _) = set(PlatformStatus::of(PlatformState::Connected)).await;
    assert_eq!(words[3].as_deref(), Some("8.0.3"), "what is not known now stays");
    assert!((since - still).abs() < 1e-6, "the same state: the same time");
    for state in [PlatformState::Maintenance, PlatformState::Disconnected] {
        assert_eq!(
            set(PlatformStatus::of(state)).await.0[0].as_deref(),
            Some(state.as_str())
        );
    }
    let nobody = Lease {
        platform: PlatformId(99),
        ..platform.lease.clone()
    };
    let error = platform
        .store
        .set_status(&nobody, &PlatformStatus::of(PlatformState::Connected))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Fenced { .. }));
}

#[tokio::test]
async fn vms_that_share_a_name_and_a_bios_uuid_are_two_and_one_that_was_registered_again_is_another() {
    let platform = Platform::new().await;
    let named = |moref: &str, instance: &str| Vm {
        name: Some("copy".to_owned()),
        instance_uuid: Some(instance.to_owned()),
        bios_uuid: Some("4200-1".to_owned()),
        ..vm(moref, "host-1")
    };
    let mut copies = inventory();
    copies.vms[0] = named("vm-1", "one");
    copies.vms[1] = named("vm-2", "two");
    let known = platform
        .store
        .sync_inventory(&platform.lease, &copies, stamp(0))
        .await
        .unwrap();
    assert_eq!(
        known.vms.iter().map(|known| known.id).collect::<Vec<_>>(),
        platform.vms
    );

    // Told as the server tells it: one leaves, another enters.
    let again = Inventory {
        vms: vec![named("vm-9", "one")],
        ..Inventory::default()
    };
    let known = platform
        .store
        .store_changes(&platform.lease, &again, &[MoRef::new("vm-1")], stamp(20))
        .await
        .unwrap();
    assert!(!platform.vms.contains(&known.vms[0].id));
    let of = "SELECT string_agg(moref || CASE WHEN removed_at IS NULL THEN '' ELSE ' gone' END, ', ' ORDER BY vm_id) \
              FROM virt_vm WHERE name = 'copy' AND bios_uuid = '4200-1'";
    let all: String = platform.fixture.sql.query_one(of, &[]).await.unwrap().get(0);
    assert_eq!(all, "vm-1 gone, vm-2, vm-9");
}

#[tokio::test]
async fn ten_thousand_objects_in_one_change_are_all_stored_and_only_they_are_written() {
    const MANY: usize = 10_000;
    let platform = Platform::new().await;
    let vms = |names: &str| Inventory {
        vms: (10..10 + MANY)
            .map(|n| Vm {
                name: Some(format!("{names}-{n}")),
                ..vm(&format!("vm-{n}"), "host-1")
            })
            .collect(),
        ..Inventory::default()
    };
    let store = async |changed: &Inventory, gone: &[MoRef], at: i64| {
        platform
            .store
            .store_changes(&platform.lease, changed, gone, stamp(at))
            .await
            .unwrap()
    };
    store(&vms("new"), &[], 0).await;
    let known = store(&vms("renamed"), &[], 20).await;
    assert_eq!(known.vms.len(), MANY);
    assert!(known.vms.iter().all(|known| known.placement.is_some()));
    let renamed = "SELECT count(*) FROM virt_vm WHERE name LIKE 'renamed-%' AND removed_at IS NULL";
    assert_eq!(platform.fixture.number(renamed).await, 10_000);
    let gone: Vec<MoRef> = vms("").vms.into_iter().map(|vm| vm.moref).collect();
    store(&Inventory::default(), &gone, 40).await;
    let there = "SELECT count(*) FROM virt_vm WHERE removed_at IS NULL";
    assert_eq!(
        platform.fixture.number(there).await,
        3,
        "the others are as they were"
    );
    let placed = "SELECT count(*) FROM virt_vm_placement WHERE to_time IS NULL";
    assert_eq!(platform.fixture.number(placed).await, 3);
}
