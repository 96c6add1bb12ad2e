use super::*;
use crate::model::columns::Column;
use crate::model::gap::GapId;
use crate::model::ids::VmId;
use crate::model::sample::Cell;

const NOW: i64 = 100_000;

/// Stands for a gap without an end.
const NEVER: i64 = i64::MAX;

fn entity() -> EntityId {
    VmId(1).into()
}

fn window(rows: &[(i64, bool)]) -> Window {
    let mut window = Window::with_capacity(entity(), rows.len());
    let cells = vec![Cell::new(1.0); Column::of(entity().kind).len()];
    for &(second, complete) in rows {
        let head = RowHead {
            stamp: Stamp::from_seconds(second),
            interval_seconds: 20,
            host: None,
            cpus: 1,
            complete,
        };
        assert!(window.push(head, &cells));
    }
    window
}

/// Roll-ups; `NOW` lies 100 s behind their grid.
fn roll_ups(stamps: impl IntoIterator<Item = i64>) -> Window {
    let mut window = Window::with_capacity(entity(), 8);
    let cells = vec![Cell::new(1.0); Column::of(entity().kind).len()];
    for second in stamps {
        let head = RowHead {
            stamp: stamp(second),
            interval_seconds: 300,
            host: None,
            cpus: 1,
            complete: true,
        };
        assert!(window.push(head, &cells));
    }
    window
}

fn whole(seconds: impl IntoIterator<Item = i64>) -> Window {
    window(
        &seconds
            .into_iter()
            .map(|second| (second, true))
            .collect::<Vec<_>>(),
    )
}

fn seconds(window: &Window) -> Vec<i64> {
    window
        .heads()
        .iter()
        .map(|head| head.stamp.micros() / 1_000_000)
        .collect()
}

fn at() -> ServerTime {
    ServerTime(Stamp::from_seconds(NOW))
}

fn stamp(second: i64) -> Stamp {
    Stamp::from_seconds(second)
}

fn past(watermark: Stamp) -> Past {
    Past {
        watermark: Some(watermark),
        ..Past::default()
    }
}

fn steps(gaps: &[NewGap]) -> Vec<(i64, i64, bool, Option<Reason>)> {
    gaps.iter()
        .map(|gap| {
            (
                gap.step.from.micros() / 1_000_000,
                gap.step.to.map_or(NEVER, |to| to.micros() / 1_000_000),
                gap.step.initial,
                gap.reason,
            )
        })
        .collect()
}

#[test]
fn rows_that_touch_extend_the_chain_without_a_gap() {
    let mut rows = whole([NOW - 60, NOW - 40, NOW - 20]);
    let extension = extend(past(stamp(NOW - 80)), &mut rows, at());
    assert_eq!(extension.watermark, Some(stamp(NOW - 20)));
    assert!(extension.gaps.is_empty());
    assert_eq!(rows.len(), 3);
}

#[test]
fn rows_stored_before_and_rows_that_overlap_are_left_out() {
    let mut rows = whole([NOW - 100, NOW - 80, NOW - 75, NOW - 60]);
    let extension = extend(past(stamp(NOW - 80)), &mut rows, at());
    assert_eq!(seconds(&rows), [NOW - 60]);
    assert_eq!(
        extension.unkept,
        Unkept {
            known: 2,
            overlap: 1,
            ..Unkept::default()
        }
    );
}

#[test]
fn a_settled_step_is_stored_with_one_gap_row_and_an_unsettled_one_is_held_back() {
    let mut rows = whole([NOW - 200, NOW - 100, NOW - 80]);
    let extension = extend(past(stamp(NOW - 220)), &mut rows, at());
    assert_eq!(steps(&extension.gaps), [(NOW - 200, NOW - 100, false, None)]);
    assert_eq!(seconds(&rows), [NOW - 200, NOW - 100, NOW - 80]);

    let mut rows = whole([NOW - 60, NOW - 20, NOW]);
    let extension = extend(past(stamp(NOW - 80)), &mut rows, at());
    assert_eq!(
        seconds(&rows),
        [NOW - 60],
        "a young row behind a step waits for what may still come"
    );
    assert_eq!(
        (extension.watermark, extension.unkept.held),
        (Some(stamp(NOW - 60)), 2)
    );
    assert!(extension.gaps.is_empty());
}

