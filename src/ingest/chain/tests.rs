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
            initial,
        },
        hint: None,
    }
}

#[test]
fn a_full_answer_leaves_no_residue() {
    let mut rows = whole((0..=10).map(|n| NOW - 400 + n * 20));
    let residue = fill(&gap(NOW - 400, NOW - 200, false), &mut rows, at());
    assert!(residue.gaps.is_empty());
    assert_eq!(rows.len(), 9, "both bounds are stored rows already");
    assert_eq!(residue.unkept.known, 2);
}

#[test]
fn what_the_source_does_not_have_is_explained_step_by_step() {
    let mut rows = whole([NOW - 340, NOW - 320, NOW - 260]);
    let residue = fill(&gap(NOW - 400, NOW - 200, false), &mut rows, at());
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
fn what_is_older_than_the_ring_is_expired() {
    let mut rows = whole([NOW - 3000]);
    let residue = fill(&gap(NOW - 7200, NOW - 2980, false), &mut rows, at());
    assert_eq!(
        steps(&residue.gaps),
        [(NOW - 7200, NOW - 3000, false, Some(Reason::Expired))]
    );
}

#[test]
fn at_first_contact_nothing_is_missing_before_the_first_sample() {
    let open = gap(NOW - 3540, NOW - 300, true);
    let mut rows = whole((0..10).map(|n| NOW - 500 + n * 20));
    let residue = fill(&open, &mut rows, at());
    assert_eq!((rows.len(), residue.gaps.len()), (10, 0));

    let mut nothing = whole([]);
    assert!(
        fill(&open, &mut nothing, at()).gaps.is_empty(),
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
    let residue = fill(&asked, &mut rows, at());
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
    let residue = fill(&gap(NOW - 600, NEVER, false), &mut rows, at());
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
            let residue = fill(&gap(from, to, false), &mut rows, at());
            chain_holds(from, &seconds(&rows), Some(to), &residue.gaps);
        }
    }
}
