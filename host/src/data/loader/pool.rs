//! Threads that work on a range of numbered jobs ahead of a consumer who takes them in order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};

/// Jobs given out ahead of the consumer, per worker: one being made, one waiting.
const AHEAD: usize = 2;

/// Worker threads. At most `AHEAD` results per worker exist beside the one being consumed: a job
/// is given out only when the consumer takes a result. Dropping the pool ends and joins them.
pub(super) struct Pool<T> {
    jobs: Option<Sender<usize>>,
    results: Receiver<(usize, T)>,
    /// Results that came before their turn.
    early: BTreeMap<usize, T>,
    remaining: Range<usize>,
    threads: Vec<JoinHandle<()>>,
}

impl<T: Send + 'static> Pool<T> {
    /// Starts `workers` threads on the jobs of `range`; `work` must not panic.
    pub(super) fn start(
        workers: usize,
        range: Range<usize>,
        work: impl Fn(usize) -> T + Send + Sync + 'static,
    ) -> Self {
        let (jobs, job_queue) = unbounded::<usize>();
        let (result_queue, results) = unbounded();
        let work = Arc::new(work);
        let threads = (0..workers)
            .map_while(|number| {
                let (job_queue, result_queue) = (job_queue.clone(), result_queue.clone());
                let work = Arc::clone(&work);
                std::thread::Builder::new()
                    .name(format!("loader-{number}"))
                    .spawn(move || {
                        for job in job_queue {
                            if result_queue.send((job, work(job))).is_err() {
                                break;
                            }
                        }
                    })
                    .inspect_err(|error| tracing::warn!("loader thread not started: {error}"))
                    .ok()
            })
            .collect();
        let mut pool = Pool {
            jobs: Some(jobs),
            results,
            early: BTreeMap::new(),
            remaining: range,
            threads,
        };
        for _ in 0..workers * AHEAD {
            pool.give_out();
        }
        pool
    }

    /// The result of `job`; jobs must be taken in ascending order, each once. `None` if no thread
    /// is left to make it.
    pub(super) fn take(&mut self, job: usize) -> Option<T> {
        let result = loop {
            if let Some(result) = self.early.remove(&job) {
                break result;
            }
            let (number, result) = self.results.recv().ok()?;
            self.early.insert(number, result);
        };
        self.give_out();
        Some(result)
    }

    fn give_out(&mut self) {
        if let (Some(jobs), Some(job)) = (&self.jobs, self.remaining.next()) {
            // With no thread left to receive, `take` finds out and says so.
            let _ = jobs.send(job);
        }
    }
}

impl<T> Drop for Pool<T> {
    fn drop(&mut self) {
        // Idle threads end as their queue closes, busy ones after the job in hand, as nobody takes
        // its result any more.
        self.jobs = None;
        self.results = unbounded().1;
        for thread in self.threads.drain(..) {
            // A panic was already reported on stderr, and its job as missing.
            let _ = thread.join();
        }
    }
}
