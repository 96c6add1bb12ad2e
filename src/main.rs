//! The `virt-collector` binary: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    virt_collector::cli::main()
}
