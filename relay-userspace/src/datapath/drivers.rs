//! Which drivers take frames that XDP redirects to them: the kernel tells by the generic netlink family `netdev`, since
//! Linux 6.3.
//!
//! A frame that is redirected to a driver that does not take it is lost without a trace, and the program cannot know.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NLM_F_REQUEST, NlaBuffer, NlasIterator};
use netlink_sys::{Socket, protocols::NETLINK_GENERIC};

use super::next_hop::netlink::Messages;
use super::next_hop::requests::Requests;

/// Lengths of `struct nlmsghdr` and `struct genlmsghdr`.
const HEADERS_LEN: usize = 16 + 4;

// linux/genetlink.h
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;

// linux/netdev.h
const FAMILY: &[u8] = b"netdev\0";
const GROUP: &[u8] = b"mgmt\0";
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_XDP_ACT_BASIC: u64 = 1 << 0;
const NETDEV_XDP_ACT_NDO_XMIT: u64 = 1 << 2;

/// Asks the kernel about its drivers, and hears when one can do other things than before.
#[derive(Debug)]
pub(super) struct Drivers {
    requests: Requests,
    events: Socket,
    family: u16,
}

impl Drivers {
    /// `None` where the kernel does not tell. In the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Option<Self>> {
        let mut requests = Requests::open(NETLINK_GENERIC)?;
        let Some(answer) = ask(&mut requests, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, FAMILY)? else {
            return Ok(None);
        };
        let Some((family, group)) = family(&answer) else { return Ok(None) };
        let mut events = Socket::new(NETLINK_GENERIC)?;
        events.bind_auto()?;
        events.set_non_blocking(true)?;
        events.add_membership(group)?;
        Ok(Some(Self { requests, events, family }))
    }

    /// Becomes readable when there are events.
    pub(super) fn events_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Whether there were any: of which driver does not matter, as all are asked again.
    pub(super) fn take_events(&mut self) -> bool {
        let mut any = false;
        let mut buffer = Vec::with_capacity(4096);
        loop {
            buffer.clear();
            match self.events.recv(&mut buffer, 0) {
                Ok(_) => any = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return any,
                // Events were lost.
                Err(_) => return true,
            }
        }
    }

    /// Whether the driver of a device takes frames; `None` when the kernel does not say.
    pub(super) fn takes_frames(&mut self, interface: u32) -> Option<bool> {
        Some(self.features(interface)? & NETDEV_XDP_ACT_NDO_XMIT != 0)
    }

    /// Whether the driver of a device runs programs itself; `None` when the kernel does not say.
    pub(super) fn is_native(&mut self, interface: u32) -> Option<bool> {
        Some(self.features(interface)? & NETDEV_XDP_ACT_BASIC != 0)
    }

    fn features(&mut self, interface: u32) -> Option<u64> {
        let index = interface.to_ne_bytes();
        let answer = ask(&mut self.requests, self.family, NETDEV_CMD_DEV_GET, NETDEV_A_DEV_IFINDEX, &index).ok()??;
        let features = attribute(&answer, NETDEV_A_DEV_XDP_FEATURES)?;
        Some(u64::from_ne_bytes(features.as_slice().try_into().ok()?))
    }
}

/// Sends a request with one attribute; the attributes of the answer, or `None` when there is no such thing.
fn ask(requests: &mut Requests, kind: u16, command: u8, attribute: u16, value: &[u8]) -> io::Result<Option<Vec<u8>>> {
    requests.send(&request(kind, command, attribute, value))?;
    let Some(message) = Messages(requests.receive()?).next() else { return Err(io::ErrorKind::InvalidData.into()) };
    // Anything of another type is an error, which here means that the kernel does not know.
    let answered = message.get(4..6) == Some(&kind.to_ne_bytes());
    Ok(message.get(HEADERS_LEN..).filter(|_| answered).map(<[u8]>::to_vec))
}

fn request(kind: u16, command: u8, attribute: u16, value: &[u8]) -> Vec<u8> {
    let attribute_len = 4 + value.len();
    let length = HEADERS_LEN + attribute_len.next_multiple_of(4);
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence and port: one answer at a time, and the kernel knows the port.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend((attribute_len as u16).to_ne_bytes());
    message.extend(attribute.to_ne_bytes());
    message.extend(value);
    message.resize(length, 0);
    message
}

fn attributes(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(Result::ok)
}

fn attribute(bytes: &[u8], kind: u16) -> Option<Vec<u8>> {
    attributes(bytes).find(|attribute| attribute.kind() == kind).map(|attribute| attribute.value().to_vec())
}

/// Number of the family and of the group that says what changed.
fn family(answer: &[u8]) -> Option<(u16, u32)> {
    let family = attribute(answer, CTRL_ATTR_FAMILY_ID)?;
    let groups = attribute(answer, CTRL_ATTR_MCAST_GROUPS)?;
    let group = attributes(&groups).find_map(|group| {
        let is_named = attribute(group.value(), CTRL_ATTR_MCAST_GRP_NAME).as_deref() == Some(GROUP);
        attribute(group.value(), CTRL_ATTR_MCAST_GRP_ID).filter(|_| is_named)
    })?;
    Some((u16::from_ne_bytes(family.try_into().ok()?), u32::from_ne_bytes(group.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
        let message = request(0, 0, kind, value);
        message[HEADERS_LEN..].to_vec()
    }

    #[test]
    fn a_request_is_headers_and_one_padded_attribute() {
        let message = request(0x10, 3, 2, b"netdev\0");
        assert_eq!(message.len(), 32);
        assert_eq!(message[..4], 32_u32.to_ne_bytes());
        assert_eq!(message[16..20], [3, 1, 0, 0]);
        assert_eq!(message[20..22], 11_u16.to_ne_bytes(), "the padding is not part of its length");
        assert_eq!(&message[24..], b"netdev\0\0");
    }

    #[test]
    fn a_family_has_a_number_and_groups_with_names() {
        let group = |name: &[u8], id: u32| [nla(1, name), nla(2, &id.to_ne_bytes())].concat();
        let groups = [nla(1, &group(b"page-pool\0", 5)), nla(2, &group(b"mgmt\0", 6))].concat();
        let answer = [nla(2, b"netdev\0"), nla(1, &0x1f_u16.to_ne_bytes()), nla(7, &groups)].concat();
        assert_eq!(family(&answer), Some((0x1f, 6)));
        assert_eq!(family(&answer[..12]), None);
    }
}
