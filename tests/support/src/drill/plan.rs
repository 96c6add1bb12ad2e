//! What happens how often, in which order: all of it follows from the seed.

use std::fmt;

use super::random::Random;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// kill -9 of the collector, at a random moment.
    Kill,
    /// The connection to the database ends between COMMIT and its answer.
    CommitCut,
    /// Every session of the platform expires.
    Session,
    /// A reply of the platform is not whole.
    Truncated,
    /// The database restarts, as an administrator does it.
    RestartFast,
    /// The database restarts, as after a crash.
    RestartImmediate,
    /// The holder of the lease is stopped; another collector takes over.
    Lease,
    /// The holder of the lease is cut off from the database; another collector takes over.
    Partition,
    /// The holder of the lease is told to end; another collector takes over.
    HandOver,
    /// kill -9, and back after most of an hour.
    LongOutage,
    /// kill -9, and back after some hours.
    HoursOutage,
    /// The database is stopped for a while.
    DatabaseStopped,
    /// The connections to the database are reset.
    DatabaseReset,
    /// The connections to the database stand still for a while.
    DatabaseStalled,
    /// The connections to the database are slow.
    DatabaseThrottled,
    /// The database is far away.
    DatabaseLatency,
    /// A connection to the database ends after N bytes.
    DatabaseCut,
    /// The database takes no connections for a while.
    DatabaseRefused,
    /// The database fails over to a standby that misses the last commits.
    Failover,
    /// The database takes no writes for a while.
    ReadOnly,
    /// The database's disk is full for a while.
    DatabaseFull,
    /// Somebody holds a table, or the row of the lease.
    Locked,
    /// A COPY takes longer than the time between two polls.
    DatabaseSlow,
    /// Two hundred callers of the API use up its connections.
    Pool,
    /// The platform cannot be reached.
    VcenterAway,
    /// The connections to the platform are reset.
    VcenterReset,
    /// The connections to the platform stand still for a while.
    VcenterStalled,
    /// The connections to the platform are slow.
    VcenterThrottled,
    /// The platform is far away.
    VcenterLatency,
    /// A connection to the platform ends after N bytes.
    VcenterCut,
    /// The platform restarts: no connection, then no service, then a part of its inventory.
    VcenterRestart,
    /// Sessions of the platform live for a minute.
    SessionMinute,
    /// Nobody calls the platform for longer than a session lives.
    SessionIdle,
    /// The session is ended by hand while calls wait for their answers.
    SessionTerminated,
    /// The password is changed at the platform, later where the collector has it.
    PasswordRotated,
    /// The platform shows another certificate, or none.
    Tls,
    /// VMs are refused in the middle of a batch.
    NotFound,
    /// A reply lacks VMs.
    Partial,
    /// Replies that are none.
    Malformed,
    /// Replies that do not come, or never end.
    SlowLoris,
    /// The counters get other numbers.
    Renumbered,
    /// A VM is deleted.
    VmDeleted,
    /// A VM is created.
    VmCreated,
    /// A VM gets another name.
    VmRenamed,
    /// A VM is powered off and on.
    VmPower,
    /// A VM moves and takes its samples along.
    VmMovedKept,
    /// A VM moves and leaves its samples behind.
    VmMovedReset,
    /// A host is disconnected for a while.
    HostDisconnected,
    /// A host restarts.
    HostRebooted,
    /// Samples are published late.
    Late,
    /// Samples lack values, for a while or for ever.
    PartlyEmpty,
    /// The platform's clock is set forward.
    ClockForward,
    /// The platform's clock is set back.
    ClockBack,
    /// The connections of the lease's holder to the database are ended.
    ConnectionKilled,
    /// The holder of the lease is cut off from the platform, which another collector could reach.
    VcenterPartition,
    /// The collector is told to end in the middle of something.
    Term,
    /// The collector is short of memory, then killed for it.
    Memory,
    /// The collector is short of file descriptors.
    Descriptors,
    /// The log cannot be written, and nothing else either.
    LogLost,
    /// The configuration that is read again is broken.
    ReloadBroken,
    /// The password of one platform of two cannot be opened.
    Credential,
    /// The names of platform and database do not resolve for a while.
    Dns,
    /// The first address of a name is dead.
    DeadAddress,
    /// All connections are reset, many times a second.
    RstStorm,
    /// kill -9 in the middle of actions on VMs.
    OperationKilled,
    /// The platform's clock and the collector's drift apart.
    ClockSkew,
    /// Platform, collector and database are in other time zones, and summer time begins or ends.
    TimeZone,
    /// A VM is registered again.
    VmReRegistered,
    /// kill -9, and back after some hours, when roll-ups are published late.
    LateRollups,
}

