//! Which interfaces the program is attached to, and how: at the start, and again after an interface was away.
//!
//! Interfaces are known by their names, as the operator gives them. A device that is deleted takes the program with it;
//! the one that has its name next gets the program again. What the kernel says about each device counts, not what was
//! done to it: so it does not matter who took the program away.

use std::time::{Duration, Instant};

use aya::programs::xdp::XdpLinkId;
use hashbrown::HashSet;

use super::XdpMode;
use super::links::{self, LinkTable};
use super::maps::WriteMaps;
use super::next_hop::rib::{Link, Medium};
use super::program::{AttachMode, Program, ProgramError};
use super::status::{AttachedMode, Cause, InterfaceStatus, Interfaces, Reason};

/// How often an interface that the program should be attached to, but is not, is tried without being asked to.
const RETRY: Duration = Duration::from_secs(10);

/// Why `auto` leaves a virtual cable alone. Nothing on this side can tell whether the other end takes what XDP sends: it
/// needs an XDP program there, and without one every packet is lost. Nor is generic XDP a way out: a sender at the other
/// end that leaves segmentation to its link hands over several datagrams as one.
const VETH: &str = "a veth needs an XDP program at its other end; where there is one, ask for --xdp native";

/// What can be attached.
pub(super) trait Attach {
    /// By what it can be detached again.
    type Attached;

    /// The kernel's number of the program.
    fn id(&self) -> Result<u32, ProgramError>;

    /// Attaches it to a device.
    fn attach(&mut self, interface: &str, index: u32, mode: AttachMode) -> Result<Self::Attached, ProgramError>;

    /// Detaches it; from a device that is gone, too.
    fn detach(&mut self, attached: Self::Attached);
}

/// The program, where it should be attached, and where it is. Detaches it everywhere when dropped.
#[derive(Debug)]
pub(super) struct Attachments<A: Attach> {
    program: A,
    id: u32,
    mode: XdpMode,
    interfaces: Vec<Interface<A::Attached>>,
    table: LinkTable,
    published: Interfaces,
    /// When to look again without an event; `None` while the program is everywhere.
    retry: Option<Instant>,
}

#[derive(Debug)]
struct Interface<T> {
    status: InterfaceStatus,
    attached: Option<Attached<T>>,
    was_attached: bool,
    /// Index and MTU of the device that refused last: it is not asked again at each event.
    refused: Option<(u32, u32)>,
}

#[derive(Debug)]
struct Attached<T> {
    index: u32,
    by: T,
}

impl<A: Attach> Attachments<A> {
    /// Attaches the program to each interface in the mode that was asked for. `auto` tries one after the other and says
    /// why one didn't work; an explicit mode works everywhere or is an error.
    pub(super) fn start(
        mut program: A,
        mode: XdpMode,
        names: Vec<String>,
        links: &[Link],
    ) -> Result<Self, ProgramError> {
        let id = program.id()?;
        let mut interfaces = Vec::new();
        for name in names {
            let link = links.iter().find(|link| link.is_named(&name));
            let mut interface = Interface::new(name);
            if let Some(link) = link
                && let Err(error) = interface.attach(&mut program, mode, link)
                && mode != XdpMode::Auto
            {
                return Err(error);
            }
            interfaces.push(interface);
        }
        let attachments = Self {
            program,
            id,
            mode,
            interfaces,
            table: LinkTable::default(),
            published: Interfaces::default(),
            retry: None,
        };
        attachments.publish();
        Ok(attachments)
    }

    /// Where others see what became of each interface.
    pub(super) fn published(&self) -> &Interfaces {
        &self.published
    }

    /// Whether the program is attached at all.
    pub(super) fn is_attached(&self) -> bool {
        self.interfaces.iter().any(|interface| interface.attached.is_some())
    }

    /// Has the program attached to these interfaces too, with the next [`Attachments::follow`].
    pub(super) fn add(&mut self, names: Vec<String>) {
        for name in names {
            if !self.interfaces.iter().any(|interface| interface.status.interface == name) {
                self.interfaces.push(Interface::new(name));
            }
        }
    }

    /// When to call [`Attachments::follow`] although no device changed.
    pub(super) fn due(&self) -> Option<Instant> {
        self.retry
    }

