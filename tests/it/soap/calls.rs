//! What every call carries, and the bounds that it keeps.

use super::*;

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
    let bomb: &[u8] = include_bytes!("../fixtures/flood.xml.gz");
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
