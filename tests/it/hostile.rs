//! Platforms that break the rules, each beside one that does not: what is stored stays right, the rest of the batch is
//! stored, the other platform is on time, the trouble is counted under its own name and told once.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use support::collector::{Collector, Settings};
use support::database::{Database, Role};
use support::oracle::Verdict;
use support::process;
use virt_collector::app::App;
use virt_collector::collect::live::PollReport;
use virt_collector::config::{Platform, Trust};
use virt_collector::error::{Chain, Disposition};
use virt_collector::model::ids::{EntityId, MoRef, VmId};
use virt_collector::model::status::ErrorClass;
use virt_collector::units::{ByteSize, Stamp};
use virt_collector::vsphere::{Target, Vsphere};
use vsphere_simulator::{Action, Rule, Simulator, Spec, TlsMode};

use crate::rig::{Rig, recorder, small};
use crate::thread_log::Log;
use crate::{soap, wait};

mod inventory;
mod long_run;
mod way;

const MINUTE: Duration = Duration::from_secs(60);

/// Within so long of its stamp a sample is stored, whatever other platforms do.
const PROMISED: Duration = Duration::from_secs(90);

/// For a poll that a healthy platform answers, on a machine as slow as it likes.
const DEADLINE: Duration = Duration::from_secs(60);

/// A sick platform and a healthy one, in one daemon.
struct Pair {
    rig: Rig,
    well: Simulator,
    sick_name: String,
    well_name: String,
    app: App,
    log: Log,
}

/// What becomes of a poll of the sick platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It fails; the samples come with a later one.
    Fails,
    /// It succeeds without so many entities, which come later.
    Skips(usize),
    /// It succeeds.
    Passes,
}

/// One hostile behaviour.
struct Case {
    name: &'static str,
    rules: Vec<Rule>,
    fate: Fate,
    /// The series that counts it: `type` of failures, or `kind` of oddities.
    counted: &'static str,
    /// Words of the one line about it; none where there is nothing to tell.
    told: &'static [&'static str],
    /// Samples that are not what the source had, because it did not say what it had: missing and wrong, at most.
    lies: (u64, u64),
}

impl Case {
    fn new(name: &'static str, action: Action, fate: Fate, counted: &'static str) -> Self {
        Self {
            name,
            rules: vec![Rule::on("QueryPerf", action)],
            fate,
            counted,
            told: match fate {
                Fate::Fails => &["ERROR", "platform in error"],
                Fate::Skips(_) => &["WARN", "left out of this poll"],
                Fate::Passes => &[],
            },
            lies: (0, 0),
        }
    }

    /// Only where the request names this object.
    fn about(mut self, moref: &str) -> Self {
        self.rules = self.rules.into_iter().map(|rule| rule.object(moref)).collect();
        self
    }

    fn lies(mut self, missing: u64, wrong: u64) -> Self {
        self.lies = (missing, wrong);
        self
    }
}

/// A platform's loops start at a place within the interval that follows from its name. These tests poll by hand: the
/// names are those whose first tick by itself comes when a test is over.
fn quiet_name(stem: &str) -> String {
    let phase = |name: &str| {
        name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }) % 300_000
    };
    (0..)
        .map(|n| format!("{stem}-{n}"))
        .find(|name| phase(name) > 270_000)
        .unwrap()
}

impl Pair {
    async fn start(stem: &str, sick: Spec) -> Self {
        Self::start_with(stem, sick, Duration::from_secs(30)).await
    }

    async fn start_with(stem: &str, sick: Spec, request_timeout: Duration) -> Self {
        let log = Log::start();
        let rig = Rig::new(sick).await;
        let well = Simulator::start(Spec {
            seed: 4711,
            ..small()
        })
        .await
        .unwrap();
        let (sick_name, well_name) = (
            quiet_name(&format!("{stem}-sick")),
            quiet_name(&format!("{stem}-well")),
        );
        let mut config = rig.config();
        config.memory = ByteSize::mebibytes(128);
        config.collection.request_timeout = request_timeout;
        let mut sick = config.platforms.remove(0);
        sick.name.clone_from(&sick_name);
        let healthy = Platform {
            name: well_name.clone(),
            port: well.addr().port(),
            trust: Trust::Thumbprint(soap::bytes(&well.leaf_sha256_thumbprint().unwrap())),
            ..sick.clone()
        };
        config.platforms.extend([sick, healthy]);
        let app = App::start(config, recorder()).await.unwrap();
        let pair = Self {
            rig,
            well,
            sick_name,
            well_name,
            app,
            log,
        };
        for name in [&pair.sick_name, &pair.well_name] {
            assert_eq!(pair.poll(name).await.error, None);
            let filled = pair.app.platform(name).unwrap().back_fill_now().await.unwrap();
            assert_eq!(filled.error, None);
        }
        pair
    }

