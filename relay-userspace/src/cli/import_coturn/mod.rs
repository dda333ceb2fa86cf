//! `hairpin import-coturn`: makes hairpin's file of a turnserver.conf, and says what became of each of its lines.
//!
//! [`mod@line`] takes lines apart as coturn does, [`options`] knows every option of coturn and what to do about it,
//! [`meaning`] is what the file means to coturn, [`translate`] says the same in hairpin's words, [`render`] writes it down.

mod addresses;
mod databases;
mod line;
mod meaning;
mod options;
mod peers;
mod render;
mod translate;

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use self::render::Note;
use super::{print, usage_error};
use crate::printable;

/// More is no file that somebody has written.
const LARGEST: u64 = 1 << 20;

/// Make a configuration file of a turnserver.conf.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file of coturn, or - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Where to write hairpin's; a file that exists is left alone [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes the file, and says on standard error what needs a look.
pub(super) fn run(args: &Args) -> ExitCode {
    let text = match read(&args.file) {
        Ok(text) => text,
        Err(error) => return usage_error(&format!("{}: {error}", args.file.display())),
    };
    let (file, notes) = import(&text, &args.file.display().to_string());
    if let Some(path) = &args.output
        && let Err(error) = write(path, &file)
    {
        let advice = match error.kind() {
            io::ErrorKind::AlreadyExists => "; remove it first, or choose another name",
            _ => "",
        };
        return usage_error(&format!("--output {}: {error}{advice}", path.display()));
    }
    let mut told: Vec<_> = notes.iter().map(|note| format!("{}: {note}", args.file.display())).collect();
    let next = match &args.output {
        Some(path) => format!("hairpin check --config {}", path.display()),
        None => "hairpin check --config FILE".to_owned(),
    };
    told.push(format!("`{next}` says whether a relay would start with it on this host"));
    let told: String = told.iter().map(|line| printable::clean(line) + "\n").collect();
    let _ = io::stderr().write_all(told.as_bytes());
    if args.output.is_some() { ExitCode::SUCCESS } else { print(&file, ExitCode::SUCCESS) }
}

/// Hairpin's file, and what there is to say about it.
fn import(text: &str, name: &str) -> (String, Vec<Note>) {
    let (coturn, mut notes) = options::read(text);
    let (sections, more) = translate::translate(&coturn);
    notes.extend(more);
    notes.sort_by_key(Note::order);
    (render::render(name, &sections, &notes), notes)
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin().take(LARGEST + 1).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other("a file of at most 1 MiB is needed"));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("this is not UTF-8"))
}

/// For its owner only: there may be secrets in it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests;
