//! Asks the kernel over rtnetlink, and listens to what it tells.
//!
//! Both sockets belong to the network namespace of the thread that opens them. Requests are synchronous: the kernel
//! answers while it takes the request, so an answer is a few microseconds away and there is nothing to wait for.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use rustix::io::Errno;

use super::message::{self, Event};
use super::requests::Requests;
use super::rib::{Link, LocalAddress, Neighbour, Rib, Route};

/// Larger than any message the kernel sends in one piece (it asks for 32 KiB at most).
const BUFFER_LEN: usize = 64 * 1024;

/// How often a list is asked for that changed while the kernel wrote it.
const LIST_ATTEMPTS: usize = 5;

/// A socket for requests and one for events.
#[derive(Debug)]
pub(in crate::datapath) struct Netlink {
    requests: Requests,
    sequence: u32,
    events: Socket,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens both sockets in the network namespace of the calling thread.
    pub(in crate::datapath) fn open() -> io::Result<Self> {
        let mut events = Socket::new(NETLINK_ROUTE)?;
        events.bind_auto()?;
        events.set_non_blocking(true)?;
        for group in message::GROUPS {
            events.add_membership(group)?;
        }
        Ok(Self {
            requests: Requests::open(NETLINK_ROUTE)?,
            sequence: 0,
            events,
            buffer: Vec::with_capacity(BUFFER_LEN),
        })
    }

    /// Becomes readable when there are events.
    pub(in crate::datapath) fn events_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Takes all events that are there. An error means that some were lost.
    pub(in crate::datapath) fn take_events(&mut self, mut take: impl FnMut(Event)) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.events.recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            for bytes in Messages(&self.buffer) {
                let parsed = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).ok();
                let payload = parsed.as_ref().and_then(|message| match &message.payload {
                    NetlinkPayload::InnerMessage(inner) => Some(inner),
                    _ => None,
                });
                if let Some(event) = message::event(payload) {
                    take(event);
                }
            }
        }
    }

    /// All devices.
    pub(in crate::datapath) fn links(&mut self) -> io::Result<Vec<Link>> {
        self.list(&message::links_request(), |answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(message::link(&link)),
            _ => None,
        })
    }

    /// The addresses by which others reach this host's sockets.
    pub(in crate::datapath) fn local_addresses(&mut self) -> io::Result<Vec<LocalAddress>> {
        self.list(&message::addresses_request(), |answer| match answer {
            RouteNetlinkMessage::NewAddress(address) => message::local_address(&address),
            _ => None,
        })
    }

    /// Indexes of the devices that the preferred default routes of either family lead through.
    pub(in crate::datapath) fn default_interfaces(&mut self) -> io::Result<Vec<u32>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let routes = self.list(&message::routes_request(family), |answer| match answer {
                RouteNetlinkMessage::NewRoute(route) => message::default_route(&route),
                _ => None,
            })?;
            let best = routes.iter().map(|(metric, _)| *metric).min();
            found.extend(
                routes.into_iter().filter(|(metric, _)| Some(*metric) == best).flat_map(|(_, through)| through),
            );
        }
        Ok(found)
    }

    /// Asks for a list until there is one that did not change while the kernel wrote it: of such a one, entries can be
    /// missing that are there.
    fn list<T>(
        &mut self,
        request: &RouteNetlinkMessage,
        entry: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let mut attempts = LIST_ATTEMPTS;
        loop {
            attempts -= 1;
            let mut entries = Vec::new();
            match self.ask(request.clone(), NLM_F_DUMP, |answer| entries.extend(entry(answer))) {
                Ok(()) => return Ok(entries),
                Err(error) if error.kind() == io::ErrorKind::Interrupted && attempts > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a request and hands out every message of its answer.
    fn ask(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.requests.send(&bytes)?;
        let mut is_whole = true;
        loop {
            for bytes in Messages(self.requests.receive()?) {
                let message = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
                    Ok(message) => message,
                    // One entry of a list that this version does not understand, such as a device of a new kind.
                    Err(_) if is_part_of_list(bytes) => continue,
                    Err(error) => return Err(io::Error::other(error)),
                };
                // An answer that came after its request was given up.
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                is_whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::Done(_) if is_whole => return Ok(()),
                    NetlinkPayload::Done(_) => return Err(io::ErrorKind::Interrupted.into()),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(inner) => take(inner),
                    _ => {}
                }
                if message.header.flags & NLM_F_MULTIPART == 0 {
                    return Ok(());
                }
            }
        }
    }
}

impl Rib for Netlink {
    fn route(&mut self, source: IpAddr, destination: IpAddr) -> io::Result<Option<Route>> {
        let mut found = None;
        self.ask(message::route_request(source, destination), 0, |answer| {
            if let RouteNetlinkMessage::NewRoute(route) = answer {
                found = message::route(&route, destination);
            }
        })?;
        Ok(found)
    }

    fn link(&mut self, index: u32) -> io::Result<Option<Link>> {
        let mut found = None;
        let asked = self.ask(message::link_request(index), 0, |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                found = Some(message::link(&link));
            }
        });
        found_or(asked, Errno::NODEV, found)
    }

    fn neighbour(&mut self, interface: u32, address: IpAddr) -> io::Result<Option<Neighbour>> {
        let mut found = None;
        let asked = self.ask(message::neighbour_request(interface, address), 0, |answer| {
            if let RouteNetlinkMessage::NewNeighbour(neighbour) = answer {
                found = Some(message::neighbour(&neighbour));
            }
        });
        found_or(asked, Errno::NOENT, found)
    }

    fn use_neighbour(&mut self, interface: u32, address: IpAddr, known: Option<Neighbour>) -> io::Result<()> {
        self.ask(message::neighbour_use(interface, address, known), NLM_F_CREATE | NLM_F_ACK, |_| {})
    }
}

/// `absent` is how the kernel says that there is no such thing.
fn found_or<T>(asked: io::Result<()>, absent: Errno, found: Option<T>) -> io::Result<Option<T>> {
    match asked {
        Ok(()) => Ok(found),
        Err(error) if error.raw_os_error() == Some(absent.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a message is an entry of a list, and neither an error nor the end.
fn is_part_of_list(bytes: &[u8]) -> bool {
    /// The first number of a message that is not one of netlink's own (`NLMSG_MIN_TYPE` in linux/netlink.h).
    const FIRST_TYPE: u16 = 16;
    NetlinkBuffer::new_checked(bytes)
        .is_ok_and(|message| message.flags() & NLM_F_MULTIPART != 0 && message.message_type() >= FIRST_TYPE)
}

/// The messages in what one call received: each has its length in front and is padded to four bytes.
pub(in crate::datapath) struct Messages<'a>(pub(in crate::datapath) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let length = NetlinkBuffer::new_checked(self.0).ok()?.length() as usize;
        let message = self.0.get(..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_entry_of_a_list_may_be_left_out() {
        let message = |kind, flags| [16, 0, 0, 0, kind, 0, flags, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(is_part_of_list(&message(16, 2)));
        assert!(!is_part_of_list(&message(16, 0)), "the only answer");
        assert!(!is_part_of_list(&message(3, 2)), "the end");
    }

    #[test]
    fn messages_are_cut_at_their_lengths() {
        let one = [17, 0, 0, 0, 3, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xaa];
        let two = [&one[..], &[0, 0, 0], &one[..]].concat();
        assert_eq!(Messages(&two).collect::<Vec<_>>(), [&one[..], &one[..]]);
        assert_eq!(Messages(&two[..30]).count(), 1, "a message that is cut short ends the list");
        assert_eq!(Messages(&[]).count(), 0);
    }
}
