//! Batches in a fixed order, made ahead of time by worker threads.

mod collate;
mod pool;
mod selected;

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use self::collate::{Read, collate};
use self::pool::Pool;
use super::transforms::shown;
use super::view::ViewMaker;
use super::{
    Augmentation, Batch, Dataset, DatasetError, Geometry, Transform, ViewSpec, flip_drawn,
    random_crop,
};
use crate::config::{DataConfig, OnError, TransformConfig};
use crate::rng::KeyedRng;

/// How a [`Loader`] makes batches.
#[derive(Clone, Debug, PartialEq)]
pub struct LoaderOptions {
    /// Images a batch.
    pub batch_size: usize,
    /// Decoding threads; 0 decodes in the caller's. Batches do not depend on it.
    pub workers: usize,
    /// Seed of order and augmentation.
    pub seed: u64,
    /// Batches are padded at right and bottom to a multiple of it.
    pub size_divisor: usize,
    /// Resize, crop, flip, normalise.
    pub transform: TransformConfig,
    /// Shuffles, augments and drops the last incomplete batch.
    pub training: bool,
    /// What a broken image does.
    pub on_error: OnError,
    /// In detection, leaves out images without any object that is not a crowd region.
    pub filter_empty: bool,
    /// Only the first so many images of the data set; 0: all.
    pub max_images: usize,
    /// Further views of every image, for teachers that see it otherwise. They change nothing of the
    /// rest.
    pub views: Vec<ViewSpec>,
}

impl LoaderOptions {
    /// For training as `config` has it.
    #[must_use]
    pub fn training(config: &DataConfig, seed: u64, size_divisor: usize) -> Self {
        LoaderOptions {
            batch_size: config.batch_size,
            workers: config.workers,
            seed,
            size_divisor,
            transform: config.transform.clone(),
            training: true,
            on_error: config.on_error,
            filter_empty: config.filter_empty,
            max_images: 0,
            views: Vec::new(),
        }
    }

    /// For evaluation: every image once, in order, not augmented; the last batch may be smaller.
    #[must_use]
    pub fn evaluation(
        config: &DataConfig,
        batch_size: usize,
        size_divisor: usize,
        max_images: usize,
    ) -> Self {
        LoaderOptions {
            batch_size,
            workers: config.workers,
            seed: 0,
            size_divisor,
            transform: config.transform.clone(),
            training: false,
            on_error: config.on_error,
            filter_empty: false,
            max_images,
            views: Vec::new(),
        }
    }

    /// With further views.
    #[must_use]
    pub fn with_views(self, views: Vec<ViewSpec>) -> Self {
        LoaderOptions { views, ..self }
    }
}

/// A broken image that policy `skip` left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Index within the data set.
    pub index: usize,
    /// The error, which names the file.
    pub reason: String,
}

/// Makes the batches of any epoch.
///
/// # Determinism
/// Batch `b` of epoch `e` is a function of data set, options but `workers`, `e` and `b`. Training
/// draws the order from `(seed, epoch)` and flip, scale, crop and part from `(seed, epoch, image id)`.
///
/// # Views
/// Each further view is made of the same decoded picture under the same draws: see [`ViewSpec`]. It depends on
/// the same facts as the batch's images, and changes none of them.
///
/// # Segmentation
/// A batch has the label map of every image, moved with its pixels. In evaluation it has the
/// original ones as well: predictions are brought to their size and compared there.
///
/// # Classification
/// A batch has the class of every image. Training takes a random part of it where the transform's
/// `area_range` says so.
///
/// # Broken images
/// With [`OnError::Error`] the first one ends the epoch. With [`OnError::Skip`] it is counted, and
/// in training the next readable image of the epoch's order takes its place: batches stay full,
/// and which image stands in is again a function of the files alone. In evaluation the batch is
/// smaller, and left out if nothing remains of it; score only the images that were delivered.
pub struct Loader {
    source: Arc<Source>,
}

/// What a worker needs.
struct Source {
    dataset: Arc<dyn Dataset>,
    options: LoaderOptions,
    transform: Transform,
    views: Vec<ViewMaker>,
    /// Images that take part, in the data set's order.
    eligible: Vec<usize>,
    broken: Mutex<BTreeMap<usize, String>>,
}

/// The order of one epoch.
struct Plan {
    epoch: u64,
    order: Vec<usize>,
}

