//! What decoding costs beside the baseline.

use std::hint::black_box;

use virt_collector::vsphere::perf::decode;

use crate::baseline;
use crate::cost::{Ratio, cpu_seconds};
use crate::reply::Prepared;

/// Bytes read for one measurement: long enough for the clock of a thread, short beside a change of the machine.
const BYTES: usize = 40_000_000;

/// The ratio of CPU time in pairs that are measured back to back, who goes first in turn, and the decoder's nanoseconds
/// per value.
pub(crate) fn measure(reply: &Prepared, pairs: usize) -> (Ratio, f64) {
    assert_eq!(
        baseline::sum(&reply.document),
        reply.sum,
        "the baseline does not read everything"
    );
    let turns = BYTES / reply.document.len() + 1;
    let timed = |work: &dyn Fn()| {
        let before = cpu_seconds("/proc/thread-self/schedstat");
        for _ in 0..turns {
            work();
        }
        cpu_seconds("/proc/thread-self/schedstat") - before
    };
    let decoder = || {
        timed(&|| {
            let decoded = decode(&reply.document, &reply.targets, &reply.counters, 20).unwrap();
            assert_eq!(decoded.windows.len(), reply.targets.len());
            black_box(decoded);
        })
    };
    let baseline = || {
        timed(&|| {
            black_box(baseline::sum(&reply.document));
        })
    };
    let mut best = f64::INFINITY;
    let ratios = (0..pairs).map(|pair| {
        let (decoder, baseline) = if pair % 2 == 0 {
            (decoder(), baseline())
        } else {
            let baseline = baseline();
            (decoder(), baseline)
        };
        best = best.min(decoder);
        decoder / baseline
    });
    let ratio = Ratio::from_pairs(ratios.collect());
    #[expect(clippy::cast_precision_loss, reason = "a number of values")]
    let values = (reply.n_values * turns as u64) as f64;
    (ratio, best * 1e9 / values)
}
