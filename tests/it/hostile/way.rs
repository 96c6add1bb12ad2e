//! Answers that are cut on their way, channels that are not trusted.

use super::*;

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
