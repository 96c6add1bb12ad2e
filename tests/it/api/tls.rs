//! TLS: where it is needed, how its certificate is replaced, and what happens to who does not speak it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use support::collector::{Collector, Settings};
use support::process::free_address;
use tokio_rustls::TlsConnector;

use super::*;
use crate::wait;

/// A certificate for 127.0.0.1 that is good until the last of May of a year, and its key, as PEM.
fn certificate(year: i32) -> (CertificateDer<'static>, String, String) {
    let mut parameters = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    parameters.not_after = rcgen::date_time_ymd(year, 5, 31);
    let key = rcgen::KeyPair::generate().unwrap();
    let made = parameters.self_signed(&key).unwrap();
    (made.der().clone(), made.pem(), key.serialize_pem())
}

/// Of a client that trusts this certificate alone.
pub(crate) fn connector(trusted: &CertificateDer<'static>) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// An answer, where the server shows the certificate.
async fn ask(address: SocketAddr, trusted: &CertificateDer<'static>, ask: &Ask) -> Result<Answer, String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = connector(trusted)
        .connect(name, stream)
        .await
        .map_err(|error| error.to_string())?;
    Ok(exchange(stream, &ask.bytes()).await)
}

#[test]
fn an_address_that_others_reach_needs_tls_or_a_proxy() {
    let parse = |more: &str| {
        let text = format!("[database]\nurl = \"host=/x\"\n[api]\n{more}\n");
        Config::parse(&text, Path::new("/etc/virt-collector/config.toml")).map_err(|error| error.to_string())
    };
    assert_eq!(parse("").unwrap().api, None);
    for address in ["0.0.0.0:443", "[::]:443", "192.0.2.1:443"] {
        let listen = format!("listen = \"{address}\"");
        let error = parse(&listen).unwrap_err();
        assert!(
            error.contains("api.listen: ") && error.contains("in the clear"),
            "{error}"
        );
        assert!(parse(&format!("{listen}\nbehind_proxy = true")).is_ok());
        let tls = "tls_certificate_file = \"a.pem\"\ntls_key_file = \"a.key\"";
        let api = parse(&format!("{listen}\n{tls}")).unwrap().api.unwrap();
        assert_eq!(api.tls.unwrap().key, Path::new("/etc/virt-collector/a.key"));
    }
    for address in ["127.0.0.1:0", "[::1]:0", "127.1.2.3:8080"] {
        assert!(parse(&format!("listen = \"{address}\"")).is_ok(), "{address}");
    }
    for (more, says) in [
        ("tls_key_file = \"a\"", "api.tls_certificate_file: is missing"),
        ("tls_certificate_file = \"a\"", "api.tls_key_file: is missing"),
        (
            "trusted_proxies = [\"proxy.example.com\"]",
            "api.trusted_proxies: \"proxy.example.com\" is neither",
        ),
        ("connections = 0", "api.connections: 0 is outside 1 to 4096"),
    ] {
        let error = parse(&format!("listen = \"127.0.0.1:1\"\n{more}")).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_replaced_by_a_signal_and_a_bad_one_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let write = |(_, pem, key): &(CertificateDer<'static>, String, String)| {
        std::fs::write(path("api.pem"), pem).unwrap();
        std::fs::write(path("api.key"), key).unwrap();
        std::fs::set_permissions(path("api.key"), PermissionsExt::from_mode(0o640)).unwrap();
    };
    let (first, second) = (certificate(2058), certificate(2061));
    write(&first);
    let database = Database::create().await.unwrap_or_else(|error| panic!("{error}"));
    let api = free_address().unwrap();
    let settings = Settings {
        more: format!(
            "[api]\nlisten = \"{api}\"\ntls_certificate_file = \"api.pem\"\ntls_key_file = \"api.key\"\n"
        ),
        ..Settings::on(&database, Vec::new()).unwrap()
    };
    let program = Path::new(env!("CARGO_BIN_EXE_virt-collector"));
    let mut collector = Collector::prepare(program, directory.path(), &settings).unwrap();
    collector.migrate().await.unwrap();
    collector.start().await.unwrap();
    collector.ready(DEADLINE).await.unwrap();
    let process = collector.pid().unwrap();
    let hang_up = || {
        let killed = std::process::Command::new("kill")
            .args(["-HUP", &process.to_string()])
            .status();
        assert!(killed.unwrap().success());
    };
    let livez = Ask::get("/livez");
    let answer = ask(api, &first.0, &livez).await.unwrap();
    answer.check();
    assert_eq!(answer.status, 200);
    assert!(ask(api, &second.0, &livez).await.is_err(), "not shown yet");
    // Until when it is good is told, by the service and beforehand.
    let told = async |until: &str| {
        let seconds = until.parse::<jiff::Timestamp>().unwrap().as_second();
        let metric = format!("\nvirt_collector_api_certificate_expiry_timestamp_seconds {seconds}\n");
        let metrics = collector.metrics().await.unwrap();
        assert!(metrics.contains(&metric), "{metrics}");
        let checked = collector.command(&["check"]).await.unwrap();
        assert!(checked.contains(&format!("good until {until}")), "{checked}");
    };
    told("2058-05-31T00:00:00Z").await;

    write(&second);
    hang_up();
    wait::until("the second certificate is shown", async || {
        ask(api, &second.0, &livez).await.map(drop)
    })
    .await;
    assert!(ask(api, &first.0, &livez).await.is_err(), "not shown any more");
    told("2061-05-31T00:00:00Z").await;

    let refused = async |times: usize, words: &str| {
        hang_up();
        wait::until("the bad pair is told", async || {
            let log = std::fs::read_to_string(collector.log()).unwrap();
            let told = log.matches("configuration refused").count();
            if told == times && log.contains(words) {
                Ok(())
            } else {
                Err(format!("{told} times: {log}"))
            }
        })
        .await;
    };
    std::fs::write(path("api.key"), &first.2).unwrap();
    refused(1, "cannot be used together").await;
    // The right one, for everybody to read.
    std::fs::write(path("api.key"), &second.2).unwrap();
    std::fs::set_permissions(path("api.key"), PermissionsExt::from_mode(0o644)).unwrap();
    refused(2, "api.key can be read by everyone (mode 644)").await;
    assert_eq!(
        ask(api, &second.0, &livez).await.unwrap().status,
        200,
        "the one before stays"
    );

    // Who does not speak TLS is let go, whether he talks or not.
    for bytes in [
        &b""[..],
        b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n",
        b"\x16\x03\x01",
    ] {
        let mut stream = TcpStream::connect(api).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let received = tokio::time::timeout(DEADLINE, read_all(&mut stream))
            .await
            .expect("the server closes");
        assert!(Answer::parse(&received).is_none(), "{received:?}");
    }
    collector.end(DEADLINE).await.unwrap();
}
