//! Actions on VMs, from the request to their end.
//!
//! Owns: `virt_operation`, the queue of them; `virt_api_idempotency`, which request asked for which; saying on
//! [`CHANNEL`] that there is something to do and on [`ENDED`] that something ended. Never does: deciding who may ask,
//! or what a platform's answer means.
//!
//! Invariants:
//! - Nothing enters the queue without its intent in the audit log, nothing leaves it without its outcome: each pair is
//!   one transaction.
//! - Whoever asks, a VM has one open operation at most, a platform a bounded number.
//! - All steps after the queue are the lease holder's, behind the fence.
//! - `sent_at` is written once: who finds it written by somebody else must not send ([`Database::mark_sent`]).

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::model::ids::{MoRef, PlatformId, VmId};
use crate::model::operation::{Action, End, Operation, Outcome, Seen, State};
use crate::store::audit;
use crate::store::connect::{Checkout, Database, Listener, Parameter};
use crate::store::error::Error;
use crate::store::lease::Lease;
use crate::units::Stamp;

/// Notified with each operation that enters the queue; the payload is the platform's key.
pub const CHANNEL: &str = "virt_operation";

/// Notified with each operation that ends; the payload is its id.
pub const ENDED: &str = "virt_operation_ended";

/// How long an `Idempotency-Key` is remembered.
const REMEMBERED: &str = "24 hours";

const SELECT: &str = "\
SELECT operation.operation_id::text, operation.platform_id, platform.name, operation.vm_id, vm.moref,
       operation.vm_name, operation.vm_instance_uuid, operation.action, operation.arguments::text, operation.state,
       operation.requested_by, operation.request_id, operation.created_at, operation.started_at, operation.ended_at,
       operation.sent_at, operation.sent_at_source, operation.seen_before::text, operation.task, operation.progress,
       operation.result::text, operation.code, operation.detail, operation.accepted_at
FROM virt_operation AS operation
JOIN virt_platform AS platform ON platform.platform_id = operation.platform_id
JOIN virt_vm AS vm ON vm.vm_id = operation.vm_id";

const VM: &str = "\
SELECT vm.platform_id, platform.name, vm.moref, vm.name, vm.instance_uuid, vm.removed_at IS NULL,
       platform.removed_at IS NULL AND platform.is_active AND NOT platform.in_maintenance
FROM virt_vm AS vm JOIN virt_platform AS platform ON platform.platform_id = vm.platform_id
WHERE vm.vm_id = $1";

/// Held by one who adds to a platform's queue, so that what is counted stays true until it is added. The first
/// number keeps it apart from other locks.
const LOCK_QUEUE: &str = "SELECT pg_advisory_xact_lock(1986621554, $1)";

const KNOWN_REQUEST: &str = "\
SELECT operation_id::text, digest = $3 FROM virt_api_idempotency
WHERE token_id = $1 AND idempotency_key = $2 AND created_at > clock_timestamp() - $4::text::interval";

const FORGET_REQUESTS: &str = "\
DELETE FROM virt_api_idempotency
WHERE token_id = $1 AND created_at <= clock_timestamp() - $2::text::interval";

const REMEMBER_REQUEST: &str = "\
INSERT INTO virt_api_idempotency (token_id, idempotency_key, digest, operation_id) VALUES ($1, $2, $3, $4::uuid)
ON CONFLICT DO NOTHING";

const OPEN_OF_VM: &str = "\
SELECT operation_id::text FROM virt_operation WHERE vm_id = $1 AND state IN ('queued', 'running')";

const COUNT_OPEN: &str = "\
SELECT count(*) FROM virt_operation WHERE platform_id = $1 AND state IN ('queued', 'running')";

const INSERT: &str = "\
INSERT INTO virt_operation (operation_id, platform_id, vm_id, vm_name, vm_instance_uuid, action, arguments,
                            requested_by, request_id)
VALUES ($1::uuid, $2, $3, $4, $5, $6, $7::jsonb, $8, $9)";

const NOTIFY: &str = "SELECT pg_notify($1, $2)::text";

