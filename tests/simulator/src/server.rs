//! Sockets and HTTP/1.1 of the SDK port.
//!
//! Owns: listening (and not listening), TLS, the HTTP rules of `/sdk`, gzip, and carrying out what
//! the hostile rules decided about status, body and connection. Never decides what a method answers.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue,
    LOCATION, SET_COOKIE, USER_AGENT,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::calls::CallRecord;
use crate::methods::{self, Caller, Failure, Service};
use crate::properties;
use crate::rules::{Effects, ZoneChange};
use crate::soap::{self, Fault};
use crate::spec::TlsMode;
use crate::waiting;

/// Largest request: 10,000 query specs of 40 metrics are 30 MB.
const MAX_REQUEST: usize = 128 * 1024 * 1024;
/// Replies below this are not worth compressing.
const MIN_GZIP: usize = 512;
/// Time for the bytes before a cut to leave the process.
const FLUSH: Duration = Duration::from_millis(5);

/// A ServerHello that chooses TLS 1.1: record, handshake, version, random, no session, one of the ciphers of then.
const TLS11_HELLO: &[u8] = &[
    0x16, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0, 0, 0x2f, 0,
];

const XML: &str = "text/xml; charset=utf-8";
const HTML: &str = "text/html";

/// What the accept loop needs.
pub(crate) struct Port {
    pub(crate) service: Arc<Service>,
    /// For connections from now on.
    pub(crate) door: watch::Receiver<Door>,
    pub(crate) address: SocketAddr,
    /// `false` = connections are refused and open ones are closed.
    pub(crate) up: watch::Receiver<bool>,
    pub(crate) accepted: Arc<AtomicU64>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// How a connection is met.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) mode: TlsMode,
    /// `None` = no TLS.
    pub(crate) tls: Option<TlsAcceptor>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// Accepts connections until stopped.
pub(crate) async fn serve(mut port: Port, listener: TcpListener) {
    let mut listener = Some(listener);
    loop {
        if !*port.up.borrow_and_update() {
            listener = None;
            tokio::select! {
                () = port.stop.cancelled() => return,
                changed = port.up.changed() => if changed.is_err() { return },
            }
            continue;
        }
        let Some(open) = listener.as_ref() else {
            // The port was given up while the network was down: get it back.
            match TcpListener::bind(port.address).await {
                Ok(bound) => listener = Some(bound),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
            continue;
        };
        tokio::select! {
            () = port.stop.cancelled() => return,
            changed = port.up.changed() => if changed.is_err() { return },
            accepted = open.accept() => match accepted {
                Ok((stream, _)) => accept(&port, stream),
                // Out of file descriptors, for example: not a reason to give up.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
        }
    }
}

fn accept(port: &Port, stream: TcpStream) {
    port.accepted.fetch_add(1, Ordering::Relaxed);
    // Small replies go out at once; failure only costs time.
    stream.set_nodelay(true).unwrap_or_default();
    let reset = Arc::new(AtomicBool::new(false));
    let stream = Resettable {
        stream,
        reset: Arc::clone(&reset),
    };
    let service = Arc::clone(&port.service);
    let Door { mode, tls } = port.door.borrow().clone();
    let stop = port.stop.clone();
    let mut up = port.up.clone();
    port.tasks.spawn(async move {
        let connection = async {
            match tls {
                _ if mode == TlsMode::Reset => {
                    reset.store(true, Ordering::Relaxed);
                    spoil(stream, b"").await;
                }
                _ if mode == TlsMode::Tls11 => spoil(stream, TLS11_HELLO).await,
                // A failed handshake is the client's business.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        converse(stream, service, reset, true).await;
                    }
                }
                None => converse(stream, service, reset, false).await,
            }
        };
        tokio::select! {
            () = connection => {}
            () = stop.cancelled() => {}
            // Ends when the network goes down (or the simulator is gone).
            _ = up.wait_for(|up| !up) => {}
        }
    });
}

/// Answers the start of a handshake with these bytes and no more.
async fn spoil(mut stream: Resettable, answer: &[u8]) {
    let mut hello = [0; 1024];
    let result = async {
        if stream.read(&mut hello).await? == 0 {
            return Ok(());
        }
        stream.write_all(answer).await?;
        stream.flush().await
    };
    // The client's business.
    result.await.unwrap_or_default();
}

async fn converse<S>(stream: S, service: Arc<Service>, reset: Arc<AtomicBool>, secure: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(move |request| {
        let service = Arc::clone(&service);
        let reset = Arc::clone(&reset);
        async move { answer(&service, &reset, secure, request).await }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    // A broken connection is the client's business, or what a rule wanted.
    connection.await.unwrap_or_default();
}

async fn answer(
    service: &Service,
    reset: &AtomicBool,
    secure: bool,
    request: Request<Incoming>,
) -> Result<Response<Reply>, io::Error> {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    match (request.method(), &*path) {
        (&Method::GET, "/sdk/vimServiceVersions.xml") => {
            let name = "vimServiceVersions.xml";
            let call = record(service, name, request.headers(), None, 0);
            let _in_flight = service.calls.begin(call);
            let effects = service.rules.judge(name, std::iter::empty());
            pause(effects.delay_millis).await;
            let mut response = text(StatusCode::OK, XML, methods::versions());
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static(XML));
            twist(response, &effects, reset)
        }
        (&Method::POST, "/sdk" | "/sdk/vimService") => soap(service, reset, secure, request).await,
        (_, "/sdk" | "/sdk/vimService") => {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, HTML, html("405"));
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("POST"));
            Ok(response)
        }
        _ => Ok(text(StatusCode::NOT_FOUND, HTML, html("404 Not Found"))),
    }
}