#[test]
fn an_incomplete_row_is_held_back_until_it_is_a_minute_old() {
    let mut rows = window(&[(NOW - 60, false), (NOW - 40, false), (NOW - 20, true)]);
    let extension = extend(past(stamp(NOW - 80)), &mut rows, at());
    assert_eq!(seconds(&rows), [NOW - 60]);
    assert_eq!(extension.unkept.held, 2);
}

#[test]
fn first_contact_opens_one_gap_from_the_rings_start() {
    let mut rows = whole([NOW - 300, NOW - 280, NOW - 20]);
    let extension = extend(Past::default(), &mut rows, at());
    let ring_start = NOW - 59 * 60;
    assert_eq!(
        steps(&extension.gaps),
        [(ring_start, NOW - 300, true, None)],
        "the step before the young row is not settled"
    );
    assert_eq!(seconds(&rows), [NOW - 300, NOW - 280]);
}

#[test]
fn insane_stamps_are_refused() {
    let mut rows = whole([NOW - 26 * 3600, NOW - 40, NOW + 301]);
    let extension = extend(past(stamp(NOW - 60)), &mut rows, at());
    assert_eq!(seconds(&rows), [NOW - 40]);
    assert_eq!(extension.unkept.refused, 2);
}

fn gap(from: i64, to: i64, initial: bool) -> OpenGap {
    OpenGap {
        id: GapId(1),
        entity: entity(),
        step: Step {
            from: stamp(from),
            to: (to != NEVER).then(|| stamp(to)),
            to_interval: 20,
            initial,
        },
        hint: None,
    }
}

#[test]
fn a_full_answer_leaves_no_residue() {
    let mut rows = whole((0..=10).map(|n| NOW - 400 + n * 20));
    let residue = fill(&gap(NOW - 400, NOW - 200, false), &mut rows, at(), Memory::Ring);
    assert!(residue.gaps.is_empty());
    assert_eq!(rows.len(), 9, "both bounds are stored rows already");
    assert_eq!(residue.unkept.known, 2);
}

#[test]
fn what_the_source_does_not_have_is_explained_step_by_step() {
    let mut rows = whole([NOW - 340, NOW - 320, NOW - 260]);
    let residue = fill(&gap(NOW - 400, NOW - 200, false), &mut rows, at(), Memory::Ring);
    let why = Some(Reason::NotPublished);
    assert_eq!(
        steps(&residue.gaps),
        [
            (NOW - 400, NOW - 340, false, why),
            (NOW - 320, NOW - 260, false, why),
            (NOW - 260, NOW - 200, false, why)
        ]
    );
}

#[test]
fn what_is_older_than_the_ring_stays_open_for_the_rollup_lane() {
    let mut rows = whole([NOW - 3000]);
    let asked = OpenGap {
        hint: Some(Reason::PoweredOff),
        ..gap(NOW - 7200, NOW - 2900, false)
    };
    let residue = fill(&asked, &mut rows, at(), Memory::Ring);
    assert_eq!(
        steps(&residue.gaps),
        [
            (NOW - 7200, NOW - 3000, false, None),
            (NOW - 3000, NOW - 2900, false, Some(Reason::PoweredOff))
        ],
        "what began inside the ring is explained"
    );
    let open = residue.gaps[0];
    assert_eq!(
        (open.lane, open.hint, open.ask_after),
        (GapLane::Rollup, Some(Reason::PoweredOff), None)
    );
}

/// The newest stamp of the roll-ups' grid.
const GRID: i64 = NOW - 100;

fn kept(seconds: i64) -> Memory {
    Memory::Rollups {
        since: Some(stamp(NOW - seconds)),
    }
}

