//! An address where nothing answers.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::drill::Error;

/// A port of `[::1]` where nothing answers, as behind a router that drops: its queue of connections is full, and nobody
/// takes one out.
#[derive(Debug)]
pub(in crate::drill) struct BlackHole {
    _listener: OwnedFd,
    _queue: Vec<OwnedFd>,
}

impl BlackHole {
    /// Where the same port of `127.0.0.1` is in use.
    pub(in crate::drill) async fn dig(port: u16) -> Result<Self, Error> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType};
        let address = SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0);
        let not_run = |why: rustix::io::Errno| Error::NotRun(format!("no black hole at {address}: {why}"));
        let socket = || {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            rustix::net::socket_with(AddressFamily::INET6, SocketType::STREAM, flags, None).map_err(not_run)
        };
        let listener = socket()?;
        rustix::net::bind(&listener, &address).map_err(not_run)?;
        rustix::net::listen(&listener, 0).map_err(not_run)?;
        let mut queue = Vec::new();
        for _ in 0..3 {
            let client = socket()?;
            match rustix::net::connect(&client, &address) {
                Ok(()) | Err(rustix::io::Errno::INPROGRESS) => queue.push(client),
                Err(why) => return Err(not_run(why)),
            }
        }
        let attempt = TcpStream::connect(SocketAddr::V6(address));
        match tokio::time::timeout(Duration::from_millis(300), attempt).await {
            Err(_elapsed) => Ok(Self {
                _listener: listener,
                _queue: queue,
            }),
            Ok(answer) => Err(Error::NotRun(format!(
                "no black hole at {address}: {:?}",
                answer.map(drop)
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;

    #[tokio::test]
    async fn a_black_hole_takes_no_connection_and_gives_no_answer() {
        let port = process::free_address().unwrap().port();
        match BlackHole::dig(port).await {
            Ok(_hole) => {
                let attempt = TcpStream::connect((Ipv6Addr::LOCALHOST, port));
                assert!(
                    tokio::time::timeout(Duration::from_millis(100), attempt)
                        .await
                        .is_err()
                );
            }
            Err(Error::NotRun(why)) => eprintln!("{why}"),
            Err(error) => panic!("{error}"),
        }
    }
}
