//! Discovery and samples of whole platforms: the simulator, whose truth is known.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use virt_collector::config::HostDisk;
use virt_collector::error::Chain;
use virt_collector::error::Disposition;
use virt_collector::model::columns::Column;
use virt_collector::model::columns::Instances;
use virt_collector::model::columns::SqlType;
use virt_collector::model::ids::EntityId;
use virt_collector::model::ids::EntityKind;
use virt_collector::model::ids::HostId;
use virt_collector::model::ids::VmId;
use virt_collector::model::inventory::PowerState;
use virt_collector::units::Conversion;
use virt_collector::units::REALTIME_SECONDS;
use virt_collector::units::Stamp;
use virt_collector::vsphere::Error;
use virt_collector::vsphere::Reply;
use virt_collector::vsphere::Target;
use virt_collector::vsphere::Vsphere;
use vsphere_simulator::Action;
use vsphere_simulator::ClockMode;
use vsphere_simulator::Entity;
use vsphere_simulator::EntityKind as TruthKind;
use vsphere_simulator::Rule;
use vsphere_simulator::Simulator;
use vsphere_simulator::Spec;

use crate::soap::Platform;

mod vcsim;

const LOGOUT_DEADLINE: Duration = Duration::from_secs(10);

/// 2026-11-01T00:00:07Z.
const NOW: i64 = 1_793_491_207;

/// A world whose clock stands still.
async fn frozen(spec: Spec) -> (Simulator, Platform) {
    let spec = Spec {
        clock: ClockMode::Frozen { at: NOW * 1_000_000 },
        ..spec
    };
    let simulator = Simulator::start(spec).await.unwrap();
    let platform = Platform::of(&simulator);
    (simulator, platform)
}

/// A target for every running entity, with the key `number` in the order of the truth.
fn targets(simulator: &Simulator, after: Stamp) -> Vec<Target> {
    let truth = simulator.truth();
    let mut targets = Vec::new();
    for (number, entity) in (1..).zip(truth.entities()) {
        let Some(run) = entity.record().runs.last().filter(|run| run.last_stamp.is_none()) else {
            continue;
        };
        if entity.record().template {
            continue;
        }
        let id = match entity.kind() {
            TruthKind::Host => EntityId::from(HostId(number)),
            TruthKind::Vm => EntityId::from(VmId(number)),
        };
        targets.push(Target {
            entity: id,
            moref: virt_collector::model::ids::MoRef::new(entity.moref()),
            cpus: u16::try_from(run.vcpus).unwrap(),
            placement: Some((HostId(77), Stamp::from_seconds(NOW - 100))),
            after,
            until: None,
        });
    }
    targets
}

/// What a column must hold, from the published numbers alone.
fn expected(entity: Entity<'_>, column: &Column, host_disk: HostDisk, stamp: i64, cpus: f64) -> Option<f64> {
    let actual = |name: &str| match host_disk {
        HostDisk::Datastore if entity.kind() == TruthKind::Host => {
            name.replace("storageAdapter.", "datastore.")
        }
        _ => name.to_owned(),
    };
    let counter = actual(column.counter);
    let instances = || {
        entity
            .instances(&counter)
            .into_iter()
            .filter(|name| !name.is_empty())
    };
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let at = |counter: &str, instance: &str| entity.value(counter, instance, stamp).map(|value| value as f64);
    match column.instances {
        Instances::Aggregate => at(&counter, "").map(|raw| match column.conversion {
            Conversion::AsIs => raw,
            Conversion::Hundredths => raw / 100.0,
            Conversion::MebibytesToKibibytes => raw * 1024.0,
            Conversion::PerSecond => raw / 20.0,
            Conversion::PercentOfTimePerCpu => raw / (20_000.0 * cpus) * 100.0,
        }),
        Instances::Sum => instances()
            .filter_map(|name| at(&counter, &name))
            .reduce(|a, b| a + b),
        Instances::MeanWeightedBy(weight) => {
            let weight = actual(weight);
            let pairs: Vec<(f64, f64)> = instances()
                .filter_map(|name| Some((at(&counter, &name)?, at(&weight, &name).unwrap_or(0.0))))
                .collect();
            let weights: f64 = pairs.iter().map(|(_, weight)| weight).sum();
            if pairs.is_empty() {
                None
            } else if weights > 0.0 {
                Some(pairs.iter().map(|(value, weight)| value * weight).sum::<f64>() / weights)
            } else {
                #[expect(clippy::cast_precision_loss, reason = "a few instances")]
                let n = pairs.len() as f64;
                Some(pairs.iter().map(|(value, _)| value).sum::<f64>() / n)
            }
        }
    }
}

