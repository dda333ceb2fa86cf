//! The program on the test bench: one packet in, one verdict and one packet out.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Pod,
    maps::{Array, Map, MapData, MapInfo},
    programs::{TestRun, TestRunOptions, TestRunResult},
};
use hairpin::datapath::Limits;
use hairpin::datapath::program::{Capacities, Maps, Program};
use hairpin_common::{
    limit::{Limit, Meter},
    maps::{
        ALLOCATION_STATES, AllocationCount, AllocationState, Count, FLOWS, FlowKey, Link, LinkAddress, NextHop, Pace,
        PortRole, PortSlot, RELAY_STATE, RelayState, Rewrite, SOURCES,
    },
    slot::{Bucket, Slot},
    verdict::{Action, Verdict},
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{
    frame::hex,
    model::{Direction, Judgement},
    setup::{Allocation, OwnLimit, Setup, Unit},
    sys::monotonic_nanoseconds,
};

/// Set to 1 where the kernel cannot run BPF programs and the tests are to pass all the same.
const SKIP: &str = "HAIRPIN_SKIP_BPF";
/// The interface packets come from unless a test says otherwise: loopback, which is in every namespace.
pub const INTERFACE: u32 = 1;
/// Another interface of the bench's namespace.
pub const OTHER_INTERFACE: u32 = 7;
/// Where the packets of this bench are sent by default.
pub const NEXT_HOP: NextHop = NextHop {
    interface: INTERFACE,
    mtu: 1500,
    destination: [0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0xee],
    source: [0x02, 0x11, 0x22, 0x33, 0x44, 0x55],
    vlan: [0; 2],
    zero: [0; 2],
};
/// Bytes that a packet may grow by on its way, and more.
const GROWTH: usize = 128;

/// What the kernel does with the packet (`enum xdp_action`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Sent out of the interface it came in by.
    Transmitted,
    /// Sent out of another interface.
    Redirected,
    /// On to the kernel's stack.
    Passed,
    /// Gone.
    Dropped,
    /// Any other return value, which the program never has a reason to give.
    Unexpected(u32),
}

/// What came of one packet.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the kernel would do.
    pub outcome: Outcome,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// The counters that moved, and by how much.
    pub counted: Vec<(Verdict, Count)>,
}

/// The loaded program.
pub struct Bench {
    /// The program.
    pub program: Program,
    /// Its maps.
    pub maps: Maps,
    states: Array<MapData, AllocationState>,
}

impl Bench {
    /// Loads the program, or fails the test; `None` only when the environment asks for it by `HAIRPIN_SKIP_BPF=1`.
    ///
    /// This thread goes on in a network namespace of its own, with loopback and [`OTHER_INTERFACE`].
    pub fn or_skip() -> Option<Self> {
        Self::limited_or_skip(Limits::default())
    }

    /// The same with limits of rate.
    pub fn limited_or_skip(limits: Limits) -> Option<Self> {
        Self::set_or_skip(limits, true)
    }

    /// The same with limits of rate, and with or without answers to Binding requests.
    pub fn set_or_skip(limits: Limits, answer_binding: bool) -> Option<Self> {
        if std::env::var_os(SKIP).is_some_and(|value| value == "1") {
            eprintln!("skipped, because {SKIP}=1: this test runs the XDP program in the kernel");
            return None;
        }
        enter_namespace().expect("the right to make a network namespace");
        let capacities = Capacities { records: 1024, allocations: 64 };
        let loaded = Self::load_set(capacities, limits, answer_binding);
        Some(loaded.expect("BPF and the right to use it (or HAIRPIN_SKIP_BPF=1)"))
    }

    /// Loads the program with maps of these sizes.
    pub fn load(capacities: Capacities, limits: Limits) -> Result<Self> {
        Self::load_set(capacities, limits, true)
    }

    fn load_set(capacities: Capacities, limits: Limits, answer_binding: bool) -> Result<Self> {
        let mut program = Program::load(capacities, answer_binding).context("loading the XDP program")?;
        let maps = program.take_maps()?;
        maps.state.set_limits(limits);
        let states = array(&program, ALLOCATION_STATES)?;
        Ok(Self { program, maps, states })
    }

    /// Installs all that a setup says.
    pub fn install(&mut self, setup: &Setup) -> Result<()> {
        self.install_links(setup)?;
        for (key, record) in setup.records() {
            self.insert(key, record)?;
        }
        for allocation in &setup.allocations {
            self.complete(allocation)?;
        }
        for (port, role) in setup.ports() {
            self.role(port, role)?;
        }
        for limit in &setup.own_limits {
            self.use_up(limit)?;
        }
        Ok(())
    }

