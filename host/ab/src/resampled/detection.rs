//! COCO's AP under image counts, from the matches of one evaluation.
//!
//! # Why one weighted sweep equals repeated images
//!
//! Matching looks at one image at a time, so a copy of an image has its matches. What remains is
//! pycocotools' accumulation: detections of all images in descending order of score, equal scores in
//! order of image and within an image in their own order; running sums tp and fp; precision
//! `tp / (tp + fp + ε)` and recall `tp / gt` after each; precision made monotone from the end; and for
//! each of 101 recalls the precision at the first detection that reaches it.
//!
//! * *One detection, w copies.* The copies of one image are side by side, so the copies of a detection
//!   follow each other. A run of w true ones raises precision with each copy: wherever in the run a
//!   recall is first reached, the monotone precision there is that of the end of the run or of a
//!   later one. A run of w false ones lowers it and leaves recall alone: no recall but 0 is first
//!   reached in it, and its precisions are not above the one before it (0 at the very beginning). One
//!   step of weight w, looked at after it, therefore gives every number; so do runs of ignored
//!   detections, which move neither sum.
//! * *Equal scores on different images* stay in order of image: all copies of the one, then all of the
//!   other. Nothing interleaves.
//! * *Equal scores of one class on one image* do: copies of `a b` stand as `a b a b`, not `a a b b`.
//!   Where such detections differ in outcome, the sweep takes the group w times in steps of 1; this is
//!   the only case, and it is exact as well.
//!
//! Equality is thus exact in every tp, fp, precision and recall; only the order in which precisions
//! are added up for the mean is ours.

use std::ops::Range;

/// IoU thresholds 0.50, 0.55, … 0.95.
pub const IOU_THRESHOLDS: usize = 10;

/// Recall thresholds 0, 0.01, … 1.
pub const RECALLS: usize = 101;

/// numpy's `spacing(1)`, which pycocotools adds to the denominator of precision.
const SPACING: f64 = f64::EPSILON;

/// One detection after matching.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MatchedDetection {
    /// Higher is surer.
    pub score: f64,
    /// Index of its image, in ascending order of image ids.
    pub image: usize,
    /// Bit t: it is matched at IoU threshold t.
    pub matched: u16,
    /// Bit t: it is ignored at IoU threshold t, matched to a crowd region.
    pub ignored: u16,
}

/// All detections and objects of one class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassMatches {
    /// At most 100 an image, those of one image in descending order of score; images in any order.
    pub detections: Vec<MatchedDetection>,
    /// `(image, number)` of the objects that are not ignored; images without may be left out.
    pub ground_truths: Vec<(usize, u32)>,
}

/// The matches of one evaluation at all areas and 100 detections, from which AP follows for any counts.
#[derive(Clone, Debug, PartialEq)]
pub struct DetectionMatches {
    num_images: usize,
    classes: Vec<Class>,
}

#[derive(Clone, Debug, PartialEq)]
struct Class {
    /// In pycocotools' order.
    steps: Vec<Step>,
    ground_truths: Vec<(usize, u32)>,
}

/// One detection in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    image: u32,
    /// Bit t: true at IoU threshold t.
    hits: u16,
    /// Bit t: neither true nor false.
    ignored: u16,
    /// At the end of a group that interleaves when its image is repeated: its length. Otherwise 1.
    group: u32,
}

impl DetectionMatches {
    /// Of `num_images` images and `classes`, in the order of the categories.
    ///
    /// # Panics
    /// If an image is not below `num_images`, a score is NaN, or a bit beyond the ten thresholds is set.
    #[must_use]
    pub fn new(num_images: usize, classes: Vec<ClassMatches>) -> Self {
        let classes = classes.into_iter();
        DetectionMatches {
            num_images,
            classes: classes.map(|c| Class::new(num_images, c)).collect(),
        }
    }

    /// Number of evaluated images.
    #[must_use]
    pub fn num_images(&self) -> usize {
        self.num_images
    }

