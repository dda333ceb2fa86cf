//! The XDP program in the kernel: loading it, its maps, and attaching it to interfaces.
//!
//! Nothing here decides what is in the maps. Dropping a [`Program`] detaches it everywhere and frees it, so that a relay
//! that ends leaves nothing behind.

use std::{
    error::Error,
    fs, io,
    os::fd::{AsFd, BorrowedFd},
};

use aya::{
    Ebpf,
    maps::{Array, DevMapHash, HashMap, Map, MapData, MapError, PerCpuArray},
    programs::{self, TestRun as _, TestRunOptions, Xdp, XdpError, XdpMode, xdp::XdpLinkId},
};
use hairpin_common::hash::Seed;
use hairpin_common::limit::Meter;
use hairpin_common::maps::{
    ALLOCATION_STATES, ALLOCATIONS, AllocationCount, AllocationState, Count, DEVICES, FLOWS, LINK_CAPACITY, LINKS,
    Link, LinkAddress, NEXT_HOP_CAPACITY, NEXT_HOPS, NextHop, PORT_ROLES, PortSlot, RELAY_ADDRESS_CAPACITY,
    RELAY_ADDRESSES, RELAY_STATE, RelayAddress, RelayState, SOURCE_METERS, SOURCES, TAGS, VERDICTS,
};
use hairpin_common::slot::{Bucket, buckets_for};
use hairpin_common::tags::Tags;
use hairpin_common::verdict::Verdict;
use ring::rand::{SecureRandom as _, SystemRandom};
use thiserror::Error;

use super::allocation_counts::AllocationCounts;
use super::flow_map::FlowMap;
use super::shared_state::SharedState;

/// Names of the programs in the object: the one that relays, and the one that reads the kernel's jiffies.
const NAME: &str = "hairpin";
const CLOCK: &str = "clock";
/// Names of what [`Calibration`] tells the program.
const NANOSECONDS_PER_JIFFY: &str = "NANOSECONDS_PER_JIFFY";
const MONOTONIC_AT_JIFFY_ZERO: &str = "MONOTONIC_AT_JIFFY_ZERO";
/// Names of what else the loader tells it.
const BUCKET_COUNT: &str = "BUCKET_COUNT";
const FLOW_SEED: &str = "FLOW_SEED";
const ID_SEED: &str = "ID_SEED";
const ALLOCATION_COUNT: &str = "ALLOCATION_COUNT";
const WEAKLY_ORDERED: &str = "WEAKLY_ORDERED";
const ANSWER_BINDING: &str = "ANSWER_BINDING";

/// Sizes of the maps that depend on configuration. The memory is taken when the program is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Capacities {
    /// Records: two for each relayed address, one for each permission, two for each channel and each media path, one for
    /// each listener, one for each client that is vouched for.
    pub records: u32,
    /// Allocations and media paths that have counters and limits of their own.
    pub allocations: u32,
}

impl Capacities {
    /// Bytes that the values of all maps take on a host with this many CPUs, without the kernel's own bookkeeping.
    pub fn bytes(self, cpus: u32) -> u64 {
        let Self { records, allocations } = self.at_least_one();
        let maps: [(u32, u32, usize); 11] = [
            (1, buckets_for(records), size_of::<Bucket>()),
            (1, buckets_for(records), size_of::<Tags>()),
            (1, PortSlot::ENTRIES, size_of::<u64>()),
            (1, NEXT_HOP_CAPACITY, size_of::<NextHop>()),
            (1, RELAY_ADDRESS_CAPACITY, size_of::<RelayAddress>()),
            (1, LINK_CAPACITY, size_of::<Link>() + size_of::<LinkAddress>()),
            (cpus, Verdict::COUNT as u32, size_of::<Count>()),
            (cpus, allocations, size_of::<AllocationCount>()),
            (1, allocations, size_of::<AllocationState>()),
            (1, SOURCE_METERS, size_of::<Meter>()),
            (1, 1, size_of::<RelayState>()),
        ];
        maps.iter().map(|(copies, values, bytes)| u64::from(*copies) * u64::from(*values) * *bytes as u64).sum()
    }

