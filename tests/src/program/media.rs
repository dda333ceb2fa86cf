//! A relay with media sessions between legs of every kind, and all the ways that media can take through it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use hairpin_common::maps::FlowKey;

use super::{
    setup::{Allocation, Leg, Media, Permission, Relay, Setup, key},
    world::{Family, Framing, Path, bind, relay_of},
};

/// The port of the first leg; each has one of its own.
const FIRST_PORT: u16 = 55_000;
/// The index of the first path, behind those of allocations.
const FIRST_INDEX: u32 = 20;

/// The world of media, and every path through it: from leg to leg, between a leg and another client in every framing, and
/// from one session to another, in each mixture of IP versions.
pub fn media_world() -> (Setup, Vec<Path>) {
    world_of(BTreeMap::new())
}

/// The same behind a 1:1 NAT: what is different then, which is all that passes two relays.
pub fn media_world_behind_nat() -> (Setup, Vec<Path>) {
    let public = Family::ALL.map(|family| (family.listener().ip(), family.address(54, 1, 0).ip()));
    let (setup, mut paths) = world_of(BTreeMap::from(public));
    paths.retain(|path| path.name.matches("->").count() > 2);
    for path in &mut paths {
        path.name.push_str(" behind a NAT");
    }
    (setup, paths)
}

fn world_of(public: BTreeMap<IpAddr, IpAddr>) -> (Setup, Vec<Path>) {
    let mut world = World {
        setup: Setup { public, ..Setup::new(Family::ALL.map(Family::listener)) },
        paths: Vec::new(),
        port: FIRST_PORT,
        index: FIRST_INDEX,
    };
    for one in Family::ALL {
        for other in Family::ALL {
            world.join_strangers(one, other);
        }
    }
    for client in Family::ALL {
        for bound in [true, false] {
            world.allocate(client);
            for relayed in Family::ALL {
                for remote in Family::ALL {
                    world.join_client(relayed, remote, bound);
                }
            }
        }
    }
    for one in Family::ALL {
        for relayed in Family::ALL {
            for other in Family::ALL {
                world.join_sessions(one, relayed, other);
            }
        }
    }
    (world.setup, world.paths)
}

struct World {
    setup: Setup,
    paths: Vec<Path>,
    port: u16,
    index: u32,
}

impl World {
    /// Two hosts that are nobody else's.
    fn join_strangers(&mut self, one: Family, other: Family) {
        let (client, peer) = (self.leg_of_stranger(one), self.leg_of_stranger(other));
        self.join(client, peer);
        for (from, to) in [(client, peer), (peer, client)] {
            let (of, is_first) = (version(from.remote), if from == client { "one" } else { "other" });
            let keys = vec![key(from.remote, from.local, 0)];
            self.add(
                format!("media of the {is_first} -> UDP {of}->{}", version(to.remote)),
                Framing::Plain,
                from,
                keys,
            );
        }
    }

    /// A host and a client of this relay, who knows the leg by a channel, or only has a permission.
    fn join_client(&mut self, relayed: Family, remote: Family, bound: bool) {
        let client = self.leg_of_stranger(remote);
        let allocation = self.setup.allocations.last().expect("one was made");
        let (relay, local) = (relay_of(allocation, relayed), relayed.address(51, 1, self.port));
        self.port += 1;
        let (its_relay, known) = (self.setup.outside(relay), self.setup.outside(local));
        let allocation = self.setup.allocations.last_mut().expect("it is still there");
        let peer = Leg { local, remote: its_relay };
        let (caller, listener) = (allocation.client, allocation.server);
        let (framing, mut keys, port, out) = if bound {
            let number = bind(allocation, known);
            (Framing::Channel(number), vec![key(caller, listener, number)], known.port(), "ChannelData")
        } else {
            let send = key(caller, listener, version(relay));
            (Framing::Send(known), vec![send, key((known.ip(), 0).into(), relay, 0)], 0, "Data indication")
        };
        self.join(client, peer);

        let (one, two, three) = (version(caller), version(local), version(client.remote));
        let what = if bound { "ChannelData" } else { "Send indication" };
        keys.push(key(its_relay, local, 0));
        let from = Leg { remote: caller, local: listener };
        self.add(format!("{what} -> media {one}->{two}->{three}"), framing, from, keys);
        let keys = vec![key(client.remote, client.local, 0), key((known.ip(), port).into(), relay, 0)];
        self.add(format!("media -> {out} {three}->{two}->{one}"), Framing::Plain, client, keys);
    }

    /// Two hosts of two sessions, which have a leg of each other for their peer.
    fn join_sessions(&mut self, one: Family, relayed: Family, other: Family) {
        let (client, callee) = (self.leg_of_stranger(one), self.leg_of_stranger(other));
        let local = [self.port, self.port + 1].map(|port| relayed.address(51, 1, port));
        self.port += 2;
        let known = local.map(|address| self.setup.outside(address));
        self.join(client, Leg { local: local[0], remote: known[1] });
        self.join(callee, Leg { local: local[1], remote: known[0] });
        let keys = vec![key(client.remote, client.local, 0), key(known[0], local[1], 0)];
        let name =
            format!("media -> media {}->{}->{}", version(client.remote), version(local[0]), version(callee.remote));
        self.add(name, Framing::Plain, client, keys);
    }

    fn join(&mut self, client: Leg, peer: Leg) {
        self.setup.media.push(Media { index: self.index, client, peer, live: true });
        self.index += 1;
    }

    fn add(&mut self, name: String, framing: Framing, from: Leg, keys: Vec<FlowKey>) {
        self.paths.push(Path { name, framing, source: from.remote, destination: from.local, keys });
    }

    fn leg_of_stranger(&mut self, family: Family) -> Leg {
        let port = self.port;
        self.port += 1;
        Leg { local: family.address(51, 1, port), remote: family.address(55, port, 7000) }
    }

    /// A client with a relayed address of each IP version, and permissions for all that is here.
    fn allocate(&mut self, client: Family) {
        let index = self.setup.allocations.len() as u32 + 1;
        let own = Family::ALL.map(|family| self.setup.outside(family.listener()).ip());
        self.setup.allocations.push(Allocation {
            index,
            client: client.address(50, index as u16, 40_000),
            server: client.listener(),
            relays: Family::ALL
                .map(|family| Relay { address: family.address(51, 1, 50_000 + index as u16), live: true })
                .to_vec(),
            permissions: own.map(|peer| Permission { peer, live: true }).to_vec(),
            channels: Vec::new(),
            complete: true,
        });
    }
}

/// The path of one session among many: legs of any IP version. Another number makes other legs and other remotes.
pub fn numbered(client: Family, peer: Family, number: u32) -> Media {
    let (net, host) = ((number >> 16) as u8, (number & 0xffff) as u16);
    // There are only so many ports, and each has two legs.
    let (port, own) = (49_152 + (number % 16_000) as u16, 1 + 2 * (number / 16_000) as u16);
    Media {
        index: number,
        client: Leg { local: client.address(51, own, port), remote: client.address(60 + net, host, 40_000) },
        peer: Leg { local: peer.address(51, own + 1, port), remote: peer.address(70 + net, host, 5000) },
        live: true,
    }
}

fn version(address: SocketAddr) -> u16 {
    if address.is_ipv4() { 4 } else { 6 }
}
