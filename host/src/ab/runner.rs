//! The processes of a comparison: one a run, so that none takes another down.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kdhost_ab::report::RunState;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tracing::{info, warn};

use super::AbError;
use super::board::{Board, Standing};
use super::plan::Plan;
use super::store::{Failure, RunFiles, Store};
use crate::engine::arm;
use crate::engine::fingerprint::{Facts, Fingerprint};
use crate::engine::interrupt::Interrupt;
use crate::engine::progress::ProgressMode;

/// Between two looks at the processes.
const PAUSE: Duration = Duration::from_millis(100);
/// Lines of a log that say why a run ended.
const LAST_LINES: usize = 12;

/// Carries out every run that has no result yet, `jobs` at a time. A run that ends without one is
/// noted, and the others go on.
///
/// # Errors
/// If what is fed into a run differs from the control's where that was not allowed; if somebody asks
/// to stop; or if the system refuses a process.
pub fn run(
    plan: &Plan,
    store: &Store,
    progress: ProgressMode,
    interrupt: &Interrupt,
) -> Result<(), AbError> {
    let mut runner = Runner::new(plan, store)?;
    let arms = plan.spec.arms.iter().map(|arm| arm.name.clone()).collect();
    let mut board = Board::new(progress, arms, plan.spec.seeds.clone(), plan.spec.jobs);
    let result = runner.go(&mut board, interrupt);
    board.finish();
    if result.is_err() {
        runner.stop();
    }
    result
}

/// One run and how it stands.
struct Task {
    arm: usize,
    seed: usize,
    files: RunFiles,
    state: State,
    /// Facts are compared once.
    is_compared: bool,
}

enum State {
    Waiting,
    Running(Process),
    Done(Option<f64>),
    Failed(Failure),
}

/// A process under way.
enum Process {
    /// Started here.
    Own { child: Child, since: Instant },
    /// Started by an earlier runner that is gone.
    Orphan,
}

struct Runner<'a> {
    plan: &'a Plan,
    /// Seed by seed, the control first.
    tasks: Vec<Task>,
    /// What is fed into the control of each seed, once it has begun.
    controls: Vec<Option<Facts>>,
    executable: PathBuf,
}

impl<'a> Runner<'a> {
    fn new(plan: &'a Plan, store: &Store) -> Result<Self, AbError> {
        let mut tasks = Vec::new();
        for (seed, &number) in plan.spec.seeds.iter().enumerate() {
            for (arm, planned) in plan.arms.iter().enumerate() {
                let files = store.run(&planned.spec.folder(), number);
                let state = match arm::done(&files.folder)? {
                    Some(done) => State::Done(main(&done)),
                    None => State::Waiting,
                };
                tasks.push(Task {
                    arm,
                    seed,
                    files,
                    state,
                    is_compared: false,
                });
            }
        }
        let executable = executable()?;
        Ok(Runner {
            controls: vec![None; plan.spec.seeds.len()],
            plan,
            tasks,
            executable,
        })
    }

    fn go(&mut self, board: &mut Board, interrupt: &Interrupt) -> Result<(), AbError> {
        loop {
            self.look(board)?;
            self.start_some()?;
            self.compare()?;
            board.show(&self.standing());
            let over = |task: &Task| matches!(task.state, State::Done(_) | State::Failed(_));
            if self.tasks.iter().all(over) {
                return Ok(());
            }
            if interrupt.requested() {
                let done = |task: &&Task| matches!(task.state, State::Done(_));
                return Err(AbError::Interrupted {
                    done: self.tasks.iter().filter(done).count(),
                    total: self.tasks.len(),
                });
            }
            thread::sleep(PAUSE);
        }
    }

    /// Sees which processes have ended.
    fn look(&mut self, board: &mut Board) -> Result<(), AbError> {
        for task in &mut self.tasks {
            let State::Running(process) = &mut task.state else {
                continue;
            };
            let ended = match process {
                Process::Own { child, since } => {
                    let status = child.try_wait();
                    let status = status.map_err(|e| AbError::file(&self.executable, e))?;
                    if status.is_some_and(|status| status.success()) {
                        board.took(since.elapsed());
                    }
                    status.map(ended)
                }
                Process::Orphan => {
                    if task.files.lock_log()?.is_none() {
                        continue;
                    }
                    // Nobody saw how it ended: without a result it is gone on with here.
                    task.state = match arm::done(&task.files.folder)? {
                        Some(done) => State::Done(main(&done)),
                        None => State::Waiting,
                    };
                    continue;
                }
            };
            let Some(failure) = ended else { continue };
            task.state = match arm::done(&task.files.folder)? {
                Some(done) => {
                    task.files.note_failure(None)?;
                    State::Done(main(&done))
                }
                None => {
                    let failure = with_last_words(failure, &task.files.log());
                    task.files.note_failure(Some(&failure))?;
                    warn!(
                        "arm `{}`, seed {}: {}",
                        self.plan.spec.arms[task.arm].name,
                        self.plan.spec.seeds[task.seed],
                        failure.reason
                    );
                    State::Failed(failure)
                }
            };
        }
        Ok(())
    }

