//! Against the host's own operation to the bit, against Burn's, and every refusal.

mod equality;
mod refusals;

use std::ptr::null_mut;
use std::sync::Arc;

use kd_abi::{KD_CONV_RELU, KD_OK, KdConv, KdMapSize, KdStatus};

use super::*;
use crate::kernels::maps::{Segment, cells};
use crate::plugin::host_table::HostContext;
use crate::rng::KeyedRng;

/// Levels of a pyramid down to a single cell.
const PYRAMID: [[usize; 3]; 5] = [[2, 13, 10], [2, 7, 5], [2, 4, 3], [2, 2, 2], [2, 1, 1]];

/// A convolution and values for it.
struct Case {
    sizes: Vec<KdMapSize>,
    c: usize,
    o: usize,
    kernel: usize,
    relu: bool,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    dy: Vec<f32>,
}

/// What a plugin gets.
#[derive(Debug, PartialEq)]
struct Results {
    y: Vec<f32>,
    dx: Vec<f32>,
    dw: Vec<f32>,
    db: Vec<f32>,
}

fn normal(purpose: &str, len: usize) -> Vec<f32> {
    let mut rng = KeyedRng::new(purpose, &[len as u64]);
    (0..len).map(|_| rng.normal() as f32).collect()
}

/// A context inside a call on this thread.
fn in_call() -> HostContext {
    let context = HostContext::new("p", "m", &[]);
    context.begin("forward", true);
    context
}

impl Case {
    fn new(sizes: &[[usize; 3]], [c, o]: [usize; 2], kernel: usize, relu: bool) -> Case {
        let cells: usize = sizes
            .iter()
            .map(|size| size.iter().product::<usize>())
            .sum();
        let size = |&[n, h, w]: &[usize; 3]| KdMapSize {
            n: n as u64,
            h: h as u64,
            w: w as u64,
        };
        Case {
            sizes: sizes.iter().map(size).collect(),
            c,
            o,
            kernel,
            relu,
            x: normal("x", cells * c),
            weight: normal("weight", o * c * kernel * kernel),
            bias: normal("bias", o),
            dy: normal("dy", cells * o),
        }
    }

    fn conv(&self) -> KdConv {
        KdConv {
            struct_size: size_of::<KdConv>() as u32,
            n_sizes: self.sizes.len() as u32,
            sizes: self.sizes.as_ptr(),
            c_in: self.c as u32,
            c_out: self.o as u32,
            kernel: self.kernel as u32,
            flags: if self.relu { KD_CONV_RELU } else { 0 },
        }
    }

    fn segments(&self) -> Arc<[Segment]> {
        let segment = |s: &KdMapSize| Segment::new(s.n as usize, s.h as usize, s.w as usize);
        self.sizes.iter().map(segment).collect()
    }

    /// Forward through the table; the output starts as NaN.
    fn forward(&self, context: &HostContext) -> (KdStatus, Vec<f32>) {
        let mut y = vec![f32::NAN; cells(&self.segments()) * self.o];
        let (conv, ctx) = (self.conv(), context.as_pointer());
        let (x, weight, bias) = (self.x.as_ptr(), self.weight.as_ptr(), self.bias.as_ptr());
        // SAFETY: the context and all memory are alive and of these lengths.
        let status = unsafe { forward(ctx, &raw const conv, x, weight, bias, y.as_mut_ptr()) };
        (status, y)
    }

    /// Backward through the table into NaN, where `wanted` says so.
    fn backward(&self, context: &HostContext, y: &[f32], wanted: [bool; 3]) -> [Vec<f32>; 3] {
        let mut out = [self.x.len(), self.weight.len(), self.o].map(|len| vec![f32::NAN; len]);
        let (conv, ctx) = (self.conv(), context.as_pointer());
        let (x, weight, dy) = (self.x.as_ptr(), self.weight.as_ptr(), self.dy.as_ptr());
        let y = if self.relu {
            y.as_ptr()
        } else {
            std::ptr::null()
        };
        let mut place = wanted
            .into_iter()
            .zip(&mut out)
            .map(|(wanted, out)| match wanted {
                true => out.as_mut_ptr(),
                false => null_mut(),
            });
        let [dx, dw, db] = std::array::from_fn(|_| place.next().unwrap());
        // SAFETY: as above; null is an output that is not wanted.
        let status = unsafe { backward(ctx, &raw const conv, x, weight, y, dy, dx, dw, db) };
        assert_eq!(status, KD_OK);
        out
    }

    fn run(&self) -> Results {
        let context = in_call();
        let (status, y) = self.forward(&context);
        assert_eq!(status, KD_OK);
        let [dx, dw, db] = self.backward(&context, &y, [true; 3]);
        Results { y, dx, dw, db }
    }
}
