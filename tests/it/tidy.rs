//! The house rules, held by a test each: order of the modules, one place for `unsafe`, one place that makes a `Proven`, one table
//! of settings for everybody, scripts that a shell can read.

use std::path::{Path, PathBuf};
use std::process::Command;

use sftpproxy::config::SETTINGS;

use crate::world::process::run;

/// The top of the source tree.
fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files under version control, or, where there is no git, none.
fn tracked() -> Vec<String> {
    let output = run(Command::new("git").arg("-c").arg("safe.directory=*").arg("-C").arg(top()).args(["ls-files", "-z"]));
    output.stdout.split('\0').filter(|name| !name.is_empty() && top().join(name).is_file()).map(str::to_owned).collect()
}

/// Every file of `src` with its path below `src` and its text without tests, which stand at the end of a file.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                walk(&entry, found);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                found.push(entry);
            }
        }
    }
    let (src, mut found) = (top().join("src"), Vec::new());
    walk(&src, &mut found);
    found.sort();
    let name = |path: &Path| path.strip_prefix(&src).unwrap().display().to_string();
    let code = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap();
        text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned()
    };
    found.iter().filter(|path| !path.ends_with("tests.rs")).map(|path| (name(path), code(path))).collect()
}

/// The line without what follows `//`.
fn code_of(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// The modules of `lib.rs` in their order.
fn modules() -> Vec<String> {
    let lines = text("src/lib.rs");
    let name = |line: &str| {
        Some(line.trim().strip_prefix("pub ").unwrap_or(line.trim()).strip_prefix("mod ")?.strip_suffix(';')?.to_owned())
    };
    lines.lines().filter_map(name).collect()
}

/// The modules that a piece of code names after `crate::`, also within braces.
fn used(code: &str) -> Vec<String> {
    let word = |text: &str| {
        text.trim_start().split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default().to_owned()
    };
    let mut found = Vec::new();
    let plain: String = code.lines().map(|line| code_of(line).to_owned() + "\n").collect();
    for (at, _) in plain.match_indices("crate::") {
        let rest = &plain[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push(word(rest));
            continue;
        };
        let mut depth = 1;
        found.push(word(group));
        for (at, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => found.push(word(&group[at + 1..])),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

/// What a file uses that does not stand above its module.
fn below(name: &str, code: &str, modules: &[String]) -> Vec<String> {
    let own = name.split('/').next().unwrap_or(name).trim_end_matches(".rs");
    let Some(place) = modules.iter().position(|module| module == own) else { return Vec::new() };
    let fits = |used: &String| used == own || modules[..place].contains(used) || !modules.contains(used);
    used(code).into_iter().filter(|used| !fits(used)).map(|used| format!("{name} uses {used}, which stands below it")).collect()
}

#[test]
fn a_module_uses_only_what_stands_above_it_in_lib() {
    let modules = modules();
    assert!(modules.len() >= 7, "lib.rs is not read as it is written: {modules:?}");
    let faults: Vec<_> = sources().iter().flat_map(|(name, code)| below(name, code, &modules)).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    // The rule sees what it is for.
    let order = ["wire", "error", "store"].map(str::to_owned);
    assert_eq!(below("error.rs", "use crate::wire::Reader; // crate::store", &order), Vec::<String>::new());
    assert_eq!(below("error.rs", "use crate::{wire::{A, B}, store};", &order).len(), 1);
    assert_eq!(below("wire.rs", "let x = crate::error::shown(y);", &order).len(), 1);
    assert_eq!(below("store/file.rs", "use crate::store::X; use crate::error::Y;", &order), Vec::<String>::new());
}

#[test]
fn every_file_of_src_belongs_to_a_module_of_lib() {
    let modules = modules();
    for (name, _) in sources() {
        let own = name.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        assert!(["lib", "main"].contains(&own.as_str()) || modules.contains(&own), "src/{name} is in no module of lib.rs");
    }
}

#[test]
fn only_ffi_is_unsafe_and_each_unsafe_block_says_why_it_is_safe() {
    let word = |line: &str| code_of(line).split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == "unsafe");
    for (name, code) in sources() {
        let own = name.split('/').next().unwrap().trim_end_matches(".rs");
        let lines: Vec<_> = code.lines().collect();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| word(line)) {
            assert_eq!(own, "ffi", "src/{name}:{}: unsafe outside of src/ffi", number + 1);
            if code_of(line).contains("unsafe {") {
                let said = lines[number.saturating_sub(6)..=number].iter().any(|line| line.contains("SAFETY:"));
                assert!(said, "src/{name}:{}: no SAFETY: above", number + 1);
            }
        }
    }
}

#[test]
fn a_proven_user_is_made_in_one_place() {
    let calls: Vec<_> = sources()
        .into_iter()
        .flat_map(|(name, code)| {
            let count = code.lines().filter(|line| code_of(line).contains("Proven::by_signature(")).count();
            std::iter::repeat_n(name, count)
        })
        .collect();
    assert_eq!(calls.len(), 1, "{calls:?}");
}

/// The settings of a file of `export NAME='value'` lines.
fn exports(text: &str) -> Vec<(String, String)> {
    let pair = |line: &str| {
        let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
        Some((name.to_owned(), value.strip_prefix('\'')?.strip_suffix('\'')?.to_owned()))
    };
    text.lines().filter_map(pair).collect()
}

#[test]
fn properties_sh_has_every_setting_with_its_default_and_its_meaning() {
    let properties = text("properties.sh");
    let expected: Vec<_> = SETTINGS.iter().map(|setting| (setting.variable(), setting.default.to_owned())).collect();
    let given = exports(&properties);
    let wanted: String =
        SETTINGS.iter().map(|s| format!("# {}\n# {}\nexport {}='{}'\n\n", s.help, s.value, s.variable(), s.default)).collect();
    assert_eq!(given, expected, "properties.sh should have, after its head:\n{wanted}");
    for setting in SETTINGS {
        assert!(properties.contains(setting.help), "properties.sh does not say of {}: {}", setting.variable(), setting.help);
    }
    // As a shell reads it, which is what an operator's shell does.
    let script = format!(". {}; env -0", top().join("properties.sh").display());
    let read = run(Command::new("sh").args(["-eu", "-c", &script]).env_clear()).success();
    for (name, value) in expected {
        assert!(read.split('\0').any(|pair| pair == format!("{name}={value}")), "a shell does not read {name} as \"{value}\"");
    }
}

#[test]
fn the_readme_has_every_setting_with_its_default() {
    let readme = text("README.md");
    for setting in SETTINGS {
        let row = format!("| `{}` |", setting.variable());
        let line = readme.lines().find(|line| line.starts_with(&row));
        let line = line.unwrap_or_else(|| panic!("README.md has no row {row}"));
        let default = line.split('|').nth(2).unwrap_or_default().trim().trim_matches('`');
        assert_eq!(default, setting.default, "README.md, default of {}", setting.variable());
    }
    let rows = readme.lines().filter(|line| line.starts_with("| `SFTPPROXY_")).count();
    assert_eq!(rows, SETTINGS.len(), "README.md has rows of settings that there are not");
}

#[test]
fn every_script_is_one_that_bash_can_read() {
    let mut scripts: Vec<_> = tracked().into_iter().filter(|name| is_script(name)).collect();
    scripts.sort();
    assert!(scripts.is_empty() || scripts.iter().any(|name| name == "scripts/test"), "{scripts:?}");
    for script in scripts {
        let output = run(Command::new("bash").arg("-n").arg(top().join(&script)));
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{script}");
    }
}

fn is_script(name: &str) -> bool {
    name.ends_with(".sh") || std::fs::read(top().join(name)).is_ok_and(|bytes| bytes.starts_with(b"#!/"))
}

#[test]
fn text_files_end_with_one_newline_and_no_line_with_blanks() {
    for name in tracked() {
        let Ok(text) = String::from_utf8(std::fs::read(top().join(&name)).unwrap()) else { continue };
        assert!(text.is_empty() || text.ends_with('\n') && !text.ends_with("\n\n"), "{name} does not end with one newline");
        if let Some(at) = text.lines().position(|line| line.ends_with([' ', '\t'])) {
            panic!("{name}:{}: blanks at the end of the line", at + 1);
        }
    }
}

#[test]
fn the_program_uses_the_systems_libssh() {
    let libraries = run(Command::new("ldd").arg(env!("CARGO_BIN_EXE_sftpproxy"))).success();
    assert!(libraries.contains("libssh.so"), "{libraries}");
}
