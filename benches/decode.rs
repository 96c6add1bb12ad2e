//! Decoding answers to QueryPerf, beside the baseline in `shared/baseline.rs` over the same bytes.
//!
//! criterion says what each costs in time; the ratios at the end are of CPU time, in interleaved pairs.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for a terminal that may fail loudly"
)]

#[path = "shared/baseline.rs"]
mod baseline;
#[path = "shared/cost.rs"]
mod cost;
#[path = "shared/decode_ratio.rs"]
mod decode_ratio;
#[path = "shared/reply.rs"]
mod reply;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use virt_collector::vsphere::perf::decode;

fn main() {
    let prepared = reply::prepare(&[1, 3, 15, 180]);
    let mut criterion = Criterion::default()
        .configure_from_args()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    for (form, samples, reply) in &prepared {
        let mut group = criterion.benchmark_group(format!("decode/{form:?}"));
        group.throughput(Throughput::Bytes(u64::try_from(reply.document.len()).unwrap()));
        group.bench_function(BenchmarkId::new("collector", samples), |bencher| {
            bencher.iter(|| decode(&reply.document, &reply.targets, &reply.counters, 20).unwrap());
        });
        group.bench_function(BenchmarkId::new("baseline", samples), |bencher| {
            bencher.iter(|| black_box(baseline::sum(&reply.document)));
        });
        group.finish();
    }
    criterion.final_summary();
    for (form, samples, reply) in &prepared {
        let (ratio, nanoseconds) = decode_ratio::measure(reply, 11);
        println!(
            "decode: form={form:?} samples={samples} bytes={} values={} ns_per_value={nanoseconds:.1} decode_ratio={ratio}",
            reply.document.len(),
            reply.n_values,
        );
    }
}
