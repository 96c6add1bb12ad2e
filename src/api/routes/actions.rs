//! Power and snapshot actions on VMs: checked, written down with their intent, and answered with an operation. The
//! collector that has the platform does them.

use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, delete, get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::context::{Caller, Context, Place};
use crate::api::extract::{IdempotencyKey, Json, Nothing, Path, Prefer, Query};
use crate::api::problem::Problem;
use crate::api::routes::operations::{applied, body, wait};
use crate::model::ids::VmId;
use crate::model::operation::{Action, NewSnapshot};
use crate::store::operation::{Refused, RequestKey, Submission, Submitted};
use crate::store::reading;

/// When to look at an operation again.
const LOOK: Duration = Duration::from_secs(2);

/// When to try again where a platform has as much to do as it may have.
const FULL: Duration = Duration::from_secs(10);

/// Longest name of a snapshot, as vSphere has it.
pub(in crate::api) const LONGEST_NAME: usize = 80;

/// Longest description of a snapshot; the id of the operation goes behind it.
pub(in crate::api) const LONGEST_DESCRIPTION: usize = 1024;

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/api/virt-center/vms/{id}/power-on/", power(|| Action::PowerOn))
        .route("/api/virt-center/vms/{id}/power-off/", power(|| Action::PowerOff))
        .route("/api/virt-center/vms/{id}/reset/", power(|| Action::Reset))
        .route("/api/virt-center/vms/{id}/suspend/", power(|| Action::Suspend))
        .route(
            "/api/virt-center/vms/{id}/shutdown-guest/",
            power(|| Action::ShutdownGuest),
        )
        .route(
            "/api/virt-center/vms/{id}/reboot-guest/",
            power(|| Action::RebootGuest),
        )
        .route(
            "/api/virt-center/vms/{id}/snapshots/",
            get(tree).post(create).delete(remove_all),
        )
        .route(
            "/api/virt-center/vms/{id}/snapshots/{moref}/revert/",
            post(revert),
        )
        .route("/api/virt-center/vms/{id}/snapshots/{moref}/", delete(remove))
}

/// Who asks for an action, and how.
struct Asked {
    caller: Caller,
    key: IdempotencyKey,
    prefer: Prefer,
    place: Place,
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let place = parts.extensions.get::<Place>().cloned();
        Ok(Self {
            caller: Caller::from_request_parts(parts, state).await?,
            key: IdempotencyKey::from_request_parts(parts, state).await?,
            prefer: Prefer::from_request_parts(parts, state).await?,
            place: place.ok_or_else(|| Problem::internal("a request without a place"))?,
        })
    }
}

/// Body of an action that needs no more than to be confirmed, where it needs that.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmed {
    confirm: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    memory: bool,
    #[serde(default)]
    quiesce: bool,
}

/// A DELETE cannot have a body with every client.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveAll {
    confirm: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remove {
    #[serde(default)]
    children: bool,
    confirm: Option<String>,
}

fn power(action: fn() -> Action) -> MethodRouter<Context> {
    post(
        async move |State(context): State<Context>,
                    asked: Asked,
                    Path(vm): Path<i32>,
                    Query(Nothing {}): Query<Nothing>,
                    body: Json<Confirmed>| {
            let Json {
                value: Confirmed { confirm },
                digest,
            } = body;
            submit(&context, asked, vm, action(), confirm, digest).await
        },
    )
}

async fn create(
    State(context): State<Context>,
    asked: Asked,
    Path(vm): Path<i32>,
    Query(Nothing {}): Query<Nothing>,
    Json { value, digest }: Json<Create>,
) -> Result<Response, Problem> {
    let Create {
        name,
        description,
        memory,
        quiesce,
    } = value;
    plain("name", &name, 1, LONGEST_NAME, false)?;
    plain("description", &description, 0, LONGEST_DESCRIPTION, true)?;
    let action = Action::CreateSnapshot(NewSnapshot {
        name,
        description,
        memory,
        quiesce,
    });
    submit(&context, asked, vm, action, None, digest).await
}

async fn revert(
    State(context): State<Context>,
    asked: Asked,
    Path((vm, snapshot)): Path<(i32, String)>,
    Query(Nothing {}): Query<Nothing>,
    Json { value, digest }: Json<Confirmed>,
) -> Result<Response, Problem> {
    let snapshot = moref(snapshot)?;
    let action = Action::RevertSnapshot { snapshot };
    submit(&context, asked, vm, action, value.confirm, digest).await
}

async fn remove(
    State(context): State<Context>,
    asked: Asked,
    Path((vm, snapshot)): Path<(i32, String)>,
    Query(Remove { children, confirm }): Query<Remove>,
    Json { value, digest }: Json<Confirmed>,
) -> Result<Response, Problem> {
    let snapshot = moref(snapshot)?;
    let confirmed = one("confirm", confirm, value.confirm)?;
    let action = Action::RemoveSnapshot { snapshot, children };
    submit(&context, asked, vm, action, confirmed, digest).await
}