    /// No map can be empty.
    fn at_least_one(self) -> Self {
        Self { records: self.records.max(1), allocations: self.allocations.max(1) }
    }
}

/// Where on its way in a packet meets the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver, before the kernel makes anything of the packet.
    Native,
    /// In the kernel's stack: works with every driver, at a fraction of the speed.
    Generic,
}

impl From<AttachMode> for XdpMode {
    fn from(mode: AttachMode) -> Self {
        match mode {
            AttachMode::Native => Self::Driver,
            AttachMode::Generic => Self::Skb,
        }
    }
}

/// Why the program is not in the kernel, or not where it should be; the text says what to do about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// The feature `xdp` was off when the binary was built.
    #[error("this hairpin was built without the XDP program: run deploy/setup.sh and build with the feature `xdp`")]
    NotBuilt,
    /// `EPERM`.
    #[error("not allowed to {0}: run as root, or with the capabilities CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN")]
    NotPermitted(&'static str),
    /// The kernel has not enough memory for the maps.
    #[error("no memory for BPF maps of this size: lower the number of allocations ({0})")]
    NoMemory(io::Error),
    /// The object does not hold what this binary expects.
    #[error("the XDP program does not match this binary, it has no usable `{0}`: build hairpin again")]
    Mismatch(&'static str),
    /// [`Program::take_maps`] was called before.
    #[error("the maps were already taken")]
    MapsTaken,
    /// The kernel or its verifier refused to load it.
    #[error("the kernel refused the XDP program (Linux 5.15 or newer is needed): {0}")]
    Refused(String),
    /// The kernel does not say how many CPUs there are.
    #[error("cannot read the number of CPUs: {0}")]
    Cpus(io::Error),
    /// The system has no random numbers to give.
    #[error("the system's random number generator does not answer")]
    Random,
    /// The system's clocks cannot be read.
    #[error("cannot read the monotonic clock: {0}")]
    Clock(io::Error),
    /// No interface of that name.
    #[error("there is no network interface {0}: `ip link` lists those that exist")]
    UnknownInterface(String),
    /// `EBUSY`: the interface has a program already.
    #[error("another XDP program is attached to {0}: stop what attached it (`ip link show {0}` shows its id)")]
    Busy(String),
    /// The driver does not take it, or not with the interface's settings, such as a large MTU.
    #[error(
        "the driver of {interface} takes no native XDP program with its present settings ({source}): \
         use --xdp generic, or lower its MTU to 3498 or less, and see `dmesg`"
    )]
    NativeRefused {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Any other refusal.
    #[error("cannot attach the XDP program to {interface}: {source}")]
    Attach {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: programs::ProgramError,
    },
}

/// The maps of a loaded program, each with the types of [`hairpin_common::maps`].
pub struct Maps {
    /// Records by key.
    pub flows: FlowMap,
    /// Port roles, packed as [`hairpin_common::maps::PortSlot`] says.
    pub port_roles: Array<MapData, u64>,
    /// Next hops by their index in records.
    pub next_hops: Array<MapData, NextHop>,
    /// Relay addresses by their index in records.
    pub relay_addresses: Array<MapData, RelayAddress>,
    /// The links whose packets are ours.
    pub links: HashMap<MapData, Link, LinkAddress>,
    /// The interfaces that packets may be redirected to: keys and values are their indices.
    pub devices: DevMapHash<MapData>,
    /// Packets by [`hairpin_common::verdict::Verdict`].
    pub verdicts: PerCpuArray<MapData, Count>,
    /// Packets by allocation.
    pub allocations: AllocationCounts,
    /// The states of allocations, sources and the relay.
    pub state: SharedState,
}

