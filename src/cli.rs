//! The command line, made from the table of settings and the commands of `admin`. `examples/dist.rs` makes the manual pages and the
//! completions of shells from it.

use std::collections::HashMap;
use std::path::Path;

use clap::{Arg, ArgMatches, Command};

use crate::config::{Config, SETTINGS, Setting, secret_of};
use crate::secret::{Secret, read_credential, read_key_file};
use crate::{admin, ffi};

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
        .subcommand(
            Command::new("reload")
                .about("Start a router with the settings and the program as they are now, and let it take over from the one that runs")
                .after_help("It ends when the new one serves. Exit codes: 0 taken over, 1 not, and the one that runs goes on, 2 bad settings"),
        )
        .subcommand(Command::new("check-config").about("Check the settings and the files they name, without starting"))
        .subcommands(admin::commands())
}

/// The settings that were given, and whatever is wrong with them: one line a fault. Reads the files of secret settings.
pub fn config(matches: &ArgMatches) -> Result<Config, Vec<String>> {
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut faults = Vec::new();
    let mut secrets = HashMap::new();
    for setting in SETTINGS.iter().filter(|setting| setting.secret) {
        match read_secret(setting, matches, environment("CREDENTIALS_DIRECTORY").as_deref()) {
            Ok(Some(secret)) => drop(secrets.insert(setting.flag, secret)),
            Ok(None) => {}
            Err(fault) => faults.push(fault),
        }
    }
    let read = |flag: &str| secrets.get(flag).and_then(Secret::expose_str).map(str::to_owned);
    let get = |flag: &str| read(flag).or_else(|| given(matches, flag));
    match Config::parse(&get, &environment) {
        Ok(config) if faults.is_empty() => Ok(config),
        Ok(_) => Err(faults),
        Err(more) => Err([faults, more].concat()),
    }
}

/// Lets the kernel forget what secrets were given by variables and options: `/proc/PID/environ` and `cmdline` show them no more. Only while
/// there is one thread.
pub fn forget_secrets() {
    let secret = SETTINGS.iter().filter(|setting| setting.secret);
    let (variables, options): (Vec<_>, Vec<_>) =
        secret.map(|setting| (format!("{}=", setting.variable()), format!("--{}", setting.flag))).unzip();
    ffi::forget_given(&variables, &options);
}

fn given(matches: &ArgMatches, flag: &str) -> Option<String> {
    matches.get_one::<String>(flag).filter(|value| !value.is_empty()).cloned()
}

/// A secret from its file, or from the credential of its name where systemd has been given one; `None` = neither.
fn read_secret(setting: &Setting, matches: &ArgMatches, credentials: Option<&str>) -> Result<Option<Secret>, String> {
    let here = given(matches, setting.flag).is_some();
    let file = SETTINGS.iter().find(|file| secret_of(file).is_some_and(|secret| secret.flag == setting.flag));
    let path = file.and_then(|file| Some((file.variable(), given(matches, file.flag)?)));
    if let Some((variable, path)) = path {
        if here {
            return Err(format!("{} and {variable} are both set: unset one of them", setting.variable()));
        }
        return read_key_file(Path::new(&path)).and_then(one_line).map(Some).map_err(|reason| format!("{variable} = {reason}"));
    }
    let credential = credentials.map(|folder| Path::new(folder).join(setting.flag)).filter(|path| !here && path.exists());
    let read = credential.map(|path| read_credential(&path).and_then(one_line));
    read.transpose().map_err(|reason| format!("credential of {}: {reason}", setting.variable()))
}

/// What stands on the one line of a file, whose end an editor may have added.
fn one_line(secret: Secret) -> Result<Secret, String> {
    let text = secret.expose_str().ok_or("not UTF-8")?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.contains(['\n', '\r', '\0']) {
        return Err("expected one line of text".into());
    }
    Ok(Secret::new(line.as_bytes().to_vec()))
}
