//! A loader over images that somebody chose.

use std::sync::Arc;

use super::{Loader, LoaderOptions};
use crate::data::{Dataset, DatasetError};

impl Loader {
    /// A loader of `images` alone, indices within the data set, in this order and whether or not
    /// they have objects.
    ///
    /// # Errors
    /// As [`Loader::new`].
    ///
    /// # Panics
    /// If an index is not the data set's.
    pub fn of_images(
        dataset: Arc<dyn Dataset>,
        options: LoaderOptions,
        images: Vec<usize>,
    ) -> Result<Self, DatasetError> {
        let count = dataset.records().len();
        assert!(images.iter().all(|i| *i < count), "{images:?} of {count}");
        let options = LoaderOptions {
            filter_empty: false,
            max_images: 0,
            ..options
        };
        let mut loader = Loader::new(dataset, options)?;
        let source = Arc::get_mut(&mut loader.source).expect("nobody shares it yet");
        source.eligible = images;
        Ok(loader)
    }
}
