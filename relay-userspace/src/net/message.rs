//! Addresses and ancillary data, to and from the C structures of `recvmsg` and `sendmsg`.
#![allow(unsafe_code, reason = "reads and writes the unions and unaligned structures of the socket API")]

use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// What of the IP header a relay carries over (RFC 8656 sections 13 to 16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpFields {
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// DSCP and ECN: the type of service or traffic class byte.
    pub traffic_class: u8,
}

impl IpFields {
    /// For datagrams that the server sends on its own account.
    pub const ORIGINATED: Self = Self { hop_limit: 64, traffic_class: 0 };

    /// What is left of them behind this hop; none if the packet ends here.
    pub fn next_hop(self) -> Option<Self> {
        let hop_limit = self.hop_limit.checked_sub(1).filter(|left| *left > 0)?;
        Some(Self { hop_limit, ..self })
    }
}

/// Room for the ancillary data of one datagram: packet information, hop limit, traffic class and segment size, of either
/// family.
pub(super) const CONTROL_LEN: usize = 128;

/// A control buffer, aligned as `cmsghdr` asks.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control(pub(super) [u8; CONTROL_LEN]);

/// The C structures of the socket API for which zero bytes are a valid value.
///
/// # Safety
///
/// Zero bytes are one.
pub(super) unsafe trait Zeroed: Copy {
    /// Zero bytes.
    fn zeroed() -> Self {
        // SAFETY: the trait's promise.
        unsafe { mem::zeroed() }
    }
}

// SAFETY: numbers and pointers, for all of which zero is a value.
unsafe impl Zeroed for libc::sockaddr_storage {}
// SAFETY: as above.
unsafe impl Zeroed for libc::iovec {}
// SAFETY: as above.
unsafe impl Zeroed for libc::msghdr {}
// SAFETY: as above.
unsafe impl Zeroed for libc::mmsghdr {}

/// Reads the address that the kernel wrote. `None` if it is neither IPv4 nor IPv6.
pub(super) fn read_address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure the storage holds; storage is large and aligned enough for it.
            let v4 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Writes an address; returns how many bytes of the storage count.
