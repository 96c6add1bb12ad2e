//! The daemon's own metrics: names, help, labels, and the handles through which the parts count.
//!
//! A name stands here once, as data in [`ALL`]; the README's table is held against it by a test. Labels come from
//! closed sets, and `platform` from configuration, so that the number of series is bounded. Timestamps are exported
//! as such, not as ages. `process_*` are the names that Prometheus gives every program. Handles are registered once per platform or part, never looked up in a loop.

#![expect(clippy::disallowed_macros, reason = "this module owns the metrics macros")]

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};
/// Renders the text of `/metrics`.
pub use metrics_exporter_prometheus::PrometheusHandle as Handle;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use procfs::WithCurrentSystemInfo as _;
use procfs::process::{LimitValue, Process};

use crate::clock::SystemClock;
use crate::clock::WallClock as _;
use crate::model::gap::Reason;
use crate::model::ids::EntityKind;
use crate::model::rollup::Level;
use crate::model::status::PlatformState;
use crate::units::Stamp;

/// The kinds of metric.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in these buckets.
    Histogram(&'static [f64]),
}

/// A metric as documented.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Full name.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Labels.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

const AGE_BUCKETS: &[f64] = &[5., 10., 20., 30., 45., 60., 90., 120., 300., 900., 3600.];
const CYCLE_BUCKETS: &[f64] = &[0.1, 0.25, 0.5, 1., 2.5, 5., 10., 20., 30., 60., 120., 300.];
const FLUSH_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1., 2.5, 5., 10., 30.];

