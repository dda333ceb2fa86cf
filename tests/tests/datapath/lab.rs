//! A namespace for the relay, with two veth links to a second one where the gateways are; the kernel's tables; and flows.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use aya::maps::{Array, Map, MapData, MapInfo, PerCpuArray};
use aya::programs::loaded_programs;
use hairpin::datapath::{Datapath, Flow, Options, Scope};
use hairpin_common::maps::{
    ALLOCATION_STATES, ALLOCATIONS, AllocationCount, AllocationState, Count, FLOWS, FlowKey, NEXT_HOPS, NextHop,
    PORT_ROLES, PortRole, PortSlot, RELAY_ADDRESSES, RELAY_STATE, RelayAddress, RelayState, Rewrite, VERDICTS,
};
use hairpin_common::slot::{Bucket, Slot};

pub(super) const RELAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
pub(super) const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
pub(super) const OTHER_RELAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x20];
pub(super) const OTHER_GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x21];
pub(super) const CHANGED_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];

/// Network namespaces that are gone when this is dropped, also by a failed test.
pub(super) struct Lab {
    pub(super) relay: String,
    pub(super) gateways: String,
}

impl Lab {
    /// `None` only when the environment asks for it; without the right to use BPF the tests are to fail.
    pub(super) fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if std::env::var_os("HAIRPIN_SKIP_BPF").is_some_and(|value| value == "1") {
            eprintln!("skipped: HAIRPIN_SKIP_BPF=1");
            return None;
        }
        let id = format!("hpdp{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let lab = Self { relay: format!("{id}r"), gateways: format!("{id}g") };
        let Self { relay, gateways } = &lab;
        ip(&format!("netns add {relay}"));
        ip(&format!("netns add {gateways}"));
        for (index, net, local, remote) in
            [(0, "192.0.2", RELAY_MAC, GATEWAY_MAC), (1, "203.0.113", OTHER_RELAY_MAC, OTHER_GATEWAY_MAC)]
        {
            let (local, remote) = (text(local), text(remote));
            ip(&format!(
                "-n {relay} link add e{index} address {local} type veth \
                 peer name g{index} address {remote} netns {gateways}"
            ));
            ip(&format!("-n {relay} address add {net}.1/24 dev e{index}"));
            ip(&format!("-n {gateways} address add {net}.254/24 dev g{index}"));
            ip(&format!("-n {relay} link set e{index} up"));
            ip(&format!("-n {gateways} link set g{index} up"));
        }
        ip(&format!("-n {relay} link set lo up"));
        ip(&format!("-n {relay} address add 2001:db8::1/64 dev e0 nodad"));
        ip(&format!("-n {gateways} address add 2001:db8::fe/64 dev g0 nodad"));
        lab.on_relay("route add default via 192.0.2.254");
        lab.on_relay("route add default via 2001:db8::fe");
        lab.on_relay("neighbour add 2001:db8::fe lladdr 02:00:00:00:00:11 dev e0 nud reachable");
        Some(lab)
    }

    pub(super) fn on_relay(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.relay));
    }

    pub(super) fn sysctl(&self, setting: &str) {
        run("ip", &["netns", "exec", &self.relay, "sysctl", "-qw", setting]);
    }

    /// Starts a datapath in the relay's namespace.
    pub(super) fn start(&self, options: Options) -> Datapath {
        self.inside(move || Datapath::start(&options).expect("the program attaches to a veth"))
    }

    /// Runs a function in a thread that is in the relay's namespace.
    pub(super) fn inside<T: Send + 'static>(&self, run: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.relay)).expect("the namespace was made");
        let inside = thread::spawn(move || {
            rustix::thread::move_into_link_name_space(namespace.as_fd(), None).expect("root may enter it");
            run()
        });
        inside.join().expect("the thread's panic is the test's failure")
    }

    pub(super) fn interface_index(&self, name: &str) -> u32 {
        u32::try_from(self.link(name)["ifindex"].as_u64().expect("every link has an index")).unwrap()
    }

    pub(super) fn link(&self, name: &str) -> serde_json::Value {
        let json = run("ip", &["-n", &self.relay, "-j", "-d", "link", "show", "dev", name]);
        serde_json::from_str::<serde_json::Value>(&json).expect("ip writes JSON")[0].clone()
    }

    /// Opens the maps of the program that is attached to e0.
    pub(super) fn maps(&self) -> Maps {
        let program = self.link("e0")["xdp"]["prog"]["id"].as_u64().expect("an XDP program is attached to e0");
        let program = loaded_programs().flatten().find(|info| u64::from(info.id()) == program).expect("it is loaded");
        let ids = program.map_ids().unwrap().expect("the kernel knows the maps of a program");
        let open = |name: &str| {
            // The kernel keeps no more of a name.
            let kept = &name[..name.len().min(15)];
            let is_named = |id: &u32| MapInfo::from_id(*id).unwrap().name_as_str() == Some(kept);
            let id = ids.iter().copied().find(is_named).unwrap_or_else(|| panic!("no map {name}"));
            Map::from_map_data(MapData::from_id(id).unwrap()).unwrap()
        };
        Maps {
            flows: open(FLOWS).try_into().unwrap(),
            next_hops: open(NEXT_HOPS).try_into().unwrap(),
            port_roles: open(PORT_ROLES).try_into().unwrap(),
            verdicts: open(VERDICTS).try_into().unwrap(),
            allocations: open(ALLOCATIONS).try_into().unwrap(),
            states: open(ALLOCATION_STATES).try_into().unwrap(),
            relay: open(RELAY_STATE).try_into().unwrap(),
            relay_addresses: open(RELAY_ADDRESSES).try_into().unwrap(),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.relay, &self.gateways] {
            // Nothing more can be done about one that stays.
            let _ = Command::new("ip").args(["netns", "delete", namespace]).status();
        }
    }
}

