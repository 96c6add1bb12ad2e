//! One operation, from where it stands to its end.
//!
//! Invariant: between the transaction that writes `sent_at` and the call there is nothing that could fail unnoticed,
//! and after it nothing that sends: whoever finds `sent_at` written, this life or another, follows or looks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{Chain, Disposition};
use crate::model::ids::MoRef;
use crate::model::operation::{Action, Code, End, Operation, Seen, State};
use crate::operate::judge;
use crate::operate::judge::Before;
use crate::operate::sent::Sent;
use crate::retry::Backoff;
use crate::soap;
use crate::soap::fault::FaultKind;
use crate::store;
use crate::store::{Database, Lease, Pinned};
use crate::units::Stamp;
use crate::vsphere;
use crate::vsphere::Vsphere;
use crate::vsphere::actions::{TaskInfo, VmNow};

/// How long an operation may wait in the queue. Whoever asked has long looked elsewhere by then, and a VM that goes
/// down long after it was asked for is a surprise.
const QUEUE_PATIENCE: Duration = Duration::from_secs(5 * 60);

/// How long a platform that does not answer is asked for the VM's state before anything was sent.
const READ_PATIENCE: Duration = Duration::from_secs(2 * 60);

/// From the fence to the call. Half of what is left of a lease at worst: a collector that stood still in between
/// must not send what another one already takes for lost.
const SEND_WITHIN: Duration = Duration::from_secs(5);

/// How long what was sent is followed. Removing the snapshots of a large and busy VM takes hours; what takes longer than
/// a day hangs, and only a person can say what is to become of it.
const FOLLOW: Duration = Duration::from_secs(24 * 3600);

/// How long a guest may take. Windows installs updates on its way down.
const GUEST: Duration = Duration::from_secs(15 * 60);

/// A reboot shows by VMware Tools that stop. Where they do not within this, a reboot cannot be seen from outside.
const REBOOT_BEGINS: Duration = Duration::from_secs(60);

/// How long a lost call is looked for: it may still be on its way through the server's queue. One whose answer came too
/// late has had the whole of `request_timeout` before this.
const LOOK: Duration = Duration::from_secs(15);

/// Between two looks at a task, growing: most end within seconds.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Between two looks at a guest, or for a lost call.
const LOOK_PAUSE: Duration = Duration::from_secs(2);

/// How often a VM whose task runs is asked whether it waits for an answer.
const QUESTION_INTERVAL: Duration = Duration::from_secs(10);

/// After a failure of platform or database.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Why an operation was left before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// This collector stops, or hands the platform over.
    Stopping,
    /// The platform has another owner.
    Fenced,
    /// It ended elsewhere.
    Ended,
}

/// Why the platform could not be asked.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Source(#[from] vsphere::Error),
    #[error("the platform's identity cannot be compared")]
    Store(#[from] store::Error),
    #[error("this is another server ({found}) than the one whose objects are stored ({stored})")]
    OtherServer { found: String, stored: String },
}

impl Trouble {
    /// True where asking again is in vain. A person may mend a password or an identity while something that was sent is
    /// still to be followed, and is waited for; what the server refuses to tell, it will refuse again.
    fn is_lasting(&self, is_sent: bool) -> bool {
        let disposition = match self {
            Self::Source(error) => error.disposition(),
            Self::Store(_) => return false,
            Self::OtherServer { .. } => return !is_sent,
        };
        match disposition {
            Disposition::Permanent | Disposition::SkipEntity | Disposition::Split => {
                self.is_answer() || !is_sent
            }
            // A refused login: nobody tries again for minutes.
            Disposition::RetryAfter(_) => !is_sent && self.is_refused_login(),
            Disposition::Relogin | Disposition::Retry | Disposition::Shrink => false,
        }
    }

    /// True where the server refuses to tell.
    fn is_answer(&self) -> bool {
        matches!(
            self,
            Self::Source(vsphere::Error::Soap(soap::Error::Fault { .. }))
        )
    }

