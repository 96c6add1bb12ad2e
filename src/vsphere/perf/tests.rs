use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::config::HostDisk;
use crate::model::columns::Column;
use crate::model::ids::HostId;
use crate::model::ids::MoRef;
use crate::model::ids::VmId;
use crate::model::sample::Cell;
use crate::units::Stamp;
use crate::vsphere::counters::CounterInfo;
use crate::vsphere::counters::Selection;

mod fuzz;

/// A catalogue of all counters of the tables: ids in no order that means anything, some of them large as on ESXi.
fn catalog() -> Vec<CounterInfo> {
    let units = [
        (
            "percent",
            "cpu.latency cpu.usage cpu.utilization mem.latency mem.usage",
        ),
        (
            "kiloBytes",
            "mem.active mem.vmmemctl mem.compressed mem.consumed mem.granted mem.overhead mem.shared mem.swapused \
             mem.swapped",
        ),
        ("megaBytes", "mem.totalCapacity"),
        ("megaHertz", "cpu.totalCapacity cpu.demand cpu.usagemhz"),
        (
            "kiloBytesPerSecond",
            "disk.read disk.write mem.swapinRate mem.swapoutRate net.bytesRx net.bytesTx virtualDisk.read \
             virtualDisk.write",
        ),
        ("watt", "power.power"),
        ("second", "sys.uptime"),
        (
            "number",
            "storageAdapter.numberReadAveraged storageAdapter.numberWriteAveraged datastore.numberReadAveraged \
             datastore.numberWriteAveraged virtualDisk.numberReadAveraged virtualDisk.numberWriteAveraged \
             net.packetsRx net.packetsTx net.droppedRx net.droppedTx net.errorsRx net.errorsTx",
        ),
        (
            "millisecond",
            "disk.maxTotalLatency storageAdapter.totalReadLatency storageAdapter.totalWriteLatency \
             datastore.totalReadLatency datastore.totalWriteLatency virtualDisk.totalReadLatency \
             virtualDisk.totalWriteLatency cpu.costop cpu.ready",
        ),
    ];
    let rollup = |name: &str| match name {
        "sys.uptime" | "disk.maxTotalLatency" => "latest",
        "cpu.costop" | "cpu.ready" => "summation",
        name if name.starts_with("net.packets")
            || name.starts_with("net.dropped")
            || name.starts_with("net.errors") =>
        {
            "summation"
        }
        _ => "average",
    };
    let all = units
        .iter()
        .flat_map(|(unit, names)| names.split_whitespace().map(move |name| (*unit, name)));
    all.enumerate()
        .map(|(place, (unit, name))| {
            let place = i32::try_from(place).unwrap();
            let id = if place % 5 == 0 {
                65_536 * (40 - place) + 7
            } else {
                (place * 37) % 101 + 2
            };
            CounterInfo {
                id,
                name: format!("{name}.{}", rollup(name)),
                unit: unit.to_owned(),
                level: None,
                per_device_level: None,
            }
        })
        .collect()
}

fn counters() -> Counters {
    let counters = Counters::new(&catalog(), &Selection::default());
    assert_eq!(counters.unusable(), []);
    counters
}

fn id(counter: &str) -> i32 {
    catalog()
        .into_iter()
        .find(|info| info.name == counter)
        .unwrap_or_else(|| panic!("{counter}"))
        .id
}

fn vm(number: i32, cpus: u16) -> Target {
    Target {
        entity: VmId(number).into(),
        moref: MoRef::new(format!("vm-{number}")),
        cpus,
        placement: None,
        after: Stamp::from_seconds(0),
        until: None,
    }
}

fn host(number: i32, cpus: u16) -> Target {
    Target {
        entity: HostId(number).into(),
        moref: MoRef::new(format!("host-{number}")),
        ..vm(number, cpus)
    }
}

/// 2026-01-31T10:00:00Z and some seconds.
fn stamp(second: i64) -> Stamp {
    Stamp::from_seconds(1_769_853_600 + second)
}

/// One entity of an answer, in the form of the test: stamps, and cells by counter and instance.
#[derive(Debug, Clone)]
struct Part {
    kind: &'static str,
    moref: String,
    samples: Vec<(u32, String)>,
    series: Vec<(i32, String, Vec<Option<i64>>)>,
}

impl Part {
    fn of(target: &Target, seconds: &[i64]) -> Self {
        Self {
            kind: target.entity.kind.vim_type(),
            moref: target.moref.to_string(),
            samples: seconds
                .iter()
                .map(|second| (20, stamp(*second).to_string()))
                .collect(),
            series: Vec::new(),
        }
    }

