//! A model of the whole life of a chain: a source that publishes, forgets and falls silent, a database that takes or
//! refuses flushes, a collector that polls, fills gaps and is killed. Time is injected; the sequence is random.
//!
//! What must hold after every step is the chain; what must hold in the end, after some quiet minutes, is that every
//! sample that the source still has is stored, and that no gap is open.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::ingest::chain::{RING, SILENT_AFTER};
use crate::model::columns::Column;
use crate::model::gap::{GapId, Step};
use crate::model::ids::VmId;
use crate::model::sample::{Cell, RowHead};

const START: i64 = 1_000_000_000;
const INTERVAL: i64 = 20;
const PUBLISH_DELAY: i64 = 3;
const LOOK_BACK: i64 = 300;
const ROLLUP: i64 = 300;
const ROLLUPS_KEPT: i64 = 3 * 3600;

fn entity() -> EntityId {
    VmId(1).into()
}

/// What happens next.
#[derive(Debug, Clone)]
enum Act {
    /// So many seconds pass; the VM runs or does not, samples appear late or not.
    Pass { seconds: i64, runs: bool, late: i64 },
    /// A live poll; the database takes its flush or refuses it.
    Poll { taken: bool },
    /// The ring lane asks for the settled gaps; the database takes its flush or refuses it.
    Fill { taken: bool },
    /// The roll-up lane does the same.
    RollUp { taken: bool },
    /// Live and ring answers join one flush, in either order.
    Both { ring_first: bool },
    /// The collector is killed; what it knew is read from the database again.
    Kill,
    /// The inventory says that the VM is off.
    SeenOff,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let pass = (
        1_i64..600,
        any::<bool>(),
        prop_oneof![4 => Just(0_i64), 1 => 0_i64..90],
    )
        .prop_map(|(seconds, runs, late)| Act::Pass { seconds, runs, late });
    let long = (600_i64..9_000).prop_map(|seconds| Act::Pass {
        seconds,
        runs: true,
        late: 0,
    });
    prop::collection::vec(
        prop_oneof![
            8 => pass,
            1 => long,
            8 => prop::bool::weighted(0.8).prop_map(|taken| Act::Poll { taken }),
            4 => prop::bool::weighted(0.8).prop_map(|taken| Act::Fill { taken }),
            4 => prop::bool::weighted(0.8).prop_map(|taken| Act::RollUp { taken }),
            4 => any::<bool>().prop_map(|ring_first| Act::Both { ring_first }),
            2 => Just(Act::Kill),
            1 => Just(Act::SeenOff),
        ],
        1..80,
    )
}

/// A sample's stamp and when it can be read.
#[derive(Debug, Default)]
struct Source {
    published: BTreeMap<i64, i64>,
}

impl Source {
    fn answer(&self, now: i64, after: i64, until: Option<i64>) -> Window {
        let cells = vec![Cell::new(1.0); Column::of(entity().kind).len()];
        let mut window = Window::with_capacity(entity(), 0);
        let in_ring = |stamp: i64| stamp > now - now.rem_euclid(INTERVAL) - 3600;
        for (&stamp, &readable) in self.published.range(after + 1..=until.unwrap_or(i64::MAX)) {
            if readable <= now && in_ring(stamp) {
                let head = RowHead {
                    stamp: Stamp::from_seconds(stamp),
                    interval_seconds: 20,
                    host: None,
                    cpus: 1,
                    complete: true,
                };
                assert!(window.push(head, &cells));
            }
        }
        window
    }

    /// A roll-up of each whole interval in which the VM ran.
    fn roll_ups(&self, now: i64, after: i64, until: Option<i64>) -> Window {
        let cells = vec![Cell::new(1.0); Column::of(entity().kind).len()];
        let mut window = Window::with_capacity(entity(), 0);
        let end = until.map_or(now, |until| until.min(now));
        let mut stamp = after.div_euclid(ROLLUP) * ROLLUP + ROLLUP;
        while stamp <= end {
            let parts = self.published.range(stamp - ROLLUP + 1..=stamp);
            if parts.count() == 15 {
                let head = RowHead {
                    stamp: Stamp::from_seconds(stamp),
                    interval_seconds: 300,
                    host: None,
                    cpus: 1,
                    complete: true,
                };
                assert!(window.push(head, &cells));
            }
            stamp += ROLLUP;
        }
        window
    }
}