/// Every row and every cell against the truth; returns how many cells had a value, by column.
fn check(
    simulator: &Simulator,
    targets: &[Target],
    reply: &Reply,
    host_disk: HostDisk,
    from: i64,
) -> BTreeMap<(EntityKind, &'static str), u64> {
    let truth = simulator.truth();
    let mut filled = BTreeMap::new();
    let windows: BTreeMap<EntityId, _> = reply
        .windows
        .iter()
        .map(|window| (window.entity, window))
        .collect();
    assert_eq!(windows.len(), reply.windows.len(), "one window per entity");
    for target in targets {
        let entity = truth.entity(target.moref.as_str()).unwrap();
        let now = simulator.clock().now();
        let wanted: Vec<i64> = entity
            .samples(from + 1, i64::MAX)
            .filter(|sample| sample.published_at <= now && now < sample.evicted_at)
            .map(|sample| sample.stamp)
            .collect();
        let window = windows.get(&target.entity).unwrap();
        let found: Vec<i64> = window
            .heads()
            .iter()
            .map(|head| head.stamp.micros() / 1_000_000)
            .collect();
        assert_eq!(found, wanted, "{}", target.moref);
        for (head, cells) in window.rows() {
            let stamp = head.stamp.micros() / 1_000_000;
            assert!(head.complete);
            assert_eq!((head.interval_seconds, head.cpus), (20, target.cpus));
            let placed = target.entity.kind == EntityKind::Vm && stamp >= NOW - 100;
            assert_eq!(head.host, placed.then_some(HostId(77)));
            for (column, cell) in Column::of(target.entity.kind).iter().zip(cells) {
                let wanted = expected(entity, column, host_disk, stamp, f64::from(target.cpus));
                let same = match (wanted, cell.get()) {
                    (Some(wanted), Some(found)) => (wanted - found).abs() <= wanted.abs() * 1e-12,
                    (None, None) => true,
                    _ => false,
                };
                assert!(
                    same,
                    "{} {} at {stamp}: {wanted:?}, not {cell:?}",
                    target.moref, column.name
                );
                if column.sql_type != SqlType::Real {
                    assert!(
                        cell.get().unwrap_or(0.0).fract().abs() < f64::EPSILON,
                        "{}",
                        column.name
                    );
                }
                *filled.entry((target.entity.kind, column.name)).or_default() += u64::from(!cell.is_null());
            }
        }
    }
    filled
}

#[tokio::test]
async fn every_column_of_every_row_equals_the_truth() {
    for host_disk in [HostDisk::StorageAdapter, HostDisk::Datastore] {
        let (simulator, mut platform) = frozen(Spec::vcenter(4, 20)).await;
        platform.options.selection.host_disk = host_disk;
        let vsphere = platform.open();
        assert_eq!(vsphere.counters().await.unwrap().unusable(), []);
        let from = NOW - 300;
        let targets = targets(&simulator, Stamp::from_seconds(from));
        let reply = vsphere.query(&targets, REALTIME_SECONDS).await.unwrap();
        assert_eq!((reply.missing.len(), reply.empty.len()), (0, 0));
        let filled = check(&simulator, &targets, &reply, host_disk, from);
        for kind in EntityKind::ALL {
            for column in Column::of(kind) {
                assert!(
                    filled[&(kind, column.name)] > 0,
                    "{kind} {} is always NULL",
                    column.name
                );
            }
        }
        assert_eq!(reply.counts.values, filled.values().sum::<u64>());
        vsphere.close(LOGOUT_DEADLINE).await;
    }
}

#[tokio::test]
async fn a_whole_ring_of_an_esxi_host_equals_the_truth() {
    let (simulator, platform) = frozen(Spec::esxi(5)).await;
    let vsphere = platform.open();
    let about = vsphere.connect().await.unwrap();
    assert_eq!(about.identity, simulator.truth().identity);
    let from = NOW - 3590;
    let targets = targets(&simulator, Stamp::from_seconds(from));
    let reply = vsphere.query(&targets, REALTIME_SECONDS).await.unwrap();
    check(&simulator, &targets, &reply, HostDisk::StorageAdapter, from);
    assert!(reply.windows.iter().all(|window| window.len() >= 178));
    vsphere.close(LOGOUT_DEADLINE).await;
}