async fn soap(
    service: &Service,
    reset: &AtomicBool,
    secure: bool,
    request: Request<Incoming>,
) -> Result<Response<Reply>, io::Error> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, MAX_REQUEST).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Err(io::Error::other(error)),
    };
    let gzip = service.spec.gzip && accepts_gzip(&head.headers);
    let body = String::from_utf8_lossy(&body);
    let parsed = match version_fault(&head.headers) {
        Some(fault) => Err((None, fault)),
        None => soap::parse(&body).map_err(|(method, refusal)| (method, Fault::refusal(refusal))),
    };
    let request = match parsed {
        Ok(request) => request,
        Err((method, fault)) => {
            let method = method.as_deref().unwrap_or("(not understood)");
            let call = service
                .calls
                .begin(record(service, method, &head.headers, None, 0));
            call.fault(&fault.kind);
            let effects = service.rules.judge(method, std::iter::empty());
            pause(effects.delay_millis).await;
            let reply = pack(StatusCode::INTERNAL_SERVER_ERROR, fault.body(), gzip);
            return twist(reply, &effects, reset);
        }
    };
    let operation_id = request.operation_id.clone();
    let objects = request.objects().count() - 1;
    let call = record(service, &request.method, &head.headers, operation_id, objects);
    let call = service.calls.begin(call);
    let effects = service.rules.judge(&request.method, request.objects());
    pause(effects.delay_millis).await;
    if effects.lose {
        call.fault("(lost)");
        reset.store(true, Ordering::Relaxed);
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    let result = match &effects.fault {
        Some((kind, message, object)) => Err(Failure::Fault(
            methods::injected(service, &request, kind, message).unwrap_or_else(|| {
                let object = object.as_deref().unwrap_or(&request.this.value);
                let object_kind = properties::resolve(&service.world.read(), object);
                Fault::by_type(kind, message, Some((object_kind, object)))
            }),
        )),
        None => {
            let user_agent = header(&head.headers, &USER_AGENT).unwrap_or_default();
            let cookie = session_cookie(&head.headers);
            let caller = Caller {
                cookie: cookie.as_deref(),
                user_agent: &user_agent,
            };
            waiting::execute(service, &request, &caller, &effects).await
        }
    };
    pause(effects.hold_millis).await;
    let reply = match result {
        Ok(answer) => {
            let body = replaced(answer.body, &effects);
            let gzip = (gzip || effects.bomb.is_some()) && !effects.endless;
            let mut reply = pack(StatusCode::OK, body, gzip);
            if let Some(cookie) = answer.cookie {
                let secure = if secure { "; Secure" } else { "" };
                let value = format!("vmware_soap_session=\"{cookie}\"; Path=/; HttpOnly{secure}");
                if let Ok(value) = HeaderValue::try_from(value) {
                    reply.headers_mut().insert(SET_COOKIE, value);
                }
            }
            reply
        }
        Err(Failure::Fault(fault)) => {
            call.fault(&fault.kind);
            pack(StatusCode::INTERNAL_SERVER_ERROR, fault.body(), gzip)
        }
        Err(Failure::Full) => {
            call.fault("503");
            let page = html("503 Service Unavailable");
            text(StatusCode::SERVICE_UNAVAILABLE, HTML, page)
        }
    };
    twist(reply, &effects, reset)
}

