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
    /// ChannelData or a Send indication of a client was unwrapped and sent to its peer.
    ToPeer = Transmit, "to_peer";
    /// A datagram of a peer was wrapped in ChannelData or a Data indication and sent to its client.
    ToClient = Transmit, "to_client";
    /// What a client sent to another client's relayed address was sent to that client.
    RelayToRelay = Transmit, "relay_to_relay";
    /// What came to a leg of a media session was sent from the other.
    Media = Transmit, "media";
    /// What a client sent to a leg of a media session was sent from the other leg.
    ClientToMedia = Transmit, "client_to_media";
    /// What came to a leg of a media session was sent, by the other leg and a relayed address, to that one's client.
    MediaToClient = Transmit, "media_to_client";
    /// A Binding request was answered.
    Binding = Transmit, "binding";
    /// Not IPv4 or IPv6 with UDP directly behind it, cut short, or with lengths or a header checksum that do not fit.
    NotUdp = Pass, "not_udp";
    /// UDP to a port or an address that is not ours.
    NotOurs = Pass, "not_ours";
    /// A fragment; the kernel reassembles it for the socket.
    Fragment = Pass, "fragment";
    /// An IPv4 header with options.
    IpOptions = Pass, "ip_options";
    /// To a listener or a leg of a media session, and a message that only the daemon answers, or none at all.
    Control = Pass, "control";
    /// ChannelData or an indication whose lengths do not fit its datagram.
    Malformed = Pass, "malformed";
    /// No record for these addresses, ports and channel.
    NoFlow = Pass, "no_flow";
    /// The record's time is over.
    Expired = Pass, "expired";
    /// The record was being replaced while it was read.
    Torn = Pass, "torn";
    /// A hop limit that would leave as zero.
    HopLimit = Pass, "hop_limit";
    /// IPv4 without a UDP checksum, to be sent as IPv6, which has none without.
    NoChecksum = Pass, "no_checksum";
    /// The next hop is not known (any more).
    NextHop = Pass, "next_hop";
    /// The frame was not addressed to the interface's own link-layer address: another host's, seen in passing.
    OtherHost = Pass, "other_host";
    /// The packet would outgrow the MTU of the next hop's link.
    TooBig = Pass, "too_big";
    /// The driver left no room in front of or behind the packet.
    NoRoom = Pass, "no_room";
    /// From a peer that has no permission, to a relayed address.
    NoPermission = Drop, "no_permission";
    /// More datagrams of one allocation than its limit.
    AllocationPacketRate = Drop, "allocation_packet_rate";
    /// More data of one allocation than its limit.
    AllocationBitRate = Drop, "allocation_bit_rate";
    /// More data of all allocations than the relay's limit.
    RelayBitRate = Drop, "relay_bit_rate";
    /// More datagrams to a listener from an address without an allocation than one source may send.
    SourceRate = Drop, "source_rate";
    /// More datagrams to listeners without an allocation than the daemon is to answer.
    ControlRate = Drop, "control_rate";
    /// The packet was changed and then could not be finished: a defect of the program.
    Broken = Drop, "broken";
}

impl Verdict {
    /// How many verdicts there are: the size of the counter array.
    pub const COUNT: usize = Self::ALL.len();
    /// Of what was transmitted: what an allocation has relayed to a peer.
    pub const RELAYED_TO_PEER: [Self; 3] = [Self::ToPeer, Self::RelayToRelay, Self::ClientToMedia];
    /// What an allocation has relayed to its client.
    pub const RELAYED_TO_CLIENT: [Self; 3] = [Self::ToClient, Self::RelayToRelay, Self::MediaToClient];
    /// What a media session has carried.
    pub const CARRIED_MEDIA: [Self; 3] = [Self::Media, Self::ClientToMedia, Self::MediaToClient];
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn all_that_is_transmitted_but_answers_was_relayed_or_carried() {
        let lists = [Verdict::RELAYED_TO_PEER, Verdict::RELAYED_TO_CLIENT, Verdict::CARRIED_MEDIA];
        for verdict in Verdict::ALL {
            let is_data = verdict.action() == Action::Transmit && *verdict != Verdict::Binding;
            assert_eq!(lists.iter().flatten().any(|listed| listed == verdict), is_data, "{verdict:?}");
        }
    }

    #[test]
    fn each_verdict_has_its_own_counter_and_label() {
        let mut labels = HashSet::new();
        for (index, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*verdict as usize, index);
            assert!(labels.insert(verdict.label()), "{} names two verdicts", verdict.label());
        }
    }
}
