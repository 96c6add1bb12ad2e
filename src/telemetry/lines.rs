//! Lines of the log, on their way to standard output.
//!
//! Owns: the one thread that writes them, and a queue of bounded size in front of it. Never does: making anybody wait who
//! logs. Standard output is the journal's, a container runtime's or a disk's: it may stand still or be full, and a
//! collector that waited for it would stop collecting. Lines for which there is no room are lost, and counted.
//!
//! Thread: `log`, as long as the process lives.

use std::collections::VecDeque;
use std::io;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::telemetry::metrics::LogMetrics;

/// Bytes that may wait to be written: some thousand lines.
const MOST_BYTES: usize = 1024 * 1024;

/// The queue, as writers and the thread have it.
#[derive(Debug, Clone)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    metrics: LogMetrics,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    /// A line is being written.
    busy: bool,
    /// Lost since the last line that was written.
    lost: u64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves a queue that is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self) {
        self.state().lost += 1;
        self.metrics.lost();
    }

    /// The next line; waits for it.
    fn next(&self) -> Vec<u8> {
        let mut state = self.state();
        state.busy = false;
        self.changed.notify_all();
        let mut state = self
            .changed
            .wait_while(state, |state| state.waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let line = state.waiting.pop_front().unwrap_or_default();
        state.bytes -= line.len();
        state.busy = true;
        line
    }
}

impl Lines {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub(super) fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            metrics: LogMetrics::new(),
        });
        let carried = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || carry(&carried, out))?;
        Ok(Self(shared))
    }

    /// Waits until all lines are written that were logged before, but not for longer than `deadline`.
    pub(super) fn written(&self, deadline: Duration) {
        let waits = |state: &mut State| state.busy || !state.waiting.is_empty();
        drop(self.0.changed.wait_timeout_while(self.0.state(), deadline, waits));
    }
}

/// Takes a whole line at once, as the subscriber writes it.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state();
        if state.bytes + line.len() > MOST_BYTES {
            drop(state);
            self.0.lost();
        } else {
            state.bytes += line.len();
            state.waiting.push_back(line.to_vec());
            self.0.changed.notify_all();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn carry(shared: &Shared, mut out: impl Write) {
    let mut torn = false;
    loop {
        let line = shared.next();
        let begun = if torn { out.write_all(b"\n") } else { Ok(()) };
        torn = begun.and_then(|()| out.write_all(&line)).is_err();
        if torn {
            shared.lost();
            continue;
        }
        let n_lines = std::mem::take(&mut shared.state().lost);
        if n_lines > 0 {
            tracing::warn!(
                n_lines,
                "lines of the log are lost: who reads it stood still, or its disk was full"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Writes as long as it is let.
    struct Held {
        let_go: mpsc::Receiver<io::Result<()>>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Held {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.let_go.recv().map_err(io::Error::other)??;
            self.written.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_who_logs_waits_for_the_log_and_what_has_no_room_is_counted() {
        let (go, let_go) = mpsc::channel();
        let (sender, written) = mpsc::channel();
        let mut lines = Lines::to(Held {
            let_go,
            written: sender,
        })
        .unwrap();
        // Nobody takes a line yet: each of these returns at once.
        let line = vec![b'x'; MOST_BYTES / 4];
        for _ in 0..10 {
            lines.write_all(&line).unwrap();
        }
        lines.written(Duration::ZERO);
        // Four wait, or four and the one that is being written.
        let lost = lines.0.state().lost;
        assert!((5..=6).contains(&lost), "{lost}");
        for _ in 0..10 - lost {
            go.send(Ok(())).unwrap();
            assert_eq!(written.recv().unwrap().len(), line.len());
        }
        lines.written(Duration::from_secs(60));
        assert_eq!(lines.0.state().lost, 0, "told by then");

        // A disk that is full, and has room again: a line that may be torn is not continued.
        lines.write_all(b"lost\n").unwrap();
        go.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        lines.written(Duration::from_secs(60));
        assert_eq!(lines.0.state().lost, 1);
        lines.write_all(b"there\n").unwrap();
        go.send(Ok(())).unwrap();
        go.send(Ok(())).unwrap();
        lines.written(Duration::from_secs(60));
        assert_eq!(written.try_iter().collect::<Vec<_>>(), [&b"\n"[..], b"there\n"]);
    }
}
