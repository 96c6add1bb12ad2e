//! One connection: bytes up, bytes down, and its end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::inspect::{Event, Inspector, Protocol};
use super::socket::Socket;
use super::{CommitCut, Direction, Shared, Weather};

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;

/// Chunks that may be on their way: 512 KiB, so that a latency of 20 ms still passes 25 MB/s.
const ON_THE_WAY: usize = 32;

/// A server that has not answered a COMMIT by then will not.
const REPLY_DEADLINE: Duration = Duration::from_secs(10);

/// A throttled connection moves in steps of this length.
const STEP: Duration = Duration::from_millis(50);

/// How a direction ended early.
#[derive(Debug)]
enum Broken {
    /// One side went away.
    Lost,
    /// The proxy's doing.
    Cut,
}

impl From<io::Error> for Broken {
    fn from(_lost: io::Error) -> Self {
        Self::Lost
    }
}

/// Between the two directions of a connection.
#[derive(Debug, Default)]
struct Between {
    /// What the server says is not led on.
    swallow: AtomicBool,
    /// Something was swallowed.
    swallowed: Notify,
    /// One side has nothing more to say.
    over: Notify,
}

struct Opened<'a>(&'a AtomicU64);

impl<'a> Opened<'a> {
    fn new(open: &'a AtomicU64) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open)
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Leads a client to the server until one of them has enough, or the proxy is told to end it.
pub(super) async fn converse(client: Socket, shared: Arc<Shared>) {
    let mut resets = shared.resets.subscribe();
    let _open = Opened::new(&shared.tally.open);
    let target = shared.target();
    let Ok(server) = Socket::connect(&target).await else {
        shared.tally.unreachable.fetch_add(1, Ordering::Relaxed);
        client.will_reset();
        return;
    };
    let between = Between::default();
    let up = Pump::new(&shared, Direction::Up, &between);
    let down = Pump::new(&shared, Direction::Down, &between);
    let both = async { tokio::try_join!(up.run(&client, &server), down.run(&server, &client)) };
    let ended = tokio::select! {
        ended = both => ended.map(drop),
        _ = resets.changed() => {
            shared.tally.reset.fetch_add(1, Ordering::Relaxed);
            Err(Broken::Cut)
        }
    };
    if ended.is_err() {
        client.will_reset();
        server.will_reset();
    }
}

/// One direction.
struct Pump<'a> {
    shared: &'a Shared,
    direction: Direction,
    between: &'a Between,
    weather: watch::Receiver<Weather>,
    inspector: Inspector,
    /// The trap that bytes are counted for, and how many there were.
    counted: (u64, u64),
}

impl<'a> Pump<'a> {
    fn new(shared: &'a Shared, direction: Direction, between: &'a Between) -> Self {
        let protocol = match direction {
            Direction::Up => shared.protocol,
            Direction::Down => Protocol::Opaque,
        };
        Self {
            shared,
            direction,
            between,
            weather: shared.weather.subscribe(),
            inspector: Inspector::new(protocol),
            counted: (0, 0),
        }
    }

    async fn run(mut self, from: &Socket, to: &Socket) -> Result<(), Broken> {
        let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
        let weather = self.weather.clone();
        let direction = self.direction;
        let over = &self.between.over;
        let read = async move {
            let mut buffer = vec![0; CHUNK];
            loop {
                let n = from.read(&mut buffer).await?;
                if n == 0 {
                    over.notify_one();
                    return Ok(());
                }
                let weather = *weather.borrow();
                let latency = match direction {
                    Direction::Up => weather.latency_up,
                    Direction::Down => weather.latency_down,
                };
                let chunk = buffer.get(..n).unwrap_or_default().to_vec();
                if sender.send((Instant::now() + latency, chunk)).await.is_err() {
                    return Ok(());
                }
            }
        };
        let write = async move {
            while let Some((due, chunk)) = chunks.recv().await {
                tokio::time::sleep_until(due).await;
                self.lead(&chunk, to).await?;
            }
            to.finish();
            Ok(())
        };
        tokio::try_join!(read, write).map(drop)
    }