    /// Installs what is around the relay: next hops, links, devices, and a NAT.
    pub fn install_links(&mut self, setup: &Setup) -> Result<()> {
        for (index, next_hop) in &setup.next_hops {
            self.maps.next_hops.set(u32::from(*index), *next_hop, 0)?;
        }
        for (index, address) in setup.relay_addresses() {
            self.maps.relay_addresses.set(u32::from(index), address, 0)?;
        }
        for (&(interface, vlan), &address) in &setup.links {
            let link = Link { interface, vlan: vlan.to_be_bytes(), zero: [0; 2] };
            self.maps.links.insert(link, LinkAddress { address, zero: [0; 2] }, 0)?;
        }
        for device in &setup.devices {
            self.maps.devices.insert(*device, *device, None, 0)?;
        }
        Ok(())
    }

    /// Takes out all that [`Bench::install`] wrote, so that another setup may follow.
    pub fn uninstall(&mut self, setup: &Setup) -> Result<()> {
        for (key, _) in setup.records() {
            self.remove(&key)?;
        }
        for port in setup.ports().into_keys() {
            self.role(port, PortRole::None)?;
        }
        for index in setup.next_hops.keys() {
            self.maps.next_hops.set(u32::from(*index), NextHop::default(), 0)?;
        }
        for &(interface, vlan) in setup.links.keys() {
            self.maps.links.remove(&Link { interface, vlan: vlan.to_be_bytes(), zero: [0; 2] })?;
        }
        for device in &setup.devices {
            self.maps.devices.remove(*device)?;
        }
        for limit in &setup.own_limits {
            self.maps.state.rest(limit.index);
        }
        Ok(())
    }

    /// Tells the program whether it knows every permission of an allocation, and that nothing was sent for it.
    pub fn complete(&mut self, allocation: &Allocation) -> Result<()> {
        let state =
            AllocationState { announced: 1, installed: allocation.complete.into(), ..self.state(allocation.index)? };
        let rest = Pace::default();
        self.set_state(allocation.index, AllocationState { to_peer: rest, to_client: rest, ..state })
    }

    /// Writes what the program and the daemon share about an allocation.
    pub fn set_state(&mut self, index: u32, state: AllocationState) -> Result<()> {
        Ok(self.states.set(index, state, 0)?)
    }

    /// Reads what the program and the daemon share about an allocation.
    pub fn state(&self, index: u32) -> Result<AllocationState> {
        Ok(self.states.get(&index, 0)?)
    }

    /// Exchanges the limits of rate, as the daemon does.
    pub fn set_limits(&self, limits: Limits) {
        self.maps.state.set_limits(limits);
    }

    /// Gives an allocation or a path limits of its own, as the daemon does: of datagrams, and of bytes.
    pub fn limit(&self, index: u32, packets: Limit, bytes: Limit) {
        self.maps.state.limit_allocation(index, packets, bytes);
    }

    /// Gives an allocation or a path a limit that one way is used up.
    pub fn use_up(&mut self, limit: &OwnLimit) -> Result<()> {
        const HOUR: u64 = 3_600_000_000_000;
        let &OwnLimit { index, unit, used_up } = limit;
        let wide = Limit { cost: 1, burst: HOUR };
        let (packets, bytes) = if unit == Unit::Packets { (wide, Limit::NONE) } else { (Limit::NONE, wide) };
        self.limit(index, packets, bytes);
        let mut state = self.state(index)?;
        let pace = if used_up == Direction::ToPeer { &mut state.to_peer } else { &mut state.to_client };
        *(if unit == Unit::Packets { &mut pace.packets } else { &mut pace.bytes }) =
            Meter(monotonic_nanoseconds() + 2 * HOUR);
        self.set_state(index, state)
    }

    /// Changes what all allocations share.
    pub fn change_relay_state(&self, change: impl Fn(&mut RelayState)) -> Result<()> {
        let mut array = array::<RelayState>(&self.program, RELAY_STATE)?;
        let mut state = array.get(&0, 0)?;
        change(&mut state);
        Ok(array.set(0, state, 0)?)
    }

    /// How many sources have a meter that has ever moved.
    pub fn metered_sources(&self) -> Result<usize> {
        let sources = array::<Meter>(&self.program, SOURCES)?;
        let mut moved = 0;
        for index in 0..sources.len() {
            moved += usize::from(sources.get(&index, 0)? != Meter(0));
        }
        Ok(moved)
    }