    fn is_refused_login(&self) -> bool {
        matches!(
            self,
            Self::Source(vsphere::Error::Soap(soap::Error::LoginRefused { .. }))
        )
    }

    fn is_gone(&self) -> bool {
        let fault = match self {
            Self::Source(error) => error.fault(),
            Self::Store(_) | Self::OtherServer { .. } => None,
        };
        fault.is_some_and(|fault| fault.kind == FaultKind::ManagedObjectNotFound)
    }
}

/// What every operation of a platform works with.
#[derive(Debug)]
pub(super) struct Hands {
    pub(super) lease: Lease,
    pub(super) database: Database,
    pub(super) vsphere: Vsphere,
    pub(super) stopping: CancellationToken,
    pub(super) sent: Arc<Sent>,
    /// Set once the server was found to be the one whose objects are stored.
    pub(super) same_server: OnceCell<()>,
}

impl Hands {
    /// Brings an operation to its end and writes it down.
    pub(super) async fn carry_out(&self, mut operation: Operation) -> Result<End, Left> {
        let end = self.end_of(&mut operation).await?;
        let ended = self
            .persist("note the end of an action", || {
                self.database.finish_operation(&self.lease, &operation, &end)
            })
            .await?;
        if ended { Ok(end) } else { Err(Left::Ended) }
    }

    async fn end_of(&self, operation: &mut Operation) -> Result<End, Left> {
        if operation.state == State::Queued
            && let Some(end) = self.take_up(operation).await?
        {
            return Ok(end);
        }
        let (Some(sent), Some(sent_at_source)) = (operation.sent_at, operation.sent_at_source) else {
            return match self.sent.call(operation.id) {
                Some((at_source, seen)) => self.forgotten(operation, at_source, seen).await,
                None => self.begin(operation).await,
            };
        };
        if let Some(task) = &operation.task {
            return self
                .follow(operation, task, self.since(sent, FOLLOW).await?)
                .await;
        }
        if let Some(accepted) = operation.accepted_at {
            return self
                .watch_guest(operation, self.since(accepted, GUEST).await?)
                .await;
        }
        tracing::warn!(
            operation = %operation.id,
            action = operation.action.as_str(),
            "an action was sent and its answer never noted; looking what became of it"
        );
        self.look(operation, sent_at_source, self.since(sent, FOLLOW).await?)
            .await
    }

    /// The database has forgotten that the call was sent.
    async fn forgotten(&self, operation: &mut Operation, at_source: Stamp, seen: Seen) -> Result<End, Left> {
        tracing::warn!(
            operation = %operation.id,
            action = operation.action.as_str(),
            "the database has lost the note that an action was sent; looking what became of it"
        );
        let is_ours = self
            .persist("note that an action was sent", || {
                self.database
                    .mark_sent(&self.lease, operation.id, at_source, &seen)
            })
            .await?;
        if !is_ours {
            return Err(Left::Ended);
        }
        operation.seen_before = Some(seen);
        operation.sent_at_source = Some(at_source);
        self.look(operation, at_source, Instant::now() + FOLLOW).await
    }

    /// Takes it out of the queue; an end where it was there for too long.
    async fn take_up(&self, operation: &mut Operation) -> Result<Option<End>, Left> {
        let id = operation.id;
        let claimed = self
            .persist("take up an action", || {
                self.database.claim_operation(&self.lease, id, QUEUE_PATIENCE)
            })
            .await?;
        if claimed {
            return Ok(None);
        }
        let Some(now) = self
            .persist("read an action", || self.database.operation(id))
            .await?
        else {
            return Err(Left::Ended);
        };
        *operation = now;
        match operation.state {
            State::Queued => Ok(Some(End::Failed(
                Code::Expired,
                format!(
                    "no collector took it up within {} minutes; nothing was done, ask again",
                    QUEUE_PATIENCE.as_secs() / 60
                ),
            ))),
            // The reply to the COMMIT before was lost.
            State::Running => Ok(None),
            State::Succeeded | State::Failed | State::Unknown => Err(Left::Ended),
        }
    }

