//! `hairpin ice update`: what a session is called, and how long it lives.

use clap::ArgGroup;

use super::super::place::given;
use super::terms::Waits;
use crate::api::ice::Update;

/// Change what a session is called, or how long it lives; what is not said stays as it is.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("what").args(["label", "setup", "consent", "paused", "idle"]).required(true).multiple(true))]
pub(super) struct Args {
    /// Its id, as `list` shows it.
    #[arg(value_parser = given)]
    pub(super) id: String,

    /// What to call it; "" for nothing
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,

    #[command(flatten)]
    waits: Waits,
}

impl Args {
    pub(super) fn request(&self) -> Update {
        Update { label: self.label.clone(), timeouts: self.waits.timeouts() }
    }
}