macro_rules! metrics_table {
    ($($(#[$attr:meta])* $constant:ident = $name:literal, $kind:expr, [$($label:literal),*], $help:literal;)+) => {
        $($(#[$attr])* const $constant: &str = $name;)+
        /// Every metric of the daemon, in the order of the README.
        pub const ALL: &[Metric] = &[
            $(Metric { name: $name, kind: $kind, labels: &[$($label),*], help: $help },)+
        ];
    };
}

metrics_table! {
    BUILD_INFO = "virt_collector_build_info", Kind::Gauge, ["version"],
        "Always 1; the version is in the label.";
    CONFIG_RELOADED = "virt_collector_config_last_reload_successful", Kind::Gauge, [],
        "1 while the configuration is in force that was last read, 0 where it was refused and the one before is.";
    CONFIG_RELOADED_AT = "virt_collector_config_last_reload_success_timestamp_seconds", Kind::Gauge, [],
        "When the configuration in force was read, at the start or by SIGHUP, in the collector's clock.";
    LOG_LINES_LOST = "virt_collector_log_lines_lost_total", Kind::Counter, [],
        "Lines of the log that were not written, because who reads it stood still or its disk was full.";
    PROCESS_STARTED = "process_start_time_seconds", Kind::Gauge, [],
        "When the process was started, in the collector's clock.";
    PROCESS_CPU = "process_cpu_seconds_total", Kind::Counter, [],
        "CPU time that the process has taken, in whole seconds.";
    PROCESS_MEMORY = "process_resident_memory_bytes", Kind::Gauge, [],
        "Resident memory of the process: the byte budget, as far as it is in use, and all else.";
    PROCESS_FDS = "process_open_fds", Kind::Gauge, [],
        "Open file descriptors, most of them connections.";
    PROCESS_MAX_FDS = "process_max_fds", Kind::Gauge, [],
        "How many of them there may be.";
    PLATFORM_UP = "virt_collector_platform_up", Kind::Gauge, ["platform"],
        "1 while the last poll of the platform succeeded, else 0, also where another collector owns it.";
    PLATFORM_STATUS = "virt_collector_platform_status", Kind::Gauge, ["platform", "status"],
        "1 for the platform's status, 0 for the others: connected, disconnected, maintenance, or the class of its error (unreachable, tls, auth, permission, timeout, identity). 0 for all once it was removed or deactivated.";
    NEWEST_SAMPLE = "virt_collector_platform_newest_sample_timestamp_seconds", Kind::Gauge, ["platform"],
        "Stamp of the newest stored sample, in the platform's own clock.";
    LAST_SUCCESS = "virt_collector_platform_last_success_timestamp_seconds", Kind::Gauge, ["platform"],
        "When a poll last succeeded, in the collector's clock.";
    CLOCK_SKEW = "virt_collector_platform_clock_skew_seconds", Kind::Gauge, ["platform"],
        "The platform's clock minus the collector's.";
    ENTITIES = "virt_collector_entities", Kind::Gauge, ["platform", "kind"],
        "Hosts and VMs in the live set.";
    LEASE_HELD = "virt_collector_lease_held", Kind::Gauge, ["platform"],
        "1 while this collector owns the platform.";
    LEASE_TAKEOVERS = "virt_collector_lease_takeovers_total", Kind::Counter, ["platform"],
        "How often this collector became the owner of the platform.";
    POLLS = "virt_collector_polls_total", Kind::Counter, ["platform", "lane", "result"],
        "Polls of the live, ring and rollup lanes and discoveries, by result (ok, error).";
    POLLS_SKIPPED = "virt_collector_polls_skipped_total", Kind::Counter, ["platform"],
        "Ticks that found the poll before still running.";
    POLL_DURATION = "virt_collector_poll_duration_seconds", Kind::Histogram(CYCLE_BUCKETS), ["platform", "lane"],
        "From the tick to the commit of its last row.";
    SAMPLES_RECEIVED = "virt_collector_samples_received_total", Kind::Counter, ["platform"],
        "Samples decoded from replies.";
    SAMPLES_DROPPED = "virt_collector_samples_dropped_total", Kind::Counter, ["platform", "reason"],
        "Samples not stored: known (stored before), overlap, held (asked again when settled), refused (insane stamp), requeried (thrown away with a failed flush and asked again), poison (refused by the database).";
    ROWS_WRITTEN = "virt_collector_rows_written_total", Kind::Counter, ["platform", "kind"],
        "Rows committed.";
    ROWS_DUPLICATE = "virt_collector_rows_duplicate_total", Kind::Counter, ["platform"],
        "Rows left out because they were stored already.";
    SAMPLE_AGE = "virt_collector_sample_age_at_commit_seconds", Kind::Histogram(AGE_BUCKETS), ["platform"],
        "Age of a live sample when it is committed, by the platform's clock.";
    GAPS_OPEN = "virt_collector_gaps_open", Kind::Gauge, ["platform"],
        "Gaps that are yet to be asked for.";
    GAPS_OLDEST = "virt_collector_gap_oldest_start_timestamp_seconds", Kind::Gauge, ["platform"],
        "Where the oldest of them starts: the stamp of the row before it, in the platform's own clock. 0 where there is none.";
    GAPS_EXPLAINED = "virt_collector_gaps_explained_total", Kind::Counter, ["platform", "reason"],
        "Gaps whose samples cannot be had, by reason.";
    SAMPLES_RECOVERED = "virt_collector_gap_samples_recovered_total", Kind::Counter, ["platform"],
        "Samples stored by back-fill.";
    FLUSHES = "virt_collector_flushes_total", Kind::Counter, ["platform", "result"],
        "Transactions of samples, by result (ok, error, unknown, fenced).";
    FLUSH_DURATION = "virt_collector_flush_duration_seconds", Kind::Histogram(FLUSH_BUCKETS), ["platform"],
        "From the first statement to the commit.";
    ROLLUP_BUCKETS = "virt_collector_rollup_buckets_total", Kind::Counter, ["platform", "level"],
        "Buckets made of hosts, of VMs or of datastores, by level (5m, 1h, 1d).";
    ROLLUP_ROWS = "virt_collector_rollup_rows_total", Kind::Counter, ["platform"],
        "Rows written to the tables of roll-ups.";
    ROLLUP_DURATION = "virt_collector_rollup_duration_seconds", Kind::Histogram(FLUSH_BUCKETS), ["platform"],
        "Transactions that made roll-ups, from the first statement to the commit.";
    ROLLUP_PENDING = "virt_collector_rollup_pending", Kind::Gauge, ["platform"],
        "Notes of buckets that are yet to be made, due or not.";
    ROLLUP_FIRST_DUE = "virt_collector_rollup_first_due_timestamp_seconds", Kind::Gauge, ["platform"],
        "When the first of them is due, in the database's clock; 0 where there is none. Long past: roll-ups are not made.";
    ENTITIES_SKIPPED = "virt_collector_entities_skipped_total", Kind::Counter, ["platform"],
        "Entities left out of a poll because the server refused them alone.";
    BATCH_SIZE = "virt_collector_entities_per_request", Kind::Gauge, ["platform"],
        "Entities asked for in one request, as adapted.";
    SOAP_REQUESTS = "virt_collector_soap_requests_total", Kind::Counter, ["platform", "method", "result"],
        "Calls to the platform, by method and result (ok, fault, error).";
    SOAP_FAILURES = "virt_collector_soap_failures_total", Kind::Counter, ["platform", "type"],
        "Calls without a result, by type of fault or kind of failure.";
    SOAP_DURATION = "virt_collector_soap_duration_seconds", Kind::Histogram(FLUSH_BUCKETS), ["platform", "method"],
        "Duration of a call, reply read.";
    CIRCUIT = "virt_collector_circuit_state", Kind::Gauge, ["platform"],
        "0 while calls pass, 2 while none is sent because the platform is down, 1 while one call finds out whether it is back.";
    ODDITIES = "virt_collector_reply_oddities_total", Kind::Counter, ["platform", "kind"],
        "What replies held that they should not, or lacked, by kind: entity_missing, entity_unknown, entity_twice, counter_unknown, instance_unknown, series_twice, stamp_bad, stamp_twice, interval_other, value_bad, value_out_of_range, sample_empty.";
    RESPONSE_BYTES = "virt_collector_response_bytes_total", Kind::Counter, ["platform"],
        "Bytes of replies, decompressed.";
    LOGINS = "virt_collector_logins_total", Kind::Counter, ["platform", "result"],
        "Logins, by result (ok, refused, error).";
    OPERATIONS = "virt_collector_operations_total", Kind::Counter, ["platform", "action", "result"],
        "Power and snapshot actions that ended, by action and result (succeeded, failed, unknown).";
    OPERATIONS_OPEN = "virt_collector_operations_open", Kind::Gauge, ["platform"],
        "Power and snapshot actions that are queued or at work.";
    MEMORY_BUDGET = "virt_collector_memory_budget_bytes", Kind::Gauge, [],
        "The byte budget for replies and rows in flight.";
    MEMORY_RESERVED = "virt_collector_memory_reserved_bytes", Kind::Gauge, [],
        "What of the budget is in use.";
    DATABASE_UP = "virt_collector_database_up", Kind::Gauge, [],
        "1 while the database answers and its schema fits.";
    DATABASE_ERRORS = "virt_collector_database_errors_total", Kind::Counter, ["class"],
        "Failed database work, by class of SQLSTATE.";
    RETENTION_SUCCESS = "virt_collector_retention_last_success_timestamp_seconds", Kind::Gauge, [],
        "When this collector last dropped everything that is older than it is kept, in its clock; collectors take turns.";
    CHUNKS_DROPPED = "virt_collector_retention_chunks_dropped_total", Kind::Counter, ["relation"],
        "Chunks of samples and roll-ups dropped because of their age.";
    CHUNKS_KEPT_BACK = "virt_collector_retention_kept_back", Kind::Gauge, ["relation"],
        "1 while the oldest chunk is due to be dropped but holds what is yet to be rolled up.";
    CONNECTIONS = "virt_collector_http_connections", Kind::Gauge, ["endpoint"],
        "Open connections of the endpoints admin and api.";
    CONNECTIONS_REFUSED = "virt_collector_http_connections_refused_total", Kind::Counter, ["endpoint", "reason"],
        "Connections closed before a request, by reason: address (too many of one address), tls (no handshake in time).";
    API_REQUESTS = "virt_collector_api_requests_total", Kind::Counter, ["route", "status"],
        "Requests to the admin API, by route and status of the answer; other where there is no such route.";
    API_DURATION = "virt_collector_api_request_duration_seconds", Kind::Histogram(FLUSH_BUCKETS), ["route"],
        "From the end of the header to the answer, waiting for an action included.";
    API_IN_FLIGHT = "virt_collector_api_requests_in_flight", Kind::Gauge, [],
        "Requests that are being answered.";
    API_DENIED = "virt_collector_api_denied_total", Kind::Counter, ["reason"],
        "Requests refused for who sent them, by reason: unauthenticated, forbidden, out_of_scope, rate_limited, overloaded.";
    API_AUDIT_FAILURES = "virt_collector_api_audit_failures_total", Kind::Counter, [],
        "Entries of the audit log that could not be written. What was to be done was not done; a denial stands.";
    API_AUDIT_SKIPPED = "virt_collector_api_audit_skipped_total", Kind::Counter, [],
        "Denied requests without an entry of their own, because there were too many in that minute.";
    API_CERTIFICATE = "virt_collector_api_certificate_expiry_timestamp_seconds", Kind::Gauge, [],
        "When the certificate of the admin API runs out; absent where the API has none.";
    API_PANICS = "virt_collector_api_panics_total", Kind::Counter, [],
        "Requests that ended in a defect of the daemon.";
}

/// Installs the recorder. What it returns renders the text of `/metrics`.
///
/// # Errors
/// When a recorder is installed already.
pub fn install() -> Result<Handle, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in ALL {
        if let Kind::Histogram(buckets) = metric.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
        }
    }
    let handle = builder.install_recorder()?;
    for metric in ALL {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, Unit::Count, metric.help),
            Kind::Histogram(_) => metrics::describe_histogram!(metric.name, Unit::Seconds, metric.help),
        }
    }
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    // From the kernel it would take the boot time, which the unit's sandbox hides.
    gauge!(PROCESS_STARTED).set(SystemClock.now().as_seconds_f64());
    look_at_process();
    Ok(handle)
}

