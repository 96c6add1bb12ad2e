//! Outages longer than the hour that hosts keep of their samples: what is missing before it is filled with the
//! server's 300-second roll-ups, and what those do not have is explained.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use support::collector::{Collector, Platform, Settings};
use support::database::Role;
use support::oracle::Verdict;
use vsphere_simulator::{Action, ClockMode, RingFate, Rule, Spec};

use crate::rig::{Daemon, PLATFORM, Rig, assert_clean, small};
use crate::wait;

const MINUTE: Duration = Duration::from_secs(60);

/// 127 s behind the grid of the roll-ups: the newest sample is then 120 s behind it, so that an outage of whole minutes
/// has a ragged edge at both ends.
fn ragged() -> Spec {
    let now = jiff::Timestamp::now().as_second();
    Spec {
        clock: ClockMode::Frozen {
            at: (now - now.rem_euclid(300) + 127) * 1_000_000,
        },
        ..small()
    }
}

/// Collects, is away for so long, and returns; two minutes later all that it owes is stored.
async fn after_an_outage(rig: &mut Rig, outage: Duration) -> (Daemon, Verdict) {
    rig.start().await.stop().await;
    rig.pass(outage);
    returned(rig).await
}

async fn returned(rig: &mut Rig) -> (Daemon, Verdict) {
    rig.healthy_from_now();
    let daemon = rig.start().await;
    rig.pass(3 * MINUTE);
    assert_eq!(daemon.poll().await.error, None);
    daemon.back_fill().await;
    let report = daemon.roll_up().await;
    assert_eq!(report.error, None);
    let verdict = rig.verdict().await;
    (daemon, verdict)
}

/// Roll-ups that are stored.
async fn n_rollups(rig: &Rig) -> u64 {
    let sql = "SELECT (SELECT count(*) FROM virt_vm_metrics WHERE interval_seconds = 300) \
                    + (SELECT count(*) FROM virt_host_metrics WHERE interval_seconds = 300)";
    let n: i64 = rig.client().await.query_one(sql, &[]).await.unwrap().get(0);
    u64::try_from(n).unwrap()
}

