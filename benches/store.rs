//! Rows to bytes, bytes to rows, and the watermarks read back.
//!
//! The COPY of a flush is measured beside the server's own COPY of a ready file into the same table with the same
//! index, by the CPU time of the two backends, in interleaved pairs.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a program for a terminal that may fail loudly; numbers for people"
)]

#[path = "shared/copy_ratio.rs"]
mod copy_ratio;
#[path = "shared/cost.rs"]
mod cost;
#[path = "shared/leased.rs"]
mod leased;

use std::time::Duration;

use copy_ratio::Store;
use criterion::{Criterion, Throughput};
use virt_collector::store::Flush;
use virt_collector::units::Stamp;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut criterion = Criterion::default()
        .configure_from_args()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));

    let rows = copy_ratio::windows(0);
    let n_rows = rows.iter().map(|window| window.len() as u64).sum();
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(n_rows));
    group.bench_function("rows", |bencher| bencher.iter(|| copy_ratio::encoded(&rows)));
    group.finish();

    let mut store = runtime.block_on(Store::new());
    for turn in 0..5 {
        let flush = Flush {
            windows: copy_ratio::windows(turn),
            ..Flush::default()
        };
        runtime
            .block_on(store.writer.write(&store.lease, &flush))
            .unwrap();
    }
    // A real one is read with statistics, which autovacuum brings within minutes.
    runtime
        .block_on(
            store
                .sql
                .batch_execute("ANALYZE virt_vm_metrics; ANALYZE virt_vm"),
        )
        .unwrap();
    let now = Stamp::from_seconds(1_769_817_600 + 3600);
    let mut group = criterion.benchmark_group("watermarks");
    group.bench_function("10,000 VMs", |bencher| {
        bencher.iter(|| {
            let marks = runtime
                .block_on(store.database.watermarks(store.lease.platform, now))
                .unwrap();
            assert_eq!(marks.len(), 10_000);
        });
    });
    group.finish();
    criterion.final_summary();
    drop(store);

    let ratio = runtime.block_on(copy_ratio::measure(9));
    println!("store: copy_ratio={ratio}");
}
