//! What the kernel and systemd know of a collector's process, and what they do to it.
//!
//! Owns: the stand-in for systemd's socket, a resolver that fails, a group with a limit of memory, name spaces; looks into
//! `/proc`. Never does: knowing why.
//!
//! Task: one per [`Systemd`] and [`NameServer`]; they end when these are dropped.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit};
use tokio::net::{TcpStream, UdpSocket, UnixDatagram};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Error;
use crate::process;

/// For a command of the system.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::File {
        path: path.to_owned(),
        source,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Words of a command line.
pub(super) fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

// ---- systemd

/// Where a service says that it is READY.
#[derive(Debug)]
pub(super) struct Systemd {
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
    pub(super) fn new(directory: &Path, number: usize) -> Self {
        Self {
            directory: directory.to_owned(),
            number,
            starts: 0,
            ready: Arc::default(),
            hearing: None,
        }
    }

    /// The words that the command line of a start begins with.
    pub(super) fn starts(&mut self) -> Result<Vec<String>, Error> {
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
    pub(super) fn is_ready(&self) -> bool {
        locked(&self.ready).is
    }

    /// The longest time from a start to READY since the last call.
    pub(super) fn take_longest(&self) -> Duration {
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

// ---- what a process has

/// Open file descriptors of a process.
pub(super) fn descriptors(pid: u32) -> Result<usize, Error> {
    let path = PathBuf::from(format!("/proc/{pid}/fd"));
    Ok(std::fs::read_dir(&path).map_err(file(&path))?.count())
}

/// Memory of its own that a process has, in KiB: what no file gives back.
pub(super) fn anonymous_kib(pid: u32) -> Result<u64, Error> {
    let path = PathBuf::from(format!("/proc/{pid}/status"));
    let status = std::fs::read_to_string(&path).map_err(file(&path))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .ok_or(Error::Nothing("RssAnon"))
}

/// Time on a processor that a process has had.
pub(super) fn worked(pid: u32) -> Result<Duration, Error> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let stat = std::fs::read_to_string(&path).map_err(file(&path))?;
    // Behind the name, which may hold anything, the 12th and 13th are user's and system's time in hundredths.
    let behind = stat.rsplit_once(')').map(|(_, behind)| behind);
    let ticks = |behind: &str| -> Option<u64> {
        let mut numbers = behind.split_whitespace().skip(11);
        Some(numbers.next()?.parse::<u64>().ok()? + numbers.next()?.parse::<u64>().ok()?)
    };
    let ticks = behind
        .and_then(ticks)
        .ok_or(Error::Nothing("time of a process"))?;
    Ok(Duration::from_millis(10 * ticks))
}

/// Lets a process have as many descriptors open as this one may.
pub(super) fn lift_descriptors(pid: u32) -> Result<(), Error> {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let own = rustix::process::getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: own.maximum,
        maximum: own.maximum,
    };
    rustix::process::prlimit(process, Resource::Nofile, limit)
        .map_err(|source| file(Path::new("/proc/self/limits"))(source.into()))?;
    Ok(())
}

// ---- name spaces

/// Whether a process may have mounts of its own here.
async fn own_mounts() -> Result<(), Error> {
    let arguments = ["--mount", "--propagation", "private", "true"];
    match process::run(Path::new("unshare"), arguments, COMMAND_DEADLINE).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::NotRun(format!(
            "no mounts of one's own: {}",
            process::chain(&error).replace('\n', " ")
        ))),
    }
}

/// The words before a command line that runs with mounts of its own, made by a script in which `$0` is the directory.
async fn with_mounts(script: &str, directory: &Path) -> Result<Vec<String>, Error> {
    own_mounts().await?;
    let directory = directory.display().to_string();
    let script = format!("{script} && exec \"$@\"");
    Ok(words([
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        &script,
        &directory,
    ]))
}

/// Names of a process's own: its `/etc/hosts`, and a resolver that knows nothing.
#[derive(Debug)]
pub(super) struct Names {
    directory: PathBuf,
    /// Who is asked for what does not stand in the file.
    pub(super) server: NameServer,
}