/// The XDP program, loaded into the kernel.
#[derive(Debug)]
pub struct Program {
    ebpf: Ebpf,
    setting: Setting,
}

impl Program {
    /// Loads the program that is built into this binary, and makes its maps, all empty. Unless it is to `answer_binding`,
    /// it leaves Binding requests to the daemon. It knows no limits before [`SharedState::set_limits`].
    pub fn load(capacities: Capacities, answer_binding: bool) -> Result<Self, ProgramError> {
        let object = object()?;
        let calibration = Calibration::measure(object)?;
        let setting = Setting::draw(capacities, answer_binding)?;
        let mut ebpf = load_object(object, &setting, calibration)?;
        program_mut(&mut ebpf, NAME)?.load().map_err(refused)?;
        Ok(Self { ebpf, setting })
    }

    /// The maps, once.
    pub fn take_maps(&mut self) -> Result<Maps, ProgramError> {
        let Setting { capacities: Capacities { records, allocations }, cpus, seed, .. } = self.setting;
        let [flows, tags, counts, states, relay_state, sources] =
            [FLOWS, TAGS, ALLOCATIONS, ALLOCATION_STATES, RELAY_STATE, SOURCES].map(|name| self.take_array(name));
        let state = SharedState::of_arrays(states?.fd(), relay_state?.fd(), sources?.fd(), allocations, seed);
        Ok(Maps {
            flows: FlowMap::new(flows?.fd(), tags?.fd(), records, seed).map_err(ProgramError::NoMemory)?,
            port_roles: self.take(PORT_ROLES)?,
            next_hops: self.take(NEXT_HOPS)?,
            relay_addresses: self.take(RELAY_ADDRESSES)?,
            links: self.take(LINKS)?,
            devices: self.take(DEVICES)?,
            verdicts: self.take(VERDICTS)?,
            allocations: AllocationCounts::new(counts?.fd(), cpus, allocations).map_err(ProgramError::NoMemory)?,
            state: state.map_err(ProgramError::NoMemory)?,
        })
    }

    /// Bytes that the maps take, see [`Capacities::bytes`].
    pub fn map_bytes(&self) -> u64 {
        self.setting.capacities.bytes(self.setting.cpus)
    }

    /// Attaches the program to an interface, until the program is dropped.
    pub fn attach(&mut self, interface: &str, mode: AttachMode) -> Result<(), ProgramError> {
        // aya expects a name that fits into a C string.
        if interface.contains('\0') {
            return Err(ProgramError::UnknownInterface(interface.to_owned()));
        }
        program_mut(&mut self.ebpf, NAME)?
            .attach(interface, mode.into())
            .map(|_| ())
            .map_err(|error| not_attached(interface, mode, error))
    }

    /// Attaches the program to the device with an index, until it is detached or the program is dropped. `interface` is
    /// its name, for errors.
    pub fn attach_at(&mut self, interface: &str, index: u32, mode: AttachMode) -> Result<XdpLinkId, ProgramError> {
        program_mut(&mut self.ebpf, NAME)?
            .attach_to_if_index(index, mode.into())
            .map_err(|error| not_attached(interface, mode, error))
    }

    /// Detaches what [`Program::attach_at`] attached, whatever has become of the device.
    pub fn detach(&mut self, attached: XdpLinkId) {
        let detached = program_mut(&mut self.ebpf, NAME).map(|program| program.detach(attached));
        if let Ok(Err(error)) = detached {
            tracing::debug!(%error, "the program could not be detached");
        }
    }

    /// The kernel's number of the program, as `ip link` shows it.
    pub fn id(&self) -> Result<u32, ProgramError> {
        let info = self.xdp()?.info().map_err(|error| ProgramError::Refused(error.to_string()))?;
        Ok(info.id())
    }

    /// The program as aya knows it, for test runs.
    pub fn xdp(&self) -> Result<&Xdp, ProgramError> {
        let program = self.ebpf.program(NAME).ok_or(ProgramError::Mismatch(NAME))?;
        program.try_into().map_err(|_| ProgramError::Mismatch(NAME))
    }

