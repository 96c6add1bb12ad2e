//! The chain of one entity: rows that touch, or exactly one gap row over each step between them.
//!
//! Owns: the rule, written a second time. Never does: SQL, or calling the product; it works on rows and gap rows in
//! memory and so shares nothing with the view that the product checks itself by.

/// A stored row. Times are microseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// End of its interval.
    pub(crate) at: i64,
    /// Length of its interval.
    pub(crate) interval: i64,
}

/// A gap row, bounds exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// Stamp of the row before.
    pub(crate) from: i64,
    /// Stamp of the row after; `None` while no row has come.
    pub(crate) to: Option<i64>,
    /// Still to be asked for.
    pub(crate) open: bool,
    /// It starts where the ring of an entity did that was seen for the first time.
    pub(crate) initial: bool,
}

/// What breaks the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Break {
    /// Two rows that do not touch, and no gap row between them.
    Step {
        /// Stamp of the row before.
        from: i64,
        /// Stamp of the row after.
        to: i64,
    },
    /// A gap row over a step that has one already.
    SecondGap(Gap),
    /// A gap row that spans no step.
    Dangling(Gap),
}

/// What the rows of an entity say about themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Stamps of rows that repeat the stamp of another row, or whose interval overlaps the row before.
    pub(crate) duplicates: Vec<i64>,
    /// Breaks of the chain.
    pub(crate) breaks: Vec<Break>,
}

/// Checks one entity; `rows` ascend by stamp.
pub(crate) fn check(rows: &[Link], gaps: &[Gap]) -> Findings {
    let mut findings = Findings::default();
    let mut unmatched: Vec<Gap> = gaps.to_vec();
    unmatched.sort_by_key(|gap| (gap.from, gap.to));
    let mut steps = Vec::new();

    for pair in rows.windows(2) {
        let [before, row] = pair else { continue };
        // Half of the shorter one: a long row must not hide the loss of a short one before it.
        let slack = before.interval.min(row.interval) / 2;
        let distance = row.at - row.interval - before.at;
        if row.at == before.at || distance < -slack {
            findings.duplicates.push(row.at);
        } else if distance > slack {
            steps.push((before.at, row.at));
        }
    }
    for &(from, to) in &steps {
        match unmatched
            .iter()
            .position(|gap| (gap.from, gap.to) == (from, Some(to)))
        {
            Some(index) => {
                unmatched.remove(index);
            }
            None => findings.breaks.push(Break::Step { from, to }),
        }
    }

    let first = rows.first().map(|row| row.at);
    let last = rows.last().map(|row| row.at);
    let mut initial_seen = false;
    let mut end_seen = false;
    for gap in unmatched {
        let before_the_first =
            gap.initial && gap.open && first.is_none_or(|first| gap.from < first && gap.to == Some(first));
        let after_the_last = gap.to.is_none() && (last == Some(gap.from) || (last.is_none() && gap.initial));
        let over_a_step = steps
            .iter()
            .any(|(from, to)| gap.from < *to && gap.to.is_none_or(|end| *from < end));
        let one_too_many = if after_the_last {
            std::mem::replace(&mut end_seen, true)
        } else if before_the_first {
            std::mem::replace(&mut initial_seen, true)
        } else if over_a_step {
            true
        } else {
            findings.breaks.push(Break::Dangling(gap));
            false
        };
        if one_too_many {
            findings.breaks.push(Break::SecondGap(gap));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(stamps: &[i64]) -> Vec<Link> {
        stamps
            .iter()
            .map(|at| Link {
                at: *at,
                interval: 20,
            })
            .collect()
    }

    fn gap(from: i64, to: i64) -> Gap {
        Gap {
            from,
            to: Some(to),
            open: false,
            initial: false,
        }
    }

    #[test]
    fn rows_that_touch_need_no_gap_and_steps_need_exactly_one() {
        let clean = Findings::default();
        assert_eq!(
            check(&rows(&[20, 40, 65, 80]), &[]),
            clean,
            "half an interval of slack"
        );
        assert_eq!(check(&rows(&[20, 40, 100, 120]), &[gap(40, 100)]), clean);
        let step = Break::Step { from: 40, to: 100 };
        assert_eq!(check(&rows(&[20, 40, 100]), &[]).breaks, [step]);
        assert_eq!(
            check(&rows(&[20, 40, 100]), &[gap(40, 100), gap(40, 100)]).breaks,
            [Break::SecondGap(gap(40, 100))]
        );
        let short = gap(40, 80);
        assert_eq!(
            check(&rows(&[20, 40, 100]), &[short]).breaks,
            [step, Break::SecondGap(short)]
        );
        assert_eq!(
            check(&rows(&[20, 40, 60]), &[gap(20, 40)]).breaks,
            [Break::Dangling(gap(20, 40))]
        );
    }

    #[test]
    fn the_ends_may_be_open() {
        let initial = Gap {
            from: 5,
            to: Some(100),
            open: true,
            initial: true,
        };
        assert_eq!(check(&rows(&[100, 120]), &[initial]), Findings::default());
        let explained = Gap {
            open: false,
            ..initial
        };
        assert_eq!(
            check(&rows(&[100, 120]), &[explained]).breaks,
            [Break::Dangling(explained)]
        );
        let silent = Gap {
            from: 120,
            to: None,
            open: false,
            initial: false,
        };
        assert_eq!(check(&rows(&[100, 120]), &[silent]), Findings::default());
        assert_eq!(
            check(&rows(&[100, 120]), &[silent, silent]).breaks,
            [Break::SecondGap(silent)]
        );
        assert_eq!(
            check(&rows(&[100, 120, 140]), &[silent]).breaks,
            [Break::Dangling(silent)]
        );
        assert_eq!(
            check(&[], &[gap(100, 200)]).breaks,
            [Break::Dangling(gap(100, 200))]
        );
    }

    #[test]
    fn overlaps_are_duplicates_and_no_steps() {
        assert_eq!(check(&rows(&[20, 40, 45, 60]), &[]).duplicates, [45]);
        assert_eq!(check(&rows(&[20, 40, 40, 60]), &[]).duplicates, [40]);
        let mut mixed = rows(&[600, 620]);
        mixed.push(Link {
            at: 900,
            interval: 300,
        });
        assert_eq!(check(&mixed, &[]).duplicates, [900]);
        let mut ragged = rows(&[560]);
        ragged.push(Link {
            at: 900,
            interval: 300,
        });
        assert_eq!(check(&ragged, &[]).breaks, [Break::Step { from: 560, to: 900 }]);
    }
}