#[tokio::test]
async fn discovery_finds_everything_page_by_page() {
    for spec in [
        Spec {
            page_size: 7,
            ..Spec::vcenter(5, 40)
        },
        Spec::esxi(4),
    ] {
        let (simulator, platform) = frozen(spec).await;
        let truth = simulator.truth();
        simulator
            .world()
            .rename(&simulator.world().vms()[0], "web/01 100%\\")
            .unwrap();
        let vsphere = platform.open();
        let found = vsphere.discover().await.unwrap();
        let of = |kind| truth.entities().filter(move |entity| entity.kind() == kind);
        let hosts: BTreeSet<&str> = of(TruthKind::Host).map(|entity| entity.moref()).collect();
        let vms: BTreeSet<&str> = of(TruthKind::Vm).map(|entity| entity.moref()).collect();
        assert_eq!(
            found
                .hosts
                .iter()
                .map(|host| host.moref.as_str())
                .collect::<BTreeSet<_>>(),
            hosts
        );
        assert_eq!(
            found
                .vms
                .iter()
                .map(|vm| vm.moref.as_str())
                .collect::<BTreeSet<_>>(),
            vms
        );
        assert_eq!((found.hosts.len(), found.vms.len()), (hosts.len(), vms.len()));
        let renamed = found
            .vms
            .iter()
            .find(|vm| vm.moref.as_str() == simulator.world().vms()[0])
            .unwrap();
        assert_eq!(renamed.name.as_deref(), Some("web/01 100%\\"));
        for vm in &found.vms {
            let record = truth.entity(vm.moref.as_str()).unwrap().record();
            let run = record.runs.last().filter(|run| run.last_stamp.is_none());
            assert_eq!(vm.power == PowerState::On, run.is_some(), "{}", vm.moref);
            assert_eq!(vm.template, record.template);
            assert!(vm.connected && vm.memory_mib.is_some() && vm.bios_uuid.is_some());
            assert!(vm.template || vm.instance_uuid.is_some());
            if let Some(run) = run {
                assert_eq!(vm.host.as_ref().unwrap().as_str(), run.host);
                assert_eq!(u32::from(vm.vcpus.unwrap()), run.vcpus);
            }
        }
        for host in &found.hosts {
            let record = truth.entity(host.moref.as_str()).unwrap().record();
            assert_eq!(
                u32::from(host.threads.unwrap()),
                record.runs.last().unwrap().vcpus
            );
            assert!(host.connected && !host.maintenance && host.power == PowerState::On);
            assert!(host.uuid.is_some() && host.name.is_some());
        }
        vsphere.close(LOGOUT_DEADLINE).await;
        assert_eq!(simulator.sessions().stats().open, 0);
    }
}

#[tokio::test]
async fn counters_are_read_again_after_a_new_login_and_no_value_gets_another_name() {
    let (simulator, platform) = frozen(Spec::vcenter(2, 6)).await;
    let vsphere = platform.open();
    let from = NOW - 120;
    let targets = targets(&simulator, Stamp::from_seconds(from));
    vsphere.query(&targets, REALTIME_SECONDS).await.unwrap();
    // An upgrade: other ids, and every session is gone.
    simulator.world().renumber_counters();
    simulator.sessions().expire_all();
    let reply = vsphere.query(&targets, REALTIME_SECONDS).await.unwrap();
    check(&simulator, &targets, &reply, HostDisk::StorageAdapter, from);
    assert_eq!(simulator.sessions().stats().logins, 2);
    assert_eq!(reply.counts.unknown_counters, 0);
    vsphere.close(LOGOUT_DEADLINE).await;
}

#[tokio::test]
async fn one_bad_entity_says_split_and_alone_it_says_skip() {
    let (simulator, platform) = frozen(Spec::vcenter(2, 6)).await;
    let vsphere = platform.open();
    let mut targets = targets(&simulator, Stamp::from_seconds(NOW - 60));
    let gone = targets.pop().unwrap();
    simulator.world().power_off(gone.moref.as_str()).unwrap();
    simulator.world().delete_vm(gone.moref.as_str()).unwrap();
    let mut with_gone = targets.clone();
    with_gone.push(gone.clone());
    let error = vsphere.query(&with_gone, REALTIME_SECONDS).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Split, "{}", Chain(&error));
    assert_eq!(error.fault().unwrap().object.as_ref(), Some(&gone.moref));
    assert!(
        Chain(&error).to_string().starts_with("the query for samples of "),
        "{}",
        Chain(&error)
    );
    let error = vsphere.query(&[gone], REALTIME_SECONDS).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::SkipEntity);
    assert_eq!(
        vsphere
            .query(&targets, REALTIME_SECONDS)
            .await
            .unwrap()
            .windows
            .len(),
        targets.len()
    );

    let too_much = Action::Fault {
        fault: "RestrictedByAdministrator".to_owned(),
        message: String::new(),
    };
    simulator.rules().add(Rule::on("QueryPerf", too_much).times(1));
    let error = vsphere.query(&targets, REALTIME_SECONDS).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Shrink);
    for code in [500, 503] {
        simulator.rules().clear();
        simulator
            .rules()
            .add(Rule::on("QueryPerf", Action::Status { code, body: None }).times(1));
        let error = vsphere.query(&targets, REALTIME_SECONDS).await.unwrap_err();
        let wanted = if code == 500 {
            Disposition::Shrink
        } else {
            Disposition::Retry
        };
        assert_eq!(error.disposition(), wanted);
    }
    vsphere.close(LOGOUT_DEADLINE).await;
}

