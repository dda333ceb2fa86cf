//! System calls that aya and the standard library do not offer: a program from bare instructions, a test run without anything
//! around it that would be measured too, the instructions the verifier made, and the clock that records expire by.
#![allow(unsafe_code, reason = "bpf(2) and clock_gettime(2)")]

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_TYPE_XDP: u32 = 6;
/// What Linux calls XDP_TX.
pub const TRANSMITTED: u32 = 3;
/// `r0 = XDP_PASS; exit`
const PASS: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 2, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log: [u64; 2],
    kernel_version: u32,
    flags: u32,
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

/// `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct Info {
    program: u32,
    length: u32,
    pointer: u64,
}

/// The head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    program_type: u32,
    id: u32,
    tag: u64,
    jited_length: u32,
    xlated_length: u32,
    jited: u64,
    xlated: u64,
}

/// What became of a program between loading and running.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Instructions after the verifier's rewriting.
    pub instructions: usize,
    /// Bytes of machine code.
    pub machine_code: usize,
    /// Bytes of stack it can touch.
    pub stack: usize,
}

/// An XDP program that passes everything: what any program costs before it does anything.
pub fn load_empty() -> io::Result<OwnedFd> {
    load(&PASS)
}

/// An XDP program of these instructions.
pub(super) fn load(instructions: &[[u8; 8]]) -> io::Result<OwnedFd> {
    let mut attributes = Load {
        program_type: BPF_PROG_TYPE_XDP,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..Load::default()
    };
    let fd = bpf(BPF_PROG_LOAD, &mut attributes)?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs a packet once; the kernel's time for it in nanoseconds, and what the program returned.
pub fn time_run(program: BorrowedFd<'_>, packet: &[u8]) -> io::Result<(u32, u32)> {
    let mut attributes = TestRun {
        program: program.as_raw_fd().cast_unsigned(),
        data_size_in: packet.len() as u32,
        data_in: packet.as_ptr() as u64,
        repeat: 1,
        ..TestRun::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attributes)?;
    Ok((attributes.duration, attributes.return_value))
}

/// Runs a packet once; what the program returned, and how many bytes of `out` the packet takes afterwards.
pub fn run(program: BorrowedFd<'_>, packet: &[u8], out: &mut [u8]) -> io::Result<(u32, usize)> {
    let mut attributes = TestRun {
        program: program.as_raw_fd().cast_unsigned(),
        data_size_in: packet.len() as u32,
        data_in: packet.as_ptr() as u64,
        data_size_out: out.len() as u32,
        data_out: out.as_mut_ptr() as u64,
        repeat: 1,
        ..TestRun::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attributes)?;
    Ok((attributes.return_value, attributes.data_size_out as usize))
}

/// Sizes of a loaded program.
pub fn size(program: BorrowedFd<'_>) -> io::Result<Size> {
    let mut info = ProgramInfo::default();
    read_info(program, &mut info)?;
    let mut xlated = vec![[0_u8; 8]; info.xlated_length as usize / 8];
    let mut again =
        ProgramInfo { xlated_length: info.xlated_length, xlated: xlated.as_mut_ptr() as u64, ..ProgramInfo::default() };
    read_info(program, &mut again)?;
    Ok(Size { instructions: xlated.len(), machine_code: info.jited_length as usize, stack: stack(&xlated) })
}

fn read_info(program: BorrowedFd<'_>, info: &mut ProgramInfo) -> io::Result<()> {
    let mut attributes = Info {
        program: program.as_raw_fd().cast_unsigned(),
        length: size_of::<ProgramInfo>() as u32,
        pointer: std::ptr::from_mut(info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes).map(|_| ())
}

/// The lowest offset from the frame pointer, r10, in any instruction.
fn stack(instructions: &[[u8; 8]]) -> usize {
    let mut lowest = 0_i32;
    // Registers that hold r10 plus a constant.
    let mut copies = [None; 16];
    for [code, registers, low, high, immediate @ ..] in instructions {
        let (to, from) = (usize::from(registers & 15), usize::from(registers >> 4));
        let offset = i32::from(i16::from_le_bytes([*low, *high]));
        match code & 7 {
            // A load goes from its source, a store to its destination.
            1 if from == 10 => lowest = lowest.min(offset),
            2 | 3 if to == 10 => lowest = lowest.min(offset),
            // Arithmetic: r = r10, then r += constant.
            7 if *code == 0xbf && from == 10 => copies[to] = Some(0),
            7 if *code == 0x07 => {
                if let Some(base) = copies[to] {
                    lowest = lowest.min(base + i32::from_le_bytes(*immediate));
                }
            }
            7 => copies[to] = None,
            _ => {}
        }
    }
    lowest.unsigned_abs() as usize
}

/// `CLOCK_MONOTONIC`.
pub fn monotonic_nanoseconds() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// The system call.
pub(super) fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` is laid out as the kernel expects for the command, and as long as we say; every pointer in it
    // is to memory of the stated size that outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
