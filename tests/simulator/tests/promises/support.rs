//! A tiny SOAP client that shares nothing with the simulator or the daemon.

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, crypto};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use vsphere_simulator::Simulator;

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
    /// Content-Length was announced and met.
    pub complete: bool,
}

#[derive(Debug, Clone)]
pub struct Client {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    pub cookie: Option<String>,
    pub gzip: bool,
    pub esxi: bool,
    pub action: String,
}

impl Client {
    pub fn new(simulator: &Simulator) -> Self {
        let tls = simulator.ca_pem().map(|pem| {
            let mut roots = RootCertStore::empty();
            let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("pem");
            roots.add(certificate).expect("root");
            let provider = Arc::new(crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots)
                .with_no_client_auth();
            Arc::new(config)
        });
        Self {
            address: simulator.addr(),
            tls,
            cookie: None,
            gzip: false,
            esxi: simulator.truth().kind == vsphere_simulator::PlatformKind::Esxi,
            action: "urn:vim25/8.0.1.0".to_owned(),
        }
    }

    /// Logs in and keeps the cookie.
    pub async fn login(simulator: &Simulator) -> Self {
        let mut client = Self::new(simulator);
        let (user, password) = simulator.credentials();
        let reply = client.try_login(user, password).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        client
    }

    pub async fn try_login(&mut self, user: &str, password: &str) -> Reply {
        let manager = if self.esxi {
            "ha-sessionmgr"
        } else {
            "SessionManager"
        };
        let reply = self
            .call(&format!(
                r#"<Login xmlns="urn:vim25"><_this type="SessionManager">{manager}</_this><userName>{user}</userName><password>{password}</password><locale>en_US</locale></Login>"#
            ))
            .await;
        let cookie = reply.head.lines().find_map(|line| {
            let value = line.strip_prefix("set-cookie: ")?;
            value.split(';').next().map(str::to_owned)
        });
        self.cookie = cookie.or(self.cookie.take());
        reply
    }

    /// Sends one method element.
    pub async fn call(&self, method: &str) -> Reply {
        self.post(&envelope(method)).await.expect("reply")
    }

    /// Sends a whole body.
    pub async fn post(&self, body: &str) -> std::io::Result<Reply> {
        let cookie = self
            .cookie
            .as_ref()
            .map(|c| format!("Cookie: {c}\r\n"))
            .unwrap_or_default();
        let gzip = if self.gzip {
            "Accept-Encoding: gzip\r\n"
        } else {
            ""
        };
        let head = format!(
            "POST /sdk HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml; charset=\"utf-8\"\r\nSOAPAction: {}\r\nUser-Agent: tests\r\nConnection: close\r\n{gzip}{cookie}Content-Length: {}\r\n\r\n",
            self.action,
            body.len()
        );
        self.exchange(format!("{head}{body}").as_bytes()).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        self.exchange(request.as_bytes()).await.expect("reply")
    }

    /// Talks to another port from now on, without TLS.
    pub fn aim(&mut self, address: SocketAddr) {
        self.address = address;
        self.tls = None;
    }

    pub async fn raw(&self, request: &str) -> Reply {
        self.exchange(request.as_bytes()).await.expect("reply")
    }

    async fn exchange(&self, request: &[u8]) -> std::io::Result<Reply> {
        let stream = TcpStream::connect(self.address).await?;
        match &self.tls {
            None => exchange(stream, request).await,
            Some(config) => {
                let name = ServerName::try_from("localhost").expect("name");
                let connector = TlsConnector::from(Arc::clone(config));
                exchange(connector.connect(name, stream).await?, request).await
            }
        }
    }

    pub async fn perf(&self, specs: &str) -> Reply {
        let manager = if self.esxi { "ha-perfmgr" } else { "PerfMgr" };
        self.call(&format!(
            r#"<QueryPerf xmlns="urn:vim25"><_this type="PerformanceManager">{manager}</_this>{specs}</QueryPerf>"#
        ))
        .await
    }

