//! An XDP program that passes everything, at an interface that shall take what XDP sends from the other end of its veth.
//!
//! GRO at that end is not enough: with it the kernel (6.18 for one) queues such a packet, but wakes nobody to take it, so
//! that it waits for the next that comes in another way. A network card of a real host needs none of this.
#![allow(unsafe_code, reason = "bpf(2): aya attaches only programs that it has loaded from an object")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use super::namespace::Namespace;
use crate::program::sys::load_empty;

const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_XDP: u32 = 37;
/// In the driver.
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// The head of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches the program; dropping the result detaches it.
pub(super) fn attach(namespace: &Namespace, interface: &str) -> OwnedFd {
    let link = namespace.enter(|| link(interface));
    link.unwrap_or_else(|error| panic!("XDP on {interface} in {}: {error}", namespace.name()))
}

fn link(interface: &str) -> io::Result<OwnedFd> {
    let name = CString::new(interface)?;
    // SAFETY: a string that ends in zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    let program = load_empty()?;
    let mut attributes = LinkCreate {
        program: program.as_raw_fd().cast_unsigned(),
        interface: index,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    // SAFETY: the attributes are laid out as the kernel expects for the command, and as long as we say.
    let link = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, &raw mut attributes, size_of::<LinkCreate>()) };
    if link < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(link as i32) })
}
