//! What the simulator promises, seen through its sockets.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test may fail loudly"
)]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes,
    reason = "the support module is part of a test"
)]

mod changes;
mod desk;
mod history;
mod inventory;
mod power;
mod refusals;
mod snapshots;
mod support;
mod tasks;
mod upheavals;

use std::time::Duration;

use support::{Client, all, csv, envelope, one, spec, time};
use vsphere_simulator::clock::StampRange;
use vsphere_simulator::rules::{Action, Rule};
use vsphere_simulator::truth::Withheld;
use vsphere_simulator::{
    ClockMode, EmptyEntities, EntityKind, Event, HostLink, RingFate, Simulator, Spec, TlsMode,
};

/// 2026-11-23 10:00:05 UTC: the newest published sample is 10:00:00.
const START: i64 = 1_795_428_005;
const MICROS: i64 = 1_000_000;

fn frozen() -> Spec {
    Spec {
        tls: TlsMode::Plain,
        clock: ClockMode::Frozen { at: START * MICROS },
        ..Spec::default()
    }
}

async fn start(spec: Spec) -> Simulator {
    Simulator::start(spec).await.expect("start")
}

#[tokio::test]
async fn bounds_grid_and_order_are_those_of_a_real_server() {
    let sim = start(frozen()).await;
    let client = Client::login(&sim).await;
    let usage = client.counters().await["cpu.usage.average"];
    let newest = START - 5;
    let ask = |bounds: String| {
        let spec = spec(
            "VirtualMachine",
            "vm-10001",
            &bounds,
            &[(usage, "")],
            "<intervalId>20</intervalId><format>csv</format>",
        );
        let client = client.clone();
        async move { csv(&client.perf(&spec).await.body).remove(0) }
    };
    let whole = ask(String::new()).await;
    assert_eq!(whole.stamps.len(), 180);
    assert_eq!(whole.stamps.last(), Some(&newest));
    assert!(whole.stamps.windows(2).all(|w| w[1] - w[0] == 20));
    assert!(whole.stamps.iter().all(|s| s % 20 == 0));
    assert_eq!(whole.interval, 20);
    let tail = ask(format!("<startTime>{}</startTime>", time(newest - 60))).await;
    assert_eq!(tail.stamps, [newest - 40, newest - 20, newest]);
    let middle = ask(format!(
        "<startTime>{}</startTime><endTime>{}</endTime>",
        time(newest - 60),
        time(newest - 20)
    ))
    .await;
    assert_eq!(middle.stamps, [newest - 40, newest - 20]);
    let last = ask("<maxSample>2</maxSample>".to_owned()).await;
    assert_eq!(last.stamps, [newest - 20, newest]);
    // Two seconds after a stamp it is not published yet, after three it is.
    sim.clock().advance(Duration::from_secs(17));
    assert_eq!(ask("<maxSample>1</maxSample>".to_owned()).await.stamps, [newest]);
    sim.clock().advance(Duration::from_secs(1));
    assert_eq!(
        ask("<maxSample>1</maxSample>".to_owned()).await.stamps,
        [newest + 20]
    );
    sim.shutdown().await;
}

#[tokio::test]
async fn the_ring_moves_with_the_clock() {
    let sim = start(frozen()).await;
    let client = Client::login(&sim).await;
    let usage = client.counters().await["cpu.usage.average"];
    let query = spec(
        "VirtualMachine",
        "vm-10001",
        "",
        &[(usage, "")],
        "<format>csv</format>",
    );
    let before = csv(&client.perf(&query).await.body).remove(0);
    sim.clock().advance(Duration::from_secs(600));
    let after = csv(&client.perf(&query).await.body).remove(0);
    assert_eq!(after.stamps[0], before.stamps[0] + 600);
    assert_eq!(after.stamps.len(), 180);
    let column = |answer: &support::Answer| answer.series[&(usage, String::new())].clone();
    assert_eq!(column(&before)[30..], column(&after)[..150]);
    // A corrected clock publishes nothing twice and takes nothing back.
    sim.clock().step(-120 * MICROS);
    let back = csv(&client.perf(&query).await.body).remove(0);
    assert_eq!(back.stamps, after.stamps);
    // Stamps that the clock jumps over never exist.
    sim.clock().step(240 * MICROS);
    sim.clock().advance(Duration::from_secs(40));
    let forward = csv(&client.perf(&query).await.body).remove(0);
    let newest = START - 5 + 600;
    let recent: Vec<i64> = forward.stamps.iter().copied().filter(|s| *s > newest).collect();
    assert_eq!(recent, [newest + 140, newest + 160]);
    sim.shutdown().await;
}

#[tokio::test]
async fn prepared_cells_are_those_that_would_be_computed() {
    let sim = start(frozen()).await;
    let client = Client::login(&sim).await;
    let keys = client.counters().await;
    let metrics = [
        (keys["cpu.ready.summation"], "*"),
        (keys["cpu.usage.average"], ""),
        (keys["virtualDisk.totalReadLatency.average"], "*"),
        (keys["net.received.average"], "*"),
        (keys["sys.uptime.latest"], ""),
    ];
    let csv = "<intervalId>20</intervalId><format>csv</format>";
    let ask = async |bounds: &str| {
        let query = spec("VirtualMachine", "vm-10005", bounds, &metrics, csv);
        client.perf(&query).await.body
    };
    let windows = ["", "<maxSample>1</maxSample>", "<maxSample>7</maxSample>"];
    let mut computed = Vec::new();
    for window in windows {
        computed.push(ask(window).await);
    }
    // One counter is left out: it is computed beside the others.
    sim.prepare(
        &[
            "cpu.ready.summation",
            "cpu.usage.average",
            "virtualDisk.totalReadLatency.average",
            "sys.uptime.latest",
        ],
        Duration::from_secs(120),
    );
    for (window, computed) in windows.iter().zip(&computed) {
        assert!(computed.contains("<value>"), "{computed}");
        assert_eq!(&ask(window).await, computed);
    }
    // A VM that has changed since, and what lies past the prepared span, are computed as always.
    let fresh = start(frozen()).await;
    let other = Client::login(&fresh).await;
    let query = |bounds: &str| spec("VirtualMachine", "vm-10005", bounds, &metrics, csv);
    for seconds in [30, 600] {
        for sim in [&sim, &fresh] {
            let vm = "vm-10005".to_owned();
            sim.world()
                .apply(Event::PowerOff { vm: vm.clone() })
                .expect("off");
            sim.clock().advance(Duration::from_secs(seconds));
            sim.world().apply(Event::PowerOn { vm }).expect("on");
            sim.clock().advance(Duration::from_secs(seconds));
        }
        for window in ["<maxSample>1</maxSample>", "<maxSample>40</maxSample>"] {
            let as_prepared = client.perf(&query(window)).await.body;
            assert_eq!(as_prepared, other.perf(&query(window)).await.body);
        }
    }
    fresh.shutdown().await;
    sim.shutdown().await;
}

