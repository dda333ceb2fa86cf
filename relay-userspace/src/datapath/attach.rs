//! Which interfaces the program is attached to, and how.

use super::program::{AttachMode, Program, ProgramError};
use super::{AttachedMode, InterfaceStatus, XdpMode};

/// What happened on all interfaces.
pub(super) type Attached = Result<Vec<InterfaceStatus>, ProgramError>;

/// Why `auto` leaves a virtual cable alone. Nothing on this side can tell whether the other end takes what XDP sends: it
/// needs an XDP program there, and without one every packet is lost. Nor is generic XDP a way out: a sender at the other
/// end that leaves segmentation to its link hands over several datagrams as one.
const VETH: &str = "a veth needs an XDP program at its other end; where there is one, ask for --xdp native";

/// Attaches the program to each interface in the mode that was asked for. `auto` tries one after the other and says why
/// one didn't work; an explicit mode works everywhere or is an error. `is_veth` tells the ends of virtual cables.
pub(super) fn attach_all(
    program: &mut Program,
    mode: XdpMode,
    interfaces: &[String],
    is_veth: impl Fn(&str) -> bool,
) -> Attached {
    attach_each(mode, interfaces, is_veth, |interface, mode| program.attach(interface, mode))
}

fn attach_each<E: std::fmt::Display>(
    mode: XdpMode,
    interfaces: &[String],
    is_veth: impl Fn(&str) -> bool,
    mut attach: impl FnMut(&str, AttachMode) -> Result<(), E>,
) -> Result<Vec<InterfaceStatus>, E> {
    let mut statuses = Vec::new();
    for interface in interfaces {
        let status = |mode, reason| InterfaceStatus { interface: interface.clone(), mode, reason };
        statuses.push(match mode {
            XdpMode::Off => status(AttachedMode::None, None),
            XdpMode::Native => {
                attach(interface, AttachMode::Native)?;
                status(AttachedMode::Native, None)
            }
            XdpMode::Generic => {
                attach(interface, AttachMode::Generic)?;
                status(AttachedMode::Generic, None)
            }
            XdpMode::Auto if is_veth(interface) => status(AttachedMode::None, Some(VETH.to_owned())),
            XdpMode::Auto => match attach(interface, AttachMode::Native) {
                Ok(()) => status(AttachedMode::Native, None),
                Err(native) => match attach(interface, AttachMode::Generic) {
                    Ok(()) => status(AttachedMode::Generic, Some(native.to_string())),
                    Err(generic) => status(AttachedMode::None, Some(generic.to_string())),
                },
            },
        });
    }
    Ok(statuses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attach(mode: XdpMode, works: &[AttachMode]) -> Result<Vec<InterfaceStatus>, String> {
        attach_each(
            mode,
            &["eth0".to_owned()],
            |_| false,
            |_, mode| {
                if works.contains(&mode) { Ok(()) } else { Err(format!("no {mode:?}")) }
            },
        )
    }

    fn status(mode: AttachedMode, reason: Option<&str>) -> InterfaceStatus {
        InterfaceStatus { interface: "eth0".to_owned(), mode, reason: reason.map(str::to_owned) }
    }

    #[test]
    fn auto_takes_the_best_that_works_and_says_why() {
        let both = [AttachMode::Native, AttachMode::Generic];
        assert_eq!(attach(XdpMode::Auto, &both), Ok(vec![status(AttachedMode::Native, None)]));
        let generic = status(AttachedMode::Generic, Some("no Native"));
        assert_eq!(attach(XdpMode::Auto, &[AttachMode::Generic]), Ok(vec![generic]));
        assert_eq!(attach(XdpMode::Auto, &[]), Ok(vec![status(AttachedMode::None, Some("no Generic"))]));
    }

    #[test]
    fn a_virtual_cable_is_for_those_who_ask_for_it() {
        let attach = |mode| attach_each(mode, &["eth0".to_owned()], |name| name == "eth0", |_, _| Ok::<(), String>(()));
        assert_eq!(attach(XdpMode::Auto), Ok(vec![status(AttachedMode::None, Some(VETH))]));
        assert_eq!(attach(XdpMode::Native), Ok(vec![status(AttachedMode::Native, None)]));
    }

    #[test]
    fn an_explicit_mode_has_no_second_choice() {
        assert_eq!(attach(XdpMode::Native, &[AttachMode::Generic]), Err("no Native".to_owned()));
        assert_eq!(attach(XdpMode::Generic, &[AttachMode::Native]), Err("no Generic".to_owned()));
    }
}