    /// The program's file descriptor.
    pub fn fd(&self) -> Result<BorrowedFd<'_>, ProgramError> {
        Ok(self.xdp()?.fd().map_err(|_| ProgramError::Mismatch(NAME))?.as_fd())
    }

    fn take_array(&mut self, name: &'static str) -> Result<MapData, ProgramError> {
        match self.ebpf.take_map(name) {
            Some(Map::Array(array)) => Ok(array),
            Some(_) => Err(ProgramError::Mismatch(name)),
            None => Err(ProgramError::MapsTaken),
        }
    }

    fn take<T: TryFrom<Map, Error = MapError>>(&mut self, name: &'static str) -> Result<T, ProgramError> {
        let map = self.ebpf.take_map(name).ok_or(ProgramError::MapsTaken)?;
        map.try_into().map_err(|_| ProgramError::Mismatch(name))
    }
}

#[cfg(feature = "xdp")]
#[allow(clippy::unnecessary_wraps, reason = "without the feature there is none")]
fn object() -> Result<&'static [u8], ProgramError> {
    Ok(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/hairpin.bpf.o")))
}

#[cfg(not(feature = "xdp"))]
fn object() -> Result<&'static [u8], ProgramError> {
    Err(ProgramError::NotBuilt)
}

fn load_object(object: &[u8], setting: &Setting, calibration: Calibration) -> Result<Ebpf, ProgramError> {
    let Setting { capacities, answer_binding, cpus, seed, id_seed } = setting;
    let Capacities { records, allocations } = capacities;
    let buckets = buckets_for(*records);
    // The bound for loads in order is x86's; any other machine is taken for one that may reorder them.
    let weakly_ordered = u32::from(!cfg!(any(target_arch = "x86", target_arch = "x86_64")));
    aya::EbpfLoader::new()
        .override_global(NANOSECONDS_PER_JIFFY, &calibration.nanoseconds_per_jiffy, true)
        .override_global(MONOTONIC_AT_JIFFY_ZERO, &calibration.monotonic_at_jiffy_zero, true)
        .override_global(BUCKET_COUNT, &buckets, true)
        .override_global(FLOW_SEED, seed, true)
        .override_global(ID_SEED, id_seed, true)
        .override_global(ALLOCATION_COUNT, allocations, true)
        .override_global(WEAKLY_ORDERED, &weakly_ordered, true)
        .override_global(ANSWER_BINDING, &u32::from(*answer_binding), true)
        .map_max_entries(FLOWS, buckets)
        .map_max_entries(TAGS, buckets)
        .map_max_entries(ALLOCATIONS, cpus.saturating_mul(*allocations))
        .map_max_entries(ALLOCATION_STATES, *allocations)
        .load(object)
        .map_err(refused)
}

fn program_mut<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, ProgramError> {
    let program = ebpf.program_mut(name).ok_or(ProgramError::Mismatch(name))?;
    program.try_into().map_err(|_| ProgramError::Mismatch(name))
}

/// What a program is loaded with.
#[derive(Clone, Copy, Debug)]
struct Setting {
    capacities: Capacities,
    answer_binding: bool,
    cpus: u32,
    seed: Seed,
    id_seed: [u64; 3],
}

impl Setting {
    fn draw(capacities: Capacities, answer_binding: bool) -> Result<Self, ProgramError> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| ProgramError::Cpus(error))?;
        let [seed, [a, b, c, ..]] = [random_seed()?, random_seed()?];
        let (capacities, cpus, id_seed) = (capacities.at_least_one(), cpus as u32, [a, b, c]);
        Ok(Self { capacities, answer_binding, cpus, seed, id_seed })
    }
}

