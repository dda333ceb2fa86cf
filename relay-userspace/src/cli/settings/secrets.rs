//! Files with secrets: one a line. Blank lines and those that begin with `#` are passed over.

use std::path::Path;
use std::sync::Arc;

use super::layer::Written;
use super::options::{self, Opt};
use super::problem::{Place, Problem};
use super::read;

/// The values in a file that a flag of another command names, such as `auth-secret-file`.
pub(in crate::cli) fn named_by_flag(file: &str, path: &Path) -> Result<Vec<String>, Vec<Problem>> {
    let file = options::find(file).expect("it is defined");
    let option = file.values_of().expect("it names a file with values");
    let values = read(option, file, &Written { text: path.into(), place: Place::Flag })?;
    Ok(values.iter().map(|value| value.text.to_string_lossy().into_owned()).collect())
}

/// The values of an option (`user`) that the file holds which `file` (`user-file`) names.
pub(super) fn read(option: &Opt, file: &Opt, named: &Written) -> Result<Vec<Written>, Vec<Problem>> {
    let path: Arc<Path> = Path::new(&named.text).into();
    let refuse = |what: &str| vec![Problem::of_value(file, &named.place, &named.text.to_string_lossy(), what)];
    let text = read::read(&path).map_err(|unreadable| match unreadable.line {
        Some(line) => vec![Problem::of_line(&path, line, unreadable.why)],
        None => refuse(&unreadable.why),
    })?;
    // Unlike the secret that the relay makes for itself, this one may be read by a group: the usual way to give a service a
    // file that it must not change.
    if text.is_exposed {
        return Err(refuse("it can be read by other users; run chmod o= on it"));
    }
    let lines = text.text.lines().map(str::trim).zip(1..);
    let lines = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
    let values: Vec<Written> =
        lines.map(|(text, line)| Written { text: text.into(), place: Place::Line(Arc::clone(&path), line) }).collect();
    if values.is_empty() {
        return Err(refuse("there is no line with a value in it"));
    }
    let check = |value: &Written| {
        let error = option.check(&value.text).err()?;
        Some(Problem::of_value(option, &value.place, "", error))
    };
    let problems: Vec<_> = values.iter().filter_map(check).collect();
    if problems.is_empty() { Ok(values) } else { Err(problems) }
}
