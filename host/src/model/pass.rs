//! State of one forward pass: weights in, taps and batch statistics out.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Tensor;

use super::{BatchStats, Forward, ForwardRequest, Output, TapSpec, ops};

/// One run through a network.
pub(super) struct Pass<'a> {
    weights: &'a [Tensor<1>],
    training: bool,
    stop_at_taps: bool,
    wanted: BTreeSet<&'a str>,
    taps: BTreeMap<String, Tensor<4>>,
    batch_stats: Vec<BatchStats>,
}

impl<'a> Pass<'a> {
    /// # Panics
    /// If the request names a tap that `known` lacks; callers bind names before they run.
    pub(super) fn new(
        weights: &'a [Tensor<1>],
        known: &[TapSpec],
        request: &'a ForwardRequest,
    ) -> Self {
        let wanted: BTreeSet<&str> = request.taps.iter().map(String::as_str).collect();
        for name in &wanted {
            assert!(
                known.iter().any(|tap| tap.name == *name),
                "the model has no tap `{name}`"
            );
        }
        Pass {
            weights,
            training: request.training,
            stop_at_taps: request.stop_at_taps,
            wanted,
            taps: BTreeMap::new(),
            batch_stats: Vec::new(),
        }
    }

    /// A pass of parts that have neither taps nor normalisation.
    pub(super) fn untapped(weights: &'a [Tensor<1>]) -> Self {
        Pass {
            weights,
            training: false,
            stop_at_taps: false,
            wanted: BTreeSet::new(),
            taps: BTreeMap::new(),
            batch_stats: Vec::new(),
        }
    }

    /// The flat weight `index`; an autodiff leaf stays one.
    pub(super) fn weight(&self, index: usize) -> Tensor<1> {
        self.weights[index].clone()
    }

    /// Whether normalisation uses the batch's statistics.
    pub(super) fn training(&self) -> bool {
        self.training
    }

    /// Hands over new statistics.
    pub(super) fn record(&mut self, stats: BatchStats) {
        self.batch_stats.push(stats);
    }

    /// Whether the tap `name` was asked for.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.wanted.contains(name)
    }

    /// Offers a tap; it is kept, in f32, if it was asked for.
    pub(super) fn offer(&mut self, name: &str, map: impl FnOnce() -> Tensor<4>) {
        if self.wants(name) {
            self.taps.insert(name.to_owned(), ops::in_f32(map()));
        }
    }

    /// Whether `name` has to be computed: always, unless the pass stops at its taps.
    pub(super) fn needs(&self, name: &str) -> bool {
        !self.stop_at_taps || self.wants(name)
    }

    /// Whether anything on pyramid level `level` has to be computed.
    pub(super) fn needs_level(&self, level: usize) -> bool {
        let suffix = format!(".p{level}");
        !self.stop_at_taps || self.wanted.iter().any(|name| name.ends_with(&suffix))
    }

    /// Whether the pass may stop here: it has all that was asked for.
    pub(super) fn done(&self) -> bool {
        self.stop_at_taps && self.taps.len() == self.wanted.len()
    }

    /// The result; `pyramid` and `output` are absent if the pass stopped at its taps.
    pub(super) fn finish(self, pyramid: Vec<Tensor<4>>, output: Option<Output>) -> Forward {
        Forward {
            taps: self.taps,
            pyramid,
            output,
            batch_stats: self.batch_stats,
        }
    }
}