async fn remove_all(
    State(context): State<Context>,
    asked: Asked,
    Path(vm): Path<i32>,
    Query(RemoveAll { confirm }): Query<RemoveAll>,
    Json { value, digest }: Json<Confirmed>,
) -> Result<Response, Problem> {
    let confirmed = one("confirm", confirm, value.confirm)?;
    submit(&context, asked, vm, Action::RemoveAllSnapshots, confirmed, digest).await
}

async fn tree(
    State(context): State<Context>,
    caller: Caller,
    Path(vm): Path<i32>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<axum::Json<Value>, Problem> {
    visible(&context, &caller, vm).await?;
    let roots = context.reader().snapshots(vm).await?;
    Ok(axum::Json(json!({ "items": roots })))
}

/// A VM that the caller may see.
async fn visible(context: &Context, caller: &Caller, vm: i32) -> Result<(), Problem> {
    let what = format!("VM {vm}");
    // Of any platform: who asks for another's is to be seen in the audit log.
    match context.reader().find::<reading::Vm>(&None, vm).await? {
        Some(found) => caller.may_see(context, &found.platform, what).await,
        None => Err(Problem::not_found(what)),
    }
}

async fn submit(
    context: &Context,
    asked: Asked,
    vm: i32,
    action: Action,
    confirmed: Option<String>,
    digest: [u8; 32],
) -> Result<Response, Problem> {
    let Asked {
        caller,
        key,
        prefer,
        place,
    } = asked;
    visible(context, &caller, vm).await?;
    if action.is_destructive() && confirmed.is_none() {
        return Err(Problem::unprocessable(
            "not_confirmed",
            "This cannot be undone. Repeat the exact name of the VM to confirm it, as {\"confirm\": \"NAME\"}.",
        ));
    }
    let client = caller.client.to_string();
    let submission = Submission {
        vm: VmId(vm),
        action: &action,
        confirmed: confirmed.as_deref(),
        actor: &caller.name,
        client: Some(&client),
        request_id: caller.request_id.as_str(),
        key: key.0.as_deref().map(|key| RequestKey {
            token: caller.token,
            key,
            digest: &digest,
        }),
        most_open: context.configured().open_operations,
    };
    let operation = match context.submit(&submission).await? {
        Submitted::New(operation) | Submitted::Before(operation) => *operation,
        Submitted::Refused(refused) => return Err(refusal(vm, refused)),
    };
    let (operation, waited) = wait(context, operation, prefer, &place).await?;
    let mut response = (StatusCode::ACCEPTED, axum::Json(body(&operation))).into_response();
    let headers = response.headers_mut();
    let location = format!("/api/virt-center/operations/{}/", operation.id);
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    if !operation.state.is_end() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(LOOK.as_secs()));
    }
    if waited {
        applied(&mut response, prefer);
    }
    Ok(response)
}

fn refusal(vm: i32, refused: Refused) -> Problem {
    match refused {
        Refused::NoVm => Problem::not_found(format!("VM {vm}")),
        Refused::NotConfirmed => Problem::unprocessable(
            "not_confirmed",
            "The VM has another name than the one in `confirm`. Nothing was done.",
        ),
        Refused::PlatformPaused => Problem::conflict(
            "platform_paused",
            "The platform of the VM is inactive or in maintenance: nobody would do this.",
        ),
        Refused::KeyReused => Problem::unprocessable(
            "idempotency_key_reused",
            "This Idempotency-Key was used for another request. Take a new one for each action.",
        ),
        Refused::VmBusy { operation } => Problem::conflict(
            "vm_busy",
            format!("Operation {operation} on this VM has not ended; one at a time."),
        ),
        Refused::PlatformFull { open } => Problem::too_many(
            "platform_busy",
            format!("{open} operations on this platform have not ended; no more are taken meanwhile."),
            FULL,
        ),
    }
}

/// What stands in a query or in a body, or in both alike.
fn one(name: &str, query: Option<String>, body: Option<String>) -> Result<Option<String>, Problem> {
    match (query, body) {
        (Some(query), Some(body)) if query != body => Err(Problem::unprocessable(
            "contradiction",
            format!("{name} is one thing in the query and another in the body."),
        )),
        (query, body) => Ok(body.or(query)),
    }
}

fn moref(text: String) -> Result<Box<str>, Problem> {
    let is_moref = (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if is_moref {
        Ok(text.into())
    } else {
        Err(Problem::bad_request(
            "bad_path",
            "A snapshot is named by its moref, such as snapshot-17; the snapshots of the VM list it.",
        ))
    }
}

/// A text that a person can read, within bounds.
fn plain(name: &str, text: &str, least: usize, most: usize, lines: bool) -> Result<(), Problem> {
    let is_plain = |c: char| !c.is_control() || (lines && c == '\n');
    let n = text.chars().count();
    // What is no character for XML is none for the platform.
    let is_xml = |c: char| !matches!(c, '\u{fffe}' | '\u{ffff}');
    if (least..=most).contains(&n) && text.chars().all(|c| is_plain(c) && is_xml(c)) {
        return Ok(());
    }
    Err(Problem::unprocessable(
        "bad_value",
        format!("{name} must have {least} to {most} characters, and no control characters."),
    ))
}
