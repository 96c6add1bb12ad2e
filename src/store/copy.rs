//! Samples and gap rows of one platform into the database, all or nothing, and the notes of what is to be rolled up.
//!
//! Owns: the transaction that stores a flush. Never does: resending. After any error the flush is thrown away, the
//! watermarks are read again, and the source is asked again.
//!
//! Invariants:
//! - The fence is the transaction's first statement.
//! - Tables are written in fixed order, hosts first, rows sorted by entity and time, so that writers of different
//!   platforms never wait for each other in a circle.
//! - COMMIT is sent only after every row that was sent has been counted by the server.
//! - A connection on which an answer is outstanding is never used again ([`Writer::is_usable`]).
//!
//! | outcome | says |
//! |---|---|
//! | `Ok` | committed |
//! | an error with [`Error::is_rolled_back`] | certainly nothing is stored |
//! | [`Error::CommitUnknown`] | only reading the watermarks tells |

pub mod encode;

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, future};
use tokio_postgres::types::Type;
use tokio_postgres::{CopyInSink, Statement};

use self::encode::Encoder;
use crate::model::gap::{GapId, NewGap};
use crate::model::ids::{EntityId, EntityKind};
use crate::model::sample::Window;
use crate::store::connect::{Database, Dedicated, Parameter, bounded, commit};
use crate::store::error::{Class, Error};
use crate::store::lease::{Lease, begin_fenced};
use crate::store::probe;
use crate::store::rollup::{self, Touched};
use crate::units::Stamp;

/// Bytes encoded before they are handed to the connection: large enough that the hand-over costs nothing, small
/// beside the rows they come from.
const CHUNK_BYTES: usize = 256 * 1024;

const ATTEMPT: &str = "store samples";
const END_WRITERS: &str = "end abandoned transactions";

/// As in [`END_WRITERS_SQL`].
const END_WRITERS_PATIENCE: Duration = Duration::from_secs(5);

/// Waits for each. What it returns also says false of one that ended by itself meanwhile: so they are counted again.
const END_WRITERS_SQL: &str = "\
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND application_name = ANY ($1)";

const COUNT_WRITERS: &str = "\
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND application_name = ANY ($1)";

const PREPARE: &str = "prepare the statements that store samples";

const DELETE_GAPS: &str = "DELETE FROM virt_collection_gap WHERE platform_id = $1 AND gap_id = ANY ($2)";

const ASK_GAPS: &str = "\
UPDATE virt_collection_gap SET asked_at = clock_timestamp(), attempts = attempts + 1
WHERE platform_id = $1 AND gap_id = ANY ($2)";

const INSERT_GAPS: &str = "\
INSERT INTO virt_collection_gap (platform_id, entity_kind, entity_id, from_time, to_time, is_initial, state, reason,
                                 hint, explained_at, lane, ask_after, to_interval_seconds)
SELECT $1, kind, id, from_time, to_time, is_initial,
       CASE WHEN reason IS NULL THEN 'open' ELSE 'explained' END, reason, hint,
       CASE WHEN reason IS NOT NULL THEN clock_timestamp() END, lane, ask_after, to_interval_seconds
FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11) AS gap (kind, id, from_time, to_time, is_initial, reason, hint,
                                                              lane, ask_after, to_interval_seconds)";

/// The gap without an end of an entity that speaks again; the step that it leaves, if any, is among the new gaps.
const END_SILENCE: &str = "\
DELETE FROM virt_collection_gap AS gap USING unnest($2, $3) AS entity (kind, id)
WHERE gap.platform_id = $1 AND gap.entity_kind = entity.kind AND gap.entity_id = entity.id AND gap.to_time IS NULL";

/// Kept for the life of the connection: made for each batch they would bloat the catalogue.
const CREATE_STAGE: &str = "\
CREATE TEMPORARY TABLE IF NOT EXISTS virt_stage_host (LIKE virt_host_metrics) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS virt_stage_vm (LIKE virt_vm_metrics) ON COMMIT DELETE ROWS";

/// What one transaction stores for one platform.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Flush {
    /// Whole windows of hosts and VMs, in any order.
    pub windows: Vec<Window>,
    /// Gap rows to add.
    pub gaps_new: Vec<NewGap>,
    /// Gap rows that were worked on: what is left of them is in `gaps_new`.
    pub gaps_done: Vec<GapId>,
    /// Gap rows that were asked for in vain and stay open.
    pub gaps_asked: Vec<GapId>,
    /// Entities that were silent and are not any more: their gap without an end is deleted.
    pub speaking: Vec<EntityId>,
}

