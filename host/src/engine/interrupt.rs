//! Ctrl-C and SIGTERM: the first asks the run to stop in good order, the second ends it at once.

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use crate::exit_code;

/// Whether somebody asked the run to stop. Clones share the answer.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    requests: Arc<AtomicU32>,
}

/// The signal handler cannot be set.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the handler of Ctrl-C cannot be set: {reason}")]
pub struct InterruptError {
    /// Why.
    pub reason: String,
}

impl Interrupt {
    /// Not tied to any signal: for tests and for embedding.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tied to SIGINT, SIGTERM and SIGHUP of this process. The first signal makes
    /// [`Interrupt::requested`] true: finish the step, write a checkpoint, exit with
    /// [`exit_code::INTERRUPTED`]. The second exits with that code at once.
    ///
    /// Every call in a process returns the same one, so that runs in sequence share it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn install() -> Result<Self, InterruptError> {
        static INSTALLED: OnceLock<Result<Interrupt, InterruptError>> = OnceLock::new();
        INSTALLED
            .get_or_init(|| {
                let interrupt = Interrupt::new();
                let seen = interrupt.clone();
                ctrlc::set_handler(move || {
                    if seen.request() == 0 {
                        say("stopping after this step; once more to stop at once");
                    } else {
                        std::process::exit(exit_code::INTERRUPTED);
                    }
                })
                .map_err(|error| InterruptError {
                    reason: error.to_string(),
                })?;
                Ok(interrupt)
            })
            .clone()
    }

    /// True after the first request.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// Asks as a signal would; returns how often somebody asked before.
    pub fn request(&self) -> u32 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }
}

fn say(message: &str) {
    // Nothing can be done where stderr is closed, and the run goes on without it.
    let _ = writeln!(std::io::stderr(), "\n{message}");
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_request_is_seen_by_all_clones() {
        let interrupt = Interrupt::new();
        let other = interrupt.clone();
        assert!(!other.requested());
        assert_eq!(interrupt.request(), 0);
        assert!(other.requested());
        assert_eq!(other.request(), 1);
    }

    /// Set in a child: how long it works on after the first signal.
    const CHILD: &str = "KDHOST_TEST_INTERRUPT_CHILD_MS";

    #[test]
    #[cfg(unix)]
    fn the_first_signal_waits_and_the_second_does_not() {
        if let Ok(milliseconds) = std::env::var(CHILD) {
            work_until_interrupted(milliseconds.parse().unwrap());
        }
        // The step takes no time: the child finishes it and exits in good order.
        let mut child = start(0);
        signal(&child.0, "-TERM");
        assert_eq!(lines_until_exit(&mut child), ["finished"]);
        // The step would take a minute: the second signal ends it.
        let begun = Instant::now();
        let mut child = start(60_000);
        signal(&child.0, "-INT");
        let mut line = String::new();
        child.1.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "stopping");
        signal(&child.0, "-INT");
        assert_eq!(lines_until_exit(&mut child), [""; 0]);
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    fn work_until_interrupted(milliseconds: u64) -> ! {
        let interrupt = Interrupt::install().unwrap();
        assert!(!Interrupt::install().unwrap().requested());
        println!("ready");
        while !interrupt.requested() {
            std::thread::sleep(Duration::from_millis(5));
        }
        if milliseconds > 0 {
            println!("stopping");
            std::thread::sleep(Duration::from_millis(milliseconds));
        }
        println!("finished");
        std::process::exit(exit_code::INTERRUPTED);
    }

    type Running = (Child, BufReader<std::process::ChildStdout>);

    fn start(milliseconds: u64) -> Running {
        let name = "engine::interrupt::tests::the_first_signal_waits_and_the_second_does_not";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, milliseconds.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "the child is up");
        }
        (child, output)
    }

    fn signal(child: &Child, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    fn lines_until_exit((child, output): &mut Running) -> Vec<String> {
        let lines = output.lines().map(Result::unwrap).collect();
        assert_eq!(child.wait().unwrap().code(), Some(exit_code::INTERRUPTED));
        lines
    }
}
