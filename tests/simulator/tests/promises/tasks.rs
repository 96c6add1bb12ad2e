//! Tasks: their life, what they say of themselves, and who can find them for how long.

use std::time::Duration;

use vsphere_simulator::rules::Action;
use vsphere_simulator::{Event, Rule, Spec, TaskState};

use crate::desk::{Desk, SNAPSHOT, VM, fault_of, references};
use crate::support::{Client, all, one, time};
use crate::{MICROS, START, frozen};

async fn slow() -> Desk {
    Desk::at(Spec {
        task_time: Duration::from_secs(40),
        ..frozen()
    })
    .await
}

fn state(name: &str, progress: Option<&str>) -> (String, Option<String>, Option<String>) {
    (name.to_owned(), progress.map(str::to_owned), None)
}

#[tokio::test]
async fn a_task_is_queued_runs_with_progress_ends_and_vanishes_after_ten_minutes() {
    let desk = Desk::new().await;
    desk.simulator.rules().add(Rule::on(
        "PowerOffVM_Task",
        Action::TaskTime {
            queued: 10_000,
            millis: 40_000,
            steps: 3,
        },
    ));
    let task = desk.task("PowerOffVM_Task", "").await;
    assert_eq!(desk.progress(&task).await, state("queued", None));
    assert_eq!(desk.text("Task", &task, "info.startTime").await, None);
    for (seconds, progress) in [(10, "0"), (10, "25"), (10, "50"), (10, "75")] {
        desk.advance(seconds);
        assert_eq!(desk.progress(&task).await, state("running", Some(progress)));
    }
    assert_eq!(desk.power().await, "poweredOn");
    desk.advance(10);
    assert_eq!(desk.progress(&task).await, state("success", None));
    assert_eq!(desk.power().await, "poweredOff");
    let moment = |seconds| format!("{}.000000Z", time(START + seconds).trim_end_matches('Z'));
    for (path, seconds) in [
        ("info.queueTime", 0),
        ("info.startTime", 10),
        ("info.completeTime", 50),
    ] {
        let is = desk.text("Task", &task, path).await.expect("set");
        assert_eq!(is, moment(seconds), "{path}");
    }
    desk.advance(599);
    assert_eq!(desk.progress(&task).await.0, "success");
    desk.advance(1);
    let gone = desk.read("Task", &task, &["info.state"]).await;
    assert_eq!(fault_of(&gone), "ManagedObjectNotFound");
    assert!(gone.body.contains(&format!("<obj type=\"Task\">{task}</obj>")));
    desk.end().await;
}

#[tokio::test]
async fn a_task_tells_everything_in_the_order_of_the_schema() {
    let desk = slow().await;
    desk.simulator.world().rename(VM, "web &amp; co").expect("rename");
    let task = desk.task("CreateSnapshot_Task", SNAPSHOT).await;
    let order = |info: &str| {
        let mut names: Vec<String> = Vec::new();
        let mut depth = 0;
        for part in info.split('<').skip(2) {
            if part.starts_with('/') {
                depth -= 1;
            } else {
                if depth == 0 {
                    let end = part.find([' ', '>']).expect("name");
                    names.push(part[..end].to_owned());
                }
                depth += 1;
            }
        }
        names.join(" ")
    };
    let running = desk.property("Task", &task, "info").await.expect("info");
    assert!(running.starts_with("<val xsi:type=\"TaskInfo\">"), "{running}");
    assert_eq!(
        order(&running),
        "key task name descriptionId entity entityName state cancelled cancelable progress reason queueTime \
         startTime eventChainId"
    );
    desk.advance(40);
    let done = desk.property("Task", &task, "info").await.expect("info");
    assert_eq!(
        order(&done),
        "key task name descriptionId entity entityName state cancelled cancelable result reason queueTime \
         startTime completeTime eventChainId"
    );
    for part in [
        format!("<key>{task}</key><task type=\"Task\">{task}</task><name>CreateSnapshot_Task</name>"),
        "<descriptionId>VirtualMachine.createSnapshot</descriptionId>".to_owned(),
        format!("<entity type=\"VirtualMachine\">{VM}</entity><entityName>web &amp;amp; co</entityName>"),
        "<state>success</state><cancelled>false</cancelled><cancelable>false</cancelable>".to_owned(),
        format!(
            "<result type=\"VirtualMachineSnapshot\" xsi:type=\"ManagedObjectReference\">snapshot-{VM}-1</result>"
        ),
        "<reason xsi:type=\"TaskReasonUser\"><userName>monitor@vsphere.local</userName></reason>".to_owned(),
    ] {
        assert!(done.contains(&part), "{part} in {done}");
    }
    let off = desk.call("PowerOnVM_Task", "VirtualMachine", VM, "").await;
    let failed = crate::desk::task_of(&off);
    let info = desk.property("Task", &failed, "info").await.expect("info");
    assert!(
        info.contains("<error><fault xsi:type=\"InvalidPowerState\"><requestedState>poweredOff</requestedState><existingState>poweredOn</existingState></fault><localizedMessage>"),
        "{info}"
    );
    desk.end().await;
}

