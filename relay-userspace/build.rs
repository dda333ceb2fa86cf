//! Builds the XDP program (../relay-ebpf) into the binary, when the feature `xdp` is on.
//!
//! Two toolchains can do it: Debian's `rustc-web` with a core library for BPF, or a rustup nightly with `rust-src`. Both
//! link with bpf-linker. Without the feature nothing here runs and no BPF toolchain is needed.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, exit},
};

/// What is built, and where it is included from.
const CRATE: &str = "../relay-ebpf";
const OBJECT: &str = "hairpin.bpf.o";
/// Oldest compiler that builds it, as a minor version of 1.x.
const OLDEST_RUSTC: u32 = 96;
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// Variables of the surrounding cargo that the inner one is to see; all others that steer a build are taken away.
const KEPT: [&str; 7] =
    ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_", "RUSTUP_HOME"];

fn main() {
    for path in ["src", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={CRATE}/{path}");
    }
    for path in ["../common/src", "../common/Cargo.toml", "build.rs"] {
        println!("cargo::rerun-if-changed={path}");
    }
    for variable in ["HAIRPIN_BPF_LINKER", "XDG_CACHE_HOME"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if env::var_os("CARGO_FEATURE_XDP").is_none() {
        return;
    }
    if let Err(message) = build() {
        eprintln!("{message}");
        exit(1);
    }
}

fn build() -> Result<(), String> {
    let target = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let missing = |what: &str| {
        format!(
            "The XDP program cannot be built: {what}. Run deploy/setup.sh, which installs what is missing, or build \
             without it: cargo build --no-default-features"
        )
    };
    let linker = find_linker().ok_or_else(|| missing("bpf-linker was not found"))?;
    let toolchain = Toolchain::find(target).ok_or_else(|| {
        missing("there is neither Debian's rustc-web with libstd-rust-web-dev-bpf nor a rustup nightly with rust-src")
    })?;

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    // Its own target directory, so that it neither waits for the surrounding build's lock nor shares its files.
    let target_dir = out.join("bpf");
    let mut command = toolchain.cargo();
    command
        .args(["build", "--release", "--locked", "--target", target, "--manifest-path"])
        .arg(Path::new(CRATE).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&linker));
    let status = command.status().map_err(|error| missing(&format!("{command:?} did not start: {error}")))?;
    if !status.success() {
        return Err(missing("its compiler failed, see above"));
    }
    let object = target_dir.join(target).join("release/hairpin");
    fs::copy(&object, out.join(OBJECT)).map_err(|error| format!("{}: {error}", object.display()))?;
    Ok(())
}

/// Flags of the inner compiler, in cargo's encoding.
fn rustflags(linker: &Path) -> OsString {
    let mut flags = OsString::from("-Clinker=");
    flags.push(linker);
    for flag in [
        // Version 3 of the instruction set is in every kernel since 5.1. It has 32-bit arithmetic and jumps.
        "-Ctarget-cpu=v3",
        // Headers behind an Ethernet header are misaligned. All machines the kernel runs XDP on can load from there;
        // without this, a 32-bit load becomes four loads of a byte.
        "-Ctarget-feature=+allows-misaligned-mem-access",
        // Type information comes from debug information.
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
    ] {
        flags.push("\u{1f}");
        flags.push(flag);
    }
    flags
}

/// A compiler for the BPF target.
enum Toolchain {
    Debian,
    Nightly { libraries: PathBuf },
}

impl Toolchain {
    fn find(target: &str) -> Option<Self> {
        Self::debian(target).or_else(Self::nightly)
    }

    fn debian(target: &str) -> Option<Self> {
        let version = run(clean(DEBIAN_RUSTC).arg("--version"))?;
        let minor: u32 = version.strip_prefix("rustc 1.")?.split('.').next()?.parse().ok()?;
        let sysroot = run(clean(DEBIAN_RUSTC).args(["--print", "sysroot"]))?;
        let core = Path::new(&sysroot).join("lib/rustlib").join(target).join("lib");
        let has_core = fs::read_dir(core).ok()?.flatten().any(|entry| {
            let name = entry.file_name();
            name.to_string_lossy().starts_with("libcore-")
        });
        (minor >= OLDEST_RUSTC && has_core && Path::new(DEBIAN_CARGO).exists()).then_some(Self::Debian)
    }

    fn nightly() -> Option<Self> {
        let sysroot = run(clean("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))?;
        let sysroot = PathBuf::from(sysroot);
        let sources = sysroot.join("lib/rustlib/src/rust/library/core");
        sources.is_dir().then(|| Self::Nightly { libraries: sysroot.join("lib") })
    }

    /// The command that runs its cargo.
    fn cargo(&self) -> Command {
        match self {
            Self::Debian => {
                let mut command = clean(DEBIAN_CARGO);
                command
                    .env("RUSTC", DEBIAN_RUSTC)
                    // Prebuilt core or not, the BPF target's features count as unstable.
                    .env("RUSTC_BOOTSTRAP", "1")
                    // bpf-linker generates code with the compiler's own LLVM, and looks for it here.
                    .env("LD_LIBRARY_PATH", format!("/usr/lib/{}-linux-gnu", env::consts::ARCH));
                command
            }
            Self::Nightly { libraries } => {
                let mut command = clean("rustup");
                command.args(["run", "nightly", "cargo", "-Zbuild-std=core"]).env("LD_LIBRARY_PATH", libraries);
                command
            }
        }
    }
}

/// A command that nothing of the surrounding build reaches, such as its compiler, flags, profile or wrapper.
fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let steers = text.starts_with("CARGO") || text.starts_with("RUST") || text == "LD_LIBRARY_PATH";
        if steers && !KEPT.iter().any(|kept| text.starts_with(kept)) {
            command.env_remove(&name);
        }
    }
    // Empty values also win over a wrapper from a configuration file.
    command.env("RUSTC_WRAPPER", "").env("RUSTC_WORKSPACE_WRAPPER", "");
    // A build is no place to download a toolchain from.
    command.env("RUSTUP_AUTO_INSTALL", "0");
    command
}

/// The first line that a successful command prints.
fn run(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.lines().next()?.to_owned())
}

/// bpf-linker by name in HAIRPIN_BPF_LINKER, in the PATH, or where deploy/setup.sh puts it.
fn find_linker() -> Option<PathBuf> {
    const NAME: &str = "bpf-linker";
    let named = env::var_os("HAIRPIN_BPF_LINKER").map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|folder| folder.join(NAME));
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .map(|cache| cache.join("hairpin/bpf/bin").join(NAME));
    named.into_iter().chain(in_path).chain(cache).find(|candidate| candidate.is_file())
}
