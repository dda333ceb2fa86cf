//! What any table costs: a program that does nothing but read one line of an array, and an array for it.
#![allow(unsafe_code, reason = "bpf(2)")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use super::sys::{bpf, load};

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
/// As the table of flows is: such an array is mapped page by page, and not by larger pieces.
const BPF_F_MMAPABLE: u32 = 1 << 10;
/// Where in a packet the program finds the index of its line: the payload of UDP over IPv4.
pub const INDEX: usize = 42;
/// Bytes of a line.
const LINE: u32 = 64;

/// The head of `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
struct Create {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
    flags: u32,
}

/// `union bpf_attr` for `BPF_MAP_UPDATE_ELEM`.
#[repr(C)]
struct Update {
    map: u64,
    key: u64,
    value: u64,
    flags: u64,
}

/// An array of this many lines, all of them touched.
pub fn lines(entries: u32) -> io::Result<OwnedFd> {
    let mut attributes =
        Create { kind: BPF_MAP_TYPE_ARRAY, key_size: 4, value_size: LINE, entries, flags: BPF_F_MMAPABLE };
    let fd = bpf(BPF_MAP_CREATE, &mut attributes)?;
    // SAFETY: the kernel has just given us this descriptor.
    let map = unsafe { OwnedFd::from_raw_fd(fd) };
    let value = [1_u8; LINE as usize];
    for key in 0..entries {
        let (key, value) = (std::ptr::from_ref(&key) as u64, value.as_ptr() as u64);
        bpf(BPF_MAP_UPDATE_ELEM, &mut Update { map: map.as_raw_fd().cast_unsigned().into(), key, value, flags: 0 })?;
    }
    Ok(map)
}

/// A program that reads the first word of the line at [`INDEX`], and returns `XDP_TX`.
pub fn reader(lines: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let [a, b, c, d] = lines.as_raw_fd().to_le_bytes();
    load(&[
        [0xb7, 6, 0, 0, 0, 0, 0, 0],               // r6 = 0
        [0x61, 0x12, 0, 0, 0, 0, 0, 0],            // r2 = data
        [0x61, 0x13, 4, 0, 0, 0, 0, 0],            // r3 = data_end
        [0xbf, 0x24, 0, 0, 0, 0, 0, 0],            // r4 = r2
        [0x07, 4, 0, 0, INDEX as u8 + 4, 0, 0, 0], // r4 += INDEX + 4
        [0x2d, 0x34, 9, 0, 0, 0, 0, 0],            // if r4 > r3 goto end
        [0x61, 0x25, INDEX as u8, 0, 0, 0, 0, 0],  // r5 = *(u32 *)(r2 + INDEX)
        [0x63, 0x5a, 0xfc, 0xff, 0, 0, 0, 0],      // *(u32 *)(r10 - 4) = r5
        [0x18, 0x11, 0, 0, a, b, c, d],            // r1 = lines
        [0; 8],                                    //
        [0xbf, 0xa2, 0, 0, 0, 0, 0, 0],            // r2 = r10
        [0x07, 2, 0, 0, 0xfc, 0xff, 0xff, 0xff],   // r2 -= 4
        [0x85, 0, 0, 0, 1, 0, 0, 0],               // r0 = bpf_map_lookup_elem(r1, r2)
        [0x15, 0, 1, 0, 0, 0, 0, 0],               // if r0 == 0 goto end
        [0x79, 0x06, 0, 0, 0, 0, 0, 0],            // r6 = *(u64 *)r0
        [0xbf, 0x60, 0, 0, 0, 0, 0, 0],            // end: r0 = r6
        [0x57, 0, 0, 0, 0, 0, 0, 0],               // r0 &= 0
        [0x07, 0, 0, 0, 3, 0, 0, 0],               // r0 += XDP_TX
        [0x95, 0, 0, 0, 0, 0, 0, 0],               // exit
    ])
}
