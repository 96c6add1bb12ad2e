//! One HTTP exchange: bytes out, capped bytes in, before a deadline.
//!
//! Owns: the HTTP client of a platform with its keep-alive connections, the headers of vim25, and the words for
//! what can go wrong below SOAP. Never does: logging a body (the one of Login holds the password), following a
//! redirect, using a proxy, repeating a request.
//!
//! Invariants: an answer larger than its cap is refused while it is read, also after gunzip; the deadline covers
//! the whole exchange, so that a server that sends a byte a second cannot hold a caller.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use reqwest::header::COOKIE;
use reqwest::header::HeaderMap;
use reqwest::header::HeaderValue;
use reqwest::header::SET_COOKIE;

use crate::config::Trust;
use crate::model::status::ErrorClass;
use crate::soap::tls;
use crate::soap::tls::Untrusted;

/// Establishing a connection, TLS included, takes longer than this only where nobody listens.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Below the 15 minutes after which pyVmomi drops idle connections: servers are tested with that.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(14 * 60);

const SESSION_COOKIE: &str = "vmware_soap_session=";

/// Why an exchange has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name has no address.
    #[error("the name {host} cannot be resolved; check host and the resolver of this machine")]
    Dns {
        /// The name.
        host: String,
        /// The resolver's words.
        #[source]
        source: io::Error,
    },
    /// Nobody listens.
    #[error("{address} refuses the connection; check host and port, and that the server runs")]
    Refused {
        /// Host and port.
        address: String,
    },
    /// No answer to the attempt to connect.
    #[error("{address} does not accept a connection within {} s; check host, port and firewalls", CONNECT_TIMEOUT.as_secs())]
    ConnectTimeout {
        /// Host and port.
        address: String,
    },
    /// No way there.
    #[error("{address} cannot be reached")]
    Unreachable {
        /// Host and port.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate is not trusted.
    #[error("{address}")]
    Untrusted {
        /// Host and port.
        address: String,
        /// Why, and the thumbprint.
        #[source]
        source: Untrusted,
    },
    /// TLS failed for another reason.
    #[error("no TLS connection to {address}; does the port speak TLS 1.2 or 1.3?")]
    Handshake {
        /// Host and port.
        address: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The connection broke.
    #[error("the connection to {address} broke: {why}")]
    Broken {
        /// Host and port.
        address: String,
        /// The innermost cause; the layers above it say nothing to an operator.
        why: String,
    },
    /// The whole exchange took too long.
    #[error("{address} gave no complete answer within {} s; the server is overloaded or request_timeout is too short", after.as_secs_f32())]
    Deadline {
        /// Host and port.
        address: String,
        /// The deadline.
        after: Duration,
    },
    /// A status that SOAP does not use.
    #[error("{address} answers with HTTP {status}{}", status_hint(*status))]
    Status {
        /// Host and port.
        address: String,
        /// The status.
        status: u16,
    },
    /// An answer that is not XML.
    #[error(
        "{address} is not a vSphere server: it answers with {found:?} where XML is due; check host and port"
    )]
    NotXml {
        /// Host and port.
        address: String,
        /// Its content type.
        found: String,
    },
    /// An answer above the cap.
    #[error("{address} sends more than the {limit} bytes that this answer may have")]
    TooLarge {
        /// Host and port.
        address: String,
        /// The cap.
        limit: usize,
    },
    /// The client cannot be built.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
}

fn status_hint(status: u16) -> &'static str {
    match status {
        300..=399 => ", a redirect; set host and port of the server itself",
        401 | 407 => "; is a proxy in between?",
        403..=405 => "; there is no vSphere API here, check host and port",
        429 => ", it asks for fewer requests",
        500 => " without a SOAP fault",
        502 | 504 => "; the proxy before the API gets no answer from it",
        503 => "; it is starting, or out of sessions",
        _ => "",
    }
}

impl Error {
    /// True where there was no connection, so that no request left.
    #[must_use]
    pub const fn is_before_request(&self) -> bool {
        matches!(
            self,
            Self::Dns { .. }
                | Self::Refused { .. }
                | Self::ConnectTimeout { .. }
                | Self::Unreachable { .. }
                | Self::Untrusted { .. }
                | Self::Handshake { .. }
        )
    }

