//! The database is another server now, or one that takes no writes.

use std::time::Duration;

use super::super::Error;
use super::super::random::Random;
use super::super::stage::{End, Stage};
use super::{ending, moment, provoke, short};

const ERRORS: &str = "virt_collector_database_errors_total";
const NOT_WRITABLE: [(&str, &str); 1] = [("class", "not_writable")];
const DATABASE_UP: &str = "virt_collector_database_up";

/// What the standby never gets.
#[derive(Clone, Copy, Debug)]
enum Lost {
    Samples,
    NewVm,
    TakeOver,
    BackFill,
}

/// To a standby that misses the last commits.
pub(super) async fn failover(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let lost = match dice.between(1, 4) {
        _ if stage.hasty => Lost::NewVm,
        1 => Lost::Samples,
        2 => Lost::NewVm,
        3 => Lost::TakeOver,
        _ => Lost::BackFill,
    };
    let outage = dice.seconds(600, 2_400);
    let after = dice.millis(300, 2_500);
    let pause = dice.millis(0, 3_000);
    let end = ending(dice);
    let host = dice
        .pick(&stage.simulator.world().hosts())
        .cloned()
        .ok_or(Error::Nothing("host"))?;
    let standby = stage.follow().await?;
    if stage.hasty {
        // The second poll of a start comes soon, and the lease that the standby knows is of one who lives on.
        stage.restart(End::Term).await?;
        stage.recovered().await?;
    }
    stage.cut_off(&standby).await?;
    match lost {
        Lost::NewVm if stage.hasty => {
            stage.simulator.world().create_vm(None, Some(&host))?;
            stage.pass(Duration::from_secs(45));
            stage.recovered().await?;
        }
        Lost::Samples => {
            provoke(stage, dice).await?;
            stage.recovered().await?;
        }
        Lost::NewVm => {
            stage.simulator.world().create_vm(None, Some(&host))?;
            stage.pass(dice.seconds(41, 90));
            stage.restart(end).await?;
            stage.recovered().await?;
        }
        Lost::TakeOver => {
            stage.pass(moment(dice));
            stage.restart(End::Term).await?;
            stage.recovered().await?;
            stage.pass(moment(dice));
            stage.restart(end).await?;
            stage.recovered().await?;
        }
        // In the middle of it, or just behind.
        Lost::BackFill => {
            stage.end(end).await?;
            stage.pass_unwell(outage);
            let committed = stage.holder().database.counts().commits;
            stage.start().await?;
            stage
                .met("rows that are lost again", |stage| {
                    stage.holder().database.counts().commits > committed + 5
                })
                .await?;
            tokio::time::sleep(after).await;
        }
    }
    let lacking = stage.fail_over(standby, pause).await?;
    if let Lost::NewVm = lost {
        // The key that the first one had is free again, and here is somebody to get it.
        stage.simulator.world().create_vm(None, Some(&host))?;
    }
    if lacking <= 0 && !matches!(lost, Lost::BackFill) {
        return Err(Error::Criterion(
            "the standby lacked nothing: no fail-over to speak of".to_owned(),
        ));
    }
    stage.recovered().await?;
    stage.within_bounds().await?;
    let returned = dice.chance(60) && !stage.hasty;
    if returned {
        old_primary(stage, dice).await?;
    }
    stage.alone().await?;
    Ok(format!(
        "{lost:?}: {lacking} rows lost and read again{}",
        if returned {
            ", the old primary came back and was left alone"
        } else {
            ""
        }
    ))
}

/// It comes back as the primary that it was, and nobody writes there.
async fn old_primary(stage: &mut Stage, dice: &mut Random) -> Result<(), Error> {
    let old = stage.old_primary_returns().await?;
    let before = stage.touched(&old).await?;
    stage.pass(moment(dice));
    if dice.chance(50) {
        let end = ending(dice);
        stage.restart(end).await?;
    } else {
        stage.holder().database.reset_all();
    }
    stage.recovered().await?;
    let after = stage.touched(&old).await?;
    if before != after {
        return Err(Error::Criterion(format!(
            "the old primary was written to: {before} became {after}"
        )));
    }
    Ok(())
}

/// A primary that takes no writes for a while, or a standby at the primary's address.
pub(super) async fn read_only(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let time = short(dice);
    let pause = dice.millis(0, 5_000);
    if dice.chance(50) {
        let standby = stage.follow().await?;
        stage.lead_astray(Some(&standby))?;
        stage.pass_unwell(time);
        let refused = stage.is_down().await;
        tokio::time::sleep(pause).await;
        stage.lead_astray(None)?;
        stage.alone().await?;
        refused?;
        Ok(format!(
            "a standby at the primary's address, for {} s",
            time.as_secs()
        ))
    } else {
        let before = stage.figure(ERRORS, &NOT_WRITABLE).await?;
        stage.set_read_only(true).await?;
        stage.pass_unwell(time);
        let refused = stage.until_figure(ERRORS, &NOT_WRITABLE, |n| n > before).await;
        tokio::time::sleep(pause).await;
        stage.set_read_only(false).await?;
        refused?;
        Ok(format!("the primary, for {} s", time.as_secs()))
    }
}

impl Stage {
    /// All sessions, those that are open too.
    async fn set_read_only(&mut self, yes: bool) -> Result<(), Error> {
        let client = self.client().await?;
        let word = if yes { "on" } else { "off" };
        client
            .batch_execute(&format!(
                "ALTER SYSTEM SET default_transaction_read_only = {word}"
            ))
            .await?;
        client.batch_execute("SELECT pg_reload_conf()").await?;
        self.note(format!("read-only: {word}"));
        Ok(())
    }

    /// Waits until the daemon says that it has no database.
    async fn is_down(&mut self) -> Result<(), Error> {
        self.until_figure(DATABASE_UP, &[], |up| up < 0.5).await?;
        self.note("the daemon finds no primary");
        Ok(())
    }
}
