//! What the relay is told, from four layers: defaults, the file, the environment, the command line. The later ones win,
//! option by option.
//!
//! The options are those of `hairpin serve`, and nothing else knows them: each has a key and a variable of the same name,
//! and its values are looked at by the same parser wherever they come from. All that is wrong is told at once.

mod effective;
mod environment;
mod example;
mod file;
mod flags;
mod layer;
mod manual;
mod nearest;
mod options;
mod problem;
mod read;
mod realm_file;
mod reference;
mod reload;
mod secrets;
pub(super) mod toml_text;

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::FromArgMatches as _;

pub use self::effective::Setting;
pub(super) use self::effective::print as effective;
pub(super) use self::example::example;
pub use self::flags::Flags;
use self::layer::{Layer, Written};
pub(super) use self::manual::keys;
use self::options::Opt;
pub use self::problem::{Place, Problem};
pub(super) use self::reference::reference;
pub use self::reload::{Reload, reload};
pub(super) use self::secrets::named_by_flag as secrets;
use crate::cli::serve::{Args, Contradiction};
use crate::config::Config;

/// Where the file is unless somebody says otherwise; there need not be one.
pub const DEFAULT_FILE: &str = "/etc/hairpin/hairpin.toml";

/// The long names of all options.
pub fn names() -> impl Iterator<Item = &'static str> {
    options::all().iter().map(Opt::name)
}

/// Where settings come from: what does not change while the process runs. The file, and those it names, are read anew
/// each time.
#[derive(Clone, Debug)]
pub struct Source {
    flags: Flags,
    variables: Variables,
}

/// Settings that are sound, and what else there is to say about them.
pub struct Loaded {
    /// What they mean.
    pub config: Config,
    /// What is no error, but should be known.
    pub warnings: Vec<String>,
    /// What they are, in the order of the help.
    pub settings: Vec<Setting>,
}

impl Source {
    /// The flags that were given, and the environment of the process.
    pub fn new(flags: Flags) -> Self {
        Self::with_environment(flags, std::env::vars_os())
    }

    /// The flags that were given, and an environment.
    pub fn with_environment(flags: Flags, environment: impl Iterator<Item = (OsString, OsString)>) -> Self {
        Self { flags, variables: Variables(environment::ours(environment)) }
    }

    /// Reads the file and puts the layers together. Nothing has changed when there are problems: there is no configuration,
    /// then.
    pub fn load(&self) -> Result<Loaded, Vec<Problem>> {
        let (flags, environment) = (self.flags.layer(), environment::layer(&self.variables.0));
        let (file, path) = file(&[&flags, &environment]);
        let mut layers = [flags, environment, file];
        layers.iter_mut().for_each(Layer::check);
        let mut chosen = Chosen::of(&layers, path);
        let matches = options::definition().try_get_matches_from(chosen.arguments()).map_err(unforeseen)?;
        let args = Args::from_arg_matches(&matches).map_err(unforeseen)?;
        let (realms, mut warnings) = chosen.realms(args.realm_files());
        match args.into_config(realms) {
            Ok(config) if chosen.problems.is_empty() => {
                warnings.extend(layers.into_iter().flat_map(|layer| layer.warnings));
                warnings.extend(config.certificates.iter().filter_map(|files| exposed_key(&files.private_key)));
                return Ok(Loaded { config, warnings, settings: effective::settings(&chosen.values) });
            }
            Ok(_) => {}
            Err(contradictions) => chosen.tell(&contradictions),
        }
        Err(Problem::first_of(chosen.problems))
    }
}

