//! Live frames through the relay, millions a second: [`bed`] is the network, [`paths`] what goes through it, [`mod@measure`]
//! how fast, next to a program that only turns frames around.
//!
//! The generator and the programs that count are those of `hairpin load --blast` ([`hairpin::load::blast`]).

pub mod bed;
pub mod measure;
pub mod paths;

pub use self::bed::Bed;
pub use self::paths::{PATHS, Path};