    /// From before the call.
    async fn begin(&self, operation: &mut Operation) -> Result<End, Left> {
        let unreachable = |trouble: &Trouble| {
            let words = format!(
                "the platform could not be asked: {}; nothing was done",
                Chain(trouble)
            );
            End::Failed(Code::Unreachable, words)
        };
        let deadline = Instant::now() + READ_PATIENCE;
        let vm = match self.vm_now(operation, deadline).await? {
            Ok(vm) => vm,
            Err(trouble) if trouble.is_gone() => {
                return Ok(End::Failed(
                    Code::VmGone,
                    "the VM does not exist any more; nothing was done".to_owned(),
                ));
            }
            Err(trouble) => return Ok(unreachable(&trouble)),
        };
        if let Before::End(end) = judge::before(operation, &vm) {
            return Ok(end);
        }
        let time = self.reach(operation, deadline, || async {
            Ok(self.vsphere.server_time().await?)
        });
        let source_time = match time.await? {
            Ok(time) => time,
            Err(trouble) => return Ok(unreachable(&trouble)),
        };
        if self.stopping.is_cancelled() {
            return Err(Left::Stopping);
        }
        self.send(operation, &vm, source_time).await
    }

    /// Notes that the call is sent, and sends it.
    async fn send(&self, operation: &mut Operation, vm: &VmNow, source_time: Stamp) -> Result<End, Left> {
        let id = operation.id;
        let seen = judge::seen(vm);
        let (is_ours, fenced_at) = self
            .persist("note that an action is sent", || async {
                let fenced_at = Instant::now();
                let is_ours = self
                    .database
                    .mark_sent(&self.lease, id, source_time, &seen)
                    .await?;
                Ok((is_ours, fenced_at))
            })
            .await?;
        operation.seen_before = Some(seen.clone());
        operation.sent_at_source = Some(source_time);
        if !is_ours {
            tracing::error!(operation = %id, "an action was sent by somebody else; leaving it alone");
            return Err(Left::Ended);
        }
        if fenced_at.elapsed() > SEND_WITHIN {
            return Ok(End::Failed(
                Code::Expired,
                "this collector stood still just before it would have sent the call; nothing was done, ask again"
                    .to_owned(),
            ));
        }
        self.sent.note(id, source_time, seen);
        let action = &operation.action;
        let sent = self
            .vsphere
            .act(&operation.vm_moref, action, &id.to_string())
            .await;
        let follow_until = Instant::now() + FOLLOW;
        let error = match sent {
            Ok(task) => {
                self.persist("note that an action was accepted", || {
                    self.database.note_accepted(&self.lease, id, task.as_ref())
                })
                .await?;
                return match &task {
                    Some(task) => self.follow(operation, task, follow_until).await,
                    None => self.watch_guest(operation, Instant::now() + GUEST).await,
                };
            }
            Err(error) => error,
        };
        // Not of a login in between.
        if let vsphere::Error::Action(soap::Error::Fault { fault, .. }) = &error {
            return Ok(judge::of_fault(action, fault));
        }
        if error.is_answer_lost() {
            tracing::warn!(
                operation = %id,
                action = action.as_str(),
                error = %Chain(&error),
                "the answer to an action was lost; looking what became of it"
            );
            return self.look(operation, source_time, follow_until).await;
        }
        Ok(End::Failed(
            Code::Unreachable,
            format!("the call could not be sent: {}; nothing was done", Chain(&error)),
        ))
    }

