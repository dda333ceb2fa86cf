//! Sans-IO STUN codec and TURN server.