fn record(
    service: &Service,
    method: &str,
    headers: &HeaderMap,
    operation_id: Option<String>,
    objects: usize,
) -> CallRecord {
    CallRecord {
        at: service.world.clock().now(),
        method: method.to_owned(),
        soap_action: header(headers, &HeaderName::from_static("soapaction")),
        user_agent: header(headers, &USER_AGENT),
        operation_id,
        objects,
    }
}

fn header(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.to_owned())
}

/// A version that the server does not know is refused.
fn version_fault(headers: &HeaderMap) -> Option<Fault> {
    let action = header(headers, &HeaderName::from_static("soapaction"))?;
    let action = action.trim_matches('"');
    let version = action.strip_prefix("urn:vim25/")?;
    if methods::VERSIONS.contains(&version) {
        return None;
    }
    Some(Fault::new(
        "InvalidRequest",
        &format!("Unsupported version URI \"{action}\"\n\nwhile parsing SOAP body\nat line 1, column 0"),
    ))
}

/// The session cookie, with or without the quotes that the server put around it.
fn session_cookie(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(COOKIE).iter();
    let pairs = cookies.filter_map(|value| value.to_str().ok());
    let mut pairs = pairs.flat_map(|value| value.split(';'));
    pairs.find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == "vmware_soap_session").then(|| value.trim_matches('"').to_owned())
    })
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    header(headers, &ACCEPT_ENCODING).is_some_and(|value| value.contains("gzip"))
}

fn pack(status: StatusCode, body: impl Into<Vec<u8>>, gzip: bool) -> Response<Reply> {
    let body = body.into();
    if !gzip || body.len() < MIN_GZIP {
        return text(status, XML, body);
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::fast());
    let packed = io::Write::write_all(&mut encoder, &body).and_then(|()| encoder.finish());
    match packed {
        Ok(packed) => {
            let mut response = text(status, XML, packed);
            let encoding = HeaderValue::from_static("gzip");
            response.headers_mut().insert(CONTENT_ENCODING, encoding);
            response
        }
        Err(_) => text(status, XML, body),
    }
}

