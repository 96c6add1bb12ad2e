//! A process with mounts of its own.

use std::path::Path;
use std::time::Duration;

use super::words;
use crate::drill::Error;
use crate::process;

/// For a command of the system.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);

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
pub(super) async fn with_mounts(script: &str, directory: &Path) -> Result<Vec<String>, Error> {
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
