//! The database fails, or the way to it is slow or closed.

use std::time::Duration;

use super::super::Error;
use super::super::random::Random;
use super::super::stage::{End, Stage};
use super::{MEET, away, ending, provoke, short};
use crate::cluster::Mode;
use crate::process;
use crate::proxy::{CommitCut, Weather};

pub(super) async fn commit_cut(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let cut = if dice.chance(75) {
        CommitCut::Reply
    } else {
        CommitCut::Request
    };
    let rows = dice.chance(75);
    let before = stage.holder().database.counts().cut_commits;
    stage.holder().database.cut_commit(cut, rows);
    let when = provoke(stage, dice).await?;
    stage
        .met("a COMMIT", |stage| {
            stage.holder().database.counts().cut_commits > before
        })
        .await?;
    let what = if rows { "of rows" } else { "of anything" };
    Ok(match cut {
        CommitCut::Reply => format!("the answer to a COMMIT {what} is lost, {when}"),
        CommitCut::Request => format!("a COMMIT {what} is lost, {when}"),
    })
}

fn mode(dice: &mut Random) -> Mode {
    if dice.chance(50) {
        Mode::Fast
    } else {
        Mode::Immediate
    }
}

pub(super) async fn restart(stage: &mut Stage, dice: &mut Random, mode: Mode) -> Result<String, Error> {
    let busy = dice.chance(70) || stage.hasty;
    let after = dice.millis(0, 2_000);
    let end = ending(dice);
    // A server that answers COMMIT before it has written anything down, and one that goes on after a crash of a session.
    let careless = mode == Mode::Immediate && (dice.chance(50) || stage.hasty);
    let in_place = mode == Mode::Immediate && dice.chance(50);
    if careless {
        stage.set_careless(true).await?;
    }
    stage.pass(short(dice));
    if busy {
        stage.restart(end).await?;
        tokio::time::sleep(after).await;
    }
    if in_place {
        stage.crash_in_place().await?;
    } else {
        stage.restart_database(mode).await?;
    }
    if careless {
        stage.set_careless(false).await?;
    }
    Ok(format!(
        "{}{}, {}",
        if in_place {
            "a session is killed".to_owned()
        } else {
            format!("{mode:?}")
        },
        if careless {
            ", synchronous_commit = off"
        } else {
            ""
        },
        if busy {
            format!("{} ms after a start", after.as_millis())
        } else {
            "idle".to_owned()
        }
    ))
}

impl Stage {
    /// Whether the server answers COMMIT before it has written anything down.
    async fn set_careless(&mut self, yes: bool) -> Result<(), Error> {
        let client = self.client().await?;
        let settings = if yes {
            [
                "ALTER SYSTEM SET synchronous_commit = off",
                "ALTER SYSTEM SET wal_writer_delay = '10s'",
            ]
        } else {
            [
                "ALTER SYSTEM RESET synchronous_commit",
                "ALTER SYSTEM RESET wal_writer_delay",
            ]
        };
        for setting in settings.into_iter().chain(["SELECT pg_reload_conf()"]) {
            client.batch_execute(setting).await?;
        }
        self.note(if yes {
            "synchronous_commit is off"
        } else {
            "synchronous_commit is on"
        });
        Ok(())
    }

    /// kill -9 of a session, whereupon the server ends all of them and recovers without being started again.
    async fn crash_in_place(&mut self) -> Result<(), Error> {
        let client = self.client().await?;
        let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
        process::kill(pid)?;
        self.note("a session of the database is killed");
        // It has heard of it once this one is gone.
        process::until("the session to end", MEET, || {
            let ended = client.is_closed();
            async move {
                if ended {
                    Ok(())
                } else {
                    Err("it goes on".to_owned())
                }
            }
        })
        .await?;
        let this = &*self;
        process::until("the database to recover", MEET, || async move {
            match this.client().await {
                Ok(_) => Ok(()),
                Err(error) => Err(process::chain(&error)),
            }
        })
        .await?;
        self.note("database is back");
        Ok(())
    }
}

pub(super) async fn stopped(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let mode = mode(dice);
    // Longer than the ring, now and then: what is older comes as roll-ups.
    let hours = dice.chance(15) && !stage.hasty;
    let time = if hours {
        dice.seconds(2 * 3_600, 4 * 3_600)
    } else {
        dice.seconds(60, 3_000)
    };
    let pause = dice.millis(500, 8_000);
    let refused = dice.chance(50);
    stage.stop_database(mode).await?;
    stage.holder().database.refuse(refused);
    stage.pass_unwell(time);
    tokio::time::sleep(pause).await;
    stage.start_database().await?;
    stage.holder().database.refuse(false);
    if hours {
        // The samples at the old end of the ring go first: no time passes before they are fetched.
        let before = coarse(stage).await?;
        stage.recovered().await?;
        let filled = coarse(stage).await? - before;
        if filled < 1 {
            return Err(Error::Criterion(format!(
                "{} s away, and no row of 5 minutes",
                time.as_secs()
            )));
        }
    }
    stage.within_bounds().await?;
    Ok(format!("{mode:?}, for {} s", time.as_secs()))
}

/// Rows that came as 5-minute statistics.
async fn coarse(stage: &Stage) -> Result<i64, Error> {
    const COARSE: &str = "SELECT (SELECT count(*) FROM virt_host_metrics WHERE interval_seconds = 300) \
                               + (SELECT count(*) FROM virt_vm_metrics WHERE interval_seconds = 300)";
    Ok(stage.client().await?.query_one(COARSE, &[]).await?.get(0))
}

pub(super) async fn throttled(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let rate = u32::try_from(dice.between(10_000, 60_000)).unwrap_or(u32::MAX);
    let outage = dice.seconds(60, 1_500);
    stage.holder().database.set_weather(Weather {
        throttle: Some(rate),
        ..Weather::default()
    });
    slow(stage, outage).await?;
    Ok(format!(
        "to {} kB/s, {} s to catch up",
        rate / 1000,
        outage.as_secs()
    ))
}

pub(super) async fn latency(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let latency = dice.millis(10, 150);
    let outage = dice.seconds(60, 1_500);
    stage.holder().database.set_weather(Weather {
        latency_up: latency,
        latency_down: latency,
        ..Weather::default()
    });
    slow(stage, outage).await?;
    Ok(format!(
        "{} ms each way, {} s to catch up",
        latency.as_millis(),
        outage.as_secs()
    ))
}

/// Catches up on a slow way to the database.
async fn slow(stage: &mut Stage, outage: Duration) -> Result<(), Error> {
    away(stage, End::Kill, outage).await?;
    stage.recovered().await
}

pub(super) async fn refused(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let time = dice.seconds(20, 600);
    let pause = dice.millis(500, 6_000);
    stage.holder().database.refuse(true);
    stage.holder().database.reset_all();
    stage.pass_unwell(time);
    tokio::time::sleep(pause).await;
    Ok(format!("for {} s", time.as_secs()))
}
