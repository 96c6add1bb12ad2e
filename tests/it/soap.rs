//! Sessions, trust and failures of calls, through the simulator's sockets.

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
use vsphere_simulator::TlsMode;

use crate::wait;

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

#[tokio::test]
async fn trust_is_a_pin_an_authority_or_nothing_and_a_refusal_names_the_thumbprint() {
    let (simulator, platform) = vcenter().await;
    let thumbprint = simulator.leaf_sha256_thumbprint().unwrap();
    let with = |trust: Trust| {
        let mut options = platform.options.clone();
        options.pool.trust = trust;
        Vsphere::new(options).unwrap()
    };
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, simulator.ca_pem().unwrap()).unwrap();
    for trust in [
        Trust::CaFile(ca_file),
        Trust::Thumbprint(bytes(&thumbprint)),
        Trust::Off,
    ] {
        let vsphere = with(trust);
        vsphere.connect().await.unwrap();
        vsphere.close(LOGOUT_DEADLINE).await;
    }
    let pin = format!("then pin it with thumbprint = \"{thumbprint}\"");
    let error = with(Trust::Thumbprint([0xAB; 32])).connect().await.unwrap_err();
    assert_eq!(
        (error.class(), error.disposition()),
        (ErrorClass::Tls, Disposition::Permanent)
    );
    let told = text(&error);
    assert!(
        told.contains("its thumbprint is not the configured AB:AB:") && told.ends_with(&pin),
        "{told}"
    );

    // Another authority than the one that signed it.
    let other = Simulator::start(Spec {
        tls: TlsMode::SelfSigned,
        ..Spec::default()
    })
    .await
    .unwrap();
    let ca_file = directory.path().join("other.pem");
    std::fs::write(&ca_file, other.ca_pem().unwrap()).unwrap();
    let told = text(&with(Trust::CaFile(ca_file)).connect().await.unwrap_err());
    assert!(
        told.contains("certificate not trusted: no trusted authority has signed it"),
        "{told}"
    );
    assert!(told.ends_with(&pin), "{told}");
    // Nothing was sent over a channel that is not trusted.
    assert_eq!(simulator.sessions().stats().logins, 3);
    // A self-signed one, as on a fresh ESXi host, can be pinned.
    Platform::of(&other).open().connect().await.unwrap();
}

#[tokio::test]
async fn a_certificate_for_another_name_is_told_apart() {
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let simulator = Simulator::start(Spec {
        listen: everywhere,
        ..Spec::default()
    })
    .await
    .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, simulator.ca_pem().unwrap()).unwrap();
    let mut platform = Platform::of(&simulator);
    platform.options.pool.trust = Trust::CaFile(ca_file);
    platform.options.pool.host = "127.0.0.2".to_owned();
    let told = text(&platform.open().connect().await.unwrap_err());
    assert!(
        told.contains("it was issued for ") && told.contains("not for 127.0.0.2"),
        "{told}"
    );
    platform.options.pool.host = "localhost".to_owned();
    platform.open().connect().await.unwrap();
}

#[tokio::test]
async fn the_wrong_kind_of_server_gets_no_password() {
    let (vcenter, platform) = vcenter().await;
    let esxi = Simulator::start(Spec::esxi(3)).await.unwrap();
    let mut as_esxi = platform.options.clone();
    as_esxi.pool.kind = PlatformKind::Esxi;
    let error = Vsphere::new(as_esxi).unwrap().connect().await.unwrap_err();
    assert_eq!(
        (error.class(), error.disposition()),
        (ErrorClass::Identity, Disposition::Permanent)
    );
    let told = text(&error);
    assert!(
        told.starts_with("this is vCenter (") && told.contains("not ESXi; set type = \"vcenter\""),
        "{told}"
    );

    let mut as_vcenter = Platform::of(&esxi).options;
    as_vcenter.pool.kind = PlatformKind::VCenter;
    let told = text(&Vsphere::new(as_vcenter).unwrap().connect().await.unwrap_err());
    assert!(
        told.starts_with("this is ESXi (") && told.contains("not vCenter; set type = \"esxi\""),
        "{told}"
    );
    for simulator in [vcenter, esxi] {
        assert_eq!(simulator.calls().count("Login"), 0);
    }
}

