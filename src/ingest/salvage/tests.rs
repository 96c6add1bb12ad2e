//! A model of the database that refuses rows, and real answers joined by the real chain: after every transaction the
//! chain must hold, and in the end everything that is not refused must be stored.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::ingest::chain::{ServerTime, Watermarks};
use crate::ingest::queue::{Found, Turn, Work};
use crate::model::columns::Column;
use crate::model::gap::GapId;
use crate::model::ids::VmId;
use crate::model::sample::{Cell, RowHead};

const START: i64 = 1_000_000;

#[derive(Debug, thiserror::Error)]
#[error("refused")]
struct Refused;

/// Rows and gap rows as the database would hold them.
#[derive(Debug, Default)]
struct Model {
    rows: BTreeMap<EntityId, BTreeSet<Stamp>>,
    gaps: Vec<(GapId, NewGap)>,
    n_gaps_ever: i64,
    poison: HashSet<(EntityId, Stamp)>,
    left_out: BTreeSet<(EntityId, Stamp)>,
    n_attempts: usize,
}

impl Store for Model {
    type Error = Refused;

    async fn write(&mut self, flush: &Flush) -> Result<(), Refused> {
        self.n_attempts += 1;
        let rows = || {
            flush
                .windows
                .iter()
                .flat_map(|window| window.heads().iter().map(|head| (window.entity, head.stamp)))
        };
        if rows().any(|row| self.poison.contains(&row)) {
            return Err(Refused);
        }
        for (entity, stamp) in rows() {
            assert!(
                self.rows.entry(entity).or_default().insert(stamp),
                "{entity} {stamp} twice"
            );
        }
        for done in &flush.gaps_done {
            let index = self.gaps.iter().position(|(id, _)| id == done).unwrap();
            self.gaps.remove(index);
        }
        self.gaps
            .retain(|(_, gap)| gap.step.to.is_some() || !flush.speaking.contains(&gap.entity));
        for gap in &flush.gaps_new {
            self.n_gaps_ever += 1;
            self.gaps.push((GapId(self.n_gaps_ever), *gap));
        }
        self.check();
        Ok(())
    }

    fn refuses_rows(_error: &Refused) -> bool {
        true
    }

    fn left_out(&mut self, entity: EntityId, stamp: Stamp, _error: &Refused) {
        assert!(
            self.poison.contains(&(entity, stamp)),
            "{entity} {stamp} is a good row"
        );
        self.left_out.insert((entity, stamp));
    }
}

impl Model {
    /// The chain: every step has one gap row of its bounds, and every gap row has a step.
    fn check(&self) {
        let mut expected: BTreeSet<(EntityId, Stamp, Option<Stamp>)> = BTreeSet::new();
        for (entity, rows) in &self.rows {
            for (from, to) in rows.iter().zip(rows.iter().skip(1)) {
                if to.micros_since(*from) > 30_000_000 {
                    expected.insert((*entity, *from, Some(*to)));
                }
            }
        }
        let mut seen = BTreeSet::new();
        for (_, gap) in &self.gaps {
            let Step {
                from, to, initial, ..
            } = gap.step;
            let rows = self.rows.get(&gap.entity);
            let fits = match to {
                None => rows.and_then(|rows| rows.last()) == Some(&from),
                Some(to) if initial => {
                    gap.reason.is_none() && rows.and_then(|rows| rows.first()) == Some(&to)
                }
                Some(_) => expected.contains(&(gap.entity, from, to)),
            };
            assert!(fits, "{gap:?} spans no step of {rows:?}");
            assert!(seen.insert((gap.entity, from, to)), "{gap:?} twice");
        }
        for step in expected {
            assert!(seen.contains(&step), "{step:?} has no gap row: {:?}", self.gaps);
        }
    }

    fn newest(&self, entity: EntityId) -> Option<Stamp> {
        self.rows.get(&entity)?.last().copied()
    }

    fn open_gaps(&self) -> Vec<OpenGap> {
        let open = |&&(id, gap): &&(GapId, NewGap)| {
            gap.reason.is_none().then_some(OpenGap {
                id,
                entity: gap.entity,
                step: gap.step,
                hint: gap.hint,
            })
        };
        self.gaps.iter().filter_map(|gap| open(&gap)).collect()
    }

