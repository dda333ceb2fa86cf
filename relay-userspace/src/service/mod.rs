//! What the relay and a service manager such as systemd say to each other: that it is ready, how it is and that it lives
//! (sd_notify(3)), and which sockets it was started with (sd_listen_fds(3)).
//!
//! Without a manager nothing is said. A manager that does not listen costs a line in the log, and never a call.

mod notify;
mod passed;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

pub use self::notify::Manager;
pub use self::passed::{Passed, PassedError};

/// How often the manager is told how the relay is, if it has changed, and at least how often that it lives.
const TELL: Duration = Duration::from_secs(3);

/// What a manager says to the process that it starts.
#[derive(Debug, Default)]
pub struct Variables {
    notify_socket: Option<OsString>,
    watchdog_usec: Option<OsString>,
    watchdog_pid: Option<OsString>,
    listen_pid: Option<OsString>,
    listen_fds: Option<OsString>,
    listen_fdnames: Option<OsString>,
}

impl Variables {
    /// Takes them out of the environment, so that nothing that this process may start speaks in its name. To be called
    /// before there is a second thread.
    pub fn take() -> Self {
        Self {
            notify_socket: take("NOTIFY_SOCKET"),
            watchdog_usec: take("WATCHDOG_USEC"),
            watchdog_pid: take("WATCHDOG_PID"),
            listen_pid: take("LISTEN_PID"),
            listen_fds: take("LISTEN_FDS"),
            listen_fdnames: take("LISTEN_FDNAMES"),
        }
    }

    /// How long the manager waits for a sign of life; `None` if it does not, or not for this process.
    fn watchdog(&self) -> Option<Duration> {
        let is_ours = self.watchdog_pid.as_deref().is_none_or(is_this_process);
        let micros = self.watchdog_usec.as_ref()?.to_str()?.parse().ok().filter(|micros| is_ours && *micros > 0);
        micros.map(Duration::from_micros)
    }
}

/// A directory that the manager has made for this service (`StateDirectory=` and its like): the first of those that the
/// variable names.
pub fn directory(variable: &str) -> Option<PathBuf> {
    first(&std::env::var_os(variable)?)
}

fn first(directories: &OsStr) -> Option<PathBuf> {
    let first = directories.as_bytes().split(|byte| *byte == b':').next()?;
    Some(PathBuf::from(OsStr::from_bytes(first))).filter(|path| path.is_absolute())
}

fn is_this_process(pid: &OsStr) -> bool {
    pid.to_str() == Some(&std::process::id().to_string())
}

fn take(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name)?;
    #[allow(
        unsafe_code,
        reason = "changing the environment is sound while there is one thread, which the caller promises"
    )]
    unsafe {
        std::env::remove_var(name);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_for_this_process_or_for_anybody() {
        let of = |micros: &str, pid: Option<String>| {
            let [watchdog_usec, watchdog_pid] = [Some(micros.to_owned()), pid].map(|value| value.map(OsString::from));
            Variables { watchdog_usec, watchdog_pid, ..Variables::default() }.watchdog()
        };
        let own = std::process::id();
        assert_eq!(of("30000000", None), Some(Duration::from_secs(30)));
        assert_eq!(of("30000000", Some(own.to_string())), Some(Duration::from_secs(30)));
        assert_eq!(of("30000000", Some((own + 1).to_string())), None);
        assert_eq!((of("0", None), of("soon", None)), (None, None));
        assert_eq!(Variables::default().watchdog(), None);
    }

    #[test]
    fn of_several_directories_the_first_is_meant() {
        let of = |text: &str| first(OsStr::new(text));
        assert_eq!(of("/var/lib/hairpin"), Some("/var/lib/hairpin".into()));
        assert_eq!(of("/var/lib/hairpin:/var/lib/other"), Some("/var/lib/hairpin".into()));
        assert_eq!((of(""), of("hairpin")), (None, None));
    }
}