#[test]
fn a_rollup_is_stored_where_its_whole_interval_lies_inside_the_gap() {
    let (from, to) = (GRID - 9_080, GRID - 6_640);
    let mut rows = roll_ups((0..12).map(|n| GRID - 9_300 + n * 300));
    let residue = fill(&gap(from, to, false), &mut rows, at(), kept(86_400));
    assert_eq!(
        seconds(&rows),
        (0..7).map(|n| GRID - 8_700 + n * 300).collect::<Vec<_>>(),
        "the first would start before the row at the start, the last would reach into the row at the end"
    );
    let edge = Some(Reason::RollupEdge);
    assert_eq!(
        steps(&residue.gaps),
        [(from, GRID - 8_700, false, edge), (GRID - 6_900, to, false, edge)]
    );
    assert_eq!(residue.gaps[0].step.to_interval, 300);
    assert_eq!(residue.gaps[1].step.to_interval, 20);
}

#[test]
fn a_rollup_may_touch_the_rows_around_it_within_ten_seconds() {
    for (jitter, stored) in [(0, 1), (-10, 1), (10, 1), (-11, 0), (11, 0)] {
        let (from, to) = (GRID - 9_000 - jitter, GRID - 8_680 - jitter);
        let mut rows = roll_ups([GRID - 8_700]);
        let residue = fill(&gap(from, to, false), &mut rows, at(), kept(86_400));
        assert_eq!(rows.len(), stored, "{jitter}");
        assert_eq!(residue.gaps.len(), 1 - stored, "{jitter}");
    }
}

#[test]
fn a_rollup_before_another_one_ends_where_that_one_starts() {
    let between = OpenGap {
        step: Step {
            to_interval: 300,
            ..gap(GRID - 9_000, GRID - 8_100, false).step
        },
        ..gap(GRID - 9_000, GRID - 8_100, false)
    };
    let mut rows = roll_ups([GRID - 8_700, GRID - 8_400, GRID - 8_100]);
    let residue = fill(&between, &mut rows, at(), kept(86_400));
    assert_eq!(
        (rows.len(), residue.gaps.len()),
        (2, 0),
        "nothing is left to explain"
    );

    let mut samples = whole([GRID - 8_380]);
    fill(&between, &mut samples, at(), kept(86_400));
    assert_eq!(samples.len(), 0, "a sample inside the roll-up behind the gap");
}

#[test]
fn what_the_rollups_do_not_have_is_explained_by_what_is_known() {
    let since = NOW - 40_000;
    let gone = gap(since - 5_000, GRID - 9_000, false);
    let reasons = |gap: &OpenGap, stamps: &[i64], memory| {
        let mut rows = roll_ups(stamps.iter().copied());
        let residue = fill(gap, &mut rows, at(), memory);
        residue.gaps.iter().map(|gap| gap.reason).collect::<Vec<_>>()
    };
    let first = since.div_euclid(300) * 300 + 600;
    assert_eq!(
        reasons(&gone, &[first, GRID - 20_000 / 300 * 300], kept(40_000)),
        [
            Some(Reason::Expired),
            Some(Reason::NotPublished),
            Some(Reason::NotPublished)
        ],
        "older than what is kept; kept, but nothing there"
    );
    let off = OpenGap {
        hint: Some(Reason::PoweredOff),
        ..gone
    };
    assert_eq!(
        reasons(&off, &[first], kept(40_000)),
        [Some(Reason::PoweredOff), Some(Reason::PoweredOff)]
    );
    let none = Memory::Rollups { since: None };
    assert_eq!(reasons(&gone, &[], none), [Some(Reason::Expired)]);
    assert_eq!(reasons(&off, &[], none), [Some(Reason::PoweredOff)]);

    let short = gap(GRID - 8_990, GRID - 8_800, false);
    assert_eq!(reasons(&short, &[], kept(40_000)), [Some(Reason::RollupEdge)]);
    let short_and_off = OpenGap {
        hint: Some(Reason::PoweredOff),
        ..short
    };
    assert_eq!(
        reasons(&short_and_off, &[], kept(40_000)),
        [Some(Reason::PoweredOff)]
    );
}