    fn with(mut self, counter: &str, instance: &str, values: &[i64]) -> Self {
        let values = values.iter().map(|value| Some(*value)).collect();
        self.series.push((id(counter), instance.to_owned(), values));
        self
    }

    fn csv(&self) -> String {
        let samples: Vec<String> = self
            .samples
            .iter()
            .map(|(interval, stamp)| format!("{interval},{stamp}"))
            .collect();
        let mut xml = format!(
            "<returnval xsi:type=\"PerfEntityMetricCSV\"><entity type=\"{}\">{}</entity><sampleInfoCSV>{}</sampleInfoCSV>",
            self.kind,
            self.moref,
            samples.join(",")
        );
        for (counter, instance, values) in &self.series {
            let values: Vec<String> = values
                .iter()
                .map(|v| v.map_or_else(String::new, |v| v.to_string()))
                .collect();
            write!(
                xml,
                "<value xsi:type=\"PerfMetricSeriesCSV\"><id><counterId>{counter}</counterId><instance>{instance}\
                 </instance></id><value>{}</value></value>",
                values.join(",")
            )
            .unwrap();
        }
        xml + "</returnval>"
    }

    fn normal(&self) -> String {
        let mut xml = format!(
            "<returnval xmlns:_X=\"http://www.w3.org/2001/XMLSchema-instance\" _X:type=\"PerfEntityMetric\">\
             <entity type=\"{}\">{}</entity>",
            self.kind, self.moref
        );
        for (interval, stamp) in &self.samples {
            write!(
                xml,
                "<sampleInfo><timestamp>{stamp}</timestamp><interval>{interval}</interval></sampleInfo>"
            )
            .unwrap();
        }
        for (counter, instance, values) in &self.series {
            write!(
                xml,
                "<value _X:type=\"PerfMetricIntSeries\"><id><counterId>{counter}</counterId><instance>{instance}\
                 </instance></id>"
            )
            .unwrap();
            for value in values {
                // An element cannot be left out without moving the others: a hole is a negative number here.
                write!(xml, "<value>{}</value>", value.unwrap_or(-1)).unwrap();
            }
            xml.push_str("</value>");
        }
        xml + "</returnval>"
    }
}

fn envelope(returnvals: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<soapenv:Envelope \
         xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\n<soapenv:Body>\n<QueryPerfResponse \
         xmlns=\"urn:vim25\">{returnvals}</QueryPerfResponse>\n</soapenv:Body>\n</soapenv:Envelope>"
    )
}

fn decode_parts(parts: &[Part], targets: &[Target]) -> Reply {
    let body: String = parts.iter().map(Part::csv).collect();
    decode(&envelope(&body), targets, &counters(), 20).unwrap()
}

/// One window as seconds after the base and cells by column.
fn rows(reply: &Reply, entity: EntityId) -> Vec<(i64, BTreeMap<&'static str, f64>)> {
    let window = reply
        .windows
        .iter()
        .find(|window| window.entity == entity)
        .unwrap();
    window
        .rows()
        .map(|(head, cells)| {
            let second = head.stamp.micros_since(stamp(0)) / 1_000_000;
            let cells = Column::of(entity.kind).iter().zip(cells);
            (
                second,
                cells
                    .filter_map(|(column, cell)| Some((column.name, cell.get()?)))
                    .collect(),
            )
        })
        .collect()
}

/// A column, the series that are published for it, and what must be stored.
type Line = (&'static str, &'static [(&'static str, &'static str, i64)], f64);