/// What the plan knows of a kind.
#[derive(Clone, Copy, Debug)]
struct Fault {
    kind: Kind,
    /// Its part of all faults; of three hundred there are at least so many.
    share: u32,
    word: &'static str,
    /// Rows of the catalogue that it stands for.
    rows: &'static [u8],
    /// What is asked beyond a clean verdict of the oracle.
    pass: &'static str,
}

impl Fault {
    const fn new(
        kind: Kind,
        share: u32,
        word: &'static str,
        rows: &'static [u8],
        pass: &'static str,
    ) -> Self {
        Self {
            kind,
            share,
            word,
            rows,
            pass,
        }
    }
}

impl Kind {
    /// All of them; a line each, so that it reads as a table.
    #[rustfmt::skip]
    const TABLE: &'static [Fault] = &[
        Fault::new(Self::Kill, 60, "kill", &[1], "the next one continues where this one committed"),
        Fault::new(Self::CommitCut, 31, "commit-cut", &[9], "whether the COMMIT counts is asked, not guessed: no row twice, none missing"),
        Fault::new(Self::Session, 21, "session", &[12], "one log-in for each expiry, no poll lost"),
        Fault::new(Self::Truncated, 21, "truncated", &[15], "no part of an answer is taken for a whole"),
        Fault::new(Self::RestartFast, 5, "restart-fast", &[3], "the process goes on"),
        Fault::new(Self::RestartImmediate, 6, "restart-immediate", &[3], "the process goes on, also after a crash in place, and with synchronous_commit = off"),
        Fault::new(Self::Lease, 11, "lease", &[27, 28], "another takes over within TTL + 10 s; the old one commits nothing"),
        Fault::new(Self::Partition, 1, "partition", &[29], "another takes over within TTL + 10 s; the old one commits nothing"),
        Fault::new(Self::HandOver, 1, "hand-over", &[2, 27], "exit 0 within 45 s, the lease given back"),
        Fault::new(Self::LongOutage, 2, "long-outage", &[4], "missing = 0 after up to 50 minutes, also when killed in the back-fill"),
        Fault::new(Self::HoursOutage, 1, "hours-outage", &[4], "what is older than the hour comes as 5-minute statistics"),
        Fault::new(Self::DatabaseStopped, 2, "database-stopped", &[4], "missing = 0 after up to 50 minutes, the process goes on"),
        Fault::new(Self::DatabaseReset, 1, "database-reset", &[3], "the process goes on"),
        Fault::new(Self::DatabaseStalled, 1, "database-stalled", &[8], "the process goes on, nothing piles up"),
        Fault::new(Self::DatabaseThrottled, 1, "database-throttled", &[8], "the process goes on, nothing piles up"),
        Fault::new(Self::DatabaseLatency, 1, "database-latency", &[8], "the process goes on, nothing piles up"),
        Fault::new(Self::DatabaseCut, 2, "database-cut", &[9], "no row twice, none missing"),
        Fault::new(Self::DatabaseRefused, 1, "database-refused", &[3], "the process goes on"),
        Fault::new(Self::Failover, 3, "failover", &[5], "what the standby missed is read again; who was known by a lost key gets its own; an old primary that comes back is not written to"),
        Fault::new(Self::ReadOnly, 2, "read-only", &[6], "25006 counted; the primary is found again, no error of data"),
        Fault::new(Self::DatabaseFull, 2, "database-full", &[7], "53100 counted, at most one attempt in 5 s, the process goes on, then everything is stored"),
        Fault::new(Self::Locked, 2, "locked", &[8], "55P03 counted, the process goes on within its memory"),
        Fault::new(Self::DatabaseSlow, 1, "database-slow", &[8], "the polls that a COPY of 30 s costs are counted, the process goes on within its memory"),
        Fault::new(Self::Pool, 2, "pool", &[10], "new samples are stored while 200 callers wait"),
        Fault::new(Self::VcenterAway, 2, "vcenter-away", &[11], "missing = 0 after up to 50 minutes"),
        Fault::new(Self::VcenterReset, 1, "vcenter-reset", &[11], "the process goes on"),
        Fault::new(Self::VcenterStalled, 1, "vcenter-stalled", &[18], "each call has its deadline"),
        Fault::new(Self::VcenterThrottled, 1, "vcenter-throttled", &[18], "each call has its deadline"),
        Fault::new(Self::VcenterLatency, 1, "vcenter-latency", &[18], "each call has its deadline"),
        Fault::new(Self::VcenterCut, 2, "vcenter-cut", &[15], "no part of an answer is taken for a whole"),
        Fault::new(Self::VcenterRestart, 2, "vcenter-restart", &[11], "no host or VM taken for removed; one log-in at most for each step of the back-off"),
        Fault::new(Self::SessionMinute, 1, "session-minute", &[12], "no more log-ins than expiries, no poll lost, two sessions open at most"),
        Fault::new(Self::SessionIdle, 1, "session-idle", &[12], "no more log-ins than expiries, no poll lost, two sessions open at most"),
        Fault::new(Self::SessionTerminated, 1, "session-terminated", &[12], "no more log-ins than expiries, no poll lost, two sessions open at most"),
        Fault::new(Self::PasswordRotated, 1, "password-rotated", &[13], "one attempt, status and metric say auth, nothing is sent until it is mended"),
        Fault::new(Self::Tls, 2, "tls", &[17], "refused, status and metric say why, not one request to the wrong server"),
        Fault::new(Self::NotFound, 1, "not-found", &[14], "the others of the batch are stored, the fault counted by type"),
        Fault::new(Self::Partial, 1, "partial", &[14], "the others are stored, what lacks is counted"),
        Fault::new(Self::Malformed, 3, "malformed", &[16], "counted by type, memory + 64 MiB at most"),
        Fault::new(Self::SlowLoris, 1, "slow-loris", &[18], "the deadline is for the whole call"),
        Fault::new(Self::Renumbered, 2, "renumbered", &[21], "no value under a wrong name"),
        Fault::new(Self::VmDeleted, 2, "vm-deleted", &[22], "its history stays, its end is explained"),
        Fault::new(Self::VmCreated, 2, "vm-created", &[22], "its samples from the first on"),
        Fault::new(Self::VmRenamed, 1, "vm-renamed", &[22], "one history"),
        Fault::new(Self::VmPower, 3, "vm-power", &[23], "the time between is explained"),
        Fault::new(Self::VmMovedKept, 2, "vm-moved-kept", &[23], "no row twice"),
        Fault::new(Self::VmMovedReset, 2, "vm-moved-reset", &[23], "what it left behind is explained"),
        Fault::new(Self::HostDisconnected, 2, "host-disconnected", &[23], "the time between is explained"),
        Fault::new(Self::HostRebooted, 1, "host-rebooted", &[23], "what it forgot is explained"),
        Fault::new(Self::Late, 2, "late", &[24], "stored by the look back, no row twice"),
        Fault::new(Self::PartlyEmpty, 2, "partly-empty", &[14], "stored with NULL, or once it is filled in"),
        Fault::new(Self::ClockForward, 1, "clock-forward", &[19], "no watermark in the future, each sample once"),
        Fault::new(Self::ClockBack, 1, "clock-back", &[19], "no watermark in the future, each sample once"),
        Fault::new(Self::ConnectionKilled, 1, "connection-killed", &[27], "the process goes on, the lease stays where it is"),
        Fault::new(Self::VcenterPartition, 1, "vcenter-partition", &[29], "the lease stays, the status says why; the holder ended, another reads up to 50 minutes back"),
        Fault::new(Self::Term, 4, "term", &[2], "exit 0 within 45 s, no session left open, the lease given back: another takes over at once"),
        Fault::new(Self::Memory, 1, "memory", &[26], "short of memory it goes on; killed for it, it comes back as after a kill"),
        Fault::new(Self::Descriptors, 1, "descriptors", &[31], "the process goes on, says so and neither floods its log nor spins"),
        Fault::new(Self::LogLost, 1, "log-lost", &[31], "the process goes on, and logs again as soon as it can"),
        Fault::new(Self::ReloadBroken, 1, "reload-broken", &[32], "the configuration before stays in force, a metric says so"),
        Fault::new(Self::Credential, 1, "credential", &[32], "that platform alone is down, and says why"),
        Fault::new(Self::Dns, 1, "dns", &[30], "few attempts, no more descriptors than before"),
        Fault::new(Self::DeadAddress, 1, "dead-address", &[30], "the second address is used, the lease is kept"),
        Fault::new(Self::RstStorm, 1, "rst-storm", &[30], "few attempts, no more descriptors than before"),
        Fault::new(Self::OperationKilled, 2, "operation-killed", &[33], "each action done once or not at all, each ended and audited once"),
        Fault::new(Self::ClockSkew, 1, "clock-skew", &[19], "the skew is told, no row from the future, each sample once"),
        Fault::new(Self::TimeZone, 1, "time-zone", &[20], "the same rows as in UTC"),
        Fault::new(Self::VmReRegistered, 1, "vm-reregistered", &[22], "one history over its instance UUID"),
        Fault::new(Self::LateRollups, 1, "late-rollups", &[24], "stored although 15 or 40 minutes late, no row twice"),
    ];

    /// Every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::TABLE.iter().map(|fault| fault.kind)
    }

    /// Its word on the command line and in the report.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::TABLE
            .iter()
            .find(|fault| fault.kind == self)
            .map_or("", |fault| fault.word)
    }

    /// The rows of the catalogue that it stands for, and what is asked beyond a clean verdict of the oracle.
    #[must_use]
    pub fn criterion(self) -> (&'static [u8], &'static str) {
        Self::TABLE
            .iter()
            .find(|fault| fault.kind == self)
            .map_or((&[], ""), |fault| (fault.rows, fault.pass))
    }

    /// The kind of a word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::TABLE
            .iter()
            .find(|fault| fault.word == word)
            .map(|fault| fault.kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a drill does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Root of everything that is left to chance.
    pub seed: u64,
    /// The private cluster that it uses, alone.
    pub cluster: String,
    /// Hosts of the simulated vCenter; three at least.
    pub hosts: usize,
    /// Its VMs.
    pub vms: usize,
    /// How often each kind happens.
    pub counts: Vec<(Kind, u32)>,
    /// New polls and new inventories come from a start of the collector wherever a fault does not forbid it, so that
    /// nobody waits for the next tick.
    pub hasty: bool,
}

