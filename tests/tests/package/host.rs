//! A clean Debian 12 in a folder, without network and with nothing running: what a package is tried in.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hairpin_tests::lab::process::{Finished, run, run_for};
use hairpin_tests::lab::server::{is_installed, skip_without};
use hairpin_tests::lab::{Folder, Namespace};

const RELEASE: &str = "bookworm";
/// Where packages come from if the host does not say so.
const MIRROR: &str = "http://deb.debian.org/debian";
/// What is needed of the network, once.
const MAKING: Duration = Duration::from_secs(600);
const INSTALLING: Duration = Duration::from_secs(120);
/// What the package depends on and a minimal Debian has not: kept with it, since nothing is downloaded later.
const DEPENDENCIES: &str = "libssl3";
/// What debootstrap and apt-get say when nobody answers.
const UNREACHABLE: [&str; 3] = ["Failed getting release file", "Couldn't download packages", "Failed to fetch"];
/// Enters a root. What is mounted is so for this command only.
const ENTER: &str = r#"mount -t proc proc "$1/proc" && mount --rbind /sys "$1/sys" && exec chroot "$@""#;

/// The root, removed when this goes out of scope.
pub(crate) struct Host(Folder);

impl Host {
    /// A new one; `None`, with a word why, where none can be made.
    pub(crate) fn new() -> Option<Self> {
        if !is_installed("debootstrap") {
            return None;
        }
        let archive = archive().map_err(|reason| skip_without("a clean Debian", &reason, &UNREACHABLE)).ok()?;
        let host = Self(Folder::new("debian"));
        run_for(Command::new("tar").arg("-C").arg(host.root()).arg("-xf").arg(archive), INSTALLING).expect_success();
        // Nothing that is installed is started, as in any root that is not running.
        host.write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n");
        run(Command::new("chmod").arg("755").arg(host.path("usr/sbin/policy-rc.d"))).expect_success();
        Some(host)
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    /// Where a file of it is.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    /// Whether a file is there.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// Owner, group and mode of a file, as in `root:hairpin 640`.
    pub(crate) fn owner(&self, path: &str) -> String {
        self.run("stat", &["--format=%U:%G %a", path]).trim().to_owned()
    }

    /// What a file holds.
    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Writes a file.
    pub(crate) fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Runs a program inside as root, which must succeed.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        self.try_run(program, arguments).expect_success()
    }

    /// Runs a program inside as root.
    pub(crate) fn try_run(&self, program: &str, arguments: &[&str]) -> Finished {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "sh", "-c", ENTER, "sh"]).arg(self.root()).arg(program).args(arguments);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8").env("PATH", PATH);
        run_for(&mut command, INSTALLING)
    }

    /// Installs a package of the host that we are on, as `apt-get install` does.
    pub(crate) fn install(&self, package: &Path) {
        let name = package.file_name().and_then(OsStr::to_str).expect("a package has a name");
        fs::copy(package, self.path("tmp").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        self.apt(&["install", &format!("/tmp/{name}")]);
    }

    /// Runs apt-get, which asks nothing.
    pub(crate) fn apt(&self, arguments: &[&str]) -> String {
        self.run("apt-get", &[&["--yes", "--quiet", "-o", "Dpkg::Use-Pty=0"], arguments].concat())
    }

    /// The command that runs a program in a network namespace as a user of this root, with these capabilities and no way to
    /// any other, as systemd starts a service.
    pub(crate) fn service(&self, network: &Namespace, user: &str, capabilities: &[&str]) -> Command {
        let set =
            capabilities.iter().map(|capability| format!(",+{}", capability.trim_start_matches("CAP_").to_lowercase()));
        let set = format!("-all{}", set.collect::<String>());
        let mut command = network.command("sh");
        command.args(["-c", ENTER, "sh"]).arg(self.root());
        command.args(["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--no-new-privs"]);
        command.args(["--bounding-set", &set, "--inh-caps", &set, "--ambient-caps", &set, "--pdeathsig", "KILL"]);
        // What the lab tells a relay is for those that share its files.
        command.env_remove("HAIRPIN_CONFIG").env_remove("HAIRPIN_ADMIN_SOCKET").env("PATH", PATH);
        command
    }
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An archive of a minimal Debian, made once and kept; or why there is none.
fn archive() -> Result<PathBuf, String> {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
    let folder = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("hairpin/debian");
    let archive = folder.join(format!("{RELEASE}.tar"));
    if archive.exists() {
        return Ok(archive);
    }
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let made = Folder::new("bootstrap");
    let root = made.path();
    // Mounts /proc in there, which must be gone when the folder is removed, however this ends.
    let mut bootstrap = Command::new("unshare");
    bootstrap.args(["--mount", "debootstrap", "--variant=minbase", RELEASE]).arg(root).arg(mirror());
    run_for(bootstrap.env("PATH", PATH), MAKING).into_result()?;
    let mut download = Command::new("chroot");
    download.arg(root).args(["apt-get", "--yes", "--download-only", "install", DEPENDENCIES]).env("PATH", PATH);
    run_for(&mut download, MAKING).into_result()?;
    // Whole or not at all.
    let partial = folder.join(format!("{RELEASE}.{}", std::process::id()));
    run_for(Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&partial).arg("."), INSTALLING).expect_success();
    fs::rename(&partial, &archive).unwrap_or_else(|error| panic!("{}: {error}", archive.display()));
    Ok(archive)
}

/// Where this host gets its packages from.
fn mirror() -> String {
    let files = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|file| file.path());
    let texts = files.chain([PathBuf::from("/etc/apt/sources.list")]).filter_map(|file| fs::read_to_string(file).ok());
    let lines = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
    let is_of_debian = |word: &&str| word.contains("://") && word.trim_end_matches('/').ends_with("/debian");
    let mut mirrors = lines
        .filter(|line| line.starts_with("URIs:") || line.starts_with("deb "))
        .filter_map(|line| line.split_whitespace().find(is_of_debian).map(str::to_owned));
    mirrors.next().unwrap_or_else(|| MIRROR.to_owned())
}
