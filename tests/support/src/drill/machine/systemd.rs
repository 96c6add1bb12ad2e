//! The stand-in for systemd's socket.
//!
//! Task: one per [`Systemd`]; it ends when that is dropped.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UnixDatagram;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{file, locked};
use crate::drill::Error;

/// Where a service says that it is READY.
#[derive(Debug)]
pub(in crate::drill) struct Systemd {
    directory: PathBuf,
    number: usize,
    /// Counts the starts: each has a socket of its own, so that nothing of an earlier life is heard.
    starts: u32,
    ready: Arc<Mutex<Ready>>,
    hearing: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Ready {
    is: bool,
    longest: Duration,
}

impl Systemd {
    /// For the collector of this number, with sockets in a directory.
    pub(in crate::drill) fn new(directory: &Path, number: usize) -> Self {
        Self {
            directory: directory.to_owned(),
            number,
            starts: 0,
            ready: Arc::default(),
            hearing: None,
        }
    }

    /// The words that the command line of a start begins with.
    pub(in crate::drill) fn starts(&mut self) -> Result<Vec<String>, Error> {
        self.starts += 1;
        let path = self
            .directory
            .join(format!("notify-{}-{}", self.number, self.starts));
        let socket = UnixDatagram::bind(&path).map_err(file(&path))?;
        locked(&self.ready).is = false;
        let ready = Arc::clone(&self.ready);
        let since = Instant::now();
        let hearing = tokio::spawn(async move {
            let mut told = [0; 4096];
            while let Ok(n) = socket.recv(&mut told).await {
                let told = String::from_utf8_lossy(told.get(..n).unwrap_or_default()).into_owned();
                let mut ready = locked(&ready);
                if !ready.is && told.lines().any(|line| line == "READY=1") {
                    ready.is = true;
                    ready.longest = ready.longest.max(since.elapsed());
                }
            }
        });
        if let Some(before) = self.hearing.replace(hearing) {
            before.abort();
        }
        Ok(vec![
            "env".to_owned(),
            format!("NOTIFY_SOCKET={}", path.display()),
        ])
    }

    /// Whether the one that was started last is READY.
    pub(in crate::drill) fn is_ready(&self) -> bool {
        locked(&self.ready).is
    }

    /// The longest time from a start to READY since the last call.
    pub(in crate::drill) fn take_longest(&self) -> Duration {
        std::mem::take(&mut locked(&self.ready).longest)
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        if let Some(hearing) = &self.hearing {
            hearing.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;

    #[tokio::test]
    async fn systemd_hears_of_this_start_alone() {
        let directory = tempfile::tempdir().unwrap();
        let mut systemd = Systemd::new(directory.path(), 0);
        for start in 0..2 {
            let by = systemd.starts().unwrap();
            assert!(!systemd.is_ready(), "{start}");
            let path = by[1].strip_prefix("NOTIFY_SOCKET=").unwrap();
            let service = UnixDatagram::unbound().unwrap();
            service.send_to(b"STATUS=well", path).await.unwrap();
            service.send_to(b"READY=1\nSTATUS=well", path).await.unwrap();
            process::until("READY", Duration::from_secs(10), || async {
                if systemd.is_ready() {
                    Ok(())
                } else {
                    Err("not yet".to_owned())
                }
            })
            .await
            .unwrap();
        }
        assert!(systemd.take_longest() > Duration::ZERO);
        assert_eq!(systemd.take_longest(), Duration::ZERO);
    }
}