impl Flush {
    /// True where there is nothing to store.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.windows.iter().all(Window::is_empty)
            && self.gaps_new.is_empty()
            && self.gaps_done.is_empty()
            && self.gaps_asked.is_empty()
            && self.speaking.is_empty()
    }
}

/// What a committed flush did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows stored in `virt_host_metrics`.
    pub host_rows: u64,
    /// Rows stored in `virt_vm_metrics`.
    pub vm_rows: u64,
    /// Rows that were stored already; only [`Writer::write_staged`] meets them.
    pub duplicates: u64,
    /// Values that no column of their type can hold, stored as NULL.
    pub out_of_range: u64,
    /// Bytes sent.
    pub bytes: u64,
}

impl Written {
    fn add_rows(&mut self, kind: EntityKind, rows: u64) {
        match kind {
            EntityKind::Host => self.host_rows += rows,
            EntityKind::Vm => self.vm_rows += rows,
        }
    }
}

/// Tells the connections of one collector's writers apart, also on the server, where it is the end of their
/// application name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriterId(u64);

impl WriterId {
    fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn purpose(self) -> String {
        format!("copy-{}", self.0)
    }
}

/// One dedicated connection with the statements of a flush prepared. It holds the rows of the platforms of one
/// writer task; there are as many of them as the database has cores to spare.
#[derive(Debug)]
pub struct Writer {
    id: WriterId,
    connection: Dedicated,
    direct: Tables,
    staged: Option<Stage>,
    delete_gaps: Statement,
    ask_gaps: Statement,
    insert_gaps: Statement,
    end_silence: Statement,
    note_rollups: Statement,
    usable: bool,
}

/// COPY into the table of each kind.
#[derive(Debug)]
struct Tables {
    host: Statement,
    vm: Statement,
}

impl Tables {
    const fn of(&self, kind: EntityKind) -> &Statement {
        match kind {
            EntityKind::Host => &self.host,
            EntityKind::Vm => &self.vm,
        }
    }
}

/// COPY into the temporary tables, and from there to where the rows belong.
#[derive(Debug)]
struct Stage {
    copy: Tables,
    insert: Tables,
}

type Sink = Pin<Box<CopyInSink<Bytes>>>;

impl Database {
    /// A new connection for COPY, after asking whether this version can work with the database as it is now.
    ///
    /// # Errors
    /// When there is no connection, or the database is not as this version needs it.
    pub async fn writer(&self) -> Result<Writer, Error> {
        let id = WriterId::next();
        let connection = self.settings().connect(&id.purpose()).await?;
        probe::probe(&connection).await?.require()?;
        let copy = |kind: EntityKind| copy_statement(encode::table(kind), kind);
        let (copy_host, copy_vm) = (copy(EntityKind::Host), copy(EntityKind::Vm));
        let prepared = bounded(PREPARE, async {
            future::try_join5(
                connection.prepare(&copy_host),
                connection.prepare(&copy_vm),
                connection.prepare_typed(DELETE_GAPS, &[Type::INT4, Type::INT8_ARRAY]),
                connection.prepare_typed(ASK_GAPS, &[Type::INT4, Type::INT8_ARRAY]),
                connection.prepare_typed(
                    INSERT_GAPS,
                    &[
                        Type::INT4,
                        Type::TEXT_ARRAY,
                        Type::INT4_ARRAY,
                        Type::TIMESTAMPTZ_ARRAY,
                        Type::TIMESTAMPTZ_ARRAY,
                        Type::BOOL_ARRAY,
                        Type::TEXT_ARRAY,
                        Type::TEXT_ARRAY,
                        Type::TEXT_ARRAY,
                        Type::TIMESTAMPTZ_ARRAY,
                        Type::INT2_ARRAY,
                    ],
                ),
            )
            .await
        });
        let (host, vm, delete_gaps, ask_gaps, insert_gaps) = prepared.await?;
        let end_silence = [Type::INT4, Type::TEXT_ARRAY, Type::INT4_ARRAY];
        let prepared = bounded(PREPARE, async {
            future::try_join(
                connection.prepare_typed(END_SILENCE, &end_silence),
                connection.prepare_typed(rollup::NOTE, &rollup::NOTE_TYPES),
            )
            .await
        });
        let (end_silence, note_rollups) = prepared.await?;
        let direct = Tables { host, vm };
        Ok(Writer {
            id,
            connection,
            direct,
            staged: None,
            delete_gaps,
            ask_gaps,
            insert_gaps,
            end_silence,
            note_rollups,
            usable: true,
        })
    }
}

