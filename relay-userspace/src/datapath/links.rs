//! Which frames are for this host, and which interfaces may be sent to: the maps `LINKS` and `DEVICES`.

use hairpin_common::maps::{self, LINK_CAPACITY, LinkAddress};
use hashbrown::{HashMap, HashSet};

use super::maps::WriteMaps;
use super::next_hop::rib::{Link, LinkKind};

/// The addresses that frames for this host have, by where the program meets them: on each interface that it is attached
/// to, without a tag, and in each VLAN that has a device on top. A VLAN device that is off takes no frames.
pub(super) fn addresses(attached: &HashSet<u32>, links: &[Link]) -> HashMap<maps::Link, LinkAddress> {
    let places = links.iter().filter_map(|link| {
        let (interface, vlan) = match link.kind {
            LinkKind::Plain => (link.index, 0),
            LinkKind::Vlan { parent, id } if link.is_up => (parent, id),
            LinkKind::Vlan { .. } | LinkKind::Unsupported => return None,
        };
        let place = maps::Link { interface, vlan: vlan.to_be_bytes(), zero: [0; 2] };
        attached.contains(&interface).then_some((place, LinkAddress { address: link.address?, zero: [0; 2] }))
    });
    places.collect()
}

/// Both maps as they are in the kernel.
#[derive(Debug, Default)]
pub(super) struct LinkTable {
    links: HashMap<maps::Link, LinkAddress>,
    devices: HashSet<u32>,
    warned_full: bool,
}

impl LinkTable {
    /// Nothing more is sent to an interface, and nothing that comes in by it is ours.
    pub(super) fn forget(&mut self, interface: u32, maps: &mut impl WriteMaps) {
        if self.devices.remove(&interface) {
            maps.set_device(interface, false);
        }
        for link in self.links.extract_if(|link, _| link.interface == interface).map(|(link, _)| link) {
            maps.set_link(link, None);
        }
    }

    /// Makes both maps what they should be. What is taken away goes first, and an interface may be sent to last.
    pub(super) fn update(
        &mut self,
        links: &HashMap<maps::Link, LinkAddress>,
        devices: &HashSet<u32>,
        maps: &mut impl WriteMaps,
    ) {
        for device in self.devices.extract_if(|device| !devices.contains(device)) {
            maps.set_device(device, false);
        }
        for (link, _) in self.links.extract_if(|link, _| !links.contains_key(link)) {
            maps.set_link(link, None);
        }
        for (link, address) in links {
            if self.links.get(link) == Some(address) {
                continue;
            }
            if self.links.len() == LINK_CAPACITY as usize && !self.links.contains_key(link) {
                if !std::mem::replace(&mut self.warned_full, true) {
                    tracing::warn!("XDP: there are more than {LINK_CAPACITY} VLANs; the rest is relayed in userspace");
                }
                continue;
            }
            self.links.insert(*link, *address);
            maps.set_link(*link, Some(*address));
        }
        for device in devices {
            if self.devices.insert(*device) {
                maps.set_device(*device, true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::maps::fake::FakeMaps;
    use super::super::next_hop::rib::fake::wire;
    use super::*;

    fn vlan(index: u32, parent: u32, id: u16) -> Link {
        Link { kind: LinkKind::Vlan { parent, id }, ..wire(index, "vlan") }
    }

    fn at(interface: u32, vlan: u16) -> maps::Link {
        maps::Link { interface, vlan: vlan.to_be_bytes(), zero: [0; 2] }
    }

    fn own(last: u8) -> LinkAddress {
        LinkAddress { address: [2, 0, 0, 0, 0, last], zero: [0; 2] }
    }

    #[test]
    fn frames_for_this_host_are_told_by_interface_and_vlan() {
        let links = [wire(2, "eth0"), wire(3, "eth1"), vlan(4, 2, 7), vlan(5, 2, 8), vlan(6, 3, 7)];
        let found = addresses(&HashSet::from([2]), &links);
        assert_eq!(found, HashMap::from([(at(2, 0), own(2)), (at(2, 7), own(4)), (at(2, 8), own(5))]));
    }

    #[test]
    fn what_takes_no_frames_or_has_no_address_has_no_entry() {
        let off = Link { is_up: false, ..vlan(4, 2, 7) };
        let stacked = Link { kind: LinkKind::Unsupported, ..wire(5, "service") };
        let tunnel = Link { address: None, ..wire(6, "tun0") };
        // An interface that is off itself gets nothing; its entry does no harm, and is there when it comes up.
        let down = Link { is_up: false, ..wire(7, "eth1") };
        let found = addresses(&HashSet::from([2, 5, 6, 7]), &[wire(2, "eth0"), off, stacked, tunnel, down]);
        assert_eq!(found, HashMap::from([(at(2, 0), own(2)), (at(7, 0), own(7))]));
    }

    #[test]
    fn only_what_changed_is_written_and_what_goes_goes_first() {
        let (mut table, mut maps) = (LinkTable::default(), FakeMaps::default());
        let first = HashMap::from([(at(2, 0), own(2)), (at(2, 7), own(4)), (at(3, 0), own(3))]);
        table.update(&first, &HashSet::from([2, 3]), &mut maps);
        assert_eq!((&maps.links, &maps.devices), (&first, &HashSet::from([2, 3])));

        maps.link_writes.clear();
        let second = HashMap::from([(at(2, 0), own(9)), (at(2, 7), own(4)), (at(4, 0), own(4))]);
        table.update(&second, &HashSet::from([2, 4]), &mut maps);
        assert_eq!((&maps.links, &maps.devices), (&second, &HashSet::from([2, 4])));
        let writes = std::mem::take(&mut maps.link_writes);
        assert_eq!(writes[..2], ["device 3 off", "link 3.0 off"], "{writes:?}");
        assert_eq!(writes.len(), 5, "{writes:?}");
        assert_eq!(writes[4], "device 4 on", "{writes:?}");

        table.update(&second, &HashSet::from([2, 4]), &mut maps);
        assert_eq!(maps.link_writes, [""; 0]);
    }

    #[test]
    fn an_interface_is_forgotten_with_its_vlans_and_can_come_back() {
        let (mut table, mut maps) = (LinkTable::default(), FakeMaps::default());
        let links = HashMap::from([(at(2, 0), own(2)), (at(2, 7), own(4)), (at(3, 0), own(3))]);
        let devices = HashSet::from([2, 3]);
        table.update(&links, &devices, &mut maps);
        maps.link_writes.clear();
        table.forget(2, &mut maps);
        assert_eq!((&maps.links, &maps.devices), (&HashMap::from([(at(3, 0), own(3))]), &HashSet::from([3])));
        assert_eq!(maps.link_writes[0], "device 2 off");
        table.update(&links, &devices, &mut maps);
        assert_eq!((&maps.links, &maps.devices), (&links, &devices));
    }

    #[test]
    fn more_vlans_than_the_map_holds_do_not_take_the_place_of_others() {
        let (mut table, mut maps) = (LinkTable::default(), FakeMaps::default());
        let known = HashMap::from([(at(2, 0), own(2))]);
        table.update(&known, &HashSet::new(), &mut maps);
        let many = (0..LINK_CAPACITY as u16 + 5).map(|id| (at(2, id), own(2))).collect();
        table.update(&many, &HashSet::new(), &mut maps);
        assert_eq!(maps.links.len(), LINK_CAPACITY as usize);
        assert!(maps.links.contains_key(&at(2, 0)));
        table.update(&known, &HashSet::new(), &mut maps);
        assert_eq!(maps.links, known);
    }
}
