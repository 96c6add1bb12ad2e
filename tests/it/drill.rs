//! The fault drill, scaled to a test run: the same faults, stage and judgement as `make drill`, without the waits for
//! a next tick.

use support::drill::{self, Plan};
use support::process::chain;

/// What is left to chance follows from it; `make drill` rolls others.
const SEED: u64 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_each_of_fifty_faults_the_oracle_finds_nothing() {
    let run = async |plan: Plan| {
        let mut said = Vec::new();
        let report = drill::run(&plan, &mut |line| said.push(line)).await;
        let report = report.unwrap_or_else(|error| panic!("{}\n{}", said.join("\n"), chain(&error)));
        assert_eq!(
            report.faults.values().map(|outcome| outcome.faults).sum::<u32>(),
            plan.faults()
        );
        assert!(report.verdict.is_clean() && report.verdict.open == 0, "{report}");
        assert!(report.rollups.is_clean() && report.rollups.whole > 0, "{report}");
        report
    };
    let [kill, lease, database, vcenter] = Plan::quick(SEED);
    let (kill, lease, database, vcenter) =
        futures_util::join!(run(kill), run(lease), run(database), run(vcenter));
    // None of these outages was longer than the ring, and nothing else happened: there is nothing to explain.
    for report in [&kill, &lease, &database] {
        assert_eq!(report.verdict.explained, 0, "{report}");
    }
    // What stopped, vanished, moved or was withheld is explained, and nothing was lost for another reason.
    for reason in ["expired", "refused", "poison", "no_permission", "rollup_edge"] {
        assert_eq!(vcenter.verdict.reasons.get(reason), None, "{vcenter}");
    }
}