    /// As the flush loop does it.
    async fn store(&mut self, mut joined: Joined, watermarks: &Watermarks) -> Vec<usize> {
        let mut n_lost = Vec::new();
        if self.write(&joined.flush).await.is_err() {
            let salvaged = salvage(self, &mut joined).await;
            assert!(salvaged.failed.is_none());
            n_lost = salvaged.n_lost;
        }
        watermarks.commit(joined.pasts);
        n_lost
    }
}

fn vm(id: i32) -> EntityId {
    VmId(id).into()
}

fn second(seconds: i64) -> Stamp {
    Stamp::from_seconds(START + seconds)
}

fn window(entity: EntityId, stamps: impl IntoIterator<Item = Stamp>) -> Window {
    let mut window = Window::with_capacity(entity, 8);
    let cells = vec![Cell::NULL; Column::of(entity.kind).len()];
    for stamp in stamps {
        let head = RowHead {
            stamp,
            interval_seconds: 20,
            host: None,
            cpus: 1,
            complete: true,
        };
        assert!(window.push(head, &cells));
    }
    window
}

fn turn(seconds: i64) -> Turn {
    Turn {
        generation: 1,
        at: ServerTime(second(seconds)),
        started: Instant::now(),
    }
}

/// One VM with a row at `START`, and these rows refused.
fn one_vm(poison: &[i64]) -> (Model, Watermarks) {
    let mut model = Model::default();
    model.rows.entry(vm(1)).or_default().insert(second(0));
    model.poison = poison.iter().map(|seconds| (vm(1), second(*seconds))).collect();
    let watermarks = Watermarks::default();
    let past = Past {
        watermark: Some(second(0)),
        ..Past::default()
    };
    watermarks.learn([(vm(1), past)]);
    (model, watermarks)
}

fn live(watermarks: &Watermarks, stamps: impl IntoIterator<Item = i64>) -> Joined {
    let mut joined = Joined::default();
    let rows = window(vm(1), stamps.into_iter().map(second));
    joined.add(Work::Live(vec![rows]), turn(2_000), watermarks);
    joined
}

fn steps_of(model: &Model) -> Vec<(i64, Option<i64>, Option<Reason>)> {
    let seconds = |stamp: Stamp| stamp.micros() / 1_000_000 - START;
    model
        .gaps
        .iter()
        .map(|(_, gap)| (seconds(gap.step.from), gap.step.to.map(seconds), gap.reason))
        .collect()
}

#[tokio::test]
async fn a_row_between_others_is_left_out_and_explained_as_poison() {
    for poison in [20, 40, 60, 80] {
        let (mut model, watermarks) = one_vm(&[poison]);
        let n_lost = model
            .store(live(&watermarks, [20, 40, 60, 80, 100]), &watermarks)
            .await;
        assert_eq!((n_lost, model.rows[&vm(1)].len()), (vec![1], 5));
        let expected = (poison - 20, Some(poison + 20), Some(Reason::Poison));
        assert_eq!(steps_of(&model), [expected]);
        assert_eq!(watermarks.get(vm(1)).unwrap().watermark, Some(second(100)));
    }
}

#[tokio::test]
async fn neighbours_that_are_refused_share_a_gap() {
    let (mut model, watermarks) = one_vm(&[40, 60, 80]);
    model
        .store(live(&watermarks, [20, 40, 60, 80, 100]), &watermarks)
        .await;
    assert_eq!(steps_of(&model), [(20, Some(100), Some(Reason::Poison))]);
    assert_eq!(model.left_out.len(), 3);
}

#[tokio::test]
async fn a_newest_row_is_explained_once_another_follows_it() {
    let (mut model, watermarks) = one_vm(&[40]);
    assert_eq!(model.store(live(&watermarks, [20, 40]), &watermarks).await, [1]);
    assert_eq!(steps_of(&model), []);
    let past = watermarks.get(vm(1)).unwrap();
    assert_eq!(
        (past.watermark, past.hint),
        (Some(second(20)), Some(Reason::Poison))
    );
    // It comes again with the row behind it.
    model.store(live(&watermarks, [40, 60]), &watermarks).await;
    assert_eq!(steps_of(&model), [(20, Some(60), Some(Reason::Poison))]);
    assert_eq!(
        watermarks.get(vm(1)).unwrap(),
        Past {
            watermark: Some(second(60)),
            ..Past::default()
        }
    );
}

