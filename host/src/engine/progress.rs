//! What a person sees while a run goes on; always on stderr.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::memory::MemoryUsage;

/// Steps that a smoothed value looks back on.
const WINDOW: usize = 20;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressMode {
    /// A bar that is redrawn in place.
    Bar,
    /// One plain line per log interval: for log files and pipes.
    Lines,
    /// Nothing.
    Quiet,
}

impl ProgressMode {
    /// Nothing if asked for, a bar where stderr is a terminal, lines elsewhere.
    #[must_use]
    pub fn detect(quiet: bool) -> Self {
        match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => ProgressMode::Quiet,
            (false, true) => ProgressMode::Bar,
            (false, false) => ProgressMode::Lines,
        }
    }
}

/// What one optimizer step reports.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport<'a> {
    /// Optimizer steps done, this one included.
    pub iter: u64,
    /// Epochs completed.
    pub epoch: u64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Spent waiting for data.
    pub data_time: Duration,
    /// Spent on everything, waiting included.
    pub step_time: Duration,
    /// Loss terms, in the order to show them.
    pub losses: &'a [(String, f64)],
}

/// Shows the progress of one training run.
pub struct TrainProgress {
    output: Output,
    label: String,
    total_iters: u64,
    log_interval: u64,
    /// Of this process: a resumed run's earlier steps say nothing about this machine.
    steps: u64,
    total_time: Duration,
    data_time: Meter,
    step_time: Meter,
    losses: Vec<(String, Meter)>,
}

enum Output {
    Bar(ProgressBar),
    Lines(Box<dyn Write + Send>),
    Quiet,
}

impl TrainProgress {
    /// Progress of the run `label` from optimizer step `start_iter` to `total_iters`, a line every
    /// `log_interval` steps where there is no bar.
    #[must_use]
    pub fn new(
        mode: ProgressMode,
        label: &str,
        start_iter: u64,
        total_iters: u64,
        log_interval: u64,
    ) -> Self {
        let output = match mode {
            ProgressMode::Bar => {
                let target = ProgressDrawTarget::stderr();
                Output::Bar(bar(target, label, start_iter, total_iters))
            }
            ProgressMode::Lines => Output::Lines(Box::new(std::io::stderr())),
            ProgressMode::Quiet => Output::Quiet,
        };
        Self::with_output(output, label, total_iters, log_interval)
    }

    fn with_output(output: Output, label: &str, total_iters: u64, log_interval: u64) -> Self {
        TrainProgress {
            output,
            label: label.into(),
            total_iters,
            log_interval: log_interval.max(1),
            steps: 0,
            total_time: Duration::ZERO,
            data_time: Meter::default(),
            step_time: Meter::default(),
            losses: Vec::new(),
        }
    }

    /// Takes in one step.
    pub fn step(&mut self, report: &StepReport<'_>) {
        self.steps += 1;
        self.total_time += report.step_time;
        self.data_time.push(report.data_time.as_secs_f64());
        self.step_time.push(report.step_time.as_secs_f64());
        for (name, value) in report.losses {
            match self.losses.iter_mut().find(|(known, _)| known == name) {
                Some((_, meter)) => meter.push(*value),
                None => {
                    let mut meter = Meter::default();
                    meter.push(*value);
                    self.losses.push((name.clone(), meter));
                }
            }
        }
        let line_due =
            report.iter.is_multiple_of(self.log_interval) || report.iter == self.total_iters;
        match &self.output {
            Output::Bar(bar) => {
                bar.set_position(report.iter);
                bar.set_message(self.text(report));
            }
            Output::Lines(_) if line_due => {
                let line = format!(
                    "{} {}/{} {}",
                    self.label,
                    report.iter,
                    self.total_iters,
                    self.text(report)
                );
                self.print(&line);
            }
            Output::Lines(_) | Output::Quiet => {}
        }
    }

    /// Shows a line of text (an evaluation's result), above the bar where there is one.
    pub fn print(&mut self, line: &str) {
        match &mut self.output {
            Output::Bar(bar) => bar.println(line),
            // A closed stderr is no reason to end a run.
            Output::Lines(output) => drop(writeln!(output, "{line}")),
            Output::Quiet => {}
        }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        if let Output::Bar(bar) = self.output {
            bar.finish_and_clear();
        }
    }

    /// Time left at the mean speed of this process so far; evaluations are not in it.
    fn eta(&self, iter: u64) -> Duration {
        let left = self.total_iters.saturating_sub(iter);
        let mean = self.total_time.as_secs_f64() / self.steps.max(1) as f64;
        Duration::from_secs_f64(mean * left as f64)
    }