impl Loader {
    /// Checks the options; decodes nothing yet.
    ///
    /// # Errors
    /// If the transform makes no sense, `batch_size` or `size_divisor` is 0, or no image takes
    /// part.
    pub fn new(dataset: Arc<dyn Dataset>, options: LoaderOptions) -> Result<Self, DatasetError> {
        let transform = Transform::new(&options.transform)?;
        let fault = |key: &'static str, reason: &str| DatasetError::Config {
            key,
            reason: reason.into(),
        };
        if options.batch_size == 0 {
            return Err(fault("batch_size", "must be at least 1"));
        }
        if options.size_divisor == 0 {
            return Err(fault("size_divisor", "must be at least 1"));
        }
        let labelled = dataset.has_label_maps() || dataset.has_class_labels();
        let limit = match options.max_images {
            0 => usize::MAX,
            limit => limit,
        };
        let eligible: Vec<usize> = dataset
            .records()
            .iter()
            .enumerate()
            .take(limit)
            .filter(|(_, record)| {
                labelled
                    || !options.filter_empty
                    || record.objects.iter().any(|object| !object.is_crowd)
            })
            .map(|(index, _)| index)
            .collect();
        if eligible.is_empty() {
            return Err(if dataset.records().is_empty() {
                fault("data.dataset", "the data set has no image")
            } else {
                let reason = "no image has an object; set it to false to train on background";
                fault("data.filter_empty", reason)
            });
        }
        Ok(Loader {
            source: Arc::new(Source {
                dataset,
                views: options.views.iter().map(ViewMaker::new).collect(),
                options,
                transform,
                eligible,
                broken: Mutex::default(),
            }),
        })
    }

    /// Number of batches of an epoch. Training drops the last incomplete batch, so that every step
    /// sees as many images, unless it is the only one.
    #[must_use]
    pub fn batches_per_epoch(&self) -> usize {
        self.source.batches()
    }

    /// Images that take part in an epoch.
    #[must_use]
    pub fn num_images(&self) -> usize {
        self.source.eligible.len()
    }

    /// Ids of the images of an epoch, in its order; training leaves those out that fill no batch.
    #[must_use]
    pub fn order(&self, epoch: u64) -> Vec<i64> {
        let records = self.source.dataset.records();
        let order = self.source.plan(epoch).order.into_iter();
        let taken = self.source.batches() * self.source.options.batch_size;
        order
            .take(taken)
            .map(|index| records[index].image_id)
            .collect()
    }

    /// One batch of `epoch`, made in the caller's thread; none where nothing of it was readable
    /// (evaluation under `skip`).
    ///
    /// # Errors
    /// As [`Loader::epoch`]'s batches.
    pub fn batch(&self, epoch: u64, index: usize) -> Result<Option<Batch>, DatasetError> {
        self.source.guarded_batch(&self.source.plan(epoch), index)
    }

    /// The options it was made with.
    #[must_use]
    pub fn options(&self) -> &LoaderOptions {
        &self.source.options
    }

    /// The broken images met so far, each once, by index.
    #[must_use]
    pub fn skipped(&self) -> Vec<Skipped> {
        let broken = self
            .source
            .broken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        broken
            .iter()
            .map(|(&index, reason)| Skipped {
                index,
                reason: reason.clone(),
            })
            .collect()
    }

    /// The batches of `epoch` from `start_batch` on: what a straight run would give from there.
    /// Threads start now and end when the iterator is dropped. After an error it ends.
    #[must_use]
    pub fn epoch(&self, epoch: u64, start_batch: usize) -> Epoch {
        let plan = Arc::new(self.source.plan(epoch));
        let batches = self.source.batches();
        let workers = self
            .source
            .options
            .workers
            .min(batches.saturating_sub(start_batch));
        let pool = (workers > 0).then(|| {
            let (source, plan) = (Arc::clone(&self.source), Arc::clone(&plan));
            Pool::start(workers, start_batch..batches, move |batch| {
                source.guarded_batch(&plan, batch)
            })
        });
        Epoch {
            source: Arc::clone(&self.source),
            plan,
            next: start_batch,
            batches,
            pool,
        }
    }
}

/// Iterator over the batches of one epoch.
pub struct Epoch {
    source: Arc<Source>,
    plan: Arc<Plan>,
    next: usize,
    batches: usize,
    pool: Option<Pool<Built>>,
}

/// A batch, or `None` where nothing of it was readable (evaluation under `skip`).
type Built = Result<Option<Batch>, DatasetError>;

impl Iterator for Epoch {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.batches {
            let built = match &mut self.pool {
                Some(pool) => pool.take(self.next).unwrap_or_else(|| {
                    Err(self.plan.panicked(self.next, "its thread is gone".into()))
                }),
                None => self.source.guarded_batch(&self.plan, self.next),
            };
            self.next += 1;
            match built {
                Ok(Some(batch)) => return Some(Ok(batch)),
                Ok(None) => {}
                Err(error) => {
                    self.next = self.batches;
                    self.pool = None;
                    return Some(Err(error));
                }
            }
        }
        self.pool = None;
        None
    }
}