#[tokio::test]
async fn failures_below_soap_say_what_to_do() {
    let (simulator, mut platform) = vcenter().await;
    let address = simulator.addr();
    platform.options.pool.request_timeout = Duration::from_secs(1);
    let on = |method: &str, action: Action| {
        simulator.rules().clear();
        simulator.rules().add(Rule::on(method, action));
        platform.open()
    };
    let html = "<!DOCTYPE html><html><body>Welcome</body></html>".to_owned();
    let page = Action::Body {
        text: html.clone(),
        content_type: "text/html".to_owned(),
    };
    let anything = on("vimServiceVersions.xml", page.clone());
    simulator.rules().add(Rule::on("RetrieveServiceContent", page));
    let told = anything.connect().await.unwrap_err();
    assert_eq!(told.class(), ErrorClass::Unreachable);
    let wanted = format!("{address} is not a vSphere server: it answers with \"text/html\" where XML is due");
    assert!(text(&told).contains(&wanted), "{}", text(&told));

    // The same page under a false name.
    let page = Action::Body {
        text: html,
        content_type: "text/xml".to_owned(),
    };
    let told = text(&on("RetrieveServiceContent", page).connect().await.unwrap_err());
    assert!(
        told.contains("cannot be read") && told.contains("it has a DOCTYPE"),
        "{told}"
    );

    for (code, hint) in [
        (503, "HTTP 503; it is starting, or out of sessions"),
        (502, "HTTP 502; the proxy before the API gets no answer from it"),
        (
            302,
            "HTTP 302, a redirect; set host and port of the server itself",
        ),
        (403, "HTTP 403; there is no vSphere API here, check host and port"),
        (500, "HTTP 500 without a SOAP fault"),
    ] {
        let error = on("RetrieveServiceContent", Action::Status { code, body: None })
            .connect()
            .await
            .unwrap_err();
        assert_eq!(error.disposition(), Disposition::Retry);
        assert!(text(&error).ends_with(hint), "{}", text(&error));
    }

    let error = on("RetrieveServiceContent", Action::Delay { millis: 3000 })
        .connect()
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Timeout);
    assert!(
        text(&error).contains("gave no complete answer within 1 s"),
        "{}",
        text(&error)
    );

    for at in [0, 100] {
        let error = on("RetrieveServiceContent", Action::Reset { at })
            .connect()
            .await
            .unwrap_err();
        assert_eq!(error.disposition(), Disposition::Retry);
        assert!(
            text(&error).contains(&format!("the connection to {address} broke")),
            "{}",
            text(&error)
        );
    }
    let error = on("RetrieveServiceContent", Action::Cut { at: 100 })
        .connect()
        .await
        .unwrap_err();
    assert!(text(&error).contains("broke"), "{}", text(&error));
    // A complete message with a body that stops: gunzip notices, and without it the parser does.
    let error = on("RetrieveServiceContent", Action::Truncate { at: 300 })
        .connect()
        .await
        .unwrap_err();
    assert!(text(&error).contains("broke"), "{}", text(&error));
    let plain = Simulator::start(Spec {
        gzip: false,
        ..Spec::default()
    })
    .await
    .unwrap();
    plain
        .rules()
        .add(Rule::on("RetrieveServiceContent", Action::Truncate { at: 300 }));
    let error = Platform::of(&plain).open().connect().await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Retry);
    assert!(
        text(&error).contains("the answer to RetrieveServiceContent cannot be read"),
        "{}",
        text(&error)
    );

    simulator.rules().clear();
    simulator.set_network(false);
    let error = platform.open().connect().await.unwrap_err();
    assert_eq!(
        (error.class(), error.disposition()),
        (ErrorClass::Unreachable, Disposition::Retry)
    );

    // A port on which nobody listens any more.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    platform.options.pool.port = closed.port();
    let error = platform.open().connect().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unreachable);
    let told = text(&error);
    assert!(
        told.contains(&format!("{closed} refuses the connection; check host and port")),
        "{told}"
    );

    platform.options.pool.host = "no-such-host.invalid".to_owned();
    platform.options.pool.request_timeout = Duration::from_secs(20);
    let error = platform.open().connect().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unreachable);
    assert!(
        text(&error).contains("the name no-such-host.invalid cannot be resolved"),
        "{}",
        text(&error)
    );
}

#[tokio::test]
async fn a_port_that_speaks_no_tls_is_told_apart() {
    let simulator = Simulator::start(Spec {
        tls: TlsMode::Plain,
        ..Spec::default()
    })
    .await
    .unwrap();
    let platform = Platform::at(simulator.addr(), PlatformKind::VCenter, "u", "p", Trust::Off);
    let error = platform.open().connect().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Tls);
    assert!(
        text(&error).contains("does the port speak TLS"),
        "{}",
        text(&error)
    );
}

