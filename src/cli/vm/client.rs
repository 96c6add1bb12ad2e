//! The API as a command speaks to it.
//!
//! Owns: one HTTP client with deadlines, a cap on answers, and the trust that the person named. Never does: following a
//! redirect or a proxy; the token goes to the API alone, and never in clear to another machine.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use reqwest::{Client as Http, Method, StatusCode, Url, header};
use serde_json::Value;

use crate::cli::Failure;
use crate::config::Trust;
use crate::error::Chain;
use crate::secret;
use crate::secret::Secret;
use crate::soap;

/// Making a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(10);

/// A request, answer read; the longest is one that waits for half a minute.
const REQUEST: Duration = Duration::from_secs(60);

/// No answer is larger.
const LARGEST: usize = 16 << 20;

/// Under which all of it is.
const BASE: &str = "/api/virt-center/";

/// The API, with a token.
pub(super) struct Client {
    http: Http,
    base: Url,
    token: Secret,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0:?} is no URL of an API; write it as in https://collector.example.com:8443")]
    Url(String),
    #[error(
        "the token would go over the network in clear; write https:// in --api, or use a loopback address"
    )]
    Clear,
    #[error(
        "cannot reach the API at {at}: {reason}; is it on ([api] listen in config.toml), and is the service running?"
    )]
    Unreachable { at: String, reason: String },
    #[error("{at} does not answer as the API of virt-collector ({what})")]
    Strange { at: String, what: String },
    #[error("{detail} [{code}, request {request}]")]
    Refused {
        code: String,
        detail: String,
        request: String,
    },
    #[error("there is no token; `virt-collector token create` makes one, and --token-file says where it is")]
    NoToken(#[source] secret::FileError),
    #[error("cannot use the token")]
    Token(#[source] secret::FileError),
    #[error("cannot use these certificates")]
    Trust(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// True where it is not known whether the request arrived.
    pub(super) const fn is_doubtful(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Url(_) | Error::Clear => Self::usage(error),
            other => Self::other(other),
        }
    }
}

/// What is asked for.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    /// Below the base.
    pub(super) path: String,
    pub(super) query: Vec<(&'a str, String)>,
    pub(super) body: Option<Value>,
    /// The same request, however often it is sent.
    pub(super) key: Option<String>,
    /// Wait that many seconds for the end.
    pub(super) wait: Option<u64>,
}

impl<'a> Ask<'a> {
    pub(super) fn get(path: impl fmt::Display, query: Vec<(&'a str, String)>) -> Self {
        Self {
            method: Method::GET,
            path: path.to_string(),
            query,
            body: None,
            key: None,
            wait: None,
        }
    }
}

impl Client {
    pub(super) fn new(url: &str, token_file: &Path, trust: &Trust) -> Result<Self, Error> {
        let base = Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none())
            .and_then(|url| url.join(BASE).ok())
            .ok_or_else(|| Error::Url(url.to_owned()))?;
        if base.scheme() == "http" && !is_loopback(&base) {
            return Err(Error::Clear);
        }
        let tls = soap::tls::client_config(trust).map_err(|error| Error::Trust(Box::new(error)))?;
        let http = Http::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            .user_agent(concat!("virt-collector/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Trust(Box::new(error)))?;
        Ok(Self {
            http,
            base,
            token: secret::read_file(token_file).map_err(|error| {
                if error.is_absent() {
                    Error::NoToken(error)
                } else {
                    Error::Token(error)
                }
            })?,
        })
    }

    fn at(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    /// Sends a request and reads its answer; JSON null where it has no body.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> Result<Value, Error> {
        let unreachable = |error: reqwest::Error| Error::Unreachable {
            at: self.at(),
            // The URL may hold what was asked for; who asked knows it.
            reason: Chain(&error.without_url()).to_string(),
        };
        let strange = |what: String| Error::Strange { at: self.at(), what };
        let url = self
            .base
            .join(&ask.path)
            .map_err(|_not_a_path| Error::Url(ask.path.clone()))?;
        let mut url = url;
        if !ask.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&ask.query);
        }
        let mut request = self
            .http
            .request(ask.method.clone(), url)
            .bearer_auth(self.token.expose());
        if let Some(body) = &ask.body {
            request = request
                .header(header::CONTENT_TYPE, "application/json")
                .body(body.to_string());
        }
        if let Some(key) = &ask.key {
            request = request.header("idempotency-key", key);
        }
        if let Some(wait) = ask.wait {
            request = request.header("prefer", format!("wait={wait}"));
        }
        let mut answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            if bytes.len() + chunk.len() > LARGEST {
                return Err(strange("its answer is too long".to_owned()));
            }
            bytes.extend_from_slice(&chunk);
        }
        if status == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        let body: Value = serde_json::from_slice(&bytes)
            .map_err(|_not_json| strange(format!("status {status} without JSON")))?;
        if status.is_success() {
            return Ok(body);
        }
        let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
        match (text("code"), text("detail"), text("request_id")) {
            (Some(code), Some(detail), Some(request)) => Err(Error::Refused {
                code,
                detail,
                request,
            }),
            _ => Err(strange(format!("status {status}"))),
        }
    }
}

/// The URL of an API that listens at this address.
pub(super) fn url_of(listen: SocketAddr, has_tls: bool) -> String {
    let mut address = listen;
    if listen.ip().is_unspecified() {
        address.set_ip(match listen.ip() {
            IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("{}://{address}", if has_tls { "https" } else { "http" })
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_where_it_listens() {
        for (listen, tls, url) in [
            ("127.0.0.1:9274", false, "http://127.0.0.1:9274"),
            ("0.0.0.0:9274", true, "https://127.0.0.1:9274"),
            ("[::]:9274", true, "https://[::1]:9274"),
        ] {
            assert_eq!(url_of(listen.parse().unwrap(), tls), url);
        }
    }

    #[test]
    fn a_token_leaves_the_machine_under_tls_only() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, "vc_1_x\n").unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let refused = |url: &str| {
            Client::new(url, &file, &Trust::Off)
                .err()
                .map(|error| error.to_string())
        };
        for url in [
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "http://localhost:1/",
            "https://api.example.com",
        ] {
            assert_eq!(refused(url), None, "{url}");
        }
        for url in ["http://api.example.com", "http://192.0.2.1:9274"] {
            assert!(refused(url).unwrap().contains("in clear"), "{url}");
        }
        for url in [
            "",
            "api.example.com",
            "ftp://127.0.0.1",
            "http://",
            "http://127.0.0.1/?x",
        ] {
            assert!(refused(url).unwrap().contains("no URL"), "{url}");
        }
    }
}