fn text(status: StatusCode, kind: &str, body: impl Into<Bytes>) -> Response<Reply> {
    let mut response = Response::new(Reply::whole(body.into()));
    *response.status_mut() = status;
    if let Ok(kind) = HeaderValue::try_from(kind) {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}

fn html(title: &str) -> String {
    format!("<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n")
}

async fn pause(millis: u64) {
    if millis > 0 {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

/// The body with other texts in it, and with as many blanks before its last tag as a bomb has.
fn replaced(body: String, effects: &Effects) -> Vec<u8> {
    let mut body = match effects.zone {
        Some((minutes, change)) => zoned(&body, minutes, change).into_bytes(),
        None => body.into_bytes(),
    };
    for (find, with) in &effects.replace {
        let find = find.as_bytes();
        let mut rest = &*body;
        let mut out = Vec::with_capacity(body.len());
        while !find.is_empty()
            && let Some(at) = rest.windows(find.len()).position(|window| window == find)
        {
            let (before, after) = rest.split_at(at);
            out.extend_from_slice(before);
            out.extend_from_slice(with);
            rest = after.get(find.len()..).unwrap_or_default();
        }
        out.extend_from_slice(rest);
        body = out;
    }
    if let Some(bytes) = effects.bomb {
        let at = body.iter().rposition(|byte| *byte == b'<').unwrap_or(0);
        let end = body.split_off(at);
        body.resize(body.len() + bytes, b' ');
        body.extend_from_slice(&end);
    }
    body
}

/// The body with an offset in place of every `Z`.
fn zoned(body: &str, minutes: i32, change: Option<ZoneChange>) -> String {
    let mut out = String::with_capacity(body.len() + body.len() / 8);
    let mut rest = body;
    while let Some(at) = rest.find('Z') {
        let (before, after) = rest.split_at(at);
        let head = before.trim_end_matches(|c: char| c.is_ascii_digit() || "-:.T".contains(c));
        let (head, local) = before.split_at(head.len());
        out.push_str(head);
        let end = after.get(1..).unwrap_or_default();
        match format!("{local}Z").parse::<jiff::Timestamp>() {
            Ok(time) => {
                let changed = change.filter(|change| time.as_second() >= change.at);
                let minutes = changed.map_or(minutes, |change| change.minutes);
                let offset = jiff::tz::Offset::from_seconds(minutes * 60).unwrap_or(jiff::tz::Offset::UTC);
                // Writing to a String cannot fail.
                write!(out, "{}", time.display_with_offset(offset)).unwrap_or_default();
            }
            Err(_) => {
                out.push_str(local);
                out.push('Z');
            }
        }
        rest = end;
    }
    out.push_str(rest);
    out
}

/// Does to a reply what the rules decided.
fn twist(
    mut response: Response<Reply>,
    effects: &Effects,
    reset: &AtomicBool,
) -> Result<Response<Reply>, io::Error> {
    if let Some((code, body)) = &effects.status {
        let status = StatusCode::from_u16(*code).unwrap_or(StatusCode::BAD_GATEWAY);
        let body = body.clone().unwrap_or_else(|| html(&status.to_string()));
        response = text(status, HTML, body);
    }
    if let Some(location) = &effects.redirect {
        response = text(StatusCode::FOUND, HTML, html("302 Found"));
        if let Ok(location) = HeaderValue::try_from(location) {
            response.headers_mut().insert(LOCATION, location);
        }
    }
    response.body_mut().trickle = effects.trickle.map(Duration::from_millis);
    response.body_mut().endless = effects.endless;
    if let Some((body, kind)) = &effects.body {
        response = text(StatusCode::OK, kind, body.clone());
    }
    if let Some(at) = effects.truncate {
        response.body_mut().bytes.truncate(at);
    }
    if let Some(at) = effects.cut.or(effects.reset) {
        if effects.reset.is_some() {
            reset.store(true, Ordering::Relaxed);
        }
        if effects.reset == Some(0) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let body = response.body_mut();
        if at < body.bytes.len() {
            body.announced = body.bytes.len();
            body.bytes.truncate(at);
            body.cut = true;
        }
    }
    Ok(response)
}

/// What an endless body goes on with.
const BLANKS: &[u8] = &[b' '; 16 * 1024];

/// A reply's body, possibly cut off.
pub(crate) struct Reply {
    bytes: Bytes,
    announced: usize,
    cut: bool,
    /// Time between two bytes.
    trickle: Option<Duration>,
    endless: bool,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Reply {
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self {
            announced: bytes.len(),
            bytes,
            cut: false,
            trickle: None,
            endless: false,
            pause: None,
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if !self.bytes.is_empty()
            && let Some(time) = self.trickle
        {
            let pause = self
                .pause
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
            ready!(pause.as_mut().poll(context));
            self.pause = None;
            return Poll::Ready(Some(Ok(Frame::data(self.bytes.split_to(1)))));
        }
        if !self.bytes.is_empty() {
            let bytes = std::mem::take(&mut self.bytes);
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if self.endless {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(BLANKS)))));
        }
        if !self.cut {
            return Poll::Ready(None);
        }
        // What was sent so far must leave before the connection breaks.
        let pause = self
            .pause
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(FLUSH)));
        ready!(pause.as_mut().poll(context));
        Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && !self.cut && !self.endless
    }

    fn size_hint(&self) -> SizeHint {
        if self.endless {
            return SizeHint::default();
        }
        let length = if self.cut {
            self.announced
        } else {
            self.bytes.len()
        };
        SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
    }
}

/// A TCP stream that can end in a reset instead of an orderly close.
struct Resettable {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Resettable {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // On failure the client sees an orderly close in the middle of a message instead.
            self.stream.set_zero_linger().unwrap_or_default();
        }
    }
}

impl AsyncRead for Resettable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Resettable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A reply of the control port.
pub(crate) fn plain(status: StatusCode, kind: &str, body: String) -> Result<Response<Reply>, Infallible> {
    Ok(text(status, kind, body))
}