#[tokio::test]
async fn falsified_answers_lose_no_other_entity_and_invent_nothing() {
    let (simulator, platform) = frozen(Spec::vcenter(2, 8)).await;
    let vsphere = platform.open();
    let from = NOW - 200;
    let targets = targets(&simulator, Stamp::from_seconds(from));
    let victim = targets
        .iter()
        .find(|target| target.entity.kind == EntityKind::Vm)
        .unwrap()
        .clone();
    let others: Vec<Target> = targets
        .iter()
        .filter(|target| **target != victim)
        .cloned()
        .collect();
    let usage = Some("cpu.usage.average".to_owned());
    let hurt = |action: Action| {
        simulator.rules().clear();
        simulator
            .rules()
            .add(Rule::on("QueryPerf", action).object(victim.moref.as_str()));
        let (vsphere, targets) = (&vsphere, &targets);
        async move { vsphere.query(targets, REALTIME_SECONDS).await.unwrap() }
    };
    let reply = hurt(Action::Descending).await;
    check(&simulator, &targets, &reply, HostDisk::StorageAdapter, from);

    let reply = hurt(Action::OmitEntity).await;
    assert_eq!(reply.missing, [victim.entity]);
    check(&simulator, &others, &reply, HostDisk::StorageAdapter, from);

    for action in [
        Action::MinusOne { counter: None },
        Action::EmptyCells { counter: None },
    ] {
        let reply = hurt(action).await;
        assert_eq!(reply.empty, [victim.entity], "only rows of nothing: no rows");
        assert!(reply.counts.empty_rows > 0 && reply.missing.is_empty());
        check(&simulator, &others, &reply, HostDisk::StorageAdapter, from);
    }
    for action in [
        Action::MinusOne {
            counter: usage.clone(),
        },
        Action::EmptyCells { counter: usage },
    ] {
        let reply = hurt(action).await;
        let column = Column::of(EntityKind::Vm)
            .iter()
            .position(|column| column.name == "cpu_usage_percent");
        let window = reply
            .windows
            .iter()
            .find(|window| window.entity == victim.entity)
            .unwrap();
        for (_, cells) in window.rows() {
            assert!(cells[column.unwrap()].is_null());
            assert!(cells.iter().filter(|cell| !cell.is_null()).count() > 20);
        }
        check(&simulator, &others, &reply, HostDisk::StorageAdapter, from);
    }
    vsphere.close(LOGOUT_DEADLINE).await;
}

#[tokio::test]
async fn another_machine_at_the_same_address_is_refused_at_its_first_login() {
    let (first, mut platform) = frozen(Spec::vcenter(2, 4).seed(1)).await;
    platform.options.pool.trust = virt_collector::config::Trust::Off;
    let vsphere = platform.open();
    let was = vsphere.connect().await.unwrap().identity;
    let targets = targets(&first, Stamp::from_seconds(NOW - 60));
    let listen = first.addr();
    first.shutdown().await;
    let clock = ClockMode::Frozen { at: NOW * 1_000_000 };
    let second = Simulator::start(Spec {
        listen,
        clock,
        ..Spec::vcenter(2, 4).seed(2)
    })
    .await
    .unwrap();
    let error = vsphere.query(&targets, REALTIME_SECONDS).await.unwrap_err();
    assert!(
        matches!(&error, Error::IdentityChanged { was: old, .. } if *old == was),
        "{error:?}"
    );
    assert_eq!(error.class(), virt_collector::model::status::ErrorClass::Identity);
    // The query went out in the old session and was refused; in the new one nothing was asked.
    let queries = second.calls().method("QueryPerf");
    assert_eq!(
        (queries.calls, queries.faults.get("NotAuthenticated")),
        (1, Some(&1))
    );
}
