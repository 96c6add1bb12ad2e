//! Real programs as children: started with a log file, waited for, signalled, killed.
//!
//! Owns: that no child outlives the one who started it. Each child leads a process group; dropping a [`Process`]
//! kills the group, and where `setpriv` exists the kernel kills the child when the starting thread ends, so that
//! not even kill -9 of a test leaves one behind. Start children from the main task, not from `spawn_blocking`.
//! Never does: knowing what the programs are for.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// How often a condition is looked at.
const PERIOD: Duration = Duration::from_millis(100);

/// Longest time for one look: a look that hangs must not hide the deadline.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// Lines of the log in an error.
const TAIL_LINES: usize = 15;

/// Why a process is not as wanted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such program.
    #[error("there is no {program} beside {}: run `cargo build --workspace --bins`", beside.display())]
    NotBuilt {
        /// The program.
        program: String,
        /// Where it was looked for.
        beside: PathBuf,
    },
    /// A file or directory cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The program cannot be started, signalled or waited for.
    #[error("cannot {verb} {name}")]
    Child {
        /// What was tried.
        verb: &'static str,
        /// The process.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It ended by itself.
    #[error("{name} ended by itself ({status}). The end of {}:\n{last_words}", log.display())]
    Ended {
        /// The process.
        name: String,
        /// How.
        status: ExitStatus,
        /// Its log file.
        log: PathBuf,
        /// The last lines of it.
        last_words: String,
    },
    /// It was told to stop, and did not end well.
    #[error("{name} was told to stop and ended with {status}. The end of {}:\n{last_words}", log.display())]
    Stopped {
        /// The process.
        name: String,
        /// How.
        status: ExitStatus,
        /// Its log file.
        log: PathBuf,
        /// The last lines of it.
        last_words: String,
    },
    /// A one-shot command failed.
    #[error("{command} failed: {status}\n{said}")]
    Failed {
        /// The command.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote.
        said: String,
    },
    /// The deadline passed.
    #[error("waited {} s for {what}; last seen: {state}", after.as_secs())]
    Deadline {
        /// What for.
        what: String,
        /// How long.
        after: Duration,
        /// The last state.
        state: String,
    },
}

/// What is sent to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Please stop.
    Term,
    /// Ctrl-C.
    Int,
    /// Read the configuration again.
    Hup,
    /// Stand still.
    Stop,
    /// Go on.
    Cont,
    /// No more.
    Kill,
}

impl Signal {
    const fn number(self) -> rustix::process::Signal {
        match self {
            Self::Term => rustix::process::Signal::TERM,
            Self::Int => rustix::process::Signal::INT,
            Self::Hup => rustix::process::Signal::HUP,
            Self::Stop => rustix::process::Signal::STOP,
            Self::Cont => rustix::process::Signal::CONT,
            Self::Kill => rustix::process::Signal::KILL,
        }
    }
}

/// A running child with its log file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: Option<Pid>,
    log: PathBuf,
}

impl Process {
    /// Starts a program. Standard output and error are appended to the log file.
    ///
    /// # Errors
    /// When the log cannot be opened or the program not be started.
    pub fn start<A: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> Result<Self, Error> {
        let file = |source| Error::File {
            path: log.to_owned(),
            source,
        };
        let out = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .map_err(file)?;
        let err = out.try_clone().map_err(file)?;
        let mut command = dying_with_parent(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().map_err(|source| Error::Child {
            verb: "start",
            name: name.to_owned(),
            source,
        })?;
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        Ok(Self {
            name: name.to_owned(),
            child,
            pid,
            log: log.to_owned(),
        })
    }

    /// Its name in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, `None` once it has been waited for.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Its log file.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its log.
    #[must_use]
    pub fn last_words(&self) -> String {
        tail(&self.log, TAIL_LINES)
    }

    /// Sends a signal to the process itself.
    ///
    /// # Errors
    /// When it has been waited for already.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "it has ended");
        let running = self.child.id().and(self.pid).ok_or_else(gone);
        running
            .and_then(|pid| kill_process(pid, signal.number()).map_err(io::Error::from))
            .map_err(|source| Error::Child {
                verb: "signal",
                name: self.name.clone(),
                source,
            })
    }