impl Names {
    /// Writes its files into a directory.
    pub(super) async fn new(directory: &Path) -> Result<Self, Error> {
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
    pub(super) fn are(&self, lines: &str) -> Result<(), Error> {
        let path = self.directory.join("hosts");
        // Into the same file: it is mounted.
        std::fs::write(&path, format!("127.0.0.1 localhost\n{lines}")).map_err(file(&path))
    }

    /// The words before the command line of a process that has these names.
    pub(super) async fn by(&self) -> Result<Vec<String>, Error> {
        let script =
            "mount --bind \"$0/hosts\" /etc/hosts && mount --bind \"$0/resolv.conf\" /etc/resolv.conf";
        with_mounts(script, &self.directory).await
    }
}

/// A resolver that fails, and remembers when it was asked.
#[derive(Debug)]
pub(super) struct NameServer {
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
    pub(super) fn be_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::Relaxed);
    }

    /// When it was asked for a name since the last call.
    pub(super) fn take(&self, name: &str) -> Vec<Instant> {
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

/// A port of `[::1]` where nothing answers, as behind a router that drops: its queue of connections is full, and nobody
/// takes one out.
#[derive(Debug)]
pub(super) struct BlackHole {
    _listener: OwnedFd,
    _queue: Vec<OwnedFd>,
}

impl BlackHole {
    /// Where the same port of `127.0.0.1` is in use.
    pub(super) async fn dig(port: u16) -> Result<Self, Error> {
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

const SERVER_FAILURE: u8 = 2;

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

/// A disk of a process's own for its log, of a few blocks; every other file system is read-only to it.
#[derive(Debug)]
pub(super) struct SmallDisk {
    directory: PathBuf,
}

impl SmallDisk {
    pub(super) fn new(directory: &Path) -> Result<Self, Error> {
        let directory = directory.join("small-disk");
        std::fs::create_dir_all(&directory).map_err(file(&directory))?;
        Ok(Self { directory })
    }

    /// The words before the command line of a process that writes its log there.
    pub(super) async fn by(&self) -> Result<Vec<String>, Error> {
        let script = "\
for mounted in $(cut -d ' ' -f 2 /proc/self/mounts); do mount -o remount,bind,ro \"$mounted\" 2>/dev/null; done
mount -t tmpfs -o size=64k,mode=700 tmpfs \"$0\" && exec >>\"$0/log\" 2>&1";
        with_mounts(script, &self.directory).await
    }

    /// The log, as the process's mounts have it.
    pub(super) fn log(&self, pid: u32) -> Result<String, Error> {
        let path = self.inside(pid, "log");
        let bytes = std::fs::read(&path).map_err(file(&path))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Leaves no free byte.
    pub(super) fn fill(&self, pid: u32) -> Result<(), Error> {
        use std::io::Write as _;
        let path = self.inside(pid, "fill");
        let mut filling = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(file(&path))?;
        loop {
            match filling.write(&[0; 512]) {
                Ok(n) if n > 0 => {}
                Err(error) if error.kind() != std::io::ErrorKind::StorageFull => {
                    return Err(file(&path)(error));
                }
                _ => return Ok(()),
            }
        }
    }

    /// Makes room.
    pub(super) fn free(&self, pid: u32) -> Result<(), Error> {
        let path = self.inside(pid, "fill");
        std::fs::remove_file(&path).map_err(file(&path))
    }

    /// True where the process can write nothing beside its log.
    pub(super) fn is_else_read_only(&self, pid: u32) -> bool {
        let beside = self.directory.with_file_name("beside");
        let seen =
            PathBuf::from(format!("/proc/{pid}/root")).join(beside.strip_prefix("/").unwrap_or(&beside));
        let written = std::fs::write(&seen, "");
        std::fs::remove_file(&beside).unwrap_or_default();
        written.is_err_and(|error| error.kind() == std::io::ErrorKind::ReadOnlyFilesystem)
    }

    fn inside(&self, pid: u32, name: &str) -> PathBuf {
        let directory = self.directory.strip_prefix("/").unwrap_or(&self.directory);
        PathBuf::from(format!("/proc/{pid}/root"))
            .join(directory)
            .join(name)
    }
}

// ---- memory

/// A control group with a limit of memory. Dropped when nothing runs in it, it is gone.
#[derive(Debug)]
pub(super) struct MemoryGroup {
    path: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl MemoryGroup {
    /// A group of this name at the root of whichever hierarchy has memory.
    pub(super) fn make(name: &str) -> Result<Self, Error> {
        let root = Path::new("/sys/fs/cgroup");
        let subtree = std::fs::read_to_string(root.join("cgroup.subtree_control")).unwrap_or_default();
        let (parent, version) = if root.join("memory/memory.limit_in_bytes").is_file() {
            (root.join("memory"), Version::One)
        } else if subtree
            .split_whitespace()
            .any(|controller| controller == "memory")
        {
            (root.to_owned(), Version::Two)
        } else {
            return Err(Error::NotRun("no control groups of memory here".to_owned()));
        };
        let path = parent.join(name);
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(Error::NotRun(format!(
                "no control group {}: {error}",
                path.display()
            ))),
            _ => Ok(Self { path, version }),
        }
    }

    /// The words before the command line of a process that lives in it.
    pub(super) fn by(&self) -> Vec<String> {
        let path = self.path.display().to_string();
        let script = "echo $$ >\"$0/cgroup.procs\" && exec \"$@\"";
        words(["sh", "-c", script, &path])
    }

    /// What squeezing is here.
    pub(super) const fn squeeze_is(&self) -> &'static str {
        match self.version {
            Version::One => "standing still at the limit (cgroup v1 has no MemoryHigh)",
            Version::Two => "MemoryHigh",
        }
    }

    /// Above this it gets on slowly, or not at all; it is not killed.
    pub(super) fn squeeze(&self, kib: u64) -> Result<(), Error> {
        match self.version {
            Version::One => {
                self.write("memory.oom_control", "1")?;
                self.write("memory.limit_in_bytes", &(kib * 1024).to_string())
            }
            Version::Two => self.write("memory.high", &(kib * 1024).to_string()),
        }
    }

    /// Above this it is killed.
    pub(super) fn limit(&self, kib: u64) -> Result<(), Error> {
        let bytes = (kib * 1024).to_string();
        match self.version {
            Version::One => {
                self.write("memory.oom_control", "0")?;
                self.write("memory.limit_in_bytes", &bytes)
            }
            Version::Two => {
                self.write("memory.swap.max", "0")?;
                self.write("memory.max", &bytes)
            }
        }
    }

    /// As much as it likes.
    pub(super) fn relax(&self) -> Result<(), Error> {
        match self.version {
            Version::One => {
                self.write("memory.limit_in_bytes", "-1")?;
                self.write("memory.oom_control", "0")
            }
            Version::Two => {
                self.write("memory.high", "max")?;
                self.write("memory.max", "max")
            }
        }
    }

    /// Whether it has met its bound since it was squeezed.
    pub(super) fn is_squeezed(&self) -> Result<bool, Error> {
        Ok(match self.version {
            Version::One => self.number("memory.oom_control", "under_oom")? > 0,
            Version::Two => self.number("memory.events", "high")? > 0,
        })
    }

    /// Processes that were killed for it.
    pub(super) fn killed(&self) -> Result<u64, Error> {
        match self.version {
            Version::One => self.number("memory.oom_control", "oom_kill"),
            Version::Two => self.number("memory.events", "oom_kill"),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.path.join(name);
        std::fs::write(&path, text).map_err(file(&path))
    }

    fn number(&self, name: &str, key: &str) -> Result<u64, Error> {
        let path = self.path.join(name);
        let text = std::fs::read_to_string(&path).map_err(file(&path))?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{key} ")));
        line.and_then(|number| number.trim().parse().ok())
            .ok_or(Error::Nothing("number of the control group"))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // What still runs in it keeps it; the next one of this name takes it.
        self.relax().unwrap_or_default();
        std::fs::remove_dir(&self.path).unwrap_or_default();
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

    #[test]
    fn a_process_knows_its_own_descriptors_time_and_memory() {
        let own = std::process::id();
        let before = descriptors(own).unwrap();
        let more: Vec<std::fs::File> = (0..50)
            .map(|_| std::fs::File::open("/dev/null").unwrap())
            .collect();
        // Other tests of this process open and close some as well.
        assert!(descriptors(own).unwrap() >= before.saturating_sub(20) + more.len());
        assert!(anonymous_kib(own).unwrap() > 100);
        assert!(worked(own).is_ok());
    }

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
            process::until("READY", COMMAND_DEADLINE, || async {
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
