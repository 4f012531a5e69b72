//! A headless Chromium, spoken to in its DevTools protocol, and what a page does in it.

use std::env;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

const PATIENCE: Duration = Duration::from_secs(120);

/// The browser to test with; none where there is none, which is an error where `CI` is set.
#[expect(clippy::print_stderr, reason = "a test says where it cannot test")]
pub(crate) fn find() -> Option<PathBuf> {
    if let Some(named) = env::var_os("KDHOST_CHROMIUM") {
        let named = PathBuf::from(named);
        assert!(
            named.is_file(),
            "KDHOST_CHROMIUM={} is no file",
            named.display()
        );
        return Some(named);
    }
    let folders: Vec<PathBuf> =
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = names.iter().find_map(|name| {
        folders
            .iter()
            .map(|folder| folder.join(name))
            .find(|file| file.is_file())
    });
    if found.is_none() {
        let missing = "no Chromium: install `chromium`, or name one in KDHOST_CHROMIUM";
        assert!(env::var_os("CI").is_none(), "{missing}");
        eprintln!("not tested: {missing}");
    }
    found
}

/// A browser with one page, which writes down what the page complains of and asks for.
pub(crate) struct Window {
    process: Child,
    socket: WebSocket<TcpStream>,
    /// The page's, once there is one.
    session: Option<String>,
    calls: u64,
    /// Errors, warnings, exceptions.
    complaints: Vec<String>,
    requests: Vec<String>,
    _profile: TempDir,
}

impl Window {
    pub(crate) fn open(chromium: &Path) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let process = Command::new(chromium)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-extensions",
                "--disable-dev-shm-usage",
            ])
            .args(["--remote-debugging-port=0", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (port, path) = address(profile.path());
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) =
            tungstenite::client(format!("ws://127.0.0.1:{port}{path}"), stream).unwrap();
        let mut window = Self {
            process,
            socket,
            session: None,
            calls: 0,
            complaints: Vec::new(),
            requests: Vec::new(),
            _profile: profile,
        };
        let page = window.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = window.call(
            "Target.attachToTarget",
            json!({ "targetId": page["targetId"], "flatten": true }),
        );
        window.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            window.call(&format!("{domain}.enable"), json!({}));
        }
        window
    }

    /// Sends a command and waits for its answer; what happens meanwhile is written down.
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut command = json!({ "id": self.calls, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        self.socket
            .send(Message::text(command.to_string()))
            .unwrap();
        loop {
            let Message::Text(text) = self.socket.read().unwrap() else {
                continue;
            };
            let mut message: Value = serde_json::from_str(&text).unwrap();
            if message["id"] == self.calls {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].take();
            }
            self.note(&message);
        }
    }

    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str() {
            Some("Log.entryAdded") => self.complaints.push(parameters["entry"].to_string()),
            Some("Runtime.exceptionThrown") => self
                .complaints
                .push(parameters["exceptionDetails"].to_string()),
            Some("Runtime.consoleAPICalled") => {
                self.complaints.push(parameters["args"].to_string())
            }
            Some("Network.requestWillBeSent") => {
                self.requests
                    .push(parameters["request"]["url"].as_str().unwrap().to_owned());
            }
            _ => {}
        }
    }

    /// Sets what the next page sees.
    pub(crate) fn become_like(&mut self, width: u32, scheme: &str) {
        let screen =
            json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", screen);
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", scheme);
    }

    /// Opens a file and waits until it is whole.
    pub(crate) fn visit(&mut self, page: &Path) {
        let address = format!("file://{}", page.display());
        self.call("Page.navigate", json!({ "url": address }));
        let whole = format!(
            "document.readyState === 'complete' && location.href === {address:?} ? 'yes' : 'no'"
        );
        let started = Instant::now();
        while self.ask(&whole) != "yes" {
            assert!(started.elapsed() < PATIENCE, "{address} does not load");
            sleep(Duration::from_millis(20));
        }
    }

    /// The text that an expression comes to, or the promise that it is.
    pub(crate) fn ask(&mut self, expression: &str) -> String {
        let question =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", question);
        match answer["result"]["value"].as_str() {
            Some(text) => text.to_owned(),
            None => panic!("{expression} gave {answer}"),
        }
    }

    /// The whole page as a PNG.
    pub(crate) fn picture(&mut self, width: u32) -> Vec<u8> {
        let height: u32 = self
            .ask("String(document.documentElement.scrollHeight)")
            .parse()
            .unwrap();
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        let taken = self.call(
            "Page.captureScreenshot",
            json!({ "clip": clip, "captureBeyondViewport": true }),
        );
        STANDARD.decode(taken["data"].as_str().unwrap()).unwrap()
    }

    /// What the page complained of since the last question.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }

    /// Addresses that were asked for since the last question.
    pub(crate) fn requests(&mut self) -> Vec<String> {
        std::mem::take(&mut self.requests)
    }
}

/// Port and path at which the browser listens, which it writes into its profile.
fn address(profile: &Path) -> (u16, String) {
    let file = profile.join("DevToolsActivePort");
    let started = Instant::now();
    loop {
        let text = fs::read_to_string(&file).unwrap_or_default();
        if let Some((port, path)) = text.split_once('\n') {
            return (port.parse().unwrap(), path.trim().to_owned());
        }
        assert!(started.elapsed() < PATIENCE, "the browser does not start");
        sleep(Duration::from_millis(20));
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // Asked first, so that it ends its own processes; a browser that does not hear is ended.
        let close = json!({ "id": self.calls + 1, "method": "Browser.close" });
        let asked = self.socket.send(Message::text(close.to_string()));
        let started = Instant::now();
        while asked.is_ok() && started.elapsed() < Duration::from_secs(10) {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