/// What the process takes is read now, of `/proc/self`: to be called by whoever renders the metrics. What cannot be read
/// stays as it was.
pub fn look_at_process() {
    let Ok(process) = Process::myself() else {
        return;
    };
    if let Ok(stat) = process.stat() {
        let cpu = stat.utime.saturating_add(stat.stime);
        counter!(PROCESS_CPU).absolute(cpu.checked_div(procfs::ticks_per_second()).unwrap_or(0));
        gauge!(PROCESS_MEMORY).set(large(stat.rss_bytes().get()));
    }
    if let Ok(n_open) = process.fd_count() {
        gauge!(PROCESS_FDS).set(count(n_open));
    }
    if let Ok(limits) = process.limits() {
        gauge!(PROCESS_MAX_FDS).set(match limits.max_open_files.soft_limit {
            LimitValue::Unlimited => f64::INFINITY,
            LimitValue::Value(most) => large(most),
        });
    }
}

/// The configuration was read at `now`, and is in force or refused.
pub fn config_read(in_force: bool, now: Stamp) {
    gauge!(CONFIG_RELOADED).set(if in_force { 1.0 } else { 0.0 });
    if in_force {
        gauge!(CONFIG_RELOADED_AT).set(now.as_seconds_f64());
    }
}

/// The lanes in which samples and inventory are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Newest samples, every poll interval.
    Live,
    /// Gaps that the one-hour ring can still fill.
    Ring,
    /// Gaps that only roll-ups can fill.
    Rollup,
    /// Hosts and VMs.
    Discovery,
}

