//! What a person sees while the runs go on; always on stderr.

use std::collections::VecDeque;
use std::io::Write as _;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::engine::progress::ProgressMode;
use crate::engine::table::spoken;

/// How a run stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// Not begun in this process.
    Waiting,
    /// With the share of its steps that is done, where it is known.
    Running(Option<f64>),
    /// With its main metric, points.
    Done(Option<f64>),
    /// Without a result: `failed`, `killed`.
    Failed(String),
}

/// Shows arms × seeds.
pub struct Board {
    arms: Vec<String>,
    seeds: Vec<u64>,
    jobs: usize,
    bar: Option<ProgressBar>,
    lines: bool,
    shown: Vec<Vec<Standing>>,
    /// Seconds of the runs that were done in this process.
    seconds: VecDeque<f64>,
    started: Instant,
}

impl Board {
    /// Of `arms` × `seeds`, so many at once.
    #[must_use]
    pub fn new(mode: ProgressMode, arms: Vec<String>, seeds: Vec<u64>, jobs: usize) -> Self {
        let bar = (mode == ProgressMode::Bar).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4));
            bar.set_style(ProgressStyle::with_template("{msg}").expect("a template"));
            bar
        });
        Board {
            shown: vec![vec![Standing::Waiting; seeds.len()]; arms.len()],
            arms,
            seeds,
            jobs,
            bar,
            lines: mode == ProgressMode::Lines,
            seconds: VecDeque::new(),
            started: Instant::now(),
        }
    }

    /// Notes how long a run took, for what is left.
    pub fn took(&mut self, time: Duration) {
        self.seconds.push_back(time.as_secs_f64());
    }

    /// Shows how things stand, where that changed.
    pub fn show(&mut self, standing: &[Vec<Standing>]) {
        if let Some(bar) = &self.bar {
            if self.shown != standing {
                bar.set_message(format!(
                    "{}\n{}",
                    self.table(standing),
                    self.summary(standing)
                ));
            }
        } else if self.lines {
            for (arm, row) in standing.iter().enumerate() {
                for (seed, now) in row.iter().enumerate() {
                    self.line(arm, seed, now, standing);
                }
            }
        }
        self.shown = standing.to_vec();
    }

    /// Leaves the last table where it is.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }

    /// A line where a run begins or ends.
    fn line(&self, arm: usize, seed: usize, now: &Standing, all: &[Vec<Standing>]) {
        let before = &self.shown[arm][seed];
        let running = |standing: &Standing| matches!(standing, Standing::Running(_));
        if before == now || (running(before) && running(now)) || *now == Standing::Waiting {
            return;
        }
        let what = match now {
            Standing::Running(_) => "begins".to_owned(),
            now => cell(now),
        };
        let (arm, seed) = (&self.arms[arm], self.seeds[seed]);
        let text = format!("{arm} seed {seed}: {what} ({})\n", self.summary(all));
        // Nobody is left to tell if standard error is closed.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    fn table(&self, standing: &[Vec<Standing>]) -> Table {
        let mut table = Table::new();
        let seeds = self.seeds.iter().map(|seed| format!("seed {seed}"));
        table
            .load_style(presets::UTF8_FULL_CONDENSED)
            .set_header(std::iter::once("arm".to_owned()).chain(seeds));
        for (arm, row) in self.arms.iter().zip(standing) {
            table.add_row(std::iter::once(arm.clone()).chain(row.iter().map(cell)));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// `3 of 12 runs, 1 failed, about 5 min left`.
    fn summary(&self, standing: &[Vec<Standing>]) -> String {
        let all = || standing.iter().flatten();
        let count = |is: fn(&Standing) -> bool| all().filter(|s| is(s)).count();
        let done = count(|s| matches!(s, Standing::Done(_)));
        let failed = count(|s| matches!(s, Standing::Failed(_)));
        let mut text = format!("{done} of {} runs", all().count());
        if failed > 0 {
            text.push_str(&format!(", {failed} without a result"));
        }
        if let Some(left) = self.left(standing) {
            text.push_str(&format!(", about {} left", spoken(left)));
        }
        text
    }

    /// What is left, from the runs that are done or, before there is one, from those under way.
    fn left(&self, standing: &[Vec<Standing>]) -> Option<Duration> {
        let mut to_do = 0.0;
        let mut under_way = 0.0;
        for standing in standing.iter().flatten() {
            match standing {
                Standing::Waiting => to_do += 1.0,
                Standing::Running(share) => {
                    let share = share.unwrap_or(0.0);
                    to_do += 1.0 - share;
                    under_way += share;
                }
                Standing::Done(_) | Standing::Failed(_) => {}
            }
        }
        let jobs = self.jobs as f64;
        let of_a_run = match self.seconds.len() {
            0 if under_way > 0.02 => self.started.elapsed().as_secs_f64() * jobs / under_way,
            0 => return None,
            n => self.seconds.iter().sum::<f64>() / n as f64,
        };
        (to_do > 0.0).then(|| Duration::from_secs_f64(of_a_run * to_do / jobs))
    }
}

fn cell(standing: &Standing) -> String {
    match standing {
        Standing::Waiting => "-".into(),
        Standing::Running(None) => "running".into(),
        Standing::Running(Some(share)) => format!("{:.0} %", 100.0 * share),
        Standing::Done(None) => "done".into(),
        Standing::Done(Some(points)) => format!("{points:.1}"),
        Standing::Failed(how) => how.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        let arms = vec!["none".to_owned(), "x".to_owned()];
        Board::new(ProgressMode::Quiet, arms, vec![0, 1], 2)
    }

    #[test]
    fn the_table_has_a_row_an_arm_and_says_what_failed() {
        let standing = vec![
            vec![Standing::Done(Some(30.52)), Standing::Running(Some(0.42))],
            vec![Standing::Failed("killed".into()), Standing::Waiting],
        ];
        let text = board().table(&standing).to_string();
        for expected in ["seed 1", "30.5", "42 %", "killed", "-"] {
            assert!(text.contains(expected), "{text}");
        }
        let summary = board().summary(&standing);
        assert!(
            summary.starts_with("1 of 4 runs, 1 without a result"),
            "{summary}"
        );
    }

    #[test]
    fn what_is_left_follows_from_what_was_done() {
        let mut board = board();
        let standing = vec![
            vec![Standing::Done(None), Standing::Running(Some(0.5))],
            vec![Standing::Waiting, Standing::Waiting],
        ];
        board.took(Duration::from_secs(100));
        // Two and a half runs of 100 s, two at a time.
        assert_eq!(board.left(&standing), Some(Duration::from_secs(125)));
        let done = vec![vec![Standing::Done(None)]];
        assert_eq!(board.left(&done), None);
    }
}
