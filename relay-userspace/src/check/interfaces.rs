//! The interfaces whose packets would be forwarded in the kernel: what their drivers can do.

use std::net::IpAddr;
use std::path::Path;

use super::{Finding, Findings, read, wants_xdp};
use crate::config::Config;
use crate::datapath::survey::{Surveyed, survey};
use crate::datapath::{StartError, XdpMode};

/// The largest MTU that drivers take with a native program: what fits into a page with what is around it.
const LARGEST_NATIVE_MTU: u32 = 3_498;
/// What IPv6 needs (RFC 8200 section 5).
const SMALLEST_MTU: u32 = 1_280;

/// Drivers that leave too little room in front of packets for some of what becomes longer on its way.
const NARROW: [&str; 2] = ["gve", "veth"];

/// An interface, and what its files in `/sys/class/net` say.
#[derive(Clone, Debug)]
struct Interface {
    surveyed: Surveyed,
    driver: Option<String>,
    is_bridge: bool,
    is_bond: bool,
    /// What it is a port of.
    master: Option<String>,
}

pub(super) fn check(config: &Config) -> Vec<Finding> {
    if !wants_xdp(config) {
        return Vec::new();
    }
    let datagrams = config.listeners.iter().filter(|listener| !listener.transport.is_stream());
    let listening = datagrams.map(|listener| listener.address.ip()).filter(|ip| !ip.is_unspecified());
    let served: Vec<IpAddr> = listening.chain(config.relay_addresses.iter().map(|address| address.bind)).collect();
    match survey(&config.interfaces, &served) {
        Ok(surveyed) => {
            let interfaces: Vec<_> = surveyed.into_iter().map(Interface::read).collect();
            judge(&interfaces, config.xdp)
        }
        Err(error) => unchosen(&error, config.xdp),
    }
}

impl Interface {
    fn read(surveyed: Surveyed) -> Self {
        let folder = Path::new("/sys/class/net").join(&surveyed.name);
        let name_of = |link: &str| {
            let target = std::fs::read_link(folder.join(link)).ok()?;
            Some(target.file_name()?.to_string_lossy().into_owned())
        };
        let is = |kind: &str| folder.join(kind).is_dir();
        let driver = if surveyed.is_veth { Some("veth".to_owned()) } else { name_of("device/driver") };
        let driver = driver.or_else(|| read::text(folder.join("uevent")).and_then(|text| devtype(&text)));
        Self { driver, is_bridge: is("bridge"), is_bond: is("bonding"), master: name_of("master"), surveyed }
    }
}

/// What kind of virtual device it is, from its `uevent`.
fn devtype(uevent: &str) -> Option<String> {
    uevent.lines().find_map(|line| line.strip_prefix("DEVTYPE=").map(str::to_owned))
}

fn unchosen(error: &StartError, mode: XdpMode) -> Vec<Finding> {
    let mut findings = Findings::about("interfaces");
    let text = error.to_string();
    let text = text.strip_prefix("XDP: ").unwrap_or(&text);
    match error {
        StartError::UnknownInterface(_) => findings.error(text, ""),
        _ => findings.without_xdp(mode, text, ""),
    }
    findings.list
}

fn judge(interfaces: &[Interface], mode: XdpMode) -> Vec<Finding> {
    let mut findings = Findings::about("interfaces");
    for interface in interfaces {
        judge_one(&mut findings, interface, mode);
    }
    let refusing = |interface: &&Interface| interface.surveyed.takes_frames == Some(false);
    if interfaces.len() > 1 && mode != XdpMode::Generic {
        for interface in interfaces.iter().filter(refusing) {
            findings.notice(
                format!(
                    "{}: its driver takes no frames that came in by another interface now",
                    interface.surveyed.name
                ),
                "until it does, what leaves by it is relayed in userspace, unless it came in by it",
            );
        }
    }
    findings.list
}

