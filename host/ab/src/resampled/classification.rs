//! Top-1 accuracy under image counts.

/// Which images a classifier gets right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageHits {
    right: Vec<bool>,
}

impl ImageHits {
    /// By image, whether its class has the largest logit.
    #[must_use]
    pub fn new(right: Vec<bool>) -> Self {
        ImageHits { right }
    }

    /// Number of evaluated images.
    #[must_use]
    pub fn num_images(&self) -> usize {
        self.right.len()
    }

    /// Share of the drawn images that are right, points; none of no image.
    ///
    /// # Panics
    /// If there is not one count an image.
    #[must_use]
    pub fn top1(&self, counts: &[u32]) -> Option<f64> {
        assert_eq!(counts.len(), self.right.len(), "one count an image");
        let images: u64 = counts.iter().map(|&n| u64::from(n)).sum();
        let drawn = counts.iter().zip(&self.right);
        let right: u64 = drawn.map(|(&n, &hit)| u64::from(n) * u64::from(hit)).sum();
        (images > 0).then(|| 100.0 * (right as f64 / images as f64))
    }
}
