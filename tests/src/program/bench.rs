//! The program on the test bench: one packet in, one verdict and one packet out.

use anyhow::{Context, Result, bail, ensure};
use aya::{
    maps::{Array, Map, MapData, MapInfo},
    programs::{TestRun, TestRunOptions, TestRunResult},
};
use hairpin::datapath::program::{Capacities, Maps, Program};
use hairpin_common::{
    maps::{AllocationCount, Count, FLOWS4, FLOWS6, FlowKey, NextHop, PortRole, PortSlot, Rewrite},
    slot::{Bucket, Slot},
    verdict::Verdict,
};

use super::{
    flow::{Direction, Flow, Key},
    frame::hex,
};

/// Set to 1 where the kernel cannot run BPF programs and the tests are to pass all the same.
const SKIP: &str = "HAIRPIN_SKIP_BPF";
/// The interface packets come from unless a test says otherwise: loopback, which is in every namespace.
pub const INTERFACE: u32 = 1;
/// Where the packets of this bench are sent by default.
pub const NEXT_HOP: NextHop = NextHop {
    interface: INTERFACE,
    mtu: 1500,
    destination: [0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0xee],
    source: [0x02, 0x11, 0x22, 0x33, 0x44, 0x55],
    vlan: [0; 2],
    zero: [0; 2],
};

/// What the kernel does with the packet (`enum xdp_action`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Sent out of the interface it came in by.
    Transmitted,
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
}

impl Bench {
    /// Loads the program, or fails the test; `None` only when the environment asks for it by `HAIRPIN_SKIP_BPF=1`.
    pub fn or_skip() -> Option<Self> {
        if std::env::var_os(SKIP).is_some_and(|value| value == "1") {
            eprintln!("skipped, because {SKIP}=1: this test runs the XDP program in the kernel");
            return None;
        }
        let capacities = Capacities { flows: 64, allocations: 64 };
        Some(Self::load(capacities).expect("BPF and the right to use it (or HAIRPIN_SKIP_BPF=1)"))
    }

    /// Loads the program with maps of these sizes and one next hop, [`NEXT_HOP`] at index 1.
    pub fn load(capacities: Capacities) -> Result<Self> {
        let mut program = Program::load(capacities).context("loading the XDP program")?;
        let maps = program.take_maps()?;
        let mut bench = Self { program, maps };
        bench.maps.next_hops.set(1, NEXT_HOP, 0)?;
        Ok(bench)
    }

    /// Installs both directions of a flow, and the roles of its ports.
    pub fn install(&mut self, flow: &Flow) -> Result<()> {
        for direction in [Direction::ToPeer, Direction::ToClient] {
            self.insert(flow.key(direction), flow.record(direction))?;
        }
        self.role(flow.listener.port(), PortRole::Listener)?;
        self.role(flow.relayed.port(), PortRole::Relayed)
    }

    /// Writes one record.
    pub fn insert(&mut self, key: Key, record: Rewrite) -> Result<()> {
        match key {
            Key::V4(key) => self.maps.flows4.insert(key, &record)?,
            Key::V6(key) => self.maps.flows6.insert(key, &record)?,
        }
        Ok(())
    }

    /// Changes a slot behind the back of its writer, as a packet could find it that comes while the writer is at work.
    pub fn tamper<const N: usize>(&mut self, key: FlowKey<N>, tamper: impl Fn(&mut Slot<N>)) -> Result<()>
    where
        Bucket<N>: aya::Pod,
    {
        let name = if N == 4 { FLOWS4 } else { FLOWS6 };
        let ids = self.program.xdp()?.info()?.map_ids()?.context("the kernel knows the maps of a program")?;
        for id in ids {
            if MapInfo::from_id(id)?.name_as_str() != Some(name) {
                continue;
            }
            let mut buckets: Array<_, Bucket<N>> = Map::from_map_data(MapData::from_id(id)?)?.try_into()?;
            for index in 0..buckets.len() {
                let mut bucket = buckets.get(&index, 0)?;
                if let Some(slot) = bucket.0.iter_mut().find(|slot| slot.key == key) {
                    tamper(slot);
                    return Ok(buckets.set(index, bucket, 0)?);
                }
            }
        }
        bail!("there is no record for {key:?}")
    }

    /// Deletes one record.
    pub fn remove(&mut self, key: Key) -> Result<()> {
        let removed = match key {
            Key::V4(key) => self.maps.flows4.remove(&key),
            Key::V6(key) => self.maps.flows6.remove(&key),
        };
        ensure!(removed, "there is no record for {key:?}");
        Ok(())
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
        self.run_with_metadata(packet, 0)
    }

    /// Runs one packet with so many bytes of metadata in front, which take their room from the head.
    pub fn run_with_metadata(&self, packet: &[u8], metadata: usize) -> Result<Run> {
        let before = self.verdicts()?;
        let input = [vec![0; metadata], packet.to_vec()].concat();
        let mut output = vec![0; input.len() + 64];
        let result = self.test_run(&input, &mut output, metadata, INTERFACE)?;
        output.truncate(result.data_size_out as usize);
        let packet = output.split_off(metadata);
        let outcome = match result.return_value {
            1 => Outcome::Dropped,
            2 => Outcome::Passed,
            3 => Outcome::Transmitted,
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

    /// The loaded program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Fails unless the packet is passed, unchanged, and counted once under this verdict with its length.
    pub fn expect_passed(&self, what: &str, packet: &[u8], verdict: Verdict) -> Result<()> {
        let run = self.run(packet)?;
        let whole = Count { packets: 1, bytes: packet.len() as u64 };
        ensure!(
            run.outcome == Outcome::Passed && run.packet == packet && run.counted == [(verdict, whole)],
            "{what}: expected to be passed as {verdict:?}, unchanged\n  got {:?} {:?}\n  packet in:{}\n  packet out:{}",
            run.outcome,
            run.counted,
            hex(packet),
            hex(&run.packet),
        );
        Ok(())
    }

    /// Fails unless the packet is transmitted as `expected`, and counted once with `bytes` of application data.
    pub fn expect_sent(
        &self,
        what: &str,
        packet: &[u8],
        direction: Direction,
        bytes: usize,
        expected: &[u8],
    ) -> Result<()> {
        let run = self.run(packet)?;
        let verdict = match direction {
            Direction::ToPeer => Verdict::ToPeer,
            Direction::ToClient => Verdict::ToClient,
        };
        let count = Count { packets: 1, bytes: bytes as u64 };
        ensure!(
            run.outcome == Outcome::Transmitted && run.packet == expected && run.counted == [(verdict, count)],
            "{what}: expected to be sent as {verdict:?} with {bytes} bytes\n  got {:?} {:?}\n  \
             packet in:{}\n  packet out:{}\n  expected:{}",
            run.outcome,
            run.counted,
            hex(packet),
            hex(&run.packet),
            hex(expected),
        );
        Ok(())
    }
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

fn add(sum: Count, count: Count) -> Count {
    Count { packets: sum.packets + count.packets, bytes: sum.bytes + count.bytes }
}