    /// True where the platform, or the way to it, is down: more of the same at once would only add to it. A server
    /// that answers, even with nonsense, is not.
    pub(crate) const fn is_outage(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 429 | 502..=504),
            Self::TooLarge { .. } | Self::Client(_) => false,
            _ => true,
        }
    }

    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::Untrusted { .. } | Self::Handshake { .. } => ErrorClass::Tls,
            Self::ConnectTimeout { .. } | Self::Deadline { .. } => ErrorClass::Timeout,
            _ => ErrorClass::Unreachable,
        }
    }

    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Dns { .. } => "dns",
            Self::Refused { .. } => "refused",
            Self::ConnectTimeout { .. } => "connect_timeout",
            Self::Unreachable { .. } => "unreachable",
            Self::Untrusted { .. } => "untrusted",
            Self::Handshake { .. } => "handshake",
            Self::Broken { .. } => "broken",
            Self::Deadline { .. } => "deadline",
            Self::Status { .. } => "http_status",
            Self::NotXml { .. } => "not_xml",
            Self::TooLarge { .. } => "too_large",
            Self::Client(_) => "client",
        }
    }
}

/// What bounds an exchange.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Largest body, after gunzip.
    pub(crate) bytes: usize,
    /// Longest time for all of it.
    pub(crate) deadline: Duration,
}

/// A request as it leaves. Has no `Debug`: the body of Login holds the password.
pub(crate) struct Outgoing<'a> {
    /// The envelope.
    pub(crate) body: String,
    /// `urn:vim25/` and the version.
    pub(crate) action: &'a str,
    /// The session, byte for byte as the server gave it.
    pub(crate) cookie: Option<&'a HeaderValue>,
}

/// An answer as it came.
pub(crate) struct Answer {
    /// False for HTTP 500, whose body is a fault.
    pub(crate) success: bool,
    /// The body; bytes that are not UTF-8 are replaced, so that one broken name does not hide the rest.
    pub(crate) body: String,
    /// A session cookie that the server set.
    pub(crate) cookie: Option<HeaderValue>,
}

/// The way to one server.
#[derive(Debug)]
pub(crate) struct Transport {
    http: reqwest::Client,
    sdk: String,
    versions: String,
    address: String,
}