impl Database {
    /// Ends the server's side of writers of this collector that are closed here, and waits until they are gone: what
    /// they had not committed by then, they never will.
    ///
    /// # Errors
    /// When the database cannot be asked, or one of them is still there after 5 s.
    pub async fn end_writers(&self, writers: &[WriterId]) -> Result<(), Error> {
        let connection = self.checkout(END_WRITERS).await?;
        let owner = self.settings().owner();
        let names: Vec<String> = writers
            .iter()
            .map(|id| owner.application_name(&id.purpose()))
            .collect();
        let parameters: [Parameter<'_>; 1] = [(&names, Type::TEXT_ARRAY)];
        connection.query(END_WRITERS_SQL, &parameters).await?;
        let row = connection.query_opt(COUNT_WRITERS, &parameters).await?;
        let left: i64 = row.map_or(Ok(0), |row| connection.read(&row, 0))?;
        connection.done();
        if left > 0 {
            return Err(Error::Deadline {
                attempt: END_WRITERS,
                after: END_WRITERS_PATIENCE,
            });
        }
        Ok(())
    }
}

impl Writer {
    /// Which connection this is.
    #[must_use]
    pub const fn id(&self) -> WriterId {
        self.id
    }

    /// False after a failure that leaves the connection in doubt, and after a dropped `write`: make a new one.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.usable && !self.connection.is_closed()
    }

    /// Stores a flush in one transaction, by COPY straight into the tables. A row that is stored already fails it
    /// as a whole, with class [`Class::Duplicate`]: then [`Writer::write_staged`] is the way.
    ///
    /// Not cancel safe: dropped half-way, the outcome is unknown and the writer unusable.
    ///
    /// # Errors
    /// See the module; nothing is ever half stored.
    pub async fn write(&mut self, lease: &Lease, flush: &Flush) -> Result<Written, Error> {
        self.usable = false;
        let result = Box::pin(self.transact(lease, flush, None)).await;
        self.settle(result).await
    }