    /// AP under `counts`, points: the mean over IoU thresholds, recalls and the classes that have an
    /// object on a drawn image; none without such a class.
    ///
    /// # Panics
    /// If there is not one count an image.
    #[must_use]
    pub fn ap(&self, counts: &[u32]) -> Option<f64> {
        let mut sum = 0.0;
        let mut classes = 0;
        let mut reached = Vec::new();
        for class in self.checked(counts) {
            if let Some(of_class) = class.precision_sum(counts, &mut reached) {
                sum += of_class;
                classes += 1;
            }
        }
        (classes > 0).then(|| mean_in_points(sum) / f64::from(classes))
    }

    /// AP of each class, points; none for a class without an object on a drawn image.
    ///
    /// # Panics
    /// If there is not one count an image.
    #[must_use]
    pub fn ap_by_class(&self, counts: &[u32]) -> Vec<Option<f64>> {
        let mut reached = Vec::new();
        self.checked(counts)
            .map(|class| {
                class
                    .precision_sum(counts, &mut reached)
                    .map(mean_in_points)
            })
            .collect()
    }

    /// Precision of each class at recall 0, 0.01, … 1 and IoU threshold `iou_index` (0: 0.50), points;
    /// none for a class without an object on a drawn image.
    ///
    /// # Panics
    /// If there is not one count an image, or no such threshold.
    #[must_use]
    pub fn precision_at(&self, counts: &[u32], iou_index: usize) -> Vec<Option<[f64; RECALLS]>> {
        assert!(iou_index < IOU_THRESHOLDS, "threshold {iou_index} of ten");
        let mut reached = Vec::new();
        self.checked(counts)
            .map(|class| {
                let mut curve = [0.0; RECALLS];
                let take = |t: usize, recalls: Range<usize>, precision: f64| {
                    if t == iou_index {
                        curve[recalls].fill(100.0 * precision);
                    }
                };
                class.sweep(counts, &mut reached, take).then_some(curve)
            })
            .collect()
    }

    fn checked(&self, counts: &[u32]) -> impl Iterator<Item = &Class> {
        assert_eq!(counts.len(), self.num_images, "one count an image");
        self.classes.iter()
    }
}

fn mean_in_points(sum: f64) -> f64 {
    100.0 * (sum / (IOU_THRESHOLDS * RECALLS) as f64)
}

impl Class {
    fn new(num_images: usize, matches: ClassMatches) -> Self {
        let mut detections = matches.detections;
        for d in &detections {
            assert!(d.image < num_images, "image {} of {num_images}", d.image);
            let bits = (d.matched | d.ignored) >> IOU_THRESHOLDS;
            assert_eq!(bits, 0, "a bit for each of {IOU_THRESHOLDS} thresholds");
        }
        for &(image, _) in &matches.ground_truths {
            assert!(image < num_images, "image {image} of {num_images}");
        }
        // Stable: within an image as given.
        detections.sort_by(|a, b| {
            let by_score = b.score.partial_cmp(&a.score).expect("no score is NaN");
            by_score.then(a.image.cmp(&b.image))
        });
        let mut steps = Vec::with_capacity(detections.len());
        for tied in detections.chunk_by(|a, b| a.score == b.score && a.image == b.image) {
            steps.extend(tied.iter().map(|d| Step {
                image: u32::try_from(d.image).expect("fewer than 2^32 images"),
                hits: d.matched & !d.ignored,
                ignored: d.ignored,
                group: 1,
            }));
            let group = steps.len() - tied.len()..steps.len();
            let outcome = |step: &Step| (step.hits, step.ignored);
            if steps[group.clone()]
                .windows(2)
                .any(|two| outcome(&two[0]) != outcome(&two[1]))
            {
                steps[group.end - 1].group = u32::try_from(tied.len()).expect("at most 100");
            }
        }
        Class {
            steps,
            ground_truths: matches.ground_truths,
        }
    }

    /// Sum of the precisions over thresholds and recalls; none without an object.
    fn precision_sum(&self, counts: &[u32], reached: &mut Vec<u8>) -> Option<f64> {
        let mut sum = 0.0;
        let take = |_: usize, recalls: Range<usize>, precision: f64| {
            sum += precision * recalls.len() as f64;
        };
        self.sweep(counts, reached, take).then_some(sum)
    }

