//! Writes what `dist/` has from the definitions: manual pages (with the prose of `dist/man/sftpproxy.8.in`), completions of shells,
//! the file of settings that services read, and the unit of the Debian package. `cargo run --example dist` after every change of a command or a setting; a test
//! (`tests/it/dist.rs`, which includes this file) fails when it was forgotten.

use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use sftpproxy::config::SETTINGS;

/// The whole of `dist/` that is made, by path below it.
pub fn files() -> Vec<(String, String)> {
    let mut command = sftpproxy::cli::command().disable_help_subcommand(true);
    command.build();
    let groups: Vec<_> = command.get_subcommands().filter(|sub| has_page(sub)).cloned().collect();
    let mut files = vec![
        ("man/sftpproxy.8".to_owned(), first_page(&command, &groups)),
        ("sftpproxy.default".to_owned(), settings()),
        ("debian/sftpproxy.service".to_owned(), debian_unit()),
        ("completions/sftpproxy.bash".to_owned(), completion(Shell::Bash)),
        ("completions/_sftpproxy".to_owned(), completion(Shell::Zsh)),
        ("completions/sftpproxy.fish".to_owned(), completion(Shell::Fish)),
    ];
    files.extend(groups.iter().map(|group| (format!("man/{}.8", page_name(group)), page(group))));
    for (_, text) in &mut files {
        // What the crates write has blanks at the end of lines, which the house has not.
        let lines: Vec<_> = text.trim_end().lines().map(str::trim_end).collect();
        *text = lines.join("\n") + "\n";
    }
    files
}

#[allow(dead_code, reason = "the test that includes this file does not write")]
fn main() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist");
    let files = files();
    for entry in std::fs::read_dir(dist.join("man")).expect("dist/man").flatten() {
        let name = format!("man/{}", entry.file_name().to_string_lossy());
        if name.ends_with(".8") && files.iter().all(|(made, _)| *made != name) {
            std::fs::remove_file(entry.path()).expect("a page of a command that is no more");
        }
    }
    for (name, text) in files {
        std::fs::write(dist.join(&name), text).unwrap_or_else(|error| panic!("dist/{name}: {error}"));
    }
}

/// A command with verbs or options of its own has a page of its own.
fn has_page(command: &Command) -> bool {
    let own = |id: &str| !["help", "version"].contains(&id);
    !command.is_hide_set() && (command.has_subcommands() || command.get_arguments().any(|arg| own(arg.get_id().as_str())))
}

fn page_name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn completion(shell: Shell) -> String {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut sftpproxy::cli::command(), "sftpproxy", &mut bytes);
    String::from_utf8(bytes).expect("names are UTF-8")
}

fn man(command: &Command) -> Man {
    let source = concat!("sftpproxy ", env!("CARGO_PKG_VERSION"));
    Man::new(command.clone()).section("8").source(source).manual("System Manager's Manual")
}

/// What a part of a page is. Each comes with a preamble of its own, of which a page needs one.
fn part(render: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut bytes = Vec::new();
    render(&mut bytes).expect("memory can be written to");
    let text = String::from_utf8(bytes).expect("texts are UTF-8");
    text.lines().filter(|line| !is_preamble(line)).map(|line| breakable(line) + "\n").collect()
}

/// Lists of algorithms are longer than any line: they may be broken behind a comma.
fn breakable(line: &str) -> String {
    let long = |word: &&str| word.len() > 60;
    if line.split(' ').any(|word| long(&word)) { line.replace(',', ",\\:") } else { line.to_owned() }
}

fn is_preamble(line: &str) -> bool {
    line.starts_with(".ie \\n(.g") || line.starts_with(".el .ds Aq")
}

fn lines(roff: &Roff) -> String {
    part(|bytes| roff.to_writer(bytes))
}

/// The page's first lines, before its synopsis.
fn head(man: &Man) -> String {
    let note = ".\\\" Made by `cargo run --example dist`; what is changed here is lost.\n";
    // No hyphens within the names of commands, and no wide gaps where lists of algorithms are broken.
    let preamble = ".nh\n.ad l\n.ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";
    format!("{note}{preamble}{}{}", part(|bytes| man.render_title(bytes)), part(|bytes| man.render_name_section(bytes)))
}

