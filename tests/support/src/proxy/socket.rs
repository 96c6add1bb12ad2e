//! A TCP or Unix stream whose two directions are moved by two futures of one task.

use std::io;

use rustix::net::Shutdown;
use tokio::net::{TcpStream, UnixStream};

use super::Endpoint;

/// One side of a connection.
#[derive(Debug)]
pub(super) enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Socket {
    pub(super) async fn connect(endpoint: &Endpoint) -> io::Result<Self> {
        Ok(match endpoint {
            Endpoint::Tcp(address) => Self::tcp(TcpStream::connect(address).await?),
            Endpoint::Unix(path) => Self::Unix(UnixStream::connect(path).await?),
        })
    }

    pub(super) fn tcp(stream: TcpStream) -> Self {
        // The proxy must not add delays of its own; failure only costs time.
        stream.set_nodelay(true).unwrap_or_default();
        Self::Tcp(stream)
    }

    /// Reads what is there, waiting for something; 0 is the end.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self {
                Self::Tcp(stream) => {
                    stream.readable().await?;
                    stream.try_read(buffer)
                }
                Self::Unix(stream) => {
                    stream.readable().await?;
                    stream.try_read(buffer)
                }
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = match self {
                Self::Tcp(stream) => {
                    stream.writable().await?;
                    stream.try_write(bytes)
                }
                Self::Unix(stream) => {
                    stream.writable().await?;
                    stream.try_write(bytes)
                }
            };
            match written {
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells the other end that no more is coming. One that has gone already need not be told.
    pub(super) fn finish(&self) {
        match self {
            Self::Tcp(stream) => rustix::net::shutdown(stream, Shutdown::Write),
            Self::Unix(stream) => rustix::net::shutdown(stream, Shutdown::Write),
        }
        .unwrap_or_default();
    }

    /// Makes the coming close a reset. A Unix socket has none: the other end sees the end, or a reset where it
    /// still had something on its way.
    pub(super) fn will_reset(&self) {
        if let Self::Tcp(stream) = self {
            stream.set_zero_linger().unwrap_or_default();
        }
    }
}