impl Lane {
    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Ring => "ring",
            Self::Rollup => "rollup",
            Self::Discovery => "discovery",
        }
    }
}

/// Why a decoded sample was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// Stored before.
    Known,
    /// Its interval overlaps a stored one.
    Overlap,
    /// Not settled yet; asked again.
    Held,
    /// Its stamp lies outside the sane range.
    Refused,
    /// Thrown away with a failed flush; asked again.
    Requeried,
    /// Refused by the database.
    Poison,
}

/// The counters and gauges of one lane.
#[derive(Debug, Clone)]
pub struct LaneMetrics {
    ok: Counter,
    error: Counter,
    duration: Histogram,
}

impl LaneMetrics {
    fn new(platform: &str, lane: Lane) -> Self {
        let name = platform.to_owned();
        let result = |result: &'static str| counter!(POLLS, "platform" => name.clone(), "lane" => lane.as_str(), "result" => result);
        Self {
            ok: result("ok"),
            error: result("error"),
            duration: histogram!(POLL_DURATION, "platform" => name.clone(), "lane" => lane.as_str()),
        }
    }

    /// One poll ended.
    pub fn polled(&self, ok: bool, took: Duration) {
        if ok { &self.ok } else { &self.error }.increment(1);
        self.duration.record(took);
    }
}

/// Everything counted per platform, registered at zero when the platform starts.
#[derive(Debug, Clone)]
pub struct PlatformMetrics {
    name: String,
    up: Gauge,
    newest_sample: Gauge,
    last_success: Gauge,
    clock_skew: Gauge,
    entities: [Gauge; 2],
    lease_held: Gauge,
    lease_takeovers: Counter,
    polls_skipped: Counter,
    received: Counter,
    dropped: [Counter; 6],
    rows: [Counter; 2],
    duplicate: Counter,
    sample_age: Histogram,
    gaps_open: Gauge,
    gaps_oldest: Gauge,
    recovered: Counter,
    flush_ok: Counter,
    flush_error: Counter,
    flush_unknown: Counter,
    flush_fenced: Counter,
    flush_duration: Histogram,
    skipped_entities: Counter,
    batch_size: Gauge,
    operations_open: Gauge,
    circuit: Gauge,
    response_bytes: Counter,
    logins: [Counter; 3],
    /// The live lane.
    pub live: LaneMetrics,
    /// The ring lane.
    pub ring: LaneMetrics,
    /// The roll-up lane.
    pub rollup: LaneMetrics,
    /// Discoveries.
    pub discovery: LaneMetrics,
}

