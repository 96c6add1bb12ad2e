//! One plain HTTP request to a port of this machine.

use std::net::SocketAddr;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
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
    ask(address, path, None).await
}

/// GETs a path with a token.
pub(crate) async fn get_as(
    address: SocketAddr,
    path: &str,
    token: &str,
) -> Result<(StatusCode, Bytes), Error> {
    ask(address, path, Some(token)).await
}

async fn ask(address: SocketAddr, path: &str, token: Option<&str>) -> Result<(StatusCode, Bytes), Error> {
    let mut request = Request::get(path).header(header::HOST, address.to_string());
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|source| Error::Path(path.to_owned(), source))?;
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
