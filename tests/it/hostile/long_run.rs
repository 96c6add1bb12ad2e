//! Sick platforms beside a healthy one in the real daemon, on the real clock.

use support::usage;

use super::*;

/// Three sick platforms and a healthy one in the real daemon, on the real clock, for `HOSTILE_SECONDS`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn platforms_that_hang_lie_and_flood_neither_delay_the_healthy_one_nor_fill_the_memory() {
    const BUDGET: u64 = 64 << 20;
    let seconds: u64 = std::env::var("HOSTILE_SECONDS").map_or(130, |text| text.parse().unwrap());
    let spec = |seed: u64| Spec {
        seed,
        vms: 40,
        hosts: 2,
        powered_off: Some(0),
        ..Spec::default()
    };
    let mut simulators = Vec::new();
    for seed in 1..=4 {
        simulators.push(Simulator::start(spec(seed)).await.unwrap());
    }
    let [hangs, lies, floods, healthy] = &simulators[..] else {
        panic!("four of them");
    };
    hangs
        .rules()
        .add(Rule::on("QueryPerf", Action::Delay { millis: 3_600_000 }));
    hangs
        .rules()
        .add(Rule::on("CurrentTime", Action::Trickle { millis: 1_000 }).skip(3));
    floods
        .rules()
        .add(Rule::on("QueryPerf", Action::Bomb { bytes: 48 << 20 }).skip(1));
    floods
        .rules()
        .add(Rule::on("QueryPerf", Action::Endless).skip(20));
    floods
        .rules()
        .add(Rule::on("RetrievePropertiesEx", Action::Bomb { bytes: 48 << 20 }).skip(6));
    let vms = lies.world().running_vms();
    for (vm, action) in vms.iter().zip([
        Action::OmitEntity,
        Action::Twice,
        Action::Unexpanded,
        Action::OffGrid { seconds: 7 },
        Action::EmptyCells { counter: None },
        Action::Extra {
            moref: "vm-99999".to_owned(),
        },
        Action::Short { cells: 2 },
    ]) {
        lies.rules().add(Rule::on("QueryPerf", action).object(vm));
    }
    lies.rules()
        .add(Rule::on("QueryPerf", fault("ManagedObjectNotFound")).object(&vms[20]));
    let broken = Action::Replace {
        find: "</returnval>".to_owned(),
        with: "</return>".to_owned(),
    };
    lies.rules().add(Rule::on("QueryPerf", broken).object(&vms[21]));

    let directory = tempfile::tempdir().unwrap();
    let database = Database::create().await.unwrap_or_else(|error| panic!("{error}"));
    let platforms = ["hangs", "lies", "floods", "healthy"]
        .iter()
        .zip(&simulators)
        .map(|(name, simulator)| support::collector::Platform::simulated(name, simulator))
        .collect();
    let settings = Settings {
        interval: Duration::from_secs(20),
        discovery_interval: Duration::from_secs(30),
        top: format!("memory = \"{}MiB\"\n", BUDGET >> 20),
        ..Settings::on(&database, platforms).unwrap()
    };
    let program = Path::new(env!("CARGO_BIN_EXE_virt-collector"));
    let mut collector = Collector::prepare(program, directory.path(), &settings).unwrap();
    collector.migrate().await.unwrap();
    collector.start().await.unwrap();
    let process = collector.pid().unwrap();
    let sql = database.connect(Role::Reader).await.unwrap();
    let age = async || -> Option<f64> {
        sql.query_one(
            "SELECT extract(epoch FROM clock_timestamp() - max(m.collected_at))::float8 FROM virt_vm_metrics m \
             JOIN virt_vm v USING (vm_id) JOIN virt_platform p USING (platform_id) WHERE p.name = 'healthy'",
            &[],
        )
        .await
        .unwrap()
        .get(0)
    };
    wait::until("the healthy platform has rows", async || {
        age()
            .await
            .map(|_| ())
            .ok_or_else(|| process::tail(&collector.log(), 5))
    })
    .await;
    let at_start = usage::resident_kib(process).unwrap() << 10;
    let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let mut ages = Vec::new();
    while tokio::time::Instant::now() < end {
        ages.extend(age().await);
        collector.must_run().unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let [at_end, peak] =
        [usage::resident_kib, usage::most_resident_kib].map(|memory| memory(process).unwrap() << 10);
    ages.sort_by(f64::total_cmp);
    let p95 = ages[ages.len() * 95 / 100 - 1];
    let oldest = ages[ages.len() - 1];
    println!(
        "{seconds} s: newest row of the healthy platform at most {oldest:.0} s old (95 %: {p95:.0} s); \
         resident {} MiB after the first poll, {} MiB at the end, at most {} MiB; budget {} MiB",
        at_start >> 20,
        at_end >> 20,
        peak >> 20,
        BUDGET >> 20
    );
    // What the healthy one published is stored whole.
    let truth = healthy.truth();
    let run = truth.now - i64::try_from(seconds).unwrap() * 1_000_000..truth.now;
    let verdict = support::oracle::check(&sql, "healthy", &truth, &[run], PROMISED)
        .await
        .unwrap();
    assert_eq!(
        (verdict.missing, verdict.wrong, verdict.unexplained),
        (0, 0, 0),
        "{verdict}\n{:#?}",
        verdict.details
    );
    assert!(oldest < PROMISED.as_secs_f64(), "{oldest}");
    // The process itself takes some; what the budget bounds comes on top.
    assert!(peak < BUDGET + (96 << 20), "{} MiB", peak >> 20);
    let metrics = collector.metrics().await.unwrap();
    let value = |series: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(0.0, |value| value.trim().parse().unwrap())
    };
    let failures = |platform: &str, kind: &str| {
        value(&format!(
            "virt_collector_soap_failures_total{{platform=\"{platform}\",type=\"{kind}\"}}"
        ))
    };
    assert!(failures("floods", "too_large") > 0.0, "{metrics}");
    assert!(failures("lies", "malformed") > 0.0, "{metrics}");
    assert!(
        value("virt_collector_platform_up{platform=\"healthy\"}") > 0.0,
        "{metrics}"
    );
    collector.stop(Duration::from_secs(45)).await.unwrap();
}
