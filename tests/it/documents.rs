//! What the documents say is so: links lead somewhere, commands and tests that are named exist, examples are accepted by the program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::process::{Output, run};
use crate::world::store::RedisServer;

const DOCUMENTS: [&str; 10] = [
    "README.md",
    "AUDIT.md",
    "METRICS.md",
    "ARCHITECTURE.md",
    "SECURITY.md",
    "BENCHMARKS.md",
    "CHANGELOG.md",
    "examples/docker/README.md",
    "examples/haproxy/README.md",
    "examples/monitoring/README.md",
];

fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(name: &str) -> String {
    std::fs::read_to_string(top().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What stands between ``` and ```, by the word behind the first.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let open = format!("```{language}\n");
    text.split(&open).skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// What stands between ` and `, outside of blocks.
fn code(text: &str) -> Vec<String> {
    let plain: String = text.lines().filter(|line| !line.starts_with("    ")).map(|line| format!("{line}\n")).collect();
    plain.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The targets of `[text](target)`.
fn links(text: &str) -> Vec<String> {
    text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// The names by which a document's headings can be linked to.
fn anchors(text: &str) -> BTreeSet<String> {
    let anchor = |heading: &str| {
        let kept = heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
        kept.trim().replace(' ', "-")
    };
    text.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// Our program with nothing but these settings and a home of its own.
fn program(home: &Path, settings: &[&str], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sftpproxy"));
    command.env_clear().env("HOME", home).current_dir(home).args(settings).args(arguments);
    run(&mut command)
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    for document in DOCUMENTS {
        let text = text(document);
        let folder = Path::new(document).parent().unwrap();
        for link in links(&text).into_iter().filter(|link| !link.starts_with("https://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            assert!(file.is_empty() || top().join(folder).join(file).exists(), "{document}: {link} leads nowhere");
            assert!(anchor.is_empty() || anchors(&text).contains(anchor), "{document}: there is no heading for {link}");
        }
    }
}

#[test]
fn every_command_that_the_readme_names_is_one() {
    let home = tempfile::tempdir().unwrap();
    let mut named = BTreeSet::new();
    for words in code(&text("README.md")).iter().filter_map(|code| code.strip_prefix("sftpproxy ").map(str::to_owned)) {
        let lower = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with("--");
        let path: Vec<_> =
            words.split(' ').skip_while(|word| word.starts_with("--") || word.contains('.')).take_while(lower).collect();
        let mut arguments = path.clone();
        arguments.push("--help");
        let help = program(home.path(), &[], &arguments).success();
        for option in words.split(' ').filter(|word| word.starts_with("--")) {
            let everywhere = program(home.path(), &[], &["--help"]).success();
            assert!(help.contains(option) || everywhere.contains(option), "README.md: {words}: there is no {option}");
        }
        named.insert(path.join(" "));
    }
    for command in [
        "user add",
        "user list",
        "user remove",
        "key add",
        "key list",
        "key remove",
        "host-key scan",
        "host-key list",
        "host-key approve",
        "host-key remove",
        "upstream-key new",
        "upstream-key list",
        "upstream-key show",
        "upstream-key rotate",
        "check-config",
        "serve",
    ] {
        assert!(named.contains(command), "README.md does not name sftpproxy {command}: {named:?}");
    }
}

#[test]
fn every_test_and_file_that_the_documents_name_exists() {
    let mut sources = String::new();
    for folder in ["src", "tests"] {
        sources += &run(Command::new("grep").args(["-rhE", r"\bfn [a-z0-9_]+\("]).arg(top().join(folder))).success();
    }
    for document in DOCUMENTS {
        for name in code(&text(document)) {
            let sentence = !name.starts_with("sftpproxy_")
                && name.matches('_').count() >= 3
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            assert!(!sentence || sources.contains(&format!("fn {name}(")), "{document} names {name}, which is no test");
            let path =
                ["src/", "tests/", "scripts/", "bench/", "examples/", "dist/"].iter().any(|folder| name.starts_with(folder));
            let file = name.split([' ', ',']).next().unwrap_or_default();
            assert!(!path || top().join(file).exists(), "{document} names {name}, which does not exist");
        }
    }
}

#[test]
fn the_architecture_names_every_module_in_the_order_of_lib() {
    let modules: Vec<_> = text("src/lib.rs")
        .lines()
        .filter_map(|line| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned()))
        .collect();
    let architecture = text("ARCHITECTURE.md");
    let map = architecture.split("## Code map").nth(1).unwrap().split("\n## ").next().unwrap();
    let named: Vec<_> = map
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.trim_end_matches('/').to_owned())
        .filter(|name| name != "main.rs")
        .collect();
    let mut sorted = (modules.clone(), named.clone());
    sorted.0.sort();
    sorted.1.sort();
    assert_eq!(sorted.1, sorted.0);
    assert_eq!(named, modules, "the order is another one");
}

#[test]
fn the_examples_of_routes_in_a_file_are_accepted_and_say_what_they_seem_to() {
    let home = tempfile::tempdir().unwrap();
    let from_readme = blocks(&text("README.md"), "toml");
    assert_eq!(from_readme.len(), 1);
    for (number, example) in [&text("examples/routes.toml"), &from_readme[0]].into_iter().enumerate() {
        let file = home.path().join(format!("routes-{number}.toml"));
        std::fs::write(&file, example).unwrap();
        let settings = ["--routes-file", file.to_str().unwrap()];
        program(home.path(), &settings, &["check-config"]).success();
        let users = program(home.path(), &settings, &["user", "list"]).success();
        assert!(users.contains("root@10.0.0.7:32772") && users.lines().count() == 3 && !users.contains("FAULT"), "{users}");
        let keys = program(home.path(), &settings, &["key", "list"]);
        assert_eq!((keys.code, keys.stderr.as_str()), (0, ""), "{}", keys.stdout);
        assert_eq!(keys.stdout.lines().count(), 3, "{}", keys.stdout);
    }
}

#[test]
fn the_readmes_redis_cli_lines_make_the_user_that_they_say() {
    let home = tempfile::tempdir().unwrap();
    let alice = crate::world::keys::ed25519("alice");
    std::fs::copy(alice.public(), home.path().join("alice.pub")).unwrap();
    let server = RedisServer::start(&[]);
    let lines = blocks(&text("README.md"), "sh").concat();
    assert!(lines.matches("redis-cli -n 1 ").count() >= 4, "{lines}");
    let script = lines.replace("redis-cli ", &format!("redis-cli -p {} ", server.port));
    run(Command::new("sh").args(["-euc", &script]).current_dir(home.path())).success();

    let port = server.port.to_string();
    let settings = ["--redis-host", "127.0.0.1", "--redis-port", &port];
    let shown = program(home.path(), &settings, &["user", "show", "alice", "--json"]).success();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let route = &shown["route"];
    assert_eq!(
        (&route["remote"], &route["port"], &route["user"]),
        (&"10.0.0.7".into(), &32772.into(), &"root".into()),
        "{shown}"
    );
    assert_eq!(
        (&route["home"], &route["hostkey"][0]),
        (&"/srv".into(), &"SHA256:cY3hMk/T7k8z1VdYgCEDECtIhmSFUP7npqRZVp6Grf0".into())
    );
    assert_eq!(
        (&shown["keys"][0]["fingerprint"], &shown["keys"][0]["dead"]),
        (&alice.fingerprint().into(), &serde_json::Value::Null)
    );
    let life = server.ask(redis::cmd("TTL").arg(format!("pysftpproxy:pubkey:{}", alice.base64())));
    assert!(matches!(life, redis::Value::Int(1..=86_400)), "{life:?}");
}

#[test]
fn each_known_hole_names_the_test_that_shows_it_or_says_why_there_is_none() {
    let security = text("SECURITY.md");
    let holes = security.split("## Known holes").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<_> = holes
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| hole") && !line.starts_with("| where"))
        .collect();
    assert!(rows.len() > 30, "{rows:#?}");
    for row in rows {
        // That what is named like a test is one, another test sees to.
        let shown = code(row).iter().any(|name| name.matches('_').count() >= 3 || name.starts_with("tests/it/"));
        assert!(shown || row.contains(" No test"), "SECURITY.md: no test and no reason: {row}");
    }
}
