//! Somebody acts on VMs through the admin API, and the collector is killed in the middle of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use vsphere_simulator::{Action, OperationRecord, Rule};

use super::super::Error;
use super::super::random::Random;
use super::super::stage::{End, PLATFORM, Stage};
use crate::process;

/// For all that were asked for: a lost call is looked for during 15 s.
const ENDED: Duration = Duration::from_secs(120);

/// A VM as the inventory has it.
#[derive(Clone, Debug)]
pub(super) struct Vm {
    pub(super) id: i32,
    moref: String,
    name: String,
    runs: bool,
}

/// An operation's end.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) state: String,
    already: bool,
}

/// What is asked for, and the method that does it.
#[derive(Clone, Copy, Debug)]
struct Wish {
    path: &'static str,
    method: &'static str,
    is_confirmed: bool,
}

const ON: Wish = Wish {
    path: "power-on/",
    method: "PowerOnVM_Task",
    is_confirmed: false,
};

const SNAPSHOT: Wish = Wish {
    path: "snapshots/",
    method: "CreateSnapshot_Task",
    is_confirmed: false,
};

/// What a running VM may be asked for.
const RUNNING: [Wish; 4] = [
    Wish {
        path: "power-off/",
        method: "PowerOffVM_Task",
        is_confirmed: true,
    },
    Wish {
        path: "reset/",
        method: "ResetVM_Task",
        is_confirmed: true,
    },
    Wish {
        path: "suspend/",
        method: "SuspendVM_Task",
        is_confirmed: false,
    },
    SNAPSHOT,
];

async fn vms(stage: &Stage) -> Result<Vec<Vm>, Error> {
    let sql = "SELECT vm_id, moref, vm.name, power_state = 'on' \
               FROM virt_vm AS vm JOIN virt_platform AS platform USING (platform_id) \
               WHERE platform.name = $1 AND vm.removed_at IS NULL AND NOT vm.is_template ORDER BY vm_id";
    let rows = stage.client().await?.query(sql, &[&PLATFORM]).await?;
    let vms = rows.iter().map(|row| Vm {
        id: row.get(0),
        moref: row.get(1),
        name: row.get(2),
        runs: row.get(3),
    });
    Ok(vms.collect())
}

/// A VM that runs.
pub(super) async fn running(stage: &Stage) -> Result<Vm, Error> {
    let mut vms = vms(stage).await?;
    vms.retain(|vm| vm.runs);
    vms.into_iter().next().ok_or(Error::Nothing("running VM"))
}

/// Waits for the end of an operation.
pub(super) async fn ended(stage: &Stage, operation: &str) -> Result<Ended, Error> {
    let client = stage.client().await?;
    let sql = "SELECT state, coalesce((result->>'already')::boolean, FALSE) FROM virt_operation \
               WHERE operation_id = $1::text::uuid";
    let ended = process::until("an action to end", ENDED, || async {
        let row = client.query_one(sql, &[&operation]).await;
        let row = row.map_err(|error| process::chain(&error))?;
        let state: String = row.get(0);
        match state.as_str() {
            "queued" | "running" => Err(state),
            _ => Ok(Ended {
                state,
                already: row.get(1),
            }),
        }
    });
    Ok(ended.await?)
}

