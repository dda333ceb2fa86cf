//! `hairpin config`: shows what there is to say to the relay, and what is said.

use std::process::ExitCode;

use super::settings::{self, Flags, Source};
use super::{complain_of_all, print};

/// Show the options of the relay: an example file, a reference, or what holds.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(super) struct Args {
    /// Print a file with every option, each left as it is by default
    #[arg(long, group = "what")]
    example: bool,

    /// Print tables of all options, as Markdown
    #[arg(long, group = "what")]
    reference: bool,

    /// Print what holds, as a file whose comments say where each value comes from; secrets are hidden
    #[arg(long, group = "what")]
    show: bool,

    #[command(flatten)]
    flags: Flags,
}

/// Prints one of them.
pub(super) fn run(args: Args) -> ExitCode {
    let text = if args.example {
        settings::example()
    } else if args.reference {
        settings::reference()
    } else {
        match Source::new(args.flags).load() {
            Ok(loaded) => settings::effective(&loaded.settings),
            Err(problems) => return complain_of_all(&problems),
        }
    };
    print(&text, ExitCode::SUCCESS)
}