    /// Makes attachments, and the maps about devices, what they should be with these devices. `takes_frames` is whether
    /// a device's driver takes what others redirect to it, if that is known.
    pub(super) fn follow(
        &mut self,
        links: &[Link],
        mut takes_frames: impl FnMut(u32) -> Option<bool>,
        maps: &mut impl WriteMaps,
        now: Instant,
    ) {
        let may_retry = self.retry.is_some_and(|due| due <= now);
        let mut is_changed = false;
        for interface in &mut self.interfaces {
            let before = interface.status.clone();
            let link = links.iter().find(|link| link.is_named(&before.interface));
            if let Some(lost) = interface.take_lost(self.id, link) {
                self.table.forget(lost.index, maps);
                self.program.detach(lost.by);
                tracing::warn!("XDP: {}; userspace relays until it is attached again", interface.status);
            }
            if interface.attached.is_none()
                && let Some(link) = link
                && (may_retry || interface.refused != Some((link.index, link.mtu)))
            {
                // What does not work now is tried again, and the status says why.
                let _ = interface.attach(&mut self.program, self.mode, link);
                interface.log_attempt(&before);
            }
            interface.was_attached |= interface.attached.is_some();
            is_changed |= interface.status != before;
        }
        if is_changed {
            self.publish();
        }
        self.write(links, &mut takes_frames, maps);
        let is_waiting = self.interfaces.iter().any(Interface::is_waiting);
        self.retry = match self.retry {
            _ if !is_waiting => None,
            Some(due) if due > now => Some(due),
            _ => Some(now + RETRY),
        };
    }

    fn write(&mut self, links: &[Link], takes_frames: &mut impl FnMut(u32) -> Option<bool>, maps: &mut impl WriteMaps) {
        let any_native = self.interfaces.iter().any(|interface| interface.status.mode == AttachedMode::Native);
        let is_up: HashSet<u32> = links.iter().filter(|link| link.is_up).map(|link| link.index).collect();
        let (mut attached, mut devices) = (HashSet::new(), HashSet::new());
        for interface in &self.interfaces {
            let Some(Attached { index, .. }) = interface.attached else { continue };
            attached.insert(index);
            // Generic XDP sends through any device; a driver, only to one whose own driver takes its frames. Mostly that
            // is one with a native program.
            let takes = !any_native || takes_frames(index).unwrap_or(interface.status.mode == AttachedMode::Native);
            if takes && is_up.contains(&index) {
                devices.insert(index);
            }
        }
        self.table.update(&links::addresses(&attached, links), &devices, maps);
    }

    fn publish(&self) {
        self.published.publish(self.interfaces.iter().map(|interface| interface.status.clone()).collect());
    }
}

impl<T> Interface<T> {
    fn new(name: String) -> Self {
        let mut interface = Self {
            status: InterfaceStatus { interface: name, mode: AttachedMode::None, reason: None },
            attached: None,
            was_attached: false,
            refused: None,
        };
        interface.detached(Cause::Gone, "there is no such interface");
        interface
    }