const LIST: &str = "\
WHERE ($1::integer[] IS NULL OR operation.platform_id = ANY ($1))
  AND ($2::integer IS NULL OR operation.vm_id = $2)
  AND ($3::text IS NULL OR operation.state = $3)
  AND ($7::text[] IS NULL OR platform.name = ANY ($7))
  AND ($4::timestamptz IS NULL OR (operation.created_at, operation.operation_id) < ($4, $5::text::uuid))
ORDER BY operation.created_at DESC, operation.operation_id DESC
LIMIT $6";

const OPEN: &str = "\
WHERE operation.platform_id = $1 AND operation.state IN ('queued', 'running')
ORDER BY operation.created_at, operation.operation_id";

/// What was queued for too long is not taken up: who asked has long looked elsewhere, and the VM may be in use.
const CLAIM: &str = "\
UPDATE virt_operation SET state = 'running', started_at = clock_timestamp()
WHERE operation_id = $1::uuid AND state = 'queued'
  AND created_at > clock_timestamp() - make_interval(secs => $2)";

/// Again only for the same attempt, whose COMMIT had no reply.
const SENT: &str = "\
UPDATE virt_operation SET sent_at = coalesce(sent_at, clock_timestamp()), sent_at_source = $2, seen_before = $3::jsonb
WHERE operation_id = $1::uuid AND state = 'running' AND (sent_at IS NULL OR sent_at_source = $2)";

const ACCEPTED: &str = "\
UPDATE virt_operation SET accepted_at = coalesce(accepted_at, clock_timestamp()), task = coalesce($2, task)
WHERE operation_id = $1::uuid AND state = 'running'";

const PROGRESS: &str = "\
UPDATE virt_operation SET progress = coalesce($2, progress), detail = $3 WHERE operation_id = $1::uuid AND state = 'running'";

/// One that ends out of the queue was never started. The last progress that was seen of a task is short of its end.
const FINISH: &str = "\
UPDATE virt_operation SET state = $2, ended_at = clock_timestamp(), result = $3::jsonb, code = $4, detail = $5,
       progress = CASE WHEN $2 = 'succeeded' AND progress IS NOT NULL THEN 100 ELSE progress END
WHERE operation_id = $1::uuid AND state IN ('queued', 'running')";

/// Somebody asks for an action.
#[derive(Debug, Clone)]
pub struct Submission<'a> {
    /// The VM.
    pub vm: VmId,
    /// What is to be done.
    pub action: &'a Action,
    /// The VM's name as the person wrote it to confirm; `None` where nobody was asked to.
    pub confirmed: Option<&'a str>,
    /// Name of the token.
    pub actor: &'a str,
    /// Where the request came from.
    pub client: Option<&'a str>,
    /// The request.
    pub request_id: &'a str,
    /// Its `Idempotency-Key`.
    pub key: Option<RequestKey<'a>>,
    /// Most open operations of a platform.
    pub most_open: u32,
}

/// What makes a request the same as another.
#[derive(Debug, Clone, Copy)]
pub struct RequestKey<'a> {
    /// The token that sent it.
    pub token: i32,
    /// The key as sent.
    pub key: &'a str,
    /// SHA-256 of what was asked for.
    pub digest: &'a [u8; 32],
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// It is in the queue.
    New(Box<Operation>),
    /// This request was sent before; this is what it asked for.
    Before(Box<Operation>),
    /// It is not in the queue, and nothing was written.
    Refused(Refused),
}

/// Why an action is not taken into the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no such VM, or no longer.
    NoVm,
    /// The VM has another name than the one that was confirmed.
    NotConfirmed,
    /// The platform is not collected now: inactive or in maintenance.
    PlatformPaused,
    /// The key was used for another request.
    KeyReused,
    /// The VM has an open operation.
    VmBusy {
        /// That operation.
        operation: Uuid,
    },
    /// The platform has as many open operations as it may have.
    PlatformFull {
        /// How many.
        open: u32,
    },
}

/// Which operations to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// What may be seen: of the platforms with these names; `None` for all.
    pub scope: Option<Vec<String>>,
    /// Of these platforms; `None` for all.
    pub platforms: Option<Vec<PlatformId>>,
    /// Of this VM.
    pub vm: Option<VmId>,
    /// In this state.
    pub state: Option<State>,
    /// Older than this one: where the page before ended.
    pub before: Option<(Stamp, Uuid)>,
}

