//! `hairpin manual`: the pages of man(1), made from the definition of the command line.

mod pages;
mod sections;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::complain;

/// Write the manual into a folder: a page of man(1) for each command, and one for the configuration file.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder, which is made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes the pages.
pub(super) fn run(args: &Args) -> ExitCode {
    match write(&args.folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err((path, error)) => {
            complain(&format!("{}: {error}", path.display()));
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> Result<(), (PathBuf, io::Error)> {
    fs::create_dir_all(folder).map_err(|error| (folder.to_owned(), error))?;
    for (name, text) in pages::all(super::command()) {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|error| (path, error))?;
    }
    Ok(())
}