#[tokio::test]
async fn a_row_behind_a_step_leaves_the_step_to_be_asked_for() {
    let (mut model, watermarks) = one_vm(&[400]);
    model.store(live(&watermarks, [400, 420]), &watermarks).await;
    assert_eq!(steps_of(&model), [(0, Some(420), None)]);
}

#[tokio::test]
async fn a_gap_keeps_its_reason_where_a_row_in_it_is_refused() {
    let (mut model, watermarks) = one_vm(&[40, 200]);
    model.store(live(&watermarks, [20, 300]), &watermarks).await;
    // Filled in rounds: of an answer with a refused row one prefix is stored.
    for _ in 0..8 {
        let mut joined = Joined::default();
        for gap in model.open_gaps() {
            let inside = [40, 60, 80, 100, 200, 220]
                .map(second)
                .into_iter()
                .filter(|stamp| *stamp > gap.step.from);
            let found = Found::Rows(window(vm(1), inside));
            joined.add(Work::Ring(vec![(gap, found)]), turn(2_000), &watermarks);
        }
        if joined.flush.is_empty() {
            break;
        }
        model.store(joined, &watermarks).await;
    }
    let mut steps = steps_of(&model);
    steps.sort_unstable();
    assert_eq!(
        steps,
        [
            (20, Some(60), Some(Reason::Poison)),
            (100, Some(220), Some(Reason::NotPublished)),
            (220, Some(300), Some(Reason::NotPublished)),
        ]
    );
}

#[tokio::test]
async fn one_bad_row_among_thousands_of_entities_costs_few_transactions() {
    let (mut model, watermarks) = (Model::default(), Watermarks::default());
    let entities: Vec<EntityId> = (0..4_000).map(vm).collect();
    let past = Past {
        watermark: Some(second(0)),
        ..Past::default()
    };
    for entity in &entities {
        model.rows.entry(*entity).or_default().insert(second(0));
    }
    watermarks.learn(entities.iter().map(|entity| (*entity, past)));
    model.poison.insert((vm(2_345), second(40)));
    let mut joined = Joined::default();
    let windows = entities
        .iter()
        .map(|entity| window(*entity, [20, 40, 60].map(second)))
        .collect();
    joined.add(Work::Live(windows), turn(2_000), &watermarks);
    let n_lost = model.store(joined, &watermarks).await;
    assert_eq!(n_lost.iter().sum::<usize>(), 1);
    assert_eq!(
        model.rows.values().map(BTreeSet::len).sum::<usize>(),
        4_000 * 4 - 1
    );
    assert!(model.n_attempts < 40, "{}", model.n_attempts);
}

#[tokio::test]
async fn a_database_that_refuses_on_principle_is_not_cut_to_pieces() {
    let (mut model, watermarks) = (Model::default(), Watermarks::default());
    let windows: Vec<Window> = (0..4_000).map(|id| window(vm(id), [second(20)])).collect();
    model.poison = windows.iter().map(|window| (window.entity, second(20))).collect();
    watermarks.learn(windows.iter().map(|window| (window.entity, Past::default())));
    let mut joined = Joined::default();
    joined.add(Work::Live(windows), turn(200), &watermarks);
    let salvaged = salvage(&mut model, &mut joined).await;
    assert!(salvaged.failed.is_some());
    assert_eq!(salvaged.n_lost.iter().sum::<usize>(), 4_000);
    assert_eq!(model.n_attempts, MOST_TRANSACTIONS);
}

/// What one VM publishes.
#[derive(Debug, Clone)]
struct Script {
    /// Whether it has a stored row at the start.
    known: bool,
    /// Per 20 seconds: published, and refused.
    samples: Vec<(bool, bool)>,
    /// Nothing is published from here, for so many samples.
    silence: (usize, usize),
}

fn script() -> impl Strategy<Value = Script> {
    let sample = (prop::bool::weighted(0.85), prop::bool::weighted(0.12));
    (
        any::<bool>(),
        prop::collection::vec(sample, 96),
        (0_usize..90, 0_usize..40),
    )
        .prop_map(|(known, samples, silence)| Script {
            known,
            samples,
            silence,
        })
}

