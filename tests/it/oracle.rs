//! The oracle is right: correct rows are clean, and every way of breaking them is seen under its own name.

use std::ops::Range;
use std::time::Duration;

use support::database::{Database, Role};
use support::loader::{self, Loaded};
use support::oracle::{self, Verdict};
use tokio_postgres::Client;
use vsphere_simulator::truth::Withheld;
use vsphere_simulator::{ClockMode, RingFate, Simulator, Spec, Truth};

const PLATFORM: &str = "oracle";
const MICROS: i64 = 1_000_000;
const GRACE: Duration = Duration::from_mins(10);

/// The collector started here: 2026-01-31 10:00:00 UTC.
const START: i64 = 1_769_853_600;
/// Half an hour later.
const END: i64 = START + 1800;

/// A sample in the middle of it all.
const MIDDLE: &str = "to_timestamp(1769854200)";

/// A small world in which something happens, and its morefs.
async fn world() -> (Truth, Vec<String>) {
    let spec = Spec {
        clock: ClockMode::Frozen { at: START * MICROS },
        powered_off: Some(1),
        ..Spec::vcenter(2, 6)
    };
    let simulator = Simulator::start(spec).await.unwrap();
    let world = simulator.world();
    let vms = world.running_vms();
    let (cycled, moved) = (vms.first().unwrap(), vms.get(1).unwrap());
    let hosts = world.hosts();
    let never = Withheld {
        counter: "cpu.ready.summation".to_owned(),
        instance: None,
        stamps: vsphere_simulator::clock::StampRange {
            first: START + 400,
            last: START + 400,
        },
        until: None,
    };
    let late = Withheld {
        counter: "mem.active.average".to_owned(),
        until: Some((START + 500) * MICROS),
        ..never.clone()
    };
    world.withhold(None, never).unwrap();
    world.withhold(None, late).unwrap();
    simulator.clock().advance(Duration::from_mins(5));
    world.power_off(cycled).unwrap();
    simulator.clock().advance(Duration::from_mins(5));
    world.power_on(cycled).unwrap();
    let placement = simulator
        .truth()
        .entity(moved)
        .unwrap()
        .record()
        .runs
        .last()
        .unwrap()
        .host
        .clone();
    let other = hosts.iter().find(|host| **host != placement).unwrap();
    world.move_vm(moved, other, RingFate::Kept).unwrap();
    simulator.clock().advance(Duration::from_mins(20));
    (simulator.truth(), vms)
}

async fn check(client: &Client, truth: &Truth, healthy: &[Range<i64>]) -> Verdict {
    oracle::check(client, PLATFORM, truth, healthy, GRACE)
        .await
        .unwrap()
}

/// What the five numbers must be.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    missing: u64,
    duplicate: u64,
    wrong: u64,
    unexplained: u64,
}

const CLEAN: Seen = Seen {
    missing: 0,
    duplicate: 0,
    wrong: 0,
    unexplained: 0,
};

fn seen(verdict: &Verdict) -> Seen {
    let Verdict {
        missing,
        duplicate,
        wrong,
        unexplained,
        ..
    } = *verdict;
    Seen {
        missing,
        duplicate,
        wrong,
        unexplained,
    }
}