pub(super) async fn killed(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let before: Vec<String> = stage.simulator.world().running_vms();
    let n_before = stage.simulator.world().operations().len();
    let mut vms = vms(stage).await?;
    dice.shuffle(&mut vms);
    vms.truncate(usize::try_from(dice.between(1, 4)).unwrap_or(1));
    // Calls that take their time, before they have an effect or after; tasks that take some of the vCenter's.
    for wish in RUNNING.iter().chain([&ON]) {
        let millis = dice.between(50, 1_200);
        let rule = match dice.between(1, 4) {
            1 => Action::Delay { millis },
            2 => Action::Hold { millis },
            3 => Action::TaskTime {
                queued: 0,
                millis: 30_000,
                steps: 3,
            },
            _ => continue,
        };
        stage.simulator.rules().add(Rule::on(wish.method, rule));
    }
    let mut asked = BTreeMap::new();
    for vm in &vms {
        let wish = if vm.runs {
            *dice.pick(&RUNNING).unwrap_or(&SNAPSHOT)
        } else {
            *dice.pick(&[ON, SNAPSHOT]).unwrap_or(&ON)
        };
        asked.insert(ask(stage, vm, wish).await?, (vm.clone(), wish));
    }
    let first = dice.millis(0, 1_500);
    tokio::time::sleep(first).await;
    stage.restart(End::Kill).await?;
    let again = dice.chance(50).then(|| dice.millis(100, 2_500));
    if let Some(again) = again {
        tokio::time::sleep(again).await;
        stage.restart(End::Kill).await?;
    }
    stage.simulator.rules().clear();
    stage.pass(Duration::from_secs(60));
    let mut states: BTreeMap<String, u32> = BTreeMap::new();
    for (id, (vm, wish)) in &asked {
        let ended = ended(stage, id).await?;
        let done: Vec<OperationRecord> = stage.simulator.world().operations();
        let done: Vec<&OperationRecord> = done
            .iter()
            .skip(n_before)
            .filter(|done| done.vm == vm.moref)
            .collect();
        let is_wish = done.iter().all(|record| record.method == wish.method);
        let n = done.len();
        let fits = match ended.state.as_str() {
            "succeeded" => n == usize::from(!ended.already),
            _ => n <= 1,
        };
        if !is_wish || !fits {
            return Err(Error::criterion(
                "an action that is done once, or not at all",
                format!("{} of {} {}: {done:?}", wish.method, vm.moref, ended.state),
            ));
        }
        let audited = audited(stage, id).await?;
        if audited != ["intent", "outcome"] {
            return Err(Error::criterion(
                "one intent and one outcome in the audit log",
                format!("{audited:?} of {id}"),
            ));
        }
        *states.entry(ended.state).or_default() += 1;
    }
    // Life goes on as before.
    let running = stage.simulator.world().running_vms();
    for vm in before.iter().filter(|vm| !running.contains(vm)) {
        stage.simulator.world().power_on(vm)?;
    }
    stage.pass(Duration::from_secs(60));
    Ok(format!(
        "{} actions, killed {} ms behind{}: {states:?}",
        asked.len(),
        first.as_millis(),
        again.map_or_else(String::new, |again| format!(
            " and {} ms later",
            again.as_millis()
        ))
    ))
}

/// Asks for an action: the operation.
async fn ask(stage: &mut Stage, vm: &Vm, wish: Wish) -> Result<String, Error> {
    let path = format!("/api/virt-center/vms/{}/{}", vm.id, wish.path);
    let mut body = json!({});
    if let Some(body) = body.as_object_mut() {
        if wish.is_confirmed {
            body.insert("confirm".to_owned(), json!(vm.name));
        }
        if wish.method == SNAPSHOT.method {
            body.insert("name".to_owned(), json!("drill"));
        }
    }
    let (status, answer) = stage.ask((hyper::Method::POST, &path), None, Some(&body)).await?;
    let id = answer.get("id").and_then(Value::as_str);
    match (status.as_u16(), id) {
        (202, Some(id)) => Ok(id.to_owned()),
        _ => Err(Error::criterion("202 Accepted", format!("{status} {answer}"))),
    }
}

/// The entries of an operation in the audit log, in their order.
async fn audited(stage: &Stage, operation: &str) -> Result<Vec<String>, Error> {
    let sql = "SELECT entry FROM virt_audit_log WHERE operation_id = $1::text::uuid ORDER BY audit_id";
    let rows = stage.client().await?.query(sql, &[&operation]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

impl Stage {
    /// Waits until an action on a VM is with the platform: the operation.
    pub(in super::super) async fn operation_sent(&self, vm: i32) -> Result<String, Error> {
        let client = self.client().await?;
        let sql = "SELECT operation_id::text FROM virt_operation WHERE vm_id = $1 AND ended_at IS NULL AND task IS NOT NULL";
        let sent = process::until("an action to be sent", ENDED, || async {
            let row = client.query_opt(sql, &[&vm]).await;
            let row = row.map_err(|error| process::chain(&error))?;
            row.map(|row| row.get(0)).ok_or_else(|| "not yet".to_owned())
        });
        Ok(sent.await?)
    }
}
