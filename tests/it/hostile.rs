//! Platforms that break the rules, each beside one that does not: what is stored stays right, the rest of the batch is
//! stored, the other platform is on time, the trouble is counted under its own name and told once.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use support::collector::{Collector, Settings};
use support::database::{Database, Role};
use support::oracle::Verdict;
use support::process::{self, free_address};
use virt_collector::app::App;
use virt_collector::collect::live::PollReport;
use virt_collector::config::{Platform, Trust};
use virt_collector::error::{Chain, Disposition};
use virt_collector::model::ids::{EntityId, MoRef, VmId};
use virt_collector::model::status::ErrorClass;
use virt_collector::units::{ByteSize, Stamp};
use virt_collector::vsphere::{Target, Vsphere};
use vsphere_simulator::{Action, Rule, Simulator, Spec, TlsMode};

use crate::flush::Log;
use crate::rig::{Rig, recorder, small};
use crate::{soap, wait};

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
        let poll = self.app.platform(name).unwrap().poll_now();
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

#[tokio::test]
async fn names_of_any_kind_are_stored_harmless_and_steer_no_log() {
    let hostile = [
        (
            "vm-00001",
            "'; DROP TABLE virt_vm; --",
            "'; DROP TABLE virt_vm; --",
        ),
        (
            "vm-00002",
            "\u{1b}[31mred\u{7}\n",
            "\u{fffd}[31mred\u{fffd}\u{fffd}",
        ),
        ("vm-00003", "&quot;&apos;&lt;b&gt;&amp;", "\"'<b>&"),
        ("vm-00004", "a&#0;b&#x1;c", "a\u{fffd}b\u{fffd}c"),
        (
            "vm-00005",
            "\u{202e}txt.exe \u{1f600}",
            "\u{202e}txt.exe \u{1f600}",
        ),
    ];
    let pair = Pair::start("names", small()).await;
    let rules = pair.sick().rules();
    let add = |action: Action| {
        rules.add(Rule::on("WaitForUpdatesEx", action));
    };
    for (name, raw, _) in hostile {
        add(Action::Replace {
            find: format!(">{name}<"),
            with: format!(">{raw}<"),
        });
    }
    add(Action::BreakUtf8 {
        after: ">vm-00006".to_owned(),
    });
    add(Action::Replace {
        find: ">vm-00007<".to_owned(),
        with: format!(">{}<", "x".repeat(1 << 20)),
    });
    let discover = async || {
        let found = pair.app.platform(&pair.sick_name).unwrap().discover_now();
        tokio::time::timeout(DEADLINE, found).await.unwrap().unwrap()
    };
    // A new session reads everything anew.
    let read_anew = async || {
        pair.sick().sessions().expire_all();
        wait::until("everything to be read anew", async || {
            match discover().await.error {
                None => Ok(()),
                Some(error) => Err(error),
            }
        })
        .await;
    };
    read_anew().await;
    let client = pair.rig.client().await;
    let names = async || -> Vec<String> {
        let rows = client
            .query(
                "SELECT coalesce(v.name, '') FROM virt_vm v JOIN virt_platform p USING (platform_id) \
                 WHERE p.name = $1 AND v.removed_at IS NULL ORDER BY v.moref",
                &[&pair.sick_name],
            )
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let stored = names().await;
    for (name, _, wanted) in hostile {
        assert!(stored.iter().any(|stored| stored == wanted), "{name}: {stored:?}");
    }
    assert!(stored.iter().any(|name| name == "vm-00006\u{fffd}"), "{stored:?}");
    assert!(
        stored.iter().any(|name| *name == "x".repeat(255)),
        "a name of a megabyte is cut"
    );
    // Everyone a megabyte: a page is more than may be read at once, so that smaller ones are asked for.
    rules.clear();
    let before = pair.sick().calls().count("CreateFilter");
    add(Action::Replace {
        find: ">vm-0".to_owned(),
        with: format!(">{}", "y".repeat(1 << 20)),
    });
    read_anew().await;
    assert!(
        pair.sick().calls().count("CreateFilter") >= before + 2,
        "asked again"
    );
    let stored = names().await;
    let n_cut = stored.iter().filter(|name| **name == "y".repeat(255)).count();
    assert!(n_cut >= 10, "{n_cut} of {}", stored.len());
    rules.clear();
    pair.pass(3 * MINUTE);
    assert_eq!(pair.poll(&pair.sick_name).await.error, None);
    let verdict = pair.rig.verdict_of(&pair.sick_name, pair.sick()).await;
    assert_told_truth("names", &verdict, (0, 0));
    let lines = pair.log.lines(&[]);
    assert!(
        lines
            .iter()
            .all(|line| !line.contains('\u{1b}') && line.len() < 16 * 1024)
    );
    pair.app.stop().await.unwrap();
}

/// An answer to another method is none, whatever it says.
fn told_anew(name: &str, works: bool) -> bool {
    works && name != "an inventory of nobody"
}

#[tokio::test]
async fn an_inventory_with_holes_removes_nobody_and_stops_nothing() {
    let pair = Pair::start("holes", small()).await;
    let withhold = |path: Option<&str>, of: Option<&str>, fault: Option<&str>| Action::Withhold {
        path: path.map(str::to_owned),
        of: of.map(str::to_owned),
        fault: fault.map(str::to_owned),
    };
    let vm = pair.sick().world().running_vms().remove(0);
    let client = pair.rig.client().await;
    let n_there = async || -> i64 {
        client
            .query_one(
                "SELECT count(*) FROM virt_vm v JOIN virt_platform p USING (platform_id) \
                 WHERE p.name = $1 AND v.removed_at IS NULL",
                &[&pair.sick_name],
            )
            .await
            .unwrap()
            .get(0)
    };
    let before = n_there().await;
    let page = |text: &str| body(text, "text/xml; charset=utf-8");
    let nothing = "<soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\"><soapenv:Body>\
                   <RetrievePropertiesExResponse xmlns=\"urn:vim25\"></RetrievePropertiesExResponse>\
                   </soapenv:Body></soapenv:Envelope>";
    let rounds: Vec<(&str, Action, bool)> = vec![
        (
            "no host of anybody",
            withhold(Some("runtime.host"), None, None),
            true,
        ),
        (
            "no names",
            withhold(Some("name"), None, Some("NoPermission")),
            true,
        ),
        (
            "no identifiers",
            withhold(Some("summary.config.instanceUuid"), None, None),
            true,
        ),
        (
            "one of whom nothing is told",
            withhold(None, Some(&vm), Some("NoPermission")),
            true,
        ),
        (
            "an expired session in every property",
            withhold(None, None, Some("NotAuthenticated")),
            false,
        ),
        (
            "an expired session's answer",
            page(include_str!("fixtures/expired_session.xml")),
            false,
        ),
        ("half an inventory", Action::Truncate { at: 900 }, false),
        ("an inventory of nobody", page(nothing), true),
    ];
    let discover = async || {
        let found = pair.app.platform(&pair.sick_name).unwrap().discover_now();
        let report = tokio::time::timeout(DEADLINE, found).await.unwrap().unwrap();
        report.error
    };
    // What is read at intervals, and what a new session is told about everything.
    for method in ["RetrievePropertiesEx", "WaitForUpdatesEx"] {
        for (name, action, works) in &rounds {
            pair.sick().rules().add(Rule::on(method, action.clone()));
            if method == "RetrievePropertiesEx" {
                assert_eq!(discover().await.is_none(), *works, "{name}");
            } else {
                pair.sick().sessions().expire_all();
                let before = pair.sick().calls().count("CreateFilter");
                wait::until("everything to be told anew", async || {
                    let error = discover().await;
                    let n_read = pair.sick().calls().count("CreateFilter") - before;
                    // The first failure is that of the session that has expired.
                    match error.is_none() == told_anew(name, *works) && n_read > 0 {
                        true => Ok(()),
                        false => Err(format!("{name}: {error:?}, read {n_read} times")),
                    }
                })
                .await;
            }
            assert_eq!(n_there().await, before, "{name}");
            pair.recover().await;
            wait::until("it is read again", async || discover().await.map_or(Ok(()), Err)).await;
        }
    }
    pair.pass(3 * MINUTE);
    assert_eq!(pair.poll(&pair.sick_name).await.error, None);
    assert_eq!(pair.poll(&pair.well_name).await.error, None);
    let verdict = pair.rig.verdict_of(&pair.well_name, &pair.well).await;
    assert_told_truth("the healthy one", &verdict, (0, 0));
    pair.app.stop().await.unwrap();
}

/// The decoders are tested at every byte; this is the way there, at offsets spread over the whole of each answer.
#[tokio::test]
async fn an_answer_cut_anywhere_on_its_way_is_an_error_and_never_a_part() {
    let simulator = Simulator::start(Spec {
        gzip: false,
        ..small()
    })
    .await
    .unwrap();
    let platform = soap::Platform::of(&simulator);
    let vsphere = platform.open();
    vsphere.connect().await.unwrap();
    let now = vsphere.server_time().await.unwrap();
    let targets: Vec<Target> = (1..)
        .zip(simulator.world().running_vms().into_iter().take(2))
        .map(|(number, moref)| Target {
            entity: EntityId::from(VmId(number)),
            moref: MoRef::new(moref),
            cpus: 1,
            placement: None,
            after: Stamp::from_seconds(now.micros() / 1_000_000 - 80),
            until: None,
        })
        .collect();
    let whole = vsphere.query(&targets, 20).await.unwrap();
    assert_eq!(whole.windows.len(), 2);
    let inventory = vsphere.discover().await.unwrap();
    // A cut behind the end of the answer changes nothing: then all offsets were tried.
    let mut n_cut = [0; 2];
    for at in (0..).step_by(97) {
        simulator.rules().clear();
        for method in ["QueryPerf", "RetrievePropertiesEx"] {
            simulator
                .rules()
                .add(Rule::on(method, Action::Truncate { at }).times(1));
        }
        let mut is_whole = true;
        match vsphere.query(&targets, 20).await {
            Ok(reply) => assert_eq!(reply, whole),
            Err(error) => {
                let told = Chain(&error).to_string();
                assert_eq!(error.disposition(), Disposition::Shrink, "cut after {at}: {told}");
                n_cut[0] += 1;
                is_whole = false;
            }
        }
        match vsphere.discover().await {
            Ok(found) => assert_eq!(found, inventory),
            Err(error) => {
                let told = Chain(&error).to_string();
                assert_eq!(error.disposition(), Disposition::Retry, "cut after {at}: {told}");
                n_cut[1] += 1;
                is_whole = false;
            }
        }
        if is_whole {
            break;
        }
    }
    assert!(n_cut.iter().all(|n| *n > 50), "{n_cut:?}");
    vsphere.close(Duration::from_secs(5)).await;

    let mut n_cut = 0;
    for at in (0..).step_by(23) {
        simulator.rules().clear();
        simulator
            .rules()
            .add(Rule::on("Login", Action::Truncate { at }).times(1));
        let vsphere = platform.open();
        let result = vsphere.connect().await;
        if let Err(error) = &result {
            n_cut += 1;
            assert_eq!(
                error.disposition(),
                Disposition::Retry,
                "cut after {at}: {}",
                Chain(error)
            );
            vsphere.connect().await.unwrap();
        }
        vsphere.close(Duration::from_secs(5)).await;
        if result.is_ok() {
            break;
        }
    }
    assert!(n_cut > 20, "{n_cut}");
}

/// Resident bytes of a process: now, and at most so far.
fn resident(process: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    (kib("VmRSS:") * 1024, kib("VmHWM:") * 1024)
}

/// Three sick platforms and a healthy one in the real daemon, on the real clock, for `HOSTILE_SECONDS`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn platforms_that_hang_lie_and_flood_neither_delay_the_healthy_one_nor_fill_the_memory() {
    const BUDGET: u64 = 64 << 20;
    let seconds: u64 = std::env::var("HOSTILE_SECONDS").map_or(130, |text| text.parse().unwrap());
    let spec = |seed: u64| Spec {
        seed,
        vms: 40,
        hosts: 2,
        powered_off: Some(0),
        ..Spec::default()
    };
    let mut simulators = Vec::new();
    for seed in 1..=4 {
        simulators.push(Simulator::start(spec(seed)).await.unwrap());
    }
    let [hangs, lies, floods, healthy] = &simulators[..] else {
        panic!("four of them");
    };
    hangs
        .rules()
        .add(Rule::on("QueryPerf", Action::Delay { millis: 3_600_000 }));
    hangs
        .rules()
        .add(Rule::on("CurrentTime", Action::Trickle { millis: 1_000 }).skip(3));
    floods
        .rules()
        .add(Rule::on("QueryPerf", Action::Bomb { bytes: 48 << 20 }).skip(1));
    floods
        .rules()
        .add(Rule::on("QueryPerf", Action::Endless).skip(20));
    floods
        .rules()
        .add(Rule::on("RetrievePropertiesEx", Action::Bomb { bytes: 48 << 20 }).skip(6));
    let vms = lies.world().running_vms();
    for (vm, action) in vms.iter().zip([
        Action::OmitEntity,
        Action::Twice,
        Action::Unexpanded,
        Action::OffGrid { seconds: 7 },
        Action::EmptyCells { counter: None },
        Action::Extra {
            moref: "vm-99999".to_owned(),
        },
        Action::Short { cells: 2 },
    ]) {
        lies.rules().add(Rule::on("QueryPerf", action).object(vm));
    }
    lies.rules()
        .add(Rule::on("QueryPerf", fault("ManagedObjectNotFound")).object(&vms[20]));
    let broken = Action::Replace {
        find: "</returnval>".to_owned(),
        with: "</return>".to_owned(),
    };
    lies.rules().add(Rule::on("QueryPerf", broken).object(&vms[21]));

    let directory = tempfile::tempdir().unwrap();
    let database = Database::create().await.unwrap_or_else(|error| panic!("{error}"));
    let settings = Settings {
        database: database.url(Role::Writer),
        owner: database.url(Role::Owner),
        interval: Duration::from_secs(20),
        discovery_interval: Duration::from_secs(30),
        listen: free_address().unwrap(),
        top: format!("memory = \"{}MiB\"\n", BUDGET >> 20),
        more: String::new(),
        platforms: ["hangs", "lies", "floods", "healthy"]
            .iter()
            .zip(&simulators)
            .map(|(name, simulator)| support::collector::Platform::simulated(name, simulator))
            .collect(),
    };
    let program = Path::new(env!("CARGO_BIN_EXE_virt-collector"));
    let mut collector = Collector::prepare(program, directory.path(), &settings).unwrap();
    collector.migrate().await.unwrap();
    collector.start().await.unwrap();
    let process = collector.daemon().unwrap().id().unwrap();
    let sql = database.connect(Role::Reader).await.unwrap();
    let age = async || -> Option<f64> {
        sql.query_one(
            "SELECT extract(epoch FROM clock_timestamp() - max(m.collected_at))::float8 FROM virt_vm_metrics m \
             JOIN virt_vm v USING (vm_id) JOIN virt_platform p USING (platform_id) WHERE p.name = 'healthy'",
            &[],
        )
        .await
        .unwrap()
        .get(0)
    };
    wait::until("the healthy platform has rows", async || {
        age()
            .await
            .map(|_| ())
            .ok_or_else(|| process::tail(&collector.log(), 5))
    })
    .await;
    let (at_start, _) = resident(process);
    let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let mut ages = Vec::new();
    while tokio::time::Instant::now() < end {
        ages.extend(age().await);
        collector.must_run().unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (at_end, peak) = resident(process);
    ages.sort_by(f64::total_cmp);
    let p95 = ages[ages.len() * 95 / 100 - 1];
    let oldest = ages[ages.len() - 1];
    println!(
        "{seconds} s: newest row of the healthy platform at most {oldest:.0} s old (95 %: {p95:.0} s); \
         resident {} MiB after the first poll, {} MiB at the end, at most {} MiB; budget {} MiB",
        at_start >> 20,
        at_end >> 20,
        peak >> 20,
        BUDGET >> 20
    );
    // What the healthy one published is stored whole.
    let truth = healthy.truth();
    let run = truth.now - i64::try_from(seconds).unwrap() * 1_000_000..truth.now;
    let verdict = support::oracle::check(&sql, "healthy", &truth, &[run], PROMISED)
        .await
        .unwrap();
    assert_eq!(
        (verdict.missing, verdict.wrong, verdict.unexplained),
        (0, 0, 0),
        "{verdict}\n{:#?}",
        verdict.details
    );
    assert!(oldest < PROMISED.as_secs_f64(), "{oldest}");
    // The process itself takes some; what the budget bounds comes on top.
    assert!(peak < BUDGET + (96 << 20), "{} MiB", peak >> 20);
    let metrics = collector.metrics().await.unwrap();
    let value = |series: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(0.0, |value| value.trim().parse().unwrap())
    };
    let failures = |platform: &str, kind: &str| {
        value(&format!(
            "virt_collector_soap_failures_total{{platform=\"{platform}\",type=\"{kind}\"}}"
        ))
    };
    assert!(failures("floods", "too_large") > 0.0, "{metrics}");
    assert!(failures("lies", "malformed") > 0.0, "{metrics}");
    assert!(
        value("virt_collector_platform_up{platform=\"healthy\"}") > 0.0,
        "{metrics}"
    );
    collector.stop(Duration::from_secs(45)).await.unwrap();
}

