//! Files that settings come from.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// More is no file that somebody has written for a relay.
const LARGEST: u64 = 64 << 20;
/// The bits of a mode that let users in who are neither the owner nor of its group.
const OTHERS: u32 = 0o007;

/// A file as it was read.
pub(super) struct Text {
    pub(super) text: String,
    /// Whether any user of this host may read it, or write it.
    pub(super) is_exposed: bool,
}

/// Why there is no text: words, and the line if it is about one.
pub(super) struct Unreadable {
    pub(super) line: Option<usize>,
    pub(super) why: String,
}

/// Whether any user of this host may read a file, or write it.
pub(super) fn is_exposed(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|about| about.is_file() && about.mode() & OTHERS != 0)
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Text, Unreadable> {
    let failed = |error: std::io::Error| Unreadable { line: None, why: error.to_string() };
    // Without waiting: a pipe that somebody has put there would keep the relay from starting, and later from stopping.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let kind = metadata.file_type();
    // As /dev/null.
    let is_device = kind.is_char_device();
    if !kind.is_file() && !is_device {
        return Err(Unreadable { line: None, why: "it is not a file".to_owned() });
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Unreadable { line: None, why: format!("a file of at most {} MiB is needed", LARGEST >> 20) });
    }
    match String::from_utf8(bytes) {
        Ok(text) => {
            // The mark that some editors begin a file with is not a part of its first line.
            let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
            Ok(Text { text, is_exposed: !is_device && metadata.mode() & OTHERS != 0 })
        }
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = good.split(|byte| *byte == b'\n').count();
            Err(Unreadable { line: Some(line), why: "this is not UTF-8".to_owned() })
        }
    }
}