#[tokio::test]
async fn a_filter_tells_the_steps_of_tasks_and_their_end() {
    let desk = slow().await;
    let task = desk.task("PowerOffVM_Task", "").await;
    let filter = format!(
        "<spec><propSet><type>Task</type><pathSet>info.state</pathSet><pathSet>info.progress</pathSet></propSet><objectSet><obj type=\"Task\">{task}</obj></objectSet></spec><partialUpdates>false</partialUpdates>"
    );
    let collector = "propertyCollector";
    let made = desk
        .call("CreateFilter", "PropertyCollector", collector, &filter)
        .await;
    assert_eq!(made.status, 200, "{made:?}");
    let wait = async |version: &str| {
        let arguments =
            format!("<version>{version}</version><options><maxWaitSeconds>0</maxWaitSeconds></options>");
        let reply = desk
            .call("WaitForUpdatesEx", "PropertyCollector", collector, &arguments)
            .await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let told: Vec<String> = all(&reply.body, "objectSet", "objectSet");
        (one(&reply.body, "version", "version"), told)
    };
    let (version, told) = wait("").await;
    assert!(
        told[0].contains("<kind>enter</kind>") && told[0].contains(">running<"),
        "{told:?}"
    );
    desk.advance(10);
    let (version, told) = wait(&version).await;
    assert!(
        told[0].contains(">25<") && !told[0].contains("info.state"),
        "{told:?}"
    );
    desk.advance(30);
    let (version, told) = wait(&version).await;
    assert!(told[0].contains(">success<"), "{told:?}");
    desk.advance(600);
    let (version, told) = wait(&version).await;
    assert!(
        told.len() == 1 && told[0].contains("<kind>leave</kind>"),
        "{told:?}"
    );
    // The filter stays, and has nothing more to tell.
    desk.task("PowerOnVM_Task", "").await;
    let arguments =
        format!("<version>{version}</version><options><maxWaitSeconds>0</maxWaitSeconds></options>");
    let nothing = desk
        .call("WaitForUpdatesEx", "PropertyCollector", collector, &arguments)
        .await;
    assert!(
        nothing.status == 200 && !nothing.body.contains("returnval"),
        "{nothing:?}"
    );
    desk.end().await;
}

#[tokio::test]
async fn recent_tasks_are_those_that_are_there_of_a_vm_and_of_all() {
    let desk = Desk::new().await;
    let first = desk.task("PowerOffVM_Task", "").await;
    desk.advance(300);
    let second = desk.task("PowerOnVM_Task", "").await;
    let other = desk
        .call("PowerOffVM_Task", "VirtualMachine", "vm-10002", "")
        .await;
    let other = crate::desk::task_of(&other);
    let recent = async |kind, moref| {
        let value = desk.property(kind, moref, "recentTask").await;
        references(&value.expect("a list, however short"))
    };
    assert_eq!(
        recent("VirtualMachine", VM).await,
        [first.clone(), second.clone()]
    );
    assert_eq!(
        recent("TaskManager", "TaskManager").await,
        [first, second.clone(), other.clone()]
    );
    // In one call, through the reference.
    let walked = desk.call("RetrievePropertiesEx", "PropertyCollector", "propertyCollector", &format!(
        r#"<specSet><propSet><type>Task</type><pathSet>info</pathSet></propSet><objectSet><obj type="VirtualMachine">{VM}</obj><skip>true</skip><selectSet xsi:type="TraversalSpec"><type>VirtualMachine</type><path>recentTask</path></selectSet></objectSet></specSet><options/>"#
    )).await;
    let names: Vec<String> = all(&walked.body, "name", "name");
    assert_eq!(names, ["info", "PowerOffVM_Task", "info", "PowerOnVM_Task"]);
    desk.advance(300);
    assert_eq!(recent("VirtualMachine", VM).await, std::slice::from_ref(&second));
    assert_eq!(recent("TaskManager", "TaskManager").await, [second, other]);
    let content = desk
        .call("RetrieveServiceContent", "ServiceInstance", "ServiceInstance", "")
        .await;
    assert!(
        content
            .body
            .contains("<taskManager type=\"TaskManager\">TaskManager</taskManager>")
    );
    desk.end().await;
}