#[derive(Debug, Default)]
struct Database {
    /// The interval of each, by stamp.
    rows: BTreeMap<i64, i64>,
    gaps: BTreeMap<i64, NewGap>,
    next_gap: i64,
}

impl Database {
    /// All or nothing, as the transaction is.
    fn take(&mut self, flush: &Flush) {
        for window in &flush.windows {
            for head in window.heads() {
                let before = self
                    .rows
                    .insert(seconds(head.stamp), i64::from(head.interval_seconds));
                assert_eq!(before, None, "{} is stored twice", head.stamp);
            }
        }
        for gap in &flush.gaps_done {
            assert!(self.gaps.remove(&gap.0).is_some(), "a gap was worked twice");
        }
        if !flush.speaking.is_empty() {
            self.gaps.retain(|_, gap| gap.step.to.is_some());
        }
        for gap in &flush.gaps_new {
            self.next_gap += 1;
            self.gaps.insert(self.next_gap, *gap);
        }
    }

    fn open(&self, lane: GapLane, now: i64) -> Vec<OpenGap> {
        let is_settled = |gap: &NewGap| {
            gap.step.to.is_none_or(|to| seconds(to) <= now - 120)
                && gap.ask_after.is_none_or(|after| seconds(after) <= now)
        };
        self.gaps
            .iter()
            .filter(|(_, gap)| gap.reason.is_none() && gap.lane == lane && is_settled(gap))
            .map(|(id, gap)| OpenGap {
                id: GapId(*id),
                entity: gap.entity,
                step: gap.step,
                hint: gap.hint,
            })
            .collect()
    }

    /// What a start reads: the newest row, and whether the entity is silent.
    fn past(&self) -> Past {
        let silent = self.gaps.values().find(|gap| gap.step.to.is_none());
        Past {
            watermark: self
                .rows
                .last_key_value()
                .map(|(second, _)| Stamp::from_seconds(*second)),
            silent: silent.is_some(),
            hint: silent.and_then(|gap| gap.reason.or(gap.hint)),
        }
    }

    fn check(&self) {
        let rows: Vec<i64> = self.rows.keys().copied().collect();
        let mut spans: Vec<Step> = self.gaps.values().map(|gap| gap.step).collect();
        for pair in rows.windows(2) {
            let (from, to) = (Stamp::from_seconds(pair[0]), Stamp::from_seconds(pair[1]));
            let spanning = spans
                .iter()
                .position(|step| step.from == from && step.to == Some(to));
            let touches = (pair[1] - self.rows[&pair[1]] - pair[0]).abs() <= INTERVAL / 2;
            assert_eq!(touches, spanning.is_none(), "{from} to {to}: {spans:?}");
            if let Some(index) = spanning {
                spans.remove(index);
            }
        }
        let last = self.past().watermark;
        spans.retain(|step| !(step.to.is_none() && Some(step.from) == last));
        spans.retain(|step| !(step.initial && step.to.map(seconds) == rows.first().copied()));
        assert!(spans.is_empty(), "gap rows that span no step: {spans:?}");
    }
}

fn seconds(stamp: Stamp) -> i64 {
    stamp.micros() / 1_000_000
}

struct World {
    now: i64,
    source: Source,
    database: Database,
    watermarks: Watermarks,
}

impl World {
    fn new() -> Self {
        let world = Self {
            now: START,
            source: Source::default(),
            database: Database::default(),
            watermarks: Watermarks::default(),
        };
        world.watermarks.learn([(entity(), Past::default())]);
        world
    }

    fn turn(&self) -> Turn {
        Turn {
            generation: 1,
            at: ServerTime(Stamp::from_seconds(self.now)),
            started: Instant::now(),
        }
    }

    fn pass(&mut self, time: i64, runs: bool, late: i64) {
        for second in self.now + 1..=self.now + time {
            if second % INTERVAL == 0 && runs {
                self.source
                    .published
                    .insert(second, second + PUBLISH_DELAY + late);
            }
        }
        self.now += time;
    }

    fn live(&self) -> Vec<Work> {
        let watermark = self
            .watermarks
            .get(entity())
            .and_then(|past| past.watermark)
            .map(seconds);
        let fresh = self.now - LOOK_BACK;
        let after = watermark.filter(|watermark| *watermark >= fresh).unwrap_or(fresh);
        vec![Work::Live(vec![self.source.answer(self.now, after, None)])]
    }

