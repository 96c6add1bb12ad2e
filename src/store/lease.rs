//! Who owns a platform, and the fence in front of every write for it.
//!
//! Owns: `virt_platform_lease`. Never does: renewing in time; that is the holder's loop, every 10 s.
//!
//! Invariants:
//! - Only the database's clock counts. No collector compares times of its own with a lease.
//! - A write transaction holds the lease row FOR KEY SHARE from its first statement to its end. Renewal updates no
//!   key column and passes it; a take-over locks FOR UPDATE and waits for it. So whoever sees the new epoch knows
//!   that no transaction of an older one is still open.
//! - A lease lives no longer than the server that gave it. After a fail-over the row, and with it the epoch, may be of
//!   before the take-over, and keys may be given out a second time; a restored server is no better. So a lease names
//!   the start of its server, and the fence of another one, or of the same one started again, refuses it: whoever held
//!   it takes it anew and reads everything anew, keys included ([`Error::Moved`]).
//! - The fence asks for `until` too: without it, overlapping writers would keep the row share-locked for ever and
//!   starve a take-over, even when renewal has failed long ago.

use std::fmt;
use std::time::Duration;

use futures_util::future;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::model::ids::PlatformId;
use crate::store::connect::{Database, Parameter, bounded, commit};
use crate::store::error::Error;
use crate::units::Stamp;

/// How long a lease is good after it was taken or renewed. Renewed every 10 s, so two renewals may fail.
pub const LEASE_TTL: Duration = Duration::from_secs(30);

/// The first statement of every transaction that writes for a platform. No row: fenced; false: another server.
pub const FENCE_SQL: &str = "\
SELECT pg_postmaster_start_time() = $4 FROM virt_platform_lease
WHERE platform_id = $1 AND owner = $2 AND epoch = $3 AND until > clock_timestamp()
FOR KEY SHARE";

const FENCE_TYPES: [Type; 4] = [Type::INT4, Type::TEXT, Type::INT8, Type::TIMESTAMPTZ];

/// A renewal or announcement that takes longer than this would come too late to matter.
const RENEW_DEADLINE: Duration = Duration::from_secs(8);

/// How long a take-over waits for transactions of the old owner before it ends them. No time-out of the server
/// ends a COPY whose client is stopped.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long after ending one blocker to look for the next.
const NEXT_BLOCKER: Duration = Duration::from_millis(500);

const TAKE_LEASE: &str = "take a platform's lease";

const INSERT: &str = "\
INSERT INTO virt_platform_lease (platform_id, owner, epoch, until)
VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3))
ON CONFLICT (platform_id) DO NOTHING
RETURNING epoch, pg_postmaster_start_time()";

/// What the server says where the lease would be of a platform that has no row.
const FOREIGN_KEY_VIOLATION: &str = "23503";

/// Takes a lease that is free, expired, or held by an earlier life of the same owner, unless a transaction holds its
/// row. The condition is checked again on the locked row, so a renewal that came first wins.
const TAKE_UNLOCKED: &str = "\
UPDATE virt_platform_lease AS lease
SET owner = $2, epoch = lease.epoch + 1, until = clock_timestamp() + make_interval(secs => $3)
FROM (SELECT platform_id FROM virt_platform_lease
      WHERE platform_id = $1 AND (owner = $2 OR until <= clock_timestamp())
      FOR UPDATE SKIP LOCKED) AS free
WHERE lease.platform_id = free.platform_id
RETURNING lease.epoch, pg_postmaster_start_time()";

const IS_FREE: &str = "\
SELECT 1 FROM virt_platform_lease
WHERE platform_id = $1 AND (owner = $2 OR until <= clock_timestamp())";

/// As [`IS_FREE`], checked again after the wait for the row.
const LOCK: &str = "\
SELECT owner FROM virt_platform_lease
WHERE platform_id = $1 AND (owner = $2 OR until <= clock_timestamp())
FOR UPDATE";

