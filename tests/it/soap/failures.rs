//! Whom is trusted, and what failures below SOAP say.

use vsphere_simulator::TlsMode;

use super::*;

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