#[tokio::test]
async fn csv_and_normal_say_the_same() {
    let sim = start(frozen()).await;
    let client = Client::login(&sim).await;
    let keys = client.counters().await;
    let metrics = [
        (keys["mem.consumed.average"], ""),
        (keys["net.bytesRx.average"], "*"),
    ];
    let bounds = "<maxSample>4</maxSample>";
    let as_csv = client
        .perf(&spec(
            "HostSystem",
            "host-1003",
            bounds,
            &metrics,
            "<intervalId>20</intervalId><format>csv</format>",
        ))
        .await;
    assert_eq!(as_csv.status, 500, "there are two hosts: {}", as_csv.body);
    let as_csv = client
        .perf(&spec(
            "HostSystem",
            "host-1002",
            bounds,
            &metrics,
            "<intervalId>20</intervalId><format>csv</format>",
        ))
        .await;
    let as_normal = client
        .perf(&spec(
            "HostSystem",
            "host-1002",
            bounds,
            &metrics,
            "<intervalId>20</intervalId>",
        ))
        .await;
    let answer = csv(&as_csv.body).remove(0);
    // The aggregate and four NICs, and one memory series.
    assert_eq!(answer.series.len(), 6);
    let stamps: Vec<i64> = all(&as_normal.body, "timestamp", "timestamp")
        .iter()
        .map(|t| support::seconds(t))
        .collect();
    assert_eq!(stamps, answer.stamps);
    let series = as_normal
        .body
        .split("<value xsi:type=\"PerfMetricIntSeries\">")
        .skip(1);
    let mut seen = 0;
    for part in series {
        let key: i32 = one(part, "counterId", "counterId").parse().expect("key");
        let instance = one(part, "instance", "instance");
        let values: Vec<Option<i64>> = all(part, "value", "value")
            .iter()
            .map(|v| v.parse().ok())
            .collect();
        assert_eq!(answer.series[&(key, instance)], values);
        seen += 1;
    }
    assert_eq!(seen, 6);
    sim.shutdown().await;
}

#[tokio::test]
async fn wildcards_instances_and_unknown_ids() {
    let sim = start(Spec {
        disks_per_vm: 3,
        ..frozen()
    })
    .await;
    let client = Client::login(&sim).await;
    let keys = client.counters().await;
    let iops = keys["virtualDisk.numberReadAveraged.average"];
    let read = keys["virtualDisk.read.average"];
    let query = |metrics: Vec<(i32, &'static str)>| {
        let spec = spec(
            "VirtualMachine",
            "vm-10001",
            "<maxSample>1</maxSample>",
            &metrics,
            "<format>csv</format>",
        );
        let client = client.clone();
        async move {
            let answer = csv(&client.perf(&spec).await.body).remove(0);
            answer.series.into_keys().collect::<Vec<_>>()
        }
    };
    let names = |keys: Vec<(i32, String)>| keys.into_iter().map(|k| k.1).collect::<Vec<_>>();
    assert_eq!(
        names(query(vec![(iops, "*")]).await),
        ["scsi0:0", "scsi0:1", "scsi0:2"]
    );
    assert_eq!(
        names(query(vec![(read, "*")]).await),
        ["", "scsi0:0", "scsi0:1", "scsi0:2"]
    );
    assert_eq!(names(query(vec![(read, "")]).await), [""]);
    assert_eq!(names(query(vec![(iops, "scsi0:1")]).await), ["scsi0:1"]);
    // No aggregate, no such disk, no such counter: no series, no fault.
    for metric in [(iops, ""), (iops, "scsi7:7"), (77_777, "")] {
        assert!(query(vec![metric]).await.is_empty(), "{metric:?}");
    }
    // A request without metrics gets everything.
    assert!(query(Vec::new()).await.len() > 60);
    sim.shutdown().await;
}

#[tokio::test]
async fn the_truth_is_what_is_served() {
    for kind in ["vcenter", "esxi"] {
        let mut spec_of = if kind == "esxi" {
            Spec::esxi(12)
        } else {
            Spec::vcenter(3, 40)
        };
        spec_of.tls = TlsMode::Plain;
        spec_of.clock = ClockMode::Frozen { at: START * MICROS };
        let sim = start(spec_of).await;
        let client = Client::login(&sim).await;
        let keys = client.counters().await;
        // Some life.
        let vms = sim.world().running_vms();
        sim.world().power_off(&vms[0]).expect("off");
        sim.world()
            .delay_samples(Some(&vms[1]), START + 15, START + 75, Duration::from_secs(90))
            .expect("late");
        sim.world()
            .withhold(
                Some(&vms[2]),
                Withheld {
                    counter: "cpu.usage.average".to_owned(),
                    instance: None,
                    stamps: StampRange {
                        first: START + 15,
                        last: START + 55,
                    },
                    until: Some((START + 170) * MICROS),
                },
            )
            .expect("withhold");
        sim.world().set_vcpus(&vms[3], 12).expect("hot-add");
        sim.clock().advance(Duration::from_secs(100));
        let created = sim
            .world()
            .create_vm(Some("new &amp; shiny"), None)
            .expect("create");
        sim.clock().advance(Duration::from_secs(60));
        sim.world().power_on(&vms[0]).expect("on");
        sim.clock().advance(Duration::from_secs(61));

        // The truth goes through JSON, as an oracle in another process gets it.
        let truth = serde_json::to_string(&sim.truth()).expect("json");
        let truth: vsphere_simulator::Truth = serde_json::from_str(&truth).expect("truth");
        let mut cells = 0_u64;
        for entity in truth.entities() {
            let metrics: Vec<(i32, &str)> = keys.values().map(|key| (*key, "*")).collect();
            let query = spec(
                entity.kind().type_name(),
                entity.moref(),
                "",
                &metrics,
                "<intervalId>20</intervalId><format>csv</format>",
            );
            let answer = csv(&client.perf(&query).await.body).remove(0);
            let published: Vec<i64> = entity
                .samples(0, i64::MAX)
                .filter(|s| s.published_at <= truth.now && truth.now < s.evicted_at)
                .map(|s| s.stamp)
                .collect();
            assert_eq!(answer.stamps, published, "{}", entity.moref());
            if entity.record().template {
                assert!(published.is_empty());
                continue;
            }
            if published.is_empty() {
                continue;
            }
            let mut expected = 0;
            for (name, key) in &keys {
                for instance in entity.instances(name) {
                    expected += 1;
                    let served = &answer.series[&(*key, instance.clone())];
                    let series = entity.series(name, &instance).expect("series");
                    for (stamp, cell) in published.iter().zip(served) {
                        let due = series.available_at(*stamp).is_some_and(|at| at <= truth.now);
                        let value = series.value(*stamp).filter(|_| due);
                        assert_eq!(*cell, value, "{} {name} {instance:?} {stamp}", entity.moref());
                        cells += 1;
                    }
                }
            }
            assert_eq!(answer.series.len(), expected, "{}", entity.moref());
        }
        assert!(cells > 100_000, "{cells}");
        // The new VM's first whole interval: it was created at :45 and the first sample is the
        // second stamp after.
        let first = truth
            .entity(&created)
            .expect("new")
            .samples(0, i64::MAX)
            .next()
            .expect("sample");
        assert_eq!(first.stamp, (START + 100 + 19) / 20 * 20 + 20);
        sim.shutdown().await;
    }
}