const TAKE: &str = "\
UPDATE virt_platform_lease
SET owner = $2, epoch = epoch + 1, until = clock_timestamp() + make_interval(secs => $3)
WHERE platform_id = $1
RETURNING epoch, pg_postmaster_start_time()";

const RENEW: &str = "\
UPDATE virt_platform_lease SET until = clock_timestamp() + make_interval(secs => $4)
WHERE platform_id = $1 AND owner = $2 AND epoch = $3
RETURNING pg_postmaster_start_time() = $5";

const RELEASE: &str = "\
UPDATE virt_platform_lease SET until = clock_timestamp()
WHERE platform_id = $1 AND owner = $2 AND epoch = $3 AND until > clock_timestamp()
  AND pg_postmaster_start_time() = $4";

/// Ends exactly those who block the take-over and carry the old owner's name. Blockers of another name are waited
/// for: they are administrators or the new owner.
const END_BLOCKERS: &str = "\
SELECT platform.name, count(pg_terminate_backend(pid))
FROM virt_platform AS platform
LEFT JOIN virt_platform_lease AS lease USING (platform_id)
LEFT JOIN pg_stat_activity AS activity
  ON pid = ANY (pg_blocking_pids($1))
  AND datname = current_database()
  AND split_part(application_name, '/', 1) = 'virt-collector'
  AND split_part(application_name, '/', 2) = lease.owner
WHERE platform_id = $2
GROUP BY platform.name";

/// Name of one running collector, unique among all that share a database. It is part of each connection's
/// `application_name`, by which a take-over finds the connections of the old owner.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner(Box<str>);

/// A text that cannot name a collector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot name a collector; use 1 to 36 letters, digits, '-', '_' or '.'")]
pub struct OwnerError(String);

impl Owner {
    /// Characters at most: `virt-collector/<owner>/<purpose>` must fit the 63 bytes of an application name.
    pub const MAX_LENGTH: usize = 36;

    /// Checks a name.
    ///
    /// # Errors
    /// When it is empty, too long, or holds other characters than letters, digits, `-`, `_` and `.`.
    pub fn new(name: &str) -> Result<Self, OwnerError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > Self::MAX_LENGTH || !name.chars().all(plain) {
            return Err(OwnerError(name.chars().take(64).collect()));
        }
        Ok(Self(name.into()))
    }

    /// A name that no other collector has, in this life or an earlier one.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string().into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn application_name(&self, purpose: &str) -> String {
        format!("virt-collector/{}/{purpose}", self.0)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The right to write for a platform, as long as its row says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The platform.
    pub platform: PlatformId,
    /// The holder.
    pub owner: Owner,
    /// Grows by one with each take-over.
    pub epoch: i64,
    /// When the server was started that gave it.
    pub server: Stamp,
}

/// Epoch of a lease and start of the server.
type Taken = (i64, Stamp);

/// What came of taking a lease without waiting.
enum Attempt {
    Taken(Taken),
    /// By another collector.
    Held,
    /// It is free, but a transaction holds its row.
    Blocked,
}

impl Database {
    /// Takes a platform's lease if it is free, expired or an earlier one of `owner`; `None` where another collector
    /// holds it. A take-over that is blocked by the old owner's transactions for 5 s ends their connections.
    ///
    /// Not cancel safe in one respect: dropped half-way, the lease may be taken and runs out by itself.
    ///
    /// # Errors
    /// When the database cannot be asked, or transactions of others block the row for too long.
    pub async fn acquire_lease(&self, platform: PlatformId, owner: &Owner) -> Result<Option<Lease>, Error> {
        let taken = match self.take_unlocked(platform, owner).await? {
            Attempt::Taken(taken) => Some(taken),
            Attempt::Held => None,
            Attempt::Blocked => self.take_by_force(platform, owner).await?,
        };
        Ok(taken.map(|(epoch, server)| Lease {
            platform,
            owner: owner.clone(),
            epoch,
            server,
        }))
    }