#[test]
fn rollups_that_may_come_late_are_asked_for_once_more() {
    let end = NOW - 1_200;
    let young = gap(GRID - 9_000, end, false);
    let mut rows = roll_ups((0..20).map(|n| GRID - 8_700 + n * 300));
    let residue = fill(&young, &mut rows, at(), kept(86_400));
    let open = residue.gaps[0];
    assert_eq!(steps(&residue.gaps), [(GRID - 3_000, end, false, None)]);
    assert_eq!(
        (open.lane, open.ask_after),
        (GapLane::Rollup, Some(stamp(end + 45 * 60)))
    );

    let off = OpenGap {
        hint: Some(Reason::PoweredOff),
        ..young
    };
    let residue = fill(&off, &mut roll_ups([GRID - 8_700]), at(), kept(86_400));
    assert_eq!(
        steps(&residue.gaps),
        [(GRID - 8_700, end, false, Some(Reason::PoweredOff))],
        "of one that was off nothing is on its way"
    );

    let later = ServerTime(stamp(end + 45 * 60));
    let again = OpenGap {
        step: open.step,
        ..young
    };
    let residue = fill(&again, &mut roll_ups([GRID - 2_700]), later, kept(86_400));
    assert_eq!(
        steps(&residue.gaps),
        [(GRID - 2_700, end, false, Some(Reason::NotPublished))]
    );
}

#[test]
fn behind_a_gap_without_an_end_rollups_stop_where_the_ring_starts() {
    let silent = OpenGap {
        hint: Some(Reason::PoweredOff),
        ..gap(GRID - 9_000, NEVER, false)
    };
    let mut rows = roll_ups((0..25).map(|n| GRID - 8_700 + n * 300));
    let residue = fill(&silent, &mut rows, at(), kept(86_400));
    assert!(seconds(&rows).iter().all(|row| *row <= NOW - 59 * 60));
    assert!(residue.unkept.held > 0);
    assert_eq!(
        steps(&residue.gaps)[0].3,
        Some(Reason::PoweredOff),
        "it stays one gap without an end"
    );
    assert_eq!(residue.gaps.len(), 1);
}

#[test]
fn at_first_contact_nothing_is_missing_before_the_first_sample() {
    let open = gap(NOW - 3540, NOW - 300, true);
    let mut rows = whole((0..10).map(|n| NOW - 500 + n * 20));
    let residue = fill(&open, &mut rows, at(), Memory::Ring);
    assert_eq!((rows.len(), residue.gaps.len()), (10, 0));

    let mut nothing = whole([]);
    assert!(
        fill(&open, &mut nothing, at(), Memory::Ring).gaps.is_empty(),
        "a new VM: no past at all"
    );
}

#[test]
fn what_was_known_of_the_entity_explains_its_gap() {
    let off = Past {
        hint: Some(Reason::PoweredOff),
        ..past(stamp(NOW - 900))
    };
    let mut rows = whole([NOW - 300, NOW - 280, NOW - 200]);
    let extension = extend(off, &mut rows, at());
    let hints: Vec<Option<Reason>> = extension.gaps.iter().map(|gap| gap.hint).collect();
    assert_eq!(
        hints,
        [Some(Reason::PoweredOff), None],
        "the step behind is no matter of then"
    );

    let asked = OpenGap {
        hint: Some(Reason::PoweredOff),
        ..gap(NOW - 900, NOW - 300, false)
    };
    let mut rows = whole([NOW - 880]);
    let residue = fill(&asked, &mut rows, at(), Memory::Ring);
    assert_eq!(
        steps(&residue.gaps),
        [(NOW - 880, NOW - 300, false, Some(Reason::PoweredOff))]
    );
}