fn judge_one(findings: &mut Findings, interface: &Interface, mode: XdpMode) {
    let Interface { surveyed, driver, is_bridge, is_bond, master } = interface;
    let Surveyed { name, mtu, is_up, is_ethernet, is_veth, is_on_top, is_in_vrf, programs, is_native, .. } = surveyed;
    let driver = driver.as_deref().unwrap_or("unknown");
    let before = findings.list.len();
    if !is_up {
        findings.warning(format!("{name} is down"), format!("ip link set {name} up"));
    }
    if !is_ethernet {
        findings.warning(
            format!("{name} is no Ethernet device: nothing can be forwarded in the kernel there"),
            "name one that is with --interface, or be content with userspace",
        );
    }
    if let Some(master) = master {
        let advice = "packets of a port reach the program before they reach what it is a port of: name what the \
                      addresses are on, and of a bridge the port that leads outside";
        findings.notice(format!("{name} is a port of {master}"), advice);
    }
    if *is_bridge {
        findings.warning(
            format!("{name} is a bridge, whose driver is the kernel's stack: forwarding is slow there"),
            "name the port that leads outside with --interface if it has the same link-layer address",
        );
    }
    if *is_bond {
        findings.notice(format!("{name} is a bond"), "the driver of each of its ports must take XDP, or it is slow");
    }
    if *is_on_top {
        let advice = "name the device below with --interface: that is where frames come in";
        findings.notice(format!("{name} is a device on top of another"), advice);
    }
    if *is_in_vrf {
        let advice = "sockets outside of the VRF do not get what is sent to its addresses: start hairpin inside, by \
                      `ip vrf exec`";
        findings.warning(format!("{name} belongs to a VRF"), advice);
    }
    if !programs.is_empty() {
        let ids = programs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        findings.notice(
            format!("{name} has an XDP program (id {ids})"),
            "if it is not that of a relay that is running, hairpin's cannot be attached: `bpftool prog show id ID` says \
             whose it is",
        );
    }
    if *mtu < SMALLEST_MTU {
        let advice = "IPv6 needs 1280 bytes, and media over TURN some more than peers use between each other";
        findings.warning(format!("{name} has an MTU of {mtu}"), advice);
    }
    if NARROW.contains(&driver) && mode != XdpMode::Generic {
        findings.notice(
            format!("{name}: its driver ({driver}) may leave too little room in front of packets"),
            "those that become longer on their way, as from IPv4 to IPv6, are then relayed in userspace",
        );
    }
    judge_driver(findings, name, driver, *is_veth, *is_native, *mtu, mode);
    if findings.list.len() == before {
        let how = if mode == XdpMode::Generic { "generic XDP" } else { "native XDP" };
        findings.ok(format!("{name}: driver {driver}, {how}, MTU {mtu}"));
    }
}