/// A seed that nobody can guess.
pub(super) fn random_seed() -> Result<Seed, ProgramError> {
    let mut seed = Seed::default();
    for word in &mut seed {
        let mut bytes = [0; 8];
        SystemRandom::new().fill(&mut bytes).map_err(|_| ProgramError::Random)?;
        *word = u64::from_ne_bytes(bytes);
    }
    Ok(seed)
}

/// How the program turns jiffies, the only clock it can read for nothing, into `CLOCK_MONOTONIC`.
///
/// The kernel counts a jiffy whenever a fixed number of nanoseconds of that clock has passed, so this holds for as long
/// as the kernel runs.
#[derive(Clone, Copy, Debug, Default)]
struct Calibration {
    nanoseconds_per_jiffy: u64,
    /// Modulo 2^64: the kernel starts to count below zero.
    monotonic_at_jiffy_zero: u64,
}

impl Calibration {
    fn measure(object: &[u8]) -> Result<Self, ProgramError> {
        let capacities = Capacities { records: 1, allocations: 1 };
        let least = Setting { capacities, answer_binding: true, cpus: 1, seed: Seed::default(), id_seed: [0; 3] };
        let mut ebpf = load_object(object, &least, Self::default())?;
        let clock = program_mut(&mut ebpf, CLOCK)?;
        clock.load().map_err(refused)?;
        // The kernel takes nothing shorter than an Ethernet header.
        let (packet, mut out) = ([0; 14], [0; 14]);
        let options = TestRunOptions { data_in: Some(&packet), data_out: Some(&mut out), ..TestRunOptions::new() };
        clock.test_run(options).map_err(refused)?;
        let monotonic = clock::monotonic()?;
        let (jiffies, _) = out.split_first_chunk().ok_or(ProgramError::Mismatch(CLOCK))?;
        // The coarse clock steps once a jiffy.
        let nanoseconds_per_jiffy = clock::coarse_resolution()?;
        let elapsed = u64::from_ne_bytes(*jiffies).wrapping_mul(nanoseconds_per_jiffy);
        Ok(Self { nanoseconds_per_jiffy, monotonic_at_jiffy_zero: monotonic.wrapping_sub(elapsed) })
    }
}

mod clock {
    //! Two clocks that the standard library does not tell the numbers of.
    #![allow(unsafe_code, reason = "clock_gettime(2)")]

    use super::{ProgramError, io};

    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub(super) fn monotonic() -> Result<u64, ProgramError> {
        // SAFETY: the pointer is to a timespec.
        read(|time| unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, time) })
    }

    /// The step of `CLOCK_MONOTONIC_COARSE` in nanoseconds.
    pub(super) fn coarse_resolution() -> Result<u64, ProgramError> {
        // SAFETY: the pointer is to a timespec.
        read(|time| unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, time) })
    }

    fn read(call: impl FnOnce(*mut libc::timespec) -> libc::c_int) -> Result<u64, ProgramError> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        if call(&raw mut time) != 0 {
            return Err(ProgramError::Clock(io::Error::last_os_error()));
        }
        Ok(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
    }
}

/// Tells the refusals apart that an operator can do something about.
fn refused(error: impl Error + 'static) -> ProgramError {
    let code = os_error(&error).and_then(io::Error::raw_os_error);
    match code {
        Some(libc::EPERM) => ProgramError::NotPermitted("load BPF programs"),
        // Without CAP_PERFMON the verifier refuses to let a program compute the length of a packet.
        Some(libc::EACCES) if !has_perfmon() => ProgramError::NotPermitted("load BPF programs"),
        Some(code @ (libc::ENOMEM | libc::E2BIG)) => ProgramError::NoMemory(io::Error::from_raw_os_error(code)),
        _ => ProgramError::Refused(summary(&error)),
    }
}

/// Whether this process has CAP_PERFMON, as far as /proc tells.
fn has_perfmon() -> bool {
    const CAP_PERFMON: u32 = 38;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_none_or(|mask| mask >> CAP_PERFMON & 1 == 1)
}

