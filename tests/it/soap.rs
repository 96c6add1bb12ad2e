//! Sessions and their log-ins, through the simulator's sockets; what calls carry, and how they fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use virt_collector::config::HostDisk;
use virt_collector::config::PlatformKind;
use virt_collector::config::Trust;
use virt_collector::error::Chain;
use virt_collector::error::Disposition;
use virt_collector::model::status::ErrorClass;
use virt_collector::secret::Secret;
use virt_collector::soap::Credentials;
use virt_collector::soap::pool;
use virt_collector::vsphere::Error;
use virt_collector::vsphere::Options;
use virt_collector::vsphere::Selection;
use virt_collector::vsphere::Vsphere;
use vsphere_simulator::Action;
use vsphere_simulator::Rule;
use vsphere_simulator::Simulator;
use vsphere_simulator::Spec;

use crate::wait;

mod calls;
mod failures;

const LOGOUT_DEADLINE: Duration = Duration::from_secs(10);

/// How to reach a simulator, with a password that the test can change.
pub(crate) struct Platform {
    pub(crate) options: Options,
    pub(crate) password: Arc<Mutex<String>>,
}

impl Platform {
    pub(crate) fn of(simulator: &Simulator) -> Self {
        let (user, password) = simulator.credentials();
        let kind = match simulator.truth().kind {
            vsphere_simulator::PlatformKind::Vcenter => PlatformKind::VCenter,
            vsphere_simulator::PlatformKind::Esxi => PlatformKind::Esxi,
        };
        let thumbprint = simulator.leaf_sha256_thumbprint().unwrap();
        Self::at(
            simulator.addr(),
            kind,
            user,
            password,
            Trust::Thumbprint(bytes(&thumbprint)),
        )
    }

    pub(crate) fn at(addr: SocketAddr, kind: PlatformKind, user: &str, password: &str, trust: Trust) -> Self {
        let password = Arc::new(Mutex::new(password.to_owned()));
        let source = Arc::clone(&password);
        let credentials = Credentials::new(user, move || Ok(Secret::new(source.lock().unwrap().clone())));
        let pool = pool::Options {
            platform: "lab".to_owned(),
            kind,
            host: addr.ip().to_string(),
            port: addr.port(),
            trust,
            credentials,
            sessions: 1,
            requests_per_second: 1000,
            request_timeout: Duration::from_secs(20),
            page_bytes: 8 << 20,
            refusal_wait: pool::REFUSAL_WAIT,
        };
        let selection = Selection {
            host_disk: HostDisk::StorageAdapter,
            ..Selection::default()
        };
        Self {
            options: Options { pool, selection },
            password,
        }
    }

    pub(crate) fn open(&self) -> Vsphere {
        Vsphere::new(self.options.clone()).unwrap()
    }
}

pub(crate) fn bytes(thumbprint: &str) -> [u8; 32] {
    let bytes: Vec<u8> = thumbprint
        .split(':')
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}

fn text(error: &Error) -> String {
    Chain(error).to_string()
}

