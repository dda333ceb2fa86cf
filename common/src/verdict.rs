//! What the XDP program did with a packet, and why: one verdict, one counter, one metric label.

/// What happens to a packet with a given verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It was rewritten and sent out.
    Transmit,
    /// It goes on to the kernel's stack, untouched.
    Pass,
    /// It ends here.
    Drop,
}

macro_rules! verdicts {
    ($($(#[$doc:meta])* $name:ident = $action:ident, $label:literal;)*) => {
        /// Why the program transmitted, passed or dropped a packet. The number is the index of its counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Verdict {
            $($(#[$doc])* $name,)*
        }

        impl Verdict {
            /// Every verdict, in the order of its counters.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What happens to the packet.
            #[inline(always)]
            pub const fn action(self) -> Action {
                match self { $(Self::$name => Action::$action,)* }
            }

            /// The name in metrics and reports.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

verdicts! {
    /// ChannelData of a client was unwrapped and sent to its peer.
    ToPeer = Transmit, "to_peer";
    /// A datagram of a peer was wrapped in ChannelData and sent to its client.
    ToClient = Transmit, "to_client";
    /// Not IPv4 or IPv6 with UDP directly behind it, cut short, or with lengths or a header checksum that do not fit.
    NotUdp = Pass, "not_udp";
    /// UDP to a port that has no role.
    NotOurs = Pass, "not_ours";
    /// A fragment; the kernel reassembles it for the socket.
    Fragment = Pass, "fragment";
    /// An IPv4 header with options.
    IpOptions = Pass, "ip_options";
    /// To a listener, and not ChannelData.
    Control = Pass, "control";
    /// ChannelData whose length does not fit its datagram.
    Malformed = Pass, "malformed";
    /// No record for these addresses, ports and channel.
    NoFlow = Pass, "no_flow";
    /// The record's time is over.
    Expired = Pass, "expired";
    /// The record was being replaced while it was read.
    Torn = Pass, "torn";
    /// The record asks for a translation that this program does not do.
    Unsupported = Pass, "unsupported";
    /// A hop limit that would leave as zero.
    HopLimit = Pass, "hop_limit";
    /// The next hop is not known (any more).
    NextHop = Pass, "next_hop";
    /// The next hop is behind another interface or VLAN.
    OtherLink = Pass, "other_link";
    /// The frame was not addressed to the interface's own link-layer address: another host's, seen in passing.
    OtherHost = Pass, "other_host";
    /// The packet would outgrow the MTU of the next hop's link.
    TooBig = Pass, "too_big";
    /// The driver left no room in front of the packet.
    NoHeadroom = Pass, "no_headroom";
    /// The packet was changed and then could not be finished: a defect of the program.
    Broken = Drop, "broken";
}

impl Verdict {
    /// How many verdicts there are: the size of the counter array.
    pub const COUNT: usize = Self::ALL.len();
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_verdict_has_its_own_counter_and_label() {
        let mut labels = HashSet::new();
        for (index, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*verdict as usize, index);
            assert!(labels.insert(verdict.label()), "{} names two verdicts", verdict.label());
        }
    }
}