/// Every column of a host: counter, instance, published number, and the stored number worked out by hand for
/// 20 seconds and 8 threads.
#[rustfmt::skip]
const HOST_CELLS: &[Line] = &[
    ("memory_active_kib", &[("mem.active.average", "", 5_000_000_000)], 5_000_000_000.0),
    ("memory_balloon_kib", &[("mem.vmmemctl.average", "", 0)], 0.0),
    ("memory_capacity_kib", &[("mem.totalCapacity.average", "", 131_072)], 134_217_728.0),
    ("memory_compressed_kib", &[("mem.compressed.average", "", 12)], 12.0),
    ("memory_consumed_kib", &[("mem.consumed.average", "", 99_000_000)], 99_000_000.0),
    ("memory_granted_kib", &[("mem.granted.average", "", 98_000_000)], 98_000_000.0),
    ("memory_overhead_kib", &[("mem.overhead.average", "", 1_234)], 1_234.0),
    ("memory_shared_kib", &[("mem.shared.average", "", 777)], 777.0),
    ("memory_swap_used_kib", &[("mem.swapused.average", "", 4_096)], 4_096.0),
    ("cpu_capacity_mhz", &[("cpu.totalCapacity.average", "", 41_600)], 41_600.0),
    ("cpu_demand_mhz", &[("cpu.demand.average", "", 9_001)], 9_001.0),
    ("cpu_usage_mhz", &[("cpu.usagemhz.average", "", 8_000)], 8_000.0),
    ("disk_max_latency_ms", &[("disk.maxTotalLatency.latest", "", 17)], 17.0),
    ("disk_read_iops", &[
        ("storageAdapter.numberReadAveraged.average", "vmhba0", 30),
        ("storageAdapter.numberReadAveraged.average", "vmhba1", 10),
        ("storageAdapter.numberReadAveraged.average", "vmhba2", 0),
    ], 40.0),
    ("disk_read_kibps", &[("disk.read.average", "", 2_048)], 2_048.0),
    ("disk_write_iops", &[
        ("storageAdapter.numberWriteAveraged.average", "vmhba0", 1),
        ("storageAdapter.numberWriteAveraged.average", "vmhba1", 5),
    ], 6.0),
    ("disk_write_kibps", &[("disk.write.average", "", 1_024)], 1_024.0),
    ("memory_swap_in_kibps", &[("mem.swapinRate.average", "", 3)], 3.0),
    ("memory_swap_out_kibps", &[("mem.swapoutRate.average", "", 4)], 4.0),
    ("network_rx_kibps", &[("net.bytesRx.average", "", 500)], 500.0),
    ("network_tx_kibps", &[("net.bytesTx.average", "", 600)], 600.0),
    ("power_watts", &[("power.power.average", "", 321)], 321.0),
    ("uptime_seconds", &[("sys.uptime.latest", "", 86_400)], 86_400.0),
    // 4,000 ms of 8 threads x 20,000 ms.
    ("cpu_costop_percent", &[("cpu.costop.summation", "", 4_000)], 2.5),
    ("cpu_latency_percent", &[("cpu.latency.average", "", 150)], 1.5),
    // 40,000 ms of 160,000 ms.
    ("cpu_ready_percent", &[("cpu.ready.summation", "", 40_000)], 25.0),
    ("cpu_usage_percent", &[("cpu.usage.average", "", 1_414)], 14.14),
    ("cpu_utilization_percent", &[("cpu.utilization.average", "", 11_000)], 110.0),
    // (30 x 4 ms + 10 x 12 ms + 0 x 99 ms) / 40 operations.
    ("disk_read_latency_ms", &[
        ("storageAdapter.totalReadLatency.average", "vmhba2", 99),
        ("storageAdapter.totalReadLatency.average", "vmhba1", 12),
        ("storageAdapter.totalReadLatency.average", "vmhba0", 4),
    ], 6.0),
    // (1 x 7 ms + 5 x 1 ms) / 6 operations.
    ("disk_write_latency_ms", &[
        ("storageAdapter.totalWriteLatency.average", "vmhba0", 7),
        ("storageAdapter.totalWriteLatency.average", "vmhba1", 1),
    ], 2.0),
    ("memory_latency_percent", &[("mem.latency.average", "", 1)], 0.01),
    ("memory_usage_percent", &[("mem.usage.average", "", 7_531)], 75.31),
    ("network_rx_dropped_per_second", &[("net.droppedRx.summation", "", 5)], 0.25),
    ("network_rx_errors_per_second", &[("net.errorsRx.summation", "", 1)], 0.05),
    ("network_rx_packets_per_second", &[("net.packetsRx.summation", "", 90)], 4.5),
    ("network_tx_dropped_per_second", &[("net.droppedTx.summation", "", 20)], 1.0),
    ("network_tx_errors_per_second", &[("net.errorsTx.summation", "", 10)], 0.5),
    ("network_tx_packets_per_second", &[("net.packetsTx.summation", "", 123)], 6.15),
];

