//! Images of a data set as people name them.

use std::path::Path;

use super::{Dataset, DatasetError, Record, Split};

/// So many images are listed where one is not found.
const LISTED: usize = 8;

/// Which images of a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The first so many.
    First(usize),
    /// By image id, in this order.
    Ids(Vec<i64>),
    /// By file: its path or the end of it, or its name without extension; in this order.
    Files(Vec<String>),
}

impl Selection {
    /// Their indices in `dataset`.
    ///
    /// # Errors
    /// If one is not there; the error lists some that are.
    pub fn indices(&self, dataset: &dyn Dataset, split: Split) -> Result<Vec<usize>, DatasetError> {
        let records = dataset.records();
        match self {
            Selection::First(count) => Ok((0..records.len().min(*count)).collect()),
            Selection::Ids(ids) => found(ids, records, split, |id, record| record.image_id == *id),
            Selection::Files(files) => found(files, records, split, |file, record| {
                let path = Path::new(&record.source);
                path.ends_with(file) || path.file_stem().is_some_and(|stem| stem == file.as_str())
            }),
        }
    }
}

fn found<T: ToString>(
    wanted: &[T],
    records: &[Record],
    split: Split,
    fits: impl Fn(&T, &Record) -> bool,
) -> Result<Vec<usize>, DatasetError> {
    let index = |wanted: &T| {
        let index = records.iter().position(|record| fits(wanted, record));
        index.ok_or_else(|| no_image(&wanted.to_string(), records, split))
    };
    wanted.iter().map(index).collect()
}

fn no_image(wanted: &str, records: &[Record], split: Split) -> DatasetError {
    let shown = |record: &Record| {
        let name = Path::new(&record.source).file_name();
        let name = name.map_or_else(|| record.source.clone(), |n| n.display().to_string());
        format!("{} ({name})", record.image_id)
    };
    let mut known: Vec<String> = records.iter().take(LISTED).map(shown).collect();
    if records.len() > LISTED {
        known.push("…".into());
    }
    DatasetError::NoImage {
        split: split.name(),
        wanted: wanted.into(),
        images: records.len(),
        known: known.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Config;
    use crate::data::{Loader, LoaderOptions, RgbPixels};

    struct Photos(Vec<Record>);

    impl Photos {
        fn new() -> Self {
            let record = |(image_id, source): (i64, &str)| Record {
                image_id,
                source: source.into(),
                size: [32, 32],
                objects: Vec::new(),
            };
            let files = ["d/val/a.jpg", "d/val/b.jpg", "d/train/b.png"];
            Photos((7..).zip(files).map(record).collect())
        }
    }

    impl Dataset for Photos {
        fn classes(&self) -> &[String] {
            &[]
        }
        fn records(&self) -> &[Record] {
            &self.0
        }
        fn pixels(&self, _: usize) -> Result<RgbPixels, DatasetError> {
            Ok(RgbPixels {
                size: [32, 32],
                data: vec![0; 32 * 32 * 3],
            })
        }
    }

    #[test]
    fn images_are_found_by_id_and_by_file() {
        let of = |selection: Selection| selection.indices(&Photos::new(), Split::Val);
        assert_eq!(of(Selection::First(2)).unwrap(), [0, 1]);
        assert_eq!(of(Selection::First(9)).unwrap(), [0, 1, 2]);
        assert_eq!(of(Selection::Ids(vec![9, 7])).unwrap(), [2, 0]);
        let files = ["b.png", "val/a.jpg", "a", "d/val/b.jpg"].map(String::from);
        assert_eq!(of(Selection::Files(files.into())).unwrap(), [2, 0, 0, 1]);
        for selection in [
            Selection::Ids(vec![7, 3]),
            Selection::Files(vec!["3".into()]),
        ] {
            let message = of(selection).unwrap_err().to_string();
            assert_eq!(
                message,
                "the val split has no image `3`; it has 3: 7 (a.jpg), 8 (b.jpg), 9 (b.png)"
            );
        }
    }

    #[test]
    fn a_loader_takes_chosen_images_in_their_order() {
        let config = Config::base().data;
        let options = LoaderOptions::evaluation(&config, 1, 32, 0);
        let loader = Loader::of_images(Arc::new(Photos::new()), options, vec![2, 0]).unwrap();
        let ids: Vec<i64> = loader
            .epoch(0, 0)
            .map(|batch| batch.unwrap().metas[0].image_id)
            .collect();
        assert_eq!(ids, [9, 7]);
    }
}
