//! Snapshot operations.

use vsphere_simulator::rules::Action;
use vsphere_simulator::{Rule, Simulator};

use crate::START;
use crate::desk::{Desk, VM, fault_of, references, task_of};
use crate::support::one;

impl Desk {
    async fn tree(&self) -> Option<String> {
        self.property("VirtualMachine", VM, "snapshot").await
    }

    async fn of_snapshot(&self, method: &str, moref: &str, arguments: &str) -> String {
        task_of(
            &self
                .call(method, "VirtualMachineSnapshot", moref, arguments)
                .await,
        )
    }
}

const CURRENT: &str = "currentSnapshot type=\"VirtualMachineSnapshot\"";

fn current(tree: &str) -> String {
    one(tree, CURRENT, "currentSnapshot")
}

#[tokio::test]
async fn snapshots_are_made_found_and_removed_one_by_one_or_with_those_below() {
    let desk = Desk::new().await;
    assert_eq!(desk.tree().await, None);
    let first = desk.snapshot("first").await;
    let second = desk.snapshot("second").await;
    let third = desk.snapshot("third").await;
    let tree = desk.tree().await.expect("tree");
    assert_eq!(current(&tree), third);
    let (_, below) = tree.split_once("<rootSnapshotList>").expect("root");
    assert_eq!(one(below, "name", "name"), "first");
    assert_eq!(one(below, "description", "description"), "of first");
    assert_eq!(
        one(below, "createTime", "createTime"),
        format!("{}.000000Z", crate::support::time(START).trim_end_matches('Z'))
    );
    assert_eq!(tree.matches("<childSnapshotList>").count(), 2);
    let children = desk
        .property("VirtualMachineSnapshot", &first, "childSnapshot")
        .await;
    assert_eq!(
        references(&children.expect("children")),
        std::slice::from_ref(&second)
    );

    // The middle one alone: what was below moves up.
    desk.of_snapshot(
        "RemoveSnapshot_Task",
        &second,
        "<removeChildren>false</removeChildren>",
    )
    .await;
    let children = desk
        .property("VirtualMachineSnapshot", &first, "childSnapshot")
        .await;
    assert_eq!(
        references(&children.expect("children")),
        std::slice::from_ref(&third)
    );
    let gone = desk
        .call(
            "RemoveSnapshot_Task",
            "VirtualMachineSnapshot",
            &second,
            "<removeChildren>false</removeChildren>",
        )
        .await;
    assert_eq!(fault_of(&gone), "ManagedObjectNotFound");

    // With those below: the one above is the current one again.
    let fourth = desk.snapshot("fourth").await;
    desk.of_snapshot(
        "RemoveSnapshot_Task",
        &third,
        "<removeChildren>true</removeChildren><consolidate>true</consolidate>",
    )
    .await;
    assert_eq!(current(&desk.tree().await.expect("tree")), first);
    // A number is never given twice: what is found under it later is what was found before.
    let fifth = desk.snapshot("fifth").await;
    assert!(![&second, &third, &fourth].contains(&&fifth), "{fifth}");

    desk.task("RemoveAllSnapshots_Task", "").await;
    assert_eq!(desk.tree().await, None);
    desk.end().await;
}

#[tokio::test]
async fn a_snapshot_with_memory_goes_back_to_a_running_vm_and_one_without_to_a_stopped_one() {
    let desk = Desk::new().await;
    let off = desk.snapshot("without").await;
    let with = "<name>with</name><memory>true</memory><quiesce>true</quiesce>";
    desk.task("CreateSnapshot_Task", with).await;
    let tree = desk.tree().await.expect("tree");
    let on = current(&tree);
    assert_eq!(tree.matches("<state>poweredOff</state>").count(), 1);
    assert_eq!(tree.matches("<state>poweredOn</state>").count(), 1);
    assert_eq!(tree.matches("<quiesced>true</quiesced>").count(), 1);

    desk.of_snapshot("RevertToSnapshot_Task", &off, "").await;
    assert_eq!(desk.power().await, "poweredOff");
    assert_eq!(current(&desk.tree().await.expect("tree")), off);
    desk.of_snapshot(
        "RevertToSnapshot_Task",
        &on,
        "<suppressPowerOn>true</suppressPowerOn>",
    )
    .await;
    assert_eq!(desk.power().await, "poweredOff");
    desk.advance(100);
    desk.task("RevertToCurrentSnapshot_Task", "").await;
    assert_eq!(desk.power().await, "poweredOn");
    desk.advance(60);
    // The memory of a running VM is replaced too: that interval is not a whole one.
    desk.of_snapshot("RevertToSnapshot_Task", &on, "").await;
    desk.advance(60);
    let truth = desk.simulator.truth();
    let samples = truth.entity(VM).expect("vm").samples(START - 10, i64::MAX);
    let stamps: Vec<i64> = samples.map(|sample| sample.stamp - START).collect();
    assert_eq!(stamps, [-5, 135, 155, 195, 215]);

    desk.task("RemoveAllSnapshots_Task", "").await;
    let task = desk.task("RevertToCurrentSnapshot_Task", "").await;
    assert_eq!(desk.progress(&task).await.2.as_deref(), Some("NotFound"));
    desk.end().await;
}

/// That is how a snapshot is found again whose task is lost.
#[tokio::test]
async fn a_description_comes_back_as_it_was_given() {
    let desk = Desk::new().await;
    let simulator: &Simulator = &desk.simulator;
    simulator.rules().add(Rule::on(
        "CreateSnapshot_Task",
        Action::TaskGone {
            millis: 0,
            forgotten: true,
        },
    ));
    let text = "<name>a &amp; b</name><description>before &lt;patch&gt; [operation 7f]</description><memory>false</memory><quiesce>false</quiesce>";
    let task = desk.task("CreateSnapshot_Task", text).await;
    assert_eq!(
        fault_of(&desk.read("Task", &task, &["info"]).await),
        "ManagedObjectNotFound"
    );
    let tree = desk.tree().await.expect("tree");
    assert_eq!(
        one(&tree, "description", "description"),
        "before &lt;patch&gt; [operation 7f]"
    );
    assert_eq!(one(&tree, "name", "name"), "a &amp; b");
    let unnamed = desk
        .vm(
            "CreateSnapshot_Task",
            "<name></name><memory>false</memory><quiesce>false</quiesce>",
        )
        .await;
    assert_eq!(fault_of(&unnamed), "InvalidName");
    desk.end().await;
}
