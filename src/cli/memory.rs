//! What is in memory stays there: passwords, keys and tokens are.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// No core file, whoever handles them, and no other process of the account looks in. Before anything secret is read.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn keep() -> std::io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // The sandbox of the unit forbids it, and has set the limit itself. What follows holds without it, too; the limit is
    // what shows.
    setrlimit(Resource::Core, none).unwrap_or_default();
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use rustix::process::{dumpable_behavior, getrlimit};

    use super::*;

    /// Also where a program takes core files, which goes by no limit.
    #[test]
    fn the_kernel_is_told_twice() {
        keep().unwrap();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