#[tokio::test]
async fn the_oracle_sees_every_mutation() {
    let (truth, vms) = world().await;
    let database = Database::create().await.unwrap();
    loader::schema(&database).await.unwrap();
    let client = database.connect(Role::Owner).await.unwrap();
    let healthy = &[Range {
        start: START * MICROS,
        end: END * MICROS,
    }];
    let Loaded { rows, gaps, .. } = loader::load(&client, PLATFORM, &truth, START - 3600, END)
        .await
        .unwrap();
    assert_eq!(gaps, 1, "the power cycle");

    let verdict = check(&client, &truth, healthy).await;
    assert_eq!(seen(&verdict), CLEAN, "{}", verdict.report());
    assert_eq!((verdict.stored, verdict.open, verdict.explained), (rows, 0, 1));
    assert_eq!((verdict.hosts, verdict.vms), (2, 5));
    // 7 entities; evicted at least 10 minutes after the start, published at least 10 minutes before the end. The
    // power cycle from :300 to :600 leaves no sample from :320 to :600: its first whole interval ends at :620.
    let per_entity = (3000 + 1180) / 20 + 1;
    assert_eq!(verdict.owed, 7 * per_entity - 15, "{}", verdict.report());
    assert_eq!(
        verdict.to_string(),
        format!("missing=0 duplicate=0 wrong=0 unexplained=0 open=0 explained=1 stored={rows}")
    );

    let key = |moref: &str| format!("(SELECT vm_id FROM virt_vm WHERE moref = '{moref}')");
    let (cycled, moved, quiet, other) = (key(&vms[0]), key(&vms[1]), key(&vms[2]), key(&vms[3]));
    let row = format!("vm_id = {quiet} AND collected_at = {MIDDLE}");
    let gap = |from: &str, to: &str, state: &str| {
        let reason = if state == "open" {
            "NULL"
        } else {
            "'not_published'"
        };
        format!(
            "INSERT INTO virt_collection_gap (platform_id, entity_kind, entity_id, from_time, to_time, state, reason)
             SELECT platform_id, 'vm', {quiet}, {from}, {to}, '{state}', {reason} FROM virt_platform;"
        )
    };
    let before = format!("{MIDDLE} - interval '20 s'");
    let after = format!("{MIDDLE} + interval '20 s'");
    let skip = format!("DELETE FROM virt_vm_metrics WHERE {row};");
    // The sample of the last moment is not published yet.
    let newest = format!("to_timestamp({})", END - 20);
    let columns = "interval_seconds, host_id, vcpu_count, cpu_usage_percent, memory_active_kib";
    let mutations: Vec<(&str, String, Seen)> = vec![
        ("skip a sample", skip.clone(), Seen { missing: 1, unexplained: 1, ..CLEAN }),
        (
            "gap row instead of fetch",
            format!("{skip} {}", gap(&before, &after, "explained")),
            Seen { missing: 1, ..CLEAN },
        ),
        (
            "open gap row instead of fetch",
            format!("{skip} {}", gap(&before, &after, "open")),
            Seen { missing: 1, ..CLEAN },
        ),
        (
            "shift a stamp",
            format!("UPDATE virt_vm_metrics SET collected_at = collected_at + interval '5 s' WHERE {row}"),
            Seen { missing: 1, wrong: 1, ..CLEAN },
        ),
        (
            "shift a stamp by a fraction",
            format!("UPDATE virt_vm_metrics SET collected_at = collected_at + interval '1 us' WHERE {row}"),
            Seen { missing: 1, wrong: 1, ..CLEAN },
        ),
        (
            "swap two counters",
            format!(
                "UPDATE virt_vm_metrics SET memory_active_kib = memory_consumed_kib,
                 memory_consumed_kib = memory_active_kib WHERE {row}"
            ),
            Seen { wrong: 1, ..CLEAN },
        ),
        (
            "duplicate: a row that overlaps",
            format!(
                "INSERT INTO virt_vm_metrics (vm_id, collected_at, {columns})
                 SELECT vm_id, collected_at + interval '5 s', {columns} FROM virt_vm_metrics WHERE {row}"
            ),
            Seen { duplicate: 1, wrong: 1, ..CLEAN },
        ),
        (
            "duplicate: the same row again",
            format!(
                "DROP INDEX virt_vm_metrics_key;
                 INSERT INTO virt_vm_metrics SELECT * FROM virt_vm_metrics WHERE {row}"
            ),
            Seen { duplicate: 1, ..CLEAN },
        ),
        (
            "NULL where a value was published",
            format!("UPDATE virt_vm_metrics SET network_rx_kibps = NULL WHERE {row}"),
            Seen { wrong: 1, ..CLEAN },
        ),
        (
            "a value where none was published",
            format!(
                "UPDATE virt_vm_metrics SET cpu_ready_percent = 0
                 WHERE vm_id = {quiet} AND collected_at = to_timestamp({})",
                START + 400
            ),
            Seen { wrong: 1, ..CLEAN },
        ),
        (
            "NULL where the value came after the row was stored is right",
            format!(
                "UPDATE virt_vm_metrics SET memory_active_kib = NULL
                 WHERE vm_id = {quiet} AND collected_at = to_timestamp({})",
                START + 400
            ),
            CLEAN,
        ),
        (
            "an integer off by one",
            format!("UPDATE virt_vm_metrics SET memory_consumed_kib = memory_consumed_kib + 1 WHERE {row}"),
            Seen { wrong: 1, ..CLEAN },
        ),
        (
            "a quotient that is off by a ten-thousandth",
            format!("UPDATE virt_vm_metrics SET cpu_usage_percent = cpu_usage_percent * 1.0001 WHERE {row}"),
            Seen { wrong: 1, ..CLEAN },
        ),
        (
            "a percentage of one CPU instead of all",
            format!(
                "UPDATE virt_vm_metrics SET cpu_ready_percent = (cpu_ready_percent + 0.01) * vcpu_count * 2 WHERE {row}"
            ),
            Seen { wrong: 1, ..CLEAN },
        ),
        (
            "a host's value in another unit",
            format!(
                "UPDATE virt_host_metrics SET memory_capacity_kib = memory_capacity_kib / 1024
                 WHERE collected_at = {MIDDLE}"
            ),
            Seen { wrong: 2, ..CLEAN },
        ),
        (
            "another vCPU count",
            format!("UPDATE virt_vm_metrics SET vcpu_count = vcpu_count + 1 WHERE {row}"),
            Seen { wrong: 1, ..CLEAN },
        ),
        ("no placement is right", format!("UPDATE virt_vm_metrics SET host_id = NULL WHERE {row}"), CLEAN),
        (
            "the placement after a move in a row before it",
            format!(
                "UPDATE virt_vm_metrics SET host_id = (SELECT host_id FROM virt_vm_metrics
                     WHERE vm_id = {moved} AND collected_at = {newest})
                 WHERE vm_id = {moved} AND collected_at = to_timestamp({})",
                START + 300
            ),
            Seen { wrong: 1, ..CLEAN },
        ),
        (
            "another interval",
            format!("UPDATE virt_vm_metrics SET interval_seconds = 60 WHERE {row}"),
            Seen { missing: 1, duplicate: 1, wrong: 1, ..CLEAN },
        ),
        (
            "the row of another VM",
            format!(
                "DELETE FROM virt_vm_metrics WHERE vm_id = {other} AND collected_at = {MIDDLE};
                 UPDATE virt_vm_metrics SET vm_id = {other} WHERE {row}"
            ),
            Seen { missing: 1, wrong: 1, unexplained: 1, ..CLEAN },
        ),
        (
            "two VMs taken for each other",
            format!(
                "UPDATE virt_vm SET moref = 'aside' WHERE vm_id = {quiet};
                 UPDATE virt_vm SET moref = '{}' WHERE moref = '{}';
                 UPDATE virt_vm SET moref = '{}' WHERE moref = 'aside'",
                vms[2], vms[3], vms[3]
            ),
            Seen { wrong: 2 * 270, ..CLEAN },
        ),
        (
            "a row of nobody",
            format!("UPDATE virt_vm_metrics SET vm_id = 999999 WHERE vm_id = {quiet} AND collected_at = {newest}"),
            Seen { wrong: 1, ..CLEAN },
        ),
        (
            "a row of a VM that the source never had",
            format!("UPDATE virt_vm SET moref = 'vm-unheard-of' WHERE vm_id = {cycled}"),
            Seen { missing: per_entity - 15, wrong: 270 - 15, ..CLEAN },
        ),
        (
            "a row while the VM was off",
            format!(
                "INSERT INTO virt_vm_metrics (vm_id, collected_at, {columns})
                 SELECT vm_id, to_timestamp({}), {columns} FROM virt_vm_metrics
                 WHERE vm_id = {cycled} AND collected_at = {newest}",
                START + 400
            ),
            // The gap row spans no step any more, and two steps have none.
            Seen { wrong: 1, unexplained: 3, ..CLEAN },
        ),
        (
            "a missing gap row",
            "DELETE FROM virt_collection_gap".to_owned(),
            Seen { unexplained: 1, ..CLEAN },
        ),
        (
            "a gap row that is too short",
            "UPDATE virt_collection_gap SET to_time = to_time - interval '20 s'".to_owned(),
            Seen { unexplained: 2, ..CLEAN },
        ),
        (
            "a second gap row",
            "INSERT INTO virt_collection_gap (platform_id, entity_kind, entity_id, from_time, to_time, state, reason)
             SELECT platform_id, entity_kind, entity_id, from_time, to_time, state, reason FROM virt_collection_gap"
                .to_owned(),
            Seen { unexplained: 1, ..CLEAN },
        ),
        ("a gap row over rows", gap(&before, &after, "explained"), Seen { unexplained: 1, ..CLEAN }),
        ("an open end behind the last row is right", gap(&newest, "NULL", "explained"), CLEAN),
        (
            "the newest sample need not be there yet",
            format!("DELETE FROM virt_vm_metrics WHERE collected_at = {newest}"),
            CLEAN,
        ),
        (
            "what was about to go at the start need not be there",
            format!("DELETE FROM virt_vm_metrics WHERE collected_at < to_timestamp({})", START - 3000),
            CLEAN,
        ),
    ];
    for (name, mutation, expected) in mutations {
        client.batch_execute(&format!("BEGIN; {mutation}")).await.unwrap();
        let verdict = check(&client, &truth, healthy).await;
        assert_eq!(seen(&verdict), expected, "{name}\n{}", verdict.report());
        client.batch_execute("ROLLBACK").await.unwrap();
    }

    // A whole outage is nobody's fault, but the samples that the source still held after it are owed.
    client
        .batch_execute(&format!(
            "BEGIN; DELETE FROM virt_vm_metrics WHERE vm_id = {quiet} AND collected_at > to_timestamp({START})"
        ))
        .await
        .unwrap();
    assert_eq!(check(&client, &truth, &[]).await.missing, 0);
    let nine_minutes = [Range {
        start: (END - 540) * MICROS,
        end: END * MICROS,
    }];
    assert_eq!(
        check(&client, &truth, &nine_minutes).await.missing,
        0,
        "never healthy for long enough"
    );
    let ten_minutes = [Range {
        start: (END - 610) * MICROS,
        end: END * MICROS,
    }];
    assert_eq!(
        check(&client, &truth, &ten_minutes).await.missing,
        59,
        "published before the last ten minutes"
    );
    client.batch_execute("ROLLBACK").await.unwrap();

    drop(client);
    database.drop_now().await.unwrap();
}