#[tokio::test]
async fn two_instances_with_one_seed_agree_and_another_seed_differs() {
    let (a, b, c) = (
        start(frozen()).await,
        start(frozen()).await,
        start(frozen().seed(2)).await,
    );
    let mut bodies = Vec::new();
    for sim in [&a, &b, &c] {
        let client = Client::login(sim).await;
        let query = spec(
            "VirtualMachine",
            "vm-10002",
            "<maxSample>5</maxSample>",
            &[],
            "<format>csv</format>",
        );
        bodies.push(client.perf(&query).await.body);
    }
    assert_eq!(bodies[0], bodies[1]);
    assert_ne!(bodies[0], bodies[2]);
    assert_ne!(a.truth().identity, c.truth().identity);
}

#[tokio::test]
async fn values_contain_what_catches_a_wrong_conversion() {
    let sim = start(Spec {
        tls: TlsMode::Plain,
        clock: ClockMode::Frozen { at: START * MICROS },
        ..Spec::vcenter(4, 60)
    })
    .await;
    let truth = sim.truth();
    let mut turbo = 0;
    let mut zero = 0;
    let mut ready_over_one_cpu = 0;
    let mut beyond_int4 = 0;
    let mut unequal_latency = 0;
    let mut sums = 0;
    for entity in truth.entities().filter(|e| !e.record().runs.is_empty()) {
        for sample in entity.samples(START - 3600, START) {
            let get = |name: &str, instance: &str| entity.value(name, instance, sample.stamp);
            let usage = get("cpu.usage.average", "").expect("usage");
            assert!((0..=12_000).contains(&usage), "{usage}");
            turbo += i32::from(usage > 10_000);
            zero += i32::from(usage == 0);
            let ready = get("cpu.ready.summation", "").expect("ready");
            assert!((0..=i64::from(sample.vcpus) * 20_000).contains(&ready));
            ready_over_one_cpu += i32::from(ready > 20_000);
            let consumed = get("mem.consumed.average", "").expect("consumed");
            assert!(consumed <= entity.record().profile.memory_kib + 4096);
            beyond_int4 += i32::from(consumed > i64::from(i32::MAX));
            if entity.kind() == EntityKind::Vm {
                let cell = |name: &str, disk: &str| get(name, disk).expect("disk");
                let weights =
                    ["scsi0:0", "scsi0:1"].map(|d| cell("virtualDisk.numberReadAveraged.average", d));
                let latency = ["scsi0:0", "scsi0:1"].map(|d| cell("virtualDisk.totalReadLatency.average", d));
                let weight: i64 = weights.iter().sum();
                if weight > 0 {
                    let weighted = (weights[0] * latency[0] + weights[1] * latency[1]) / weight;
                    unequal_latency += i32::from((weighted - (latency[0] + latency[1]) / 2).abs() > 1);
                }
                let nic = get("net.bytesRx.average", "4000").expect("nic");
                sums += i32::from(nic != get("net.bytesRx.average", "").expect("net"));
            }
        }
    }
    for (what, count) in [
        ("turbo", turbo),
        ("zero", zero),
        ("ready", ready_over_one_cpu),
        ("int4", beyond_int4),
        ("latency", unequal_latency),
        ("sums", sums),
    ] {
        assert!(count > 50, "{what}: {count}");
    }
}

