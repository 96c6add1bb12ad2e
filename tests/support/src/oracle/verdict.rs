//! What the oracle found, and how it says it.

use std::collections::BTreeMap;
use std::fmt;

/// Findings of each kind that are kept as readable lines.
const DETAILS_PER_KIND: usize = 10;

/// The kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A sample that had to be stored is not there.
    Missing,
    /// Two rows for one time.
    Duplicate,
    /// A row that says something else than the source did.
    Wrong,
    /// A break of the chain.
    Unexplained,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Duplicate => "duplicate",
            Self::Wrong => "wrong",
            Self::Unexplained => "unexplained",
        })
    }
}

/// The result of a comparison. `Display` prints it as one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Samples that had to be stored: readable for the grace period while all was healthy.
    pub owed: u64,
    /// Rows of the platform.
    pub stored: u64,
    /// Hosts with rows.
    pub hosts: u64,
    /// VMs with rows.
    pub vms: u64,
    /// Owed samples that are not stored.
    pub missing: u64,
    /// Rows that repeat or overlap another one of their entity.
    pub duplicate: u64,
    /// Rows that the source never published, or that differ in any column from what it published.
    pub wrong: u64,
    /// Steps without gap row, gap rows without step.
    pub unexplained: u64,
    /// Gap rows that are still to be asked for.
    pub open: u64,
    /// Gap rows that say why there is nothing.
    pub explained: u64,
    /// The explained ones by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Newest row, microseconds since the epoch.
    pub newest: Option<i64>,
    /// Seconds from the newest row to the server's time when the truth was exported.
    pub lag_seconds: Option<i64>,
    /// The first findings of each kind, readable.
    pub details: BTreeMap<Kind, Vec<String>>,
}

impl Verdict {
    /// Nothing missing, duplicate, wrong or unexplained.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.missing == 0 && self.duplicate == 0 && self.wrong == 0 && self.unexplained == 0
    }

    /// The number of findings of a kind.
    #[must_use]
    pub const fn count(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Missing => self.missing,
            Kind::Duplicate => self.duplicate,
            Kind::Wrong => self.wrong,
            Kind::Unexplained => self.unexplained,
        }
    }

    /// The line and the first findings of each kind, for the message of a failed test.
    #[must_use]
    pub fn report(&self) -> String {
        let mut lines = vec![self.to_string()];
        if !self.reasons.is_empty() {
            let reasons: Vec<_> = self
                .reasons
                .iter()
                .map(|(reason, count)| format!("{reason} {count}"))
                .collect();
            lines.push(format!("explained: {}", reasons.join(", ")));
        }
        for (kind, details) in &self.details {
            lines.extend(details.iter().map(|detail| format!("{kind}: {detail}")));
            let kept = u64::try_from(details.len()).unwrap_or(u64::MAX);
            let more = self.count(*kind).saturating_sub(kept);
            if more > 0 {
                lines.push(format!("{kind}: and {more} more"));
            }
        }
        lines.join("\n")
    }

    pub(crate) fn note(&mut self, kind: Kind, detail: impl FnOnce() -> String) {
        match kind {
            Kind::Missing => self.missing += 1,
            Kind::Duplicate => self.duplicate += 1,
            Kind::Wrong => self.wrong += 1,
            Kind::Unexplained => self.unexplained += 1,
        }
        let kept = self.details.entry(kind).or_default();
        if kept.len() < DETAILS_PER_KIND {
            kept.push(detail());
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "missing={} duplicate={} wrong={} unexplained={} open={} explained={} stored={}",
            self.missing,
            self.duplicate,
            self.wrong,
            self.unexplained,
            self.open,
            self.explained,
            self.stored
        )
    }
}