/// Every column of a VM with 4 vCPUs.
#[rustfmt::skip]
const VM_CELLS: &[Line] = &[
    ("memory_active_kib", &[("mem.active.average", "", 4_294_967_296)], 4_294_967_296.0),
    ("memory_balloon_kib", &[("mem.vmmemctl.average", "", 10)], 10.0),
    ("memory_compressed_kib", &[("mem.compressed.average", "", 11)], 11.0),
    ("memory_consumed_kib", &[("mem.consumed.average", "", 12)], 12.0),
    ("memory_granted_kib", &[("mem.granted.average", "", 13)], 13.0),
    ("memory_overhead_kib", &[("mem.overhead.average", "", 14)], 14.0),
    ("memory_shared_kib", &[("mem.shared.average", "", 15)], 15.0),
    ("memory_swapped_kib", &[("mem.swapped.average", "", 16)], 16.0),
    ("cpu_demand_mhz", &[("cpu.demand.average", "", 2_100)], 2_100.0),
    ("cpu_usage_mhz", &[("cpu.usagemhz.average", "", 2_000)], 2_000.0),
    ("disk_max_latency_ms", &[("disk.maxTotalLatency.latest", "", 3)], 3.0),
    ("disk_read_iops", &[
        ("virtualDisk.numberReadAveraged.average", "scsi0:0", 100),
        ("virtualDisk.numberReadAveraged.average", "sata0:1", 300),
    ], 400.0),
    ("disk_read_kibps", &[("virtualDisk.read.average", "", 5)], 5.0),
    ("disk_write_iops", &[("virtualDisk.numberWriteAveraged.average", "scsi0:0", 0)], 0.0),
    ("disk_write_kibps", &[("virtualDisk.write.average", "", 6)], 6.0),
    ("memory_swap_in_kibps", &[("mem.swapinRate.average", "", 7)], 7.0),
    ("memory_swap_out_kibps", &[("mem.swapoutRate.average", "", 8)], 8.0),
    ("network_rx_kibps", &[("net.bytesRx.average", "", 9)], 9.0),
    ("network_tx_kibps", &[("net.bytesTx.average", "", 10)], 10.0),
    ("power_watts", &[("power.power.average", "", 30)], 30.0),
    ("uptime_seconds", &[("sys.uptime.latest", "", 60)], 60.0),
    // 800 ms of 4 vCPUs x 20,000 ms.
    ("cpu_costop_percent", &[("cpu.costop.summation", "", 800)], 1.0),
    ("cpu_latency_percent", &[("cpu.latency.average", "", 305)], 3.05),
    // VMware KB 2002181: 1,000 ms in 20 s on one vCPU is 5 %; on four, 1.25 % each.
    ("cpu_ready_percent", &[("cpu.ready.summation", "", 1_000)], 1.25),
    ("cpu_usage_percent", &[("cpu.usage.average", "", 2_500)], 25.0),
    // (100 x 10 ms + 300 x 2 ms) / 400 operations.
    ("disk_read_latency_ms", &[
        ("virtualDisk.totalReadLatency.average", "scsi0:0", 10),
        ("virtualDisk.totalReadLatency.average", "sata0:1", 2),
    ], 4.0),
    // No operation at all: the plain mean of 5 ms and 8 ms.
    ("disk_write_latency_ms", &[
        ("virtualDisk.totalWriteLatency.average", "scsi0:0", 5),
        ("virtualDisk.totalWriteLatency.average", "sata0:1", 8),
    ], 6.5),
    ("memory_latency_percent", &[("mem.latency.average", "", 20)], 0.2),
    ("memory_usage_percent", &[("mem.usage.average", "", 999)], 9.99),
    ("network_rx_dropped_per_second", &[("net.droppedRx.summation", "", 1)], 0.05),
    ("network_rx_packets_per_second", &[("net.packetsRx.summation", "", 1_000)], 50.0),
    ("network_tx_dropped_per_second", &[("net.droppedTx.summation", "", 2)], 0.1),
    ("network_tx_packets_per_second", &[("net.packetsTx.summation", "", 7)], 0.35),
];

#[test]
fn every_column_is_what_the_vsphere_client_shows() {
    for (target, table) in [(host(9, 8), HOST_CELLS), (vm(1, 4), VM_CELLS)] {
        let names: Vec<&str> = table.iter().map(|(name, ..)| *name).collect();
        let columns: Vec<&str> = Column::of(target.entity.kind)
            .iter()
            .map(|column| column.name)
            .collect();
        assert_eq!(names, columns, "a line for every column, in table order");
        let mut part = Part::of(&target, &[20]);
        for (counter, instance, value) in table.iter().flat_map(|(_, series, _)| *series) {
            part = part.with(counter, instance, &[*value]);
        }
        let reply = decode_parts(&[part], std::slice::from_ref(&target));
        let found = rows(&reply, target.entity);
        assert_eq!(found.len(), 1);
        for (name, _, wanted) in table {
            let found = found[0].1.get(name).unwrap_or_else(|| panic!("{name} is NULL"));
            assert!((found - wanted).abs() < 1e-12, "{name}: {found}, not {wanted}");
        }
    }
}