impl Plan {
    /// So many faults, every kind among them as long as there are enough.
    #[must_use]
    pub fn of(seed: u64, cluster: &str, faults: u32) -> Self {
        let whole: u32 = Kind::TABLE.iter().map(|fault| fault.share).sum();
        let mut counts: Vec<(Kind, u32)> = Kind::TABLE
            .iter()
            .map(|fault| (fault.kind, (fault.share * faults / whole).max(1)))
            .collect();
        let given: u32 = counts.iter().map(|(_, n)| n).sum();
        let left = usize::try_from(faults.saturating_sub(given)).unwrap_or(usize::MAX);
        // The first kinds are those that there should be most of.
        let n_kinds = counts.len();
        for index in 0..left {
            if let Some((_, n)) = counts.get_mut(index % n_kinds) {
                *n += 1;
            }
        }
        Self::with(seed, cluster, counts)
    }

    /// These faults.
    #[must_use]
    pub fn with(seed: u64, cluster: &str, counts: Vec<(Kind, u32)>) -> Self {
        Self {
            seed,
            cluster: cluster.to_owned(),
            hosts: 3,
            vms: 10,
            counts,
            hasty: false,
        }
    }

    /// Five short ones to run side by side in every test run. Each has a cluster of its own, since two of them
    /// restart or replace its server.
    #[must_use]
    pub fn quick(seed: u64) -> [Self; 5] {
        const DATABASE: [(Kind, u32); 4] = [
            (Kind::CommitCut, 2),
            (Kind::RestartFast, 1),
            (Kind::RestartImmediate, 1),
            (Kind::DatabaseStopped, 1),
        ];
        const VCENTER: [(Kind, u32); 18] = [
            (Kind::Session, 2),
            (Kind::Truncated, 2),
            (Kind::VcenterAway, 1),
            (Kind::NotFound, 1),
            (Kind::Partial, 1),
            (Kind::TimeZone, 1),
            (Kind::Renumbered, 1),
            (Kind::VmDeleted, 1),
            (Kind::VmCreated, 1),
            (Kind::VmRenamed, 1),
            (Kind::VmPower, 1),
            (Kind::VmMovedKept, 1),
            (Kind::VmMovedReset, 1),
            (Kind::HostDisconnected, 1),
            (Kind::Late, 1),
            (Kind::PartlyEmpty, 1),
            (Kind::ClockForward, 1),
            (Kind::ClockBack, 1),
        ];
        [
            ("drill-test-kill", [(Kind::Kill, 20)].as_slice()),
            ("drill-test-lease", &[(Kind::Lease, 1)]),
            ("drill-test-failover", &[(Kind::Failover, 1)]),
            ("drill-test-database", &DATABASE),
            ("drill-test-vcenter", &VCENTER),
        ]
        .map(|(cluster, counts)| Self {
            hasty: true,
            ..Self::with(seed, cluster, counts.to_vec())
        })
    }

