//! The server side of TURN (RFC 8656) as a state machine.

mod effect;

pub use effect::{
    AllocationId, BindError, BindRequest, Discard, Disposition, Effect, Flow, Forward, FrameHeader, Now, RelayId,
};