    /// kill -9 of its whole group, and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn kill(&mut self) -> Result<(), Error> {
        self.kill_group();
        self.wait(Duration::from_secs(10)).await.map(drop)
    }

    /// SIGTERM, then waits for the end.
    ///
    /// # Errors
    /// When it does not end in time; it runs on then.
    pub async fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus, Error> {
        if self.exited()?.is_none() {
            self.signal(Signal::Term)?;
        }
        self.wait(deadline).await
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When it does not come in time; the process runs on then.
    pub async fn wait(&mut self, deadline: Duration) -> Result<ExitStatus, Error> {
        match tokio::time::timeout(deadline, self.child.wait()).await {
            Ok(status) => status.map_err(|source| Error::Child {
                verb: "wait for",
                name: self.name.clone(),
                source,
            }),
            Err(_elapsed) => Err(Error::Deadline {
                what: format!("the end of {}", self.name),
                after: deadline,
                state: format!("it still runs\n{}", self.last_words()),
            }),
        }
    }

    /// How it ended, `None` while it runs.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.child.try_wait().map_err(|source| Error::Child {
            verb: "look after",
            name: self.name.clone(),
            source,
        })
    }

    /// Nothing while it runs.
    ///
    /// # Errors
    /// [`Error::Ended`] with its last log lines once it has ended.
    pub fn must_run(&mut self) -> Result<(), Error> {
        match self.exited()? {
            None => Ok(()),
            Some(status) => Err(Error::Ended {
                name: self.name.clone(),
                status,
                log: self.log.clone(),
                last_words: self.last_words(),
            }),
        }
    }

    fn kill_group(&self) {
        // Once waited for, the number may belong to anyone.
        if let Some(pid) = self.child.id().and(self.pid) {
            // It may have ended a moment ago, which is what was wanted.
            kill_process_group(pid, rustix::process::Signal::KILL).unwrap_or_default();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// kill -9 of a process that is not a child, such as a session of a database server. The caller knows that it runs.
///
/// # Errors
/// When there is none, or it belongs to another user.
pub fn kill(pid: i32) -> Result<(), Error> {
    let nobody = || io::Error::new(io::ErrorKind::InvalidInput, "no number of a process");
    rustix::process::Pid::from_raw(pid)
        .filter(|_| pid > 1)
        .ok_or_else(nobody)
        .and_then(|pid| kill_process(pid, rustix::process::Signal::KILL).map_err(io::Error::from))
        .map_err(|source| Error::Child {
            verb: "kill",
            name: format!("process {pid}"),
            source,
        })
}

/// A command that the kernel kills when the thread that starts it ends, where the system has the means.
fn dying_with_parent(program: &Path) -> Command {
    let setpriv = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path)
            .map(|directory| directory.join("setpriv"))
            .find(|file| file.is_file())
    });
    match setpriv {
        Some(setpriv) if cfg!(target_os = "linux") => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        _ => Command::new(program),
    }
}

/// Runs a command to its end and returns what it wrote, standard error included.
///
/// # Errors
/// When it cannot be started, does not end in time or does not succeed.
pub async fn run<A: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = A>,
    deadline: Duration,
) -> Result<String, Error> {
    let arguments: Vec<OsString> = arguments
        .into_iter()
        .map(|argument| argument.as_ref().to_owned())
        .collect();
    let words = arguments.iter().map(|word| word.to_string_lossy().into_owned());
    let name = program
        .file_name()
        .unwrap_or(program.as_os_str())
        .to_string_lossy()
        .into_owned();
    let shown = std::iter::once(name).chain(words).collect::<Vec<_>>().join(" ");
    let mut command = dying_with_parent(program);
    command
        .args(&arguments)
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    let output = match tokio::time::timeout(deadline, command.output()).await {
        Ok(output) => output.map_err(|source| Error::Child {
            verb: "run",
            name: shown.clone(),
            source,
        })?,
        Err(_elapsed) => {
            let state = "it still runs".to_owned();
            return Err(Error::Deadline {
                what: format!("the end of {shown}"),
                after: deadline,
                state,
            });
        }
    };
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.success() {
        return Ok(said);
    }
    Err(Error::Failed {
        command: shown,
        status: output.status,
        said: said.trim_end().to_owned(),
    })
}