    fn quiet(&self) -> Vec<Work> {
        let since = Stamp::from_seconds(self.now).minus(SILENT_AFTER);
        vec![Work::Quiet(self.watermarks.quiet(since))]
    }

    fn ring(&self) -> Vec<Work> {
        let ring_start = self.now - i64::try_from(RING.as_secs()).unwrap();
        let found = self
            .database
            .open(GapLane::Ring, self.now)
            .into_iter()
            .map(|gap| {
                let after = seconds(gap.step.from).max(ring_start);
                let until = gap.step.to.map(seconds);
                let rows = if until.is_some_and(|until| until <= ring_start) {
                    Found::nothing(&gap)
                } else {
                    Found::Rows(self.source.answer(self.now, after, until))
                };
                (gap, rows)
            });
        vec![Work::Ring(found.collect())]
    }

    fn roll_up(&self) -> Vec<Work> {
        let since = self.now - ROLLUPS_KEPT;
        let found = self
            .database
            .open(GapLane::Rollup, self.now)
            .into_iter()
            .map(|gap| {
                let after = seconds(gap.step.from).max(since);
                let rows = self.source.roll_ups(self.now, after, gap.step.to.map(seconds));
                (gap, Found::Rows(rows))
            });
        vec![Work::Rollup {
            gaps: found.collect(),
            since: Some(Stamp::from_seconds(since)),
        }]
    }

    fn flush(&mut self, works: Vec<Work>, taken: bool) {
        let mut joined = Joined::default();
        for work in works {
            joined.add(work, self.turn(), &self.watermarks);
        }
        if taken {
            self.database.take(&joined.flush);
            self.watermarks.commit(joined.pasts);
        } else {
            self.kill();
        }
        self.database.check();
    }

    /// After a kill and after a refused flush alike, the database is all that is known.
    fn kill(&mut self) {
        self.watermarks.replace([(entity(), self.database.past())]);
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Pass { seconds, runs, late } => self.pass(seconds, runs, late),
            Act::Poll { taken } => {
                let live = self.live();
                self.flush(live, taken);
                let quiet = self.quiet();
                self.flush(quiet, true);
            }
            Act::Fill { taken } => {
                let ring = self.ring();
                self.flush(ring, taken);
            }
            Act::RollUp { taken } => {
                let roll_up = self.roll_up();
                self.flush(roll_up, taken);
            }
            Act::Both { ring_first } => {
                let (ring, live) = (self.ring(), self.live());
                let (first, then) = if ring_first { (ring, live) } else { (live, ring) };
                self.flush(first.into_iter().chain(then).collect(), true);
            }
            Act::Kill => self.kill(),
            Act::SeenOff => self.watermarks.hint([(entity(), Reason::PoweredOff)]),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_chain_holds_whatever_happens_and_all_is_stored_in_the_end(acts in acts()) {
        let mut world = World::new();
        world.pass(4_000, true, 0);
        for act in &acts {
            world.act(act);
        }
        // Quiet minutes, in which the VM runs and everything works.
        for _ in 0..6 {
            world.act(&Act::Pass { seconds: 60, runs: true, late: 0 });
            world.act(&Act::Poll { taken: true });
            world.act(&Act::Fill { taken: true });
            world.act(&Act::RollUp { taken: true });
        }
        // Roll-ups that may be late are asked for once more.
        world.act(&Act::Pass { seconds: 2_800, runs: true, late: 0 });
        for _ in 0..3 {
            world.act(&Act::Pass { seconds: 60, runs: true, late: 0 });
            world.act(&Act::Poll { taken: true });
            world.act(&Act::Fill { taken: true });
            world.act(&Act::RollUp { taken: true });
        }
        let settled = world.now - 180;
        let open = world.database.gaps.values().filter(|gap| gap.reason.is_none());
        prop_assert_eq!(open.count(), 0, "open: {:?}", world.database.gaps);
        let ring = (world.now - i64::try_from(RING.as_secs()).unwrap() + 600)..settled;
        let held: Vec<i64> = world
            .source
            .published
            .iter()
            .filter(|(stamp, readable)| ring.contains(*stamp) && **readable < settled)
            .map(|(stamp, _)| *stamp)
            .collect();
        let missing: Vec<i64> = held.into_iter().filter(|stamp| world.database.rows.get(stamp) != Some(&INTERVAL)).collect();
        prop_assert!(missing.is_empty(), "missing: {missing:?}, gaps {:?}", world.database.gaps);
    }
}
