//! One plain HTTP request to a port of this machine.

use std::net::SocketAddr;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens, or the connection broke.
    #[error("cannot connect to {0}")]
    Connect(SocketAddr, #[source] std::io::Error),
    /// The conversation failed.
    #[error("no HTTP answer from {0}")]
    Http(SocketAddr, #[source] hyper::Error),
    /// The request cannot be written.
    #[error("not a path: {0}")]
    Path(String, #[source] hyper::http::Error),
}

/// GETs a path. No deadline of its own: callers have one.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<(StatusCode, Bytes), Error> {
    send(address, path, Request::get(path).body(Full::default())).await
}

/// A request of somebody with a token of the admin API. No deadline of its own.
pub(crate) async fn ask(
    address: SocketAddr,
    token: &str,
    (method, path): (Method, &str),
    prefer: Option<&str>,
    body: Option<&serde_json::Value>,
) -> Result<(StatusCode, Bytes), Error> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {token}"));
    if let Some(prefer) = prefer {
        request = request.header("prefer", prefer);
    }
    let body = body.map_or_else(Full::default, |body| Full::from(body.to_string()));
    let request = request
        .header(header::CONTENT_TYPE, "application/json")
        .body(body);
    send(address, path, request).await
}

async fn send(
    address: SocketAddr,
    path: &str,
    request: Result<Request<Full<Bytes>>, hyper::http::Error>,
) -> Result<(StatusCode, Bytes), Error> {
    let mut request = request.map_err(|source| Error::Path(path.to_owned(), source))?;
    let host = header::HeaderValue::from_str(&address.to_string());
    request
        .headers_mut()
        .extend(host.map(|host| (header::HOST, host)));
    let stream = TcpStream::connect(address)
        .await
        .map_err(|source| Error::Connect(address, source))?;
    let http = |source| Error::Http(address, source);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(http)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(http)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(http)?.to_bytes();
        Ok((status, body))
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        closed = connection => match closed {
            // All has been read from the socket; the rest of the exchange needs no connection.
            Ok(()) => exchange.await,
            Err(source) => Err(http(source)),
        },
    }
}