    /// Faults in all.
    #[must_use]
    pub fn faults(&self) -> u32 {
        self.counts.iter().map(|(_, n)| n).sum()
    }

    /// The faults in their order.
    #[must_use]
    pub fn sequence(&self) -> Vec<Kind> {
        let mut all: Vec<Kind> = self
            .counts
            .iter()
            .flat_map(|(kind, n)| (0..*n).map(|_| *kind))
            .collect();
        Random::new(self.seed).shuffle(&mut all);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_hundred_faults_hold_what_is_asked_of_each_kind() {
        let plan = Plan::of(1, "drill", 300);
        let sequence = plan.sequence();
        assert_eq!(sequence.len(), 300);
        let n = |kind| sequence.iter().filter(|other| **other == kind).count();
        assert!(Kind::all().all(|kind| n(kind) >= 1));
        assert!(n(Kind::Kill) >= 60 && n(Kind::CommitCut) >= 30);
        assert!(n(Kind::Session) >= 20 && n(Kind::Truncated) >= 20);
        assert!(n(Kind::RestartFast) + n(Kind::RestartImmediate) >= 10 && n(Kind::Lease) >= 10);
        assert_eq!(sequence, plan.sequence());
        assert_ne!(sequence, Plan::of(2, "drill", 300).sequence());
        assert_eq!(Plan::of(1, "drill", 500).faults(), 500);
        assert!(Kind::all().all(|kind| Kind::of(kind.word()) == Some(kind)));
    }
}
