//! The process is told to end in the middle of something.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use vsphere_simulator::{Action, Rule};

use super::super::Error;
use super::super::random::Random;
use super::super::stage::{End, Stage};
use super::{MINUTE, away, away_into_copy, moment, short};
use crate::process;
use crate::proxy::Weather;

/// What the collector is in the middle of when it is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Amid {
    Poll,
    BackFill,
    Copy,
    Rollups,
    Request,
    StalledDatabase,
    StalledVcenter,
}

const AMID: [Amid; 7] = [
    Amid::Poll,
    Amid::BackFill,
    Amid::Copy,
    Amid::Rollups,
    Amid::Request,
    Amid::StalledDatabase,
    Amid::StalledVcenter,
];

/// A platform that was given back is taken within this: two looks of the others, and what a busy machine adds.
const TAKEN_AT_ONCE: Duration = Duration::from_secs(10);

pub(super) async fn term(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let amid = dice.pick(&AMID).copied().ok_or(Error::Nothing("moment"))?;
    let awaited = dice.chance(50) && amid != Amid::StalledDatabase;
    let mut request = None;
    let mut lock = None;
    // Those who were killed before left sessions behind: who counts those of the one that ends begins without them.
    stage.end(End::Term).await?;
    stage.simulator.sessions().expire_all();
    stage.start().await?;
    stage.recovered().await?;
    match amid {
        Amid::Poll => {
            let slow = Action::Delay {
                millis: dice.between(4_000, 9_000),
            };
            stage.simulator.rules().add(Rule::on("QueryPerf", slow));
            stage.pass(moment(dice));
            stage.restart(End::Term).await?;
            stage
                .met("a poll", |stage| {
                    stage.simulator.calls().method("QueryPerf").in_flight > 0
                })
                .await?;
        }
        Amid::BackFill => {
            let outage = dice.seconds(1_200, 2_900);
            let throttle = u32::try_from(dice.between(20_000, 100_000)).unwrap_or(u32::MAX);
            stage.holder().vcenter.set_weather(Weather {
                throttle: Some(throttle),
                ..Weather::default()
            });
            away(stage, End::Term, outage).await?;
            let before = stage.simulator.calls().count("QueryPerf");
            stage
                .met("a back-fill", |stage| {
                    stage.simulator.calls().count("QueryPerf") > before + 1
                })
                .await?;
        }
        Amid::Copy => {
            away_into_copy(stage, End::Term, MINUTE).await?;
        }
        Amid::Rollups => {
            stage.pass(Duration::from_secs(300));
            stage.restart(End::Term).await?;
            stage.recovered().await?;
            lock = Some(stage.in_rollups().await?);
        }
        Amid::Request => request = Some(asked(stage).await?),
        Amid::StalledDatabase | Amid::StalledVcenter => {
            let slot = stage.holder();
            let way = if amid == Amid::StalledDatabase {
                &slot.database
            } else {
                &slot.vcenter
            };
            let stalled = Weather {
                stalled: true,
                ..Weather::default()
            };
            if dice.chance(50) {
                way.set_weather(stalled);
                stage.pass_unwell(short(dice));
            } else {
                let after = dice.millis(0, 1_500);
                away(stage, End::Term, short(dice)).await?;
                stage.ready().await?;
                tokio::time::sleep(after).await;
                let slot = stage.holder();
                if amid == Amid::StalledDatabase {
                    slot.database.set_weather(stalled);
                } else {
                    slot.vcenter.set_weather(stalled);
                }
            }
            tokio::time::sleep(dice.millis(0, 3_000)).await;
        }
    }
    if awaited {
        stage.stand_by().await?;
    }
    let (_, epoch) = stage.lease().await?;
    stage.note_memory();
    stage.note(format!("SIGTERM amid {amid:?}"));
    let took = stage.holder_mut().stop().await?;
    let since = Instant::now();
    stage.holder().calm();
    stage.simulator.rules().clear();
    let sessions = stage.simulator.sessions().stats().open;
    if !awaited && amid != Amid::StalledVcenter && sessions > 0 {
        return Err(Error::criterion(
            "no session of the platform left open",
            format!("{sessions} open behind the end amid {amid:?}"),
        ));
    }
    drop(lock);
    if awaited {
        let taken = stage.taken_over(epoch, since).await?;
        if taken > TAKEN_AT_ONCE {
            return Err(Error::criterion(
                "a platform that another takes at once",
                format!("{:.1} s from the end amid {amid:?}", taken.as_secs_f64()),
            ));
        }
    } else {
        if amid == Amid::StalledDatabase {
            // Nobody could be told; it runs out.
            stage.expire_lease().await?;
        } else if stage.is_leased().await? {
            return Err(Error::criterion(
                "the lease given back",
                format!("it is held behind the end amid {amid:?}"),
            ));
        }
        stage.start().await?;
    }
    let answer = match request {
        Some(request) => format!(", {}", request.end(stage).await?),
        None => String::new(),
    };
    Ok(format!(
        "amid {amid:?}, ended in {:.1} s, {}{answer}",
        took.as_secs_f64(),
        if awaited {
            "another went on"
        } else {
            "started again"
        },
    ))
}

/// Somebody who waits for the end of an action.
struct Request {
    operation: String,
    answer: tokio::task::JoinHandle<Result<hyper::StatusCode, String>>,
}

/// Asks for a snapshot that takes its time, and waits for the answer.
async fn asked(stage: &mut Stage) -> Result<Request, Error> {
    let slow = Action::TaskTime {
        queued: 0,
        millis: 40_000,
        steps: 3,
    };
    stage
        .simulator
        .rules()
        .add(Rule::on("CreateSnapshot_Task", slow).times(1));
    let token = stage.token().await?;
    let api = stage.holder().api;
    let vm = super::operations::running(stage).await?;
    let path = format!("/api/virt-center/vms/{}/snapshots/", vm.id);
    let answer = tokio::spawn(async move {
        let body = json!({ "name": "drill" });
        let asked = crate::http::ask(
            api,
            &token,
            (hyper::Method::POST, &path),
            Some("wait=30"),
            Some(&body),
        );
        match asked.await {
            Ok((status, _)) => Ok(status),
            Err(error) => Err(process::chain(&error)),
        }
    });
    let operation = stage.operation_sent(vm.id).await?;
    Ok(Request { operation, answer })
}

impl Request {
    /// The action ends in the next life.
    async fn end(self, stage: &mut Stage) -> Result<String, Error> {
        let answered = match self.answer.await {
            Ok(Ok(status)) if status == hyper::StatusCode::ACCEPTED => status,
            other => {
                return Err(Error::criterion(
                    "202 Accepted to who waits when the service stops",
                    format!("{other:?}"),
                ));
            }
        };
        stage.pass(Duration::from_secs(60));
        let state = super::operations::ended(stage, &self.operation).await?.state;
        if state != "succeeded" {
            return Err(Error::criterion("an action that goes on in the next life", state));
        }
        Ok(format!("who waited was answered with {answered}"))
    }
}