/// How a flush ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushResult {
    /// Committed.
    Ok,
    /// Rolled back.
    Error,
    /// The connection was lost at COMMIT.
    Unknown,
    /// This collector no longer owns the platform.
    Fenced,
}

/// How a login ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginResult {
    /// A session.
    Ok,
    /// Wrong user or password.
    Refused,
    /// Any other failure.
    Error,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallResult {
    /// A reply.
    Ok,
    /// A SOAP fault.
    Fault,
    /// No reply, or one that makes no sense.
    Error,
}

impl PlatformMetrics {
    /// Registers a platform's series.
    #[must_use]
    pub fn new(platform: &str) -> Self {
        let name = platform.to_owned();
        let dropped =
            |reason: &'static str| counter!(SAMPLES_DROPPED, "platform" => name.clone(), "reason" => reason);
        let flush = |result: &'static str| counter!(FLUSHES, "platform" => name.clone(), "result" => result);
        let login = |result: &'static str| counter!(LOGINS, "platform" => name.clone(), "result" => result);
        // A counter that first appears with its first event has no increase to be alerted about.
        for reason in Reason::ALL {
            counter!(GAPS_EXPLAINED, "platform" => name.clone(), "reason" => reason.as_str()).increment(0);
        }
        Self {
            up: gauge!(PLATFORM_UP, "platform" => name.clone()),
            newest_sample: gauge!(NEWEST_SAMPLE, "platform" => name.clone()),
            last_success: gauge!(LAST_SUCCESS, "platform" => name.clone()),
            clock_skew: gauge!(CLOCK_SKEW, "platform" => name.clone()),
            entities: EntityKind::ALL
                .map(|kind| gauge!(ENTITIES, "platform" => name.clone(), "kind" => kind.as_str())),
            lease_held: gauge!(LEASE_HELD, "platform" => name.clone()),
            lease_takeovers: counter!(LEASE_TAKEOVERS, "platform" => name.clone()),
            polls_skipped: counter!(POLLS_SKIPPED, "platform" => name.clone()),
            received: counter!(SAMPLES_RECEIVED, "platform" => name.clone()),
            dropped: ["known", "overlap", "held", "refused", "requeried", "poison"].map(dropped),
            rows: EntityKind::ALL
                .map(|kind| counter!(ROWS_WRITTEN, "platform" => name.clone(), "kind" => kind.as_str())),
            duplicate: counter!(ROWS_DUPLICATE, "platform" => name.clone()),
            sample_age: histogram!(SAMPLE_AGE, "platform" => name.clone()),
            gaps_open: gauge!(GAPS_OPEN, "platform" => name.clone()),
            gaps_oldest: gauge!(GAPS_OLDEST, "platform" => name.clone()),
            recovered: counter!(SAMPLES_RECOVERED, "platform" => name.clone()),
            flush_ok: flush("ok"),
            flush_error: flush("error"),
            flush_unknown: flush("unknown"),
            flush_fenced: flush("fenced"),
            flush_duration: histogram!(FLUSH_DURATION, "platform" => name.clone()),
            skipped_entities: counter!(ENTITIES_SKIPPED, "platform" => name.clone()),
            batch_size: gauge!(BATCH_SIZE, "platform" => name.clone()),
            operations_open: gauge!(OPERATIONS_OPEN, "platform" => name.clone()),
            circuit: gauge!(CIRCUIT, "platform" => name.clone()),
            response_bytes: counter!(RESPONSE_BYTES, "platform" => name.clone()),
            logins: ["ok", "refused", "error"].map(login),
            live: LaneMetrics::new(platform, Lane::Live),
            ring: LaneMetrics::new(platform, Lane::Ring),
            rollup: LaneMetrics::new(platform, Lane::Rollup),
            discovery: LaneMetrics::new(platform, Lane::Discovery),
            name: platform.to_owned(),
        }
    }

    /// A poll succeeded at `now` of the collector's clock.
    pub fn succeeded(&self, now: Stamp) {
        self.up.set(1.0);
        self.last_success.set(now.as_seconds_f64());
    }

    /// A poll failed.
    pub fn failed(&self) {
        self.up.set(0.0);
    }

    /// The newest stored sample.
    pub fn newest_sample(&self, stamp: Stamp) {
        self.newest_sample.set(stamp.as_seconds_f64());
    }