#[test]
fn a_host_on_nfs_takes_its_disks_from_the_datastores() {
    let selection = Selection {
        host_disk: HostDisk::Datastore,
        ..Selection::default()
    };
    let counters = Counters::new(&catalog(), &selection);
    let target = host(1, 2);
    let part = Part::of(&target, &[20])
        .with("datastore.numberReadAveraged.average", "5f1-a", &[3])
        .with("datastore.numberReadAveraged.average", "5f1-b", &[1])
        .with("datastore.totalReadLatency.average", "5f1-b", &[8])
        .with("datastore.totalReadLatency.average", "5f1-a", &[4])
        .with("storageAdapter.numberReadAveraged.average", "vmhba0", &[99]);
    let reply = decode(
        &envelope(&part.csv()),
        std::slice::from_ref(&target),
        &counters,
        20,
    )
    .unwrap();
    let row = &rows(&reply, target.entity)[0].1;
    assert_eq!((row["disk_read_iops"], row["disk_read_latency_ms"]), (4.0, 5.0));
    assert_eq!(reply.counts.unknown_counters, 1);
    assert_eq!(reply.counts.host_instances, 2);
}

#[test]
fn the_interval_of_the_sample_divides_never_a_constant() {
    let target = vm(1, 1);
    let mut part = Part::of(&target, &[300])
        .with("cpu.ready.summation", "", &[30_000])
        .with("net.packetsRx.summation", "", &[3_000]);
    part.samples[0].0 = 300;
    let reply = decode(
        &envelope(&part.csv()),
        std::slice::from_ref(&target),
        &counters(),
        300,
    )
    .unwrap();
    let row = &rows(&reply, target.entity)[0].1;
    assert_eq!(
        (row["cpu_ready_percent"], row["network_rx_packets_per_second"]),
        (10.0, 10.0)
    );
    assert_eq!(reply.windows[0].heads()[0].interval_seconds, 300);
}

#[test]
fn the_sample_that_is_stored_already_tells_which_series_have_values() {
    let complete = |after| {
        let target = Target { after, ..vm(1, 1) };
        let part = Part::of(&target, &[20, 40, 60])
            .with("cpu.usagemhz.average", "", &[1, 2, 3])
            .with("mem.active.average", "", &[4, -1, 5]);
        let reply = decode_parts(&[part], std::slice::from_ref(&target));
        assert_eq!(reply.counts.rows, reply.windows[0].len() as u64);
        let heads = reply.windows[0].heads().iter();
        heads.map(|head| (head.stamp, head.complete)).collect::<Vec<_>>()
    };
    assert_eq!(
        complete(stamp(20)),
        [(stamp(40), false), (stamp(60), true)],
        "a hole in the first new sample, which would otherwise be taken for a series that has no values"
    );
    assert_eq!(complete(stamp(40)), [(stamp(60), true)]);
}

#[test]
fn negative_empty_short_and_unreadable_cells_are_null() {
    let target = vm(1, 1);
    let mut part = Part::of(&target, &[20, 40, 60, 80])
        .with("cpu.usagemhz.average", "", &[1, 2, 3, 4])
        .with("mem.active.average", "", &[-1, 0])
        .with("virtualDisk.numberReadAveraged.average", "a", &[5, -1, -7, 1])
        .with("virtualDisk.numberReadAveraged.average", "b", &[6, 7, -1, -1])
        .with("cpu.demand.average", "", &[5_000_000_000, 1, 1, 1]);
    part.series.push((
        id("power.power.average"),
        String::new(),
        vec![None, Some(5), None, Some(6)],
    ));
    let reply = decode_parts(&[part.clone()], std::slice::from_ref(&target));
    let found = rows(&reply, target.entity);
    let get = |row: usize, name: &str| found[row].1.get(name).copied();
    assert_eq!(
        [0, 1, 2, 3].map(|row| get(row, "memory_active_kib")),
        [None, Some(0.0), None, None]
    );
    assert_eq!(
        [0, 1, 2, 3].map(|row| get(row, "disk_read_iops")),
        [Some(11.0), Some(7.0), None, Some(1.0)],
        "the sum of those that are there; nothing where none is"
    );
    assert_eq!(
        [0, 1, 2, 3].map(|row| get(row, "power_watts")),
        [None, Some(5.0), None, Some(6.0)]
    );
    assert_eq!(get(0, "cpu_demand_mhz"), None, "does not fit an integer column");
    assert_eq!(reply.counts.out_of_range, 1);
    let complete: Vec<bool> = reply.windows[0]
        .heads()
        .iter()
        .map(|head| head.complete)
        .collect();
    assert_eq!(
        complete,
        [true, false, false, false],
        "a hole after a value, also of one instance"
    );

    let body = part.csv().replace("1,2,3,4", "1, 2 ,x,99999999999999999999");
    let reply = decode(&envelope(&body), std::slice::from_ref(&target), &counters(), 20).unwrap();
    let found = rows(&reply, target.entity);
    assert_eq!(found[1].1.get("cpu_usage_mhz"), Some(&2.0));
    assert!(!found[3].1.contains_key("cpu_usage_mhz"));
    assert_eq!(reply.counts.bad_values, 2);
}