/// Finds a program of the workspace beside the running one, tests included.
///
/// # Errors
/// When it was not built.
pub fn find(program: &str) -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(|source| Error::File {
        path: PathBuf::from(program),
        source,
    })?;
    // Tests lie one directory deeper, in deps.
    let found = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file());
    found.ok_or_else(|| Error::NotBuilt {
        program: program.to_owned(),
        beside: own,
    })
}

/// Looks at a condition until it holds. The look answers `Err` with the state it saw while it does not.
///
/// # Errors
/// [`Error::Deadline`] with the last state.
pub async fn until<T, F>(what: &str, deadline: Duration, mut look: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + deadline;
    loop {
        let state = match tokio::time::timeout(LOOK_DEADLINE, look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(state)) => state,
            Err(_elapsed) => format!("no answer in {} s", LOOK_DEADLINE.as_secs()),
        };
        if Instant::now() >= end {
            return Err(Error::Deadline {
                what: what.to_owned(),
                after: deadline,
                state,
            });
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Waits until the first column of the first row is true. The row's other columns are the state in the error.
///
/// # Errors
/// When it never becomes true; errors of the database are states, too.
pub async fn until_sql(
    what: &str,
    client: &tokio_postgres::Client,
    sql: &str,
    deadline: Duration,
) -> Result<(), Error> {
    use tokio_postgres::SimpleQueryMessage;
    until(what, deadline, || async {
        let messages = client.simple_query(sql).await.map_err(|error| chain(&error))?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let row = row.ok_or("no row")?;
        let columns: Vec<&str> = (0..row.len())
            .map(|index| row.get(index).unwrap_or("NULL"))
            .collect();
        if columns.first() == Some(&"t") {
            Ok(())
        } else {
            Err(columns.join(" "))
        }
    })
    .await
}

/// An error with its causes, as one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// A TCP port of the loopback address that nobody listens on now. It is below those that the kernel gives to who
/// connects: while the program that it is for is not there yet, or away, no connection takes it.
///
/// # Errors
/// When there is none.
pub fn free_address() -> Result<SocketAddr, Error> {
    const PORTS: Range<u16> = 10_000..32_000;
    const TRIES: u32 = 100;

    let mut tries = 0;
    loop {
        tries += 1;
        // Different for each call: the hasher's keys are.
        let random = RandomState::new().hash_one(tries) % u64::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(random).unwrap_or_default();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match TcpListener::bind(address) {
            Ok(_free) => return Ok(address),
            Err(source) if source.kind() != io::ErrorKind::AddrInUse || tries == TRIES => {
                return Err(Error::File {
                    path: PathBuf::from(address.to_string()),
                    source,
                });
            }
            Err(_taken) => {}
        }
    }
}

/// The last lines of a file.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    match std::fs::read(path) {
        Ok(bytes) => last_lines(&String::from_utf8_lossy(&bytes), lines),
        Err(error) => format!("({} cannot be read: {error})", path.display()),
    }
}

pub(crate) fn last_lines(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..)
        .unwrap_or_default()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_is_waited_for_signalled_and_killed() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let shell = Path::new("/bin/sh");
        let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done";
        let mut process = Process::start("shell", shell, ["-c", script], &log).unwrap();
        until("the shell", Duration::from_secs(10), || async {
            let seen = tail(&log, 1);
            if seen == "up" { Ok(()) } else { Err(seen) }
        })
        .await
        .unwrap();
        process.must_run().unwrap();
        let status = process.terminate(Duration::from_secs(10)).await.unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(process.last_words(), "up\nbye");
        assert!(matches!(process.must_run(), Err(Error::Ended { .. })));

        let mut process = Process::start("shell", shell, ["-c", "trap '' TERM; sleep 60"], &log).unwrap();
        process.kill().await.unwrap();
        assert!(process.signal(Signal::Term).is_err());
    }

    #[tokio::test]
    async fn a_deadline_tells_the_last_state() {
        let waited = until("rain", Duration::ZERO, || async {
            Err::<(), _>("sunshine".to_owned())
        })
        .await;
        assert_eq!(
            waited.unwrap_err().to_string(),
            "waited 0 s for rain; last seen: sunshine"
        );
        let failed = run(
            Path::new("/bin/sh"),
            ["-c", "echo why >&2; exit 5"],
            Duration::from_secs(10),
        )
        .await;
        let text = failed.unwrap_err().to_string();
        assert!(text.contains("exit status: 5") && text.ends_with("why"), "{text}");
    }
}