    /// Writes one record.
    pub fn insert(&mut self, key: FlowKey, record: Rewrite) -> Result<()> {
        Ok(self.maps.flows.insert(key, &record)?)
    }

    /// Deletes one record.
    pub fn remove(&mut self, key: &FlowKey) -> Result<()> {
        ensure!(self.maps.flows.remove(key), "there is no record for {key:?}");
        Ok(())
    }

    /// Changes a slot behind the back of its writer, as a packet could find it that comes while the writer is at work.
    pub fn tamper(&mut self, key: FlowKey, tamper: impl Fn(&mut Slot)) -> Result<()> {
        let mut buckets = array::<Bucket>(&self.program, FLOWS)?;
        for index in 0..buckets.len() {
            let mut bucket = buckets.get(&index, 0)?;
            if let Some((place, mut slot)) = (0..).zip(bucket.slots()).find(|(_, slot)| slot.key() == key) {
                tamper(&mut slot);
                bucket.set(place, &slot);
                return Ok(buckets.set(index, bucket, 0)?);
            }
        }
        bail!("there is no record for {key:?}")
    }

    /// Gives a port a role.
    pub fn role(&mut self, port: u16, role: PortRole) -> Result<()> {
        let slot = PortSlot::of(port);
        let entry = self.maps.port_roles.get(&slot.index, 0)?;
        self.maps.port_roles.set(slot.index, slot.with_role(entry, role), 0)?;
        Ok(())
    }

    /// Runs one packet through the program.
    pub fn run(&self, packet: &[u8]) -> Result<Run> {
        self.run_from(INTERFACE, packet)
    }

    /// Runs one packet that comes in by an interface.
    pub fn run_from(&self, interface: u32, packet: &[u8]) -> Result<Run> {
        self.run_with_metadata(interface, packet, 0)
    }

    /// Runs one packet with so many bytes of metadata in front, which take their room from the head.
    pub fn run_with_metadata(&self, interface: u32, packet: &[u8], metadata: usize) -> Result<Run> {
        let before = self.verdicts()?;
        let input = [vec![0; metadata], packet.to_vec()].concat();
        let mut output = vec![0; input.len() + GROWTH];
        let result = self.test_run(&input, &mut output, metadata, interface)?;
        output.truncate(result.data_size_out as usize);
        let packet = output.split_off(metadata);
        let outcome = match result.return_value {
            1 => Outcome::Dropped,
            2 => Outcome::Passed,
            3 => Outcome::Transmitted,
            4 => Outcome::Redirected,
            other => Outcome::Unexpected(other),
        };
        let counted = Verdict::ALL
            .iter()
            .zip(self.verdicts()?.iter().zip(before))
            .filter(|(_, (after, before))| **after != *before)
            .map(|(verdict, (after, before))| {
                let count = Count { packets: after.packets - before.packets, bytes: after.bytes - before.bytes };
                (*verdict, count)
            })
            .collect();
        Ok(Run { outcome, packet, counted })
    }

    /// The system call behind [`Bench::run`].
    fn test_run(&self, input: &[u8], output: &mut [u8], metadata: usize, interface: u32) -> Result<TestRunResult> {
        let context = context(metadata, input.len(), interface);
        Ok(self.program.xdp()?.test_run(TestRunOptions {
            data_in: Some(input),
            data_out: Some(output),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        })?)
    }

    /// Counters of all verdicts, over all CPUs.
    pub fn verdicts(&self) -> Result<Vec<Count>> {
        let sum = |index| {
            let per_cpu = self.maps.verdicts.get(&index, 0)?;
            Ok(per_cpu.iter().fold(Count::default(), |sum, count| add(sum, *count)))
        };
        (0..Verdict::COUNT as u32).map(sum).collect()
    }

    /// Counters of one allocation, over all CPUs.
    pub fn allocation(&self, index: u32) -> AllocationCount {
        self.maps.allocations.get(index)
    }

    /// Fails unless there came of a packet what the model says, to the last byte and to the last counter.
    pub fn expect(&self, what: &str, setup: &Setup, packet: &[u8]) -> Result<Run> {
        self.expect_from(what, setup, INTERFACE, packet)
    }

