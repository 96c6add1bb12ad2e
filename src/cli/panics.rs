//! What is said of a panic.
//!
//! A message that is written in the code says what is wrong. One that was made at run time may hold what was being
//! worked on, such as the text that was cut at a wrong place or the value that was none: a password among them. It is
//! not shown; the place is, and with `RUST_BACKTRACE=1` the way there.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{PanicHookInfo, set_hook};

use crate::plain;

/// From now on, for the whole process.
pub(super) fn tell() {
    set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        tell!("virt-collector: {}", said(panic));
        if backtrace.status() == BacktraceStatus::Captured {
            tell!("{backtrace}");
        }
    }));
}

fn said(panic: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let name = plain::line(thread.name().unwrap_or("without a name")).into_owned();
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic
        .payload()
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("its message was made at run time and may hold a secret, so that it is not shown");
    format!("a defect: thread {name} panicked at {place}: {message}")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::thread;

    use super::*;

    #[test]
    fn what_was_being_worked_on_is_not_in_what_is_said_of_a_panic() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&heard);
        let before = Arc::new(std::panic::take_hook());
        let others = Arc::clone(&before);
        set_hook(Box::new(move |panic| match thread::current().name() {
            Some("panicking") => told.lock().unwrap().push(said(panic)),
            // Of other tests.
            _ => others(panic),
        }));
        let secret = "gehei\u{df}".to_owned();
        let (shown, cut, none) = (secret.clone(), secret.clone(), secret);
        let works: [Box<dyn FnOnce() + Send>; 4] = [
            Box::new(move || panic!("cannot send {shown}")),
            Box::new(move || drop(cut.get(..6).map(str::to_owned).ok_or(cut).unwrap())),
            Box::new(move || std::panic::panic_any(none)),
            Box::new(|| panic!("written in the code")),
        ];
        for work in works {
            let panicking = thread::Builder::new().name("panicking".to_owned()).spawn(work);
            assert!(panicking.unwrap().join().is_err());
        }
        set_hook(Box::new(move |panic| before(panic)));
        let heard = heard.lock().unwrap().clone();
        assert_eq!(heard.len(), 4, "{heard:?}");
        for line in &heard {
            assert!(
                line.contains("thread panicking panicked at src/cli/panics.rs:"),
                "{line}"
            );
            assert!(!line.contains("gehei"), "{line}");
        }
        assert!(heard[3].ends_with(": written in the code"), "{heard:?}");
    }
}
