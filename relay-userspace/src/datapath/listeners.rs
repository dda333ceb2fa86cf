//! The listeners' records: by these the program knows which addresses, not only which ports, are the relay's.

use std::net::{IpAddr, SocketAddr};

use hairpin_common::maps::PortRole;
use hashbrown::HashSet;

use super::flow::is_unicast;
use super::flow_map::MapFull;
use super::maps::WriteMaps;
use super::port_roles::PortRoles;
use super::record;

/// What listeners there are, and which addresses in the kernel stand for them.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// As they were bound: an unspecified address is every local one of its family.
    bound: Vec<SocketAddr>,
    installed: HashSet<SocketAddr>,
}

impl Listeners {
    /// Exchanges the listeners, and with them what their ports are for; their records follow with the next
    /// [`Listeners::follow`]. A port that stays keeps its role all the time.
    pub(super) fn exchange(&mut self, bound: &[SocketAddr], ports: &mut PortRoles, maps: &mut impl WriteMaps) {
        let before = std::mem::replace(&mut self.bound, bound.to_vec());
        for listener in bound {
            if let Some(change) = ports.claim(listener.port(), PortRole::Listener) {
                maps.set_port_roles(change);
            }
        }
        for listener in before {
            if let Some(change) = ports.release(listener.port(), PortRole::Listener) {
                maps.set_port_roles(change);
            }
        }
    }

    /// Brings the kernel up to date with this host's addresses. What finds no room is served by userspace.
    pub(super) fn follow(&mut self, local: &[IpAddr], maps: &mut impl WriteMaps) -> Result<(), MapFull> {
        let wanted = self.addresses(local);
        self.set(wanted, maps)
    }

    /// Every address that clients reach a listener at, as far as the program can serve it there.
    fn addresses(&self, local: &[IpAddr]) -> HashSet<SocketAddr> {
        let mut addresses = HashSet::new();
        for listener in &self.bound {
            let (ip, port) = (listener.ip().to_canonical(), listener.port());
            if ip.is_unspecified() {
                let of_family = local.iter().filter(|local| local.is_ipv4() == ip.is_ipv4());
                addresses.extend(of_family.map(|local| SocketAddr::new(*local, port)));
            } else {
                addresses.insert(SocketAddr::new(ip, port));
            }
        }
        addresses.retain(|address| is_unicast(address.ip()));
        addresses
    }

    fn set(&mut self, wanted: HashSet<SocketAddr>, maps: &mut impl WriteMaps) -> Result<(), MapFull> {
        self.installed.retain(|address| {
            let stays = wanted.contains(address);
            if !stays {
                maps.remove(&record::listener(*address).key);
            }
            stays
        });
        for address in wanted {
            if !self.installed.contains(&address) {
                let record = record::listener(address);
                maps.insert(&record.key, &record.rewrite)?;
                self.installed.insert(address);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hairpin_common::maps::PortSlot;

    use super::super::maps::fake::FakeMaps;
    use super::*;

    fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(texts: &[&str]) -> Vec<T> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn bound(texts: &[&str], maps: &mut FakeMaps) -> Listeners {
        let mut listeners = Listeners::default();
        listeners.exchange(&parsed(texts), &mut PortRoles::default(), maps);
        listeners
    }

    /// Whether exactly these addresses have records.
    #[track_caller]
    fn expect(maps: &FakeMaps, addresses: &[&str]) {
        for address in parsed(addresses) {
            let record = record::listener(address);
            assert_eq!(maps.records.get(&record.key), Some(&record.rewrite), "{address}");
        }
        assert_eq!(maps.records.len(), addresses.len(), "{:?}", maps.records);
    }

    #[test]
    fn a_listener_everywhere_follows_the_addresses_of_its_family() {
        let mut maps = FakeMaps::default();
        let mut listeners = bound(&["0.0.0.0:3478", "192.0.2.9:80", "[::]:5349"], &mut maps);
        let before = parsed(&["127.0.0.1", "192.0.2.1", "2001:db8::1", "fe80::1"]);
        assert_eq!(listeners.follow(&before, &mut maps), Ok(()));
        expect(&maps, &["192.0.2.1:3478", "192.0.2.9:80", "[2001:db8::1]:5349"]);

        assert_eq!(listeners.follow(&parsed(&["192.0.2.2"]), &mut maps), Ok(()));
        expect(&maps, &["192.0.2.2:3478", "192.0.2.9:80"]);
    }

    #[test]
    fn what_found_no_room_is_tried_again() {
        let mut maps = FakeMaps { capacity: 1, ..FakeMaps::default() };
        let mut listeners = bound(&["192.0.2.1:3478", "192.0.2.2:3478"], &mut maps);
        assert_eq!(listeners.follow(&[], &mut maps), Err(MapFull));
        maps.capacity = 2;
        assert_eq!(listeners.follow(&[], &mut maps), Ok(()));
        expect(&maps, &["192.0.2.1:3478", "192.0.2.2:3478"]);
    }

    #[test]
    fn ports_and_records_follow_the_listeners_and_what_stays_is_not_touched() {
        let (mut maps, mut ports, mut listeners) = (FakeMaps::default(), PortRoles::default(), Listeners::default());
        let role = |maps: &FakeMaps, port| {
            let slot = PortSlot::of(port);
            slot.role(maps.port_roles.get(&slot.index).copied().unwrap_or_default())
        };
        let local = parsed(&["192.0.2.1", "192.0.2.2"]);
        // As often as there are sockets.
        listeners.exchange(&parsed(&["0.0.0.0:3478", "0.0.0.0:3478", "192.0.2.1:80"]), &mut ports, &mut maps);
        listeners.follow(&local, &mut maps).unwrap();
        expect(&maps, &["192.0.2.1:3478", "192.0.2.2:3478", "192.0.2.1:80"]);

        maps.port_roles.clear();
        listeners.exchange(&parsed(&["192.0.2.2:3478", "192.0.2.2:443"]), &mut ports, &mut maps);
        assert!(!maps.port_roles.contains_key(&PortSlot::of(3478).index), "it was nothing else for a moment");
        assert_eq!((role(&maps, 443), role(&maps, 80)), (PortRole::Listener, PortRole::None));
        listeners.follow(&local, &mut maps).unwrap();
        expect(&maps, &["192.0.2.2:3478", "192.0.2.2:443"]);

        // A relayed address may have the number, too.
        ports.claim(443, PortRole::Relayed);
        listeners.exchange(&[], &mut ports, &mut maps);
        assert_eq!((role(&maps, 3478), role(&maps, 443)), (PortRole::None, PortRole::Relayed));
        listeners.follow(&local, &mut maps).unwrap();
        expect(&maps, &[]);
    }
}
