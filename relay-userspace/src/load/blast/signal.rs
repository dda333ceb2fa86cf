//! Ends a system call of another thread.
#![allow(unsafe_code, reason = "sigaction(2) and pthread_kill(3)")]

use std::io;
use std::os::unix::thread::JoinHandleExt as _;
use std::thread::JoinHandle;

/// A signal that means nothing to anybody here: without a handler it is ignored, and ends no system call.
const SIGNAL: libc::c_int = libc::SIGURG;

extern "C" fn nothing(_: libc::c_int) {}

/// To be called before [`interrupt`].
pub(super) fn prepare() -> io::Result<()> {
    // SAFETY: zeros are a valid `sigaction`: no flags (so that system calls end), no signal blocked.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler does nothing, which is safe at any moment.
    let result = unsafe { libc::sigaction(SIGNAL, &raw const action, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The thread's system call, if it is in one that can be interrupted, ends with `EINTR`.
pub(super) fn interrupt<T>(thread: &JoinHandle<T>) {
    // SAFETY: a thread can be named until it is joined, and whoever has the handle has not joined it.
    // It may have ended, which is all that is wanted.
    let _ = unsafe { libc::pthread_kill(thread.as_pthread_t(), SIGNAL) };
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_system_call_of_another_thread_ends() {
        prepare().unwrap();
        let start = Instant::now();
        let sleeper = thread::spawn(|| {
            let hour = rustix::event::Timespec { tv_sec: 3600, tv_nsec: 0 };
            rustix::event::poll(&mut [], Some(&hour))
        });
        while !sleeper.is_finished() {
            interrupt(&sleeper);
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(sleeper.join().unwrap(), Err(rustix::io::Errno::INTR));
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}