    /// The platform's clock against the collector's.
    pub fn clock(&self, server: Stamp, local: Stamp) {
        self.clock_skew
            .set(server.as_seconds_f64() - local.as_seconds_f64());
    }

    /// Size of the live set.
    pub fn live_entities(&self, n_hosts: usize, n_vms: usize) {
        for (gauge, n) in self.entities.iter().zip([n_hosts, n_vms]) {
            gauge.set(count(n));
        }
    }

    /// This collector has become the platform's owner, or is it no more.
    pub fn lease(&self, held: bool) {
        self.lease_held.set(if held { 1.0 } else { 0.0 });
        if held {
            self.lease_takeovers.increment(1);
        } else {
            self.up.set(0.0);
        }
    }

    /// Ticks that found the loop busy.
    pub fn polls_skipped(&self, n: u32) {
        self.polls_skipped.increment(u64::from(n));
    }

    /// Samples decoded.
    pub fn received(&self, n: u64) {
        self.received.increment(n);
    }

    /// Samples not stored.
    pub fn dropped(&self, reason: Dropped, n: usize) {
        if let Some(counter) = self.dropped.get(reason as usize) {
            counter.increment(n as u64);
        }
    }

    /// Rows committed.
    pub fn rows_written(&self, kind: EntityKind, n: u64) {
        if let Some(counter) = self.rows.get(kind as usize) {
            counter.increment(n);
        }
    }

    /// Rows that were stored already.
    pub fn rows_duplicate(&self, n: u64) {
        self.duplicate.increment(n);
    }

    /// Age of a live sample at commit.
    pub fn sample_age(&self, age: Duration) {
        self.sample_age.record(age);
    }

    /// Open gaps of the platform, and where the oldest starts.
    pub fn gaps_open(&self, n: u64, oldest: Option<Stamp>) {
        self.gaps_open.set(large(n));
        self.gaps_oldest.set(oldest.map_or(0.0, Stamp::as_seconds_f64));
    }

    /// Gaps explained.
    pub fn gaps_explained(&self, reason: Reason, n: usize) {
        counter!(GAPS_EXPLAINED, "platform" => self.name.clone(), "reason" => reason.as_str())
            .increment(n as u64);
    }

    /// Actions that are queued or at work.
    pub fn operations_open(&self, n: usize) {
        self.operations_open.set(count(n));
    }

    /// An action ended; both words are from closed sets.
    pub fn operation_ended(&self, action: &'static str, result: &'static str) {
        counter!(OPERATIONS, "platform" => self.name.clone(), "action" => action, "result" => result)
            .increment(1);
    }

    /// Samples stored by back-fill.
    pub fn recovered(&self, n: usize) {
        self.recovered.increment(n as u64);
    }

    /// A flush ended.
    pub fn flushed(&self, result: FlushResult, took: Duration) {
        match result {
            FlushResult::Ok => &self.flush_ok,
            FlushResult::Error => &self.flush_error,
            FlushResult::Unknown => &self.flush_unknown,
            FlushResult::Fenced => &self.flush_fenced,
        }
        .increment(1);
        self.flush_duration.record(took);
    }

    /// Entities left out of a poll.
    pub fn entities_skipped(&self, n: usize) {
        self.skipped_entities.increment(n as u64);
    }

    /// Entities asked for in one request.
    pub fn batch_size(&self, n: usize) {
        self.batch_size.set(count(n));
    }

    /// 0 while calls pass, 1 while one call probes, 2 while none is sent.
    pub fn circuit(&self, state: u8) {
        self.circuit.set(f64::from(state));
    }

    /// What a reply held that it should not, or lacked; `kind` comes from a closed set.
    pub fn odd(&self, kind: &'static str, n: u64) {
        if n > 0 {
            counter!(ODDITIES, "platform" => self.name.clone(), "kind" => kind).increment(n);
        }
    }

    /// A call to the platform ended.
    pub fn called(&self, method: &'static str, result: CallResult, took: Duration, n_bytes: usize) {
        let result = match result {
            CallResult::Ok => "ok",
            CallResult::Fault => "fault",
            CallResult::Error => "error",
        };
        counter!(SOAP_REQUESTS, "platform" => self.name.clone(), "method" => method, "result" => result)
            .increment(1);
        histogram!(SOAP_DURATION, "platform" => self.name.clone(), "method" => method).record(took);
        self.response_bytes.increment(n_bytes as u64);
    }