impl Script {
    fn published(&self) -> impl Iterator<Item = (Stamp, bool)> {
        let (from, len) = self.silence;
        let stamps = (1..).map(|index| second(20 * index));
        stamps
            .zip(&self.samples)
            .enumerate()
            .filter(move |(index, (_, (published, _)))| *published && !(from..from + len).contains(index))
            .map(|(_, (stamp, (_, refused)))| (stamp, *refused))
    }
}

/// Time between two polls, and what is younger than this is not published yet.
const POLL: i64 = 160;
const SETTLED: i64 = 60;
const LOOK_BACK: i64 = 3 * POLL;

async fn play(scripts: &[Script], together: bool, polled: &[bool]) {
    let (mut model, watermarks) = (Model::default(), Watermarks::default());
    let vms: Vec<(EntityId, &Script)> = (1..).map(vm).zip(scripts).collect();
    for (entity, script) in &vms {
        let watermark = script.known.then(|| second(0));
        model.rows.insert(*entity, watermark.into_iter().collect());
        let past = Past {
            watermark,
            ..Past::default()
        };
        watermarks.learn([(*entity, past)]);
        let refused = script.published().filter(|(_, refused)| *refused);
        model.poison.extend(refused.map(|(stamp, _)| (*entity, stamp)));
    }
    for (poll, _) in (1..).zip(polled).filter(|(_, polled)| **polled) {
        let now = poll * POLL + SETTLED;
        let visible = |script: &Script| -> Vec<Stamp> {
            let stamps = script.published().map(|(stamp, _)| stamp);
            stamps.filter(|stamp| *stamp <= second(now - SETTLED)).collect()
        };
        let fill = |joined: &mut Joined, gaps: Vec<OpenGap>| {
            for gap in gaps {
                let (_, script) = vms.iter().find(|(entity, _)| *entity == gap.entity).unwrap();
                let after = visible(script)
                    .into_iter()
                    .filter(|stamp| *stamp > gap.step.from && gap.step.to.is_none_or(|to| *stamp < to));
                let found = Found::Rows(window(gap.entity, after));
                joined.add(Work::Ring(vec![(gap, found)]), turn(now), &watermarks);
            }
        };
        let mut joined = Joined::default();
        if together {
            let bounded = model.open_gaps().into_iter().filter(|gap| gap.step.to.is_some());
            fill(&mut joined, bounded.collect());
        }
        let windows = vms.iter().map(|(entity, script)| {
            let watermark = watermarks.get(*entity).unwrap().watermark;
            // After polls that were missed the live lane starts fresh and leaves the rest to the ring lane.
            let start = watermark.max(Some(second(now - LOOK_BACK)));
            let after = visible(script).into_iter().filter(|stamp| Some(*stamp) > start);
            window(*entity, after)
        });
        joined.add(Work::Live(windows.collect()), turn(now), &watermarks);
        model.store(joined, &watermarks).await;
        let mut joined = Joined::default();
        let everyone = vms.iter().map(|(entity, _)| *entity).collect();
        joined.add(Work::Quiet(everyone), turn(now), &watermarks);
        model.store(joined, &watermarks).await;
        for round in 0.. {
            let gaps = if together { Vec::new() } else { model.open_gaps() };
            if gaps.is_empty() {
                break;
            }
            assert!(round < 300, "the ring lane does not come to an end: {gaps:?}");
            let mut joined = Joined::default();
            fill(&mut joined, gaps);
            model.store(joined, &watermarks).await;
        }
        for (entity, _) in &vms {
            assert_eq!(
                watermarks.get(*entity).unwrap().watermark,
                model.newest(*entity),
                "{entity}"
            );
        }
        if together {
            continue;
        }
        for (entity, script) in &vms {
            let stored = &model.rows[entity];
            // Before its first row nothing is expected of an entity, and not everything was asked for.
            if stored.is_empty() {
                continue;
            }
            for stamp in visible(script) {
                let refused = model.poison.contains(&(*entity, stamp));
                assert_eq!(stored.contains(&stamp), !refused, "{entity} {stamp}");
                assert_eq!(model.left_out.contains(&(*entity, stamp)), refused);
            }
        }
    }
}

proptest! {
    #[test]
    fn the_chain_holds_whatever_is_refused(
        scripts in prop::collection::vec(script(), 1..4),
        together: bool,
        polled in prop::collection::vec(prop::bool::weighted(0.5), 12),
    ) {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(play(&scripts, together, &polled));
    }
}