    /// Hands `take` the precision of every range of recalls at every IoU threshold, from the end of
    /// the curves, leaving out recalls that are not reached: precision is 0 there. False without an
    /// object. `reached` is scratch.
    fn sweep(
        &self,
        counts: &[u32],
        reached: &mut Vec<u8>,
        take: impl FnMut(usize, Range<usize>, f64),
    ) -> bool {
        let objects = self.ground_truths.iter();
        let objects: u32 = objects.map(|&(image, n)| counts[image] * n).sum();
        if objects == 0 {
            return false;
        }
        recalls_reached(objects, reached);
        let mut sweep = Sweep::end_of(&self.steps, counts, reached, take);
        let mut end = self.steps.len();
        while end > 0 {
            let last = self.steps[end - 1];
            let begin = end - last.group as usize;
            let count = counts[last.image as usize];
            if last.group == 1 {
                sweep.step_back(last, count);
            } else {
                for _ in 0..count {
                    for &step in self.steps[begin..end].iter().rev() {
                        sweep.step_back(step, 1);
                    }
                }
            }
            end = begin;
        }
        sweep.finish();
        true
    }
}

/// Into `reached`, for each number of true detections, how many recall thresholds are at or below the
/// recall, in pycocotools' arithmetic.
fn recalls_reached(objects: u32, reached: &mut Vec<u8>) {
    reached.clear();
    let mut next = 0;
    reached.extend((0..=objects).map(|found| {
        let recall = f64::from(found) / f64::from(objects);
        while next < RECALLS && recall_threshold(next) <= recall {
            next += 1;
        }
        next as u8
    }));
}

/// numpy's `linspace(0, 1, 101)`: multiples of the step, but for the end.
fn recall_threshold(index: usize) -> f64 {
    if index == RECALLS - 1 {
        1.0
    } else {
        index as f64 * 0.01
    }
}

/// The state of all ten curves, walked from their ends to their beginnings.
struct Sweep<'a, F> {
    /// Of [`recalls_reached`].
    reached: &'a [u8],
    take: F,
    /// Weight of all detections up to here.
    seen: u32,
    /// Weight of those ignored, by threshold.
    ignored: [u32; IOU_THRESHOLDS],
    /// Weight of the true ones, by threshold.
    hits: [u32; IOU_THRESHOLDS],
    /// Highest precision from here on, by threshold.
    precision: [f64; IOU_THRESHOLDS],
}

impl<'a, F: FnMut(usize, Range<usize>, f64)> Sweep<'a, F> {
    /// After all `steps`.
    fn end_of(steps: &[Step], counts: &[u32], reached: &'a [u8], take: F) -> Self {
        let mut sweep = Sweep {
            reached,
            take,
            seen: 0,
            ignored: [0; IOU_THRESHOLDS],
            hits: [0; IOU_THRESHOLDS],
            precision: [0.0; IOU_THRESHOLDS],
        };
        for step in steps {
            let count = counts[step.image as usize];
            sweep.seen += count;
            for_each_bit(step.hits, |t| sweep.hits[t] += count);
            for_each_bit(step.ignored, |t| sweep.ignored[t] += count);
        }
        sweep
    }

    /// Over `count` copies of `step` that follow each other.
    #[inline]
    fn step_back(&mut self, step: Step, count: u32) {
        // Not drawn: no step.
        if count == 0 {
            return;
        }
        for_each_bit(step.hits, |t| {
            let hits = self.hits[t];
            let counted = self.seen - self.ignored[t];
            let precision = f64::from(hits) / (f64::from(counted) + SPACING);
            self.precision[t] = self.precision[t].max(precision);
            self.hits[t] = hits - count;
            let recalls = self.reached[self.hits[t] as usize]..self.reached[hits as usize];
            if !recalls.is_empty() {
                let recalls = usize::from(recalls.start)..usize::from(recalls.end);
                (self.take)(t, recalls, self.precision[t]);
            }
        });
        for_each_bit(step.ignored, |t| self.ignored[t] -= count);
        self.seen -= count;
    }

    /// Recall 0 is reached by the very first detection, whatever it is.
    fn finish(mut self) {
        for (t, precision) in self.precision.into_iter().enumerate() {
            (self.take)(t, 0..1, precision);
        }
    }
}

#[inline]
fn for_each_bit(mut bits: u16, mut act: impl FnMut(usize)) {
    while bits != 0 {
        act(bits.trailing_zeros() as usize);
        bits &= bits - 1;
    }
}