    /// Follows a task to its end.
    async fn follow(&self, operation: &Operation, task: &MoRef, until: Instant) -> Result<End, Left> {
        let mut pause = SHORTEST_PAUSE;
        let mut told = (operation.progress, operation.detail.clone());
        let mut asked_at: Option<Instant> = None;
        loop {
            let info = self.reach(operation, until, || async { Ok(self.vsphere.task(task).await?) });
            let info = match info.await? {
                Ok(Some(info)) => info,
                Ok(None) => return self.task_gone(operation, task, until).await,
                Err(trouble) => {
                    let words = format!("the platform cannot be asked about {task}: {}", Chain(&trouble));
                    return Ok(End::Unknown(Code::TaskGone, words));
                }
            };
            if let Some(end) = judge::of_task(&operation.action, &info) {
                return Ok(end);
            }
            if Instant::now() >= until {
                return Ok(End::Unknown(
                    Code::TaskTimeout,
                    format!(
                        "{task} has not ended within {} hours and is not followed any longer; look at it in vSphere",
                        FOLLOW.as_secs() / 3600
                    ),
                ));
            }
            // What it waits for is worth knowing, and not worth a failure.
            let mut now = (info.progress.or(told.0), told.1.clone());
            if asked_at.is_none_or(|at| at.elapsed() >= QUESTION_INTERVAL) {
                asked_at = Some(Instant::now());
                if let Ok(vm) = self.vsphere.vm_now(&operation.vm_moref).await {
                    now.1 = vm.question.map(|question| {
                        format!("the VM waits for an answer to a question in vSphere: {question}")
                    });
                }
            }
            if now != told {
                self.tell(operation, now.0, now.1.as_deref()).await?;
                told = now;
            }
            self.pause(pause).await?;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }

    /// How far it is. Not worth waiting for the database: the task's end would be missed.
    async fn tell(
        &self,
        operation: &Operation,
        percent: Option<i16>,
        waits: Option<&str>,
    ) -> Result<(), Left> {
        let noted = self
            .database
            .note_progress(&self.lease, operation.id, percent, waits);
        match noted.await {
            Err(error) if error.class().ends_term() => Err(Left::Fenced),
            Err(error) => {
                tracing::debug!(operation = %operation.id, error = %Chain(&error), "cannot note the progress of an action");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// Servers forget tasks some minutes after their end; the history of a vCenter remembers them.
    async fn task_gone(&self, operation: &Operation, task: &MoRef, until: Instant) -> Result<End, Left> {
        let gone = |trouble: Trouble| {
            let words = format!(
                "the platform has forgotten {task}, and cannot be asked what became of it: {}",
                Chain(&trouble)
            );
            End::Unknown(Code::TaskGone, words)
        };
        let since = operation.sent_at_source.unwrap_or(Stamp::from_micros(0));
        let history = match self.history(operation, since, until).await? {
            Ok(history) => history,
            Err(trouble) => return Ok(gone(trouble)),
        };
        let remembered = history.iter().find(|info| info.task == task.as_str());
        if let Some(end) = remembered.and_then(|info| judge::of_task(&operation.action, info)) {
            return Ok(end);
        }
        let vm = match self.vm_now(operation, until).await? {
            Ok(vm) => vm,
            Err(trouble) => return Ok(gone(trouble)),
        };
        Ok(judge::evidence(operation, &vm).unwrap_or_else(|| {
            End::Unknown(
                Code::TaskGone,
                format!(
                    "the platform accepted it as {task} and has forgotten how that ended; {}",
                    judge::state_now(operation, &vm)
                ),
            )
        }))
    }

    /// Watches a VM whose guest was asked to shut down or to reboot.
    async fn watch_guest(&self, operation: &Operation, until: Instant) -> Result<End, Left> {
        let begins_until = Instant::now() + REBOOT_BEGINS;
        let mut went_down = false;
        loop {
            let vm = match self.vm_now(operation, until).await? {
                Ok(vm) => vm,
                Err(trouble) => {
                    let words = format!(
                        "the guest was asked to, and the VM cannot be seen any more: {}",
                        Chain(&trouble)
                    );
                    return Ok(End::Unknown(Code::GuestTimeout, words));
                }
            };
            went_down |= !vm.has_tools();
            let is_over = Instant::now() >= until;
            let never_began = !went_down && Instant::now() >= begins_until;
            if let Some(end) = judge::of_guest(operation, &vm, went_down, never_began || is_over) {
                return Ok(end);
            }
            if is_over {
                return Ok(End::Failed(
                    Code::GuestTimeout,
                    format!(
                        "the guest was asked to and has not done it within {} minutes; it may still, or it hangs: look \
                         at its console",
                        GUEST.as_secs() / 60
                    ),
                ));
            }
            self.pause(LOOK_PAUSE).await?;
        }
    }

    /// Finds out what became of a call whose answer is lost. `sent` is the platform's time just before.
    async fn look(&self, operation: &Operation, sent: Stamp, until: Instant) -> Result<End, Left> {
        // A guest that heard it shows by going down, in its own time.
        let window = match operation.action {
            Action::ShutdownGuest => GUEST,
            _ => LOOK,
        };
        let mut give_up: Option<Instant> = None;
        loop {
            let seen = match self.vm_now(operation, until).await? {
                Ok(vm) => self
                    .ours(operation, &vm, sent, until)
                    .await?
                    .map(|ours| (vm, ours)),
                Err(trouble) => Err(trouble),
            };
            let (vm, ours) = match seen {
                Ok(seen) => seen,
                Err(trouble) => {
                    let words = format!(
                        "the call was sent, its answer was lost, and the VM cannot be asked what became of it: {}",
                        Chain(&trouble)
                    );
                    return Ok(End::Unknown(Code::AnswerLost, words));
                }
            };
            if let [info] = ours.as_slice() {
                let task = MoRef::new(info.task.as_str());
                self.persist("note the task of an action", || {
                    self.database
                        .note_accepted(&self.lease, operation.id, Some(&task))
                })
                .await?;
                // The history may tell of one that is no longer there to be asked.
                let end = match judge::of_task(&operation.action, info) {
                    Some(end) => end,
                    None => self.follow(operation, &task, until).await?,
                };
                return Ok(judge::found_again(end, &task));
            }
            if let Some(end) = judge::evidence(operation, &vm) {
                return Ok(end);
            }
            // From the first look on: a platform that was away shows nothing before.
            let give_up = *give_up.get_or_insert_with(|| Instant::now() + window);
            if Instant::now() >= give_up.min(until) {
                return Ok(End::Unknown(
                    Code::AnswerLost,
                    judge::nobody_knows(operation, &vm, ours.len()),
                ));
            }
            self.pause(LOOK_PAUSE).await?;
        }
    }

    /// The tasks that may be the call's, from the recent ones, else from the history.
    async fn ours(
        &self,
        operation: &Operation,
        vm: &VmNow,
        sent: Stamp,
        until: Instant,
    ) -> Result<Result<Vec<TaskInfo>, Trouble>, Left> {
        let known = operation.seen_before.as_ref().map_or(&[][..], |seen| &seen.tasks);
        let fitting = |mut tasks: Vec<TaskInfo>| {
            tasks.retain(|info| judge::may_be_ours(operation, sent, info));
            tasks
        };
        let recent = self.reach(operation, until, || async {
            Ok(self.vsphere.recent_tasks(vm, known).await?)
        });
        let recent = match recent.await? {
            Ok(tasks) => fitting(tasks),
            Err(trouble) => return Ok(Err(trouble)),
        };
        if !recent.is_empty() {
            return Ok(Ok(recent));
        }
        Ok(self.history(operation, sent, until).await?.map(fitting))
    }

    /// The VM's tasks since the call was sent; none where the server does not tell this account.
    async fn history(
        &self,
        operation: &Operation,
        sent: Stamp,
        until: Instant,
    ) -> Result<Result<Vec<TaskInfo>, Trouble>, Left> {
        let since = sent.minus(judge::QUEUE_TIME_SLACK);
        let history = self.reach(operation, until, || async {
            Ok(self.vsphere.task_history(&operation.vm_moref, since).await?)
        });
        Ok(match history.await? {
            Err(trouble) if trouble.is_answer() => {
                tracing::debug!(error = %Chain(&trouble), "the platform has no history of tasks for this account");
                Ok(Vec::new())
            }
            history => history,
        })
    }

    async fn vm_now(&self, operation: &Operation, until: Instant) -> Result<Result<VmNow, Trouble>, Left> {
        self.reach(operation, until, || async {
            Ok(self.vsphere.vm_now(&operation.vm_moref).await?)
        })
        .await
    }

    /// Asks the platform, again and again until `until` where it does not answer, and only the server that the
    /// platform has always been: another one uses the same references for other objects.
    async fn reach<T, F, R>(
        &self,
        operation: &Operation,
        until: Instant,
        ask: F,
    ) -> Result<Result<T, Trouble>, Left>
    where
        F: Fn() -> R + Send + Sync,
        R: Future<Output = Result<T, Trouble>> + Send,
        T: Send,
    {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, self.lease.epoch.unsigned_abs());
        loop {
            let asked = match self.check_server().await {
                Ok(()) => ask().await,
                Err(trouble) => Err(trouble),
            };
            let trouble = match asked {
                Ok(answer) => return Ok(Ok(answer)),
                Err(Trouble::Store(error)) if error.class().ends_term() => return Err(Left::Fenced),
                Err(trouble) => trouble,
            };
            let is_sent = operation.sent_at_source.is_some();
            if trouble.is_gone() || trouble.is_lasting(is_sent) || Instant::now() >= until {
                return Ok(Err(trouble));
            }
            tracing::debug!(error = %Chain(&trouble), "cannot ask the platform about an action; trying again");
            self.pause(backoff.next_wait()).await?;
        }
    }

    async fn check_server(&self) -> Result<(), Trouble> {
        let check = || async {
            let about = self.vsphere.connect().await?;
            match self.database.pin_identity(&self.lease, &about.identity).await? {
                Pinned::First | Pinned::Same => Ok(()),
                Pinned::Other(stored) => Err(Trouble::OtherServer {
                    found: about.identity,
                    stored,
                }),
            }
        };
        self.same_server.get_or_try_init(check).await.map(|_| ())
    }

    /// Writes something down, again and again until the database takes it: what is known here is known nowhere else.
    async fn persist<T, F, R>(&self, what: &'static str, write: F) -> Result<T, Left>
    where
        F: Fn() -> R + Send + Sync,
        R: Future<Output = Result<T, store::Error>> + Send,
        T: Send,
    {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, self.lease.epoch.unsigned_abs());
        loop {
            match write().await {
                Ok(value) => return Ok(value),
                Err(error) if error.class().ends_term() => return Err(Left::Fenced),
                Err(error) if backoff.is_fresh() => {
                    tracing::warn!(error = %Chain(&error), "cannot {what}; trying again");
                }
                Err(error) => tracing::debug!(error = %Chain(&error), "cannot {what}"),
            }
            self.pause(backoff.next_wait()).await?;
        }
    }

    /// When what has lasted since a moment of the database's clock has lasted for so long.
    async fn since(&self, since: Stamp, whole: Duration) -> Result<Instant, Left> {
        let now = self
            .persist("ask the database for the time", || self.database.clock())
            .await?;
        Ok(Instant::now() + whole.saturating_sub(now.since(since)))
    }

    async fn pause(&self, time: Duration) -> Result<(), Left> {
        tokio::select! {
            () = self.stopping.cancelled() => Err(Left::Stopping),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }
}