    /// As [`Writer::write`], through temporary tables and leaving out rows that are stored already.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub async fn write_staged(&mut self, lease: &Lease, flush: &Flush) -> Result<Written, Error> {
        self.usable = false;
        if self.staged.is_none() {
            self.staged = Some(self.stage().await?);
        }
        let result = Box::pin(self.transact(lease, flush, self.staged.as_ref())).await;
        self.settle(result).await
    }

    /// After a refusal by the server the connection is as good as before, once it has confirmed the ROLLBACK.
    async fn settle(&mut self, result: Result<Written, Error>) -> Result<Written, Error> {
        self.usable = match &result {
            Ok(_) => true,
            Err(error) if error.class() == Class::Connection || !error.is_rolled_back() => false,
            Err(_) => bounded("roll back", self.connection.batch_execute("ROLLBACK"))
                .await
                .is_ok(),
        };
        result
    }

    async fn stage(&self) -> Result<Stage, Error> {
        const ATTEMPT: &str = "make the temporary tables for samples";
        let connection = &self.connection;
        bounded(ATTEMPT, connection.batch_execute(CREATE_STAGE)).await?;
        let copy = |kind: EntityKind| copy_statement(stage_table(kind), kind);
        let insert = |kind: EntityKind| {
            let (target, source, columns) = (
                encode::table(kind),
                stage_table(kind),
                encode::columns(kind).join(", "),
            );
            format!("INSERT INTO {target} ({columns}) SELECT {columns} FROM {source} ON CONFLICT DO NOTHING")
        };
        let texts = (
            copy(EntityKind::Host),
            copy(EntityKind::Vm),
            insert(EntityKind::Host),
            insert(EntityKind::Vm),
        );
        let prepared = bounded(ATTEMPT, async {
            future::try_join4(
                connection.prepare(&texts.0),
                connection.prepare(&texts.1),
                connection.prepare(&texts.2),
                connection.prepare(&texts.3),
            )
            .await
        });
        let (copy_host, copy_vm, insert_host, insert_vm) = prepared.await?;
        Ok(Stage {
            copy: Tables {
                host: copy_host,
                vm: copy_vm,
            },
            insert: Tables {
                host: insert_host,
                vm: insert_vm,
            },
        })
    }

    /// The transaction: BEGIN, the fence and the first COPY leave in one round trip, the end of one COPY with the
    /// start of the next, the end of the last one with what goes beside them.
    async fn transact(&self, lease: &Lease, flush: &Flush, stage: Option<&Stage>) -> Result<Written, Error> {
        let mut written = Written::default();
        let tables = stage.map_or(&self.direct, |stage| &stage.copy);
        let mut kinds = EntityKind::ALL.into_iter().filter_map(|kind| {
            let windows = sorted(&flush.windows, kind);
            (!windows.is_empty()).then_some((kind, windows))
        });

        let mut current = kinds.next();
        let start = current.as_ref().map(|(kind, _)| tables.of(*kind));
        let (begun, started) =
            future::join(begin_fenced(ATTEMPT, &self.connection, lease), self.start(start)).await;
        begun?;
        let mut sink = started?;
        if current.is_none() {
            Box::pin(self.write_beside(lease, flush)).await?;
        }
        while let (Some((kind, windows)), Some(open)) = (current.take(), sink.take()) {
            let (open, sent) = send(open, kind, &windows, &mut written).await?;
            let next = kinds.next();
            let is_last = next.is_none();
            let start = next.as_ref().map(|(kind, _)| tables.of(*kind));
            let (stored, started, beside) = future::join3(finish(open), self.start(start), async {
                if is_last {
                    Box::pin(self.write_beside(lease, flush)).await
                } else {
                    Ok(())
                }
            })
            .await;
            // In this order: what fails first makes the server refuse the rest.
            let stored = stored?;
            if stored != sent {
                return Err(Error::RowCount {
                    table: encode::table(kind),
                    sent,
                    stored,
                });
            }
            sink = started?;
            beside?;
            written.add_rows(kind, sent);
            current = next;
        }
        if let Some(stage) = stage {
            for kind in EntityKind::ALL {
                let copied = match kind {
                    EntityKind::Host => &mut written.host_rows,
                    EntityKind::Vm => &mut written.vm_rows,
                };
                if *copied == 0 {
                    continue;
                }
                let inserted = bounded(ATTEMPT, self.connection.execute(stage.insert.of(kind), &[])).await?;
                written.duplicates += copied.saturating_sub(inserted);
                *copied = inserted;
            }
        }
        commit(&self.connection).await?;
        Ok(written)
    }

    async fn start(&self, statement: Option<&Statement>) -> Result<Option<Sink>, Error> {
        match statement {
            Some(statement) => {
                let sink = bounded(ATTEMPT, self.connection.copy_in::<_, Bytes>(statement)).await?;
                Ok(Some(Box::pin(sink)))
            }
            None => Ok(None),
        }
    }

    /// Deletes, marks and adds gap rows, and notes what is to be rolled up, in one round trip.
    async fn write_beside(&self, lease: &Lease, flush: &Flush) -> Result<(), Error> {
        const ATTEMPT: &str = "store gap rows";
        let platform = lease.platform.0;
        let ids = |gaps: &[GapId]| gaps.iter().map(|gap| gap.0).collect::<Vec<i64>>();
        let (done, asked) = (ids(&flush.gaps_done), ids(&flush.gaps_asked));
        let new = &flush.gaps_new;
        let kinds: Vec<&str> = new.iter().map(|gap| gap.entity.kind.as_str()).collect();
        let entities: Vec<i32> = new.iter().map(|gap| gap.entity.id).collect();
        let from: Vec<Stamp> = new.iter().map(|gap| gap.step.from).collect();
        let to: Vec<Option<Stamp>> = new.iter().map(|gap| gap.step.to).collect();
        let initial: Vec<bool> = new.iter().map(|gap| gap.step.initial).collect();
        let reason: Vec<Option<&str>> = new
            .iter()
            .map(|gap| gap.reason.map(|reason| reason.as_str()))
            .collect();
        let hint: Vec<Option<&str>> = new.iter().map(|gap| gap.hint.map(|hint| hint.as_str())).collect();
        let lanes: Vec<&str> = new.iter().map(|gap| gap.lane.as_str()).collect();
        let ask_after: Vec<Option<Stamp>> = new.iter().map(|gap| gap.ask_after).collect();
        let to_interval: Vec<i16> = new
            .iter()
            .map(|gap| i16::try_from(gap.step.to_interval).unwrap_or(i16::MAX))
            .collect();
        let speaking = &flush.speaking;
        let speaking_kinds: Vec<&str> = speaking.iter().map(|entity| entity.kind.as_str()).collect();
        let speaking_ids: Vec<i32> = speaking.iter().map(|entity| entity.id).collect();

        let end_silence = async {
            if speaking.is_empty() {
                Ok(0)
            } else {
                self.connection
                    .execute(&self.end_silence, &[&platform, &speaking_kinds, &speaking_ids])
                    .await
            }
        };
        let delete = async {
            if done.is_empty() {
                Ok(0)
            } else {
                self.connection
                    .execute(&self.delete_gaps, &[&platform, &done])
                    .await
            }
        };
        let ask = async {
            if asked.is_empty() {
                Ok(0)
            } else {
                self.connection
                    .execute(&self.ask_gaps, &[&platform, &asked])
                    .await
            }
        };
        let insert = async {
            if new.is_empty() {
                return Ok(0);
            }
            let rows: [&(dyn tokio_postgres::types::ToSql + Sync); 11] = [
                &platform,
                &kinds,
                &entities,
                &from,
                &to,
                &initial,
                &reason,
                &hint,
                &lanes,
                &ask_after,
                &to_interval,
            ];
            self.connection.execute(&self.insert_gaps, &rows).await
        };
        let touched = Touched::by(&flush.windows);
        let note = async {
            if touched.is_empty() {
                return Ok(0);
            }
            self.connection
                .execute(&self.note_rollups, &touched.parameters(&platform))
                .await
        };
        // Sent in this order: the gap without an end goes before the one that takes its place comes.
        let all = Box::pin(future::join5(delete, ask, end_silence, insert, note));
        let (deleted, asked, ended, inserted, noted) = bounded(ATTEMPT, async { Ok(all.await) }).await?;
        let refused = |source| Error::statement(ATTEMPT, source);
        let (found, _, _, _) = (
            deleted.map_err(refused)?,
            asked.map_err(refused)?,
            ended.map_err(refused)?,
            inserted.map_err(refused)?,
        );
        noted.map_err(|source| Error::statement("note what is to be rolled up", source))?;
        let expected = u64::try_from(done.len()).unwrap_or(u64::MAX);
        if found != expected {
            // Someone else closed a gap of ours: its residue would be a second explanation of the same step.
            return Err(Error::GapsChanged { expected, found });
        }
        Ok(())
    }
}

