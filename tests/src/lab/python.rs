//! Clients that are written in Python: those of PyPI in an environment of the tests' own, those of Debian as they are.
//!
//! The scripts are in `tests/clients`. Each prints one line of JSON at its end, and fails when something was not as it
//! should be.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::namespace::Namespace;
use super::process::{self, Finished, Process};
use super::server::{everything_is_required, skip_without};

/// Debian's, since its packages are only for that one.
const PYTHON: &str = "/usr/bin/python3";
/// Downloads are about 120 MB.
const INSTALLING: Duration = Duration::from_secs(300);
const RUNNING: Duration = Duration::from_secs(60);
/// What pip says when nobody answers.
const UNREACHABLE: [&str; 3] = ["connection broken by", "Temporary failure in name resolution", "timed out"];

/// The interpreter of an environment with the packages of `tests/clients/requirements.txt`.
///
/// `None`, with a word why, when they are not there and PyPI cannot be reached.
///
/// # Panics
/// When they cannot be installed for another reason, and everything has to be.
pub fn from_pypi() -> Option<&'static Path> {
    static INTERPRETER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match INTERPRETER.get_or_init(install) {
        Ok(path) => Some(path),
        Err(reason) => {
            skip_without("what tests/clients/requirements.txt names", reason, &UNREACHABLE);
            None
        }
    }
}

/// Debian's interpreter, if it has the package with this module.
///
/// # Panics
/// When it has not, and everything has to be there.
pub fn from_debian(imports: &str) -> Option<&'static Path> {
    let finished = process::run(Command::new(PYTHON).args(["-c", imports]));
    if finished.code() == Some(0) {
        return Some(Path::new(PYTHON));
    }
    assert!(!everything_is_required(), "deploy/setup.sh test installs what this needs: {finished}");
    eprintln!("skipped: Debian's Python cannot `{imports}`");
    None
}

/// Runs a script of `tests/clients` to its end, in a namespace.
pub fn run<I: AsRef<OsStr>>(
    namespace: &Namespace,
    interpreter: &Path,
    script: &str,
    arguments: impl IntoIterator<Item = I>,
    environment: &[(&str, &Path)],
) -> Finished {
    process::run_for(command(namespace, interpreter, script).args(arguments).envs(environment.iter().copied()), RUNNING)
}

/// Starts a script of `tests/clients` in a namespace, without waiting for its end.
pub fn start<I: AsRef<OsStr>>(
    namespace: &Namespace,
    interpreter: &Path,
    script: &str,
    arguments: impl IntoIterator<Item = I>,
) -> Process {
    Process::spawn(command(namespace, interpreter, script).args(arguments))
}

/// The command that runs a script of `tests/clients` in a namespace.
pub fn command(namespace: &Namespace, interpreter: &Path, script: &str) -> Command {
    let mut command = namespace.command(interpreter);
    command.arg("-B").arg(scripts().join(script));
    command
}

/// The folder of the scripts.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Makes the environment, or finds the one that an earlier run has made of the same list.
fn install() -> Result<PathBuf, String> {
    let requirements = scripts().join("requirements.txt");
    let wanted = fs::read_to_string(&requirements).map_err(|error| format!("{}: {error}", requirements.display()))?;
    // target/PROFILE/deps/TEST: the environment outlives a build.
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let target = own.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).ok_or("no target folder")?;
    let folder = target.join("clients");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    // Another test may be about to do the same.
    let lock = File::create(folder.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;

    let (environment, marker) = (folder.join("python"), folder.join("installed.txt"));
    let interpreter = environment.join("bin/python");
    if fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
        return Ok(interpreter);
    }
    let _ = fs::remove_file(&marker);
    run_step(Command::new(PYTHON).args(["-m", "venv", "--clear"]).arg(&environment))?;
    // The list is complete, and nothing beyond it is wanted.
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "--no-deps"];
    run_step(
        Command::new(&interpreter).args(pip).args(["--retries", "2", "--timeout", "10"]).arg("-r").arg(requirements),
    )?;
    fs::write(&marker, wanted).map_err(|error| format!("{}: {error}", marker.display()))?;
    Ok(interpreter)
}

fn run_step(command: &mut Command) -> Result<String, String> {
    process::run_for(command, INSTALLING).into_result()
}