    fn sick(&self) -> &Simulator {
        &self.rig.simulator
    }

    async fn poll(&self, name: &str) -> PollReport {
        let platform = self.app.platform(name).unwrap();
        let poll = platform.poll_now();
        let report = tokio::time::timeout(DEADLINE, poll).await;
        report
            .unwrap_or_else(|_| panic!("no poll of {name} within {DEADLINE:?}; {}", self.app.summary()))
            .unwrap()
    }

    fn pass(&self, time: Duration) {
        self.sick().clock().advance(time);
        self.well.clock().advance(time);
    }

    /// Polls of the sick platform until it is well; the circuit may have to be waited for.
    async fn recover(&self) {
        self.sick().rules().clear();
        wait::until("the platform is well again", async || {
            match self.poll(&self.sick_name).await {
                report if report.error.is_none() && report.n_skipped == 0 => Ok(()),
                report => Err(format!("{report:?}")),
            }
        })
        .await;
    }

    /// Lines about the sick platform that an operator reads.
    fn told(&self, words: &[&str]) -> usize {
        let name = format!("platform=\"{}\"", self.sick_name);
        let plain = format!("platform={}", self.sick_name);
        let lines = self.log.lines(words);
        lines
            .iter()
            .filter(|line| line.contains(&name) || line.contains(&plain))
            .count()
    }

