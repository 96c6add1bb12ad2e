//! What the daemon says of itself in `/metrics`, and what it must not exceed.
//!
//! Owns: reading single figures, and the bounds that hold whatever happens. Never does: more than an operator's
//! Prometheus could.

use std::time::Duration;

use super::Error;
use super::stage::Stage;
use crate::process;

/// No more memory than this, ever. The collector of this small world takes 30 MiB; its budget alone is 256 MiB.
const MEMORY_KIB: u64 = 96 * 1024;

impl Stage {
    /// The sum of all series whose line begins so; 0 where there is none.
    pub(super) async fn figure(&self, series: &str) -> Result<f64, Error> {
        let text = self.holder().collector.metrics().await?;
        let lines = text.lines().filter(|line| line.starts_with(series));
        Ok(lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }

    /// Waits until a figure is more than this.
    pub(super) async fn more_than(
        &mut self,
        series: &str,
        before: f64,
        deadline: Duration,
    ) -> Result<(), Error> {
        let this = &*self;
        process::until(&format!("{series} above {before}"), deadline, || async move {
            match this.figure(series).await {
                Ok(now) if now > before => Ok(()),
                Ok(now) => Err(now.to_string()),
                Err(error) => Err(process::chain(&error)),
            }
        })
        .await?;
        self.note(format!("{series} above {before}"));
        Ok(())
    }

    /// Everything runs, and within its bounds.
    pub(super) async fn within_bounds(&mut self) -> Result<(), Error> {
        self.must_run()?;
        self.note_memory();
        if self.rss_max_kib() > MEMORY_KIB {
            return Err(Error::Criterion(format!(
                "the collector took {} MiB of memory",
                self.rss_max_kib() / 1024
            )));
        }
        let (reserved, budget) = (
            self.figure("virt_collector_memory_reserved_bytes ").await?,
            self.figure("virt_collector_memory_budget_bytes ").await?,
        );
        if reserved > budget {
            return Err(Error::Criterion(format!(
                "{reserved} bytes of a budget of {budget} are reserved"
            )));
        }
        Ok(())
    }
}