impl Plan {
    fn panicked(&self, batch: usize, message: String) -> DatasetError {
        DatasetError::Panicked {
            epoch: self.epoch,
            batch,
            message,
        }
    }
}

impl Source {
    fn batches(&self) -> usize {
        let (images, size) = (self.eligible.len(), self.options.batch_size);
        if self.options.training {
            (images / size).max(1)
        } else {
            images.div_ceil(size)
        }
    }

    fn plan(&self, epoch: u64) -> Plan {
        let mut order = self.eligible.clone();
        if self.options.training {
            KeyedRng::new("order", &[self.options.seed, epoch]).shuffle(&mut order);
        }
        Plan { epoch, order }
    }

    /// A panic becomes an error of its batch: the consumer neither hangs nor loses its place.
    fn guarded_batch(&self, plan: &Plan, batch: usize) -> Built {
        catch_unwind(AssertUnwindSafe(|| self.batch(plan, batch)))
            .unwrap_or_else(|panic| Err(plan.panicked(batch, panic_message(panic.as_ref()))))
    }

    fn batch(&self, plan: &Plan, batch: usize) -> Built {
        let start = batch * self.options.batch_size;
        let end = (start + self.options.batch_size).min(plan.order.len());
        let mut samples = Vec::with_capacity(end - start);
        for position in start..end {
            samples.extend(self.sample(plan, position)?);
        }
        if samples.is_empty() {
            return Ok(None);
        }
        collate(samples, self.options.size_divisor, &self.views).map(Some)
    }

    /// The image at `position`, or under policy `skip` its stand-in (training) or nothing.
    fn sample(&self, plan: &Plan, position: usize) -> Result<Option<Read>, DatasetError> {
        let images = plan.order.len();
        let mut last = String::new();
        for offset in 0..images {
            let index = plan.order[(position + offset) % images];
            match self.read(plan.epoch, index)? {
                Ok(sample) => return Ok(Some(sample)),
                Err(_) if !self.options.training => return Ok(None),
                Err(reason) => last = reason,
            }
        }
        Err(DatasetError::NothingReadable { images, last })
    }

    /// Decodes and transforms one image; the inner error is one that the policy tolerates.
    fn read(&self, epoch: u64, index: usize) -> Result<Result<Read, String>, DatasetError> {
        let known = self
            .broken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&index)
            .cloned();
        if let Some(reason) = known {
            return Ok(Err(reason));
        }
        let options = &self.options;
        let sample = self.decoded(epoch, index);
        match sample {
            Ok(sample) => Ok(Ok(sample)),
            Err(error) if options.on_error == OnError::Error => Err(error),
            Err(error) => {
                let reason = error.to_string();
                let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
                if broken.insert(index, reason.clone()).is_none() {
                    tracing::warn!("image left out: {reason}");
                }
                Ok(Err(reason))
            }
        }
    }

    fn decoded(&self, epoch: u64, index: usize) -> Result<Read, DatasetError> {
        let pixels = self.dataset.pixels(index)?;
        let labels = match self.dataset.has_label_maps() {
            true => Some(self.dataset.label_map(index)?),
            false => None,
        };
        let label = match self.dataset.has_class_labels() {
            true => Some(self.dataset.class_label(index)?),
            false => None,
        };
        let record = &self.dataset.records()[index];
        let geometry = self.geometry(epoch, record.image_id, pixels.size);
        let shown = shown(record, pixels.size, &geometry);
        let see = |maker: &ViewMaker| maker.see(record, &pixels, &geometry, &shown);
        Ok(Read {
            sample: (self.transform).sample(record, &pixels, &geometry, labels.as_ref()),
            views: self.views.iter().map(see).collect(),
            original_labels: labels.filter(|_| !self.options.training),
            label,
        })
    }

    /// How a picture of `size` is seen in `epoch`.
    fn geometry(&self, epoch: u64, image_id: i64, size: [usize; 2]) -> Geometry {
        let (options, transform) = (&self.options, &self.transform);
        let config = &options.transform;
        if !options.training {
            return transform.whole(size, false);
        }
        if self.dataset.has_label_maps() {
            let drawn = Augmentation::drawn(config, options.seed, epoch, image_id);
            return transform.augmented(size, &drawn);
        }
        let flip = flip_drawn(config.flip_prob, options.seed, epoch, image_id);
        if self.dataset.has_class_labels() && config.area_range != [1.0, 1.0] {
            let part = random_crop::drawn(config, size, [options.seed, epoch], image_id);
            return transform.of_part(part, flip);
        }
        transform.whole(size, flip)
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).into()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "no message".into()
    }
}

#[cfg(test)]
mod tests;