fn judge_driver(
    findings: &mut Findings,
    name: &str,
    driver: &str,
    is_veth: bool,
    is_native: Option<bool>,
    mtu: u32,
    mode: XdpMode,
) {
    match (mode, is_native) {
        (XdpMode::Auto, _) if is_veth => findings.warning(
            format!("{name} is an end of a virtual cable (veth), which auto leaves alone: userspace relays"),
            "a veth needs an XDP program at its other end; where there is one, ask for --xdp native",
        ),
        (XdpMode::Native, _) if is_veth => findings.warning(
            format!("{name} is an end of a virtual cable (veth)"),
            "without an XDP program at its other end every packet that is forwarded is lost",
        ),
        (XdpMode::Auto, Some(false)) => findings.notice(
            format!("{name}: its driver ({driver}) has no native XDP: generic XDP is taken, which is slower"),
            "",
        ),
        (XdpMode::Native, Some(false)) => {
            let advice = "use --xdp generic, or auto";
            findings.error(format!("{name}: its driver ({driver}) has no native XDP"), advice);
        }
        (XdpMode::Auto | XdpMode::Native, _) if mtu > LARGEST_NATIVE_MTU => findings.warning(
            format!("{name} has an MTU of {mtu}, with which most drivers take no native XDP program"),
            format!("ip link set {name} mtu 1500, or {LARGEST_NATIVE_MTU} at most"),
        ),
        (XdpMode::Auto | XdpMode::Native, None) => findings.notice(
            format!("{name}: driver {driver}; the kernel does not say whether it has native XDP (Linux 6.3 does)"),
            "the log says at the start what was attached",
        ),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Level, expect, levels};
    use super::*;

    fn interface(change: fn(&mut Interface)) -> Interface {
        let surveyed = Surveyed {
            name: "eth0".to_owned(),
            mtu: 1500,
            is_up: true,
            is_ethernet: true,
            is_veth: false,
            is_on_top: false,
            is_in_vrf: false,
            programs: Vec::new(),
            is_native: Some(true),
            takes_frames: Some(true),
        };
        let mut interface =
            Interface { surveyed, driver: Some("ixgbe".to_owned()), is_bridge: false, is_bond: false, master: None };
        change(&mut interface);
        interface
    }

    #[test]
    fn a_driver_with_native_xdp_is_well() {
        for mode in [XdpMode::Auto, XdpMode::Native, XdpMode::Generic] {
            assert_eq!(levels(&judge(&[interface(|_| ())], mode)), [Level::Ok], "{mode:?}");
        }
    }

    #[test]
    fn each_trap_is_told() {
        type Change = fn(&mut Interface);
        let cases: [(Change, Level, &str); 13] = [
            (|it| it.surveyed.is_up = false, Level::Warning, "ip link set eth0 up"),
            (|it| it.surveyed.is_ethernet = false, Level::Warning, "no Ethernet"),
            (|it| it.surveyed.is_veth = true, Level::Warning, "other end"),
            (|it| it.surveyed.is_on_top = true, Level::Notice, "on top of another"),
            (|it| it.surveyed.is_in_vrf = true, Level::Warning, "ip vrf exec"),
            (|it| it.surveyed.programs = vec![7], Level::Notice, "(id 7)"),
            (|it| it.surveyed.mtu = 1000, Level::Warning, "MTU of 1000"),
            (|it| it.surveyed.mtu = 9000, Level::Warning, "3498"),
            (|it| it.surveyed.is_native = Some(false), Level::Notice, "generic XDP"),
            (|it| it.surveyed.is_native = None, Level::Notice, "does not say"),
            (|it| it.driver = Some("gve".to_owned()), Level::Notice, "too little room"),
            (|it| it.is_bridge = true, Level::Warning, "bridge"),
            (|it| it.master = Some("bond0".to_owned()), Level::Notice, "port of bond0"),
        ];
        for (change, level, words) in cases {
            expect(&judge(&[interface(change)], XdpMode::Auto), level, words);
        }
        let slow = interface(|it| it.surveyed.is_native = Some(false));
        expect(&judge(&[slow], XdpMode::Native), Level::Error, "no native XDP");
        let closed = interface(|it| it.surveyed.takes_frames = Some(false));
        expect(&judge(&[closed.clone(), interface(|_| ())], XdpMode::Auto), Level::Notice, "takes no frames");
        assert_eq!(levels(&judge(&[closed], XdpMode::Auto)), [Level::Ok], "alone it sends to itself");
    }

    #[test]
    fn what_was_not_chosen_is_an_error_where_it_was_named() {
        expect(&unchosen(&StartError::UnknownInterface("wan7".to_owned()), XdpMode::Auto), Level::Error, "wan7");
        expect(&unchosen(&StartError::NoDefaultRoute, XdpMode::Auto), Level::Warning, "--interface");
        expect(&unchosen(&StartError::NoDefaultRoute, XdpMode::Native), Level::Error, "--interface");
    }
}
