//! The XDP program: what is relayed is rewritten in the driver and sent straight back out.
//!
//! A packet goes through the files in this order, and leaves for the kernel's stack, untouched, at the first question
//! that has no good answer:
//!
//! 1. [`frame`] is the packet's memory;
//! 2. [`parse`] finds UDP to a port with a role, and [`family`] knows what differs between IPv4 and IPv6;
//! 3. [`route`] finds what to send: [`framing`] takes a client's data out of ChannelData or a Send indication, [`lookup`]
//!    finds the record for a [`key`] and asks [`clock`] whether it is still in force. What goes to a relayed address of
//!    another client is routed a second time;
//! 4. [`egress`] asks whether the next hop can take it, and [`limit`] whether it is too much, moves the head of the frame,
//!    and writes the new headers, for which [`checksum`] has the sums;
//! 5. [`count`] counts the verdict.
//!
//! [`binding`] answers requests that ask for nothing but an address. A datagram to a listener that nobody answers here and
//! that no allocation vouches for has to pass [`limit`] on its way up.
//!
//! Between the stages a packet is a [`transit`]: the same for all framings, IP versions and VLANs, in any mixture.
//!
//! Memory is safe because the kernel's verifier proves it of the compiled program. What it cannot prove is kept here:
//! a passed packet is never changed, because every check comes before the first write; and no record is trusted that
//! another CPU may have been writing.
#![no_std]
#![no_main]
// For the barrier in `lookup` and the exchange in `limit`, since the core library has no atomic operations for this target,
// and for what `transit` hides from the compiler and the verifier.
#![feature(asm_experimental_arch)]

mod binding;
mod checksum;
mod clock;
mod count;
mod egress;
mod family;
mod frame;
mod framing;
mod key;
mod limit;
mod link;
mod lookup;
mod maps;
mod parse;
mod route;
mod transit;

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use hairpin_common::{
    verdict::{Action, Verdict},
    wire::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, VLAN_TAG_LEN},
};

use crate::{
    family::{Family, V4, V6},
    frame::{Context, Frame},
    parse::To,
    route::Next,
    transit::Transit,
};

/// The program's entry.
#[xdp]
fn hairpin(context: XdpContext) -> u32 {
    match relay(context.ctx) {
        Ok(action) => action,
        Err(verdict) => {
            count::not_sent(verdict, Frame::of(context.ctx).length());
            match verdict.action() {
                Action::Pass => xdp_action::XDP_PASS,
                Action::Drop | Action::Transmit => xdp_action::XDP_DROP,
            }
        }
    }
}

/// The whole way of a packet. The answer is what the driver is to do.
///
/// What most packets need is inlined here, once: where kernels guard returns against speculation, one costs as much as
/// the lookup.
#[inline(always)]
fn relay(context: Context) -> Result<u32, Verdict> {
    let mut transit = MaybeUninit::uninit();
    let mut next = receive_any(context, &mut transit)?;
    // SAFETY: what was received is written there.
    let transit = unsafe { transit.assume_init_mut() };
    transit.forget();
    if let Next::Channel | Next::FromPeer = next {
        next = route::by_key(context, transit, next)?;
    }
    if let Next::Indication = next {
        next = route::from_indication(context, transit).or_else(route::unless_known)?;
    }
    if let Next::Unknown(verdict) = next {
        return Err(limit::admit_unknown(context, transit, verdict));
    }
    if let Next::ToRelayed | Next::NoChannel = next {
        let result = route::to_relayed(context, transit, next);
        result.map_err(|verdict| unless_for_another(context, transit, verdict))?;
        next = Next::Send;
    }
    if let Next::Send = next {
        transit.forget();
        egress::send(context, transit)?;
    }
    count::sent(transit);
    Ok(match transit.redirect {
        0 => xdp_action::XDP_TX,
        interface => {
            let flags = u64::from(xdp_action::XDP_DROP);
            maps::DEVICES.redirect(interface as u32, flags).unwrap_or_else(|action| action)
        }
    })
}

/// What is for another host, and only seen in passing, is not for this one to drop.
#[inline(always)]
fn unless_for_another(context: Context, transit: &Transit, verdict: Verdict) -> Verdict {
    let frame = Frame::of(context);
    if matches!(verdict.action(), Action::Drop) && !link::is_for_this_host(&frame, transit.tag & link::VLAN_ID) {
        return Verdict::OtherHost;
    }
    verdict
}

/// Finds out what the frame carries.
#[inline(always)]
fn receive_any(context: Context, transit: &mut MaybeUninit<Transit>) -> Result<Next, Verdict> {
    let frame = Frame::of(context);
    if !frame.holds(ETHERNET_LEN + VLAN_TAG_LEN) {
        return Err(Verdict::NotUdp);
    }
    match u16::from_be(frame.load(ETHERNET_LEN - 2)) {
        ETHERTYPE_IPV4 => receive::<V4, false>(&frame, context, transit),
        ETHERTYPE_IPV6 => receive::<V6, false>(&frame, context, transit),
        ETHERTYPE_VLAN => match u16::from_be(frame.load(ETHERNET_LEN + VLAN_TAG_LEN - 2)) {
            ETHERTYPE_IPV4 => receive::<V4, true>(&frame, context, transit),
            ETHERTYPE_IPV6 => receive::<V6, true>(&frame, context, transit),
            _ => Err(Verdict::NotUdp),
        },
        _ => Err(Verdict::NotUdp),
    }
}

/// What depends on the IP version and the VLAN tag that a packet came with.
#[inline(always)]
fn receive<F: Family, const TAGGED: bool>(
    frame: &Frame,
    context: Context,
    transit: &mut MaybeUninit<Transit>,
) -> Result<Next, Verdict> {
    let (to, parsed) = parse::parse::<F, TAGGED>(frame)?;
    let transit = transit.write(parsed);
    match to {
        To::Relayed => Ok(Next::FromPeer),
        To::Listener => route::from_client::<F, TAGGED>(frame, context, transit).or_else(route::unless_known),
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Nothing here panics; the verifier would refuse a program with a way into this loop.
    loop {}
}

/// Needed for the helpers this program calls; the sources are under the terms in Cargo.toml.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
