//! Sessions of two legs: media that comes to one is sent on from the other, as it is.
//!
//! A SIP server, an SFU or a gateway wants an address that it can put into a session description, and has no TURN client. It
//! gets one for each side of a call: a *leg*. A leg is an ICE-lite agent (RFC 8445 section 2.5), or a plain address for a
//! side that has no ICE. What the nominated remote of leg A sends goes out from leg B to its remote, and back, untouched;
//! STUN is told from media by the first byte (RFC 7983), and is never sent on.
//!
//! A session has *streams*, each with one or two components (RTP and RTCP), and a *path* for each component: what joins its
//! two *ends*, one for each leg. An end has a local address for each address that the relay has.
//!
//! - [`Sessions`] is the state machine: it is asked to create, change and close sessions, is given datagrams and timers, and
//!   says what is to be done as [`Effect`]s;
//! - `open` finds ports, `remote` is what the other side says of itself, `relaying` the way of a datagram, `checks` that of a
//!   connectivity check, `negotiation` has both sides of a call told the legs in place of each
//!   other (`pending` what is offered but not answered yet), `flow` what a fast path may send on alone, `count` what was sent on,
//!   `expiry` the end of things.

mod checks;
mod count;
mod describe;
mod effect;
mod end;
mod expiry;
mod flow;
mod negotiation;
mod open;
mod pending;
mod relaying;
mod remote;
mod session;
mod sessions;
mod settings;

pub use count::{Amount, Counts, FastCounts};
pub use describe::{EndInfo, LegInfo, PathInfo, SelectedInfo, SessionInfo, StreamInfo};
pub use effect::{
    Answer, CloseReason, Discard, Disposition, Effect, Event, Forward, MediaFlow, PathId, PortId, SessionId,
};
pub use end::{Refused, RefusedFor, Side};
pub use negotiation::{NegotiationError, Offer};
pub use open::{OpenError, OpenPort, Request, StreamRequest};
pub use remote::{PlainAddress, Remote, RemoteError, StreamCandidates};
pub use session::{LegKind, LegState, SessionState};
pub use sessions::Sessions;
pub use settings::{Choice, Limits, Settings, Terms, Timeouts};