    /// Attaches the program as well as the mode allows, and says in the status what came of it.
    fn attach<A: Attach<Attached = T>>(
        &mut self,
        program: &mut A,
        mode: XdpMode,
        link: &Link,
    ) -> Result<(), ProgramError> {
        self.refused = Some((link.index, link.mtu));
        let modes: &[AttachMode] = match mode {
            XdpMode::Auto if link.medium == Medium::Veth => {
                self.detached(Cause::Veth, VETH);
                return Ok(());
            }
            XdpMode::Off => &[],
            XdpMode::Native => &[AttachMode::Native],
            XdpMode::Generic => &[AttachMode::Generic],
            XdpMode::Auto => &[AttachMode::Native, AttachMode::Generic],
        };
        let mut refusal = None;
        for mode in modes {
            match program.attach(&self.status.interface, link.index, *mode) {
                Ok(by) => {
                    self.attached = Some(Attached { index: link.index, by });
                    self.refused = None;
                    self.status.mode = match mode {
                        AttachMode::Native => AttachedMode::Native,
                        AttachMode::Generic => AttachedMode::Generic,
                    };
                    self.status.reason = refusal.as_ref().map(Reason::from);
                    return Ok(());
                }
                Err(error) => {
                    self.status.mode = AttachedMode::None;
                    self.status.reason = Some(Reason::from(&error));
                    refusal = Some(error);
                }
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    /// What was attached to a device that is gone, has another name, or has the program no more.
    fn take_lost(&mut self, id: u32, link: Option<&Link>) -> Option<Attached<T>> {
        let index = self.attached.as_ref()?.index;
        let text = match link {
            Some(link) if link.index == index && link.programs.contains(&id) => return None,
            Some(link) if link.index == index => "the program was taken off",
            Some(_) => "it was made again",
            None => "there is no such interface any more",
        };
        self.detached(Cause::Gone, text);
        self.attached.take()
    }

    /// Whether it is worth a try without an event.
    fn is_waiting(&self) -> bool {
        let by_choice = self.status.reason.as_ref().is_some_and(|reason| reason.cause == Cause::Veth);
        self.attached.is_none() && !by_choice
    }

    fn detached(&mut self, cause: Cause, text: &str) {
        self.status.mode = AttachedMode::None;
        self.status.reason = Some(Reason { cause, text: text.to_owned() });
    }

    /// Says once what came of an attempt, and again only when it is something else.
    fn log_attempt(&self, before: &InterfaceStatus) {
        let cause = |status: &InterfaceStatus| status.reason.as_ref().map(|reason| reason.cause);
        if self.attached.is_some() {
            let again = if self.was_attached { " again" } else { "" };
            tracing::info!("XDP: {}{again}", self.status);
        } else if before.mode != AttachedMode::None || cause(before) != cause(&self.status) {
            tracing::warn!("XDP: {}", self.status);
        }
    }
}

impl Attach for Program {
    type Attached = XdpLinkId;

    fn id(&self) -> Result<u32, ProgramError> {
        self.id()
    }

    fn attach(&mut self, interface: &str, index: u32, mode: AttachMode) -> Result<XdpLinkId, ProgramError> {
        self.attach_at(interface, index, mode)
    }

    fn detach(&mut self, attached: XdpLinkId) {
        self.detach(attached);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use hairpin_common::maps::LinkAddress;

    use super::super::maps::fake::FakeMaps;
    use super::super::next_hop::rib::fake::wire;
    use super::*;

    const ID: u32 = 7;

    /// A program that some devices do not take.
    #[derive(Debug, Default)]
    struct FakeProgram {
        refused: Vec<(u32, AttachMode)>,
        attached: Vec<u32>,
        attempts: usize,
    }

    impl Attach for FakeProgram {
        type Attached = u32;

        fn id(&self) -> Result<u32, ProgramError> {
            Ok(ID)
        }

        fn attach(&mut self, interface: &str, index: u32, mode: AttachMode) -> Result<u32, ProgramError> {
            self.attempts += 1;
            if self.refused.contains(&(index, mode)) {
                let interface = interface.to_owned();
                let source = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
                return Err(match mode {
                    AttachMode::Native => ProgramError::NativeRefused { interface, source },
                    AttachMode::Generic => ProgramError::Busy(interface),
                });
            }
            self.attached.push(index);
            Ok(index)
        }

        fn detach(&mut self, attached: u32) {
            self.attached.retain(|index| *index != attached);
        }
    }

    struct World {
        attachments: Attachments<FakeProgram>,
        links: Vec<Link>,
        maps: FakeMaps,
        now: Instant,
    }

    impl World {
        fn start(mode: XdpMode, links: Vec<Link>, refused: Vec<(u32, AttachMode)>) -> Result<Self, ProgramError> {
            let program = FakeProgram { refused, ..FakeProgram::default() };
            let names = links.iter().map(|link| link.names[0].clone()).collect();
            let attachments = Attachments::start(program, mode, names, &links)?;
            Ok(Self { attachments, links, maps: FakeMaps::default(), now: Instant::now() })
        }

        /// Follows, with devices that say themselves whether they have the program.
        fn follow(&mut self) {
            let attached = &self.attachments.program.attached;
            for link in &mut self.links {
                link.programs = attached.iter().filter(|index| **index == link.index).map(|_| ID).collect();
            }
            self.attachments.follow(&self.links, |_| None, &mut self.maps, self.now);
        }

        /// The kernel has detached it.
        fn delete(&mut self, index: u32) {
            self.links.retain(|link| link.index != index);
            self.attachments.program.attached.retain(|attached| *attached != index);
        }

        fn status(&self) -> Vec<(AttachedMode, Option<Cause>)> {
            let statuses = self.attachments.published().status();
            statuses.into_iter().map(|status| (status.mode, status.reason.map(|reason| reason.cause))).collect()
        }
    }

    fn eth0() -> Vec<Link> {
        vec![wire(2, "eth0")]
    }

    const NATIVE: (AttachedMode, Option<Cause>) = (AttachedMode::Native, None);

    #[test]
    fn auto_takes_the_best_that_each_interface_takes_and_says_why() {
        use AttachMode::{Generic, Native};
        let links = vec![wire(2, "eth0"), wire(3, "eth1"), wire(4, "eth2")];
        let world = World::start(XdpMode::Auto, links, vec![(3, Native), (4, Native), (4, Generic)]).unwrap();
        let expected =
            [NATIVE, (AttachedMode::Generic, Some(Cause::NativeRefused)), (AttachedMode::None, Some(Cause::Busy))];
        assert_eq!(world.status(), expected);
        let text = world.attachments.published().status()[1].to_string();
        assert!(text.starts_with("generic on eth1 (the driver of eth1"), "{text}");
    }

    #[test]
    fn a_virtual_cable_is_for_those_who_ask_for_it() {
        let veth = || vec![Link { medium: Medium::Veth, ..wire(2, "eth0") }];
        let mut world = World::start(XdpMode::Auto, veth(), vec![]).unwrap();
        assert_eq!(world.status(), [(AttachedMode::None, Some(Cause::Veth))]);
        assert!(!world.attachments.is_attached());
        world.follow();
        assert_eq!(world.attachments.due(), None, "it is not tried again and again");
        assert_eq!(world.attachments.program.attempts, 0);
        assert_eq!(World::start(XdpMode::Native, veth(), vec![]).unwrap().status(), [NATIVE]);
    }

    #[test]
    fn an_explicit_mode_has_no_second_choice() {
        let start = |mode, refused| World::start(mode, eth0(), vec![(2, refused)]).map(|world| world.status());
        assert!(matches!(start(XdpMode::Native, AttachMode::Native), Err(ProgramError::NativeRefused { .. })));
        assert!(matches!(start(XdpMode::Generic, AttachMode::Generic), Err(ProgramError::Busy(_))));
        assert_eq!(start(XdpMode::Native, AttachMode::Generic).unwrap(), [NATIVE]);
    }

    #[test]
    fn an_interface_that_is_made_again_gets_the_program_again() {
        let mut world = World::start(XdpMode::Native, eth0(), vec![]).unwrap();
        world.follow();
        assert_eq!(world.maps.devices, HashSet::from([2]));
        assert_eq!(world.attachments.due(), None);

        world.delete(2);
        world.follow();
        assert_eq!(world.status(), [(AttachedMode::None, Some(Cause::Gone))]);
        assert!(world.maps.devices.is_empty() && world.maps.links.is_empty());
        assert!(world.attachments.due().is_some(), "it is looked for even if no event tells");

        world.links.push(wire(9, "eth0"));
        world.follow();
        assert_eq!(world.status(), [NATIVE]);
        assert_eq!(world.attachments.program.attached, [9]);
        assert_eq!(world.maps.devices, HashSet::from([9]));
        let found: Vec<_> = world.maps.links.iter().map(|(link, address)| (link.interface, address.address)).collect();
        assert_eq!(found, [(9, [2, 0, 0, 0, 0, 9])]);
        assert_eq!(world.attachments.due(), None);
    }

    #[test]
    fn one_that_was_replaced_between_two_looks_is_noticed_even_with_the_same_index() {
        let mut world = World::start(XdpMode::Native, eth0(), vec![]).unwrap();
        world.follow();
        world.maps.link_writes.clear();
        world.attachments.program.attached.clear();
        world.follow();
        assert_eq!(world.attachments.program.attached, [2]);
        assert_eq!(world.status(), [NATIVE]);
        // The kernel took the old device out of its map by itself, so the new one has to be put there again.
        let (first, last) = (world.maps.link_writes.first(), world.maps.link_writes.last());
        assert_eq!((first.unwrap().as_str(), last.unwrap().as_str()), ("device 2 off", "device 2 on"));
    }

    #[test]
    fn a_name_that_moves_takes_the_program_along() {
        let mut world = World::start(XdpMode::Native, eth0(), vec![]).unwrap();
        world.follow();
        world.links = vec![wire(2, "old0"), wire(3, "eth0")];
        world.follow();
        assert_eq!(world.attachments.program.attached, [3]);
        world.links = vec![wire(2, "eth0"), wire(3, "new0")];
        world.follow();
        assert_eq!(world.attachments.program.attached, [2]);
        assert_eq!(world.maps.devices, HashSet::from([2]));
    }

    #[test]
    fn a_refusal_is_tried_again_after_a_while_or_when_the_device_changed() {
        let mut world = World::start(XdpMode::Native, eth0(), vec![]).unwrap();
        world.follow();
        world.delete(2);
        world.attachments.program.refused = vec![(9, AttachMode::Native)];
        world.links.push(wire(9, "eth0"));
        world.follow();
        let attempts = world.attachments.program.attempts;
        assert_eq!(world.status(), [(AttachedMode::None, Some(Cause::NativeRefused))]);
        world.follow();
        assert_eq!(world.attachments.program.attempts, attempts, "not at each event");
        world.now = world.attachments.due().unwrap();
        world.follow();
        assert_eq!(world.attachments.program.attempts, attempts + 1);
        assert!(world.attachments.due().unwrap() > world.now);
        world.attachments.program.refused.clear();
        world.links[0].mtu = 1400;
        world.follow();
        assert_eq!((world.status(), world.attachments.due()), (vec![NATIVE], None));
    }

    #[test]
    fn an_interface_that_is_off_is_not_sent_to() {
        let mut world = World::start(XdpMode::Native, eth0(), vec![]).unwrap();
        for is_up in [true, false, true] {
            world.links[0].is_up = is_up;
            world.follow();
            assert_eq!(!world.maps.devices.is_empty(), is_up);
            assert_eq!(world.attachments.program.attempts, 1, "the program stays");
        }
    }

    #[test]
    fn a_driver_that_takes_no_frames_is_not_sent_to() {
        use AttachMode::Native;
        let links = || vec![wire(2, "eth0"), wire(3, "eth1")];
        let devices = |refused: Vec<(u32, AttachMode)>, takes_frames: fn(u32) -> Option<bool>| {
            let mut world = World::start(XdpMode::Auto, links(), refused).unwrap();
            for link in &mut world.links {
                link.programs.push(ID);
            }
            world.attachments.follow(&world.links, takes_frames, &mut world.maps, world.now);
            let mut devices: Vec<_> = world.maps.devices.into_iter().collect();
            devices.sort_unstable();
            devices
        };
        assert_eq!(devices(vec![], |_| None), [2, 3], "native drivers mostly do");
        assert_eq!(devices(vec![], |index| Some(index == 3)), [3]);
        assert_eq!(devices(vec![(3, Native)], |_| None), [2], "a driver may send to 3, which may not take it");
        assert_eq!(devices(vec![(3, Native)], |_| Some(true)), [2, 3]);
        assert_eq!(devices(vec![(2, Native), (3, Native)], |_| Some(false)), [2, 3], "generic XDP needs no driver");
    }

    #[test]
    fn a_changed_address_and_a_new_vlan_are_followed() {
        use super::super::next_hop::rib::LinkKind;
        let mut world = World::start(XdpMode::Native, eth0(), vec![]).unwrap();
        world.follow();
        world.links[0].address = Some([2, 9, 9, 9, 9, 9]);
        world.links.push(Link { kind: LinkKind::Vlan { parent: 2, id: 7 }, ..wire(5, "eth0.7") });
        world.follow();
        let at = |vlan: u16| hairpin_common::maps::Link { interface: 2, vlan: vlan.to_be_bytes(), zero: [0; 2] };
        assert_eq!(world.maps.links[&at(0)], LinkAddress { address: [2, 9, 9, 9, 9, 9], zero: [0; 2] });
        assert_eq!(world.maps.links[&at(7)], LinkAddress { address: [2, 0, 0, 0, 0, 5], zero: [0; 2] });
        world.links.pop();
        world.follow();
        assert_eq!(world.maps.links.len(), 1);
    }
}
