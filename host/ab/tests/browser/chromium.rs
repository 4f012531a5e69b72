//! A headless Chromium, and what a page does in it.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use headless_chrome::browser::tab::Tab;
use headless_chrome::protocol::cdp::types::Event;
use headless_chrome::protocol::cdp::{Emulation, Network, Page};
use headless_chrome::{Browser, LaunchOptions};

const PATIENCE: Duration = Duration::from_secs(120);

/// The browser to test with; none where there is none, which is an error where `CI` is set.
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

/// A browser with one tab that writes down what its page complains of and asks for.
pub(crate) struct Window {
    tab: Arc<Tab>,
    /// Errors, warnings, exceptions.
    complaints: Arc<Mutex<Vec<String>>>,
    requests: Arc<Mutex<Vec<String>>>,
    _browser: Browser,
}

impl Window {
    pub(crate) fn open(chromium: &Path) -> Self {
        let options = LaunchOptions::default_builder()
            .path(Some(chromium.to_owned()))
            .sandbox(false)
            .args(vec![
                "--headless=new".as_ref(),
                "--hide-scrollbars".as_ref(),
            ])
            .idle_browser_timeout(PATIENCE)
            .build()
            .unwrap();
        let browser = Browser::new(options).unwrap();
        let tab = browser.new_tab().unwrap();
        tab.set_default_timeout(PATIENCE);
        tab.enable_log().unwrap().enable_runtime().unwrap();
        tab.call_method(Network::Enable {
            max_total_buffer_size: None,
            max_resource_buffer_size: None,
            max_post_data_size: None,
            report_direct_socket_traffic: None,
            enable_durable_messages: None,
        })
        .unwrap();
        let window = Self {
            tab,
            complaints: Arc::default(),
            requests: Arc::default(),
            _browser: browser,
        };
        let (complaints, requests) = (window.complaints.clone(), window.requests.clone());
        let listen = move |event: &Event| match event {
            Event::LogEntryAdded(entry) => complaints
                .lock()
                .unwrap()
                .push(format!("{:?}", entry.params.entry)),
            Event::RuntimeExceptionThrown(thrown) => complaints
                .lock()
                .unwrap()
                .push(format!("{:?}", thrown.params.exception_details)),
            Event::RuntimeConsoleAPICalled(call) => complaints
                .lock()
                .unwrap()
                .push(format!("{:?}", call.params.args)),
            Event::NetworkRequestWillBeSent(request) => requests
                .lock()
                .unwrap()
                .push(request.params.request.url.clone()),
            _ => {}
        };
        window.tab.add_event_listener(Arc::new(listen)).unwrap();
        window
    }

    /// Sets what the next page sees.
    pub(crate) fn become_like(&self, width: u32, scheme: &str) {
        self.tab
            .call_method(Emulation::SetDeviceMetricsOverride {
                width,
                height: 900,
                device_scale_factor: 1.0,
                mobile: width < 600,
                scale: None,
                screen_width: None,
                screen_height: None,
                position_x: None,
                position_y: None,
                dont_set_visible_size: None,
                screen_orientation: None,
                viewport: None,
                display_feature: None,
                device_posture: None,
            })
            .unwrap();
        let scheme = Emulation::MediaFeature {
            name: "prefers-color-scheme".to_owned(),
            value: scheme.to_owned(),
        };
        self.tab
            .call_method(Emulation::SetEmulatedMedia {
                media: None,
                features: Some(vec![scheme]),
            })
            .unwrap();
    }

    /// Opens a file and waits until it is whole.
    pub(crate) fn visit(&self, page: &Path) {
        let address = format!("file://{}", page.display());
        self.tab.navigate_to(&address).unwrap();
        let whole = format!("document.readyState === 'complete' && location.href === {address:?}");
        let started = Instant::now();
        // While one page gives way to the next there is nobody to ask.
        while !self
            .tab
            .evaluate(&whole, false)
            .is_ok_and(|answer| answer.value == Some(true.into()))
        {
            assert!(started.elapsed() < PATIENCE, "{address} does not load");
            sleep(Duration::from_millis(20));
        }
    }

    /// The text that an expression, or the promise that it is, comes to.
    pub(crate) fn ask(&self, expression: &str) -> String {
        let answer = self.tab.evaluate(expression, true).unwrap();
        match answer.value {
            Some(serde_json::Value::String(text)) => text,
            other => panic!("{expression} gave {other:?} ({:?})", answer.description),
        }
    }

    /// The whole page as a PNG.
    pub(crate) fn picture(&self, width: u32) -> Vec<u8> {
        let height: f64 = self
            .ask("String(document.documentElement.scrollHeight)")
            .parse()
            .unwrap();
        let clip = Page::Viewport {
            x: 0.0,
            y: 0.0,
            width: width.into(),
            height,
            scale: 1.0,
        };
        let taken = self.tab.call_method(Page::CaptureScreenshot {
            format: Some(Page::CaptureScreenshotFormatOption::Png),
            clip: Some(clip),
            quality: None,
            from_surface: Some(true),
            capture_beyond_viewport: Some(true),
            optimize_for_speed: None,
        });
        base64::Engine::decode(
            &base64::engine::general_purpose::STANDARD,
            taken.unwrap().data,
        )
        .unwrap()
    }

    /// What the page complained of since the last question.
    pub(crate) fn complaints(&self) -> Vec<String> {
        std::mem::take(&mut self.complaints.lock().unwrap())
    }

    /// Addresses that were asked for since the last question.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}
