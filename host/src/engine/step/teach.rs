//! The teachers' part of a step.

use std::collections::BTreeMap;
use std::time::Instant;

use burn::tensor::{Tensor, TensorData};

use crate::data::Batch;
use crate::engine::teacher::Taught;
use crate::model::ops;

use super::{Learner, add, on_pool};

impl Learner {
    /// The student's images, which are taken out of `batch`, and what every teacher gives, on images of
    /// its own or on these. `wanted` gives the taps that are read of a teacher and whether its predictions are;
    /// seconds are added to `times`, by name.
    pub(super) fn teach(
        &self,
        batch: &mut Batch,
        wanted: impl Fn(&str) -> (Vec<String>, bool),
        times: &mut BTreeMap<String, f64>,
    ) -> (Tensor<4>, Taught) {
        let on_host = self.weights.are_on_host();
        let mut own_images = BTreeMap::new();
        for (name, teacher) in &self.teachers {
            let clock = Instant::now();
            if let Some(images) = teacher.own_images(batch) {
                own_images.insert(name, ops::in_precision(images, self.precision));
            }
            add(times.entry(name.clone()).or_default(), clock.elapsed());
        }
        let pixels = TensorData::new(std::mem::take(&mut batch.images), batch.shape);
        let images = Tensor::<4>::from_data(pixels, &self.weights.device());
        let images = ops::in_precision(images, self.precision);

        let mut taught = Taught::new();
        for (name, teacher) in &self.teachers {
            let clock = Instant::now();
            let seen = own_images.get(name).unwrap_or(&images);
            let (taps, to_the_end) = wanted(name);
            let forward = on_pool(on_host, || teacher.forward(seen, &taps, to_the_end));
            taught.insert(name.clone(), forward);
            add(times.entry(name.clone()).or_default(), clock.elapsed());
        }
        (images, taught)
    }
}
