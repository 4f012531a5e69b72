//! From the operations every backend has: what runs on devices without kernels of ours.

use std::marker::PhantomData;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Shape, Slice};
use kd_graph::standardize::{EPSILON, Norm, Scope};

use super::{OwnOps, PackedConv};

/// [`OwnOps`] from the operations of `B`.
pub(crate) struct Composed<B>(PhantomData<B>);

/// Rows of each level.
fn ranges(sizes: &[[usize; 3]]) -> impl Iterator<Item = (Slice, [usize; 3])> {
    let mut start = 0;
    sizes.iter().map(move |&[n, h, w]| {
        let end = start + n * h * w;
        let rows = Slice::from(start..end);
        start = end;
        (rows, [n, h, w])
    })
}

fn rows<B: Backend>(x: &FloatTensor<B>, rows: Slice) -> FloatTensor<B> {
    let columns = x.shape()[1];
    B::float_slice(x.clone(), &[rows, Slice::from(0..columns)])
}

/// Levels one after another.
fn joined<B: Backend>(mut levels: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    match levels.len() {
        1 => levels.remove(0),
        _ => B::float_cat(levels, 0),
    }
}

/// `[cells, C]` as `[N, C, H, W]`.
fn to_map<B: Backend>(cells: FloatTensor<B>, [n, h, w]: [usize; 3]) -> FloatTensor<B> {
    let c = cells.shape()[1];
    let maps = B::float_reshape(cells, Shape::from([n, h, w, c]));
    B::float_permute(maps, &[0, 3, 1, 2])
}

/// `[N, C, H, W]` as `[cells, C]`.
fn to_cells<B: Backend>(map: FloatTensor<B>) -> FloatTensor<B> {
    let [n, c, h, w] = map.shape().dims();
    let maps = B::float_permute(map, &[0, 2, 3, 1]);
    B::float_reshape(maps, Shape::from([n * h * w, c]))
}

fn options(conv: &PackedConv) -> ConvOptions<2> {
    ConvOptions::new([1, 1], [conv.kernel / 2; 2], [1, 1], 1)
}

impl<B: Backend> OwnOps for Composed<B> {
    type Backend = B;

    fn conv2d(
        conv: &PackedConv,
        x: FloatTensor<B>,
        weight: FloatTensor<B>,
        bias: FloatTensor<B>,
    ) -> FloatTensor<B> {
        let level = |(range, size)| {
            let x = to_map::<B>(rows::<B>(&x, range), size);
            to_cells::<B>(B::conv2d(
                x,
                weight.clone(),
                Some(bias.clone()),
                options(conv),
            ))
        };
        let y = joined::<B>(ranges(&conv.sizes).map(level).collect());
        if conv.relu { B::relu(y) } else { y }
    }

    fn conv2d_backward(
        conv: &PackedConv,
        x: FloatTensor<B>,
        weight: FloatTensor<B>,
        y: Option<FloatTensor<B>>,
        dy: FloatTensor<B>,
        [wants_x, wants_weight, wants_bias]: [bool; 3],
    ) -> [Option<FloatTensor<B>>; 3] {
        let dy = match y {
            Some(y) => B::relu_backward(y, dy),
            None => dy,
        };
        let (mut dx, mut dweight) = (Vec::new(), None);
        for (range, size) in ranges(&conv.sizes) {
            let x = to_map::<B>(rows::<B>(&x, range), size);
            let dy = to_map::<B>(rows::<B>(&dy, range), size);
            if wants_x {
                let gradient =
                    B::conv2d_x_backward(x.clone(), weight.clone(), dy.clone(), options(conv));
                dx.push(to_cells::<B>(gradient));
            }
            if wants_weight {
                let gradient = B::conv2d_weight_backward(x, weight.clone(), dy, options(conv));
                dweight = Some(match dweight.take() {
                    Some(sum) => B::float_add(sum, gradient),
                    None => gradient,
                });
            }
        }
        let dbias = wants_bias.then(|| {
            let channels = dy.shape()[1];
            B::float_reshape(B::float_sum_dim(dy, 0), Shape::from([channels]))
        });
        [wants_x.then(|| joined::<B>(dx)), dweight, dbias]
    }

    fn standardize(norm: &Norm, x: FloatTensor<B>) -> FloatTensor<B> {
        let level = |(range, size)| {
            let maps = grouped::<B>(rows::<B>(&x, range), size, norm.scope);
            let (y, _) = normalized::<B>(maps);
            ungrouped::<B>(y, size)
        };
        let y = joined::<B>(ranges(&norm.sizes).map(level).collect());
        if norm.relu { B::relu(y) } else { y }
    }

    fn standardize_backward(norm: &Norm, x: FloatTensor<B>, dy: FloatTensor<B>) -> FloatTensor<B> {
        let level = |(range, size)| {
            let maps = grouped::<B>(rows::<B>(&x, range), size, norm.scope);
            let gradient = grouped::<B>(rows::<B>(&dy, range), size, norm.scope);
            let (y, deviation) = normalized::<B>(maps);
            let gradient = if norm.relu {
                B::relu_backward(B::relu(y.clone()), gradient)
            } else {
                gradient
            };
            let shift = B::float_mean_dim(gradient.clone(), 1);
            let product = B::float_mean_dim(B::float_mul(gradient.clone(), y.clone()), 1);
            let centered = B::float_sub(B::float_sub(gradient, shift), B::float_mul(y, product));
            ungrouped::<B>(B::float_div(centered, deviation), size)
        };
        joined::<B>(ranges(&norm.sizes).map(level).collect())
    }
}

/// `[cells, C]` as `[n, what shares a mean, the rest]`.
fn grouped<B: Backend>(
    cells: FloatTensor<B>,
    [n, h, w]: [usize; 3],
    scope: Scope,
) -> FloatTensor<B> {
    let c = cells.shape()[1];
    let shape = match scope {
        Scope::Image => [n, h * w * c, 1],
        Scope::Channel => [n, h * w, c],
    };
    B::float_reshape(cells, Shape::from(shape))
}

fn ungrouped<B: Backend>(maps: FloatTensor<B>, [n, h, w]: [usize; 3]) -> FloatTensor<B> {
    let elements = maps.shape().num_elements();
    let cells = n * h * w;
    let channels = elements.checked_div(cells).unwrap_or_default();
    B::float_reshape(maps, Shape::from([cells, channels]))
}

/// Values of mean 0 and variance 1 along axis 1, and the deviation they were divided by.
fn normalized<B: Backend>(maps: FloatTensor<B>) -> (FloatTensor<B>, FloatTensor<B>) {
    let mean = B::float_mean_dim(maps.clone(), 1);
    let centered = B::float_sub(maps, mean);
    let square = B::float_mul(centered.clone(), centered.clone());
    let variance = B::float_mean_dim(square, 1);
    let deviation = B::float_sqrt(B::float_add_scalar(variance, EPSILON.into()));
    (B::float_div(centered, deviation.clone()), deviation)
}
