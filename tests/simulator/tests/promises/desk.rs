//! Someone who operates VMs, and reads what becomes of it.

use std::time::Duration;

use vsphere_simulator::{Simulator, Spec};

use crate::support::{Client, Reply, all, one};
use crate::{frozen, start};

/// A running VM with tools, and one that is off.
pub const VM: &str = "vm-10001";

pub struct Desk {
    pub simulator: Simulator,
    pub client: Client,
}

impl Desk {
    /// All VMs run, the clock stands still.
    pub async fn new() -> Self {
        Self::at(frozen()).await
    }

    pub async fn at(spec: Spec) -> Self {
        let simulator = start(Spec {
            powered_off: Some(0),
            ..spec
        })
        .await;
        let client = Client::login(&simulator).await;
        Self { simulator, client }
    }

    pub fn advance(&self, seconds: u64) {
        self.simulator.clock().advance(Duration::from_secs(seconds));
    }

    pub async fn call(&self, method: &str, kind: &str, moref: &str, arguments: &str) -> Reply {
        self.client
            .call(&format!(
                r#"<{method} xmlns="urn:vim25"><_this type="{kind}">{moref}</_this>{arguments}</{method}>"#
            ))
            .await
    }

    /// Calls a method of the VM.
    pub async fn vm(&self, method: &str, arguments: &str) -> Reply {
        self.call(method, "VirtualMachine", VM, arguments).await
    }

    /// Calls a method of the VM that makes a task; answers the task.
    pub async fn task(&self, method: &str, arguments: &str) -> String {
        task_of(&self.vm(method, arguments).await)
    }

    /// The type of the fault that a method of the VM is refused with.
    pub async fn refused(&self, method: &str) -> String {
        let arguments = match method {
            "CreateSnapshot_Task" => SNAPSHOT,
            _ => "",
        };
        fault_of(&self.vm(method, arguments).await)
    }

    pub async fn snapshot(&self, name: &str) -> String {
        let arguments = format!(
            "<name>{name}</name><description>of {name}</description><memory>false</memory><quiesce>false</quiesce>"
        );
        let task = self.task("CreateSnapshot_Task", &arguments).await;
        let result = self.property("Task", &task, "info.result").await.expect("result");
        let (_, moref) = result.split_once('>').expect("moref");
        moref.trim_end_matches("</val>").to_owned()
    }

    pub async fn read(&self, kind: &str, moref: &str, paths: &[&str]) -> Reply {
        let paths: String = paths
            .iter()
            .map(|path| format!("<pathSet>{path}</pathSet>"))
            .collect();
        let collector = if self.client.esxi {
            "ha-property-collector"
        } else {
            "propertyCollector"
        };
        self.call(
            "RetrievePropertiesEx",
            "PropertyCollector",
            collector,
            &format!(
                r#"<specSet><propSet><type>{kind}</type>{paths}</propSet><objectSet><obj type="{kind}">{moref}</obj></objectSet></specSet><options/>"#
            ),
        )
        .await
    }

    /// A property with its `val` tag.
    pub async fn property(&self, kind: &str, moref: &str, path: &str) -> Option<String> {
        let reply = self.read(kind, moref, &[path]).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        let (_, rest) = reply.body.split_once(&format!("<name>{path}</name>"))?;
        let (value, _) = rest.split_once("</propSet>")?;
        Some(value.to_owned())
    }

    /// A simple property's text.
    pub async fn text(&self, kind: &str, moref: &str, path: &str) -> Option<String> {
        let value = self.property(kind, moref, path).await?;
        let (_, text) = value.split_once('>')?;
        Some(text.trim_end_matches("</val>").to_owned())
    }

    pub async fn power(&self) -> String {
        let state = self.text("VirtualMachine", VM, "runtime.powerState").await;
        state.expect("always set")
    }

    pub async fn tools(&self) -> String {
        let status = self.text("VirtualMachine", VM, "guest.toolsRunningStatus").await;
        status.expect("always set")
    }

    /// State, progress and fault type of a task.
    pub async fn progress(&self, task: &str) -> (String, Option<String>, Option<String>) {
        let state = self.text("Task", task, "info.state").await.expect("state");
        let error = self.property("Task", task, "info.error").await;
        let fault = error.map(|error| {
            let (_, rest) = error.split_once("<fault xsi:type=\"").expect("fault");
            rest.split('"').next().expect("type").to_owned()
        });
        (state, self.text("Task", task, "info.progress").await, fault)
    }

    pub async fn end(self) {
        self.simulator.shutdown().await;
    }
}

pub const SNAPSHOT: &str = "<name>a</name><memory>false</memory><quiesce>false</quiesce>";

pub fn task_of(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.body);
    one(&reply.body, "returnval type=\"Task\"", "returnval")
}

pub fn fault_of(reply: &Reply) -> String {
    assert_eq!(reply.status, 500, "{}", reply.body);
    let (_, detail) = reply.body.split_once("<detail>").expect("detail");
    let (_, rest) = detail.split_once("xsi:type=\"").expect("type");
    rest.split('"').next().expect("type").to_owned()
}

/// References in an array property.
pub fn references(value: &str) -> Vec<String> {
    let kind =
        |kind: &str| format!("ManagedObjectReference type=\"{kind}\" xsi:type=\"ManagedObjectReference\"");
    let mut found = all(value, &kind("Task"), "ManagedObjectReference");
    found.extend(all(
        value,
        &kind("VirtualMachineSnapshot"),
        "ManagedObjectReference",
    ));
    found
}
