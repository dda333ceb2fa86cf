//! `hairpin ice update`: what a session is called, how much it may carry, and how long it lives.

use clap::ArgGroup;

use super::super::place::given;
use super::terms::{Caps, Waits};
use crate::api::ice::Update;

/// Change what a session is called, how much it may carry, or how long it lives; what is not said stays as it is.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("what")
    .args(["label", "packet_rate", "bit_rate", "setup", "consent", "paused", "idle"]).required(true).multiple(true))]
pub(super) struct Args {
    /// Its id, as `list` shows it.
    #[arg(value_parser = given)]
    pub(super) id: String,

    /// What to call it; "" for nothing
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,

    #[command(flatten)]
    caps: Caps,

    #[command(flatten)]
    waits: Waits,
}

impl Args {
    pub(super) fn request(&self) -> Update {
        Update { label: self.label.clone(), limits: self.caps.limits(), timeouts: self.waits.timeouts() }
    }
}