#[tokio::test]
async fn rollups_obey_the_statistics_level_and_the_bound() {
    let sim = start(frozen()).await;
    let client = Client::login(&sim).await;
    let keys = client.counters().await;
    let names = [
        "cpu.usage.average",
        "cpu.ready.summation",
        "cpu.costop.summation",
        "virtualDisk.numberReadAveraged.average",
        "sys.uptime.latest",
    ];
    let metrics: Vec<(i32, &str)> = names.iter().map(|n| (keys[*n], "*")).collect();
    let bounds = format!("<startTime>{}</startTime>", time(START - 7200));
    let query = spec(
        "VirtualMachine",
        "vm-10001",
        &bounds,
        &metrics,
        "<intervalId>300</intervalId><format>csv</format>",
    );
    let answer = csv(&client.perf(&query).await.body).remove(0);
    assert_eq!(answer.interval, 300);
    // 10:00 itself is not rolled up yet at 10:00:05.
    assert_eq!(answer.stamps.len(), 23);
    assert!(answer.stamps.iter().all(|s| s % 300 == 0));
    let truth = sim.truth();
    let entity = truth.entity("vm-10001").expect("vm");
    assert_eq!(
        answer.series.len(),
        3,
        "level 2 and per-device series are not kept"
    );
    for (name, fold) in [("cpu.usage.average", 15), ("cpu.ready.summation", 1)] {
        for (stamp, cell) in answer
            .stamps
            .iter()
            .zip(&answer.series[&(keys[name], String::new())])
        {
            let samples = (0..15).map(|i| entity.value(name, "", stamp - i * 20).expect("value"));
            assert_eq!(*cell, Some(samples.sum::<i64>() / fold), "{name} {stamp}");
            assert_eq!(
                *cell,
                entity.series(name, "").expect("series").rollup(300, *stamp)
            );
        }
    }
    // More than maxQueryMetrics.
    let many: String = (0..60).map(|_| query.clone()).collect();
    let refused = client.perf(&many).await;
    assert!(
        refused.body.contains("xsi:type=\"RestrictedByAdministrator\""),
        "{}",
        refused.body
    );
    let option = client.call(r#"<QueryOptions xmlns="urn:vim25"><_this type="OptionManager">VpxSettings</_this><name>config.vpxd.stats.maxQueryMetrics</name></QueryOptions>"#).await;
    assert_eq!(one(&option.body, "value xsi:type=\"xsd:string\"", "value"), "256");
    // An interval that does not exist.
    let odd = spec(
        "VirtualMachine",
        "vm-10001",
        "",
        &metrics,
        "<intervalId>60</intervalId>",
    );
    let odd = client.perf(&odd).await;
    assert!(
        odd.body
            .contains("<invalidProperty>querySpec.interval</invalidProperty>")
    );
    // A cluster has no real-time data.
    let cluster = spec(
        "ClusterComputeResource",
        "domain-c100",
        "",
        &metrics,
        "<intervalId>20</intervalId>",
    );
    assert_eq!(client.perf(&cluster).await.status, 500);
    sim.shutdown().await;
}

fn retrieve(view: &str, paths: &[&str], max: &str) -> String {
    let paths: String = paths.iter().map(|p| format!("<pathSet>{p}</pathSet>")).collect();
    format!(
        r#"<RetrievePropertiesEx xmlns="urn:vim25"><_this type="PropertyCollector">propertyCollector</_this><specSet><propSet><type>VirtualMachine</type>{paths}</propSet><propSet><type>HostSystem</type><pathSet>name</pathSet></propSet><objectSet><obj type="ContainerView">{view}</obj><skip>true</skip><selectSet xsi:type="TraversalSpec"><name>v</name><type>ContainerView</type><path>view</path><skip>false</skip></selectSet></objectSet></specSet><options>{max}</options></RetrievePropertiesEx>"#
    )
}

async fn view(client: &Client, root: &str) -> String {
    let reply = client.call(&format!(r#"<CreateContainerView xmlns="urn:vim25"><_this type="ViewManager">ViewManager</_this><container type="Folder">{root}</container><type>VirtualMachine</type><type>HostSystem</type><recursive>true</recursive></CreateContainerView>"#)).await;
    one(&reply.body, "returnval type=\"ContainerView\"", "returnval")
}

fn next(token: &str) -> String {
    format!(
        r#"<ContinueRetrievePropertiesEx xmlns="urn:vim25"><_this type="PropertyCollector">propertyCollector</_this><token>{token}</token></ContinueRetrievePropertiesEx>"#
    )
}

#[tokio::test]
async fn results_come_in_pages_whose_tokens_work_once() {
    let sim = start(Spec {
        vms: 250,
        hosts: 5,
        powered_off: Some(7),
        ..frozen()
    })
    .await;
    let client = Client::login(&sim).await;
    let view = view(&client, "group-d1").await;
    let mut reply = client
        .call(&retrieve(
            &view,
            &["name", "runtime.powerState", "summary.config.template"],
            "<maxObjects>500</maxObjects>",
        ))
        .await;
    let mut objects = Vec::new();
    let mut pages = 0;
    let mut body = String::new();
    loop {
        pages += 1;
        let page = all(&reply.body, "objects", "objects");
        assert!(page.len() <= 100, "the server caps pages whatever is asked for");
        objects.extend(page);
        body.push_str(&reply.body);
        let Some(token) = all(&reply.body, "token", "token").pop() else {
            break;
        };
        // Deleted between two pages: skipped.
        if pages == 1 {
            sim.world().delete_vm("vm-10249").expect("delete");
        }
        reply = client.call(&next(&token)).await;
        assert_eq!(reply.status, 200);
        let again = client.call(&next(&token)).await;
        assert!(
            again.body.contains("xsi:type=\"InvalidProperty\""),
            "{}",
            again.body
        );
    }
    assert_eq!(pages, 3);
    assert_eq!(objects.len(), 249 + 1 + 5);
    assert_eq!(body.matches(">poweredOff<").count(), 7 + 1);
    assert!(body.contains("app%2fvm-00008"));
    let tokens = client
        .call(&retrieve(&view, &["name"], "<maxObjects>10</maxObjects>"))
        .await;
    assert_eq!(all(&tokens.body, "objects", "objects").len(), 10);
    let token = one(&tokens.body, "token", "token");
    let cancel = client.call(&next(&token).replace("ContinueR", "CancelR")).await;
    assert_eq!(cancel.status, 200);
    assert_eq!(client.call(&next(&token)).await.status, 500);
    // A misspelt path fails the whole call.
    let wrong = client.call(&retrieve(&view, &["runtime.powerstate"], "")).await;
    assert!(
        wrong.body.contains("<name>runtime.powerstate</name>"),
        "{}",
        wrong.body
    );
    let destroy =
        format!(r#"<DestroyView xmlns="urn:vim25"><_this type="ContainerView">{view}</_this></DestroyView>"#);
    assert_eq!(client.call(&destroy).await.status, 200);
    assert_eq!(client.call(&destroy).await.status, 500);
    assert_eq!(client.call(&retrieve(&view, &["name"], "")).await.status, 500);
    sim.shutdown().await;
}

#[tokio::test]
async fn an_expired_session_gets_an_inventory_of_missing_properties() {
    let sim = start(Spec {
        session_timeout: Duration::from_secs(60),
        ..frozen()
    })
    .await;
    let mut client = Client::login(&sim).await;
    let view = view(&client, "group-d1").await;
    sim.clock().advance(Duration::from_secs(59));
    let good = client.call(&retrieve(&view, &["name", "runtime.host"], "")).await;
    assert!(!good.body.contains("missingSet"));
    assert_eq!(all(&good.body, "objects", "objects").len(), 23);
    // A step is not time: nobody expires.
    sim.clock().step(3600 * MICROS);
    assert_eq!(
        client
            .call(&retrieve(&view, &["name"], ""))
            .await
            .body
            .matches("missingSet")
            .count(),
        0
    );
    sim.clock().advance(Duration::from_secs(60));
    let expired = client.call(&retrieve(&view, &["name", "runtime.host"], "")).await;
    assert_eq!(expired.status, 200);
    assert!(!expired.body.contains("<propSet>"));
    let missing = all(&expired.body, "missingSet", "missingSet");
    assert_eq!(missing.len(), 21 * 2 + 2);
    assert!(
        missing
            .iter()
            .all(|m| m.contains("xsi:type=\"NotAuthenticated\""))
    );
    // Every other method faults.
    let now = r#"<CurrentTime xmlns="urn:vim25"><_this type="ServiceInstance">ServiceInstance</_this></CurrentTime>"#;
    let fault = client.call(now).await;
    assert_eq!(fault.status, 500);
    assert!(
        fault
            .body
            .contains("<NotAuthenticatedFault xmlns=\"urn:vim25\" xsi:type=\"NotAuthenticated\">")
    );
    // The old cookie does not hinder a new log-in.
    let (user, password) = sim.credentials();
    assert_eq!(client.try_login(user, password).await.status, 200);
    assert_eq!(client.call(now).await.status, 200);
    // A log-in inside a valid session is refused.
    let again = client.try_login(user, password).await;
    assert!(again.body.contains("xsi:type=\"InvalidLogin\""));
    let logout = r#"<Logout xmlns="urn:vim25"><_this type="SessionManager">SessionManager</_this></Logout>"#;
    assert_eq!(client.call(logout).await.status, 200);
    let stats = sim.sessions().stats();
    assert_eq!(
        (
            stats.open,
            stats.logins,
            stats.logouts,
            stats.expired,
            stats.max_open
        ),
        (0, 2, 1, 1, 1)
    );
    sim.shutdown().await;
}

#[tokio::test]
async fn five_wrong_passwords_lock_the_account() {
    let sim = start(frozen()).await;
    let mut client = Client::new(&sim);
    for _ in 0..5 {
        assert_eq!(
            client.try_login("monitor@vsphere.local", "wrong").await.status,
            500
        );
    }
    assert!(sim.sessions().stats().locked);
    assert_eq!(
        client.try_login("monitor@vsphere.local", "monitor").await.status,
        500
    );
    sim.clock().advance(Duration::from_secs(301));
    assert_eq!(
        client.try_login("monitor@vsphere.local", "monitor").await.status,
        200
    );
}

#[tokio::test]
async fn order_and_required_elements_are_checked() {
    let sim = start(frozen()).await;
    let client = Client::login(&sim).await;
    let entity = r#"<entity type="VirtualMachine">vm-10001</entity>"#;
    let id = "<metricId><counterId>1</counterId><instance></instance></metricId>";
    let bad = [
        // Out of order.
        format!("<querySpec>{entity}<intervalId>20</intervalId>{id}</querySpec>"),
        format!("<querySpec>{entity}<format>csv</format><intervalId>20</intervalId></querySpec>"),
        format!(
            "<querySpec>{entity}<endTime>2026-01-01T00:00:00Z</endTime><startTime>2026-01-01T00:00:00Z</startTime></querySpec>"
        ),
        // Missing.
        format!("<querySpec>{id}</querySpec>"),
        format!("<querySpec>{entity}<metricId><counterId>1</counterId></metricId></querySpec>"),
        String::new(),
        // Unknown, and of the wrong type.
        format!("<querySpec>{entity}<speed>1</speed></querySpec>"),
        format!("<querySpec>{entity}<maxSample>many</maxSample></querySpec>"),
        "<querySpec><entity>vm-10001</entity></querySpec>".to_owned(),
    ];
    for body in bad {
        let reply = client.perf(&body).await;
        assert_eq!(reply.status, 500, "{body}");
        assert!(
            reply.body.contains("xsi:type=\"InvalidRequest\""),
            "{body}: {}",
            reply.body
        );
    }
    let no_options = retrieve("x", &["name"], "").replace("<options></options>", "");
    assert!(
        client
            .call(&no_options)
            .await
            .body
            .contains("Required property options is missing")
    );
    let namespace =
        envelope(r#"<CurrentTime><_this type="ServiceInstance">ServiceInstance</_this></CurrentTime>"#);
    assert_eq!(client.post(&namespace).await.expect("reply").status, 500);
    let unknown = client
        .call(r#"<Reboot_Task xmlns="urn:vim25"><_this type="VirtualMachine">vm-10001</_this></Reboot_Task>"#)
        .await;
    assert!(unknown.body.contains("xsi:type=\"MethodNotFound\""));
    for broken in ["", "<a>", "hello", "<!DOCTYPE x><a/>"] {
        assert_eq!(client.post(broken).await.expect("reply").status, 500, "{broken}");
    }
    let wrong_manager = client.call(r#"<QueryPerf xmlns="urn:vim25"><_this type="PerformanceManager">ha-perfmgr</_this><querySpec><entity type="VirtualMachine">vm-10001</entity></querySpec></QueryPerf>"#).await;
    assert!(wrong_manager.body.contains("ManagedObjectNotFound"));
    // An unknown entity fails the whole call and is named.
    let poisoned = format!(
        "{}{}",
        spec("VirtualMachine", "vm-10001", "", &[], ""),
        spec("VirtualMachine", "vm-9", "", &[], "")
    );
    assert!(
        client
            .perf(&poisoned)
            .await
            .body
            .contains("<obj type=\"VirtualMachine\">vm-9</obj>")
    );
    // A version of the future is refused, an old one is not.
    let mut other = client.clone();
    other.action = "urn:vim25/99.0".to_owned();
    assert_eq!(other.call(&retrieve("x", &["name"], "")).await.status, 500);
    other.action = "\"urn:vim25/6.5\"".to_owned();
    assert_eq!(
        other
            .perf(&spec("VirtualMachine", "vm-10001", "", &[], ""))
            .await
            .status,
        200
    );
    sim.shutdown().await;
}

#[tokio::test]
async fn an_esxi_host_has_its_own_shape() {
    let sim = start(Spec {
        tls: TlsMode::Plain,
        ..Spec::esxi(10)
    })
    .await;
    let client = Client::login(&sim).await;
    let content = client.call(r#"<RetrieveServiceContent xmlns="urn:vim25"><_this type="ServiceInstance">ServiceInstance</_this></RetrieveServiceContent>"#).await.body;
    assert_eq!(one(&content, "apiType", "apiType"), "HostAgent");
    assert!(!content.contains("instanceUuid"));
    for reference in [
        "ha-folder-root",
        "ha-property-collector",
        "ha-sessionmgr",
        "ha-perfmgr",
    ] {
        assert!(content.contains(reference), "{reference}");
    }
    assert_eq!(sim.world().hosts(), ["ha-host"]);
    assert_eq!(sim.world().vms()[..3], ["1", "2", "3"]);
    let keys = client.counters().await;
    assert!(keys["mem.usage.average"] >= 65_536);
    let names = ["cpu.coreUtilization.average", "cpu.usage.average"];
    let metrics: Vec<(i32, &str)> = names.iter().map(|n| (keys[*n], "")).collect();
    let answer = client
        .perf(&spec(
            "HostSystem",
            "ha-host",
            "<maxSample>1</maxSample>",
            &metrics,
            "<intervalId>20</intervalId><format>csv</format>",
        ))
        .await;
    let answer = csv(&answer.body).remove(0);
    assert_eq!(answer.series.len(), 1, "coreUtilization has no aggregate here");
    let option = client.call(r#"<QueryOptions xmlns="urn:vim25"><_this type="OptionManager">HostAgentSettings</_this><name>config.vpxd.stats.maxQueryMetrics</name></QueryOptions>"#).await;
    assert!(option.body.contains("xsi:type=\"InvalidName\""));
    let view = view(&client, "ha-folder-root").await;
    let page = client
        .call(&retrieve(&view, &["name"], "").replace("propertyCollector", "ha-property-collector"))
        .await;
    assert_eq!(all(&page.body, "objects", "objects").len(), 10 + 1 + 1);
    sim.shutdown().await;
}

#[tokio::test]
async fn tls_gzip_and_the_version_document() {
    for tls in [TlsMode::TestCa, TlsMode::SelfSigned] {
        let sim = start(Spec {
            tls,
            ..Spec::default()
        })
        .await;
        let mut client = Client::login(&sim).await;
        assert_eq!(
            sim.leaf_sha256_thumbprint().expect("thumbprint").len(),
            32 * 3 - 1
        );
        assert_eq!(sim.leaf_sha256_plain().expect("thumbprint").len(), 64);
        let versions = client.get("/sdk/vimServiceVersions.xml").await;
        assert!(versions.body.contains("<version>8.0.3.0</version>"));
        assert!(versions.body.contains("<name>urn:vim25</name>"));
        assert_eq!(client.get("/sdk").await.status, 405);
        assert!(
            client
                .cookie
                .as_ref()
                .expect("cookie")
                .starts_with("vmware_soap_session=\"")
        );
        let query = spec("VirtualMachine", "vm-10001", "", &[], "<format>csv</format>");
        client.gzip = true;
        let packed = client.perf(&query).await;
        assert!(packed.head.contains("content-encoding: gzip"));
        assert_eq!(csv(&packed.body).len(), 1);
        let call = sim.calls().recent().pop().expect("call");
        assert_eq!(call.operation_id.as_deref(), Some("test-1"));
        assert_eq!(call.soap_action.as_deref(), Some("urn:vim25/8.0.1.0"));
        assert_eq!(sim.calls().count("QueryPerf"), 1);
        sim.shutdown().await;
    }
}

#[tokio::test]
async fn hostile_rules_do_what_they_say() {
    let sim = start(frozen()).await;
    let client = Client::login(&sim).await;
    let usage = client.counters().await["cpu.usage.average"];
    let query = format!(
        "{}{}",
        spec(
            "VirtualMachine",
            "vm-10001",
            "<maxSample>3</maxSample>",
            &[(usage, "")],
            "<format>csv</format>"
        ),
        spec(
            "VirtualMachine",
            "vm-10002",
            "<maxSample>3</maxSample>",
            &[(usage, "")],
            "<format>csv</format>"
        )
    );
    let good = client.perf(&query).await.body;
    let whole = csv(&good);
    let order: Vec<&str> = whole.iter().map(|answer| answer.entity.as_str()).collect();
    assert_eq!(order, ["vm-10001", "vm-10002"]);
    let cells = |answer: &support::Answer| answer.series[&(usage, String::new())].clone();
    let once = |action| {
        sim.rules().clear();
        sim.rules()
            .add(Rule::on("QueryPerf", action).object("vm-10002").times(1))
    };
    let id = once(Action::Fault {
        fault: "ManagedObjectNotFound".to_owned(),
        message: String::new(),
    });
    let fault = client.perf(&query).await;
    assert!(
        fault.body.contains("<obj type=\"VirtualMachine\">vm-10002</obj>"),
        "{}",
        fault.body
    );
    assert_eq!(client.perf(&query).await.body, good, "only once");
    assert_eq!(sim.rules().applied(id), 1);
    assert_eq!(sim.calls().method("QueryPerf").faults["ManagedObjectNotFound"], 1);
    once(Action::Status {
        code: 503,
        body: None,
    });
    let status = client.perf(&query).await;
    assert_eq!(status.status, 503);
    assert!(status.body.contains("<html>"));
    once(Action::Truncate { at: 700 });
    let truncated = client.perf(&query).await;
    assert!(truncated.complete && truncated.body == good[..700]);
    once(Action::Cut { at: 700 });
    let cut = client.perf(&query).await;
    assert!(!cut.complete && cut.body == good[..700], "{cut:?}");
    once(Action::Reset { at: 700 });
    let reset = client.post(&envelope(&format!(r#"<QueryPerf xmlns="urn:vim25"><_this type="PerformanceManager">PerfMgr</_this>{query}</QueryPerf>"#))).await;
    assert!(reset.is_err() || reset.is_ok_and(|r| !r.complete));
    once(Action::Reset { at: 0 });
    let reset = client.post(&envelope(&format!(r#"<QueryPerf xmlns="urn:vim25"><_this type="PerformanceManager">PerfMgr</_this>{query}</QueryPerf>"#))).await;
    assert_eq!(
        reset.expect_err("no reply").kind(),
        std::io::ErrorKind::ConnectionReset
    );
    once(Action::Body {
        text: "<oops".to_owned(),
        content_type: "text/html".to_owned(),
    });
    assert_eq!(client.perf(&query).await.body, "<oops");
    once(Action::Descending);
    let twisted = csv(&client.perf(&query).await.body);
    assert_eq!(cells(&twisted[0]), cells(&whole[0]));
    let mut reversed = cells(&twisted[1]);
    reversed.reverse();
    assert_eq!(reversed, cells(&whole[1]));
    assert!(twisted[1].stamps[0] > twisted[1].stamps[1]);
    once(Action::MinusOne {
        counter: Some("cpu.usage.average".to_owned()),
    });
    assert_eq!(cells(&csv(&client.perf(&query).await.body)[1]), [Some(-1); 3]);
    once(Action::EmptyCells { counter: None });
    assert_eq!(cells(&csv(&client.perf(&query).await.body)[1]), [None; 3]);
    once(Action::OmitEntity);
    assert_eq!(csv(&client.perf(&query).await.body).len(), 1);
    once(Action::Short { cells: 1 });
    let short = csv(&client.perf(&query).await.body);
    assert_eq!(cells(&short[1]), cells(&whole[1])[..2]);
    assert_eq!(short[1].stamps, whole[1].stamps);
    once(Action::OffGrid { seconds: 3 });
    let shifted = csv(&client.perf(&query).await.body);
    assert_eq!(cells(&shifted[1]), cells(&whole[1]));
    assert!(shifted[1].stamps[0] > whole[1].stamps[0]);
    assert_eq!(shifted[0].stamps, whole[0].stamps);
    once(Action::Twice);
    assert_eq!(csv(&client.perf(&query).await.body).len(), 3);
    once(Action::Extra {
        moref: "vm-7".to_owned(),
    });
    let extra = csv(&client.perf(&query).await.body);
    assert_eq!((extra.len(), extra[2].entity.as_str()), (3, "vm-7"));
    once(Action::Replace {
        find: "vm-10001".to_owned(),
        with: "vm-1".to_owned(),
    });
    assert_eq!(csv(&client.perf(&query).await.body)[0].entity, "vm-1");
    once(Action::Redirect {
        location: "https://elsewhere.example.com/".to_owned(),
    });
    assert_eq!(client.perf(&query).await.status, 302);
    once(Action::Delay { millis: 80 });
    let before = tokio::time::Instant::now();
    assert_eq!(client.perf(&query).await.body, good);
    assert!(before.elapsed() >= Duration::from_millis(80));
    sim.shutdown().await;
}

#[tokio::test]
async fn events_shape_what_can_be_read() {
    let sim = start(frozen()).await;
    let client = Client::login(&sim).await;
    let keys = client.counters().await;
    let usage = keys["cpu.usage.average"];
    let ask = |vm: &str| {
        let query = spec("VirtualMachine", vm, "", &[(usage, "")], "<format>csv</format>");
        let client = client.clone();
        async move {
            let reply = client.perf(&query).await;
            (reply.status == 200).then(|| csv(&reply.body).remove(0).stamps)
        }
    };
    let newest = START - 5;
    // Off: the ring stays readable and grows no more.
    sim.world().power_off("vm-10001").expect("off");
    assert!(sim.world().power_off("vm-10001").is_err());
    sim.clock().advance(Duration::from_secs(40));
    assert_eq!(ask("vm-10001").await.expect("vm").last(), Some(&newest));
    // On at :45: the first whole interval ends at the second stamp after.
    sim.world().power_on("vm-10001").expect("on");
    sim.clock().advance(Duration::from_secs(40));
    let stamps = ask("vm-10001").await.expect("vm");
    assert_eq!(stamps[stamps.len() - 2..], [newest, newest + 80]);
    // Deleted: unknown.
    sim.world().delete_vm("vm-10001").expect("delete");
    assert_eq!(ask("vm-10001").await, None);
    // Moved with its ring: no hole. Without: only what the new host sampled.
    let (here, there) = ("host-1001", "host-1002");
    let kept = sim.world().create_vm(None, Some(here)).expect("create");
    let lost = sim.world().create_vm(None, Some(here)).expect("create");
    sim.clock().advance(Duration::from_secs(120));
    sim.world().move_vm(&kept, there, RingFate::Kept).expect("move");
    sim.world().move_vm(&lost, there, RingFate::Reset).expect("move");
    sim.clock().advance(Duration::from_secs(60));
    let stamps = ask(&kept).await.expect("vm");
    assert!(
        stamps.len() >= 7 && stamps.windows(2).all(|w| w[1] - w[0] == 20),
        "{stamps:?}"
    );
    assert_eq!(ask(&lost).await.expect("vm").len(), 2);
    let truth = sim.truth();
    let hosts: Vec<&str> = truth
        .entity(&kept)
        .expect("vm")
        .samples(0, i64::MAX)
        .map(|s| s.host)
        .collect();
    assert_eq!((hosts.first(), hosts.last()), (Some(&here), Some(&there)));
    assert!(
        truth
            .entity("vm-10001")
            .expect("kept in the log")
            .record()
            .removed_at
            .is_some()
    );
    // A disconnected host hides its own and its VMs' samples, and gives them all back.
    sim.world()
        .set_host_link(there, HostLink::NotResponding)
        .expect("link");
    sim.clock().advance(Duration::from_secs(100));
    assert!(ask(&kept).await.expect("vm").is_empty());
    sim.world()
        .set_host_link(there, HostLink::Connected)
        .expect("link");
    assert_eq!(ask(&kept).await.expect("vm").len(), stamps.len() + 5);
    let truth = sim.truth();
    let late = truth
        .entity(&kept)
        .expect("vm")
        .samples(0, i64::MAX)
        .last()
        .expect("sample");
    assert_eq!(late.published_at, truth.now);
    // Renumbered: the old numbers mean something else, the names stay.
    sim.world().renumber_counters();
    let renumbered = client.counters().await;
    assert_ne!(renumbered["cpu.usage.average"], usage);
    assert_eq!(renumbered.len(), keys.len());
    // Away and back on the same port.
    sim.set_network(false);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(client.post("x").await.is_err());
    sim.set_network(true);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(client.post("x").await.is_ok());
    sim.shutdown().await;
}

#[tokio::test]
async fn entities_without_samples_have_an_empty_entry_or_none() {
    for (empty_entities, count) in [(EmptyEntities::Entry, 1), (EmptyEntities::LeftOut, 0)] {
        let sim = start(Spec {
            empty_entities,
            ..frozen()
        })
        .await;
        let client = Client::login(&sim).await;
        let template = sim.world().find("template-021").expect("template");
        let reply = client
            .perf(&spec(
                "VirtualMachine",
                &template,
                "",
                &[(1, "")],
                "<format>csv</format>",
            ))
            .await;
        assert_eq!(csv(&reply.body).len(), count);
    }
}

#[tokio::test]
async fn the_control_port_does_what_the_library_does() {
    let sim = start(frozen()).await;
    let mut control = Client::new(&sim);
    let post = |path: &str, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: c\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    control.aim(sim.control_addr());
    for (path, body) in [
        ("/event", r#"{"event":"power-off","vm":"vm-10003"}"#),
        (
            "/event",
            r#"{"event":"move-vm","vm":"vm-10004","host":"host-1001","ring":"reset"}"#,
        ),
        ("/clock", r#"{"advance":60}"#),
        (
            "/rules",
            r#"{"method":"QueryPerf","times":2,"action":"status","code":503}"#,
        ),
        ("/sessions/expire", ""),
    ] {
        let reply = control.raw(&post(path, body)).await;
        assert_eq!(reply.status, 200, "{path} {body}: {}", reply.body);
    }
    assert_eq!(
        control
            .raw(&post("/event", r#"{"event":"power-off","vm":"vm-10003"}"#))
            .await
            .status,
        409
    );
    assert_eq!(
        control.raw(&post("/event", r#"{"event":"dance"}"#)).await.status,
        400
    );
    assert_eq!(sim.clock().now(), (START + 60) * MICROS);
    assert_eq!(sim.rules().status().len(), 1);
    let truth: vsphere_simulator::Truth =
        serde_json::from_str(&control.get("/truth").await.body).expect("truth");
    assert!(
        truth.entity("vm-10003").expect("vm").record().runs[0]
            .last_stamp
            .is_some()
    );
    assert_eq!(
        truth.value("vm-10005", "mem.usage.average", "", START - 5),
        sim.truth().value("vm-10005", "mem.usage.average", "", START - 5)
    );
    assert!(control.get("/status").await.body.contains("\"counter_epoch\":0"));
    assert!(control.get("/").await.body.contains("/truth"));
}

#[tokio::test]
async fn the_program_says_when_it_is_ready_and_ends_with_its_parent() {
    use std::process::Stdio;
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    let file = std::env::temp_dir().join(format!("vsphere-simulator-{}.pem", std::process::id()));
    for by_signal in [false, true] {
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_vsphere-simulator"))
            .args(["--vms", "7", "--exit-with-parent", "--ca-file"])
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("spawn");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout");
        BufReader::new(stdout).read_line(&mut line).await.expect("line");
        let ready: serde_json::Value = serde_json::from_str(&line).expect("json");
        assert_eq!(ready["vms"], 7);
        assert!(
            ready["sdk"]
                .as_str()
                .expect("sdk")
                .starts_with("https://127.0.0.1:")
        );
        assert!(
            std::fs::read_to_string(&file)
                .expect("pem")
                .starts_with("-----BEGIN CERTIFICATE-----")
        );
        let stdin = child.stdin.take();
        if by_signal {
            let pid = child.id().expect("pid").to_string();
            let kill = tokio::process::Command::new("kill").arg(pid).status().await;
            assert!(kill.expect("kill").success());
        } else {
            drop(stdin);
        }
        let end = tokio::time::timeout(Duration::from_secs(5), child.wait()).await;
        assert!(end.expect("ends in time").expect("status").success());
    }
    std::fs::remove_file(file).expect("remove");
}

/// Prints what 10,000 VMs and 500 hosts cost. Fails at several times the target only: the machine may
/// be busy.
#[tokio::test]
async fn ten_thousand_vms_cost_little() {
    let before = tokio::time::Instant::now();
    let sim = start(Spec {
        tls: TlsMode::Plain,
        ..Spec::vcenter(500, 10_000)
    })
    .await;
    let started = before.elapsed();
    let client = Client::login(&sim).await;
    let names = [
        "cpu.usage.average",
        "cpu.usagemhz.average",
        "cpu.ready.summation",
        "cpu.costop.summation",
        "cpu.latency.average",
        "cpu.demand.average",
        "cpu.entitlement.latest",
        "mem.usage.average",
        "mem.consumed.average",
        "mem.active.average",
        "mem.granted.average",
        "mem.vmmemctl.average",
        "mem.swapinRate.average",
        "mem.swapoutRate.average",
        "mem.swapped.average",
        "mem.overhead.average",
        "net.bytesRx.average",
        "net.bytesTx.average",
        "net.packetsRx.summation",
        "net.packetsTx.summation",
        "net.droppedRx.summation",
        "net.droppedTx.summation",
        "virtualDisk.read.average",
        "virtualDisk.write.average",
        "sys.uptime.latest",
        "power.power.average",
    ];
    let keys = client.counters().await;
    let mut metrics: Vec<(i32, &str)> = names.iter().map(|n| (keys[*n], "")).collect();
    metrics.push((keys["virtualDisk.numberReadAveraged.average"], "*"));
    metrics.push((keys["virtualDisk.totalReadLatency.average"], "*"));
    let query: String = sim
        .world()
        .running_vms()
        .iter()
        .take(100)
        .map(|vm| {
            spec(
                "VirtualMachine",
                vm,
                "<maxSample>3</maxSample>",
                &metrics,
                "<intervalId>20</intervalId><format>csv</format>",
            )
        })
        .collect();
    let before = tokio::time::Instant::now();
    let mut size = 0;
    for _ in 0..20 {
        size = client.perf(&query).await.body.len();
    }
    let query_time = before.elapsed() / 20;
    let view = view(&client, "group-d1").await;
    let before = tokio::time::Instant::now();
    let mut reply = client
        .call(&retrieve(
            &view,
            &[
                "name",
                "runtime.powerState",
                "runtime.host",
                "summary.config.instanceUuid",
            ],
            "",
        ))
        .await;
    let mut objects = 0;
    loop {
        objects += reply.body.matches("<objects>").count();
        let Some(token) = all(&reply.body, "token", "token").pop() else {
            break;
        };
        reply = client.call(&next(&token)).await;
    }
    let inventory = before.elapsed();
    assert_eq!(objects, 10_501);
    let before = tokio::time::Instant::now();
    let truth = serde_json::to_string(&sim.truth()).expect("json");
    println!(
        "start {started:?}; QueryPerf of 100 VMs x 30 series x 3 samples {query_time:?} ({size} bytes); inventory {inventory:?}; truth {:?} ({} bytes)",
        before.elapsed(),
        truth.len()
    );
    assert!(started < Duration::from_secs(6), "{started:?}");
    assert!(query_time < Duration::from_millis(100), "{query_time:?}");
    sim.shutdown().await;
}