    /// Leads one chunk on, past the traps.
    async fn lead(&mut self, chunk: &[u8], to: &Socket) -> Result<(), Broken> {
        let mut led = 0;
        for event in self.inspector.read(chunk) {
            match event {
                Event::Copy { end } => {
                    self.shared.tally.copies.fetch_add(1, Ordering::Relaxed);
                    if std::mem::take(&mut self.shared.traps().copy) {
                        self.pass(chunk.get(led..end).unwrap_or_default(), to).await?;
                        led = end;
                        let mut released = self.shared.releases.subscribe();
                        self.shared.tally.held_copies.fetch_add(1, Ordering::Relaxed);
                        tokio::select! {
                            () = self.between.over.notified() => return Err(Broken::Lost),
                            _ = released.changed() => {}
                        }
                    }
                }
                Event::Commit { start, end, rows } => {
                    self.shared.tally.commits.fetch_add(1, Ordering::Relaxed);
                    let trap = {
                        let mut traps = self.shared.traps();
                        traps.commit.take_if(|(_, rows_only)| rows || !*rows_only)
                    };
                    match trap {
                        None => {}
                        Some((CommitCut::Request, _)) => {
                            self.pass(chunk.get(led..start).unwrap_or_default(), to).await?;
                            return self.cut_commit();
                        }
                        Some((CommitCut::Reply, _)) => {
                            self.between.swallow.store(true, Ordering::SeqCst);
                            self.pass(chunk.get(led..end).unwrap_or_default(), to).await?;
                            let reply = self.between.swallowed.notified();
                            // The server did what it was told also where it says so too late.
                            tokio::time::timeout(REPLY_DEADLINE, reply)
                                .await
                                .unwrap_or_default();
                            return self.cut_commit();
                        }
                    }
                }
            }
            let (Event::Copy { end } | Event::Commit { end, .. }) = event;
            self.pass(chunk.get(led..end).unwrap_or_default(), to).await?;
            led = end;
        }
        self.pass(chunk.get(led..).unwrap_or_default(), to).await
    }

    fn cut_commit(&self) -> Result<(), Broken> {
        self.shared.tally.cut_commits.fetch_add(1, Ordering::Relaxed);
        Err(Broken::Cut)
    }

    /// Leads bytes on in the present weather, up to where the trap for bytes says.
    async fn pass(&mut self, bytes: &[u8], to: &Socket) -> Result<(), Broken> {
        if self.direction == Direction::Down && self.between.swallow.load(Ordering::SeqCst) {
            self.between.swallowed.notify_one();
            return Ok(());
        }
        let allowed = self.allowed(bytes.len());
        let now = bytes.get(..allowed.unwrap_or(bytes.len())).unwrap_or_default();
        self.write(now, to).await?;
        if allowed.is_some() {
            self.shared.tally.cut_bytes.fetch_add(1, Ordering::Relaxed);
            return Err(Broken::Cut);
        }
        Ok(())
    }

    /// How many of so many bytes still pass before the cut; `None` where there is none.
    fn allowed(&mut self, n_bytes: usize) -> Option<usize> {
        let mut traps = self.shared.traps();
        let (direction, limit) = traps.bytes?;
        if direction != self.direction {
            return None;
        }
        if self.counted.0 != traps.number {
            self.counted = (traps.number, 0);
        }
        let left = limit.saturating_sub(self.counted.1);
        let coming = u64::try_from(n_bytes).unwrap_or(u64::MAX);
        if coming < left {
            self.counted.1 += coming;
            return None;
        }
        traps.bytes = None;
        Some(usize::try_from(left).unwrap_or(n_bytes))
    }

    async fn write(&mut self, mut bytes: &[u8], to: &Socket) -> Result<(), Broken> {
        while !bytes.is_empty() {
            // The sender lives as long as the connection's share of the proxy.
            let weather = match self.weather.wait_for(|weather| !weather.stalled).await {
                Ok(weather) => *weather,
                Err(_gone) => return Err(Broken::Lost),
            };
            let piece = match weather.throttle {
                None => bytes.len(),
                Some(rate) => per_step(rate).min(bytes.len()),
            };
            let (now, later) = bytes.split_at_checked(piece).unwrap_or((bytes, &[]));
            to.write_all(now).await?;
            let tally = &self.shared.tally;
            match self.direction {
                Direction::Up => &tally.bytes_up,
                Direction::Down => &tally.bytes_down,
            }
            .fetch_add(u64::try_from(piece).unwrap_or_default(), Ordering::Relaxed);
            bytes = later;
            if weather.throttle.is_some() {
                tokio::time::sleep(STEP).await;
            }
        }
        Ok(())
    }
}

/// Bytes in one step at so many per second, at least one.
fn per_step(rate: u32) -> usize {
    let steps = Duration::from_secs(1).as_millis() / STEP.as_millis();
    let steps = u32::try_from(steps).unwrap_or(1).max(1);
    usize::try_from(rate.div_ceil(steps)).unwrap_or(1).max(1)
}