/// The windows of a kind that hold rows, by entity and time.
fn sorted(windows: &[Window], kind: EntityKind) -> Vec<&Window> {
    let mut windows: Vec<&Window> = windows
        .iter()
        .filter(|window| window.entity.kind == kind && !window.is_empty())
        .collect();
    windows.sort_by_key(|window| (window.entity.id, window.heads().first().map(|head| head.stamp)));
    windows
}

async fn send(
    mut sink: Sink,
    kind: EntityKind,
    windows: &[&Window],
    written: &mut Written,
) -> Result<(Sink, u64), Error> {
    let mut encoder = Encoder::new(kind);
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8);
    chunk.extend_from_slice(encode::HEADER);
    let mut sent = 0;
    for window in windows {
        for (head, cells) in window.rows() {
            encoder.row(&mut chunk, window.entity, head, cells);
            sent += 1;
            if chunk.len() >= CHUNK_BYTES {
                written.bytes += chunk.len() as u64;
                let full =
                    std::mem::replace(&mut chunk, BytesMut::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8));
                bounded(ATTEMPT, sink.send(full.freeze())).await?;
            }
        }
    }
    chunk.extend_from_slice(encode::TRAILER);
    written.bytes += chunk.len() as u64;
    written.out_of_range += encoder.out_of_range;
    bounded(ATTEMPT, sink.send(chunk.freeze())).await?;
    Ok((sink, sent))
}

async fn finish(mut sink: Sink) -> Result<u64, Error> {
    bounded(ATTEMPT, sink.as_mut().finish()).await
}

const fn stage_table(kind: EntityKind) -> &'static str {
    match kind {
        EntityKind::Host => "virt_stage_host",
        EntityKind::Vm => "virt_stage_vm",
    }
}

fn copy_statement(table: &str, kind: EntityKind) -> String {
    format!(
        "COPY {table} ({}) FROM STDIN (FORMAT binary)",
        encode::columns(kind).join(", ")
    )
}
