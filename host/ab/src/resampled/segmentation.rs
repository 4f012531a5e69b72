//! Mean intersection over union under image counts.

/// Pixels of one image that have one class and are given one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfusionCell {
    /// Their class.
    pub truth: usize,
    /// What is predicted for them.
    pub predicted: usize,
    /// How many there are.
    pub pixels: u64,
}

/// The confusion matrix of every image, of which a draw's is the sum.
///
/// An IoU needs the diagonal and two sums of the matrix only, and these are what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfusionByImage {
    num_classes: usize,
    /// Where the classes of an image begin in `classes`, and the end.
    starts: Vec<usize>,
    /// Classes that are annotated or predicted on an image, in ascending order.
    classes: Vec<ClassPixels>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ClassPixels {
    class: usize,
    /// Annotated and predicted as it.
    right: u64,
    /// Annotated or predicted as it.
    union: u64,
}

impl ConfusionByImage {
    /// `images` has the cells of each image that are not 0, without the pixels that have no class; a
    /// cell that is there twice counts twice.
    ///
    /// # Panics
    /// If a cell names a class that is not below `num_classes`.
    #[must_use]
    pub fn new(num_classes: usize, images: &[Vec<ConfusionCell>]) -> Self {
        let mut starts = vec![0];
        let mut classes = Vec::new();
        for cells in images {
            let mut right = vec![0; num_classes];
            let mut union = vec![0; num_classes];
            for &ConfusionCell {
                truth,
                predicted,
                pixels,
            } in cells
            {
                assert!(
                    truth < num_classes && predicted < num_classes,
                    "{predicted} predicted for {truth}, of {num_classes} classes"
                );
                union[truth] += pixels;
                if truth == predicted {
                    right[truth] += pixels;
                } else {
                    union[predicted] += pixels;
                }
            }
            let present = (0..num_classes).filter(|&class| union[class] > 0);
            classes.extend(present.map(|class| ClassPixels {
                class,
                right: right[class],
                union: union[class],
            }));
            starts.push(classes.len());
        }
        ConfusionByImage {
            num_classes,
            starts,
            classes,
        }
    }

    /// Number of evaluated images.
    #[must_use]
    pub fn num_images(&self) -> usize {
        self.starts.len() - 1
    }

    /// Mean IoU of the classes that are annotated or predicted on a drawn image, points; none without
    /// such a class.
    ///
    /// # Panics
    /// If there is not one count an image.
    #[must_use]
    pub fn miou(&self, counts: &[u32]) -> Option<f64> {
        // The evaluator's order of operations: a mean of fractions.
        let ious: Vec<f64> = self.fractions(counts).into_iter().flatten().collect();
        (!ious.is_empty()).then(|| 100.0 * (ious.iter().sum::<f64>() / ious.len() as f64))
    }

    /// IoU by class, points; none for a class that is neither annotated nor predicted on a drawn image.
    ///
    /// # Panics
    /// If there is not one count an image.
    #[must_use]
    pub fn iou_by_class(&self, counts: &[u32]) -> Vec<Option<f64>> {
        let fractions = self.fractions(counts).into_iter();
        fractions.map(|iou| iou.map(|iou| 100.0 * iou)).collect()
    }

    fn fractions(&self, counts: &[u32]) -> Vec<Option<f64>> {
        assert_eq!(counts.len(), self.num_images(), "one count an image");
        let mut sums = vec![(0u64, 0u64); self.num_classes];
        for (range, &count) in self.starts.windows(2).zip(counts) {
            for pixels in &self.classes[range[0]..range[1]] {
                let (right, union) = &mut sums[pixels.class];
                *right += u64::from(count) * pixels.right;
                *union += u64::from(count) * pixels.union;
            }
        }
        let iou = |(right, union): (u64, u64)| (union > 0).then(|| right as f64 / union as f64);
        sums.into_iter().map(iou).collect()
    }
}
