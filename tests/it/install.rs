//! scripts/install into a folder: what a package would have, and that it can be taken away again.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use sftpproxy::config::SETTINGS;

use crate::world::process::run;

fn install(folder: &Path, more: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install");
    let mut command = Command::new(script);
    run(command.args(["--program", env!("CARGO_BIN_EXE_sftpproxy"), "--prefix", "/usr", "--destdir"]).arg(folder).args(more))
        .success()
}

#[test]
fn installation_puts_program_unit_manual_and_settings_in_place_and_keeps_settings_that_are_there() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), &[]);
    let path = |name: &str| folder.path().join(name);
    let mode = |name: &str| path(name).metadata().unwrap_or_else(|error| panic!("{name}: {error}")).permissions().mode() & 0o777;
    assert_eq!(mode("usr/bin/sftpproxy"), 0o755);
    assert_eq!(mode("etc/sftpproxy/sftpproxy.env"), 0o640);
    assert_eq!(mode("usr/share/man/man8/sftpproxy.8"), 0o644);
    let unit = std::fs::read_to_string(path("etc/systemd/system/sftpproxy.service")).unwrap();
    assert!(unit.contains("\nExecStart=/usr/bin/sftpproxy\n") && unit.contains("\nType=notify\n"), "{unit}");
    assert!(unit.contains("\nExecReload=/usr/bin/sftpproxy reload\n"), "{unit}");
    assert_eq!(mode("etc/systemd/system/sftpproxy.socket"), 0o644);
    let settings = std::fs::read_to_string(path("etc/sftpproxy/sftpproxy.env")).unwrap();
    let lines: Vec<_> = settings.lines().filter(|line| line.starts_with("#SFTPPROXY_")).collect();
    let expected: Vec<_> = SETTINGS.iter().map(|setting| format!("#{}='{}'", setting.variable(), setting.default)).collect();
    assert_eq!(lines, expected);
    assert!(settings.lines().all(|line| line.starts_with('#') || line.is_empty()), "something is set: {settings}");
    for name in ["bash-completion/completions/sftpproxy", "man/man8/sftpproxy-user.8"] {
        assert_eq!(mode(&format!("usr/share/{name}")), 0o644);
    }

    std::fs::write(path("etc/sftpproxy/sftpproxy.env"), "SFTPPROXY_PORT='2222'\n").unwrap();
    install(folder.path(), &[]);
    assert_eq!(std::fs::read_to_string(path("etc/sftpproxy/sftpproxy.env")).unwrap(), "SFTPPROXY_PORT='2222'\n");
    install(folder.path(), &["--uninstall"]);
    for name in [
        "usr/bin/sftpproxy",
        "etc/systemd/system/sftpproxy.service",
        "etc/systemd/system/sftpproxy.socket",
        "usr/share/man/man8/sftpproxy.8",
        "usr/share/man/man8/sftpproxy-key.8",
    ] {
        assert!(!path(name).exists(), "{name} is still there");
    }
    assert!(path("etc/sftpproxy/sftpproxy.env").exists(), "an operator's settings are gone");
}

#[test]
fn the_service_may_do_as_little_as_systemd_calls_ok() {
    if run(Command::new("sh").args(["-c", "command -v systemd-analyze"])).code != 0 {
        eprintln!("systemd-analyze is not installed: this test tells nothing");
        return;
    }
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/sftpproxy.service");
    let mut command = Command::new("systemd-analyze");
    run(command.args(["security", "--offline=true", "--threshold=20", "--no-pager"]).arg(unit)).success();
}
