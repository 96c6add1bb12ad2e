//! A day of a whole site: inventory, samples every 20 seconds up to now, gaps, roll-ups.
//!
//! Owns: the SQL files below `day/`, which the server executes by itself, so that 8.6 million rows take minutes and not
//! an hour. Never does: anything through the collector; what the collector stores is tested elsewhere, this is what
//! dashboards and analysts look at.

use tokio_postgres::Client;

const INVENTORY: &str = include_str!("day/inventory.sql");
const SAMPLES: &str = include_str!("day/samples.sql");
const ROLLUPS: &str = include_str!("day/rollups.sql");

/// How much.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// VMs; a host for ten of them, a datastore for twenty-five. At least 20.
    pub vms: u32,
    /// Hours of samples, at least 6: the newest one is of now.
    pub hours: u32,
}

/// Fills a migrated database that holds nothing yet, as superuser, and brings its statistics up to date.
///
/// # Errors
/// When the database refuses.
pub async fn fill(client: &Client, size: Size) -> Result<(), tokio_postgres::Error> {
    let Size { vms, hours } = size;
    client
        .batch_execute(&format!("SET day.vms = '{vms}'; SET day.hours = '{hours}'"))
        .await?;
    for part in [INVENTORY, SAMPLES, ROLLUPS, "ANALYZE"] {
        client.batch_execute(part).await?;
    }
    Ok(())
}
