//! Why requests are refused.

use crate::stun::ErrorCode;

macro_rules! causes {
    ($($name:ident = $label:literal, $code:ident, $explanation:literal;)*) => {
        /// Why a request was refused: more than its client is told, for whoever runs the server. Each is a metric label.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Cause {
            $(#[doc = $explanation] $name,)*
        }

        impl Cause {
            /// Every cause, in the order of `as usize`.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$name,)*];

            /// How many causes there are.
            pub const COUNT: usize = [$($label),*].len();

            /// The name in metrics and logs.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }

            /// What it means, and what to do about it.
            pub fn explanation(self) -> &'static str {
                match self {
                    $(Self::$name => $explanation,)*
                }
            }

            /// What the client is told, unless it is sent to another server.
            pub(super) fn code(self) -> ErrorCode {
                match self {
                    $(Self::$name => ErrorCode::$code,)*
                }
            }
        }
    };
}

causes! {
    UnknownUser = "unknown_user", UNAUTHENTICATED,
        "There is no user of this name, nor is the name that of a credential that expires where there is a secret: add the \
        user, or see which credentials the client was given.";
    WrongPassword = "wrong_password", UNAUTHENTICATED,
        "The user exists and the password is another one: compare what the client was given with what is configured here.";
    WrongSecret = "wrong_secret", UNAUTHENTICATED,
        "The credential was made with none of this relay's secrets, or was changed on its way: give the application that \
        makes credentials the secret of this relay.";
    ExpiredCredential = "expired_credential", UNAUTHENTICATED,
        "The credential was right until it expired: have the application give the client a new one, or make those that it \
        gives last longer, and compare the clocks of both hosts.";
    WrongRealm = "wrong_realm", UNAUTHENTICATED,
        "The client speaks of another realm than this relay's: after a change of the realm running clients do so once and \
        go on, any other client has its realm fixed and must be given this one.";
    NoKeyOfAlgorithm = "no_key_of_algorithm", UNAUTHENTICATED,
        "The client has chosen a password algorithm that only the hash of another is kept of for this user: keep the password or \
        both hashes, or offer clients MD5 only.";
    UnknownTokenKey = "unknown_token_key", UNAUTHENTICATED,
        "No key of this name opens access tokens here: give the authorization server and this relay the same key under the same \
        name.";
    BadToken = "bad_token", UNAUTHENTICATED,
        "The access token does not open with the key that it names, or the request is not signed with the key in it: compare key, \
        algorithm and the name of this server at the authorization server.";
    ExpiredToken = "expired_token", UNAUTHENTICATED,
        "The access token was right and its time is over: have the client given a new one, or longer ones, and compare the clocks \
        of both hosts.";
    IncompleteCredentials = "incomplete_credentials", BAD_REQUEST,
        "The request is signed but lacks a username, realm or nonce that can be read: the client does not follow RFC 8489, \
        update it.";
    BidDown = "bid_down", BAD_REQUEST,
        "The client was offered other password algorithms than it says: somebody on the way may have changed the offer, or the \
        client does not follow RFC 8489.";
    MissingAttribute = "missing_attribute", BAD_REQUEST,
        "The request lacks something that its method needs, as a peer or a transport: the client does not follow RFC 8656, \
        update it.";
    MalformedAttribute = "malformed_attribute", BAD_REQUEST,
        "The request has an attribute whose value makes no sense: the client does not follow RFC 8656, update it.";
    ConflictingAttributes = "conflicting_attributes", BAD_REQUEST,
        "The request has attributes that exclude each other, as two address families, or a reserved port and any other \
        wish: change what the client asks for.";
    PeerPortZero = "peer_port_zero", BAD_REQUEST,
        "The request names port 0, where nobody can be reached: the client, or whoever has told it the address, is wrong.";
    InvalidChannel = "invalid_channel", BAD_REQUEST,
        "The channel number is outside of what the protocol allows: the client does not follow RFC 8656, update it.";
    ChannelInUse = "channel_in_use", BAD_REQUEST,
        "The channel or the peer is bound to another one, or was until five minutes ago: the client has to use another \
        number, or to wait.";
    TransportMismatch = "transport_mismatch", BAD_REQUEST,
        "The request does not fit the transport of its allocation or of its client, as a channel or a datagram where peers \
        are reached over TCP: see what the client is set to.";
    ControlConnection = "control_connection", BAD_REQUEST,
        "The client would take data of a peer on the connection that has an allocation: it does not follow RFC 6062, \
        update it.";
    UnknownConnection = "unknown_connection", BAD_REQUEST,
        "No connection of this name waits for the client: it came later than 30 seconds, a second time, or after the peer \
        had gone; look at the time that its connections take.";
    InvalidTicket = "invalid_ticket", BAD_REQUEST,
        "The mobility ticket was used before, or was not made by this relay since its start: the client has to begin \
        again, and will if it is shown this error.";
    NotAdmitted = "not_admitted", FORBIDDEN,
        "The web hook that is asked for each allocation has said no: ask the application behind it.";
    TunneledClient = "tunneled_client", FORBIDDEN,
        "The client comes from a Teredo or 6to4 address, whose data could go round in circles: it has to use IPv4 or \
        another IPv6 address.";
    ForbiddenPeer = "forbidden_peer", FORBIDDEN,
        "The rules on peers forbid the address that the client would reach: if it should be reached, allow it, otherwise \
        see why the client was told of it.";
    MobilityOff = "mobility_off", MOBILITY_FORBIDDEN,
        "The client would keep its allocation when its address changes, which is turned off here: turn mobility on, or \
        leave it, since clients go on without.";
    UnknownAttribute = "unknown_attribute", UNKNOWN_ATTRIBUTE,
        "The client insists on something that this relay does not know: turn that off at the client, or update the relay.";
    NoAllocation = "no_allocation", ALLOCATION_MISMATCH,
        "The client has no allocation at this address: it has expired, was closed, was lost in a restart, or the client's \
        address has changed; clients begin again by themselves.";
    AllocationExists = "allocation_exists", ALLOCATION_MISMATCH,
        "There is an allocation at this address of the client already: it has begun again without ending what it had, and \
        has to wait or to use another port.";
    FamilyNotServed = "family_not_served", ADDRESS_FAMILY_NOT_SUPPORTED,
        "The client would have a relayed address of an IP version that this relay has none of: add a relay address of it, \
        or leave it, since clients go on with the other.";
    WrongUser = "wrong_user", WRONG_CREDENTIALS,
        "Another user has made the allocation or the connection that the request is about: the client has changed its \
        username, which it must keep until it allocates anew.";
    UnsupportedTransport = "unsupported_transport", UNSUPPORTED_TRANSPORT_PROTOCOL,
        "The client would reach its peers by something else than UDP and TCP: change what the client asks for.";
    TcpRelayOff = "tcp_relay_off", UNSUPPORTED_TRANSPORT_PROTOCOL,
        "The client would reach its peers over TCP, which is turned off here: turn the relaying of TCP on if it should.";
    FamilyMismatch = "family_mismatch", PEER_ADDRESS_FAMILY_MISMATCH,
        "The request is about an IP version that the client's allocation has no address of: the client has to allocate \
        one of that version; clients that try all pairs of addresses do this in passing.";
    ConnectionExists = "connection_exists", CONNECTION_ALREADY_EXISTS,
        "The allocation has a connection to this peer already, or it is under way: the client has to use that one.";
    ConnectFailed = "connect_failed", CONNECTION_TIMEOUT_OR_FAILURE,
        "The peer has refused the connection or cannot be reached: see whether it listens, and whether a firewall stands \
        between it and this relay.";
    ConnectTimeout = "connect_timeout", CONNECTION_TIMEOUT_OR_FAILURE,
        "The peer has not answered within 30 seconds: see whether it runs, and whether a firewall stands between it and \
        this relay.";
    ConnectInUse = "connect_in_use", CONNECTION_TIMEOUT_OR_FAILURE,
        "An earlier connection between the same two addresses is not quite over: the client can try again in a minute.";
    ConnectUnavailable = "connect_unavailable", CONNECTION_TIMEOUT_OR_FAILURE,
        "This host cannot open another connection: raise the limit of open files.";
    ConnectAbandoned = "connect_abandoned", CONNECTION_TIMEOUT_OR_FAILURE,
        "The allocation has ended before the peer answered: nothing is to be done, unless it was closed by mistake.";
    UserQuota = "user_quota", ALLOCATION_QUOTA_REACHED,
        "The user has as many allocations as one may have: raise the limit for each user, or see why this one needs so \
        many.";
    SourceQuota = "source_quota", INSUFFICIENT_CAPACITY,
        "As many allocations as one source address may have are there from this one: raise the limit, or see who shares the \
        address.";
    RealmQuota = "realm_quota", INSUFFICIENT_CAPACITY,
        "The realm has as many allocations as it may have: raise its limit.";
    AddressInUse = "address_in_use", INSUFFICIENT_CAPACITY,
        "The relayed address that is kept for the user has an allocation already, or another process has bound it, or its port \
        is none that the client has asked for by EVEN-PORT: see `hairpin allocations list`, and who has bound it.";
    AddressNotHere = "address_not_here", INSUFFICIENT_CAPACITY,
        "The relayed address that is kept for the user is none of this relay's, or its port is not among the reserved ports: \
        compare both with the relay's addresses and reserved ports.";
    RelayFull = "relay_full", INSUFFICIENT_CAPACITY,
        "There are as many allocations as the relay may have: raise the limit, or send clients to another relay too.";
    NoPort = "no_port", INSUFFICIENT_CAPACITY,
        "No port is free at any relay address of the wanted IP version: widen the range of relay ports, add a relay \
        address, or see what else on this host has bound them.";
    NoSocket = "no_socket", INSUFFICIENT_CAPACITY,
        "The system gives out no socket for a relayed address: see whether the host still has the relay addresses, and \
        raise the limit of open files.";
    NoReservation = "no_reservation", INSUFFICIENT_CAPACITY,
        "No port is kept for the client: it came later than 30 seconds after it was promised one, or a second time; \
        clients begin again by themselves.";
    PermissionsFull = "permissions_full", INSUFFICIENT_CAPACITY,
        "The allocation has as many permissions as it may have: a call needs few, so see what the client does.";
    ChannelsFull = "channels_full", INSUFFICIENT_CAPACITY,
        "The allocation has as many channels as it may have: a call needs few, so see what the client does.";
    ConnectionsFull = "connections_full", INSUFFICIENT_CAPACITY,
        "The allocation has as many connections to peers as it may have: see what the client does.";
    Draining = "draining", INSUFFICIENT_CAPACITY,
        "The relay is being drained and takes no new allocations: have clients sent to another one, or end the draining.";
    SentAway = "sent_away", TRY_ALTERNATE,
        "The relay is being drained and has sent a client that would stay to another relay: nothing is to be done for clients \
        that go there; what others have ends with its lifetime, unless the draining ends before and they ask again.";
    ListenerRetired = "listener_retired", INSUFFICIENT_CAPACITY,
        "The client has come by a listener that is no longer configured: have clients told one of those that are, or \
        configure it again.";
    UsersUnavailable = "users_unavailable", SERVER_ERROR,
        "No user store and no web hook could tell who the user is, or whether it may, or none could in time: `hairpin status` \
        shows which one fails, and the last reason.";
    ClassicStun = "classic_stun", SERVER_ERROR,
        "The client speaks STUN of RFC 3489, which is out of date: update it.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_cause_has_a_name_and_a_sentence_of_its_own() {
        let labels: HashSet<_> = Cause::ALL.map(Cause::label).into();
        let explanations: HashSet<_> = Cause::ALL.map(Cause::explanation).into();
        assert_eq!((labels.len(), explanations.len()), (Cause::COUNT, Cause::COUNT));
        for (at, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, at);
            assert!(cause.label().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{cause:?}");
            let sentence = cause.explanation();
            assert!(sentence.ends_with('.') && !sentence.contains("  ") && !sentence.contains(". "), "{sentence}");
        }
    }
}
