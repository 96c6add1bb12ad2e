//! A process with names of its own, and a resolver that fails.
//!
//! Task: one per [`NameServer`]; it ends when that is dropped.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::mounts::with_mounts;
use super::{file, locked};
use crate::drill::Error;

const SERVER_FAILURE: u8 = 2;

/// Names of a process's own: its `/etc/hosts`, and a resolver that knows nothing.
#[derive(Debug)]
pub(in crate::drill) struct Names {
    directory: PathBuf,
    /// Who is asked for what does not stand in the file.
    pub(in crate::drill) server: NameServer,
}

impl Names {
    /// Writes its files into a directory.
    pub(in crate::drill) async fn new(directory: &Path) -> Result<Self, Error> {
        let server = NameServer::start().await?;
        let directory = directory.join("names");
        std::fs::create_dir_all(&directory).map_err(file(&directory))?;
        let resolver = directory.join("resolv.conf");
        let text = format!("nameserver {}\noptions timeout:1 attempts:1\n", server.address);
        std::fs::write(&resolver, text).map_err(file(&resolver))?;
        let names = Self { directory, server };
        names.are("")?;
        Ok(names)
    }

    /// From now on these are known, as lines of `/etc/hosts`.
    pub(in crate::drill) fn are(&self, lines: &str) -> Result<(), Error> {
        let path = self.directory.join("hosts");
        // Into the same file: it is mounted.
        std::fs::write(&path, format!("127.0.0.1 localhost\n{lines}")).map_err(file(&path))
    }

    /// The words before the command line of a process that has these names.
    pub(in crate::drill) async fn by(&self) -> Result<Vec<String>, Error> {
        let script =
            "mount --bind \"$0/hosts\" /etc/hosts && mount --bind \"$0/resolv.conf\" /etc/resolv.conf";
        with_mounts(script, &self.directory).await
    }
}

/// A resolver that fails, and remembers when it was asked.
#[derive(Debug)]
pub(in crate::drill) struct NameServer {
    address: Ipv4Addr,
    asked: Arc<Mutex<Vec<(Instant, String)>>>,
    is_silent: Arc<AtomicBool>,
    answering: JoinHandle<()>,
}

impl NameServer {
    async fn start() -> Result<Self, Error> {
        // Drills side by side have one each.
        let [high, low] = [std::process::id() >> 8, std::process::id()].map(|part| part.to_le_bytes()[0]);
        let address = Ipv4Addr::new(127, 53, high, low.clamp(1, 254));
        let socket = UdpSocket::bind(SocketAddr::from((address, 53)))
            .await
            .map_err(|error| Error::NotRun(format!("no resolver on {address}:53: {error}")))?;
        let asked: Arc<Mutex<Vec<(Instant, String)>>> = Arc::default();
        let is_silent = Arc::new(AtomicBool::new(false));
        let (noted, silent) = (Arc::clone(&asked), Arc::clone(&is_silent));
        let answering = tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
                let Some(packet) = buffer.get_mut(..n) else {
                    continue;
                };
                // Both kinds of address are asked for at once: one is counted.
                if let Some((name, 1)) = question(packet) {
                    locked(&noted).push((Instant::now(), name));
                }
                if !silent.load(Ordering::Relaxed)
                    && let Some([_, _, flags, code, ..]) = packet.first_chunk_mut::<12>()
                {
                    *flags |= 0x80;
                    *code = *code & 0xF0 | SERVER_FAILURE;
                    socket.send_to(packet, from).await.unwrap_or_default();
                }
            }
        });
        Ok(Self {
            address,
            asked,
            is_silent,
            answering,
        })
    }

    /// Answers nothing at all from now on, or that it failed.
    pub(in crate::drill) fn be_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::Relaxed);
    }

    /// When it was asked for a name since the last call.
    pub(in crate::drill) fn take(&self, name: &str) -> Vec<Instant> {
        let mut asked = locked(&self.asked);
        let of_name = asked.extract_if(.., |(_, known)| known == name);
        of_name.map(|(at, _)| at).collect()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

/// Name and type of what a packet asks for.
fn question(packet: &[u8]) -> Option<(String, u16)> {
    let mut rest = packet.get(12..)?;
    let mut labels = Vec::new();
    loop {
        let (length, behind) = rest.split_first()?;
        if *length == 0 {
            let [high, low] = *behind.first_chunk()?;
            return Some((labels.join("."), u16::from_be_bytes([high, low])));
        }
        let (label, behind) = behind.split_at_checked(usize::from(*length))?;
        labels.push(String::from_utf8_lossy(label).into_owned());
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_and_what_is_none_is_not() {
        let mut packet = vec![0; 12];
        packet.extend_from_slice(b"\x07vcenter\x05drill\0\0\x01\0\x01");
        assert_eq!(question(&packet), Some(("vcenter.drill".to_owned(), 1)));
        for short in 0..packet.len() - 2 {
            assert_eq!(question(&packet[..short]), None, "{short}");
        }
    }
}