    /// A call had no result; `kind` comes from the closed set of `soap::Error::label`.
    pub fn call_failed(&self, kind: &'static str) {
        counter!(SOAP_FAILURES, "platform" => self.name.clone(), "type" => kind).increment(1);
    }

    /// A login ended.
    pub fn logged_in(&self, result: LoginResult) {
        if let Some(counter) = self.logins.get(result as usize) {
            counter.increment(1);
        }
    }
}

/// What is counted about a platform's roll-ups.
#[derive(Debug, Clone)]
pub struct RollupMetrics {
    buckets: [Counter; Level::ALL.len()],
    rows: Counter,
    duration: Histogram,
    pending: Gauge,
    first_due: Gauge,
}

impl RollupMetrics {
    /// Registers a platform's series.
    #[must_use]
    pub fn new(platform: &str) -> Self {
        let name = platform.to_owned();
        Self {
            buckets: Level::ALL
                .map(|level| counter!(ROLLUP_BUCKETS, "platform" => name.clone(), "level" => level.as_str())),
            rows: counter!(ROLLUP_ROWS, "platform" => name.clone()),
            duration: histogram!(ROLLUP_DURATION, "platform" => name.clone()),
            pending: gauge!(ROLLUP_PENDING, "platform" => name.clone()),
            first_due: gauge!(ROLLUP_FIRST_DUE, "platform" => name),
        }
    }

    /// A transaction was committed. Buckets are by level, finest first.
    pub fn made(&self, buckets: [u64; Level::ALL.len()], rows: u64, took: Duration) {
        for (counter, n) in self.buckets.iter().zip(buckets) {
            counter.increment(n);
        }
        self.rows.increment(rows);
        self.duration.record(took);
    }

    /// What is yet to be made.
    pub fn pending(&self, notes: u64, first_due: Option<Stamp>) {
        self.pending.set(large(notes));
        self.first_due.set(first_due.map_or(0.0, Stamp::as_seconds_f64));
    }
}

/// Shows a platform's status; it belongs to no owner, so that one in maintenance has it, too.
pub fn platform_status(platform: &str, status: PlatformState) {
    for other in PlatformState::all() {
        let value = if other == status { 1.0 } else { 0.0 };
        gauge!(PLATFORM_STATUS, "platform" => platform.to_owned(), "status" => other.word()).set(value);
    }
}

/// A platform that is to be collected no more has no status: alerts are for those that have one.
pub fn no_platform_status(platform: &str) {
    for status in PlatformState::all() {
        gauge!(PLATFORM_STATUS, "platform" => platform.to_owned(), "status" => status.word()).set(0.0);
    }
}

/// What is counted about the database as a whole.
#[derive(Debug, Clone)]
pub struct DatabaseMetrics {
    up: Gauge,
}

impl DatabaseMetrics {
    /// Registers the series.
    #[must_use]
    pub fn new() -> Self {
        Self {
            up: gauge!(DATABASE_UP),
        }
    }

    /// Whether the database answers and its schema fits.
    pub fn up(&self, up: bool) {
        self.up.set(if up { 1.0 } else { 0.0 });
    }

    /// Work failed; `class` comes from the closed set of the store's error classes.
    pub fn failed(&self, class: &'static str) {
        counter!(DATABASE_ERRORS, "class" => class).increment(1);
    }
}

impl Default for DatabaseMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The connections of an endpoint.
#[derive(Debug, Clone)]
pub struct ConnectionMetrics {
    endpoint: &'static str,
    open: Gauge,
}

/// One more, until it is dropped.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl ConnectionMetrics {
    /// Registers the series of an endpoint.
    #[must_use]
    pub fn new(endpoint: &'static str) -> Self {
        let metrics = Self {
            endpoint,
            open: gauge!(CONNECTIONS, "endpoint" => endpoint),
        };
        for reason in ["address", "tls"] {
            metrics.refusals(reason).increment(0);
        }
        metrics
    }

    /// A connection, until what is returned is dropped.
    #[must_use]
    pub fn opened(&self) -> Counted {
        Counted::new(&self.open)
    }

    /// Closed before a request; `reason` comes from a closed set.
    pub fn refused(&self, reason: &'static str) {
        self.refusals(reason).increment(1);
    }

    fn refusals(&self, reason: &'static str) -> Counter {
        counter!(CONNECTIONS_REFUSED, "endpoint" => self.endpoint, "reason" => reason)
    }
}

/// Why the admin API refused somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// No token, or none that is valid.
    Unauthenticated,
    /// The role does not have the right.
    Forbidden,
    /// The platform is not the token's.
    OutOfScope,
    /// Too often.
    RateLimited,
    /// Too much at once, of all callers.
    Overloaded,
}

