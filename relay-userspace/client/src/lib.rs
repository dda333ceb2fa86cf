//! A TURN client on the codec of hairpin-proto.
