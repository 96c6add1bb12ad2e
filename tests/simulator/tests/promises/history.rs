//! The task history.

use vsphere_simulator::rules::Action;
use vsphere_simulator::{Rule, Spec, TlsMode};

use crate::desk::{Desk, VM, fault_of, task_of};
use crate::support::{all, one, time};
use crate::{START, frozen};

impl Desk {
    /// Makes a collector with this filter.
    async fn history(&self, filter: &str) -> String {
        let filter = format!("<filter>{filter}</filter>");
        let made = self
            .call("CreateCollectorForTasks", "TaskManager", "TaskManager", &filter)
            .await;
        assert_eq!(made.status, 200, "{made:?}");
        one(&made.body, "returnval type=\"TaskHistoryCollector\"", "returnval")
    }

    /// Keys of the next tasks.
    async fn next(&self, collector: &str, most: u32) -> Vec<String> {
        let arguments = format!("<maxCount>{most}</maxCount>");
        let page = self
            .call("ReadNextTasks", "TaskHistoryCollector", collector, &arguments)
            .await;
        assert_eq!(page.status, 200, "{page:?}");
        all(&page.body, "key", "key")
    }

    async fn found(&self, filter: &str) -> Vec<String> {
        let collector = self.history(filter).await;
        self.next(&collector, 1000).await
    }
}

fn of(entity: &str, recursion: &str) -> String {
    format!("<entity>{entity}<recursion>{recursion}</recursion></entity>")
}

#[tokio::test]
async fn the_history_has_what_is_gone_by_entity_time_and_state() {
    let desk = Desk::new().await;
    let other = desk
        .call("PowerOffVM_Task", "VirtualMachine", "vm-10002", "")
        .await;
    let mut tasks = vec![task_of(&other)];
    for method in [
        "PowerOffVM_Task",
        "PowerOnVM_Task",
        "PowerOnVM_Task",
        "ResetVM_Task",
    ] {
        desk.advance(60);
        tasks.push(desk.task(method, "").await);
    }
    desk.advance(900);
    assert_eq!(
        fault_of(&desk.read("Task", &tasks[1], &["info"]).await),
        "ManagedObjectNotFound"
    );
    desk.simulator.rules().add(Rule::on(
        "PowerOffVM_Task",
        Action::TaskTime {
            queued: 0,
            millis: 60_000,
            steps: 0,
        },
    ));
    tasks.push(desk.task("PowerOffVM_Task", "").await);

    assert_eq!(desk.found("").await, tasks);
    let vm = r#"<entity type="VirtualMachine">vm-10001</entity>"#;
    assert_eq!(desk.found(&of(vm, "self")).await, tasks[1..]);
    assert!(desk.found(&of(vm, "children")).await.is_empty());
    let root = r#"<entity type="Folder">group-d1</entity>"#;
    assert_eq!(desk.found(&of(root, "all")).await, tasks);
    assert!(desk.found(&of(root, "self")).await.is_empty());

    let range = |kind: &str, from: i64, to: i64| {
        let (begin, end) = (time(START + from), time(START + to));
        format!(
            "<time><timeType>{kind}</timeType><beginTime>{begin}</beginTime><endTime>{end}</endTime></time>"
        )
    };
    assert_eq!(desk.found(&range("queuedTime", 60, 120)).await, tasks[1..3]);
    let from = time(START + 180);
    let open = format!("<time><timeType>queuedTime</timeType><beginTime>{from}</beginTime></time>");
    assert_eq!(desk.found(&open).await, tasks[3..]);
    assert_eq!(desk.found(&format!("{}{open}", of(vm, "self"))).await, tasks[3..]);
    // What has not ended has no such time.
    assert_eq!(desk.found(&range("completedTime", 200, 9000)).await, tasks[4..5]);
    assert_eq!(desk.found("<state>error</state>").await, tasks[3..4]);
    assert_eq!(
        desk.found("<state>queued</state><state>running</state>").await,
        tasks[5..]
    );

    let unknown = r#"<filter><entity><entity type="VirtualMachine">vm-9</entity><recursion>self</recursion></entity></filter>"#;
    let reply = desk
        .call("CreateCollectorForTasks", "TaskManager", "TaskManager", unknown)
        .await;
    assert_eq!(fault_of(&reply), "ManagedObjectNotFound");
    desk.end().await;
}

#[tokio::test]
async fn a_history_is_read_page_by_page_to_its_end_and_on_when_more_comes() {
    let desk = Desk::new().await;
    let mut tasks = Vec::new();
    for method in ["PowerOffVM_Task", "PowerOnVM_Task", "ResetVM_Task"] {
        tasks.push(desk.task(method, "").await);
    }
    let collector = desk.history("").await;
    assert_eq!(desk.next(&collector, 2).await, tasks[..2]);
    assert_eq!(desk.next(&collector, 2).await, tasks[2..]);
    assert!(desk.next(&collector, 2).await.is_empty());
    tasks.push(desk.task("SuspendVM_Task", "").await);
    assert_eq!(desk.next(&collector, 2).await, tasks[3..]);
    desk.call("RewindCollector", "TaskHistoryCollector", &collector, "")
        .await;
    let page = desk
        .call(
            "ReadNextTasks",
            "TaskHistoryCollector",
            &collector,
            "<maxCount>1</maxCount>",
        )
        .await;
    let info = one(&page.body, "returnval", "returnval");
    assert!(
        info.starts_with(&format!("<key>{}</key><task type=\"Task\">", tasks[0])),
        "{info}"
    );
    assert!(
        info.contains("<state>success</state>") && info.contains(VM),
        "{info}"
    );
    for most in ["0", "1001", "-1"] {
        let arguments = format!("<maxCount>{most}</maxCount>");
        let reply = desk
            .call("ReadNextTasks", "TaskHistoryCollector", &collector, &arguments)
            .await;
        assert_eq!(fault_of(&reply), "InvalidArgument", "{most}");
    }
    let destroy = async || {
        desk.call("DestroyCollector", "TaskHistoryCollector", &collector, "")
            .await
    };
    assert_eq!(destroy().await.status, 200);
    assert_eq!(fault_of(&destroy().await), "ManagedObjectNotFound");

    // A session has 32 of them; they end with it.
    for _ in 0..32 {
        desk.history("").await;
    }
    let one_more = desk
        .call(
            "CreateCollectorForTasks",
            "TaskManager",
            "TaskManager",
            "<filter/>",
        )
        .await;
    assert_eq!(fault_of(&one_more), "InvalidState");
    desk.end().await;
}

#[tokio::test]
async fn what_is_forgotten_is_in_no_history_and_an_esxi_host_has_none() {
    let desk = Desk::new().await;
    desk.simulator.rules().add(Rule::on(
        "PowerOffVM_Task",
        Action::TaskGone {
            millis: 0,
            forgotten: true,
        },
    ));
    desk.task("PowerOffVM_Task", "").await;
    assert!(desk.found("").await.is_empty());
    assert_eq!(desk.power().await, "poweredOff");
    desk.end().await;

    let esxi = Desk::at(Spec {
        tls: TlsMode::Plain,
        clock: frozen().clock,
        ..Spec::esxi(2)
    })
    .await;
    let reply = esxi
        .call(
            "CreateCollectorForTasks",
            "TaskManager",
            "ha-taskmgr",
            "<filter/>",
        )
        .await;
    assert_eq!(fault_of(&reply), "NotSupported");
    esxi.end().await;
}