async fn vcenter() -> (Simulator, Platform) {
    let simulator = Simulator::start(Spec::default()).await.unwrap();
    let platform = Platform::of(&simulator);
    (simulator, platform)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_session_is_replaced_once_for_many_callers_and_logged_out_at_the_end() {
    let (simulator, platform) = vcenter().await;
    let vsphere = platform.open();
    vsphere.connect().await.unwrap();
    for round in 1..=3 {
        simulator.sessions().expire_all();
        let calls = (0..20).map(|call| {
            let vsphere = vsphere.clone();
            async move {
                // Both ways in which a lost session shows: a fault, and missingSet in HTTP 200.
                if call % 2 == 0 {
                    vsphere.server_time().await.map(|_| ())
                } else {
                    vsphere
                        .discover()
                        .await
                        .map(|inventory| assert!(!inventory.is_empty()))
                }
            }
        });
        for result in futures_util::future::join_all(calls).await {
            result.unwrap();
        }
        assert_eq!(simulator.sessions().stats().logins, 1 + round);
        assert_eq!(vsphere.stats().relogins, round);
    }
    assert_eq!(simulator.sessions().stats().open, 1);
    vsphere.close(LOGOUT_DEADLINE).await;
    assert_eq!(simulator.sessions().stats().open, 0);
    assert!(matches!(
        vsphere.server_time().await.unwrap_err(),
        Error::Soap(virt_collector::soap::Error::Closed)
    ));
}

#[tokio::test]
async fn a_session_that_the_server_wrongly_disowns_is_logged_out_before_the_next_login() {
    let (simulator, platform) = vcenter().await;
    let vsphere = platform.open();
    vsphere.connect().await.unwrap();
    let fault = Action::Fault {
        fault: "NotAuthenticated".to_owned(),
        message: String::new(),
    };
    simulator.rules().add(Rule::on("CurrentTime", fault).times(1));
    vsphere.server_time().await.unwrap();
    let stats = simulator.sessions().stats();
    assert_eq!(
        (stats.logins, stats.logouts, stats.open, stats.max_open),
        (2, 1, 1, 1)
    );
    vsphere.close(LOGOUT_DEADLINE).await;
    assert_eq!(simulator.sessions().stats().open, 0);
}

/// An expired session shows as HTTP 200 and a list of properties that could not be read.
#[tokio::test]
async fn an_expired_session_is_no_empty_inventory() {
    let (simulator, platform) = vcenter().await;
    let vsphere = platform.open();
    vsphere.connect().await.unwrap();
    let expired = Action::Body {
        text: include_str!("fixtures/expired_session.xml").to_owned(),
        content_type: "text/xml; charset=utf-8".to_owned(),
    };
    simulator
        .rules()
        .add(Rule::on("RetrievePropertiesEx", expired).times(1));
    let inventory = vsphere.discover().await.unwrap();
    assert!(
        inventory.vms.len() > 20
            && inventory
                .vms
                .iter()
                .all(|vm| vm.moref.as_str() != "vm-42" || vm.name.is_some())
    );
    assert_eq!(simulator.sessions().stats().logins, 2);
    vsphere.close(LOGOUT_DEADLINE).await;
}

#[tokio::test]
async fn an_operation_logs_in_again_at_most_once() {
    let (simulator, platform) = vcenter().await;
    let vsphere = platform.open();
    vsphere.connect().await.unwrap();
    let fault = Action::Fault {
        fault: "NotAuthenticated".to_owned(),
        message: String::new(),
    };
    simulator.rules().add(Rule::on("CurrentTime", fault));
    for calls in 1..=3 {
        let error = vsphere.server_time().await.unwrap_err();
        assert_eq!(error.disposition(), Disposition::Relogin);
        assert_eq!(simulator.sessions().stats().logins, 1 + calls);
    }
    vsphere.close(LOGOUT_DEADLINE).await;
    assert_eq!(simulator.sessions().stats().open, 0);
}

#[tokio::test]
async fn a_login_that_its_caller_left_is_used_by_the_next_one_and_logged_out_at_the_end() {
    for used in [true, false] {
        let (simulator, platform) = vcenter().await;
        let vsphere = platform.open();
        // The server has opened the session; its answer is held back.
        simulator
            .rules()
            .add(Rule::on("Login", Action::Delay { millis: 2_000 }).times(1));
        {
            let mut left = Box::pin(vsphere.connect());
            let opened = wait::until("a session", async || match simulator.calls().count("Login") {
                0 => Err("no log-in".to_owned()),
                _ => Ok(()),
            });
            tokio::select! {
                result = &mut left => panic!("{result:?}"),
                () = opened => {}
            }
        }
        if used {
            vsphere.connect().await.unwrap();
        }
        vsphere.close(Duration::from_secs(20)).await;
        let stats = simulator.sessions().stats();
        assert_eq!((stats.open, stats.logins), (0, 1), "used again: {used}");
    }
}

#[tokio::test]
async fn a_pool_spreads_calls_over_its_sessions_and_ends_them_all() {
    let (simulator, mut platform) = vcenter().await;
    platform.options.pool.sessions = 3;
    let vsphere = platform.open();
    for _ in 0..9 {
        vsphere.server_time().await.unwrap();
    }
    assert_eq!(simulator.sessions().stats().open, 3);
    assert_eq!(simulator.sessions().stats().logins, 3);
    vsphere.close(LOGOUT_DEADLINE).await;
    assert_eq!(simulator.sessions().stats().open, 0);
    assert_eq!(vsphere.stats().logouts, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_refused_login_nothing_is_sent_until_the_wait_is_over_or_the_password_is_another() {
    const SHORT: Duration = Duration::from_millis(500);
    let (simulator, mut platform) = vcenter().await;
    // Longer than this test takes on any machine.
    platform.options.pool.refusal_wait = Duration::from_hours(1);
    platform.options.pool.sessions = 4;
    let right = std::mem::replace(&mut *platform.password.lock().unwrap(), "wrong".to_owned());
    let vsphere = platform.open();
    let together = (0..16).map(|_| vsphere.connect());
    for result in futures_util::future::join_all(together).await {
        let error = result.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Auth);
        assert!(
            matches!(error.disposition(), Disposition::RetryAfter(_)),
            "{error:?}"
        );
        let text = text(&error);
        assert!(
            text.starts_with(
                "the server refuses user \"monitor@vsphere.local\" with this password (InvalidLogin); correct the \
                 user or its password; next try not before "
            ),
            "{text}"
        );
    }
    assert_eq!(simulator.sessions().stats().failed_logins, 1);
    let requests = vsphere.stats().requests;
    vsphere.connect().await.unwrap_err();
    assert_eq!(
        vsphere.stats().requests,
        requests,
        "no request while the wait lasts"
    );

    // Repeated failures lock accounts: each other password is tried once, and only then.
    "wrong again".clone_into(&mut platform.password.lock().unwrap());
    for _ in 0..3 {
        vsphere.connect().await.unwrap_err();
    }
    assert_eq!(simulator.sessions().stats().failed_logins, 2);
    *platform.password.lock().unwrap() = right;
    vsphere.connect().await.unwrap();
    assert_eq!(vsphere.stats().refusals, 2);
    vsphere.close(LOGOUT_DEADLINE).await;

    // A wait that is over: one attempt, and the next wait begins.
    platform.options.pool.refusal_wait = SHORT;
    "wrong".clone_into(&mut platform.password.lock().unwrap());
    let vsphere = platform.open();
    let refused = tokio::time::Instant::now();
    vsphere.connect().await.unwrap_err();
    let refusals = wait::until("an attempt behind the wait", async || {
        vsphere.connect().await.unwrap_err();
        match vsphere.stats().refusals {
            0..=1 => Err("none".to_owned()),
            refusals => Ok(refusals),
        }
    })
    .await;
    assert_eq!(refusals, 2);
    assert!(refused.elapsed() >= SHORT, "{:?}", refused.elapsed());
}