#[tokio::test]
async fn a_task_outlives_the_session_that_started_it() {
    let desk = slow().await;
    let task = desk.task("PowerOffVM_Task", "").await;
    desk.call("Logout", "SessionManager", "SessionManager", "").await;
    assert_eq!(fault_of(&desk.vm("PowerOnVM_Task", "").await), "NotAuthenticated");
    desk.advance(20);
    let client = Client::login(&desk.simulator).await;
    let desk = Desk { client, ..desk };
    assert_eq!(desk.progress(&task).await, state("running", Some("50")));
    desk.advance(20);
    assert_eq!(desk.progress(&task).await, state("success", None));
    desk.end().await;
}

#[tokio::test]
async fn a_task_can_be_lost_before_its_end_and_goes_on_all_the_same() {
    let desk = slow().await;
    desk.simulator.rules().add(Rule::on(
        "PowerOffVM_Task",
        Action::TaskGone {
            millis: 10_000,
            forgotten: false,
        },
    ));
    let task = desk.task("PowerOffVM_Task", "").await;
    desk.advance(9);
    assert_eq!(desk.progress(&task).await.0, "running");
    desk.advance(1);
    assert_eq!(
        fault_of(&desk.read("Task", &task, &["info"]).await),
        "ManagedObjectNotFound"
    );
    assert_eq!(desk.refused("ResetVM_Task").await, "TaskInProgress");
    desk.advance(30);
    assert_eq!(desk.power().await, "poweredOff");
    desk.end().await;
}

#[tokio::test]
async fn what_can_be_cancelled_can_be_cancelled_while_it_goes_on() {
    let desk = slow().await;
    let cancel = async |task: &str| desk.call("CancelTask", "Task", task, "").await;
    let task = desk.task("CreateSnapshot_Task", SNAPSHOT).await;
    assert_eq!(
        desk.text("Task", &task, "info.cancelable").await.as_deref(),
        Some("true")
    );
    assert_eq!(cancel(&task).await.status, 200);
    assert_eq!(desk.progress(&task).await.2.as_deref(), Some("RequestCanceled"));
    assert_eq!(
        desk.text("Task", &task, "info.cancelled").await.as_deref(),
        Some("true")
    );
    desk.advance(40);
    assert_eq!(desk.property("VirtualMachine", VM, "snapshot").await, None);
    assert_eq!(fault_of(&cancel(&task).await), "InvalidState");
    let task = desk.task("PowerOffVM_Task", "").await;
    assert_eq!(
        desk.text("Task", &task, "info.cancelable").await.as_deref(),
        Some("false")
    );
    assert_eq!(fault_of(&cancel(&task).await), "NotSupported");
    assert_eq!(fault_of(&cancel("task-999").await), "ManagedObjectNotFound");
    desk.end().await;
}

#[tokio::test]
async fn a_stuck_task_never_ends_and_a_question_holds_one_up_until_it_is_answered() {
    let desk = slow().await;
    let world = desk.simulator.world();
    let rules = desk.simulator.rules();
    let id = rules.add(Rule::on("CreateSnapshot_Task", Action::TaskStuck));
    let task = desk.task("CreateSnapshot_Task", SNAPSHOT).await;
    desk.advance(1000);
    assert_eq!(desk.progress(&task).await, state("running", Some("75")));
    desk.call("CancelTask", "Task", &task, "").await;
    assert_eq!(desk.progress(&task).await.0, "error");
    rules.remove(id);

    let task = desk.task("ResetVM_Task", "").await;
    desk.advance(20);
    let vm = || VM.to_owned();
    world.apply(Event::Ask { vm: vm(), text: None }).expect("ask");
    desk.advance(500);
    assert_eq!(desk.progress(&task).await, state("running", Some("50")));
    let question = desk
        .property("VirtualMachine", VM, "runtime.question")
        .await
        .expect("question");
    assert!(question.contains("VirtualMachineQuestionInfo"), "{question}");
    assert_eq!(
        all(&question, "label", "label"),
        ["Cancel", "I Moved It", "I Copied It"]
    );
    let whole = desk
        .property("VirtualMachine", VM, "runtime")
        .await
        .expect("runtime");
    assert!(whole.contains("<question><id>"), "{whole}");
    world.apply(Event::Answer { vm: vm() }).expect("answer");
    assert!(world.apply(Event::Answer { vm: vm() }).is_err());
    desk.advance(20);
    assert_eq!(desk.progress(&task).await.0, "success");
    assert_eq!(
        desk.property("VirtualMachine", VM, "runtime.question").await,
        None
    );

    // A task that raises one itself.
    rules.add(Rule::on("PowerOffVM_Task", Action::TaskAsks));
    let task = desk.task("PowerOffVM_Task", "").await;
    desk.advance(1000);
    assert_eq!(desk.progress(&task).await, state("running", Some("0")));
    assert!(
        desk.property("VirtualMachine", VM, "runtime.question")
            .await
            .is_some()
    );
    world.apply(Event::Answer { vm: vm() }).expect("answer");
    desk.advance(40);
    assert_eq!(desk.power().await, "poweredOff");
    desk.end().await;
}

