//! What forwarding in the kernel needs of the kernel.

use super::{Finding, Findings, read, wants_xdp};
use crate::capacity::Capacity;
use crate::config::Config;
use crate::datapath::XdpMode;
use crate::datapath::program::Capacities;

/// The oldest kernel that loads the program.
pub(crate) const OLDEST: (u32, u32) = (5, 15);

// linux/capability.h
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// What there is to know.
#[derive(Clone, Debug)]
struct Kernel {
    release: String,
    has_types: bool,
    /// `bpf_jit_enable`.
    jit: Option<u64>,
    /// The effective capabilities of this process.
    capabilities: u64,
    /// What the kernel keeps even root from, as `/sys/kernel/security/lockdown` says it.
    lockdown: Option<String>,
    /// Bytes of the maps, and of the memory that is left.
    maps: u64,
    available: Option<u64>,
}

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let kernel = Kernel::read(config);
    if wants_xdp(config) { judge(&kernel, config.xdp, cfg!(feature = "xdp")) } else { unused(&kernel, config.xdp) }
}

impl Kernel {
    fn read(config: &Config) -> Self {
        let capacity = Capacity::of(config);
        let capacities = Capacities { records: capacity.records, allocations: capacity.allocations };
        let status = read::text("/proc/self/status").unwrap_or_default();
        let memory = read::text("/proc/meminfo").unwrap_or_default();
        let after = |text: &str, name: &str| -> Option<String> {
            text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
        };
        let capabilities = after(&status, "CapEff:").and_then(|hex| u64::from_str_radix(&hex, 16).ok());
        let available = after(&memory, "MemAvailable:").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32);
        Self {
            release: read::sysctl("kernel/osrelease").unwrap_or_default(),
            has_types: std::fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false),
            jit: read::number("net/core/bpf_jit_enable"),
            capabilities: capabilities.unwrap_or(0),
            lockdown: read::text("/sys/kernel/security/lockdown"),
            maps: capacities.bytes(cpus),
            available: available.map(|kilobytes| kilobytes * 1024),
        }
    }
}

fn unused(kernel: &Kernel, mode: XdpMode) -> Vec<Finding> {
    let why = match mode {
        XdpMode::Off => "--xdp is off",
        _ => "only this host, or clients without datagrams, can reach the relay",
    };
    Findings::about("kernel").or_ok(format!("Linux {}; {why}: userspace relays", kernel.release))
}

fn judge(kernel: &Kernel, mode: XdpMode, is_built: bool) -> Vec<Finding> {
    let mut findings = Findings::about("kernel");
    let Kernel { release, has_types, jit, capabilities, lockdown, maps, available } = kernel;
    if !is_built {
        findings.without_xdp(mode, "this hairpin was built without the XDP program", "build it with the feature `xdp`");
    }
    if version(release).is_some_and(|version| version < OLDEST) {
        let (major, minor) = OLDEST;
        let advice = format!("forwarding in the kernel needs Linux {major}.{minor} or newer");
        findings.without_xdp(mode, format!("Linux {release} is too old"), advice);
    }
    if !has_types {
        let advice = "Linux built with CONFIG_DEBUG_INFO_BTF has it, as those of all distributions are";
        findings.without_xdp(mode, "the kernel has no BTF (/sys/kernel/btf/vmlinux)", advice);
    }
    if *jit == Some(0) {
        findings.warning(
            "BPF programs are interpreted, which takes many times as long",
            "sysctl net.core.bpf_jit_enable=1",
        );
    }
    let has = |capability: u32| capabilities >> capability & 1 == 1;
    let needed = [("CAP_BPF", CAP_BPF), ("CAP_PERFMON", CAP_PERFMON), ("CAP_NET_ADMIN", CAP_NET_ADMIN)];
    let is_missing =
        |(_, capability): &&(&str, u32)| !has(*capability) && (*capability == CAP_NET_ADMIN || !has(CAP_SYS_ADMIN));
    let missing: Vec<_> = needed.iter().filter(is_missing).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        let advice = "run it as root, or with AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_NET_ADMIN of systemd";
        findings.without_xdp(mode, format!("{} missing", missing.join(" and ")), advice);
    }
    if lockdown.as_ref().is_some_and(|lockdown| lockdown.contains("[confidentiality]")) {
        let advice = "lockdown=integrity on the kernel's command line allows BPF programs";
        findings.without_xdp(mode, "the kernel is locked down (confidentiality)", advice);
    }
    let megabytes = maps.div_ceil(1 << 20);
    if available.is_some_and(|available| available < *maps) {
        let advice = "lower --max-allocations or --kernel-records";
        findings.without_xdp(mode, format!("the kernel's maps would take {megabytes} MiB, more than is free"), advice);
    }
    findings.or_ok(format!("Linux {release}, BTF, JIT and all capabilities; the maps would take {megabytes} MiB"))
}

/// Major and minor.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::{Level, expect, levels};
    use super::*;

    fn good() -> Kernel {
        Kernel {
            release: "6.12.48+deb13-amd64".to_owned(),
            has_types: true,
            jit: Some(1),
            capabilities: u64::MAX,
            lockdown: Some("[none] integrity confidentiality".to_owned()),
            maps: 30 << 20,
            available: Some(1 << 30),
        }
    }

    #[test]
    fn a_kernel_with_everything_is_well() {
        assert_eq!(levels(&judge(&good(), XdpMode::Native, true)), [Level::Ok]);
    }

    #[test]
    fn what_is_missing_is_an_error_where_xdp_must_be_had() {
        let own = |change: fn(&mut Kernel)| {
            let mut kernel = good();
            change(&mut kernel);
            kernel
        };
        for (kernel, words) in [
            (own(|kernel| kernel.release = "5.10.0-1".to_owned()), "5.15 or newer"),
            (own(|kernel| kernel.has_types = false), "no BTF"),
            (own(|kernel| kernel.capabilities = !(1 << CAP_BPF | 1 << CAP_SYS_ADMIN)), "CAP_BPF missing"),
            (own(|kernel| kernel.capabilities = 0), "CAP_BPF and CAP_PERFMON and CAP_NET_ADMIN missing"),
            (own(|kernel| kernel.lockdown = Some("none integrity [confidentiality]".to_owned())), "locked down"),
            (own(|kernel| kernel.available = Some(1 << 20)), "30 MiB"),
        ] {
            expect(&judge(&kernel, XdpMode::Generic, true), Level::Error, words);
            expect(&judge(&kernel, XdpMode::Auto, true), Level::Warning, words);
        }
        expect(&judge(&good(), XdpMode::Native, false), Level::Error, "built without");
        expect(&judge(&own(|kernel| kernel.jit = Some(0)), XdpMode::Native, true), Level::Warning, "bpf_jit_enable=1");
        let old_rights = own(|kernel| kernel.capabilities = 1 << CAP_SYS_ADMIN | 1 << CAP_NET_ADMIN);
        assert_eq!(levels(&judge(&old_rights, XdpMode::Native, true)), [Level::Ok], "it includes the newer two");
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(version("6.1.0-38-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("5.15"), Some((5, 15)));
        assert_eq!(version("unknown"), None);
    }
}