pub(super) fn write_address(storage: &mut libc::sockaddr_storage, address: SocketAddr) -> libc::socklen_t {
    match address {
        SocketAddr::V4(address) => {
            let v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: storage is large and aligned enough for any address.
            unsafe { (&raw mut *storage).cast::<libc::sockaddr_in>().write(v4) };
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(address) => {
            let v6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut *storage).cast::<libc::sockaddr_in6>().write(v6) };
            size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

/// What the kernel told about a received datagram.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ancillary {
    /// The address it was sent to.
    pub(super) destination: Option<IpAddr>,
    /// TTL or hop limit.
    pub(super) hop_limit: Option<u8>,
    /// Type of service or traffic class.
    pub(super) traffic_class: Option<u8>,
    /// The size of each datagram, when the kernel has joined several.
    pub(super) segment: Option<usize>,
}

/// Visits the control messages that the kernel left in the control buffer of `header`.
fn each_control_message(header: &libc::msghdr, mut visit: impl FnMut(&libc::cmsghdr)) {
    // SAFETY: the kernel filled the control buffer, and `msg_controllen` says how far; the macros stay inside of it.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: not null, so it points to a message header inside of the buffer, which is aligned for it.
    while let Some(message) = unsafe { at.as_ref() } {
        visit(message);
        // SAFETY: as for the first.
        at = unsafe { libc::CMSG_NXTHDR(header, at) };
    }
}

/// Reads what an entry of the error queue is about. `None` if it does not say.
pub(super) fn read_extended_error(header: &libc::msghdr) -> Option<libc::sock_extended_err> {
    let mut found = None;
    each_control_message(header, |message| {
        if matches!(
            (message.cmsg_level, message.cmsg_type),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        ) {
            // The address of the offender stands behind it, which may be any router's.
            found = value(message);
        }
    });
    found
}

/// Reads the ancillary data that `recvmmsg` left in the control buffer of `header`.
pub(super) fn read_ancillary(header: &libc::msghdr) -> Ancillary {
    let mut found = Ancillary::default();
    each_control_message(header, |message| {
        match (message.cmsg_level, message.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                found.destination = value::<libc::in_pktinfo>(message)
                    .map(|info| Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                found.destination =
                    value::<libc::in6_pktinfo>(message).map(|info| Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
            }
            // Ints that hold a byte, but for IP_TOS, which is one.
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                found.hop_limit = value::<i32>(message).and_then(|limit| u8::try_from(limit).ok());
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => found.traffic_class = value::<u8>(message),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                found.traffic_class = value::<i32>(message).and_then(|class| u8::try_from(class).ok());
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                found.segment = value::<i32>(message).and_then(|size| usize::try_from(size).ok());
            }
            _ => {}
        }
    });
    found
}

/// The value of a control message, unless it was cut short.
fn value<T: Copy>(message: &libc::cmsghdr) -> Option<T> {
    // SAFETY: CMSG_LEN only computes.
    let needed = unsafe { libc::CMSG_LEN(size_of::<T>() as u32) } as usize;
    // SAFETY: the message is long enough to hold the value, which is a plain C structure and is read unaligned.
    (message.cmsg_len >= needed).then(|| unsafe { libc::CMSG_DATA(message).cast::<T>().read_unaligned() })
}

/// Writes ancillary data into a control buffer; returns its length.
///
/// `source` is the address to send from, for a socket that is bound to none or to several. With `segment`, the kernel cuts
/// the content into datagrams of this size.
pub(super) fn write_ancillary(
    control: &mut Control,
    source: Option<IpAddr>,
    family_v4: bool,
    ip: IpFields,
    segment: Option<usize>,
) -> usize {
    let mut writer = ControlWriter { control, used: 0 };
    let (hop_limit, traffic_class) = (i32::from(ip.hop_limit), i32::from(ip.traffic_class));
    match source {
        Some(IpAddr::V4(source)) => {
            let source = libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) };
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: libc::in_addr { s_addr: 0 } };
            writer.push(libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Some(IpAddr::V6(source)) => {
            let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: source.octets() }, ipi6_ifindex: 0 };
            writer.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
        None => {}
    }
    if family_v4 {
        writer.push(libc::IPPROTO_IP, libc::IP_TTL, hop_limit);
        writer.push(libc::IPPROTO_IP, libc::IP_TOS, traffic_class);
    } else {
        writer.push(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, hop_limit);
        writer.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, traffic_class);
    }
    if let Some(segment) = segment {
        writer.push(libc::SOL_UDP, libc::UDP_SEGMENT, segment as u16);
    }
    writer.used
}

struct ControlWriter<'c> {
    control: &'c mut Control,
    used: usize,
}

impl ControlWriter<'_> {
    fn push<T: Copy>(&mut self, level: i32, kind: i32, value: T) {
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
        let (space, len) =
            unsafe { (libc::CMSG_SPACE(size_of::<T>() as u32) as usize, libc::CMSG_LEN(size_of::<T>() as u32)) };
        let room = &mut self.control.0[self.used..self.used + space];
        room.fill(0);
        // SAFETY: `room` was checked to hold the header and, behind it, the value; neither write asks for alignment.
        unsafe {
            let mut header = MaybeUninit::<libc::cmsghdr>::zeroed().assume_init();
            header.cmsg_len = len as _;
            header.cmsg_level = level;
            header.cmsg_type = kind;
            let at = room.as_mut_ptr();
            at.cast::<libc::cmsghdr>().write_unaligned(header);
            at.add(mem::size_of::<libc::cmsghdr>()).cast::<T>().write_unaligned(value);
        }
        self.used += space;
    }
}