/// Columns of VMs that some roll-up has a value in.
async fn kept_columns(rig: &Rig) -> Vec<String> {
    let sql = "SELECT DISTINCT key FROM virt_vm_metrics AS m, jsonb_each(jsonb_strip_nulls(to_jsonb(m))) \
               WHERE interval_seconds = 300 AND key NOT IN \
                     ('collected_at', 'vm_id', 'host_id', 'interval_seconds', 'vcpu_count') ORDER BY key";
    let rows = rig.client().await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn reasons(verdict: &Verdict) -> BTreeMap<&str, u64> {
    verdict
        .reasons
        .iter()
        .map(|(reason, n)| (reason.as_str(), *n))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hours_of_outage_are_an_hour_of_samples_behind_two_hours_of_rollups() {
    let mut rig = Rig::new(ragged()).await;
    let (daemon, verdict) = after_an_outage(&mut rig, 180 * MINUTE).await;
    assert_clean(&verdict);
    let n = rig.n_entities();
    assert_eq!(reasons(&verdict), BTreeMap::from([("rollup_edge", 2 * n)]));
    assert_eq!(n_rollups(&rig).await, n * 23);
    let kept = kept_columns(&rig).await;
    assert_eq!(
        kept,
        [
            "cpu_ready_percent",
            "cpu_usage_mhz",
            "cpu_usage_percent",
            "disk_max_latency_ms",
            "memory_balloon_kib",
            "memory_consumed_kib",
            "memory_overhead_kib",
            "memory_swap_in_kibps",
            "memory_swap_out_kibps",
            "memory_usage_percent",
            "uptime_seconds"
        ],
        "statistics level 1"
    );
    let longest: f64 = rig
        .client()
        .await
        .query_one(
            "SELECT max(extract(epoch FROM to_time - from_time) - to_interval_seconds)::float8 FROM virt_collection_gap",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert!(longest < 300.0, "an edge has no room for a roll-up: {longest} s");

    // Nothing is left to ask for, now and after a restart.
    assert_eq!(
        (daemon.back_fill().await.n_gaps, daemon.roll_up().await.n_gaps),
        (0, 0)
    );
    daemon.stop().await;
    rig.pass(MINUTE);
    let daemon = rig.start().await;
    let again = rig.verdict().await;
    assert_clean(&again);
    assert_eq!(again.explained, verdict.explained);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_six_hours_of_outage_the_rollups_of_a_day_are_stored_and_the_rest_has_expired() {
    let mut rig = Rig::new(Spec {
        vms: 3,
        hosts: 1,
        ..ragged()
    })
    .await;
    let (daemon, verdict) = after_an_outage(&mut rig, 26 * 60 * MINUTE).await;
    assert_clean(&verdict);
    let n = rig.n_entities();
    assert_eq!(
        reasons(&verdict),
        BTreeMap::from([("expired", n), ("rollup_edge", n)])
    );
    assert_eq!(n_rollups(&rig).await, n * 275);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollups_that_come_late_are_asked_for_once_more_before_they_are_given_up() {
    let mut rig = Rig::new(Spec {
        rollup_delay: 30 * MINUTE,
        ..ragged()
    })
    .await;
    rig.start().await.stop().await;
    let vm = rig.simulator.world().running_vms().remove(0);
    rig.pass(170 * MINUTE);
    // It leaves its ring behind: of the last hour only ten minutes of samples are left, and the server's roll-ups.
    let truth = rig.simulator.truth();
    let here = truth
        .entity(&vm)
        .unwrap()
        .record()
        .runs
        .last()
        .unwrap()
        .host
        .clone();
    let hosts = rig.simulator.world().hosts();
    let there = hosts.iter().find(|host| **host != here).unwrap();
    rig.simulator
        .world()
        .move_vm(&vm, there, RingFate::Reset)
        .unwrap();
    rig.pass(10 * MINUTE);
    let (daemon, verdict) = returned(&mut rig).await;
    assert_eq!(
        (
            verdict.missing,
            verdict.duplicate,
            verdict.wrong,
            verdict.unexplained,
            verdict.open
        ),
        (0, 0, 0, 0, 1),
        "one gap waits for roll-ups that have not come: {}",
        verdict.report()
    );
    let stored = n_rollups(&rig).await;
    assert_eq!(daemon.roll_up().await.n_gaps, 0, "it is not time yet");

    rig.pass(36 * MINUTE);
    assert_eq!(daemon.poll().await.error, None);
    daemon.back_fill().await;
    assert_eq!(daemon.roll_up().await.n_gaps, 1);
    let verdict = rig.verdict().await;
    assert_clean(&verdict);
    assert_eq!(reasons(&verdict).keys().collect::<Vec<_>>(), [&"rollup_edge"]);
    let came = n_rollups(&rig).await - stored;
    assert!(
        (4..=5).contains(&came),
        "{came} roll-ups of the half hour before the move"
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_was_off_for_a_part_of_the_outage_has_rollups_of_the_rest() {
    let mut rig = Rig::new(ragged()).await;
    rig.start().await.stop().await;
    let mut running = rig.simulator.world().running_vms();
    let (back, off) = (running.remove(0), running.remove(0));
    rig.pass(60 * MINUTE);
    rig.simulator.world().power_off(&back).unwrap();
    rig.pass(30 * MINUTE);
    rig.simulator.world().power_off(&off).unwrap();
    rig.pass(10 * MINUTE);
    rig.simulator.world().power_on(&back).unwrap();
    rig.pass(80 * MINUTE);
    let (daemon, verdict) = returned(&mut rig).await;
    assert_clean(&verdict);
    let client = rig.client().await;
    let of = async |moref: &str| {
        let sql = "SELECT g.reason, (extract(epoch FROM coalesce(g.to_time - g.from_time, '0'))::int8) \
                   FROM virt_collection_gap AS g JOIN virt_vm AS v ON g.entity_kind = 'vm' AND v.vm_id = g.entity_id \
                   WHERE v.moref = $1 AND g.reason <> 'rollup_edge'";
        let rows = client.query(sql, &[&moref]).await.unwrap();
        rows.iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect::<Vec<(String, i64)>>()
    };
    let [(reason, seconds)] = &of(&back).await[..] else {
        panic!("one gap while it was off");
    };
    assert_eq!(reason, "not_published", "nobody saw it off");
    assert!((2_400..3_600).contains(seconds), "{seconds}");
    assert_eq!(
        of(&off).await,
        [("powered_off".to_owned(), 0)],
        "one gap without an end: it is seen to be off"
    );
    // It speaks again: the gap is closed, and keeps its reason.
    rig.simulator.world().power_on(&off).unwrap();
    daemon.discover().await;
    for _ in 0..4 {
        rig.pass(MINUTE);
        assert_eq!(daemon.poll().await.error, None);
    }
    daemon.back_fill().await;
    daemon.roll_up().await;
    assert_clean(&rig.verdict().await);
    let closed = of(&off).await;
    assert_eq!((closed.len(), closed[0].0.as_str()), (1, "powered_off"));
    assert!(closed[0].1 > 3_600);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_with_a_higher_level_keeps_more_columns() {
    let mut rig = Rig::new(Spec {
        statistics_level: 2,
        // More entities than one request may ask for.
        max_query_metrics: Some(64),
        ..ragged()
    })
    .await;
    let (daemon, verdict) = after_an_outage(&mut rig, 90 * MINUTE).await;
    assert_clean(&verdict);
    let kept = kept_columns(&rig).await;
    assert!(kept.contains(&"memory_active_kib".to_owned()), "{kept:?}");
    assert!(kept.contains(&"network_rx_packets_per_second".to_owned()));
    assert!(
        !kept.contains(&"disk_read_iops".to_owned()),
        "instances are kept from level 3 on"
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_esxi_host_keeps_its_own_rollups_for_a_day_and_a_half() {
    let mut rig = Rig::new(Spec {
        kind: vsphere_simulator::PlatformKind::Esxi,
        vms: 3,
        ..ragged()
    })
    .await;
    let (daemon, verdict) = after_an_outage(&mut rig, 30 * 60 * MINUTE).await;
    assert_clean(&verdict);
    let n = rig.n_entities();
    assert_eq!(reasons(&verdict), BTreeMap::from([("rollup_edge", 2 * n)]));
    let kept = kept_columns(&rig).await;
    assert!(
        kept.contains(&"disk_read_latency_ms".to_owned()),
        "it has no levels: {kept:?}"
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_the_server_finds_too_large_is_asked_in_smaller_ones() {
    let mut rig = Rig::new(Spec {
        max_query_metrics: None,
        ..ragged()
    })
    .await;
    rig.start().await.stop().await;
    rig.pass(90 * MINUTE);
    rig.healthy_from_now();
    let daemon = rig.start().await;
    let too_much = Action::Fault {
        fault: "RestrictedByAdministrator".to_owned(),
        message: String::new(),
    };
    // Whichever of the requests they hit.
    rig.simulator
        .rules()
        .add(Rule::on("QueryPerf", too_much).times(2));
    rig.pass(3 * MINUTE);
    assert_eq!(daemon.poll().await.error, None);
    daemon.back_fill().await;
    daemon.roll_up().await;
    assert_clean(&rig.verdict().await);
    daemon.stop().await;
}

/// The daemon as a process, on the rig's database and platform.
fn process(rig: &Rig) -> Collector {
    let settings = Settings {
        interval: Duration::from_secs(300),
        discovery_interval: Duration::from_secs(3600),
        ..Settings::on(&rig.database, vec![Platform::simulated(PLATFORM, &rig.simulator)]).unwrap()
    };
    let program = Path::new(env!("CARGO_BIN_EXE_virt-collector"));
    Collector::prepare(program, &rig.directory.path().join("process"), &settings).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_killed_among_the_rollups_leaves_the_rest_to_the_next_one() {
    let mut rig = Rig::new(Spec {
        // One entity in each request.
        max_query_metrics: Some(12),
        ..ragged()
    })
    .await;
    rig.start().await.stop().await;
    rig.pass(180 * MINUTE);
    rig.healthy_from_now();
    // The live poll and the ring take one request each; the fifth of the roll-ups gets no answer.
    let stuck = rig
        .simulator
        .rules()
        .add(Rule::on("QueryPerf", Action::Delay { millis: 600_000 }).skip(6));
    let mut killed = process(&rig);
    killed.start().await.unwrap();
    wait::until("the roll-up lane waits for its answer", async || {
        match rig.simulator.rules().applied(stuck) {
            0 => Err(std::fs::read_to_string(killed.log()).unwrap_or_default()),
            _ => Ok(()),
        }
    })
    .await;
    killed.kill().await.unwrap();
    rig.simulator.rules().remove(stuck);
    let n = rig.n_entities();
    let interrupted = rig.verdict().await;
    assert_eq!(
        (interrupted.duplicate, interrupted.wrong, interrupted.unexplained),
        (0, 0, 0),
        "{}",
        interrupted.report()
    );
    assert_eq!(interrupted.open, n - 4);
    assert_eq!(n_rollups(&rig).await, 4 * 23);

    // Its lease runs out.
    let superuser = rig.database.connect(Role::Superuser).await.unwrap();
    let lapse = "UPDATE virt_platform_lease SET until = clock_timestamp() - interval '1 s'";
    superuser.batch_execute(lapse).await.unwrap();
    let (daemon, verdict) = returned(&mut rig).await;
    assert_clean(&verdict);
    assert_eq!(reasons(&verdict), BTreeMap::from([("rollup_edge", 2 * n)]));
    assert_eq!(n_rollups(&rig).await, n * 23);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_five_minute_statistics_all_that_is_older_has_expired_and_that_is_told_once() {
    let mut rig = Rig::new(Spec {
        statistics_level: 0,
        ..ragged()
    })
    .await;
    rig.start().await.stop().await;
    rig.pass(180 * MINUTE);
    rig.healthy_from_now();
    let mut collector = process(&rig);
    collector.start().await.unwrap();
    let client = rig.client().await;
    let n = rig.n_entities();
    wait::until("every gap is explained", async || {
        let sql = "SELECT count(*) FILTER (WHERE reason = 'expired'), count(*) FROM virt_collection_gap";
        let row = client.query_one(sql, &[]).await.unwrap();
        let counts: (i64, i64) = (row.get(0), row.get(1));
        let n = i64::try_from(n).unwrap();
        if counts == (n, n) {
            Ok(())
        } else {
            Err(format!("{counts:?} of {n}"))
        }
    })
    .await;
    collector.stop(MINUTE).await.unwrap();
    let log = std::fs::read_to_string(collector.log()).unwrap();
    assert_eq!(log.matches("keeps no 5-minute statistics").count(), 1, "{log}");
    let (daemon, verdict) = returned(&mut rig).await;
    assert_clean(&verdict);
    assert_eq!(reasons(&verdict), BTreeMap::from([("expired", n)]));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gaps_that_are_opened_again_ask_the_memory_that_may_still_have_them() {
    let mut rig = Rig::new(ragged()).await;
    let (daemon, verdict) = after_an_outage(&mut rig, 180 * MINUTE).await;
    assert_clean(&verdict);
    let owner = rig.database.connect(Role::Owner).await.unwrap();
    // As if the server had not had its roll-ups at the time.
    let lost = "WITH lost AS (DELETE FROM virt_vm_metrics WHERE interval_seconds = 300 RETURNING vm_id), \
                edges AS (DELETE FROM virt_collection_gap WHERE entity_kind = 'vm' RETURNING *) \
                INSERT INTO virt_collection_gap (platform_id, entity_kind, entity_id, from_time, to_time, state, reason) \
                SELECT min(platform_id), 'vm', entity_id, min(from_time), max(to_time), 'explained', 'expired' \
                FROM edges GROUP BY entity_id";
    owner.batch_execute(lost).await.unwrap();
    let now = virt_collector::units::Stamp::from_micros(rig.simulator.clock().now());
    let reopened = rig
        .store()
        .retry_gaps(None, now.minus(60 * MINUTE), now.minus(24 * 60 * MINUTE))
        .await
        .unwrap();
    assert_eq!(
        reopened,
        rig.n_entities() - rig.simulator.world().hosts().len() as u64
    );
    assert_eq!(daemon.back_fill().await.n_gaps, 0, "they are older than the ring");
    daemon.roll_up().await;
    let again = rig.verdict().await;
    assert_clean(&again);
    assert_eq!(reasons(&again), reasons(&verdict));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oracle_sees_a_rollup_that_is_missing_wrong_or_too_long() {
    let mut rig = Rig::new(ragged()).await;
    let (daemon, verdict) = after_an_outage(&mut rig, 180 * MINUTE).await;
    assert_clean(&verdict);
    daemon.stop().await;
    let owner = rig.database.connect(Role::Owner).await.unwrap();
    let one = "SELECT min(vm_id) AS vm_id, min(collected_at) AS first FROM virt_vm_metrics \
               WHERE interval_seconds = 300 AND vm_id = (SELECT max(vm_id) FROM virt_vm_metrics)";
    for (change, found) in [
        // A gap row over the edge and the roll-up behind it: the chain holds.
        (
            format!(
                "WITH one AS ({one}), lost AS (DELETE FROM virt_vm_metrics AS m USING one \
                 WHERE m.vm_id = one.vm_id AND m.collected_at = one.first) \
                 UPDATE virt_collection_gap AS g SET to_time = g.to_time + interval '300 s', reason = 'not_published' \
                 FROM one WHERE g.entity_kind = 'vm' AND g.entity_id = one.vm_id AND g.to_time = one.first"
            ),
            (1, 0, 0, 0),
        ),
        (
            format!(
                "WITH one AS ({one}) UPDATE virt_vm_metrics AS m SET cpu_ready_percent = cpu_ready_percent * 15 + 1 \
                 FROM one WHERE m.vm_id = one.vm_id AND m.collected_at = one.first"
            ),
            (1, 0, 1, 0),
        ),
        (
            format!(
                "WITH one AS ({one}) UPDATE virt_vm_metrics AS m SET memory_active_kib = 1 \
                 FROM one WHERE m.vm_id = one.vm_id AND m.collected_at = one.first + interval '300 s'"
            ),
            (1, 0, 2, 0),
        ),
        // It reaches into the sample before the outage: stored over the edge.
        (
            "WITH edge AS (DELETE FROM virt_collection_gap WHERE entity_kind = 'vm' AND to_interval_seconds = 300 \
                           AND entity_id = (SELECT min(vm_id) FROM virt_vm_metrics) RETURNING *) \
             INSERT INTO virt_vm_metrics (collected_at, vm_id, vcpu_count, interval_seconds) \
             SELECT to_time - interval '300 s', entity_id, 1, 300 FROM edge"
                .to_owned(),
            (1, 1, 3, 0),
        ),
    ] {
        owner.batch_execute(&change).await.unwrap();
        let seen = rig.verdict_of(PLATFORM, &rig.simulator).await;
        let counts = (seen.missing, seen.duplicate, seen.wrong, seen.unexplained);
        assert_eq!(counts, found, "{change}\n{}", seen.report());
    }
    let breaks = "SELECT problem FROM virt_chain_break()";
    let breaks = owner.query(breaks, &[]).await.unwrap();
    let problems: Vec<&str> = breaks.iter().map(|row| row.get(0)).collect();
    assert_eq!(problems, ["overlap"], "the product sees the last one as well");
}