#[tokio::test]
async fn no_failure_of_tls_is_got_around() {
    let directory = tempfile::tempdir().unwrap();
    let refused: [(TlsMode, ErrorClass, &str); 5] = [
        (TlsMode::Expired, ErrorClass::Tls, "it has expired"),
        (TlsMode::NotYetValid, ErrorClass::Tls, "it is not valid yet"),
        (
            TlsMode::OtherName,
            ErrorClass::Tls,
            "it was issued for another.example.com, not for 127.0.0.1",
        ),
        (
            TlsMode::Tls11,
            ErrorClass::Tls,
            "does the port speak TLS 1.2 or 1.3?",
        ),
        (TlsMode::Reset, ErrorClass::Unreachable, "the connection to"),
    ];
    for (tls, class, why) in refused {
        let simulator = Simulator::start(Spec {
            tls,
            ..Spec::default()
        })
        .await
        .unwrap();
        let ca_file = directory.path().join("ca.pem");
        std::fs::write(&ca_file, simulator.ca_pem().unwrap()).unwrap();
        let mut platform = soap::Platform::of(&simulator);
        platform.options.pool.trust = Trust::CaFile(ca_file);
        let error = platform.open().connect().await.unwrap_err();
        let told = Chain(&error).to_string();
        assert_eq!(error.class(), class, "{tls:?}: {told}");
        assert!(told.contains(why), "{tls:?}: {told}");
        assert_eq!(simulator.calls().count("Login"), 0, "{tls:?}");
        assert_eq!(simulator.calls().count("RetrieveServiceContent"), 0, "{tls:?}");
    }

    // The certificate changes under the collector: the pin of before is not enough.
    let before = Simulator::start(Spec::default()).await.unwrap();
    let mut platform = soap::Platform::of(&before);
    before.shutdown().await;
    let after = Simulator::start(Spec::default()).await.unwrap();
    platform.options.pool.port = after.addr().port();
    let error = Vsphere::new(platform.options.clone())
        .unwrap()
        .connect()
        .await
        .unwrap_err();
    let told = Chain(&error).to_string();
    assert!(told.contains("its thumbprint is not the configured"), "{told}");
    assert_eq!(
        (error.class(), after.calls().count("Login")),
        (ErrorClass::Tls, 0)
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_takes_no_password_along() {
    let elsewhere = Simulator::start(Spec::default()).await.unwrap();
    let simulator = Simulator::start(Spec::default()).await.unwrap();
    let address: SocketAddr = elsewhere.addr();
    let away = Action::Redirect {
        location: format!("https://{address}/sdk"),
    };
    for method in ["RetrieveServiceContent", "Login"] {
        simulator.rules().clear();
        simulator.rules().add(Rule::on(method, away.clone()));
        let error = soap::Platform::of(&simulator).open().connect().await.unwrap_err();
        let told = Chain(&error).to_string();
        assert!(
            told.contains("a redirect; set host and port of the server itself"),
            "{told}"
        );
    }
    assert_eq!(elsewhere.calls().recent().len(), 0);
}
