//! Memory of a BPF array that this process shares with the kernel, so that reads and writes need no system call.
#![allow(unsafe_code, reason = "mmap(2), a slice over what it returned, and membarrier(2)")]

use std::io;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags};

/// All values of an array, as 64-bit words.
///
/// Everybody who has the memory mapped, and the program in the kernel, may read and write it at any time; so its words
/// are atomic, and their order is the business of whoever uses them.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping belongs to the process, and is gone only when this is dropped; atomics may be used by any thread.
unsafe impl Send for SharedMemory {}
// SAFETY: as for `Send`.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Maps the memory of an array whose values, `bytes` in all, are whole words long.
    pub(crate) fn of_array(array: impl AsFd, bytes: usize) -> io::Result<Self> {
        let both = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the place, so nothing else is there. It is as long as asked for, or the call fails.
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, both, MapFlags::SHARED, array, 0) }?;
        Self::new(start.cast(), bytes)
    }

    /// Memory that starts as zeros and is shared with nobody.
    #[cfg(test)]
    pub(super) fn anonymous(bytes: usize) -> io::Result<Self> {
        let both = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: as above.
        let start = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, both, MapFlags::PRIVATE) }?;
        Self::new(start.cast(), bytes)
    }

    fn new(start: *mut AtomicU64, bytes: usize) -> io::Result<Self> {
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, words: bytes / size_of::<AtomicU64>() })
    }
}

impl Deref for SharedMemory {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: a mapping starts at a page and is at least this long; it stays until this is dropped, and any bytes
        // are good words.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length, and no slice of it outlives us. There is no way in which it could fail.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.words * size_of::<AtomicU64>()) };
    }
}

/// Waits until every program that runs now has ended.
///
/// Programs run in read-side critical sections of RCU, and the oldest command of membarrier(2) is a grace period of it.
/// A kernel with `nohz_full` CPUs does not offer it.
pub(super) fn wait_for_readers() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes two numbers and no memory.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