/// The admin API.
#[derive(Debug, Clone)]
pub struct ApiMetrics {
    in_flight: Gauge,
    denied: [Counter; 5],
    audit_failures: Counter,
    audit_skipped: Counter,
    panics: Counter,
}

impl ApiMetrics {
    /// Registers the series.
    #[must_use]
    pub fn new() -> Self {
        Self {
            in_flight: gauge!(API_IN_FLIGHT),
            denied: [
                "unauthenticated",
                "forbidden",
                "out_of_scope",
                "rate_limited",
                "overloaded",
            ]
            .map(|reason| counter!(API_DENIED, "reason" => reason)),
            audit_failures: counter!(API_AUDIT_FAILURES),
            audit_skipped: counter!(API_AUDIT_SKIPPED),
            panics: counter!(API_PANICS),
        }
    }

    /// A request, until what is returned is dropped.
    #[must_use]
    pub fn entered(&self) -> Counted {
        Counted::new(&self.in_flight)
    }

    /// A request was answered; `route` comes from the table of routes, `status` from what the API answers.
    pub fn answered(&self, route: &'static str, status: u16, took: Duration) {
        counter!(API_REQUESTS, "route" => route, "status" => status.to_string()).increment(1);
        histogram!(API_DURATION, "route" => route).record(took);
    }

    /// A request was refused for who sent it.
    pub fn denied(&self, reason: Denied) {
        if let Some(counter) = self.denied.get(reason as usize) {
            counter.increment(1);
        }
    }

    /// An entry of the audit log could not be written.
    pub fn audit_failed(&self) {
        self.audit_failures.increment(1);
    }

    /// A denial got no entry of its own.
    pub fn audit_skipped(&self) {
        self.audit_skipped.increment(1);
    }

    /// A request ended in a panic.
    pub fn panicked(&self) {
        self.panics.increment(1);
    }
}

impl Default for ApiMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The admin API shows a certificate that is good until then.
pub fn certificate_shown(until: Option<Stamp>) {
    if let Some(until) = until {
        gauge!(API_CERTIFICATE).set(until.as_seconds_f64());
    }
}

/// How what is too old goes.
#[derive(Debug, Clone)]
pub struct RetentionMetrics {
    last_success: Gauge,
}

impl RetentionMetrics {
    /// Registers the series.
    #[must_use]
    pub fn new() -> Self {
        Self {
            last_success: gauge!(RETENTION_SUCCESS),
        }
    }

    /// Nothing is left that is too old.
    pub fn succeeded(&self, now: Stamp) {
        self.last_success.set(now.as_seconds_f64());
    }

    /// Chunks of a relation went; `relation` comes from the closed set of the store.
    pub fn dropped(&self, relation: &'static str, chunks: u64) {
        counter!(CHUNKS_DROPPED, "relation" => relation).increment(chunks);
    }

    /// Whether the oldest chunk of a relation is kept although it is too old.
    pub fn kept_back(&self, relation: &'static str, is_kept: bool) {
        gauge!(CHUNKS_KEPT_BACK, "relation" => relation).set(if is_kept { 1.0 } else { 0.0 });
    }
}

impl Default for RetentionMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The log.
#[derive(Debug, Clone)]
pub struct LogMetrics {
    lost: Counter,
}

impl LogMetrics {
    /// Registers the series.
    #[must_use]
    pub fn new() -> Self {
        Self {
            lost: counter!(LOG_LINES_LOST),
        }
    }

    /// A line was not written.
    pub fn lost(&self) {
        self.lost.increment(1);
    }
}

impl Default for LogMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The byte budget.
#[derive(Debug, Clone)]
pub struct BudgetMetrics {
    reserved: Gauge,
}

impl BudgetMetrics {
    /// Registers the series for a budget of `total` bytes.
    #[must_use]
    pub fn new(total: usize) -> Self {
        gauge!(MEMORY_BUDGET).set(count(total));
        Self {
            reserved: gauge!(MEMORY_RESERVED),
        }
    }

    /// Bytes taken.
    pub fn took(&self, bytes: usize) {
        self.reserved.increment(count(bytes));
    }

    /// Bytes given back.
    pub fn gave_back(&self, bytes: usize) {
        self.reserved.decrement(count(bytes));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a Prometheus value is a double")]
fn count(n: usize) -> f64 {
    n as f64
}

fn large(n: u64) -> f64 {
    count(usize::try_from(n).unwrap_or(usize::MAX))
}