#[tokio::test]
async fn calls_name_the_highest_common_version_their_sender_and_an_id_of_their_own() {
    let (simulator, platform) = vcenter().await;
    let vsphere = platform.open();
    vsphere.connect().await.unwrap();
    vsphere.server_time().await.unwrap();
    let calls = simulator.calls().recent();
    let mut ids: Vec<String> = Vec::new();
    for call in calls
        .iter()
        .filter(|call| call.method != "vimServiceVersions.xml")
    {
        let action = call.soap_action.as_deref().unwrap();
        assert!(action.trim_matches('"').starts_with("urn:vim25/8."), "{action}");
        assert!(call.user_agent.as_deref().unwrap().starts_with("virt-collector/"));
        let id = call.operation_id.clone().unwrap();
        assert_eq!((id.len(), id.starts_with("virt-collector-")), (23, true), "{id}");
        ids.push(id);
    }
    let n = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), n);
    vsphere.close(LOGOUT_DEADLINE).await;
}

#[tokio::test]
async fn the_limiter_holds_calls_back() {
    let (_simulator, mut platform) = vcenter().await;
    platform.options.pool.requests_per_second = 10;
    let vsphere = platform.open();
    let started = std::time::Duration::ZERO;
    let clock = tokio::time::Instant::now();
    for _ in 0..25 {
        vsphere.server_time().await.unwrap();
    }
    // A burst of ten, then ten a second: 28 calls with those of the login.
    assert!(
        clock.elapsed() > started + Duration::from_millis(1500),
        "{:?}",
        clock.elapsed()
    );
    vsphere.close(LOGOUT_DEADLINE).await;
}

/// A TLS server that answers every request with the same bytes and then with more, as long as somebody listens.
fn serve(head: &'static str, body: &'static [u8], more: &'static [u8], pause: Duration) -> SocketAddr {
    use std::io::Read as _;
    use std::io::Write as _;

    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![key.cert.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(tls, tcp);
            let mut request = [0; 16 * 1024];
            if stream.read(&mut request).is_err() || stream.write_all(head.as_bytes()).is_err() {
                continue;
            }
            let mut next = body;
            while stream.write_all(next).and_then(|()| stream.flush()).is_ok() && !more.is_empty() {
                std::thread::park_timeout(pause);
                next = more;
            }
        }
    });
    address
}

#[tokio::test]
async fn no_answer_is_larger_or_slower_than_its_bounds() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n";
    let ask = async |address: SocketAddr| {
        let mut platform = Platform::at(address, PlatformKind::VCenter, "u", "p", Trust::Off);
        platform.options.pool.request_timeout = Duration::from_secs(2);
        let asked = tokio::time::Instant::now();
        let error = platform.open().connect().await.unwrap_err();
        assert!(asked.elapsed() < Duration::from_secs(10));
        text(&error)
    };
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let bomb: &[u8] = include_bytes!("fixtures/flood.xml.gz");
    let head = leak(format!(
        "{HEAD}Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        bomb.len()
    ));
    let told = ask(serve(head, bomb, b"", Duration::ZERO)).await;
    assert!(
        told.contains("sends more than the 1048576 bytes"),
        "3 MB in 3 KB: {told}"
    );

    let told = ask(serve(
        leak(format!("{HEAD}Content-Length: 2000000\r\n\r\n")),
        b"<",
        b"",
        Duration::ZERO,
    ))
    .await;
    assert!(
        told.contains("sends more than the 1048576 bytes"),
        "announced: {told}"
    );

    let head = leak(format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n"));
    let chunk = leak(format!("4000\r\n{}\r\n", " ".repeat(0x4000))).as_bytes();
    let told = ask(serve(head, chunk, chunk, Duration::ZERO)).await;
    assert!(
        told.contains("sends more than the 1048576 bytes"),
        "without end: {told}"
    );

    let told = ask(serve(
        head,
        b"1\r\n<\r\n",
        b"1\r\n \r\n",
        Duration::from_millis(50),
    ))
    .await;
    assert!(
        told.contains("gave no complete answer within 2 s"),
        "a byte at a time: {told}"
    );

    let told = ask(serve("HTTP/1.1 200 OK\r\n", b"", b"", Duration::ZERO)).await;
    assert!(told.contains("broke"), "closed within the head: {told}");
}