#[test]
fn a_hole_before_the_first_value_is_no_hole() {
    let target = vm(1, 1);
    // Just powered on, newest first: leading nothing in time, trailing on the wire.
    let part = Part::of(&target, &[60, 40, 20])
        .with("cpu.usagemhz.average", "", &[3, 2, 1])
        .with("mem.active.average", "", &[9, -1, -1]);
    let reply = decode_parts(&[part], std::slice::from_ref(&target));
    assert!(reply.windows[0].heads().iter().all(|head| head.complete));
    assert_eq!(reply.counts.incomplete_rows, 0);
    assert_eq!(
        rows(&reply, target.entity)
            .iter()
            .map(|(second, _)| *second)
            .collect::<Vec<_>>(),
        [20, 40, 60]
    );
}

#[test]
fn rows_ascend_whatever_the_order_and_each_stamp_comes_once() {
    let target = vm(1, 1);
    let mut part =
        Part::of(&target, &[60, 20, 43, 20, 80]).with("cpu.usagemhz.average", "", &[6, 2, 4, 99, 8]);
    part.samples.push((300, stamp(300).to_string()));
    part.samples.push((20, "yesterday".to_owned()));
    part.samples.push((20, "2026-01-31T12:01:40.5+02:00".to_owned()));
    part.series[0].2.extend([Some(30), Some(1), Some(10)]);
    let reply = decode_parts(&[part], std::slice::from_ref(&target));
    let found: Vec<(i64, f64)> = rows(&reply, target.entity)
        .iter()
        .map(|(second, row)| (*second, row["cpu_usage_mhz"]))
        .collect();
    assert_eq!(found, [(20, 2.0), (43, 4.0), (60, 6.0), (80, 8.0), (100, 10.0)]);
    let last = reply.windows[0].heads().last().unwrap().stamp;
    assert_eq!(
        last.micros_since(stamp(0)),
        100_500_000,
        "off the grid, as the source says"
    );
    let counts = reply.counts;
    assert_eq!(
        (counts.duplicate_stamps, counts.other_interval, counts.bad_stamps),
        (1, 1, 1)
    );
}

#[test]
fn a_row_of_nothing_is_no_row() {
    let target = vm(1, 1);
    let part = Part::of(&target, &[20, 40, 60]).with("cpu.usagemhz.average", "", &[-1, 2, -1]);
    let reply = decode_parts(&[part], std::slice::from_ref(&target));
    assert_eq!(rows(&reply, target.entity).len(), 1);
    assert_eq!(
        (reply.counts.rows, reply.counts.empty_rows, reply.counts.values),
        (1, 2, 1)
    );
}

#[test]
fn what_was_not_asked_for_is_left_out_and_counted() {
    let targets = [vm(1, 1), vm(2, 1), vm(3, 1)];
    let mut strange = Part::of(&targets[0], &[20]).with("cpu.usagemhz.average", "", &[1]);
    strange.series.push((10_042, String::new(), vec![Some(5)]));
    strange
        .series
        .push((id("cpu.usagemhz.average"), "0".to_owned(), vec![Some(5)]));
    strange.series.push((
        id("virtualDisk.numberReadAveraged.average"),
        "*".to_owned(),
        vec![Some(5)],
    ));
    strange.series.push((
        id("virtualDisk.numberReadAveraged.average"),
        String::new(),
        vec![Some(70)],
    ));
    strange
        .series
        .push((id("cpu.usagemhz.average"), String::new(), vec![Some(99)]));
    let unknown = Part::of(&vm(8, 1), &[20]).with("cpu.usagemhz.average", "", &[1]);
    // The reference of a VM under the type of a host is somebody else.
    let wrong_type = Part {
        kind: "HostSystem",
        ..Part::of(&targets[1], &[20]).with("cpu.usagemhz.average", "", &[1])
    };
    let empty = Part::of(&targets[1], &[]);
    let again = Part::of(&targets[0], &[40]).with("cpu.usagemhz.average", "", &[7]);
    let reply = decode_parts(&[unknown, wrong_type, strange, empty, again], &targets);
    let found = rows(&reply, targets[0].entity);
    assert_eq!(
        found,
        [(20, BTreeMap::from([("cpu_usage_mhz", 1.0)]))],
        "no aggregate in a sum over instances"
    );
    let counts = reply.counts;
    assert_eq!(
        (
            counts.unknown_counters,
            counts.unknown_instances,
            counts.duplicate_series
        ),
        (1, 2, 1)
    );
    assert_eq!((counts.unknown_entities, counts.duplicate_entities), (2, 1));
    assert_eq!(
        (reply.missing, reply.empty),
        (vec![targets[2].entity], vec![targets[1].entity])
    );
}