fn not_attached(interface: &str, mode: AttachMode, error: programs::ProgramError) -> ProgramError {
    let interface = interface.to_owned();
    let code = match &error {
        programs::ProgramError::UnknownInterface { .. } => return ProgramError::UnknownInterface(interface),
        programs::ProgramError::XdpError(XdpError::NetlinkError(error))
        | programs::ProgramError::NetlinkError(error) => error.raw_os_error(),
        error => os_error(error).and_then(io::Error::raw_os_error),
    };
    match (code, mode) {
        (Some(libc::EPERM), _) => ProgramError::NotPermitted("attach an XDP program"),
        (Some(libc::EBUSY | libc::EEXIST), _) => ProgramError::Busy(interface),
        (Some(libc::ENODEV), _) => ProgramError::UnknownInterface(interface),
        (
            Some(code @ (libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE | libc::ENOMEM | libc::ENOSPC)),
            AttachMode::Native,
        ) => ProgramError::NativeRefused { interface, source: io::Error::from_raw_os_error(code) },
        _ => ProgramError::Attach { interface, source: error },
    }
}

/// The operating system's error at the root of another one.
fn os_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut error = Some(error);
    while let Some(current) = error {
        if let Some(found) = current.downcast_ref::<io::Error>().filter(|found| found.raw_os_error().is_some()) {
            return Some(found);
        }
        error = current.source();
    }
    None
}

/// An error with all its causes, in one line. Of the verifier's account, which is as long as the program, the line that
/// says what it did not like.
fn summary(error: &dyn Error) -> String {
    let mut text = String::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let whole = error.to_string();
        let statistics = ["processed ", "verification time ", "stack depth ", "mark_precise"];
        let (first, account) = whole.split_once(" Verifier output:").unwrap_or((&whole, ""));
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(first.lines().next().unwrap_or_default().trim());
        let mut lines = account.lines().filter(|line| !statistics.iter().any(|start| line.trim().starts_with(start)));
        if let Some(last) = lines.rfind(|line| !line.trim().is_empty()) {
            text.push_str(": ");
            text.push_str(last.trim());
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_the_maps_grows_with_what_is_configured() {
        let bytes = |records, allocations, cpus| Capacities { records, allocations }.bytes(cpus);
        let base = bytes(1000, 100, 2);
        assert_eq!(
            bytes(1600, 100, 2) - base,
            100 * (8 * 128 + 8),
            "for six records eight slots of two lines, and tags"
        );
        assert_eq!(bytes(1000, 200, 2) - base, 100 * (2 * 32 + 64), "counters on both CPUs, and a state");
        assert!(bytes(1000, 100, 3) > base && bytes(0, 0, 1) > 0);
    }

    #[derive(Debug, Error)]
    #[error("{0}")]
    struct Account(&'static str, #[source] io::Error);

    #[test]
    fn a_refusal_is_one_line_that_says_what_the_verifier_did_not_like() {
        let account = "loading failed. Verifier output: 0: R1=ctx() R10=fp0\n1: (61) r8 = *(u32 *)(r1 +4)\n\
                       R8 pointer -= pointer prohibited\nverification time 617 usec\nprocessed 56 insns\n";
        let error = Account(account, io::Error::from_raw_os_error(libc::EACCES));
        let expected = "loading failed.: R8 pointer -= pointer prohibited: Permission denied (os error 13)";
        assert_eq!(summary(&error), expected);
        let short = Account(
            "it failed. Verifier output: combined stack size of 3 calls is 528. Too large\nverification time 1 usec\n",
            io::Error::from_raw_os_error(libc::EACCES),
        );
        let expected = "it failed.: combined stack size of 3 calls is 528. Too large: Permission denied (os error 13)";
        assert_eq!(summary(&short), expected, "an account of one line");
        assert_eq!(os_error(&error).and_then(io::Error::raw_os_error), Some(libc::EACCES));
    }
}
