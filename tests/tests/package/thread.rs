//! One thread of a process that does not go on, while the others do: what a shard that hangs looks like.

#![allow(unsafe_code, reason = "ptrace(2) is the way to stop a single thread from outside")]

use std::fs;
use std::io;
use std::marker::PhantomData;
use std::ptr;

use rustix::process::Pid;

/// A thread that stands still until this goes out of scope. Only who has stopped it lets it go on.
pub(crate) struct Held {
    thread: libc::pid_t,
    not_send: PhantomData<*const ()>,
}

/// Stops the thread of a process that has this name.
pub(crate) fn hold(process: Pid, name: &str) -> Held {
    let folder = format!("/proc/{}/task", process.as_raw_nonzero());
    let tasks = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let is_it =
        |task: &fs::DirEntry| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name);
    let task = tasks.flatten().find(is_it).unwrap_or_else(|| panic!("no thread is called {name}"));
    let thread: libc::pid_t = task.file_name().to_string_lossy().parse().expect("tasks are numbers");
    let check = |result: libc::c_long| {
        assert!(result >= 0, "ptrace of {name}: {}", io::Error::last_os_error());
    };
    let nothing = ptr::null_mut::<libc::c_void>();
    // SAFETY: none of these requests reads or writes memory of this process.
    unsafe {
        check(libc::ptrace(libc::PTRACE_SEIZE, thread, nothing, nothing));
        check(libc::ptrace(libc::PTRACE_INTERRUPT, thread, nothing, nothing));
        // Until it stands.
        let mut status = 0;
        check(libc::waitpid(thread, &raw mut status, libc::__WALL).into());
    }
    Held { thread, not_send: PhantomData }
}

impl Drop for Held {
    fn drop(&mut self) {
        let nothing = ptr::null_mut::<libc::c_void>();
        // SAFETY: as above. A thread that is gone needs no letting go.
        unsafe {
            libc::ptrace(libc::PTRACE_DETACH, self.thread, nothing, nothing);
        }
    }
}