#[test]
fn a_row_says_where_the_vm_ran_only_from_when_that_is_known() {
    let mut target = vm(1, 1);
    target.placement = Some((HostId(5), stamp(40)));
    let part = Part::of(&target, &[20, 40, 60]).with("cpu.usagemhz.average", "", &[1, 2, 3]);
    let reply = decode_parts(&[part], std::slice::from_ref(&target));
    let hosts: Vec<Option<HostId>> = reply.windows[0].heads().iter().map(|head| head.host).collect();
    assert_eq!(hosts, [None, Some(HostId(5)), Some(HostId(5))]);
}

#[test]
fn without_a_known_number_of_cpus_shares_of_cpus_are_null() {
    let target = vm(1, 0);
    let part = Part::of(&target, &[20])
        .with("cpu.ready.summation", "", &[100])
        .with("cpu.usage.average", "", &[100]);
    let reply = decode_parts(&[part], std::slice::from_ref(&target));
    assert_eq!(
        rows(&reply, target.entity)[0].1,
        BTreeMap::from([("cpu_usage_percent", 1.0)])
    );
}

#[test]
fn a_fault_or_another_document_is_an_error() {
    let targets = [vm(1, 1)];
    let decode = |document: &str| decode(document, &targets, &counters(), 20);
    let part = Part::of(&targets[0], &[20])
        .with("cpu.usagemhz.average", "", &[1])
        .csv();
    let other_method = envelope(&part).replace("QueryPerfResponse", "LoginResponse");
    let other_root = envelope(&part).replace("soap/envelope/", "soap/other/");
    for document in [
        "",
        "<html><body>502 Bad Gateway</body></html>",
        &other_method,
        &other_root,
    ] {
        assert!(
            matches!(decode(document), Err(soap::Error::Malformed { .. })),
            "{document}"
        );
    }
    let two = "<entity type=\"VirtualMachine\">vm-1</entity>".repeat(2);
    assert!(decode(&envelope(&format!("<returnval>{two}</returnval>"))).is_err());
    let no_entity = envelope("<returnval><value><id/></value></returnval>");
    assert!(decode(&no_entity).is_err());
    let bare = envelope("<returnval/><returnval></returnval>");
    assert_eq!(decode(&bare).unwrap().counts.unknown_entities, 2);
    let no_id = part.replace("<id>", "<di>").replace("</id>", "</di>");
    let reply = decode(&envelope(&no_id)).unwrap();
    assert_eq!((reply.counts.unknown_counters, reply.empty.len()), (1, 1));
}

#[test]
fn an_answer_cut_at_any_byte_is_an_error() {
    let targets = [vm(1, 2), host(2, 8), vm(3, 1)];
    let parts: Vec<Part> = targets
        .iter()
        .map(|target| {
            Part::of(target, &[20, 40])
                .with("cpu.usage.average", "", &[1414, 2])
                .with("cpu.ready.summation", "", &[5, -1])
        })
        .collect();
    for body in [
        parts.iter().map(Part::csv).collect::<String>(),
        parts.iter().map(Part::normal).collect(),
    ] {
        let document = envelope(&body);
        let whole = decode(&document, &targets, &counters(), 20).unwrap();
        assert_eq!(whole.counts.rows, 6);
        // All of it is ASCII, so that every offset is one of a character.
        for end in 0..document.len() {
            let cut = decode(document.get(..end).unwrap(), &targets, &counters(), 20);
            assert!(cut.is_err(), "cut after {end} bytes: {cut:?}");
        }
    }
}

