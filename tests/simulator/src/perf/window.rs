//! Which samples a query gets.

use crate::grid::{self, INTERVAL, MICROS, RING};
use crate::soap::QuerySpec;
use crate::truth::Entity;

/// Stamps of the real-time samples, ascending: after `startTime`, up to and with `endTime`, in the
/// ring, published, and the newest `maxSample` of them.
pub(super) fn real_time(entity: Entity<'_>, spec: &QuerySpec<'_>, horizon: i64) -> Vec<i64> {
    if !entity.reachable() {
        return Vec::new();
    }
    let newest = entity.newest(horizon);
    let last = newest.min(spec.end.map_or(i64::MAX, grid::newest_stamp));
    let mut stamp = after(spec.start, newest - RING, INTERVAL);
    let mut stamps = Vec::new();
    while stamp <= last {
        if entity.run_at(stamp).is_some() && entity.served(stamp, horizon) {
            stamps.push(stamp);
        }
        stamp += INTERVAL;
    }
    if let Some(most) = spec.max_sample.and_then(|most| usize::try_from(most).ok()) {
        let surplus = stamps.len().saturating_sub(most);
        stamps.drain(..surplus);
    }
    stamps
}

/// Stamps of the roll-ups, ascending. `maxSample` does not apply to them.
pub(super) fn rollups(
    entity: Entity<'_>,
    spec: &QuerySpec<'_>,
    horizon: i64,
    interval: i64,
    retention: i64,
) -> Vec<i64> {
    let newest = grid::floor(grid::seconds(horizon), interval);
    let end = spec.end.map_or(i64::MAX, grid::seconds);
    let last = newest.min(grid::floor(end, interval));
    let mut stamp = after(spec.start, newest - retention, interval);
    let mut stamps = Vec::new();
    while stamp <= last {
        let mut parts = (0..interval / INTERVAL).map(|i| stamp - i * INTERVAL);
        if parts.all(|part| entity.run_at(part).is_some()) {
            stamps.push(stamp);
        }
        stamp += interval;
    }
    stamps
}

/// The first stamp after an exclusive start in microseconds and an exclusive lower bound.
fn after(start: Option<i64>, bound: i64, step: i64) -> i64 {
    let start = start.map_or(i64::MIN, |start| start.div_euclid(MICROS));
    let floor = start.max(bound);
    grid::floor(floor, step) + step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_exclusive() {
        assert_eq!(after(Some(100 * MICROS), 0, 20), 120);
        assert_eq!(after(Some(100 * MICROS + 1), 0, 20), 120);
        assert_eq!(after(Some(99 * MICROS), 0, 20), 100);
        assert_eq!(after(Some(99 * MICROS), 400, 20), 420);
        assert_eq!(after(None, 400, 20), 420);
    }
}
