//! Collection against the simulator: what is stored is what was published, whatever happens in between.

use std::time::Duration;

use support::database::Role;
use virt_collector::app::App;
use vsphere_simulator::{Action, HostLink, PlatformKind, RingFate, Rule, Spec};

use crate::rig::{Daemon, PLATFORM, Rig, assert_clean, assert_whole, recorder, small};
use crate::wait;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hour_before_the_first_start_and_every_sample_after_it_are_stored() {
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let first = rig.verdict().await;
    // A sample each 20 s over 59 minutes, for every entity that runs.
    let n_entities = rig.n_entities();
    assert!(first.stored >= n_entities * 176, "{first}");
    for _ in 0..5 {
        rig.pass(MINUTE);
        let report = daemon.poll().await;
        assert_eq!((report.error, report.n_rows as u64), (None, n_entities * 3));
    }
    rig.pass(2 * MINUTE);
    daemon.poll().await;
    let verdict = rig.verdict().await;
    assert_clean(&verdict);
    assert_eq!(verdict.explained, 0);
    assert!(verdict.owed > first.stored, "{verdict}");
    daemon.stop().await;
    assert_eq!(
        rig.simulator.sessions().stats().open,
        0,
        "every session is logged out"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_continues_where_the_rows_end() {
    let mut rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    daemon.stop().await;
    // Within the look-back one query covers everything; no gap arises.
    rig.pass(4 * MINUTE);
    rig.healthy_from_now();
    let daemon = rig.start().await;
    rig.pass(3 * MINUTE);
    daemon.poll().await;
    assert_clean(&rig.verdict().await);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_minutes_of_outage_are_filled_with_the_original_samples() {
    let mut rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let before = rig.verdict().await.stored;
    daemon.stop().await;
    rig.pass(50 * MINUTE);
    rig.healthy_from_now();
    let daemon = rig.start().await;
    rig.pass(3 * MINUTE);
    daemon.poll().await;
    daemon.back_fill().await;
    let verdict = rig.verdict().await;
    assert_clean(&verdict);
    assert_eq!(verdict.explained, 0, "the ring still held everything: {verdict}");
    let n_entities = rig.n_entities();
    assert_eq!(verdict.stored - before, n_entities * 53 * 3);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_esxi_host_is_collected_like_a_vcenter() {
    let rig = Rig::new(Spec {
        kind: PlatformKind::Esxi,
        ..small()
    })
    .await;
    let daemon = rig.start().await;
    rig.pass(3 * MINUTE);
    daemon.poll().await;
    assert_clean(&rig.verdict().await);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_expires_every_few_seconds_costs_a_login_each_time_and_no_sample() {
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let logins = rig.simulator.sessions().stats().logins;
    for n in 1..=6 {
        rig.simulator.sessions().expire_all();
        rig.pass(Duration::from_secs(20));
        assert_eq!(daemon.poll().await.error, None);
        assert_eq!(rig.simulator.sessions().stats().logins, logins + n);
    }
    assert_whole(&rig.verdict().await);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renumbered_counters_never_put_a_value_under_the_wrong_name() {
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    // A vCenter renumbers when it is upgraded, which ends every session.
    rig.simulator.world().renumber_counters();
    rig.simulator.sessions().expire_all();
    rig.pass(3 * MINUTE);
    assert_eq!(daemon.poll().await.error, None);
    assert_clean(&rig.verdict().await);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_vanished_vm_does_not_cost_the_others_their_samples() {
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let victim = rig.simulator.world().running_vms().remove(0);
    // The inventory has not heard of it yet: the server fails the whole request for its sake.
    let gone = Action::Fault {
        fault: "ManagedObjectNotFound".to_owned(),
        message: String::new(),
    };
    rig.simulator
        .rules()
        .add(Rule::on("QueryPerf", gone).object(&victim));
    rig.pass(3 * MINUTE);
    let report = daemon.poll().await;
    assert_eq!((report.error, report.n_skipped), (None, 1));
    // It was not gone for good: what it was refused is still to be had.
    rig.simulator.rules().clear();
    rig.pass(MINUTE);
    assert_eq!(daemon.poll().await.error, None);
    assert_clean(&rig.verdict().await);
    daemon.stop().await;
}

/// Data time is the source's: of the hosts, whatever the vCenter's own clock says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_whose_clocks_are_off_are_collected_whole() {
    // The last is more than the live lane looks back.
    for hosts_ahead in [120, -120, -1_200] {
        let mut rig = Rig::new(Spec {
            hosts_ahead,
            ..small()
        })
        .await;
        let daemon = rig.start().await;
        for _ in 0..5 {
            rig.pass(MINUTE);
            assert_eq!(daemon.poll().await.error, None);
        }
        daemon.stop().await;
        rig.pass(20 * MINUTE);
        rig.healthy_from_now();
        let daemon = rig.start().await;
        rig.pass(5 * MINUTE);
        assert_eq!(daemon.poll().await.error, None);
        assert_eq!(daemon.back_fill().await.error, None);
        let verdict = rig.verdict().await;
        assert_clean(&verdict);
        assert_eq!(verdict.explained, 0, "{hosts_ahead}: {verdict}");
        daemon.stop().await;
    }
}

/// Set to the time of its place, say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_clock_is_hours_behind_is_collected() {
    let rig = Rig::new(Spec {
        hosts_ahead: -5 * 3_600,
        ..small()
    })
    .await;
    let daemon = rig.start().await;
    for _ in 0..4 {
        rig.pass(MINUTE);
        assert_eq!(daemon.poll().await.error, None);
    }
    let verdict = rig.verdict().await;
    assert_clean(&verdict);
    assert_eq!(verdict.explained, 0, "{verdict}");
    daemon.stop().await;
}

/// After twenty minutes of outage: the live poll has the VM's samples, the back-fill behind it is refused.
async fn with_an_open_gap_of(rig: &mut Rig, victim: &str) -> Daemon {
    rig.start().await.stop().await;
    rig.pass(20 * MINUTE);
    rig.healthy_from_now();
    let unknown = Action::Fault {
        fault: "ManagedObjectNotFound".to_owned(),
        message: String::new(),
    };
    let rule = rig
        .simulator
        .rules()
        .add(Rule::on("QueryPerf", unknown).object(victim).skip(1));
    let daemon = rig.start().await;
    assert!(rig.simulator.rules().applied(rule) > 0);
    rig.simulator.rules().clear();
    daemon
}

/// What was asked for in vain is not asked for again at once.
async fn fill_again(rig: &Rig, daemon: &Daemon) {
    let owner = rig.database.connect(Role::Owner).await.unwrap();
    let sql = "UPDATE virt_collection_gap SET asked_at = asked_at - INTERVAL '3 minutes'";
    owner.execute(sql, &[]).await.unwrap();
    assert_eq!(daemon.back_fill().await.error, None);
}

/// A vCenter that starts does not know all of its VMs yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_of_a_vm_that_the_server_does_not_know_for_a_while_is_asked_for_again() {
    let mut rig = Rig::new(small()).await;
    let victim = rig.simulator.world().running_vms().remove(0);
    let daemon = with_an_open_gap_of(&mut rig, &victim).await;
    rig.pass(3 * MINUTE);
    assert_eq!(daemon.poll().await.error, None);
    fill_again(&rig, &daemon).await;
    assert_clean(&rig.verdict().await);
    daemon.stop().await;
}

/// A host that vCenter has lost keeps its samples, and tells them when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_of_a_vm_whose_host_is_away_waits_for_the_host() {
    let mut rig = Rig::new(small()).await;
    let victim = rig.simulator.world().running_vms().remove(0);
    let host = host_of(&rig, &victim);
    let daemon = with_an_open_gap_of(&mut rig, &victim).await;
    let world = rig.simulator.world();
    world.set_host_link(&host, HostLink::NotResponding).unwrap();
    daemon.discover().await;
    fill_again(&rig, &daemon).await;
    let away = rig.verdict().await;
    assert_eq!((away.open, away.explained), (1, 0), "{away}");

    world.set_host_link(&host, HostLink::Connected).unwrap();
    daemon.discover().await;
    rig.pass(3 * MINUTE);
    assert_eq!(daemon.poll().await.error, None);
    fill_again(&rig, &daemon).await;
    let back = rig.verdict().await;
    assert_clean(&back);
    assert_eq!(back.explained, 0, "{back}");
    daemon.stop().await;
}

/// One that the account may not see for a while comes back as the one that it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_of_a_vm_that_leaves_the_inventory_and_returns_is_filled() {
    let mut rig = Rig::new(small()).await;
    let show = async |rig: &Rig, daemon: &Daemon, percent| {
        rig.simulator.world().load(percent);
        daemon.discover().await;
    };
    let daemon = rig.start().await;
    show(&rig, &daemon, 60).await;
    let sql = "SELECT min(moref) FROM virt_vm WHERE removed_at IS NOT NULL AND power_state = 'on'";
    let victim: String = rig.client().await.query_one(sql, &[]).await.unwrap().get(0);
    show(&rig, &daemon, 100).await;
    daemon.stop().await;

    let daemon = with_an_open_gap_of(&mut rig, &victim).await;
    show(&rig, &daemon, 60).await;
    fill_again(&rig, &daemon).await;
    show(&rig, &daemon, 100).await;
    rig.pass(3 * MINUTE);
    assert_eq!(daemon.poll().await.error, None);
    fill_again(&rig, &daemon).await;
    let verdict = rig.verdict().await;
    assert_clean(&verdict);
    assert_eq!(verdict.explained, 0, "{verdict}");
    daemon.stop().await;
}

/// The configuration of a VM is unset while it moves, and most of a host's while it is out of reach.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_of_cpus_that_the_server_does_not_tell_just_now_is_still_known() {
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let world = rig.simulator.world();
    let unset = |path: &str, of: String| Action::Withhold {
        path: Some(path.to_owned()),
        of: Some(of),
        fault: None,
    };
    for action in [
        unset("summary.config.numCpu", world.running_vms().remove(0)),
        unset("summary.hardware.numCpuThreads", world.hosts().remove(0)),
    ] {
        for method in ["WaitForUpdatesEx", "RetrievePropertiesEx"] {
            rig.simulator.rules().add(Rule::on(method, action.clone()));
        }
    }
    // A new session reads everything anew.
    rig.simulator.sessions().expire_all();
    wait::until("everything to be read anew", async || {
        let platform = daemon.0.platform(PLATFORM).unwrap();
        match platform.discover_now().await.unwrap().error {
            None => Ok(()),
            Some(error) => Err(error),
        }
    })
    .await;
    rig.pass(3 * MINUTE);
    assert_eq!(daemon.poll().await.error, None);
    assert_clean(&rig.verdict().await);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_too_much_is_asked_in_smaller_ones() {
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    // Two refusals: a request of five is halved to two and to one, whichever of the requests they hit.
    rig.simulator.rules().add(
        Rule::on(
            "QueryPerf",
            Action::Fault {
                fault: "RestrictedByAdministrator".to_owned(),
                message: String::new(),
            },
        )
        .times(2),
    );
    rig.pass(3 * MINUTE);
    assert_eq!(daemon.poll().await.error, None);
    assert_clean(&rig.verdict().await);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_samples_are_waited_for_and_no_gap_is_made_of_them() {
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let late = rig.simulator.world().running_vms().remove(1);
    let now = rig.simulator.clock().now() / 1_000_000;
    rig.simulator
        .world()
        .delay_samples(Some(&late), now + 20, now + 40, Duration::from_secs(50))
        .unwrap();
    for _ in 0..4 {
        rig.pass(MINUTE);
        daemon.poll().await;
    }
    assert_whole(&rig.verdict().await);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_that_fails_is_thrown_away_and_the_source_is_asked_again() {
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let owner = rig
        .database
        .connect(support::database::Role::Owner)
        .await
        .unwrap();
    owner
        .batch_execute("REVOKE INSERT ON virt_vm_metrics FROM virt_writer")
        .await
        .unwrap();
    rig.pass(MINUTE);
    assert!(daemon.poll().await.error.is_some());
    owner
        .batch_execute("GRANT INSERT ON virt_vm_metrics TO virt_writer")
        .await
        .unwrap();
    rig.pass(2 * MINUTE);
    assert_eq!(daemon.poll().await.error, None);
    assert_whole(&rig.verdict().await);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_behind_the_same_name_stores_nothing() {
    let mut rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    daemon.stop().await;
    let stored = rig.verdict().await.stored;
    let rebuilt = Spec { seed: 99, ..small() };
    rig.simulator = vsphere_simulator::Simulator::start(rebuilt).await.unwrap();
    std::fs::write(rig.ca_file(), rig.simulator.ca_pem().unwrap()).unwrap();
    let daemon = Daemon(App::start(rig.config(), recorder()).await.unwrap());
    let client = rig.client().await;
    let status = wait::until("the platform is in error", async || {
        let row = client
            .query_one(
                "SELECT status, coalesce(status_class, ''), coalesce(status_reason, '') FROM virt_platform",
                &[],
            )
            .await
            .unwrap();
        let status: (String, String, String) = (row.get(0), row.get(1), row.get(2));
        if status.0 == "error" {
            Ok(status)
        } else {
            Err(format!("{status:?}"))
        }
    })
    .await;
    assert_eq!(status.1, "identity");
    assert!(status.2.contains("this is another server"), "{}", status.2);
    let n_rows: i64 = client
        .query_one(
            "SELECT (SELECT count(*) FROM virt_vm_metrics) + (SELECT count(*) FROM virt_host_metrics)",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(u64::try_from(n_rows).unwrap(), stored);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_is_switched_off_is_explained_and_returns() {
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let vm = rig.simulator.world().running_vms().remove(0);
    rig.simulator.world().power_off(&vm).unwrap();
    // Its last samples are read although it no longer runs.
    for _ in 0..8 {
        rig.pass(MINUTE);
        assert_eq!(daemon.poll().await.error, None);
    }
    daemon.discover().await;
    daemon.poll().await;
    daemon.back_fill().await;
    let off = rig.verdict().await;
    assert_clean(&off);
    assert_eq!(off.explained, 1, "one gap without an end: {off}");

    rig.simulator.world().power_on(&vm).unwrap();
    daemon.discover().await;
    for _ in 0..6 {
        rig.pass(MINUTE);
        assert_eq!(daemon.poll().await.error, None);
    }
    daemon.back_fill().await;
    let on = rig.verdict().await;
    assert_clean(&on);
    assert_eq!(on.explained, 1, "the same gap, closed: {on}");
    let client = rig.client().await;
    let row = client
        .query_one("SELECT reason, to_time IS NOT NULL FROM virt_collection_gap", &[])
        .await
        .unwrap();
    assert_eq!(
        (row.get::<_, &str>(0), row.get::<_, bool>(1)),
        ("powered_off", true)
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_is_deleted_is_explained_as_removed() {
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let vm = rig.simulator.world().running_vms().remove(0);
    rig.simulator.world().delete_vm(&vm).unwrap();
    daemon.discover().await;
    for _ in 0..7 {
        rig.pass(MINUTE);
        assert_eq!(daemon.poll().await.error, None);
    }
    daemon.back_fill().await;
    let verdict = rig.verdict().await;
    assert_clean(&verdict);
    let client = rig.client().await;
    let row = client
        .query_one("SELECT reason, to_time IS NULL FROM virt_collection_gap", &[])
        .await
        .unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, bool>(1)), ("removed", true));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_vm_stays_one_gap_over_restarts() {
    let mut rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let vm = rig.simulator.world().running_vms().remove(0);
    rig.simulator.world().power_off(&vm).unwrap();
    daemon.discover().await;
    rig.pass(10 * MINUTE);
    daemon.poll().await;
    daemon.back_fill().await;
    daemon.stop().await;
    rig.pass(3 * MINUTE);
    rig.healthy_from_now();
    let daemon = rig.start().await;
    rig.pass(10 * MINUTE);
    daemon.poll().await;
    daemon.back_fill().await;
    let verdict = rig.verdict().await;
    assert_clean(&verdict);
    assert_eq!(verdict.explained, 1, "{verdict}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_back_fill_that_is_interrupted_is_continued_by_the_next_owner() {
    let mut rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    daemon.stop().await;
    rig.pass(50 * MINUTE);
    rig.healthy_from_now();
    // The live rows and their gaps are stored; the ring lane gets no answer before the stop.
    let stuck = rig
        .simulator
        .rules()
        .add(Rule::on("QueryPerf", Action::Delay { millis: 600_000 }).skip(3));
    let daemon = Daemon(App::start(rig.config(), recorder()).await.unwrap());
    wait::until("the ring lane waits for its answer", async || {
        match rig.simulator.rules().applied(stuck) {
            0 => Err("it has not asked".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    daemon.stop().await;
    rig.simulator.rules().remove(stuck);
    let interrupted = rig.verdict().await;
    assert_eq!(interrupted.open, rig.n_entities(), "{interrupted}");

    let daemon = rig.start().await;
    rig.pass(3 * MINUTE);
    daemon.poll().await;
    daemon.back_fill().await;
    assert_whole(&rig.verdict().await);
    daemon.stop().await;
}

/// Where a VM runs.
fn host_of(rig: &Rig, vm: &str) -> String {
    let truth = rig.simulator.truth();
    truth
        .entity(vm)
        .unwrap()
        .run_at(truth.now / 20_000_000 * 20 - 20)
        .unwrap()
        .host
        .clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_moves_between_polls_is_never_shown_on_the_wrong_host() {
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let vm = rig.simulator.world().running_vms().remove(0);
    let elsewhere = |rig: &Rig| {
        let here = host_of(rig, &vm);
        rig.simulator
            .world()
            .hosts()
            .into_iter()
            .find(|host| *host != here)
            .unwrap()
    };
    for fate in [RingFate::Kept, RingFate::Reset] {
        rig.pass(Duration::from_secs(30));
        let host = elsewhere(&rig);
        rig.simulator.world().move_vm(&vm, &host, fate).unwrap();
        for _ in 0..4 {
            rig.pass(MINUTE);
            assert_eq!(daemon.poll().await.error, None);
        }
    }
    daemon.back_fill().await;
    assert_clean(&rig.verdict().await);
    let client = rig.client().await;
    let row = client
        .query_one(
            "SELECT count(DISTINCT m.host_id), count(*) FILTER (WHERE m.host_id IS NULL) \
             FROM virt_vm_metrics m JOIN virt_vm v USING (vm_id) \
             WHERE v.moref = $1 AND m.collected_at > to_timestamp($2::float8)",
            &[&vm, &((rig.simulator.clock().now() / 1_000_000 - 500) as f64)],
        )
        .await
        .unwrap();
    assert!(row.get::<_, i64>(0) >= 2, "it was seen on both hosts");
    assert!(row.get::<_, i64>(1) <= 12, "only what nobody can know is NULL");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_samples_of_a_vm_that_stopped_while_nobody_polled_are_read() {
    let mut rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    daemon.stop().await;
    let vm = rig.simulator.world().running_vms().remove(0);
    rig.pass(MINUTE);
    rig.simulator.world().power_off(&vm).unwrap();
    rig.pass(MINUTE);
    rig.healthy_from_now();
    // The first poll after the start reads them: nobody waits for the VM to count as silent.
    let daemon = rig.start().await;
    rig.pass(3 * MINUTE);
    daemon.poll().await;
    assert_whole(&rig.verdict().await);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_password_is_tried_once_and_the_one_that_takes_its_place_without_waiting_or_asking() {
    let rig = Rig::new(small()).await;
    rig.write_password("wrong");
    let mut config = rig.config();
    // Somebody looks every second: who holds every attempt back, holds that one back, too.
    config.collection.discovery_interval = Duration::from_secs(1);
    let app = App::start(config, recorder()).await.unwrap();
    let store = rig.store();
    let status = async |wanted: &str| {
        wait::until("the platform's status", async || {
            let rows = store.registered_platforms().await.unwrap();
            let status = rows.into_iter().next().map(|row| row.status);
            match &status {
                Some(status) if status.state == wanted => Ok(status.class.clone()),
                _ => Err(format!("{status:?}")),
            }
        })
        .await
    };
    assert_eq!(status("error").await.as_deref(), Some("auth"));
    for _ in 0..3 {
        let report = app.platform(PLATFORM).unwrap().discover_now().await.unwrap();
        assert!(report.error.is_some());
    }
    assert_eq!(rig.simulator.calls().count("Login"), 1);
    rig.write_password(rig.simulator.credentials().1);
    assert_eq!(status("connected").await, None);
    assert_eq!(rig.simulator.calls().count("Login"), 2);
    app.stop().await.unwrap();
}
