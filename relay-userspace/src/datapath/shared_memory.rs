//! Memory of a BPF array that this process shares with the kernel, so that reads and writes need no system call.
#![allow(unsafe_code, reason = "mmap(2), and a slice over what it returned")]

use std::io;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags};

/// What memory that anybody may change at any moment can be looked at as.
///
/// # Safety
///
/// The type is made of atomics, and nothing else; any bytes are a good value of it.
pub(crate) unsafe trait Atomics: Sized {}

// SAFETY: it is one.
unsafe impl Atomics for AtomicU64 {}

/// All values of an array.
///
/// Everybody who has the memory mapped, and the program in the kernel, may read and write it at any time; so its words
/// are atomic, and their order is the business of whoever uses them.
#[derive(Debug)]
pub(crate) struct SharedMemory<T: Atomics = AtomicU64> {
    start: NonNull<T>,
    values: usize,
}

// SAFETY: the mapping belongs to the process, and is gone only when this is dropped; atomics may be used by any thread.
unsafe impl<T: Atomics> Send for SharedMemory<T> {}
// SAFETY: as for `Send`.
unsafe impl<T: Atomics> Sync for SharedMemory<T> {}

impl<T: Atomics> SharedMemory<T> {
    /// Maps the memory of an array, of which a value of the kernel's may be several of these.
    pub(crate) fn of_array(array: impl AsFd, values: usize) -> io::Result<Self> {
        let both = ProtFlags::READ | ProtFlags::WRITE;
        let bytes = values * size_of::<T>();
        // SAFETY: the kernel chooses the place, so nothing else is there. It is as long as asked for, or the call fails.
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, both, MapFlags::SHARED, array, 0) }?;
        Self::new(start.cast(), values)
    }

    /// Memory that starts as zeros and is shared with no program. It is taken when it is first touched.
    pub(crate) fn anonymous(values: usize) -> io::Result<Self> {
        let both = ProtFlags::READ | ProtFlags::WRITE;
        let bytes = values * size_of::<T>();
        // SAFETY: as above.
        let start = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, both, MapFlags::PRIVATE) }?;
        Self::new(start.cast(), values)
    }

    fn new(start: *mut T, values: usize) -> io::Result<Self> {
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, values })
    }
}

impl<T: Atomics> Deref for SharedMemory<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: a mapping starts at a page, which is aligned for any of these, and is at least this long; it stays
        // until this is dropped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.values) }
    }
}

impl<T: Atomics> Drop for SharedMemory<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length, and no slice of it outlives us. There is no way in which it could fail.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.values * size_of::<T>()) };
    }
}
