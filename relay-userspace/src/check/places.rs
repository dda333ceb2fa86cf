//! Files and folders that the relay makes: the socket of the admin interface, and the secret of its own.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{Access, access};

use super::{Finding, Findings, Level, sockets};
use crate::admin::is_listened_to;
use crate::config::{AdminAddr, AdminSocket, Authentication, Config};

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Findings::about("files");
    let (socket, level) = match &config.admin_socket {
        AdminSocket::Off => (None, Level::Notice),
        AdminSocket::Default(path) => (Some(path), Level::Notice),
        AdminSocket::At(path) => (Some(path), Level::Error),
    };
    if let Some(problem) = socket.and_then(|path| problem_of_socket(path)) {
        findings.add(level, problem, "choose another place with --admin-socket, or `off`");
    }
    if let Some(path) = socket.filter(|path| is_listened_to(path)) {
        // The relay that this configuration is of is in nobody's way.
        let level = if sockets::is_relay_running(config) { Level::Notice } else { level };
        let text = format!("--admin-socket {}: another process listens there", path.display());
        findings.add(
            level,
            text,
            "a relay in its place would need it to end, unless it is the service manager; one beside it, another path",
        );
    }
    if let AdminAddr::At(address) = config.admin
        && !address.ip().to_canonical().is_loopback()
    {
        let text = format!("--admin {address} is open to other hosts: whoever reaches it can read metrics and health");
        findings.notice(text, "let a firewall say who may, or listen on 127.0.0.1");
    }
    let first = config.realms.first().map(|realm| &realm.authentication);
    if let Some(Authentication::Generated { state_dir }) = first {
        judge_state(&mut findings, state_dir);
    }
    findings.or_ok(match socket {
        Some(path) => format!("the admin interface is at {}", path.display()),
        None => "the admin interface has no socket".to_owned(),
    })
}

fn problem_of_socket(path: &Path) -> Option<String> {
    let name = path.display();
    match fs::symlink_metadata(path) {
        Ok(about) if !about.file_type().is_socket() => return Some(format!("--admin-socket {name} is not a socket")),
        _ => {}
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let cannot = problem_of_folder(folder)?;
    Some(format!("--admin-socket {name}: {cannot}"))
}

/// Why nothing can be made in a folder, which is made itself if it is not there.
fn problem_of_folder(folder: &Path) -> Option<String> {
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let existing = here.ancestors().find(|folder| folder.exists())?;
    if !existing.is_dir() {
        return Some(format!("{} is not a folder", existing.display()));
    }
    access(existing, Access::WRITE_OK | Access::EXEC_OK)
        .err()
        .map(|error| format!("nothing can be made in {}: {error}", existing.display()))
}

fn judge_state(findings: &mut Findings, state_dir: &Path) {
    let secret = state_dir.join("auth-secret");
    match fs::metadata(&secret) {
        Ok(about) if !about.is_file() => {
            findings.error(format!("--state-dir: {} is not a file", secret.display()), "remove it");
        }
        Ok(about) if about.permissions().mode() & 0o077 != 0 => findings.error(
            format!("--state-dir: {} can be read by other users", secret.display()),
            format!("chmod 600 {}, or delete it for a new secret", secret.display()),
        ),
        Ok(_) => {}
        Err(_) => {
            if let Some(problem) = problem_of_folder(state_dir) {
                findings.error(format!("--state-dir: {problem}"), "choose a folder that this user may write to");
            } else {
                let text = "nobody is named who may relay: a secret will be made at the first start";
                findings
                    .notice(text, "`hairpin credentials` mints credentials with it; or name --auth-secret or --user");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::super::tests::config;
    use super::super::{expect, levels};
    use super::*;

    #[test]
    fn what_is_in_the_way_of_a_socket_is_an_error_where_it_was_asked_for() {
        let folder = std::env::temp_dir().join(format!("hairpin-check-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("file");
        fs::write(&file, "").unwrap();
        let mut config = config(&["udp:0.0.0.0:3478"], &["198.51.100.1"]);
        let mut at = |socket: AdminSocket| {
            config.admin_socket = socket;
            check(&config)
        };
        expect(&at(AdminSocket::At(file.clone())), Level::Error, "is not a socket");
        expect(&at(AdminSocket::Default(file.clone())), Level::Notice, "is not a socket");
        expect(&at(AdminSocket::At(file.join("below"))), Level::Error, "is not a folder");
        assert_eq!(levels(&at(AdminSocket::At(folder.join("new/admin.sock")))), [Level::Ok]);
        assert_eq!(levels(&at(AdminSocket::Off)), [Level::Ok]);
        let alive = folder.join("alive");
        let listener = UnixListener::bind(&alive).unwrap();
        expect(&at(AdminSocket::At(alive.clone())), Level::Error, "another process listens");
        expect(&at(AdminSocket::Default(alive.clone())), Level::Notice, "another process listens");
        drop(listener);
        assert_eq!(levels(&at(AdminSocket::At(alive))), [Level::Ok], "its process has ended");
        config.admin_socket = AdminSocket::Off;
        config.admin = AdminAddr::At("192.0.2.1:9641".parse().unwrap());
        expect(&check(&config), Level::Notice, "other hosts");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_secret_that_others_can_read_keeps_the_relay_from_starting() {
        let folder = std::env::temp_dir().join(format!("hairpin-check-state-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let of = |folder: &Path| {
            let mut findings = Findings::about("files");
            judge_state(&mut findings, folder);
            findings.list
        };
        expect(&of(&folder), Level::Notice, "a secret will be made");
        fs::write(folder.join("auth-secret"), "s").unwrap();
        fs::set_permissions(folder.join("auth-secret"), fs::Permissions::from_mode(0o644)).unwrap();
        expect(&of(&folder), Level::Error, "chmod 600");
        fs::set_permissions(folder.join("auth-secret"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(of(&folder), []);
        fs::remove_dir_all(&folder).unwrap();
    }
}