    fn start_some(&mut self) -> Result<(), AbError> {
        let running = |task: &&Task| matches!(task.state, State::Running(_));
        let mut free =
            (self.plan.spec.jobs).saturating_sub(self.tasks.iter().filter(running).count());
        for index in 0..self.tasks.len() {
            if free == 0 {
                return Ok(());
            }
            if matches!(self.tasks[index].state, State::Waiting) {
                let process = self.start(&self.tasks[index])?;
                self.tasks[index].state = State::Running(process);
                free -= 1;
            }
        }
        Ok(())
    }

    /// Starts a run, or goes on with it.
    fn start(&self, task: &Task) -> Result<Process, AbError> {
        let Some(log) = task.files.lock_log()? else {
            info!("`{}` is still going on", task.files.folder.display());
            return Ok(Process::Orphan);
        };
        // What an earlier try said is not why this one ends.
        log.set_len(0)
            .map_err(|e| AbError::file(task.files.log(), e))?;
        let config = &self.plan.arms[task.arm].configs[task.seed];
        task.files.write_config(config)?;
        let mut command = Command::new(&self.executable);
        command.args(["train", "--quiet", "--json"]);
        if task.files.is_begun() {
            command.arg("--resume").arg(&task.files.folder);
        } else {
            // What a process left that was killed before there was a run.
            if let Err(error) = fs::remove_dir_all(&task.files.folder)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                return Err(AbError::file(&task.files.folder, error));
            }
            command.arg("--config").arg(task.files.config());
            command.arg("--output").arg(&task.files.folder);
        }
        command
            .env("RAYON_NUM_THREADS", self.plan.fixed.threads.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for the runner, which asks each run to stop once.
            .process_group(0);
        let child = command
            .spawn()
            .map_err(|e| AbError::file(&self.executable, e))?;
        Ok(Process::Own {
            child,
            since: Instant::now(),
        })
    }

    /// Compares what is fed into each run with what is fed into the control of its seed, once, as soon as
    /// both have begun; a job of stages with its last one.
    fn compare(&mut self) -> Result<(), AbError> {
        let mut refused = Vec::new();
        for index in 0..self.tasks.len() {
            let task = &self.tasks[index];
            let is_on = matches!(task.state, State::Running(_) | State::Done(_));
            if task.is_compared || !is_on {
                continue;
            }
            let Some(fingerprint) = Fingerprint::load(&task.files.of_student()?)? else {
                continue;
            };
            let (arm, seed) = (task.arm, task.seed);
            if arm == 0 {
                self.controls[seed] = fingerprint.starts.first().cloned();
            }
            let Some(control) = &self.controls[seed] else {
                continue;
            };
            let seed = self.plan.spec.seeds[seed];
            for facts in &fingerprint.starts {
                refused.extend(self.plan.unequal(arm, seed, control, facts).1);
            }
            self.tasks[index].is_compared = true;
        }
        refused.dedup();
        match refused.is_empty() {
            true => Ok(()),
            false => Err(AbError::Unequal {
                differences: refused,
            }),
        }
    }

    fn standing(&self) -> Vec<Vec<Standing>> {
        let row = || vec![Standing::Waiting; self.plan.spec.seeds.len()];
        let mut standing = vec![row(); self.plan.arms.len()];
        for task in &self.tasks {
            standing[task.arm][task.seed] = match &task.state {
                State::Waiting => Standing::Waiting,
                State::Running(_) => Standing::Running(share_done(&task.files)),
                State::Done(points) => Standing::Done(*points),
                State::Failed(failure) => Standing::Failed(word(failure.state).into()),
            };
        }
        standing
    }

    /// Asks every process to stop, and waits for it: each writes a checkpoint.
    fn stop(&mut self) {
        let mut own: Vec<&mut Child> = Vec::new();
        for task in &mut self.tasks {
            if let State::Running(Process::Own { child, .. }) = &mut task.state {
                own.push(child);
            }
        }
        for child in &own {
            let pid = Pid::from_raw(child.id().cast_signed());
            // It may have ended by itself.
            let _ = kill(pid, Signal::SIGINT);
        }
        for child in own {
            if let Err(error) = child.wait() {
                warn!("a run cannot be waited for: {error}");
            }
        }
    }
}

