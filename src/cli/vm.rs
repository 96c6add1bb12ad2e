//! `virt-collector vm`: VMs through the admin API.
//!
//! A thin client: rights, checks and audit are the API's.

mod arguments;
mod client;

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use self::arguments::{
    Act, Api, Command, CreateSnapshot, List, Power, RemoveSnapshot, SnapshotCommand, Which,
};
use self::client::{Ask, Client};
use super::{COMMON, Failure, Output, block_on};
use crate::plain;

/// What one request waits for the end of an operation; more is refused by the API.
const WAIT: u64 = 30;

/// Between two looks at an operation where the API does not wait.
const LOOK: Duration = Duration::from_secs(1);

/// Times that a request is sent whose answer was lost.
const TRIES: u32 = 3;

/// VMs: list and show them, switch them on and off, take snapshots.
///
/// Goes through the admin API of a running service, with a token of `virt-collector token create`. An action is waited
/// for; its end decides the exit code.
#[derive(Debug, Args)]
pub(super) struct Vm {
    #[command(flatten)]
    api: Api,
    #[command(subcommand)]
    command: Command,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Output::Text, help_heading = COMMON, global = true)]
    output: Output,
}

/// What a command cannot be done with.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("there is no VM {0} that this token may see")]
    NoVm(String),
    #[error("there is no platform {0:?} that this token may see")]
    NoPlatform(String),
    #[error(
        "more than one VM has the name {name:?}: {choices}; say which with --platform, or write its key as id:17"
    )]
    Ambiguous { name: String, choices: String },
    #[error("say --confirm {0:?}; there is no terminal to ask on")]
    Unasked(String),
    #[error("{0:?} was left as it is")]
    Kept(String),
    #[error("operation {0} has not ended yet; look at it later: GET /api/virt-center/operations/{0}/")]
    Late(String),
    #[error("the API's answer has no {0}")]
    Lacking(&'static str),
}

impl Vm {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let client = self.api.client()?;
        let desk = Desk {
            client,
            output: self.output,
        };
        block_on(desk.serve(self.command))
    }
}

struct Desk {
    client: Client,
    output: Output,
}

impl Desk {
    async fn serve(&self, command: Command) -> Result<(), Failure> {
        match command {
            Command::List(list) => self.list(list).await,
            Command::Show(which) => self.show(which).await,
            Command::Power(Power { action, vm, act }) => {
                let found = self.find(&vm).await?;
                let action = action.path();
                let path = format!("vms/{}/{action}/", key(&found)?);
                let destroys = matches!(action, "power-off" | "reset");
                self.act(&found, Method::POST, path, json!({}), destroys, &act)
                    .await
            }
            Command::Snapshot { command } => self.snapshot(command).await,
        }
    }

    async fn list(&self, list: List) -> Result<(), Failure> {
        let mut query = Vec::new();
        if let Some(platform) = &list.platform {
            query.push(("platform", self.platform(platform).await?));
        }
        if let Some(text) = list.name {
            query.push(("name_contains", text));
        }
        if let Some(state) = list.power_state {
            query.push(("power_state", state.as_str().to_owned()));
        }
        let vms = self.all("vms/", query).await?;
        if self.output == Output::Json {
            say!("{:#}", Value::Array(vms));
            return Ok(());
        }
        say!(
            "{:>7} {:<16} {:<9} {:<32} {:<24} IP ADDRESS",
            "ID",
            "PLATFORM",
            "POWER",
            "NAME",
            "HOST"
        );
        for vm in &vms {
            say!(
                "{:>7} {:<16} {:<9} {:<32} {:<24} {}",
                key(vm)?,
                text(vm, "platform"),
                text(vm, "power_state"),
                text(vm, "name"),
                text(vm, "host"),
                text(vm, "ip_address"),
            );
        }
        Ok(())
    }

    async fn show(&self, which: Which) -> Result<(), Failure> {
        let vm = self.find(&which).await?;
        let vm = self
            .client
            .ask(&Ask::get(format!("vms/{}/", key(&vm)?), vec![]))
            .await?;
        if self.output == Output::Json {
            say!("{vm:#}");
            return Ok(());
        }
        for (name, value) in vm.as_object().into_iter().flatten() {
            match value {
                Value::Null => {}
                Value::String(text) => say!("{name:<20} {}", plain(text)),
                Value::Object(all) => {
                    for (inner, value) in all.iter().filter(|(_, value)| !value.is_null()) {
                        say!("{name:<20} {} {}", plain(inner), plain(&value.to_string()));
                    }
                }
                Value::Array(all) => {
                    for value in all {
                        say!("{name:<20} {}", plain(&value.to_string()));
                    }
                }
                other => say!("{name:<20} {other}"),
            }
        }
        Ok(())
    }