/// `sftpproxy(8)`: prose, with the commands and the settings where it wants them.
fn first_page(command: &Command, groups: &[Command]) -> String {
    let prose = include_str!("../dist/man/sftpproxy.8.in");
    let man = man(command);
    let pages: Vec<_> = groups.iter().map(|group| format!(".BR {} (8)", page_name(group).replace('-', "\\-"))).collect();
    head(&man)
        + &prose
            .replace("@COMMANDS@\n", &commands(command))
            .replace("@SETTINGS@\n", &part(|bytes| man.render_options_section(bytes)))
            .replace("@PAGES@", &pages.join(",\n"))
}

fn commands(command: &Command) -> String {
    let mut roff = Roff::default();
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let verbs: Vec<_> = sub.get_subcommands().map(Command::get_name).collect();
        roff.control("TP", []);
        roff.text([bold(sub.get_name()), roman(format!(" {}", verbs.join(" | ")))]);
        roff.text([roman(format!("{}.", sub.get_about().map(ToString::to_string).unwrap_or_default()))]);
        if has_page(sub) {
            roff.text([roman("See "), bold(page_name(sub)), roman("(8).")]);
        }
    }
    lines(&roff)
}

/// The page of one command and its verbs.
fn page(group: &Command) -> String {
    let mut text = head(&man(group)) + ".SH SYNOPSIS\n";
    let verbs: Vec<_> = match group.has_subcommands() {
        true => group.get_subcommands().filter(|verb| !verb.is_hide_set()).collect(),
        false => vec![group],
    };
    for (number, verb) in verbs.iter().enumerate() {
        let between = if number == 0 { "" } else { ".br\n" };
        text += &format!("{between}{}", untitled(&part(|bytes| man(verb).render_synopsis_section(bytes))));
    }
    text += ".SH DESCRIPTION\n";
    for verb in verbs {
        let mut title = Roff::default();
        title.control("SS", [verb.get_bin_name().unwrap_or_else(|| verb.get_name())]);
        text += &lines(&title);
        text += &untitled(&part(|bytes| man(verb).render_description_section(bytes)));
        text += &untitled(&part(|bytes| man(verb).render_options_section(bytes)));
        if verb.get_after_help().is_some() {
            text += ".PP\n";
            text += &untitled(&part(|bytes| man(verb).render_extra_section(bytes)));
        }
    }
    text + ".SH SETTINGS\nSettings, such as where routes are, stand before the command or are environment variables; see\n.BR sftpproxy (8),\n\
            which also has exit codes.\n.SH SEE ALSO\n.BR sftpproxy (8)\n"
}

/// A section without its heading.
fn untitled(section: &str) -> String {
    section.lines().filter(|line| !line.starts_with(".SH ")).map(|line| format!("{line}\n")).collect()
}

/// The unit with the paths of a Debian package.
fn debian_unit() -> String {
    let unit = include_str!("../dist/sftpproxy.service");
    let (head, rest) = unit.split_once("\n\n").expect("the unit has a head");
    assert!(head.starts_with("# sftpproxy under systemd"), "another head: {head}");
    format!("# Made of dist/sftpproxy.service by `cargo run --example dist`. README.Debian says how to go on.\n\n{rest}")
        .replace("/usr/local/bin/", "/usr/bin/")
        .replace("/etc/sftpproxy/sftpproxy.env", "/etc/default/sftpproxy")
}

/// `/etc/default/sftpproxy` and `/etc/sftpproxy/sftpproxy.env`, as systemd's EnvironmentFile and a shell read them. Nothing is set, so
/// that a default that is changed by an update is changed for everybody who has not chosen otherwise.
fn settings() -> String {
    let mut text = "\
# Settings of sftpproxy.service, all of them, each with its default. Take away the # of a line and change its value; then:
#
#     sftpproxy check-config                  as the service's account and with these settings; README.md says how
#     systemctl enable --now sftpproxy        or, where it runs: systemctl reload sftpproxy
#
# Nothing starts before you say so. Values stand in single quotes, so that a password may have any character but that quote.
# Made of the table of settings; README.md and sftpproxy(8) say more.
"
    .to_owned();
    for setting in SETTINGS {
        let variable = setting.variable();
        text += &format!("\n# {}\n# Value: {}\n#{variable}='{}'\n", setting.help, setting.value, setting.default);
    }
    text
}
