//! The image that the Containerfile makes, as far as a relay notices that it runs in one: a root of its own that it cannot write,
//! a user that is not root, capabilities of its file, and those that the runtime grants.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::PathBuf;
use std::process::Command;

use hairpin_tests::lab::process::run;
use hairpin_tests::lab::relay::binary;
use hairpin_tests::lab::{Folder, Namespace};

use crate::read;

pub(crate) const CONTAINERFILE: &str = "deploy/container/Containerfile";
/// Everybody's, so that a relay of a test shares no admin socket with others.
const PROGRAM: &str = "opt/hairpin";

/// Makes the root of what the host has (not every architecture has /lib64), and enters it: the first argument is where it is, the others are those of setpriv. The mount namespace is that
/// of `ip netns exec`.
const ENTER: &str = "
    set -e; root=$1; shift
    mount --bind $root $root
    for folder in usr lib lib64 bin proc sys dev; do [ ! -e /$folder ] || mount --rbind /$folder $root/$folder; done
    for folder in run/hairpin var/lib/hairpin; do mount --bind $root/$folder $root/$folder; done
    mount -o remount,bind,ro $root
    exec chroot $root setpriv \"$@\"";

/// What the Containerfile says of its last stage.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// The instructions of all stages, each on one line.
    pub(crate) instructions: Vec<String>,
    /// Those of the last stage.
    pub(crate) last: Vec<String>,
    /// The user and the group.
    pub(crate) user: u32,
    /// The environment.
    pub(crate) environment: Vec<(String, String)>,
    /// The capabilities of the program's file, as `setcap` is told them.
    pub(crate) capabilities: String,
}

impl Image {
    pub(crate) fn read() -> Self {
        let text = read(CONTAINERFILE);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let whole = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
        let instructions: Vec<_> =
            whole.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let at = instructions.iter().rposition(|line| line.starts_with("FROM ")).expect("there is a stage");
        let last = instructions[at..].to_vec();
        let argument = |name: &str| last.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let user = argument("USER").and_then(|user| user.split_once(':')).expect("a user and a group");
        assert_eq!(user.0, user.1);
        let environment = argument("ENV").expect("it has an environment").split(' ');
        let environment = environment.map(|pair| pair.split_once('=').expect("a name and a value"));
        let (_, rest) = whole.split_once("setcap ").expect("the file has capabilities");
        Self {
            user: user.0.parse().expect("a number, so that the runtime knows that it is not root"),
            environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            capabilities: rest.split(' ').next().unwrap_or_default().to_owned(),
            last,
            instructions,
        }
    }

    /// The names of the capabilities, as orchestrators write them.
    pub(crate) fn grants(&self) -> Vec<String> {
        let (names, sets) = self.capabilities.rsplit_once('+').expect("names and sets");
        assert_eq!(sets, "p", "the effective bit would keep it from starting where one is not granted");
        names.split(',').map(|name| name.trim_start_matches("cap_").to_uppercase()).collect()
    }
}

/// A container: a root with the host's programs and the image's folders.
pub(crate) struct Container {
    image: Image,
    root: Folder,
}

/// What the runtime does to a process.
pub(crate) struct Runtime<'r> {
    /// The capabilities that it grants.
    pub(crate) grants: &'r [String],
    /// Whether nothing may be gained by running a file (`no_new_privs`).
    pub(crate) escalates: bool,
    /// What it adds to the environment.
    pub(crate) environment: &'r [(String, String)],
}

impl Container {
    pub(crate) fn new(image: &Image) -> Self {
        let container = Self { image: image.clone(), root: Folder::new("container") };
        for folder in ["opt", "usr", "lib", "lib64", "bin", "proc", "sys", "dev", "tmp", "etc/hairpin"] {
            fs::create_dir_all(container.root.path().join(folder)).expect("the folder is ours");
        }
        for folder in ["run/hairpin", "var/lib/hairpin"] {
            let path = container.folder(folder, 0o700);
            chown(path, Some(image.user), Some(image.user)).expect("the tests are root's");
        }
        let program = container.root.path().join(PROGRAM);
        fs::copy(binary(), &program).expect("the folder is ours");
        run(Command::new("setcap").arg(&image.capabilities).arg(&program)).expect_success();
        container
    }

    /// Makes a folder.
    pub(crate) fn folder(&self, path: &str, mode: u32) -> PathBuf {
        let path = self.root.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(&path).expect("the folder is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("the folder is ours");
        path
    }

    /// Makes a file of root that a group may read.
    pub(crate) fn file(&self, path: &str, text: &[u8], mode: u32, group: u32) {
        let path = self.root.path().join(path.trim_start_matches('/'));
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("the file is ours");
        chown(path, None, Some(group)).expect("the tests are root's");
    }

    /// Lays out a volume as the kubelet does, or exchanges what is in it: files are links through one to a folder of all, and that
    /// one is replaced.
    pub(crate) fn volume(&self, path: &str, files: &[(String, Vec<u8>)], mode: u32) {
        let volume = self.folder(path, 0o755);
        let version = format!("..{}", fs::read_dir(&volume).expect("the folder is ours").count());
        self.folder(&format!("{path}/{version}"), 0o755);
        for (name, text) in files {
            self.file(&format!("{path}/{version}/{name}"), text, mode, self.image.user);
        }
        symlink(version, volume.join("..data_tmp")).expect("the folder is ours");
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("the folder is ours");
        for (name, _) in files {
            // Those that are there stay.
            let _ = symlink(format!("..data/{name}"), volume.join(name));
        }
    }

    /// What runs the relay, as the image says, in a namespace of the network.
    pub(crate) fn command(&self, namespace: &Namespace, runtime: &Runtime<'_>, arguments: &[&str]) -> Command {
        let user = self.image.user.to_string();
        let granted: String = runtime.grants.iter().flat_map(|name| [",+", name]).collect();
        let mut command = namespace.command("sh");
        command.args(["-c", ENTER, "sh"]).arg(self.root.path());
        command.args(["--reuid", &user, "--regid", &user, "--groups", &user, "--inh-caps=-all"]);
        command.arg(format!("--bounding-set=-all{}", granted.to_lowercase()));
        command.args((!runtime.escalates).then_some("--no-new-privs"));
        command.arg(format!("/{PROGRAM}")).args(arguments).env_remove("HAIRPIN_CONFIG");
        let environment = self.image.environment.iter().chain(runtime.environment);
        command.envs(environment.map(|(name, value)| (name, value)));
        command
    }
}
