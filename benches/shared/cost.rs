//! CPU time, and the ratio of two costs that are measured in turn.

use std::fmt;

/// The same cost, twice: each pair is measured back to back, so that what disturbs one disturbs the other.
#[derive(Debug, Clone)]
pub(crate) struct Ratio {
    pairs: Vec<f64>,
}

impl Ratio {
    /// From ratios.
    pub(crate) fn from_pairs(mut pairs: Vec<f64>) -> Self {
        pairs.sort_by(f64::total_cmp);
        Self { pairs }
    }

    /// The middle one.
    pub(crate) fn median(&self) -> f64 {
        self.pairs.get(self.pairs.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = self.pairs.first().copied().unwrap_or(f64::NAN);
        let most = self.pairs.last().copied().unwrap_or(f64::NAN);
        write!(
            f,
            "{:.2} ({least:.2} to {most:.2} in {} pairs)",
            self.median(),
            self.pairs.len()
        )
    }
}

/// CPU seconds so far, from a `schedstat` of the kernel: nanoseconds, where the unit of `stat` is a hundredth of a second.
pub(crate) fn cpu_seconds(path: &str) -> f64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let first = text
        .split_whitespace()
        .next()
        .and_then(|first| first.parse::<f64>().ok());
    first.unwrap_or(f64::NAN) / 1e9
}
