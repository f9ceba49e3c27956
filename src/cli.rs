//! The command line, made from the table of settings and the commands of `admin`. `examples/dist.rs` makes the manual pages and the
//! completions of shells from it.

use clap::{Arg, ArgMatches, Command};

use crate::admin;
use crate::config::{Config, SETTINGS};

/// The whole command. Settings stand before the subcommand, because a subcommand has options of the same name (`--port`).
pub fn command() -> Command {
    let settings = SETTINGS.iter().map(|setting| {
        let shown = if setting.default.is_empty() { String::new() } else { format!(" [default: {}]", setting.default) };
        Arg::new(setting.flag)
            .long(setting.flag)
            .env(setting.variable())
            .hide_env_values(true)
            .value_name(setting.value)
            .help(format!("{}{shown}", setting.help))
            .allow_hyphen_values(true)
            .help_heading("Settings (each also as the environment variable that is named)")
    });
    Command::new("sftpproxy")
        .version(env!("CARGO_PKG_VERSION"))
        .about("SFTP router: proves each user's public key, finds the user's route in Redis or a file, relays to the user's own sshd")
        .after_help(
            "Without a command it serves. Settings stand before the command: sftpproxy --routes-file routes.toml user list\n\n\
             Exit codes of serve: 0 ended after a signal, 1 could not start or failed, 2 bad settings, 3 ended and sessions were cut",
        )
        .args(settings)
        .subcommand(Command::new("serve").about("Serve (the default)"))
        .subcommand(Command::new("check-config").about("Check the settings and the files they name, without starting"))
        .subcommands(admin::commands())
}

/// The settings that were given, and whatever is wrong with them: one line a fault.
pub fn config(matches: &ArgMatches) -> Result<Config, Vec<String>> {
    let get = |flag: &str| matches.get_one::<String>(flag).cloned();
    Config::parse(&get, &|name| std::env::var(name).ok())
}