impl Transport {
    pub(crate) fn new(host: &str, port: u16, trust: &Trust) -> Result<Self, crate::soap::error::Error> {
        let config = tls::client_config(trust)?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .https_only(true)
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .gzip(true)
            .dns_resolver(Resolver)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .user_agent(concat!("virt-collector/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|source| tls::Error::Verifier(Box::new(source)))?;
        let host = if host.contains(':') {
            format!("[{}]", host.trim_matches(['[', ']']))
        } else {
            host.to_owned()
        };
        let address = format!("{host}:{port}");
        Ok(Self {
            http,
            sdk: format!("https://{address}/sdk"),
            versions: format!("https://{address}/sdk/vimServiceVersions.xml"),
            address,
        })
    }

    /// Calls a method. Dropping the future drops the connection with it.
    pub(crate) async fn post(&self, outgoing: Outgoing<'_>, limits: Limits) -> Result<Answer, Error> {
        let mut request = self
            .http
            .post(&self.sdk)
            .header(
                CONTENT_TYPE,
                HeaderValue::from_static("text/xml; charset=\"utf-8\""),
            )
            .header("SOAPAction", format!("\"{}\"", outgoing.action))
            .body(outgoing.body);
        if let Some(cookie) = outgoing.cookie {
            request = request.header(COOKIE, cookie);
        }
        self.exchange(request, limits).await
    }

    /// Reads the list of API versions, which needs no session. `None` where the server has no such list, or a proxy
    /// keeps it back: whether this is a vSphere server at all, the first call will tell.
    pub(crate) async fn versions(&self, limits: Limits) -> Result<Option<String>, Error> {
        match self.exchange(self.http.get(&self.versions), limits).await {
            Ok(answer) if answer.success => Ok(Some(answer.body)),
            Ok(_)
            | Err(
                Error::Status {
                    status: 400..=499, ..
                }
                | Error::NotXml { .. },
            ) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn exchange(&self, request: reqwest::RequestBuilder, limits: Limits) -> Result<Answer, Error> {
        match tokio::time::timeout(limits.deadline, self.receive(request, limits.bytes)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(Error::Deadline {
                address: self.address.clone(),
                after: limits.deadline,
            }),
        }
    }

    async fn receive(&self, request: reqwest::RequestBuilder, limit: usize) -> Result<Answer, Error> {
        let address = || self.address.clone();
        let mut response = request.send().await.map_err(|source| self.classify(source))?;
        let status = response.status();
        let success = status == StatusCode::OK;
        let xml = content_type(response.headers()).contains("xml");
        // A fault may come as XML of any kind; whatever else has status 500 is a proxy's or a crash's page.
        if !(success || status == StatusCode::INTERNAL_SERVER_ERROR && xml) {
            return Err(Error::Status {
                address: address(),
                status: status.as_u16(),
            });
        }
        if !xml {
            let found = content_type(response.headers()).chars().take(80).collect();
            return Err(Error::NotXml {
                address: address(),
                found,
            });
        }
        let announced = response
            .content_length()
            .and_then(|length| usize::try_from(length).ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(Error::TooLarge {
                address: address(),
                limit,
            });
        }
        let cookie = session_cookie(response.headers());
        let mut body = Vec::with_capacity(announced.unwrap_or(0));
        while let Some(chunk) = response.chunk().await.map_err(|source| self.classify(source))? {
            if body.len() + chunk.len() > limit {
                return Err(Error::TooLarge {
                    address: address(),
                    limit,
                });
            }
            body.extend_from_slice(&chunk);
        }
        let body = String::from_utf8(body)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        Ok(Answer {
            success,
            body,
            cookie,
        })
    }

    /// Finds the cause below the layers of the client. An `io::Error` hides its inner error from `source()`, so
    /// it is opened here.
    fn classify(&self, error: reqwest::Error) -> Error {
        let address = self.address.clone();
        let error = error.without_url();
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        let mut why = String::new();
        while let Some(cause) = next {
            why = cause.to_string();
            if let Some(lookup) = cause.downcast_ref::<LookupFailure>() {
                return Error::Dns {
                    host: lookup.host.clone(),
                    source: copy(&lookup.source),
                };
            }
            if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
                return match tls::untrusted(tls) {
                    Some(source) => Error::Untrusted { address, source },
                    None => Error::Handshake {
                        address,
                        source: tls.clone(),
                    },
                };
            }
            next = match cause.downcast_ref::<io::Error>() {
                Some(io) => match (io.get_ref(), io.kind()) {
                    // The TLS library's text for it has an address of its documentation.
                    (Some(_), io::ErrorKind::UnexpectedEof) => {
                        "the server closed it".clone_into(&mut why);
                        None
                    }
                    (Some(inner), _) => Some(inner),
                    (None, io::ErrorKind::ConnectionRefused) => return Error::Refused { address },
                    (None, _) if error.is_connect() && !broken(io) => {
                        return Error::Unreachable {
                            address,
                            source: copy(io),
                        };
                    }
                    (None, _) => None,
                },
                None => cause.source(),
            };
        }
        if error.is_timeout() {
            return Error::ConnectTimeout { address };
        }
        Error::Broken { address, why }
    }
}

/// A connection that was there and went away, rather than one that never was.
fn broken(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe | K::UnexpectedEof
    )
}

/// An `io::Error` cannot be cloned.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

fn content_type(headers: &HeaderMap) -> String {
    headers
        .get(CONTENT_TYPE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).to_lowercase())
        .unwrap_or_default()
}

/// The session's name-value pair, byte for byte: real servers put quotes into it. Attributes are for browsers.
fn session_cookie(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get_all(SET_COOKIE).iter().find_map(|value| {
        let pair = value.as_bytes().split(|byte| *byte == b';').next()?;
        let mut cookie = HeaderValue::from_bytes(pair.trim_ascii()).ok()?;
        cookie.as_bytes().starts_with(SESSION_COOKIE.as_bytes()).then(|| {
            cookie.set_sensitive(true);
            cookie
        })
    })
}

/// The system's resolver, with an error that can be told from others.
#[derive(Debug)]
struct Resolver;

#[derive(Debug, thiserror::Error)]
#[error("{host} cannot be resolved")]
struct LookupFailure {
    host: String,
    #[source]
    source: io::Error,
}

type Lookup = Pin<
    Box<dyn Future<Output = Result<reqwest::dns::Addrs, Box<dyn std::error::Error + Send + Sync>>> + Send>,
>;

impl reqwest::dns::Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> Lookup {
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0))
                .await
                .map(Iterator::collect::<Vec<SocketAddr>>);
            let addresses = found.map_err(|source| LookupFailure { host, source })?;
            let addresses: reqwest::dns::Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}
