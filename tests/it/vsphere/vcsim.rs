//! Discovery and samples of vcsim, which we did not write.

use virt_collector::config::PlatformKind;
use virt_collector::config::Trust;

use super::*;
use crate::vcsim::{self, Vcsim};

fn platform(vcsim: &Vcsim, kind: PlatformKind, trust: Trust) -> Platform {
    Platform::at(vcsim.address(), kind, vcsim::USER, vcsim::PASSWORD, trust)
}

fn tell(error: &Error) -> String {
    Chain(error).to_string()
}

/// Its certificate is its own authority, as on a fresh vCenter: pin what the refusal names.
async fn pinned(vcsim: &Vcsim, kind: PlatformKind) -> Platform {
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    let other = rcgen::generate_simple_self_signed(["other".to_owned()]).unwrap();
    std::fs::write(&ca_file, other.cert.pem()).unwrap();
    let told = platform(vcsim, kind, Trust::CaFile(ca_file))
        .open()
        .connect()
        .await
        .unwrap_err();
    let told = tell(&told);
    let print = told.rsplit('"').nth(1).expect(&told);
    let bytes: Vec<u8> = print
        .split(':')
        .map(|pair| u8::from_str_radix(pair, 16).expect(&told))
        .collect();
    platform(vcsim, kind, Trust::Thumbprint(bytes.try_into().unwrap()))
}

async fn polled(vsphere: &Vsphere, hosts: usize, vms: usize) {
    let inventory = vsphere.discover().await.unwrap();
    assert_eq!((inventory.hosts.len(), inventory.vms.len()), (hosts, vms));
    let now = vsphere.server_time().await.unwrap();
    let after = now.minus(Duration::from_secs(70));
    let hosts = inventory.hosts.iter().zip(1..).map(|(host, id)| Target {
        entity: HostId(id).into(),
        moref: host.moref.clone(),
        cpus: host.threads.unwrap(),
        placement: None,
        after,
        until: None,
    });
    let vms = inventory.vms.iter().zip(1..).map(|(vm, id)| Target {
        entity: VmId(id).into(),
        moref: vm.moref.clone(),
        cpus: vm.vcpus.unwrap(),
        placement: None,
        after,
        until: None,
    });
    let targets: Vec<Target> = hosts.chain(vms).collect();
    let reply = vsphere.query(&targets, REALTIME_SECONDS).await.unwrap();
    assert_eq!(reply.windows.len(), targets.len(), "{:?}", reply.counts);
    for window in &reply.windows {
        // Newest first and off the grid on the wire; ascending here.
        assert!((3..=4).contains(&window.len()), "{:?}", window.heads());
        let usage = Column::of(window.entity.kind)
            .iter()
            .position(|c| c.name == "cpu_usage_percent");
        for (_, cells) in window.rows() {
            let usage = cells.get(usage.unwrap()).unwrap().get().unwrap();
            assert!((0.0..=100.0).contains(&usage));
        }
    }
}

/// Its roll-ups are noise at times of its own, but the question and the answer have the right form.
async fn rolled_up(vsphere: &Vsphere, level: Option<u8>) {
    let rollups = vsphere.rollups().await.unwrap().unwrap();
    assert_eq!(rollups.level, level);
    assert!(rollups.kept >= Duration::from_secs(86_400));
    let kept = rollups.counters.columns(EntityKind::Vm);
    assert!(kept.contains(&"cpu_usage_percent"), "{kept:?}");
    assert_eq!(kept.contains(&"memory_active_kib"), level.is_none(), "{kept:?}");
    let inventory = vsphere.discover().await.unwrap();
    let now = vsphere.server_time().await.unwrap();
    let target = Target {
        entity: VmId(1).into(),
        moref: inventory.vms.first().unwrap().moref.clone(),
        cpus: 1,
        placement: None,
        after: now.minus(Duration::from_secs(3 * 3600)),
        until: Some(now.minus(Duration::from_secs(3600))),
    };
    let reply = vsphere.query(&[target], 300).await.unwrap();
    assert_eq!(reply.counts.other_interval, 0);
    let heads = reply.windows.first().unwrap().heads();
    assert!((24..=25).contains(&heads.len()), "{}", heads.len());
    assert!(heads.iter().all(|head| head.interval_seconds == 300));
}

#[tokio::test]
async fn vcsim_as_a_vcenter_is_polled() {
    let vcsim = Vcsim::start(&[]);
    let vsphere = pinned(&vcsim, PlatformKind::VCenter).await.open();
    let about = vsphere.connect().await.unwrap();
    assert_eq!(about.kind, PlatformKind::VCenter);
    polled(&vsphere, 4, 4).await;
    assert_eq!(vsphere.max_query_metrics().await.unwrap(), None, "vcsim: not set");
    assert_eq!(
        vsphere.most_rollup_series().await.unwrap(),
        Some(256),
        "by its version"
    );
    rolled_up(&vsphere, Some(1)).await;
    vsphere.close(LOGOUT_DEADLINE).await;
    assert_eq!(vsphere.stats().logouts, 1);
}