#[test]
fn an_entity_falls_silent_once_after_five_minutes() {
    let quiet = past(stamp(NOW - 301));
    let gap = fall_silent(entity(), quiet, at()).unwrap();
    assert_eq!(steps(&[gap]), [(NOW - 301, NEVER, false, None)]);
    assert_eq!(fall_silent(entity(), past(stamp(NOW - 300)), at()), None);
    assert_eq!(
        fall_silent(
            entity(),
            Past {
                silent: true,
                ..quiet
            },
            at()
        ),
        None
    );
    assert_eq!(
        fall_silent(entity(), Past::default(), at()),
        None,
        "nothing was ever expected"
    );
}

#[test]
fn a_gap_without_an_end_keeps_its_end_open() {
    let mut rows = whole([NOW - 580, NOW - 560, NOW - 40]);
    let residue = fill(&gap(NOW - 600, NEVER, false), &mut rows, at(), Memory::Ring);
    assert_eq!(
        steps(&residue.gaps),
        [(NOW - 560, NEVER, false, Some(Reason::NotPublished))]
    );
    assert_eq!(
        seconds(&rows),
        [NOW - 580, NOW - 560],
        "what is young is the live lane's"
    );
}

#[test]
fn a_gap_is_given_up_with_what_was_known() {
    let known = OpenGap {
        hint: Some(Reason::PoweredOff),
        ..gap(NOW - 900, NEVER, false)
    };
    assert_eq!(
        steps(&give_up(&known, Reason::Removed).gaps),
        [(NOW - 900, NEVER, false, Some(Reason::PoweredOff))]
    );
    assert!(
        give_up(&gap(NOW - 900, NOW, true), Reason::Removed)
            .gaps
            .is_empty()
    );
}

/// The invariant itself, over any answer: neighbours touch, or exactly one gap spans the step between them.
mod property {
    use proptest::prelude::*;

    use super::*;

    fn chain_holds(first: i64, rows: &[i64], last: Option<i64>, gaps: &[NewGap]) {
        let mut points = vec![first];
        points.extend(rows);
        points.extend(last);
        let mut spans: Vec<(i64, i64)> = steps(gaps)
            .into_iter()
            .map(|(from, to, _, _)| (from, to))
            .collect();
        for pair in points.windows(2) {
            let touches = (pair[1] - 20 - pair[0]).abs() <= 10;
            let span = spans.iter().position(|span| *span == (pair[0], pair[1]));
            match span {
                Some(index) => {
                    assert!(!touches, "a gap row where rows touch: {pair:?}");
                    spans.remove(index);
                }
                None => assert!(touches, "a step without a gap row: {pair:?}"),
            }
        }
        assert!(spans.is_empty(), "gap rows that span no step: {spans:?}");
    }

    proptest! {
        #[test]
        fn extending_keeps_the_chain(
            published in proptest::collection::btree_set(0_i64..400, 0..80),
            jitter in -4_i64..=4,
            watermark in 0_i64..400,
        ) {
            let second = |n: i64| NOW - 8000 + n * 20;
            let mut rows = whole(published.iter().map(|n| second(*n) + jitter));
            let from = second(watermark);
            let extension = extend(past(stamp(from)), &mut rows, at());
            let kept = seconds(&rows);
            chain_holds(from, &kept, None, &extension.gaps);
            prop_assert_eq!(extension.watermark, Some(stamp(kept.last().copied().unwrap_or(from))));
        }

        #[test]
        fn filling_keeps_the_chain(
            published in proptest::collection::btree_set(0_i64..160, 0..80),
            jitter in -4_i64..=4,
            bounds in (0_i64..160, 2_i64..160),
        ) {
            let second = |n: i64| NOW - 3400 + n * 20;
            let mut rows = whole(published.iter().map(|n| second(*n) + jitter));
            let (from, to) = (second(bounds.0), second(bounds.0 + bounds.1));
            let residue = fill(&gap(from, to, false), &mut rows, at(), Memory::Ring);
            chain_holds(from, &seconds(&rows), Some(to), &residue.gaps);
        }
    }
}
