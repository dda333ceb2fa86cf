//! Asks the kernel over rtnetlink, and listens to what it tells.
//!
//! Both sockets belong to the network namespace of the thread that opens them. Requests are synchronous: the kernel
//! answers while it takes the request, so an answer is a few microseconds away and there is nothing to wait for.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_MULTIPART, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::message::{self, Event, LinkName};
use super::rib::{Link, LinkKind, Neighbour, Rib, Route};

/// Larger than any message the kernel sends in one piece (it asks for 32 KiB at most).
const BUFFER_LEN: usize = 64 * 1024;

/// The kernel's answer is there at once; this only keeps a lost one from stopping the writer for ever.
const ANSWER_TIMEOUT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// A socket for requests and one for events.
#[derive(Debug)]
pub(in crate::datapath) struct Netlink {
    requests: Socket,
    events: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens both sockets in the network namespace of the calling thread.
    pub(in crate::datapath) fn open() -> io::Result<Self> {
        let mut requests = Socket::new(NETLINK_ROUTE)?;
        requests.bind_auto()?;
        requests.connect(&SocketAddr::new(0, 0))?;
        requests.set_non_blocking(true)?;
        let mut events = Socket::new(NETLINK_ROUTE)?;
        events.bind_auto()?;
        events.set_non_blocking(true)?;
        for group in message::GROUPS {
            events.add_membership(group)?;
        }
        Ok(Self { requests, events, sequence: 0, buffer: Vec::with_capacity(BUFFER_LEN) })
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

    /// A device by its name, or `None` when there is none.
    pub(in crate::datapath) fn link_by_name(&mut self, name: &str) -> io::Result<Option<Link>> {
        self.link_of(LinkName::Name(name))
    }

    /// Names of the devices that the preferred default routes of either family lead through. For a VLAN device it is
    /// the device below: that is where frames come in.
    pub(in crate::datapath) fn default_interfaces(&mut self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut best: Option<(u32, Vec<u32>)> = None;
            self.ask(message::routes_request(family), NLM_F_DUMP, |answer| {
                let RouteNetlinkMessage::NewRoute(route) = answer else { return };
                if let Some(found) = message::default_route(&route) {
                    match &mut best {
                        Some(best) if best.0 < found.0 => {}
                        Some(best) if best.0 == found.0 => best.1.extend(found.1),
                        _ => best = Some(found),
                    }
                }
            })?;
            for index in best.map(|(_, interfaces)| interfaces).unwrap_or_default() {
                let Some(link) = self.link(index)? else { continue };
                let link = match link.kind {
                    LinkKind::Vlan { parent, .. } => self.link(parent)?.unwrap_or(link),
                    _ => link,
                };
                if !names.contains(&link.name) {
                    names.push(link.name);
                }
            }
        }
        Ok(names)
    }

    fn link_of(&mut self, name: LinkName<'_>) -> io::Result<Option<Link>> {
        let mut found = None;
        let asked = self.ask(message::link_request(name), 0, |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                found = Some(message::link(&link));
            }
        });
        found_or(asked, Errno::NODEV, found)
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
        self.requests.send(&bytes, 0)?;
        loop {
            self.receive()?;
            for bytes in Messages(&self.buffer) {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).map_err(io::Error::other)?;
                // An answer that came after its request was given up.
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(()),
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

    fn receive(&mut self) -> io::Result<()> {
        self.buffer.clear();
        loop {
            match self.requests.recv(&mut self.buffer, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut waiting = [PollFd::new(&self.requests, PollFlags::IN)];
                    match rustix::event::poll(&mut waiting, Some(&ANSWER_TIMEOUT)) {
                        Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                Err(error) => return Err(error),
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
        self.link_of(LinkName::Index(index))
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

/// The messages in what one call received: each has its length in front and is padded to four bytes.
struct Messages<'a>(&'a [u8]);

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
    fn messages_are_cut_at_their_lengths() {
        let one = [17, 0, 0, 0, 3, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xaa];
        let two = [&one[..], &[0, 0, 0], &one[..]].concat();
        assert_eq!(Messages(&two).collect::<Vec<_>>(), [&one[..], &one[..]]);
        assert_eq!(Messages(&two[..30]).count(), 1, "a message that is cut short ends the list");
        assert_eq!(Messages(&[]).count(), 0);
    }
}