/// The server's clock is set back while a task runs: the world pauses, and what the task says goes by that clock.
#[tokio::test]
async fn a_corrected_clock_neither_loses_nor_repeats_a_task() {
    let desk = slow().await;
    let task = desk.task("PowerOffVM_Task", "").await;
    desk.simulator.clock().step(-100 * MICROS);
    desk.advance(100);
    assert_eq!(desk.progress(&task).await, state("running", Some("0")));
    desk.advance(40);
    assert_eq!(desk.progress(&task).await, state("success", None));
    desk.simulator.clock().step(3600 * MICROS);
    let log = desk.simulator.world().operations();
    assert_eq!((log.len(), log[0].state), (1, Some(TaskState::Success)));
    assert_eq!(log[0].effect_at, Some((START + 40) * MICROS));
    desk.end().await;
}

#[tokio::test]
async fn a_vm_that_is_deleted_under_a_task_fails_it() {
    let desk = slow().await;
    let task = desk.task("PowerOffVM_Task", "").await;
    desk.simulator.world().delete_vm(VM).expect("delete");
    desk.advance(40);
    assert_eq!(
        desk.progress(&task).await.2.as_deref(),
        Some("ManagedObjectNotFound")
    );
    assert_eq!(desk.refused("PowerOffVM_Task").await, "ManagedObjectNotFound");
    let info = desk.property("Task", &task, "info").await.expect("info");
    assert_eq!(one(&info, "entity type=\"VirtualMachine\"", "entity"), VM);
    desk.end().await;
}

/// pyvmomi reads property by property, and waits for whole tasks.
#[tokio::test]
async fn other_clients_read_and_wait_for_tasks_in_their_own_way() {
    let desk = slow().await;
    let fetch = async |kind: &str, moref: &str, path: &str| {
        desk.call("Fetch", kind, moref, &format!("<prop>{path}</prop>"))
            .await
    };
    let power = fetch("VirtualMachine", VM, "runtime.powerState").await;
    assert!(
        power
            .body
            .contains("<returnval xsi:type=\"VirtualMachinePowerState\">poweredOn</returnval>"),
        "{power:?}"
    );
    let unset = fetch("VirtualMachine", VM, "snapshot").await;
    assert!(
        unset.status == 200 && !unset.body.contains("returnval"),
        "{unset:?}"
    );
    assert_eq!(
        fault_of(&fetch("VirtualMachine", VM, "speed").await),
        "InvalidProperty"
    );
    assert_eq!(
        fault_of(&fetch("Task", "task-9", "info").await),
        "ManagedObjectNotFound"
    );
    let content = fetch("ServiceInstance", "ServiceInstance", "content").await;
    assert!(content.body.contains("<about>"), "{content:?}");

    let task = desk.task("PowerOffVM_Task", "").await;
    let filter = format!(
        "<spec><propSet><type>Task</type><all>true</all></propSet><objectSet><obj type=\"Task\">{task}</obj></objectSet></spec><partialUpdates>true</partialUpdates>"
    );
    let made = desk
        .call("CreateFilter", "PropertyCollector", "propertyCollector", &filter)
        .await;
    assert_eq!(made.status, 200, "{made:?}");
    let told = desk
        .call(
            "WaitForUpdates",
            "PropertyCollector",
            "propertyCollector",
            "<version></version>",
        )
        .await;
    assert!(
        told.body
            .contains("<name>info</name><op>assign</op><val xsi:type=\"TaskInfo\">"),
        "{told:?}"
    );
    let vm = "<specSet><propSet><type>VirtualMachine</type><all>true</all></propSet><objectSet><obj type=\"VirtualMachine\">vm-10001</obj></objectSet></specSet><options/>";
    let too_much = desk
        .call(
            "RetrievePropertiesEx",
            "PropertyCollector",
            "propertyCollector",
            vm,
        )
        .await;
    assert_eq!(fault_of(&too_much), "NotSupported");
    desk.end().await;
}