    /// A count of the sick platform.
    fn counted(&self, label: &str) -> u64 {
        let rendered = recorder().render();
        let platform = format!("platform=\"{}\"", self.sick_name);
        let label = [format!("type=\"{label}\""), format!("kind=\"{label}\"")];
        rendered
            .lines()
            .filter(|line| {
                line.starts_with("virt_collector_soap_failures_total{")
                    || line.starts_with("virt_collector_reply_oddities_total{")
            })
            .filter(|line| line.contains(&platform) && label.iter().any(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// One behaviour, and the recovery from it. Returns how many calls were hit.
    async fn play(&self, case: Case, expected: &mut (u64, u64)) -> u64 {
        let Case {
            name,
            rules,
            fate,
            counted,
            told,
            lies,
        } = case;
        let before = (self.counted(counted), self.told(told));
        for rule in rules {
            self.sick().rules().add(rule);
        }
        self.pass(MINUTE);
        let (sick, well) = tokio::join!(self.poll(&self.sick_name), self.poll(&self.well_name));
        let n_well = (self.well.world().running_vms().len() + self.well.world().hosts().len()) * 3;
        assert_eq!(
            (well.error, well.n_rows),
            (None, n_well),
            "{name}: the healthy platform"
        );
        let seen = match &sick.error {
            Some(_) => Fate::Fails,
            None if sick.n_skipped > 0 => Fate::Skips(sick.n_skipped),
            None => Fate::Passes,
        };
        assert_eq!(seen, fate, "{name}: {sick:?}");
        if matches!(fate, Fate::Skips(_)) {
            let (answered, n_skipped) = (sick.n_entities - sick.n_skipped, sick.n_skipped);
            assert_eq!(
                sick.n_rows,
                answered * 3,
                "{name}: the rest is stored, without {n_skipped}"
            );
        }
        assert!(
            self.counted(counted) > before.0,
            "{name}: not counted as {counted}"
        );
        if !told.is_empty() {
            wait::until("the trouble is told", async || match self.told(told) - before.1 {
                0 => Err(format!("{name}: nothing about it")),
                _ => Ok(()),
            })
            .await;
            // The same again is not told again.
            if fate != Fate::Passes {
                drop(self.poll(&self.sick_name).await);
            }
            assert_eq!(
                self.told(told) - before.1,
                1,
                "{name}: {:?}",
                self.log.lines(told)
            );
        }
        let hit = self.sick().rules().status();
        let n_hit = hit.iter().map(|status| status.applied).max().unwrap_or(0);
        self.recover().await;
        if fate == Fate::Fails {
            wait::until("the end of the trouble is told", async || {
                match self.told(&["platform well again"]) {
                    0 => Err("not told".to_owned()),
                    _ => Ok(()),
                }
            })
            .await;
        }
        self.pass(3 * MINUTE);
        for name in [&self.sick_name, &self.well_name] {
            assert_eq!(self.poll(name).await.error, None);
        }
        expected.0 += lies.0;
        expected.1 += lies.1;
        let verdict = self.rig.verdict_of(&self.sick_name, self.sick()).await;
        assert_told_truth(name, &verdict, *expected);
        let verdict = self.rig.verdict_of(&self.well_name, &self.well).await;
        assert_told_truth(name, &verdict, (0, 0));
        n_hit
    }

    /// All behaviours, and then that both platforms are collected whole and every session is logged out.
    async fn play_all(self, cases: Vec<Case>) {
        let mut expected = (0, 0);
        for case in cases {
            self.play(case, &mut expected).await;
        }
        self.app.stop().await.unwrap();
        assert_eq!(self.well.sessions().stats().open, 0);
    }
}

/// Nothing is missing or wrong but what the source itself kept back or falsified.
#[track_caller]
fn assert_told_truth(name: &str, verdict: &Verdict, lies: (u64, u64)) {
    let counts = (
        verdict.missing,
        verdict.wrong,
        verdict.duplicate,
        verdict.unexplained,
        verdict.open,
        verdict.explained,
    );
    assert_eq!(
        counts,
        (lies.0, lies.1, 0, 0, 0, 0),
        "{name}: missing, wrong, duplicate, unexplained, open, explained: {verdict}\n{:#?}",
        verdict.details
    );
}

fn fault(name: &str) -> Action {
    Action::Fault {
        fault: name.to_owned(),
        message: "geht nicht \u{1b}[31m".to_owned(),
    }
}

fn status(code: u16) -> Action {
    Action::Status { code, body: None }
}

fn body(text: &str, content_type: &str) -> Action {
    Action::Body {
        text: text.to_owned(),
        content_type: content_type.to_owned(),
    }
}

#[tokio::test]
async fn answers_that_are_none_cost_no_sample_and_no_other_platform_its_turn() {
    let pair = Pair::start("answers", small()).await;
    let html = "<!DOCTYPE html><html><body>Please log in</body></html>";
    let fails = |name, action, counted| Case::new(name, action, Fate::Fails, counted);
    let cases = vec![
        fails("HTML 502", status(502), "http_status"),
        fails("503 while starting", status(503), "http_status"),
        fails("HTML 500", status(500), "http_status"),
        fails(
            "a redirect",
            Action::Redirect {
                location: "https://127.0.0.1:1/sdk".to_owned(),
            },
            "http_status",
        ),
        fails("HTML with 200", body(html, "text/html"), "not_xml"),
        fails("HTML under a false name", body(html, "text/xml"), "malformed"),
        fails("no XML at all", body("ok", "text/xml"), "malformed"),
        fails("an empty body", body("", "text/xml"), "malformed"),
        fails(
            "the answer to something else",
            Action::Replace {
                find: "QueryPerfResponse".to_owned(),
                with: "LoginResponse".to_owned(),
            },
            "malformed",
        ),
        fails(
            "an envelope that is none",
            Action::Replace {
                find: "http://schemas.xmlsoap.org/soap/envelope/".to_owned(),
                with: "urn:other".to_owned(),
            },
            "malformed",
        ),
        fails(
            "a DOCTYPE",
            Action::Replace {
                find: "<soapenv:Envelope".to_owned(),
                with: "<!DOCTYPE a [<!ENTITY b \"c\">]><soapenv:Envelope".to_owned(),
            },
            "malformed",
        ),
        fails(
            "a depth without bound",
            Action::Replace {
                find: "<sampleInfoCSV>".to_owned(),
                with: "<x>".repeat(5_000),
            },
            "malformed",
        ),
        fails("a gzip bomb", Action::Bomb { bytes: 8 << 20 }, "too_large"),
        fails("a body without end", Action::Endless, "too_large"),
        fails("a reset before the answer", Action::Reset { at: 0 }, "broken"),
        fails("a reset in the answer", Action::Reset { at: 300 }, "broken"),
        fails("an end in the answer", Action::Cut { at: 300 }, "broken"),
        fails("an answer that stops", Action::Truncate { at: 300 }, "broken"),
    ];
    pair.play_all(cases).await;
}

#[tokio::test]
async fn a_platform_that_hangs_or_trickles_is_given_up_and_not_called_by_everybody() {
    let pair = Pair::start_with("hangs", small(), Duration::from_secs(1)).await;
    let cases = vec![
        Case::new(
            "a server that hangs",
            Action::Delay { millis: 600_000 },
            Fate::Fails,
            "deadline",
        ),
        Case::new(
            "a byte at a time",
            Action::Trickle { millis: 20 },
            Fate::Fails,
            "deadline",
        ),
    ];
    // Without a breaker every request takes its whole deadline: 14 entities and the halves on the way to them.
    let mut expected = (0, 0);
    for case in cases {
        // Two polls, in each of them two requests side by side and then the halves of the first: no more.
        let n_hit = pair.play(case, &mut expected).await;
        assert!(
            n_hit <= 10,
            "{n_hit} requests for samples of a platform that does not answer"
        );
        assert!(pair.counted("circuit_open") > 0);
    }
    pair.app.stop().await.unwrap();
}

#[tokio::test]
async fn one_bad_entity_costs_no_other_its_samples() {
    let pair = Pair::start("entity", small()).await;
    let vm = pair.sick().world().running_vms().remove(2);
    let skips = |name, action, counted| Case::new(name, action, Fate::Skips(1), counted).about(&vm);
    let vms = pair.sick().world().running_vms();
    let cases = vec![
        skips(
            "one ManagedObjectNotFound",
            fault("ManagedObjectNotFound"),
            "ManagedObjectNotFound",
        ),
        // The minute in which nothing more is told about an entity is the collector's: the others are about others.
        skips("no permission for one", fault("NoPermission"), "NoPermission").about(&vms[3]),
        skips(
            "one argument that does not fit",
            fault("InvalidArgument"),
            "InvalidArgument",
        )
        .about(&vms[4]),
        skips("a server that fails at one", fault("SystemError"), "SystemError").about(&vms[5]),
        skips("one that is too much alone", status(500), "http_status").about(&vms[6]),
        skips(
            "one whose answer is broken",
            Action::Replace {
                find: "</returnval>".to_owned(),
                with: "</return>".to_owned(),
            },
            "malformed",
        )
        .about(&vms[8]),
        skips(
            "one whose answer is too large",
            Action::Bomb { bytes: 8 << 20 },
            "too_large",
        )
        .about(&vms[7]),
    ];
    pair.play_all(cases).await;
}

#[tokio::test]
async fn refusals_of_the_whole_request_are_counted_under_their_own_names() {
    let pair = Pair::start("refusals", small()).await;
    let fails = |name, action, counted| Case::new(name, action, Fate::Fails, counted);
    let passes = |name, action: Action, counted| {
        let mut case = Case::new(name, action, Fate::Passes, counted);
        case.rules = case.rules.into_iter().map(|rule| rule.times(1)).collect();
        case
    };
    let cases = vec![
        fails(
            "every request restricted",
            fault("RestrictedByAdministrator"),
            "RestrictedByAdministrator",
        ),
        passes(
            "one request restricted",
            fault("RestrictedByAdministrator"),
            "RestrictedByAdministrator",
        ),
        passes(
            "a session that is gone",
            fault("NotAuthenticated"),
            "NotAuthenticated",
        ),
        passes("one answer too late", status(500), "http_status"),
        fails(
            "a schema that does not fit",
            fault("InvalidRequest"),
            "InvalidRequest",
        ),
        fails("a fault of another age", fault("InventedByVersion99"), "Other"),
    ];
    pair.play_all(cases).await;
}

#[tokio::test]
async fn samples_that_lie_are_stored_as_they_were_told_and_the_others_right() {
    let pair = Pair::start("samples", small()).await;
    let vms = pair.sick().world().running_vms();
    let odd = |name, action, counted| Case::new(name, action, Fate::Passes, counted);
    let other = |find: &str, with: &str| Action::Replace {
        find: find.to_owned(),
        with: with.to_owned(),
    };
    let mut stamps_that_are_none = odd("stamps that are none", other("Z,", "Q,"), "stamp_bad");
    stamps_that_are_none.rules.push(Rule::on(
        "QueryPerf",
        other("Z</sampleInfoCSV>", "Q</sampleInfoCSV>"),
    ));
    let cases = vec![
        odd(
            "a sample of nothing",
            Action::EmptyCells { counter: None },
            "sample_empty",
        )
        .about(&vms[1]),
        odd(
            "nothing but -1",
            Action::MinusOne { counter: None },
            "sample_empty",
        )
        .about(&vms[2]),
        odd("a missing entity", Action::OmitEntity, "entity_missing").about(&vms[3]),
        odd("every entity missing", Action::OmitEntity, "entity_missing"),
        odd("an entity twice", Action::Twice, "entity_twice").about(&vms[4]),
        odd(
            "an entity that nobody asked for",
            Action::Extra {
                moref: "vm-99999".to_owned(),
            },
            "entity_unknown",
        ),
        // Columns over instances are NULL where the source had values: three rows.
        odd(
            "a wildcard that was not expanded",
            Action::Unexpanded,
            "instance_unknown",
        )
        .about(&vms[5])
        .lies(0, 3),
        odd("another interval", other("Z,20,", "Z,300,"), "interval_other"),
        stamps_that_are_none,
    ];
    pair.play_all(cases).await;
}

#[tokio::test]
async fn odd_forms_of_right_samples_are_right() {
    let pair = Pair::start("forms", small()).await;
    let vms = pair.sick().world().running_vms();
    let client = pair.rig.client().await;
    let prefix = |find: &str, with: &str| {
        Rule::on(
            "QueryPerf",
            Action::Replace {
                find: find.to_owned(),
                with: with.to_owned(),
            },
        )
    };
    let rounds: Vec<(&str, Vec<Rule>, u64)> = vec![
        ("newest first", vec![Rule::on("QueryPerf", Action::Descending)], 0),
        (
            "cells that end early",
            vec![Rule::on("QueryPerf", Action::Short { cells: 1 })],
            0,
        ),
        (
            "another prefix",
            vec![
                prefix("xmlns:xsi=", "xmlns:schema="),
                prefix("xsi:type", "schema:type"),
            ],
            0,
        ),
        (
            "a counter of nothing but -1",
            vec![
                Rule::on(
                    "QueryPerf",
                    Action::MinusOne {
                        counter: Some("cpu.usage.average".to_owned()),
                    },
                )
                .object(&vms[0]),
            ],
            3,
        ),
    ];
    let mut wrong = 0;
    for (name, rules, null) in rounds {
        for rule in rules {
            pair.sick().rules().add(rule);
        }
        pair.pass(MINUTE);
        assert_eq!(pair.poll(&pair.sick_name).await.error, None, "{name}");
        pair.sick().rules().clear();
        pair.pass(3 * MINUTE);
        assert_eq!(pair.poll(&pair.sick_name).await.error, None, "{name}");
        wrong += null;
        let verdict = pair.rig.verdict_of(&pair.sick_name, pair.sick()).await;
        assert_told_truth(name, &verdict, (0, wrong));
    }
    let null: i64 = client
        .query_one(
            "SELECT count(*) FROM virt_vm_metrics m JOIN virt_vm v USING (vm_id) \
             JOIN virt_platform p USING (platform_id) \
             WHERE p.name = $1 AND v.moref = $2 AND m.cpu_usage_percent IS NULL",
            &[&pair.sick_name, &vms[0]],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(null, 3, "no data is NULL, never -1 or 0");

    // Stamps beside the grid are the source's own: stored as they are, and the chain holds.
    let shift = Rule::on("QueryPerf", Action::OffGrid { seconds: 3 }).object(&vms[1]);
    pair.sick().rules().add(shift);
    pair.pass(MINUTE);
    assert_eq!(pair.poll(&pair.sick_name).await.error, None);
    pair.sick().rules().clear();
    pair.pass(3 * MINUTE);
    assert_eq!(pair.poll(&pair.sick_name).await.error, None);
    let verdict = pair.rig.verdict_of(&pair.sick_name, pair.sick()).await;
    assert_told_truth("off the grid", &verdict, (3, wrong + 3));

    // A series of zeros that is left out is no data; there is nothing else that it could be.
    let zeros = Rule::on("QueryPerf", Action::NoZeros).object(&vms[2]);
    pair.sick().rules().add(zeros);
    pair.pass(MINUTE);
    assert_eq!(pair.poll(&pair.sick_name).await.error, None);
    pair.sick().rules().clear();
    pair.pass(3 * MINUTE);
    assert_eq!(pair.poll(&pair.sick_name).await.error, None);
    let verdict = pair.rig.verdict_of(&pair.sick_name, pair.sick()).await;
    assert!(verdict.wrong <= wrong + 6, "{verdict}\n{:#?}", verdict.details);
    assert_eq!((verdict.missing, verdict.unexplained), (3, 0), "{verdict}");
    pair.app.stop().await.unwrap();
}