    /// The usual way, which waits for nobody.
    async fn take_unlocked(&self, platform: PlatformId, owner: &Owner) -> Result<Attempt, Error> {
        let (id, name, ttl) = (platform.0, owner.as_str(), LEASE_TTL.as_secs_f64());
        let parameters: [Parameter<'_>; 3] = [(&id, Type::INT4), (&name, Type::TEXT), (&ttl, Type::FLOAT8)];
        let connection = self.checkout(TAKE_LEASE).await?;
        let inserted = connection
            .query_opt(INSERT, &parameters)
            .await
            .map_err(|error| match error {
                Error::Statement { source, .. } if source.sqlstate() == Some(FOREIGN_KEY_VIOLATION) => {
                    Error::UnknownPlatform { platform }
                }
                other => other,
            })?;
        let taken = match inserted {
            Some(row) => Some(row),
            None => connection.query_opt(TAKE_UNLOCKED, &parameters).await?,
        };
        let attempt = match taken {
            Some(row) => Attempt::Taken((connection.read(&row, 0)?, connection.read(&row, 1)?)),
            None => {
                let free = connection
                    .query_opt(IS_FREE, &[(&id, Type::INT4), (&name, Type::TEXT)])
                    .await?;
                free.map_or(Attempt::Held, |_| Attempt::Blocked)
            }
        };
        connection.done();
        Ok(attempt)
    }

    /// Waits for the row and ends whoever of the old owner's is in the way. On a connection of its own: a collector
    /// that stands still may block a dozen platforms at once, and those who wait must not use up the pool that
    /// renewals need, and that the connections are ended through.
    async fn take_by_force(&self, platform: PlatformId, owner: &Owner) -> Result<Option<Taken>, Error> {
        let connection = self.settings().connect("take-over").await?;
        let read = |source| Error::statement(TAKE_LEASE, source);
        let (id, name, ttl) = (platform.0, owner.as_str(), LEASE_TTL.as_secs_f64());

        // The wait for the row is ours to limit: first patience, then force.
        let begin = connection.batch_execute("BEGIN; SET LOCAL lock_timeout = '30s'");
        bounded(TAKE_LEASE, begin).await?;
        let pid = bounded(
            TAKE_LEASE,
            connection.query_typed_one("SELECT pg_backend_pid()", &[]),
        )
        .await?;
        let pid = pid.try_get(0).map_err(read)?;
        let lock_parameters: [Parameter<'_>; 2] = [(&id, Type::INT4), (&name, Type::TEXT)];
        let locked = {
            let lock = bounded(TAKE_LEASE, connection.query_typed_opt(LOCK, &lock_parameters));
            let mut lock = std::pin::pin!(lock);
            let mut patience = PATIENCE;
            loop {
                match tokio::time::timeout(patience, &mut lock).await {
                    Ok(answer) => break answer?,
                    Err(_elapsed) => {
                        self.end_blockers(platform, pid).await?;
                        // Of several holders of the row only one is waited for at a time.
                        patience = NEXT_BLOCKER;
                    }
                }
            }
        };
        if locked.is_none() {
            return Ok(None);
        }
        let take_parameters: [Parameter<'_>; 3] =
            [(&id, Type::INT4), (&name, Type::TEXT), (&ttl, Type::FLOAT8)];
        let taken = bounded(TAKE_LEASE, connection.query_typed_opt(TAKE, &take_parameters)).await?;
        let taken = taken
            .map(|row| Ok::<Taken, Error>((row.try_get(0).map_err(read)?, row.try_get(1).map_err(read)?)))
            .transpose()?;
        commit(&connection).await?;
        Ok(taken)
    }

    async fn end_blockers(&self, platform: PlatformId, waiting: i32) -> Result<(), Error> {
        let connection = self
            .checkout_now("end connections that block a take-over")
            .await?;
        let row = connection
            .query_opt(END_BLOCKERS, &[(&waiting, Type::INT4), (&platform.0, Type::INT4)])
            .await?;
        if let Some(row) = row {
            let (platform, ended): (String, i64) = (connection.read(&row, 0)?, connection.read(&row, 1)?);
            tracing::warn!(
                platform,
                n_ended = ended,
                "a take-over ended connections of the old owner that block it"
            );
        }
        connection.done();
        Ok(())
    }

    /// Makes a lease good for another [`LEASE_TTL`].
    ///
    /// # Errors
    /// [`Error::Fenced`] where another collector has taken the platform, [`Error::Moved`] where the server is not the
    /// one that gave it.
    pub async fn renew_lease(&self, lease: &Lease) -> Result<(), Error> {
        const ATTEMPT: &str = "renew a platform's lease";
        let renewed = timely(ATTEMPT, async {
            let connection = self.checkout_now(ATTEMPT).await?;
            let renewed = connection
                .query_opt(
                    RENEW,
                    &[
                        (&lease.platform.0, Type::INT4),
                        (&lease.owner.as_str(), Type::TEXT),
                        (&lease.epoch, Type::INT8),
                        (&LEASE_TTL.as_secs_f64(), Type::FLOAT8),
                        (&lease.server, Type::TIMESTAMPTZ),
                    ],
                )
                .await?;
            let is_good = renewed.map(|row| connection.read(&row, 0)).transpose()?;
            connection.done();
            Ok(is_good)
        });
        passed(lease, renewed.await?)
    }

    /// Gives a platform up, so that another collector can take it at once. A lease that was lost already is left
    /// alone.
    ///
    /// # Errors
    /// When the database cannot be asked; the lease then runs out by itself.
    pub async fn release_lease(&self, lease: &Lease) -> Result<(), Error> {
        let connection = self.checkout_now("release a platform's lease").await?;
        connection
            .execute(
                RELEASE,
                &[
                    (&lease.platform.0, Type::INT4),
                    (&lease.owner.as_str(), Type::TEXT),
                    (&lease.epoch, Type::INT8),
                    (&lease.server, Type::TIMESTAMPTZ),
                ],
            )
            .await?;
        connection.done();
        Ok(())
    }
}

/// Awaits what must not come late, the wait for a connection included.
pub(super) async fn timely<T>(
    attempt: &'static str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let late = |_elapsed| Error::Deadline {
        attempt,
        after: RENEW_DEADLINE,
    };
    tokio::time::timeout(RENEW_DEADLINE, work).await.map_err(late)?
}

/// Starts a transaction whose first statement is the fence, in one round trip.
pub(super) async fn begin_fenced(attempt: &'static str, client: &Client, lease: &Lease) -> Result<(), Error> {
    let owner = lease.owner.as_str();
    let [platform_type, owner_type, epoch_type, server_type] = FENCE_TYPES;
    let parameters: [Parameter<'_>; 4] = [
        (&lease.platform.0, platform_type),
        (&owner, owner_type),
        (&lease.epoch, epoch_type),
        (&lease.server, server_type),
    ];
    // Both are sent when they are first polled, in this order.
    let (begun, fence) = bounded(attempt, async {
        Ok(future::join(
            client.batch_execute("BEGIN"),
            client.query_typed_opt(FENCE_SQL, &parameters),
        )
        .await)
    })
    .await?;
    let refused = |source| Error::statement(attempt, source);
    begun.map_err(refused)?;
    let fence = fence.map_err(refused)?;
    let is_good = fence.map(|row| row.try_get(0)).transpose().map_err(refused)?;
    passed(lease, is_good)
}

/// What a row of the lease says of it: none, it is another's; false, the server is another one.
const fn passed(lease: &Lease, is_good: Option<bool>) -> Result<(), Error> {
    let platform = lease.platform;
    match is_good {
        Some(true) => Ok(()),
        Some(false) => Err(Error::Moved { platform }),
        None => Err(Error::Fenced { platform }),
    }
}