/// A VM as far as asking goes.
struct Vm {
    platform: PlatformId,
    platform_name: String,
    moref: String,
    name: Option<String>,
    instance_uuid: Option<String>,
    exists: bool,
    is_collected: bool,
}

impl Database {
    /// Hears of operations that enter the queue from now on.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn listen_to_operations(&self) -> Result<Listener, Error> {
        self.settings().listen(CHANNEL).await
    }

    /// Hears of operations that end from now on.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn listen_to_ends_of_operations(&self) -> Result<Listener, Error> {
        self.settings().listen(ENDED).await
    }

    /// Takes an action into the queue, with its intent in the audit log, and tells the platform's collector.
    ///
    /// # Errors
    /// When the database cannot be asked. After [`Error::CommitUnknown`] it may be in the queue.
    pub async fn submit_operation(&self, asked: &Submission<'_>) -> Result<Submitted, Error> {
        let connection = self.checkout("take an action into the queue").await?;
        connection.batch("BEGIN").await?;
        let submitted = submit(&connection, asked).await?;
        if matches!(submitted, Submitted::Refused(_)) {
            connection.batch("ROLLBACK").await?;
            connection.done();
        } else {
            connection.commit().await?;
        }
        Ok(submitted)
    }

    /// One operation.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn operation(&self, id: Uuid) -> Result<Option<Operation>, Error> {
        let connection = self.checkout("read an operation").await?;
        let operation = find(&connection, id).await?;
        connection.done();
        Ok(operation)
    }

    /// Operations, newest first, at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn operations(&self, filter: &Filter, limit: u32) -> Result<Vec<Operation>, Error> {
        let connection = self.checkout("read operations").await?;
        let platforms: Option<Vec<i32>> = filter
            .platforms
            .as_ref()
            .map(|platforms| platforms.iter().map(|platform| platform.0).collect());
        let vm = filter.vm.map(|vm| vm.0);
        let state = filter.state.map(State::as_str);
        let (created, id) = filter.before.unzip();
        let id = id.map(|id| id.to_string());
        let limit = i64::from(limit);
        let parameters: [Parameter<'_>; 7] = [
            (&platforms, Type::INT4_ARRAY),
            (&vm, Type::INT4),
            (&state, Type::TEXT),
            (&created, Type::TIMESTAMPTZ),
            (&id, Type::TEXT),
            (&limit, Type::INT8),
            (&filter.scope, Type::TEXT_ARRAY),
        ];
        let rows = connection.query(&format!("{SELECT} {LIST}"), &parameters).await?;
        let operations = rows.iter().map(|row| read(&connection, row)).collect();
        connection.done();
        operations
    }

    /// A platform's operations that have not ended, oldest first.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn open_operations(&self, platform: PlatformId) -> Result<Vec<Operation>, Error> {
        let connection = self.checkout("read open operations").await?;
        let parameters: [Parameter<'_>; 1] = [(&platform.0, Type::INT4)];
        let rows = connection.query(&format!("{SELECT} {OPEN}"), &parameters).await?;
        let operations = rows.iter().map(|row| read(&connection, row)).collect();
        connection.done();
        operations
    }

    /// Takes a queued operation up; false where it is not in the queue any more, or was for longer than `patience`.
    ///
    /// # Errors
    /// When this collector does not own the platform, or the database cannot be asked.
    pub async fn claim_operation(
        &self,
        lease: &Lease,
        id: Uuid,
        patience: std::time::Duration,
    ) -> Result<bool, Error> {
        let seconds = patience.as_secs_f64();
        self.step(
            lease,
            "take up an operation",
            CLAIM,
            id,
            &[(&seconds, Type::FLOAT8)],
        )
        .await
    }

    /// Notes that the call is about to be sent. Only after a `true` it may be, once.
    ///
    /// # Errors
    /// When this collector does not own the platform, or the database cannot be asked. The same attempt may be
    /// noted again.
    pub async fn mark_sent(
        &self,
        lease: &Lease,
        id: Uuid,
        source_time: Stamp,
        seen: &Seen,
    ) -> Result<bool, Error> {
        let seen = json(seen);
        let more: [Parameter<'_>; 2] = [(&source_time, Type::TIMESTAMPTZ), (&seen, Type::TEXT)];
        self.step(lease, "note that an action is sent", SENT, id, &more)
            .await
    }

    /// Notes that the platform has accepted the call, and its task where there is one.
    ///
    /// # Errors
    /// When this collector does not own the platform, or the database cannot be asked.
    pub async fn note_accepted(&self, lease: &Lease, id: Uuid, task: Option<&MoRef>) -> Result<bool, Error> {
        let task = task.map(MoRef::as_str);
        let more: [Parameter<'_>; 1] = [(&task, Type::TEXT)];
        self.step(lease, "note that an action was accepted", ACCEPTED, id, &more)
            .await
    }

    /// Notes how far the task is, in percent, and what it waits for.
    ///
    /// # Errors
    /// When this collector does not own the platform, or the database cannot be asked.
    pub async fn note_progress(
        &self,
        lease: &Lease,
        id: Uuid,
        percent: Option<i16>,
        waits_for: Option<&str>,
    ) -> Result<bool, Error> {
        let percent = percent.map(|percent| percent.clamp(0, 100));
        let more: [Parameter<'_>; 2] = [(&percent, Type::INT2), (&waits_for, Type::TEXT)];
        self.step(lease, "note the progress of an action", PROGRESS, id, &more)
            .await
    }

    /// Ends an operation, with its outcome in the audit log; false where it has ended already.
    ///
    /// # Errors
    /// When this collector does not own the platform, or the database cannot be asked.
    pub async fn finish_operation(
        &self,
        lease: &Lease,
        operation: &Operation,
        end: &End,
    ) -> Result<bool, Error> {
        let connection = self.checkout("note the end of an action").await?;
        connection.begin_fenced(lease).await?;
        let (outcome, result, code, detail) = match end {
            End::Succeeded(outcome) => (audit::Outcome::Ok, Some(json(outcome)), None, None),
            End::Failed(code, detail) => (audit::Outcome::Error, None, Some(code), Some(detail)),
            End::Unknown(code, detail) => (audit::Outcome::Unknown, None, Some(code), Some(detail)),
        };
        let id = operation.id.to_string();
        let (state, code) = (end.state().as_str(), code.map(|code| code.as_str()));
        let parameters: [Parameter<'_>; 5] = [
            (&id, Type::TEXT),
            (&state, Type::TEXT),
            (&result, Type::TEXT),
            (&code, Type::TEXT),
            (&detail, Type::TEXT),
        ];
        let ended = connection.execute(FINISH, &parameters).await? == 1;
        if ended {
            let entry = audit::Entry {
                kind: audit::Kind::Outcome(outcome),
                actor: &operation.requested_by,
                client: None,
                request_id: &operation.request_id,
                action: operation.action.as_str(),
                platform: Some(&operation.platform_name),
                target: Some(operation.vm_moref.as_str()),
                target_name: operation.vm_name.as_deref(),
                operation: Some(operation.id),
                code,
                detail: detail.map(String::as_str),
                before: operation.seen_before.as_ref().map(json),
                after: result,
            };
            audit::insert(&connection, &entry).await?;
            notify(&connection, ENDED, &id).await?;
        }
        connection.commit().await?;
        Ok(ended)
    }

    /// One fenced statement; true when it touched the row.
    async fn step(
        &self,
        lease: &Lease,
        attempt: &'static str,
        sql: &str,
        id: Uuid,
        more: &[Parameter<'_>],
    ) -> Result<bool, Error> {
        let connection = self.checkout(attempt).await?;
        connection.begin_fenced(lease).await?;
        let id = id.to_string();
        let mut parameters: Vec<Parameter<'_>> = vec![(&id, Type::TEXT)];
        parameters.extend(more.iter().cloned());
        let touched = connection.execute(sql, &parameters).await?;
        connection.commit().await?;
        Ok(touched == 1)
    }
}

async fn submit(connection: &Checkout, asked: &Submission<'_>) -> Result<Submitted, Error> {
    let vm = find_vm(connection, asked.vm).await?;
    if let Some(vm) = &vm {
        connection
            .query_opt(LOCK_QUEUE, &[(&vm.platform.0, Type::INT4)])
            .await?;
    }
    // A request that is sent again has its answer, whatever became of the VM.
    if let Some(key) = &asked.key
        && let Some(before) = sent_before(connection, key).await?
    {
        return Ok(before);
    }
    let Some(vm) = vm.filter(|vm| vm.exists) else {
        return Ok(Submitted::Refused(Refused::NoVm));
    };
    match refusal(connection, asked, &vm).await? {
        Some(refused) => Ok(Submitted::Refused(refused)),
        None => add(connection, asked, &vm).await,
    }
}

async fn sent_before(connection: &Checkout, key: &RequestKey<'_>) -> Result<Option<Submitted>, Error> {
    let parameters: [Parameter<'_>; 4] = [
        (&key.token, Type::INT4),
        (&key.key, Type::TEXT),
        (&key.digest.as_slice(), Type::BYTEA),
        (&REMEMBERED, Type::TEXT),
    ];
    let Some(row) = connection.query_opt(KNOWN_REQUEST, &parameters).await? else {
        return Ok(None);
    };
    Ok(Some(if connection.read(&row, 1)? {
        Submitted::Before(Box::new(get(connection, uuid(connection, &row)?).await?))
    } else {
        Submitted::Refused(Refused::KeyReused)
    }))
}

async fn refusal(connection: &Checkout, asked: &Submission<'_>, vm: &Vm) -> Result<Option<Refused>, Error> {
    if asked.confirmed.is_some() && asked.confirmed != vm.name.as_deref() {
        return Ok(Some(Refused::NotConfirmed));
    }
    if !vm.is_collected {
        return Ok(Some(Refused::PlatformPaused));
    }
    let of_vm = [(&asked.vm.0 as _, Type::INT4)];
    if let Some(row) = connection.query_opt(OPEN_OF_VM, &of_vm).await? {
        let operation = uuid(connection, &row)?;
        return Ok(Some(Refused::VmBusy { operation }));
    }
    let of_platform = [(&vm.platform.0 as _, Type::INT4)];
    let open = match connection.query_opt(COUNT_OPEN, &of_platform).await? {
        Some(row) => u32::try_from(connection.read::<i64>(&row, 0)?).unwrap_or(u32::MAX),
        None => 0,
    };
    Ok((open >= asked.most_open).then_some(Refused::PlatformFull { open }))
}

/// Writes what belongs to a new operation.
async fn add(connection: &Checkout, asked: &Submission<'_>, vm: &Vm) -> Result<Submitted, Error> {
    let id = Uuid::now_v7();
    let id_text = id.to_string();
    let (action, arguments) = (asked.action.as_str(), asked.action.arguments().to_string());
    let parameters: [Parameter<'_>; 9] = [
        (&id_text, Type::TEXT),
        (&vm.platform.0, Type::INT4),
        (&asked.vm.0, Type::INT4),
        (&vm.name, Type::TEXT),
        (&vm.instance_uuid, Type::TEXT),
        (&action, Type::TEXT),
        (&arguments, Type::TEXT),
        (&asked.actor, Type::TEXT),
        (&asked.request_id, Type::TEXT),
    ];
    connection.execute(INSERT, &parameters).await?;
    if let Some(key) = &asked.key {
        let old: [Parameter<'_>; 2] = [(&key.token, Type::INT4), (&REMEMBERED, Type::TEXT)];
        connection.execute(FORGET_REQUESTS, &old).await?;
        let parameters: [Parameter<'_>; 4] = [
            (&key.token, Type::INT4),
            (&key.key, Type::TEXT),
            (&key.digest.as_slice(), Type::BYTEA),
            (&id_text, Type::TEXT),
        ];
        if connection.execute(REMEMBER_REQUEST, &parameters).await? == 0 {
            // A request about another platform used it in the same moment.
            return Ok(Submitted::Refused(Refused::KeyReused));
        }
    }
    let entry = audit::Entry {
        kind: audit::Kind::Intent,
        actor: asked.actor,
        client: asked.client,
        request_id: asked.request_id,
        action,
        platform: Some(&vm.platform_name),
        target: Some(&vm.moref),
        target_name: vm.name.as_deref(),
        operation: Some(id),
        code: None,
        detail: None,
        before: None,
        after: Some(arguments),
    };
    audit::insert(connection, &entry).await?;
    notify(connection, CHANNEL, &vm.platform.to_string()).await?;
    Ok(Submitted::New(Box::new(get(connection, id).await?)))
}

async fn find_vm(connection: &Checkout, vm: VmId) -> Result<Option<Vm>, Error> {
    let parameters: [Parameter<'_>; 1] = [(&vm.0, Type::INT4)];
    let Some(row) = connection.query_opt(VM, &parameters).await? else {
        return Ok(None);
    };
    Ok(Some(Vm {
        platform: PlatformId(connection.read(&row, 0)?),
        platform_name: connection.read(&row, 1)?,
        moref: connection.read(&row, 2)?,
        name: connection.read(&row, 3)?,
        instance_uuid: connection.read(&row, 4)?,
        exists: connection.read(&row, 5)?,
        is_collected: connection.read(&row, 6)?,
    }))
}

async fn find(connection: &Checkout, id: Uuid) -> Result<Option<Operation>, Error> {
    let id = id.to_string();
    let sql = format!("{SELECT} WHERE operation.operation_id = $1::uuid");
    let row = connection.query_opt(&sql, &[(&id, Type::TEXT)]).await?;
    row.map(|row| read(connection, &row)).transpose()
}

/// One that must be there.
async fn get(connection: &Checkout, id: Uuid) -> Result<Operation, Error> {
    find(connection, id).await?.ok_or(Error::NoOperation { id })
}

async fn notify(connection: &Checkout, channel: &str, payload: &str) -> Result<(), Error> {
    let parameters: [Parameter<'_>; 2] = [(&channel, Type::TEXT), (&payload, Type::TEXT)];
    connection.query_opt(NOTIFY, &parameters).await?;
    Ok(())
}

/// As the text that a JSON column takes. Our own values of text, numbers and truth values can always be written.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned())
}

/// The first column.
fn uuid(connection: &Checkout, row: &Row) -> Result<Uuid, Error> {
    // The server writes its type `uuid` in one form only.
    Ok(connection.read::<&str>(row, 0)?.parse().unwrap_or_default())
}

fn read(connection: &Checkout, row: &Row) -> Result<Operation, Error> {
    let id = uuid(connection, row)?;
    let unreadable = |source| Error::Operation { id, source };
    let action: &str = connection.read(row, 7)?;
    let seen: Option<&str> = connection.read(row, 17)?;
    let result: Option<&str> = connection.read(row, 20)?;
    Ok(Operation {
        id,
        platform: PlatformId(connection.read(row, 1)?),
        platform_name: connection.read(row, 2)?,
        vm: VmId(connection.read(row, 3)?),
        vm_moref: MoRef::new(connection.read::<String>(row, 4)?),
        vm_name: connection.read(row, 5)?,
        vm_instance_uuid: connection.read(row, 6)?,
        action: Action::from_columns(action, connection.read(row, 8)?).map_err(unreadable)?,
        // A CHECK constraint holds the words.
        state: State::from_name(connection.read(row, 9)?).unwrap_or(State::Unknown),
        requested_by: connection.read(row, 10)?,
        request_id: connection.read(row, 11)?,
        created_at: connection.read(row, 12)?,
        started_at: connection.read(row, 13)?,
        ended_at: connection.read(row, 14)?,
        sent_at: connection.read(row, 15)?,
        sent_at_source: connection.read(row, 16)?,
        seen_before: seen
            .map(serde_json::from_str::<Seen>)
            .transpose()
            .map_err(unreadable)?,
        task: connection.read::<Option<String>>(row, 18)?.map(MoRef::new),
        progress: connection.read(row, 19)?,
        result: result
            .map(serde_json::from_str::<Outcome>)
            .transpose()
            .map_err(unreadable)?,
        code: connection.read(row, 21)?,
        detail: connection.read(row, 22)?,
        accepted_at: connection.read(row, 23)?,
    })
}
