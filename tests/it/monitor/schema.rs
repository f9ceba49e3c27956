//! What the series are called: METRICS.md has a row of each family, which is what the code makes, and what examples/monitoring asks for
//! exists.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use sftpproxy::metrics::Metrics;

use crate::world::clients::installed;
use crate::world::process::run;

fn text(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of the table that the code makes.
fn rows() -> Vec<String> {
    let metrics = Metrics::new(Duration::ZERO, true, 1);
    let row = |family: &&dyn sftpproxy::metrics::family::Family| {
        let (about, (name, kind)) = (family.about(), family.shown());
        let value = |value: &&str| format!("`{value}`");
        let label = |label: &sftpproxy::metrics::labels::Label| match label.values.as_slice() {
            [] => format!("`{}`", label.name),
            values => format!("`{}`: {}", label.name, values.iter().map(value).collect::<Vec<_>>().join(" ")),
        };
        let labels: Vec<_> = about.labels.iter().map(label).collect();
        format!("| `{name}` | {kind} | {} | {} |", labels.join("; "), about.help)
    };
    metrics.families().iter().map(row).collect()
}

/// The names of all series, as a query can use them.
fn names() -> BTreeSet<String> {
    let metrics = Metrics::new(Duration::ZERO, true, 1);
    let series = |family: &&dyn sftpproxy::metrics::family::Family| {
        let (name, kind) = family.shown();
        let ends: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        ends.iter().map(|end| format!("{name}{end}")).collect::<Vec<_>>()
    };
    metrics.families().iter().flat_map(series).collect()
}

/// The names of ours that a text uses.
fn used(text: &str) -> BTreeSet<String> {
    let word = |rest: &str| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default().to_owned();
    text.match_indices("sftpproxy_").map(|(at, _)| word(&text[at..])).collect()
}

#[test]
fn each_family_of_series_is_described_as_metrics_md_says() {
    let document = text("METRICS.md");
    let said: Vec<_> = document.lines().filter(|line| line.starts_with("| `sftpproxy_")).map(str::to_owned).collect();
    assert_eq!(said, rows(), "METRICS.md should have:\n{}", rows().join("\n"));
    let known = names();
    let families: BTreeSet<_> = rows().iter().map(|row| row.split('`').nth(1).unwrap().to_owned()).collect();
    let unknown: Vec<_> = used(&document).into_iter().filter(|name| !known.contains(name) && !families.contains(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_series_that_there_are() {
    let known = names();
    for file in ["examples/monitoring/dashboard.json", "examples/monitoring/alerts.yml"] {
        let text = text(file);
        let used = used(&text);
        assert!(used.len() >= 8, "{file} asks for {used:?}");
        let unknown: Vec<_> = used.into_iter().filter(|name| !known.contains(name)).collect();
        assert!(unknown.is_empty(), "{file} asks for {unknown:?}");
    }
    let dashboard: serde_json::Value = serde_json::from_str(&text("examples/monitoring/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() >= 8);
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert!(panel["title"].is_string() && panel["targets"][0]["expr"].is_string(), "{panel}");
        assert!(panel["gridPos"]["w"].as_u64().unwrap() + panel["gridPos"]["x"].as_u64().unwrap() <= 24, "{panel}");
    }
    if installed("promtool") {
        let rules = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/monitoring/alerts.yml");
        run(Command::new("promtool").args(["check", "rules"]).arg(rules)).success();
    }
}