/// This program, which is also that of every run.
pub(super) fn executable() -> Result<PathBuf, AbError> {
    std::env::current_exe().map_err(|e| AbError::file("kdhost", e))
}

/// The main metric of a run, points.
fn main(done: &arm::Arm) -> Option<f64> {
    let (_, value) = done.row.metrics.main();
    (value >= 0.0).then_some(100.0 * value)
}

/// How a process without a result ended.
pub(super) fn ended(status: ExitStatus) -> Failure {
    match (status.code(), status.signal()) {
        (_, Some(signal)) => Failure {
            state: RunState::Killed,
            reason: format!("killed by signal {signal}"),
        },
        (Some(crate::exit_code::INTERRUPTED), _) => Failure {
            state: RunState::Killed,
            reason: "asked to stop".into(),
        },
        (code, None) => Failure {
            state: RunState::Failed,
            reason: format!("exit code {}", code.unwrap_or(-1)),
        },
    }
}

/// Adds what the process said last.
fn with_last_words(failure: Failure, log: &Path) -> Failure {
    let said = match tail(log, 16 << 10) {
        Some(text) if failure.state == RunState::Failed => last_words(&text),
        _ => String::new(),
    };
    match said.is_empty() {
        true => failure,
        false => Failure {
            reason: format!("{}: {said}", failure.reason),
            ..failure
        },
    }
}

/// The last error in a log, or its last line.
pub(super) fn last_words(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.iter().rposition(|line| line.starts_with("error:"));
    let from = from.unwrap_or(lines.len().saturating_sub(1));
    let taken = lines[from..].iter().take(LAST_LINES).copied();
    let text = taken.collect::<Vec<&str>>().join("\n");
    text.trim_start_matches("error: ").trim().to_owned()
}

/// The last bytes of a file, as text.
fn tail(path: &Path, bytes: u64) -> Option<String> {
    let mut file = fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))
        .ok()?;
    let mut raw = Vec::new();
    file.read_to_end(&mut raw).ok()?;
    Some(String::from_utf8_lossy(&raw).into_owned())
}

/// The share of its steps that a run has recorded; each of its stages counts the same, since only
/// those that have begun know how many steps they have.
fn share_done(files: &RunFiles) -> Option<f64> {
    let trainings = files.trainings().ok()?;
    let shares: Vec<Option<f64>> = trainings.iter().map(|folder| share_of(folder)).collect();
    let known: Vec<f64> = shares.iter().copied().flatten().collect();
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / shares.len() as f64)
}

/// The share of its steps that the training in `folder` has recorded.
fn share_of(folder: &Path) -> Option<f64> {
    // A stage that was taken from the cache has nothing else.
    if folder.join(arm::RESULT).is_file() {
        return Some(1.0);
    }
    let fingerprint = Fingerprint::load(folder).ok()??;
    let steps: f64 = fingerprint.starts.last()?.get("steps")?.parse().ok()?;
    let text = tail(&folder.join("metrics.jsonl"), 8 << 10)?;
    let newest = text.lines().rev().find_map(|line| {
        let values: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).ok()?;
        values.get("iter")?.as_f64()
    });
    Some(newest? / steps)
}

fn word(state: RunState) -> &'static str {
    match state {
        RunState::Killed => "killed",
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_is_what_it_died_of() {
        let log = "error: old\nhint: x\n WARN y\nerror: new\ncaused by: z\n\n";
        assert_eq!(last_words(log), "new\ncaused by: z");
        assert_eq!(last_words(" WARN y\npanicked\n"), "panicked");
        assert_eq!(last_words(""), "");
    }

    #[test]
    fn a_job_is_as_far_as_its_stages_are() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let files = store.run("x", 0);
        assert_eq!(share_done(&files), None, "nothing is known yet");
        let stages = files.folder.join("stages");
        fs::create_dir_all(stages.join("1-a")).unwrap();
        let listed = r#"[{"name": "a"}, {"name": "b"}, {"name": "c"}]"#;
        fs::write(files.folder.join("stages.json"), listed).unwrap();
        assert_eq!(share_done(&files), None);
        fs::write(stages.join("1-a").join(arm::RESULT), "{}").unwrap();
        assert_eq!(share_done(&files), Some(1.0 / 3.0));
    }

    #[test]
    fn signals_kill_and_codes_fail() {
        let of = |script: &str| {
            let status = Command::new("sh").args(["-c", script]).status().unwrap();
            ended(status)
        };
        assert_eq!(of("kill -9 $$").state, RunState::Killed);
        assert_eq!(of("exit 130").state, RunState::Killed);
        let failed = of("exit 4");
        assert_eq!(failed.state, RunState::Failed);
        assert!(failed.reason.contains('4'));
    }
}
