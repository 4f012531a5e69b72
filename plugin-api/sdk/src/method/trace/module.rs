//! A module's parameters in a trace.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use kd_graph::{Place, Slot};

use super::record::{self, Recorder};
use super::{Leaf, rank};
use crate::MethodError;
use crate::method::state::Source;
use crate::raw::Extents;

/// Parameters and buffers as inputs of a program, in visiting order.
pub(super) struct Traced<'a> {
    recorder: &'a Recorder,
    params: &'a [Extents],
    buffers: &'a [Extents],
    next_param: usize,
    next_buffer: usize,
    leaves: Vec<(Place, Leaf)>,
}

impl<'a> Traced<'a> {
    pub(super) fn new(
        recorder: &'a Recorder,
        params: &'a [Extents],
        buffers: &'a [Extents],
    ) -> Self {
        Traced {
            recorder,
            params,
            buffers,
            next_param: 0,
            next_buffer: 0,
            leaves: Vec::new(),
        }
    }

    /// The parameters, each with the place of its gradient.
    pub(super) fn into_leaves(self) -> Vec<(Place, Leaf)> {
        self.leaves
    }
}

fn next<'a>(all: &'a [Extents], at: &mut usize) -> Result<(u32, &'a Extents), MethodError> {
    let index = *at;
    *at += 1;
    let extents = all
        .get(index)
        .ok_or_else(|| MethodError::internal("the module changed after the plan"))?;
    Ok((index as u32, extents))
}

impl Source for Traced<'_> {
    fn param<const D: usize>(&mut self) -> Result<Tensor<D>, MethodError> {
        let (index, extents) = next(self.params, &mut self.next_param)?;
        let shape = rank(extents, || format!("parameter {index}"))?;
        let (tensor, leaf) = self.recorder.leaf(Slot::Param(index), shape);
        self.leaves.push((Place::DParam(index), leaf));
        Ok(tensor)
    }

    fn buffer<const D: usize>(&mut self) -> Result<Tensor<D>, MethodError> {
        let (index, extents) = next(self.buffers, &mut self.next_buffer)?;
        let shape = rank(extents, || format!("buffer {index}"))?;
        Ok(self.recorder.buffer(Slot::Buffer(index), shape))
    }
}

/// The values that the module was made with, each with its place.
pub(super) fn values<M: Module>(module: &M) -> Result<Vec<(Place, record::Recorded)>, MethodError> {
    let mut visitor = Values {
        params: 0,
        buffers: 0,
        values: Ok(Vec::new()),
    };
    module.visit(&mut visitor);
    visitor.values
}

struct Values {
    params: u32,
    buffers: u32,
    values: Result<Vec<(Place, record::Recorded)>, MethodError>,
}

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Ok(values) = &mut self.values else { return };
        let value = param.val();
        let (place, next): (fn(u32) -> Place, _) = if value.is_require_grad() {
            (Place::Param, &mut self.params)
        } else {
            (Place::Buffer, &mut self.buffers)
        };
        let place = place(*next);
        *next += 1;
        match record::primitive(&value) {
            Ok(value) => values.push((place, value)),
            Err(error) => self.values = Err(error),
        }
    }
}