    async fn snapshot(&self, command: SnapshotCommand) -> Result<(), Failure> {
        match command {
            SnapshotCommand::List(which) => {
                let vm = self.find(&which).await?;
                let path = format!("vms/{}/snapshots/", key(&vm)?);
                let tree = self.client.ask(&Ask::get(path, vec![])).await?;
                if self.output == Output::Json {
                    say!("{tree:#}");
                } else {
                    let items = tree.get("items");
                    if items.and_then(Value::as_array).is_some_and(Vec::is_empty) {
                        tell!("no snapshots are known; a new one is within seconds");
                    }
                    show_tree(items, 0);
                }
                Ok(())
            }
            SnapshotCommand::Create(CreateSnapshot {
                vm,
                name,
                description,
                memory,
                quiesce,
                act,
            }) => {
                let found = self.find(&vm).await?;
                let path = format!("vms/{}/snapshots/", key(&found)?);
                let mut body = json!({ "name": name, "memory": memory, "quiesce": quiesce });
                if let (Some(description), Some(body)) = (description, body.as_object_mut()) {
                    body.insert("description".to_owned(), json!(description));
                }
                self.act(&found, Method::POST, path, body, false, &act).await
            }
            SnapshotCommand::Revert(on) => {
                let found = self.find(&on.vm).await?;
                let path = format!("vms/{}/snapshots/{}/revert/", key(&found)?, segment(&on.snapshot));
                self.act(&found, Method::POST, path, json!({}), true, &on.act)
                    .await
            }
            SnapshotCommand::Remove(RemoveSnapshot { on, children }) => {
                let found = self.find(&on.vm).await?;
                let path = format!(
                    "vms/{}/snapshots/{}/?children={children}",
                    key(&found)?,
                    segment(&on.snapshot)
                );
                self.act(&found, Method::DELETE, path, json!({}), true, &on.act)
                    .await
            }
            SnapshotCommand::RemoveAll(of) => {
                let found = self.find(&of.vm).await?;
                let path = format!("vms/{}/snapshots/", key(&found)?);
                self.act(&found, Method::DELETE, path, json!({}), true, &of.act)
                    .await
            }
        }
    }

    /// Asks for an action, and waits for its end.
    async fn act(
        &self,
        vm: &Value,
        method: Method,
        path: String,
        mut body: Value,
        destroys: bool,
        act: &Act,
    ) -> Result<(), Failure> {
        if destroys {
            let confirmed = match &act.confirm {
                Some(name) => name.clone(),
                None => confirm(vm)?,
            };
            if let Some(body) = body.as_object_mut() {
                body.insert("confirm".to_owned(), json!(confirmed));
            }
        }
        let has_body = body.as_object().is_some_and(|body| !body.is_empty());
        let ask = Ask {
            method,
            path,
            query: vec![],
            body: has_body.then_some(body),
            key: Some(uuid::Uuid::now_v7().to_string()),
            wait: (!act.no_wait).then_some(WAIT.min(act.wait)),
        };
        let until = Instant::now() + Duration::from_secs(act.wait);
        let mut operation = self.accepted(&ask).await?;
        if act.no_wait {
            return self.told(&operation);
        }
        let mut shown = None;
        while !has_ended(&operation) {
            let id = text(&operation, "id");
            if id.is_empty() {
                return Err(Failure::other(Problem::Lacking("operation")));
            }
            if Instant::now() >= until {
                return Err(Failure::other(Problem::Late(id)));
            }
            let progress = operation.get("progress").and_then(Value::as_u64);
            if self.output == Output::Text && std::io::stderr().is_terminal() && progress != shown {
                shown = progress;
                tell!(
                    "{}: {} %",
                    text(&operation, "action"),
                    progress.unwrap_or_default()
                );
            }
            tokio::time::sleep(LOOK).await;
            operation = self
                .client
                .ask(&Ask::get(format!("operations/{id}/"), vec![]))
                .await?;
        }
        self.told(&operation)
    }

