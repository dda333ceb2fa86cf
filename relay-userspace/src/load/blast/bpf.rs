//! bpf(2) as far as small programs from bare instructions need it: aya loads only what is in an object file.
#![allow(unsafe_code, reason = "bpf(2) takes addresses of memory")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use super::assembler::Instruction;
use crate::datapath::SharedMemory;

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_MMAPABLE: u32 = 1 << 10;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
const PAGE: usize = 4096;

/// The head of `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
    flags: u32,
}

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct ProgramLoad {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

/// The head of `union bpf_attr` for `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    return_value: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    zero: u32,
}

/// The head of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// The head of `union bpf_attr` for `BPF_LINK_UPDATE`.
#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    expected: u32,
}

/// `struct xdp_md`.
#[repr(C)]
struct XdpMd {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_interface: u32,
    receive_queue: u32,
    egress_interface: u32,
}

/// A BPF array whose values this process shares with the programs that use it.
#[derive(Debug)]
pub(super) struct Array {
    fd: OwnedFd,
    memory: SharedMemory,
    words: usize,
}

impl Array {
    /// An array of zeros; a value has so many 64-bit words.
    pub(super) fn new(entries: u32, words: u32) -> io::Result<Self> {
        let mut attributes =
            MapCreate { kind: BPF_MAP_TYPE_ARRAY, key_size: 4, value_size: words * 8, entries, flags: BPF_F_MMAPABLE };
        let fd = descriptor(bpf(BPF_MAP_CREATE, &mut attributes)?);
        let bytes = (entries as usize * words as usize * 8).next_multiple_of(PAGE);
        let memory = SharedMemory::of_array(&fd, bytes / 8)?;
        Ok(Self { fd, memory, words: words as usize })
    }

    /// The words of all values, one value after the other.
    pub(super) fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// How many words a value has.
    pub(super) fn words(&self) -> usize {
        self.words
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Loads an XDP program.
///
/// An error carries what the verifier had to say.
pub(super) fn load(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let mut log = vec![0_u8; 64 * 1024];
    let mut attributes = ProgramLoad {
        kind: BPF_PROG_TYPE_XDP,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log: log.as_mut_ptr() as u64,
    };
    match bpf(BPF_PROG_LOAD, &mut attributes) {
        Ok(fd) => Ok(descriptor(fd)),
        Err(error) => {
            let log = String::from_utf8_lossy(log.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
            if log.is_empty() { Err(error) } else { Err(io::Error::new(error.kind(), format!("{error}: {log}"))) }
        }
    }
}

/// Attaches a program to an interface of this thread's network namespace, in its driver, until the result is dropped.
pub(super) fn attach(program: BorrowedFd<'_>, interface: u32) -> io::Result<OwnedFd> {
    let mut attributes = LinkCreate {
        program: program.as_raw_fd().cast_unsigned(),
        interface,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    bpf(BPF_LINK_CREATE, &mut attributes).map(descriptor)
}

/// Puts another program in place of an attached one, without a moment between them.
pub(super) fn replace(attached: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = LinkUpdate {
        link: attached.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        expected: 0,
    };
    bpf(BPF_LINK_UPDATE, &mut attributes).map(drop)
}

/// Runs a program over so many frames that are real: what it redirects is sent.
///
/// The frames begin as copies of `frame`, but memory comes back from earlier ones, as whoever had them left it.
/// `interface` is where they pretend to come from, one of this thread's network namespace.
pub(super) fn run_live(
    program: BorrowedFd<'_>,
    frame: &[u8],
    interface: u32,
    repeat: u32,
    batch: u32,
) -> io::Result<()> {
    let context = XdpMd {
        data: 0,
        data_end: frame.len() as u32,
        data_meta: 0,
        ingress_interface: interface,
        receive_queue: 0,
        egress_interface: 0,
    };
    let mut attributes = TestRun {
        program: program.as_raw_fd().cast_unsigned(),
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat,
        context_size_in: size_of::<XdpMd>() as u32,
        context_in: (&raw const context) as u64,
        flags: BPF_F_TEST_XDP_LIVE_FRAMES,
        batch_size: batch,
        ..TestRun::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attributes).map(drop)
}

fn descriptor(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` is laid out as the kernel expects for the command, and as long as we say; every pointer in it
    // is to memory of the stated size that outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