#[tokio::test]
async fn vcsim_as_an_esxi_host_is_polled() {
    let vcsim = Vcsim::start(&["-esx"]);
    let vsphere = pinned(&vcsim, PlatformKind::Esxi).await.open();
    let about = vsphere.connect().await.unwrap();
    assert_eq!(about.kind, PlatformKind::Esxi);
    polled(&vsphere, 1, 2).await;
    let summary = vsphere
        .provider_summary(EntityKind::Host, "ha-host")
        .await
        .unwrap();
    assert_eq!((summary.current, summary.refresh_seconds), (true, Some(20)));
    assert_eq!(
        vsphere.most_rollup_series().await.unwrap(),
        None,
        "ESXi: no bound"
    );
    rolled_up(&vsphere, None).await;
    vsphere.close(LOGOUT_DEADLINE).await;
}

#[tokio::test]
async fn a_wrong_password_and_the_wrong_kind_are_told_apart_by_vcsim_too() {
    let vcsim = Vcsim::start(&["-esx"]);
    let wrong_kind = platform(&vcsim, PlatformKind::VCenter, Trust::Off);
    let told = tell(&wrong_kind.open().connect().await.unwrap_err());
    assert!(told.starts_with("this is ESXi (VMware ESXi"), "{told}");
    let platform = platform(&vcsim, PlatformKind::Esxi, Trust::Off);
    *platform.password.lock().unwrap() = "wrong".to_owned();
    let told = tell(&platform.open().connect().await.unwrap_err());
    assert!(told.contains("(InvalidLogin)"), "{told}");
}

/// A certificate for 127.0.0.1 and its authority, as files.
struct Certificate {
    directory: tempfile::TempDir,
    authority: rustls::pki_types::CertificateDer<'static>,
}

impl Certificate {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &authority).unwrap();
        let directory = tempfile::tempdir().unwrap();
        for (name, pem) in [
            ("ca", authority.pem()),
            ("leaf", leaf.pem()),
            ("key", key.serialize_pem()),
        ] {
            std::fs::write(directory.path().join(name), pem).unwrap();
        }
        Self {
            directory,
            authority: authority.der().clone(),
        }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn client(&self) -> reqwest::Client {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .no_proxy()
            .build()
            .unwrap()
    }
}

/// Ends every session but its own, as an administrator would. The release of vcsim that can be installed has
/// no idle time to set; to a client the end is the same.
async fn end_all_sessions(address: std::net::SocketAddr, http: &reqwest::Client) {
    let url = format!("https://{address}/sdk");
    let mut cookie = String::new();
    let mut call = async |body: &str| {
        let envelope = format!(
            "<?xml version=\"1.0\"?><soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\">\
             <soapenv:Body>{body}</soapenv:Body></soapenv:Envelope>"
        );
        let request = http.post(&url).header("cookie", cookie.clone()).body(envelope);
        let mut reply = request.send().await.unwrap();
        assert!(reply.status().is_success(), "{}", reply.status());
        if let Some(set) = reply.headers().get("set-cookie") {
            cookie = set.to_str().unwrap().split(';').next().unwrap().to_owned();
        }
        let mut text = Vec::new();
        while let Some(chunk) = reply.chunk().await.unwrap() {
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).unwrap()
    };
    let manager = "<_this type=\"SessionManager\">SessionManager</_this>";
    let own = call(&format!(
        "<Login xmlns=\"urn:vim25\">{manager}<userName>monitor</userName><password>p&amp;w&lt;1&gt;</password></Login>"
    ))
    .await;
    let list = call(
        "<RetrievePropertiesEx xmlns=\"urn:vim25\"><_this type=\"PropertyCollector\">propertyCollector</_this>\
         <specSet><propSet><type>SessionManager</type><pathSet>sessionList</pathSet></propSet><objectSet>\
         <obj type=\"SessionManager\">SessionManager</obj></objectSet></specSet><options/></RetrievePropertiesEx>",
    )
    .await;
    let keys = |text: &str| -> BTreeSet<String> {
        text.split("<key>")
            .skip(1)
            .map(|rest| rest.split('<').next().unwrap().to_owned())
            .collect()
    };
    let own = keys(&own);
    let others: Vec<String> = keys(&list).difference(&own).cloned().collect();
    assert_eq!(others.len(), 1, "{list}");
    let ids: String = others
        .iter()
        .map(|key| format!("<sessionId>{key}</sessionId>"))
        .collect();
    call(&format!(
        "<TerminateSession xmlns=\"urn:vim25\">{manager}{ids}</TerminateSession>"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_ended_on_vcsim_is_replaced() {
    let certificate = Certificate::new();
    let vcsim = Vcsim::start(&[
        "-tlscert",
        &certificate.path("leaf"),
        "-tlskey",
        &certificate.path("key"),
    ]);
    let trust = Trust::CaFile(certificate.path("ca").into());
    let vsphere = platform(&vcsim, PlatformKind::VCenter, trust).open();
    polled(&vsphere, 4, 4).await;
    assert_eq!(vsphere.stats().logins, 1);
    end_all_sessions(vcsim.address(), &certificate.client()).await;
    polled(&vsphere, 4, 4).await;
    assert_eq!((vsphere.stats().logins, vsphere.stats().relogins), (2, 1));
    vsphere.close(LOGOUT_DEADLINE).await;
}