    /// Key of each counter by its full name.
    pub async fn counters(&self) -> std::collections::HashMap<String, i32> {
        let (collector, manager) = if self.esxi {
            ("ha-property-collector", "ha-perfmgr")
        } else {
            ("propertyCollector", "PerfMgr")
        };
        let reply = self
            .call(&format!(
                r#"<RetrievePropertiesEx xmlns="urn:vim25"><_this type="PropertyCollector">{collector}</_this><specSet><propSet><type>PerformanceManager</type><pathSet>perfCounter</pathSet></propSet><objectSet><obj type="PerformanceManager">{manager}</obj></objectSet></specSet><options></options></RetrievePropertiesEx>"#
            ))
            .await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        let infos = all(
            &reply.body,
            "PerfCounterInfo xsi:type=\"PerfCounterInfo\"",
            "PerfCounterInfo",
        );
        infos
            .iter()
            .map(|info| {
                let part = |name| one(&one(info, name, name), "key", "key");
                let name = format!(
                    "{}.{}.{}",
                    part("groupInfo"),
                    part("nameInfo"),
                    one(info, "rollupType", "rollupType")
                );
                let key = one(info, "key", "key").parse().expect("key");
                (name, key)
            })
            .collect()
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    request: &[u8],
) -> std::io::Result<Reply> {
    stream.write_all(request).await?;
    let mut bytes = Vec::new();
    // A connection cut on purpose still has a readable start.
    let end = stream.read_to_end(&mut bytes).await;
    let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Err(end
            .err()
            .unwrap_or_else(|| std::io::ErrorKind::UnexpectedEof.into()));
    };
    let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
    let mut body = bytes[at + 4..].to_vec();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let complete = length == Some(body.len());
    if head.contains("content-encoding: gzip") {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain)?;
        body = plain;
    }
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .expect("status");
    Ok(Reply {
        status,
        head,
        body: String::from_utf8_lossy(&body).into_owned(),
        complete,
    })
}

pub fn envelope(method: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
 <soapenv:Header><operationID>test-1</operationID></soapenv:Header>
 <soapenv:Body>{method}</soapenv:Body></soapenv:Envelope>"#
    )
}

/// One query for one entity.
pub fn spec(kind: &str, moref: &str, bounds: &str, metrics: &[(i32, &str)], tail: &str) -> String {
    let metrics: String = metrics
        .iter()
        .map(|(key, instance)| {
            format!("<metricId><counterId>{key}</counterId><instance>{instance}</instance></metricId>")
        })
        .collect();
    format!(r#"<querySpec><entity type="{kind}">{moref}</entity>{bounds}{metrics}{tail}</querySpec>"#)
}

/// Contents of all elements with this start tag and name.
pub fn all(text: &str, start: &str, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    let (open, close) = (format!("<{start}>"), format!("</{name}>"));
    while let Some(at) = rest.find(&open) {
        rest = &rest[at + open.len()..];
        let end = rest.find(&close).expect("end tag");
        found.push(rest[..end].to_owned());
        rest = &rest[end..];
    }
    found
}

pub fn one(text: &str, start: &str, name: &str) -> String {
    all(text, start, name)
        .into_iter()
        .next()
        .unwrap_or_else(|| panic!("no {start} in {text}"))
}

/// A csv answer: per entity its stamps and its series `(counter, instance) -> cells`.
#[derive(Debug, Default)]
pub struct Answer {
    pub entity: String,
    pub stamps: Vec<i64>,
    pub interval: i64,
    pub series: std::collections::BTreeMap<(i32, String), Vec<Option<i64>>>,
}

pub fn csv(body: &str) -> Vec<Answer> {
    all(body, "returnval xsi:type=\"PerfEntityMetricCSV\"", "returnval")
        .iter()
        .map(|text| {
            let at = text.find("</entity>").expect("entity");
            let entity = text[..at].rsplit('>').next().expect("moref").to_owned();
            let info = one(text, "sampleInfoCSV", "sampleInfoCSV");
            let fields: Vec<&str> = info.split(',').filter(|f| !f.is_empty()).collect();
            let stamps = fields.chunks(2).map(|pair| seconds(pair[1])).collect();
            let series = text.split("<value><id>").skip(1).map(|part| {
                let key = one(part, "counterId", "counterId").parse().expect("key");
                let instance = one(part, "instance", "instance");
                let cells = one(part, "value", "value");
                let cells = cells.split(',').map(|cell| cell.parse().ok()).collect();
                ((key, instance), cells)
            });
            Answer {
                entity,
                stamps,
                interval: fields.first().map_or(0, |f| f.parse().expect("interval")),
                series: series.collect(),
            }
        })
        .collect()
}

pub fn seconds(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().expect("time").as_second()
}

pub fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).expect("time").to_string()
}