    fn text(&self, report: &StepReport<'_>) -> String {
        let mut text = format!("epoch {}", report.epoch);
        for (name, meter) in &self.losses {
            let name = name.strip_prefix("loss_").unwrap_or(name);
            let _ = write!(text, "  {name} {:.4}", meter.mean());
        }
        let _ = write!(
            text,
            "  lr {:.2e}  data {:.3}s  step {:.3}s",
            report.lr,
            self.data_time.mean(),
            self.step_time.mean()
        );
        if let Some(memory) = MemoryUsage::now() {
            let _ = write!(text, "  mem {} MiB", memory.resident_bytes >> 20);
        }
        let _ = write!(text, "  eta {}", clock(self.eta(report.iter)));
        text
    }
}

fn bar(target: ProgressDrawTarget, label: &str, start_iter: u64, total_iters: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {pos}/{len} {bar:20} {wide_msg}")
        .expect("the template is valid");
    ProgressBar::with_draw_target(Some(total_iters), target)
        .with_style(style)
        .with_prefix(label.to_owned())
        .with_position(start_iter)
}

/// `1:02:03`, or `2:03` below an hour.
fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

/// Mean of the last values.
#[derive(Clone, Debug, Default)]
struct Meter {
    window: VecDeque<f64>,
}

impl Meter {
    fn push(&mut self, value: f64) {
        if self.window.len() == WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(value);
    }

    fn mean(&self) -> f64 {
        self.window.iter().sum::<f64>() / self.window.len().max(1) as f64
    }
}

/// Shows the progress of one countable task within a run (evaluation, making a data set). A bar or
/// nothing: its result is what a log file needs.
pub struct TaskProgress {
    bar: Option<ProgressBar>,
}

impl TaskProgress {
    /// Progress of `label` from 0 to `total`.
    #[must_use]
    pub fn new(mode: ProgressMode, label: &str, total: u64) -> Self {
        let shown = mode == ProgressMode::Bar;
        TaskProgress {
            bar: shown.then(|| bar(ProgressDrawTarget::stderr(), label, 0, total)),
        }
    }

    /// Counts `done` more.
    pub fn advance(&self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(done);
        }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn report(iter: u64, losses: &[(String, f64)]) -> StepReport<'_> {
        StepReport {
            iter,
            epoch: 2,
            lr: 0.02,
            data_time: Duration::from_millis(10),
            step_time: Duration::from_millis(500),
            losses,
        }
    }

    #[test]
    fn lines_come_at_the_interval_and_at_the_end() {
        let captured = Captured::default();
        let output = Output::Lines(Box::new(captured.clone()));
        let mut progress = TrainProgress::with_output(output, "student", 25, 10);
        for iter in 1..=25 {
            let losses = [("loss_cls".to_owned(), 1.0), ("kd_x".to_owned(), 0.25)];
            progress.step(&report(iter, &losses));
        }
        progress.print("AP 12.3");
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(
            lines[0].starts_with(
                "student 10/25 epoch 2  cls 1.0000  kd_x 0.2500  lr 2.00e-2  data 0.010s  step 0.500s"
            ),
            "{text}"
        );
        // 15 steps of half a second.
        assert!(lines[0].ends_with("eta 0:07"), "{text}");
        assert!(lines[2].starts_with("student 25/25") && lines[2].ends_with("eta 0:00"));
        assert_eq!(lines[3], "AP 12.3");
    }

    #[test]
    fn the_bar_shows_every_step() {
        let target = ProgressDrawTarget::hidden();
        let shown = bar(target, "student", 5, 100);
        let output = Output::Bar(shown.clone());
        let mut progress = TrainProgress::with_output(output, "student", 100, 10);
        progress.step(&report(6, &[("loss_bbox".into(), 0.5)]));
        assert_eq!((shown.position(), shown.length()), (6, Some(100)));
        assert!(
            shown.message().contains("bbox 0.5000"),
            "{}",
            shown.message()
        );
        // 94 steps of half a second.
        assert!(shown.message().ends_with("eta 0:47"), "{}", shown.message());
        progress.finish();
        assert!(shown.is_finished());
    }

    #[test]
    fn a_meter_forgets() {
        let mut meter = Meter::default();
        assert_eq!(meter.mean(), 0.0);
        meter.push(1e9);
        for _ in 0..WINDOW {
            meter.push(2.0);
        }
        assert_eq!(meter.mean(), 2.0);
    }

    #[test]
    fn quiet_is_stronger_than_a_terminal() {
        assert_eq!(ProgressMode::detect(true), ProgressMode::Quiet);
        assert_ne!(ProgressMode::detect(false), ProgressMode::Quiet);
    }

    #[test]
    fn clocks_are_short() {
        let shown = [0, 59, 60, 3599, 3723].map(|s| clock(Duration::from_secs(s)));
        assert_eq!(shown, ["0:00", "0:59", "1:00", "59:59", "1:02:03"]);
    }
}
