//! The process has nowhere to write its log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::Error;
use super::super::machine::{self, SmallDisk};
use super::super::random::Random;
use super::super::stage::{End, READY_DEADLINE, Stage};
use super::{MEET, ending, short};
use crate::process::{self, Signal};

/// What becomes of the log.
#[derive(Clone, Copy, Debug)]
enum Log {
    /// Its disk is full, and all other file systems are read-only.
    Full,
    /// There never was one.
    Closed,
    /// Who reads it has gone.
    Unread,
    /// Who reads it stands still.
    Stalled,
}

pub(super) async fn lost(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let log = dice
        .pick(&[Log::Full, Log::Full, Log::Closed, Log::Unread, Log::Stalled])
        .copied()
        .ok_or(Error::Nothing("log"))?;
    let (end, time) = (ending(dice), short(dice));
    let told = match log {
        Log::Full => {
            let disk = SmallDisk::new(stage.directory())?;
            let by = disk.by().await?;
            stage.end(end).await?;
            stage.pass_unwell(Duration::from_secs(40));
            stage.start_by(&by).await?;
            stage.recovered().await?;
            let pid = stage.holder().pid()?;
            if !disk.is_else_read_only(pid) {
                return Err(Error::Nothing("read-only file system"));
            }
            disk.fill(pid)?;
            let full = disk.log(pid)?.len();
            goes_on(stage, time).await?;
            let still = disk.log(pid)?.len();
            disk.free(pid)?;
            // Something to tell.
            stage.holder().signal(Signal::Hup)?;
            let freed = process::until("a line in the log that has room again", MEET, || async {
                match disk.log(pid).map(|log| log.len()) {
                    Ok(freed) if freed > still => Ok(freed),
                    Ok(freed) => Err(freed.to_string()),
                    Err(error) => Err(process::chain(&error)),
                }
            })
            .await?;
            if still > full + 4_096 {
                return Err(Error::criterion(
                    "a disk that is full",
                    format!("a log of {full} bytes, then of {still}"),
                ));
            }
            format!("{full} bytes when full, {} more later", freed - full)
        }
        Log::Closed => {
            stage.end(end).await?;
            let script = "exec \"$0\" \"$@\" >&- 2>&-";
            stage.start_by(&machine::words(["sh", "-c", script])).await?;
            stage.recovered().await?;
            goes_on(stage, time).await?;
            "from the start".to_owned()
        }
        Log::Unread | Log::Stalled => {
            let fifo = Fifo::make(&stage.directory().join("log.fifo")).await?;
            let by = fifo.by();
            stage.end(end).await?;
            stage.start_by(&by).await?;
            let reader = fifo.opened().await?;
            if matches!(log, Log::Unread) {
                stage.recovered().await?;
                drop(reader);
                goes_on(stage, time).await?;
                "gone".to_owned()
            } else {
                stage.recovered().await?;
                goes_on(stage, time).await?;
                // It reads again: what waited for it comes, up to the last line.
                let read = tokio::task::spawn_blocking(move || std::io::read_to_string(reader));
                stage.end(End::Term).await?;
                let text = read.await.map_err(|_gone| Error::Nothing("reader of the log"))?;
                let text = text.unwrap_or_default();
                if !(text.contains("started") && text.contains("stopped")) {
                    return Err(Error::criterion(
                        "the whole log, once it is read",
                        process::last_lines(&text, 3),
                    ));
                }
                stage.start().await?;
                format!("{} lines read later", text.lines().count())
            }
        }
    };
    stage.must_run()?;
    // The next one has a log again.
    stage.end(End::Term).await?;
    stage.start().await?;
    Ok(format!("{log:?}, {told}"))
}

/// Time passes, and those who run now read what was published in it.
async fn goes_on(stage: &mut Stage, time: Duration) -> Result<(), Error> {
    stage.holder().database.reset_all();
    stage.pass(time);
    stage.recovered().await
}

/// The fifo that stands for the journal's pipe, of one page.
struct Fifo(PathBuf);

impl Fifo {
    async fn make(path: &Path) -> Result<Self, Error> {
        std::fs::remove_file(path).unwrap_or_default();
        process::run(Path::new("mkfifo"), [path.as_os_str()], READY_DEADLINE).await?;
        Ok(Self(path.to_owned()))
    }

    /// The words before the command line of a process that writes its log there.
    fn by(&self) -> Vec<String> {
        let path = self.0.display().to_string();
        machine::words(["sh", "-c", "exec \"$@\" >\"$0\" 2>&1", &path])
    }

    /// The reader, which reads nothing.
    async fn opened(self) -> Result<std::fs::File, Error> {
        let path = self.0.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let file = std::fs::File::open(&path)?;
            rustix::pipe::fcntl_setpipe_size(&file, 4_096)?;
            Ok(file)
        });
        let opened = tokio::time::timeout(READY_DEADLINE, opened).await;
        let opened = opened.map_err(|_elapsed| Error::Nothing("writer of the log"))?;
        let opened = opened.map_err(|_gone| Error::Nothing("reader of the log"))?;
        opened.map_err(|source| Error::File { path: self.0, source })
    }
}
