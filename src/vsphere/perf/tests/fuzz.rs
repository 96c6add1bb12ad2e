//! Whatever arrives as an answer to QueryPerf: an error, or windows that hold what the rest of the crate relies on.

use std::collections::HashSet;

use super::*;

#[test]
fn fuzz_query_perf() {
    let targets = [vm(1, 2), host(2, 8), vm(3, 1)];
    let counters = counters();
    support::fuzz::run("query_perf", |document| {
        let Ok(reply) = decode(document, &targets, &counters, 20) else {
            return;
        };
        // Each entity asked for is in exactly one of three places, and nobody else is anywhere.
        let mut named: Vec<EntityId> = reply.windows.iter().map(|window| window.entity).collect();
        named.extend(&reply.missing);
        named.extend(&reply.empty);
        let once: HashSet<EntityId> = named.iter().copied().collect();
        assert_eq!(once, targets.iter().map(|target| target.entity).collect());
        assert_eq!(named.len(), targets.len());
        let rows: usize = reply.windows.iter().map(Window::len).sum();
        assert_eq!(reply.counts.rows, rows as u64);
        for window in &reply.windows {
            let stamps: Vec<Stamp> = window.heads().iter().map(|head| head.stamp).collect();
            assert!(
                !stamps.is_empty() && stamps.is_sorted_by(|a, b| a < b),
                "{stamps:?}"
            );
        }
        // A whole answer that loses its end is none.
        let whole = document.trim_end();
        let end = whole.len() - 1;
        if whole.is_char_boundary(end) {
            let cut = whole.get(..end).unwrap();
            assert!(decode(cut, &targets, &counters, 20).is_err());
        }
    });
}
