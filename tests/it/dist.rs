//! `dist/`: what is made there is what the definitions give, and what is made can be used.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::process::run;

#[path = "../../examples/dist.rs"]
mod made;

fn dist() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dist")
}

fn is_there(program: &str) -> bool {
    run(Command::new("sh").args(["-c", "command -v \"$1\"", "sh", program])).code == 0
}

#[test]
fn manual_pages_completions_and_settings_of_dist_are_what_the_definitions_give() {
    let files = made::files();
    for (name, text) in &files {
        let there = std::fs::read_to_string(dist().join(name)).unwrap_or_default();
        assert!(there == *text, "dist/{name} is not what commands and settings give; run: cargo run --example dist");
    }
    let made: BTreeSet<_> = files.into_iter().filter_map(|(name, _)| Some(name.strip_prefix("man/")?.to_owned())).collect();
    let names = std::fs::read_dir(dist().join("man")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let there: BTreeSet<_> = names.filter(|name| name.ends_with(".8")).collect();
    assert_eq!(there, made, "run: cargo run --example dist");
}

#[test]
fn manual_pages_name_every_command_and_option_and_have_no_fault() {
    let mut command = sftpproxy::cli::command().disable_help_subcommand(true);
    command.build();
    for group in command.get_subcommands().filter(|group| group.has_subcommands()) {
        let page = std::fs::read_to_string(dist().join(format!("man/sftpproxy-{}.8", group.get_name()))).unwrap();
        for verb in group.get_subcommands() {
            assert!(page.contains(&format!("\n.SS \"sftpproxy {} {}\"\n", group.get_name(), verb.get_name())), "{page}");
            for option in verb.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(
                    page.contains(&format!("\\-\\-{}", option.replace('-', "\\-"))),
                    "sftpproxy-{}(8): no {option}",
                    group.get_name()
                );
            }
        }
    }
    if !is_there("man") {
        eprintln!("man is not installed: what follows tells nothing");
        return;
    }
    for page in std::fs::read_dir(dist().join("man")).unwrap().map(|entry| entry.unwrap().path()) {
        if page.extension().is_some_and(|extension| extension == "8") {
            let output = run(Command::new("man").args(["--warnings", "-Tutf8", "-l"]).arg(&page));
            assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{}", page.display());
        }
    }
}

/// What bash offers for the words of a line, the last of which is not yet complete.
fn offered(line: &str) -> Vec<String> {
    let script = "source \"$1\"; IFS=' ' read -ra COMP_WORDS <<<\"$2\"; COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _sftpproxy sftpproxy \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let output = run(Command::new("bash").args(["-c", script, "bash"]).arg(dist().join("completions/sftpproxy.bash")).arg(line));
    output.success().lines().map(str::to_owned).collect()
}

#[test]
fn a_shell_completes_commands_verbs_options_and_settings() {
    assert_eq!(offered("sftpproxy mainten"), ["maintenance"]);
    assert_eq!(offered("sftpproxy user sh"), ["show"]);
    assert_eq!(offered("sftpproxy user add alice --scan"), ["--scan-host-key"]);
    assert_eq!(offered("sftpproxy --redis-pre"), ["--redis-prefix"]);
    for (shell, file) in [("zsh", "_sftpproxy"), ("fish", "sftpproxy.fish")] {
        if is_there(shell) {
            run(Command::new(shell).arg("-n").arg(dist().join("completions").join(file))).success();
        }
    }
}