    /// A request whose answer was lost is sent again under its key: it is done once.
    async fn accepted(&self, ask: &Ask<'_>) -> Result<Value, Failure> {
        let mut tries = 1;
        loop {
            match self.client.ask(ask).await {
                Err(error) if error.is_doubtful() && tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(LOOK).await;
                }
                other => return Ok(other?),
            }
        }
    }

    /// Prints an operation; one that ended otherwise than well is a failure.
    fn told(&self, operation: &Value) -> Result<(), Failure> {
        let state = text(operation, "state");
        if self.output == Output::Json {
            say!("{operation:#}");
        } else {
            let result = operation.get("result");
            let said = |key: &str| {
                result
                    .map(|result| text(result, key))
                    .filter(|text| !text.is_empty())
            };
            let mut line = format!(
                "{} {}: {state}",
                text(operation, "action"),
                text(operation, "vm_name")
            );
            if result.and_then(|result| result.get("already")) == Some(&Value::Bool(true)) {
                line.push_str("; it was in that state already");
            }
            for (what, key) in [("snapshot ", "snapshot"), ("", "note")] {
                if let Some(text) = said(key) {
                    line.push_str(&format!("; {what}{text}"));
                }
            }
            let (code, detail) = (text(operation, "code"), text(operation, "detail"));
            if !code.is_empty() {
                line.push_str(&format!(" [{code}]: {detail}"));
            }
            say!("{line}; operation {}", text(operation, "id"));
        }
        match state.as_str() {
            "failed" | "unknown" => Err(Failure::Told),
            _ => Ok(()),
        }
    }

    /// All of a list.
    async fn all(&self, path: &str, query: Vec<(&str, String)>) -> Result<Vec<Value>, Failure> {
        let mut found = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut query = query.clone();
            query.push(("limit", "500".to_owned()));
            if let Some(cursor) = cursor.take() {
                query.push(("cursor", cursor));
            }
            let page = self.client.ask(&Ask::get(path, query)).await?;
            let items = page.get("items").and_then(Value::as_array);
            found.extend(
                items
                    .ok_or(Failure::other(Problem::Lacking("items")))?
                    .iter()
                    .cloned(),
            );
            match page.get("next_cursor").and_then(Value::as_str) {
                Some(next) => cursor = Some(next.to_owned()),
                None => return Ok(found),
            }
        }
    }

    /// The key of a platform.
    async fn platform(&self, name: &str) -> Result<String, Failure> {
        let found = self.all("platforms/", vec![("name", name.to_owned())]).await?;
        match found.first() {
            Some(platform) => key(platform).map(|key| key.to_string()),
            None => Err(Failure::other(Problem::NoPlatform(name.to_owned()))),
        }
    }

    async fn find(&self, which: &Which) -> Result<Value, Failure> {
        let none = || Failure::other(Problem::NoVm(format!("{:?}", which.vm)));
        if let Some(id) = which.vm.strip_prefix("id:") {
            let id: i32 = id.parse().map_err(|_not_a_key| none())?;
            return Ok(self.client.ask(&Ask::get(format!("vms/{id}/"), vec![])).await?);
        }
        let mut query = vec![("name", which.vm.clone())];
        if let Some(platform) = &which.platform {
            query.push(("platform", self.platform(platform).await?));
        }
        let found = self.all("vms/", query).await?;
        match &found[..] {
            [] => Err(none()),
            [vm] => Ok(vm.clone()),
            several => {
                let choices = several
                    .iter()
                    .map(|vm| Ok(format!("id:{} on {}", key(vm)?, text(vm, "platform"))))
                    .collect::<Result<Vec<_>, Failure>>()?;
                Err(Failure::other(Problem::Ambiguous {
                    name: which.vm.clone(),
                    choices: choices.join(", "),
                }))
            }
        }
    }
}

fn has_ended(operation: &Value) -> bool {
    matches!(
        text(operation, "state").as_str(),
        "succeeded" | "failed" | "unknown"
    )
}

fn key(object: &Value) -> Result<i64, Failure> {
    let id = object.get("id").and_then(Value::as_i64);
    id.ok_or(Failure::other(Problem::Lacking("id")))
}

/// A text of an object; empty where there is none.
fn text(object: &Value, key: &str) -> String {
    plain(object.get(key).and_then(Value::as_str).unwrap_or_default())
}

/// Names come from platforms.
fn plain(text: &str) -> String {
    plain::line(text).into_owned()
}

/// One name of a path.
fn segment(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    let coded = name.bytes().map(|byte| {
        if is_plain(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    });
    coded.collect()
}

fn show_tree(nodes: Option<&Value>, depth: usize) {
    for node in nodes.and_then(Value::as_array).into_iter().flatten() {
        let current = if node.get("current") == Some(&Value::Bool(true)) {
            " (current)"
        } else {
            ""
        };
        say!(
            "{:indent$}{}  {}  {}{current}",
            "",
            text(node, "moref"),
            text(node, "created_at"),
            text(node, "name"),
            indent = depth * 2
        );
        show_tree(node.get("children"), depth + 1);
    }
}

/// Has a person type the VM's name.
fn confirm(vm: &Value) -> Result<String, Failure> {
    let name = text(vm, "name");
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(Failure::usage(Problem::Unasked(name)));
    }
    print!(
        "This is about {name} on {}. Type its name to go on: ",
        text(vm, "platform")
    );
    std::io::stdout().flush().map_err(Failure::other)?;
    let mut typed = String::new();
    input.lock().read_line(&mut typed).map_err(Failure::other)?;
    let typed = typed.trim_end_matches(['\r', '\n']).to_owned();
    if typed.is_empty() {
        return Err(Failure::other(Problem::Kept(name)));
    }
    Ok(typed)
}