/// Variables of the environment; some are secret.
#[derive(Clone)]
struct Variables(Vec<(String, OsString)>);

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// The layer of the file that the layers above it name, or else of the default one if it exists; and which file that is.
fn file(above: &[&Layer]) -> (Layer, Option<Written>) {
    let option = options::find(options::CONFIG).expect("it is defined");
    let named = above.iter().find_map(|layer| layer.get(option)?.first()).cloned();
    // One that this user may not look at is there, and holds for the relay.
    let exists = || {
        let looked_at = Path::new(DEFAULT_FILE).symlink_metadata();
        !looked_at.is_err_and(|error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
    };
    let default = || exists().then(|| Written { text: DEFAULT_FILE.into(), place: Place::Default });
    match named.or_else(default) {
        Some(file) => {
            let path: Arc<Path> = PathBuf::from(&file.text).into();
            (file::layer(&path), Some(file))
        }
        None => (Layer::default(), None),
    }
}

/// Of every option the values of the highest layer that has any.
#[derive(Default)]
struct Chosen {
    values: BTreeMap<&'static str, Vec<Written>>,
    problems: Vec<Problem>,
    bad: Vec<&'static str>,
    /// Whether a layer could not be read.
    is_partial: bool,
}

impl Chosen {
    fn of(layers: &[Layer], file: Option<Written>) -> Self {
        let mut chosen = Self::default();
        for layer in layers {
            chosen.problems.extend(layer.problems.iter().cloned());
            chosen.bad.extend(&layer.bad);
        }
        // One option can have many thousands of bad values.
        chosen.bad.sort_unstable();
        chosen.bad.dedup();
        chosen.is_partial = layers.iter().any(|layer| layer.is_unread);
        for option in options::all().iter().filter(|option| option.values_of().is_none()) {
            // What a file holds that an option names is of the same layer as the option itself.
            let is_said = |layer: &&Layer| {
                layer.get(option).is_some() || option.file().is_some_and(|file| layer.get(file).is_some())
            };
            if let Some(layer) = layers.iter().find(is_said) {
                chosen.take(option, layer);
            }
        }
        if let Some(file) = file {
            chosen.values.insert(options::CONFIG, vec![file]);
        }
        chosen
    }

    fn take(&mut self, option: &'static Opt, layer: &Layer) {
        let mut values = layer.get(option).unwrap_or_default().to_vec();
        let named = option.file().and_then(|file| Some((file, layer.get(file)?)));
        if let Some((file, named)) = named {
            for named in named {
                match secrets::read(option, file, named) {
                    Ok(lines) => values.extend(lines),
                    Err(problems) => {
                        self.problems.extend(problems);
                        self.bad.push(option.name());
                    }
                }
            }
            self.values.insert(file.name(), named.to_vec());
        }
        self.values.insert(option.name(), values);
    }

    /// All of them as a command line.
    fn arguments(&self) -> Vec<OsString> {
        let options = options::all().iter().filter_map(|option| Some((option, self.values.get(option.name())?)));
        options.flat_map(|(option, values)| values.iter().map(|value| option.argument(&value.text))).collect()
    }

    /// Complains of what does not go together, but for what is so only since something else is wrong: a listener that is
    /// missing because nobody can read it. Of a file that is no TOML nobody knows what it would have said.
    fn tell(&mut self, contradictions: &[Contradiction]) {
        let is_real = |contradiction: &&Contradiction| {
            !self.is_partial && contradiction.options().all(|option| !self.bad.contains(&option))
        };
        let place = |option: &str, at: Option<usize>| self.place(option, at);
        let real = contradictions.iter().filter(is_real);
        let told: Vec<_> = real.map(|contradiction| Problem::of_contradiction(contradiction, place)).collect();
        self.problems.extend(told);
        // What is given three times by flags is twice given twice.
        let mut seen = HashSet::new();
        self.problems.retain(|problem| seen.insert(problem.clone()));
    }

    /// Where an option was given, or one of its values.
    fn place(&self, option: &str, at: Option<usize>) -> Place {
        let values = self.values.get(option).map(Vec::as_slice).unwrap_or_default();
        let value = at.and_then(|at| values.get(at)).or(values.first());
        value.map_or(Place::Default, |value| value.place.clone())
    }
}

/// The complaint about a private key for everybody.
fn exposed_key(path: &Path) -> Option<String> {
    let path = Some(path).filter(|path| read::is_exposed(path))?.display();
    Some(format!("--private-key {path} can be read by other users: run chmod o= on it"))
}

/// A bug, told as well as it can be.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unforeseen(error: clap::Error) -> Vec<Problem> {
    vec![Problem::unforeseen(&error)]
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use clap::Args as _;

    use super::*;
    use crate::config::Authentication;

    /// A folder with a configuration and a file of users; it is removed.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("hairpin-settings-{name}-{}", std::process::id()));
            fs::create_dir(&folder).unwrap();
            Self(folder)
        }

        fn write(&self, name: &str, text: &str) -> String {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            path.display().to_string()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn source(flags: &[&str], environment: &[(&str, &str)]) -> Source {
        let command = Flags::augment_args(clap::Command::new("serve").no_binary_name(true));
        let flags = Flags::from_arg_matches(&command.try_get_matches_from(flags).unwrap()).unwrap();
        let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        Source::with_environment(flags, environment)
    }

    fn load(file: &str, flags: &[&str], environment: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
        let fixed = [&["--config", file, "--relay-address", "127.0.0.1"], flags].concat();
        let loaded = source(&fixed, environment).load();
        loaded.map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    fn problems(file: &str, flags: &[&str], environment: &[(&str, &str)]) -> Vec<String> {
        load(file, flags, environment).err().expect("a problem")
    }

    fn users(loaded: &Loaded) -> (Vec<String>, Vec<String>) {
        match &loaded.config.realms[0].authentication {
            Authentication::Given { users, secrets } => {
                (users.iter().map(|user| user.name.clone()).collect(), secrets.clone())
            }
            Authentication::Generated { .. } => (Vec::new(), Vec::new()),
        }
    }

    #[test]
    fn flags_win_over_variables_over_the_file_over_defaults() {
        let folder = Folder::new("precedence");
        let file = folder.write("f", "realm = 'file'\ntcp-relay = true\nallow-peer = ['10.0.0.0/8', '::/0']\n");
        let realm = |flags: &[&str], environment: &[(&str, &str)], file: &str| {
            load(file, flags, environment).unwrap().config.realms[0].name.clone()
        };
        let variable = [("HAIRPIN_REALM", "variable")];
        assert_eq!(realm(&["--realm", "flag"], &variable, &file), "flag");
        assert_eq!(realm(&[], &variable, &file), "variable");
        assert_eq!(realm(&[], &[], &file), "file");
        assert_eq!(realm(&[], &[], "/dev/null"), "hairpin");

        let loaded = load(&file, &["--tcp-relay=false"], &[("HAIRPIN_ALLOW_PEER", "192.0.2.0/24")]).unwrap();
        assert!(!loaded.config.tcp_relay, "a flag can turn off what the file turns on");
        assert_eq!(loaded.config.allow_peers, ["192.0.2.0/24".parse().unwrap()], "lists are replaced");
        assert_eq!(loaded.config.config_file, Some(PathBuf::from(&file)));
        let origin = |name: &str| {
            loaded.settings.iter().find(|setting| setting.name == name).map(|setting| setting.origin.clone())
        };
        assert_eq!(origin("tcp-relay"), Some(Place::Flag));
        assert_eq!(origin("allow-peer"), Some(Place::Variable));
        assert_eq!(origin("realm"), Some(Place::Line(Path::new(&file).into(), 1)));
        assert_eq!(origin("mobility"), Some(Place::Default));
    }

    #[test]
    fn the_file_is_read_anew_each_time() {
        let folder = Folder::new("anew");
        let file = folder.write("f", "realm = 'one'");
        let source = source(&["--relay-address", "127.0.0.1"], &[("HAIRPIN_CONFIG", &file)]);
        assert_eq!(source.load().unwrap().config.realms[0].name, "one");
        folder.write("f", "realm = 'two'");
        assert_eq!(source.clone().load().unwrap().config.realms[0].name, "two");
        folder.write("f", "realm = 2");
        assert!(source.load().is_err());
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_wherever_it_was_said() {
        let folder = Folder::new("all");
        let file = folder.write("f", "realm = 1\nshards = 0\n\nlissten = []\nuser = ['alice']\nxdp = 'off'\n");
        let told = problems(&file, &["--max-connections", "0", "--interface", "lo"], &[("HAIRPIN_LOG", "loud")]);
        assert_eq!(
            told,
            [
                "--max-connections 0: 0 is not in 1..=1000000".to_owned(),
                "HAIRPIN_LOG loud: `loud` is neither a level (off, error, warn, info, debug, trace) nor a filter like \
             hairpin=debug"
                    .to_owned(),
                format!("{file}:1: realm must be a string, not a number"),
                format!("{file}:4: lissten is no option; is listen meant?"),
                format!("{file}:2: shards 0: 0 is not in 1..=256"),
                format!(
                    "{file}:5: user: no colon: a line is NAME:PASSWORD, NAME:0xMD5 or NAME:hashed:md5=MD5[,sha256=SHA256]"
                ),
                format!("{file}:6: --interface needs another xdp than off"),
            ]
        );
    }

    #[test]
    fn what_is_so_only_since_something_else_is_wrong_is_not_told() {
        let folder = Folder::new("since");
        let file = folder.write("f", "certificate = 'a'\nprivate-key = 'b'\nlisten = 'tls:nowhere'\n");
        assert_eq!(problems(&file, &[], &[]).len(), 1, "not that --certificate needs a --listen tls:ADDR:PORT");
        let file = folder.write("f", "certificate = 'a'\nprivate-key = 'b'\nlisten = \n");
        assert_eq!(problems(&file, &[], &[]).len(), 1);
        let missing = folder.0.join("none").display().to_string();
        assert_eq!(
            problems(&missing, &["--tcp-relay", "--listen", "127.0.0.1:1"], &[]),
            [format!("{missing}: No such file or directory (os error 2)")]
        );
    }

    #[test]
    fn contradictions_name_what_was_said_where_it_was() {
        let folder = Folder::new("contradictions");
        let file = folder.write("f", "relay-ports = '3000-4000'\nuser = [\n 'a:b',\n 'c:d',\n 'a:e']\n");
        let listen = [("HAIRPIN_LISTEN", "127.0.0.1:3478")];
        assert_eq!(
            problems(&file, &[], &listen),
            [
                format!("{file}:1: relay-ports 3000-4000 contains port 3478 of HAIRPIN_LISTEN"),
                format!("{file}:5: user a is given twice"),
            ]
        );
        let file = folder.write("f", "listen = [\n'127.0.0.1:1',\n'127.0.0.1:3478']\nrelay-ports = '3000-4000'\n");
        assert_eq!(
            problems(&file, &[], &[]),
            [format!("{file}:4: relay-ports 3000-4000 contains port 3478 of listen (line 3)")]
        );
        assert_eq!(
            problems(&file, &["--relay-ports", "1-9"], &[]),
            [format!("{file}:2: --relay-ports 1-9 contains port 1 of listen")]
        );
    }

    #[test]
    fn secrets_of_a_file_stand_beside_those_of_its_layer_and_above_lower_ones() {
        let folder = Folder::new("secrets");
        let names = folder.write("users", "\u{feff}# users\r\n\nalice:a b\n  bob:#2\r\n");
        let secrets = folder.write("secrets", "\u{feff}north\r\n");
        let file = folder.write("f", &format!("user = 'carol:c'\nuser-file = '{names}'\nauth-secret = 'south'"));
        assert_eq!(users(&load(&file, &[], &[]).unwrap()).0, ["carol", "alice", "bob"]);
        let variable = [("HAIRPIN_AUTH_SECRET_FILE", secrets.as_str())];
        assert_eq!(users(&load(&file, &[], &variable).unwrap()).1, ["north"]);
        assert_eq!(users(&load(&file, &["--user", "dan:d"], &[]).unwrap()).0, ["dan"]);
        let loaded = load(&file, &[], &[]).unwrap();
        let shown = effective(&loaded.settings);
        assert!(["a b", "#2", "south", "carol"].iter().all(|secret| !shown.contains(secret)), "{shown}");
        assert!(shown.contains("user = [\"(hidden)\", \"(hidden)\", \"(hidden)\"]"), "{shown}");
    }

    #[test]
    fn a_file_of_secrets_that_is_wrong_is_told_without_them() {
        let folder = Folder::new("bad-secrets");
        let bad = folder.write("users", "alice:a\nopensesame\n:x\n");
        assert_eq!(
            problems("/dev/null", &["--user-file", &bad], &[]),
            [
                format!(
                    "{bad}:2: user: no colon: a line is NAME:PASSWORD, NAME:0xMD5 or NAME:hashed:md5=MD5[,sha256=SHA256]"
                ),
                format!("{bad}:3: user: no name before the first colon"),
            ]
        );
        let empty = folder.write("empty", "# nobody\n");
        assert_eq!(
            problems("/dev/null", &[], &[("HAIRPIN_USER_FILE", &empty)]),
            [format!("HAIRPIN_USER_FILE {empty}: there is no line with a value in it")]
        );
        let exposed = folder.write("exposed", "alice:a\n");
        fs::set_permissions(&exposed, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(
            problems("/dev/null", &["--user-file", &exposed], &[]),
            [format!("--user-file {exposed}: it can be read by other users; run chmod o= on it")]
        );
        let twice = folder.write("twice", "alice:a\nalice:b\n");
        assert_eq!(
            problems("/dev/null", &["--user-file", &twice], &[]),
            [format!("{twice}:2: user alice is given twice")]
        );
    }

    #[test]
    fn a_file_with_secrets_that_others_can_read_is_warned_of() {
        let folder = Folder::new("exposed");
        let file = folder.write("f", "user = 'a:b'");
        assert_eq!(load(&file, &[], &[]).unwrap().warnings, [""; 0]);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let warnings = load(&file, &[], &[]).unwrap().warnings;
        assert!(
            warnings.len() == 1 && warnings[0].starts_with(&format!("{file} can be read by other")),
            "{warnings:?}"
        );
    }

    #[test]
    fn a_private_key_that_others_can_read_is_warned_of() {
        let folder = Folder::new("key");
        let key = folder.write("key", "");
        let flags = ["--listen", "tls:127.0.0.1:5349", "--certificate", &key, "--private-key", &key];
        assert_eq!(load("/dev/null", &flags, &[]).unwrap().warnings, [""; 0]);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let expected = format!("--private-key {key} can be read by other users: run chmod o= on it");
        assert_eq!(load("/dev/null", &flags, &[]).unwrap().warnings, [expected]);
    }

    #[test]
    fn no_more_is_told_than_somebody_reads() {
        let folder = Folder::new("flood");
        let file = folder.write(
            "f",
            &(0..500).flat_map(|n| ["nothing-".to_owned(), n.to_string(), " = 1\n".to_owned()]).collect::<String>(),
        );
        let told = problems(&file, &[], &[]);
        assert_eq!(told.len(), 101);
        assert_eq!(told[100], "and 400 more");
    }

    #[test]
    fn neither_flags_nor_variables_are_printed() {
        let source = source(&["--user", "alice:opensesame"], &[("HAIRPIN_AUTH_SECRET", "sesame")]);
        let printed = format!("{source:?}");
        assert!(printed.contains("HAIRPIN_AUTH_SECRET") && !printed.contains("sesame"), "{printed}");
    }
}