    /// The same for a packet that comes in by another interface.
    pub fn expect_from(&self, what: &str, setup: &Setup, interface: u32, packet: &[u8]) -> Result<Run> {
        let judgement = setup.judge(interface, packet);
        let before: Vec<_> = setup.indices().map(|index| (index, self.allocation(index))).collect();
        let run = self.run_from(interface, packet)?;
        check(what, &judgement, packet, &run)?;
        for (index, before) in before {
            let mut expected = before;
            if let Judgement::Sent(sent) = &judgement {
                for (_, direction) in sent.counted.iter().filter(|(counted, _)| *counted == index) {
                    let count = match direction {
                        Direction::ToPeer => &mut expected.to_peer,
                        Direction::ToClient => &mut expected.to_client,
                    };
                    *count = add(*count, Count { packets: 1, bytes: sent.bytes as u64 });
                }
            }
            let counted = self.allocation(index);
            ensure!(counted == expected, "{what}: index {index} counts\n  {counted:?}, not\n  {expected:?}");
        }
        Ok(run)
    }

    /// Fails unless the packet is passed, unchanged, or dropped, and counted once under this verdict with its length.
    pub fn expect_refused(&self, what: &str, packet: &[u8], verdict: Verdict) -> Result<()> {
        check(what, &Judgement::Refused(vec![verdict]), packet, &self.run(packet)?)
    }
}

/// A map of the program by its name, next to whoever else has it.
fn array<T: Pod>(program: &Program, name: &str) -> Result<Array<MapData, T>> {
    for id in program.xdp()?.info()?.map_ids()?.context("the kernel knows the maps of a program")? {
        // The kernel keeps 15 characters of a name.
        if MapInfo::from_id(id)?.name_as_str() == Some(&name[..name.len().min(15)]) {
            return Ok(Map::from_map_data(MapData::from_id(id)?)?.try_into()?);
        }
    }
    bail!("the program has no map {name}")
}

/// Compares what came of a packet with what had to.
pub fn check(what: &str, judgement: &Judgement, packet: &[u8], run: &Run) -> Result<()> {
    match judgement {
        Judgement::Refused(verdicts) => {
            let whole = Count { packets: 1, bytes: packet.len() as u64 };
            let right = match run.counted[..] {
                [(verdict, count)] if verdicts.contains(&verdict) && count == whole => match verdict.action() {
                    Action::Pass => run.outcome == Outcome::Passed && run.packet == packet,
                    Action::Drop => run.outcome == Outcome::Dropped,
                    Action::Transmit => false,
                },
                _ => false,
            };
            ensure!(
                right,
                "{what}: expected {verdicts:?}, nothing changed\n  got {:?} {:?}\n  packet in:{}\n  packet out:{}",
                run.outcome,
                run.counted,
                hex(packet),
                hex(&run.packet),
            );
        }
        Judgement::Limited(verdicts, sent) => {
            let whole = Count { packets: 1, bytes: sent.frame_like(&run.packet).bytes().len() as u64 };
            let right = matches!(run.counted[..], [(verdict, count)] if verdicts.contains(&verdict) && count == whole);
            ensure!(
                right && run.outcome == Outcome::Dropped,
                "{what}: expected {verdicts:?} of {} bytes\n  got {:?} {:?}\n  packet in:{}",
                whole.bytes,
                run.outcome,
                run.counted,
                hex(packet),
            );
        }
        Judgement::Sent(sent) => {
            let expected = sent.frame_like(&run.packet).bytes();
            let count = Count { packets: 1, bytes: sent.bytes as u64 };
            ensure!(
                run.outcome == sent.outcome && run.packet == expected && run.counted == [(sent.verdict, count)],
                "{what}: expected {:?} {:?} with {} bytes\n  got {:?} {:?}\n  packet in:{}\n  packet out:{}\n  \
                 expected:{}",
                sent.outcome,
                sent.verdict,
                sent.bytes,
                run.outcome,
                run.counted,
                hex(packet),
                hex(&run.packet),
                hex(&expected),
            );
        }
    }
    Ok(())
}

/// `struct xdp_md` for a packet with metadata in front that came in by an interface.
pub fn context(metadata: usize, end: usize, interface: u32) -> [u8; 24] {
    let mut context = [0; 24];
    let words = [metadata as u32, end as u32, 0, interface, 0, 0];
    for (bytes, word) in context.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    context
}

/// Moves this thread into a network namespace of its own, which has loopback and [`OTHER_INTERFACE`].
fn enter_namespace() -> Result<()> {
    #[allow(unsafe_code, reason = "unshare(2): a network namespace has no influence on memory or descriptors")]
    // SAFETY: as said.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("unshare")?;
    let command = format!("link add name other index {OTHER_INTERFACE} type veth");
    let status = Command::new("ip").args(command.split(' ')).status().context("ip (of iproute2)")?;
    ensure!(status.success(), "`ip {command}` failed");
    Ok(())
}

fn add(sum: Count, count: Count) -> Count {
    Count { packets: sum.packets + count.packets, bytes: sum.bytes + count.bytes }
}
