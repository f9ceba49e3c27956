//! Headless Chromium, driven by the W3C WebDriver protocol through chromedriver.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::world::process::{LIMIT, Process, free_port};

/// A browser with one window. It ends with the value.
pub struct Browser {
    _driver: Process,
    session: String,
    agent: ureq::Agent,
}

impl Browser {
    /// Starts one whose profile is in a folder of its own.
    pub fn start(folder: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}")).env("HOME", folder).env("TMPDIR", folder);
        let driver = Process::start_stdout(&mut command);
        driver.wait_for("was started successfully", 1, LIMIT).unwrap_or_else(|lines| panic!("{}", lines.join("\n")));
        let config = ureq::Agent::config_builder().timeout_global(Some(LIMIT)).http_status_as_error(false);
        let agent = config.proxy(None).build().new_agent();
        let profile = format!("--user-data-dir={}", folder.join("profile").display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            &profile,
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let mut this = Self { _driver: driver, session: format!("http://127.0.0.1:{port}/session"), agent };
        let made = this.post("", &wanted);
        let id = made["sessionId"].as_str().unwrap_or_else(|| panic!("{made}"));
        this.session = format!("{}/{id}", this.session);
        this
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.agent.post(format!("{}{path}", self.session)).header("Content-Type", "application/json");
        let text = answer.send(body.to_string()).unwrap_or_else(|error| panic!("{path}: {error}")).body_mut().read_to_string();
        let answer: Value = serde_json::from_str(&text.unwrap()).unwrap();
        answer["value"].clone()
    }

    /// Goes to a page.
    pub fn go(&self, url: &str) {
        let answer = self.post("/url", &json!({"url": url}));
        assert!(answer.is_null(), "{answer}");
    }

    /// What a script returns.
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// All the text that a person sees.
    pub fn text(&self) -> String {
        self.run("return document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Becomes a screen of this size, in the dark or not.
    pub fn look(&self, (width, height): (u32, u32), dark: bool) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.post("/goog/cdp/execute", &json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": size}));
        let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" }}]});
        self.post("/goog/cdp/execute", &json!({"cmd": "Emulation.setEmulatedMedia", "params": scheme}));
    }

    /// A picture of it, as a PNG in `target/screenshots`.
    pub fn picture(&self, name: &str) -> PathBuf {
        let taken = self.agent.get(format!("{}/screenshot", self.session)).call().unwrap().body_mut().read_to_string().unwrap();
        let taken: Value = serde_json::from_str(&taken).unwrap();
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, taken["value"].as_str().unwrap()).unwrap();
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{name}.png"));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// What the browser complains of.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({"type": "browser"}));
        log.as_array().into_iter().flatten().map(Value::to_string).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.agent.delete(&self.session).call();
    }
}