/// The kernel's tables, read behind the datapath's back.
pub(super) struct Maps {
    pub(super) flows: Array<MapData, Bucket>,
    pub(super) next_hops: Array<MapData, NextHop>,
    pub(super) port_roles: Array<MapData, u64>,
    pub(super) verdicts: PerCpuArray<MapData, Count>,
    pub(super) allocations: Array<MapData, AllocationCount>,
    pub(super) states: Array<MapData, AllocationState>,
    pub(super) relay: Array<MapData, RelayState>,
    pub(super) relay_addresses: Array<MapData, RelayAddress>,
}

impl Maps {
    /// How many allocations the program does not know of.
    pub(super) fn hidden(&self) -> u64 {
        self.relay.get(&0, 0).unwrap().hidden
    }

    /// The record for packets with these addresses; port 0 or an unspecified address for what the record leaves open.
    pub(super) fn record(&self, source: SocketAddr, destination: SocketAddr, channel: u16) -> Option<Rewrite> {
        let key = FlowKey {
            source: octets(source.ip()),
            destination: octets(destination.ip()),
            source_port: source.port().to_be_bytes(),
            destination_port: destination.port().to_be_bytes(),
            channel: channel.to_be_bytes(),
            family: if destination.is_ipv4() { 4 } else { 6 },
            zero: 0,
        };
        self.slots().find(|slot| slot.key() == key).map(|slot| slot.rewrite())
    }

    /// The record that says that an address is ours.
    pub(super) fn mark(&self, address: SocketAddr) -> Option<Rewrite> {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        self.record(any.parse().unwrap(), address, 0)
    }

    pub(super) fn to_peer(&self, flow: &Flow) -> Option<Rewrite> {
        let (channel, _) = channel_of(flow);
        self.record(flow.client, flow.server, channel)
    }

    pub(super) fn to_client(&self, flow: &Flow) -> Option<Rewrite> {
        let (_, peer) = channel_of(flow);
        self.record(peer, flow.relayed, 0)
    }

    /// The next hop towards the peer.
    pub(super) fn peer_hop(&self, flow: &Flow) -> Option<NextHop> {
        let record = self.to_peer(flow)?;
        assert_ne!(record.next_hop, 0);
        Some(self.next_hops.get(&u32::from(record.next_hop), 0).unwrap())
    }

    pub(super) fn role(&self, port: u16) -> PortRole {
        let slot = PortSlot::of(port);
        slot.role(self.port_roles.get(&slot.index, 0).unwrap())
    }

    /// How many records flows have.
    pub(super) fn len(&self) -> usize {
        self.slots().count() - self.listeners()
    }

    /// How many records listeners have.
    pub(super) fn listeners(&self) -> usize {
        self.slots().filter(|slot| slot.front.order.expires == u32::MAX).count()
    }

    /// The slots that hold a record.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        let is_used = |slot: &Slot| slot.front.key.destination_port != [0; 2];
        self.flows.iter().flat_map(|bucket| bucket.expect("every index has a value").slots()).filter(is_used).inspect(
            |slot| {
                assert_eq!(slot.front.order.generation & 1, 0, "a write that did not end");
            },
        )
    }

    /// Whether the program may drop what has no permission of an allocation.
    pub(super) fn is_complete(&self, allocation: u32) -> bool {
        let AllocationState { announced, installed, .. } = self.states.get(&allocation, 0).unwrap();
        announced == installed
    }
}

pub(super) fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&v4.octets());
            octets
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

pub(super) fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

pub(super) fn ip(arguments: &str) {
    run("ip", &arguments.split_whitespace().collect::<Vec<_>>());
}

pub(super) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("iproute2 and procps are installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {error}", arguments.join(" "));
    String::from_utf8(output.stdout).expect("text")
}

/// A channel over IPv4.
pub(super) fn flow4() -> Flow {
    Flow {
        client: "192.0.2.50:40000".parse().unwrap(),
        server: "192.0.2.1:3478".parse().unwrap(),
        relayed: "192.0.2.1:50000".parse().unwrap(),
        allocation: 3,
        scope: channel("198.51.100.7:6000"),
    }
}

/// A channel over IPv6.
pub(super) fn flow6() -> Flow {
    Flow {
        client: "[2001:db8:1::50]:40000".parse().unwrap(),
        server: "[2001:db8::1]:3478".parse().unwrap(),
        relayed: "[2001:db8::1]:50000".parse().unwrap(),
        allocation: 4,
        scope: channel("[2001:db8:2::7]:6000"),
    }
}

pub(super) fn channel(peer: &str) -> Scope {
    Scope::Channel { channel: 0x4001, peer: peer.parse().unwrap() }
}

pub(super) fn channel_of(flow: &Flow) -> (u16, SocketAddr) {
    let Scope::Channel { channel, peer } = flow.scope else { panic!("not a channel: {flow:?}") };
    (channel, peer)
}

/// The relay and the permission that a channel rests on, and the channel.
pub(super) fn scopes(flow: Flow) -> [Flow; 3] {
    let (_, peer) = channel_of(&flow);
    [Scope::Relay, Scope::Permission { peer: peer.ip() }, flow.scope].map(|scope| Flow { scope, ..flow })
}