#[test]
fn an_answer_without_bound_is_refused() {
    let targets = [vm(1, 1)];
    let series = "<value><id><counterId>2</counterId><instance>i</instance></id><value>1</value></value>";
    let many: String = (0..20_000)
        .map(|n| series.replace(">i<", &format!(">i{n}<")))
        .collect();
    let counter = id("virtualDisk.numberReadAveraged.average");
    let many = many.replace(">2<", &format!(">{counter}<"));
    let head = "<returnval><entity type=\"VirtualMachine\">vm-1</entity>";
    let document = envelope(&format!("{head}{many}</returnval>"));
    assert!(decode(&document, &targets, &counters(), 20).is_err());
    let stamps = format!(
        "<sampleInfoCSV>{}</sampleInfoCSV>",
        "20,2026-01-31T10:00:00Z,".repeat(20_000)
    );
    let document = envelope(&format!("{head}{stamps}</returnval>"));
    assert!(decode(&document, &targets, &counters(), 20).is_err());
    // Cells beyond the stamps are not even kept.
    let cells = format!(
        "<sampleInfoCSV>20,2026-01-31T10:00:00Z</sampleInfoCSV><value><id><counterId>{}</counterId><instance/></id>\
         <value>7{}</value></value>",
        id("cpu.usagemhz.average"),
        ",".repeat(1_000_000)
    );
    let reply = decode(
        &envelope(&format!("{head}{cells}</returnval>")),
        &targets,
        &counters(),
        20,
    )
    .unwrap();
    assert_eq!(reply.counts.values, 1);
}

/// Series of a VM with two disks, as (counter, instance).
fn vm_series() -> Vec<(&'static str, &'static str)> {
    Column::of(EntityKind::Vm)
        .iter()
        .flat_map(Column::counters)
        .flat_map(|counter| {
            let instances: &[&str] =
                match counter.starts_with("virtualDisk.n") || counter.starts_with("virtualDisk.t") {
                    true => &["scsi0:0", "sata0:1"],
                    false => &[""],
                };
            instances.iter().map(move |instance| (counter, *instance))
        })
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Both forms, the samples in any order: the same windows.
    #[test]
    fn csv_and_normal_in_any_order_mean_the_same(
        cells in proptest::collection::vec(
            proptest::collection::vec(proptest::option::weighted(0.8, -3_i64..3_000_000_000), 6),
            vm_series().len(),
        ),
        order in Just(vec![0_usize, 1, 2, 3, 4, 5]).prop_shuffle(),
        cpus in 0_u16..9,
    ) {
        let target = vm(1, cpus);
        let part = |order: &[usize]| {
            let seconds: Vec<i64> = order.iter().map(|n| 20 * i64::try_from(*n).unwrap()).collect();
            let mut part = Part::of(&target, &seconds);
            for ((counter, instance), cells) in vm_series().into_iter().zip(&cells) {
                let values = order.iter().map(|n| cells[*n]).collect();
                part.series.push((id(counter), instance.to_owned(), values));
            }
            part
        };
        let targets = std::slice::from_ref(&target);
        let decode = |body: String| decode(&envelope(&body), targets, &counters(), 20).unwrap();
        let straight = decode(part(&[0, 1, 2, 3, 4, 5]).csv());
        let mut shuffled = part(&order);
        shuffled.series.reverse();
        for other in [decode(part(&[0, 1, 2, 3, 4, 5]).normal()), decode(shuffled.csv()), decode(shuffled.normal())] {
            // Equal up to the order of addition.
            let mut counts = other.counts;
            counts.bad_values = straight.counts.bad_values;
            prop_assert_eq!(counts, straight.counts);
            prop_assert_eq!(other.windows.len(), straight.windows.len());
            for (a, b) in other.windows.iter().zip(&straight.windows) {
                prop_assert_eq!(a.heads(), b.heads());
                for ((_, a), (_, b)) in a.rows().zip(b.rows()) {
                    for (a, b) in a.iter().zip(b) {
                        prop_assert!(close(*a, *b), "{:?} {:?}", a, b);
                    }
                }
            }
        }
    }

    /// Whatever bytes come: an answer or an error, never a panic.
    #[test]
    fn any_document_is_an_answer_or_an_error(parts in proptest::collection::vec(0_usize..12, 0..40)) {
        let pieces = [
            "<returnval>", "</returnval>", "<entity type=\"VirtualMachine\">vm-1</entity>", "<value>", "</value>",
            "<id><counterId>7</counterId><instance>a</instance></id>", "1,2,,-1", "<sampleInfoCSV>20,",
            "2026-01-31T10:00:00Z</sampleInfoCSV>", "&amp;", "<sampleInfo><interval>20</interval></sampleInfo>", "\u{0}",
        ];
        let body: String = parts.iter().map(|piece| pieces[*piece]).collect();
        let targets = [vm(1, 1)];
        if let Ok(reply) = decode(&envelope(&body), &targets, &counters(), 20) {
            prop_assert!(reply.windows.len() <= 1);
        }
    }
}

fn close(a: Cell, b: Cell) -> bool {
    match (a.get(), b.get()) {
        (Some(a), Some(b)) => (a - b).abs() <= b.abs() * 1e-12,
        (a, b) => a == b,
    }
}
