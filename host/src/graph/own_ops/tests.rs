use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::TensorData;
use burn_flex::FlexTensor;
use kd_graph::standardize::{Norm, Scope};

use super::composed::Composed;
use super::{Kernels, OwnOps, PackedConv};
use crate::kernels::testing::{check, error, normal};

type Generic = Composed<Flex>;
type Backward = fn(
    &PackedConv,
    FlexTensor,
    FlexTensor,
    Option<FlexTensor>,
    FlexTensor,
    [bool; 3],
) -> [Option<FlexTensor>; 3];

/// f32 in another order of sums; Winograd's transforms add a few roundings.
const TOLERANCE: f64 = 5e-6;
const SIZES: [[usize; 3]; 3] = [[2, 9, 11], [2, 4, 5], [2, 1, 1]];

fn random(shape: &[usize], seed: u64) -> FlexTensor {
    let values = normal(&format!("own ops {seed}"), shape.iter().product());
    Flex::float_from_data(TensorData::new(values, shape.to_vec()), &Default::default())
}

fn values(tensor: &FlexTensor) -> Vec<f32> {
    tensor.to_contiguous().as_slice().unwrap().to_vec()
}

fn agree(what: &str, a: &FlexTensor, b: &FlexTensor) {
    let error = error(&values(a), &values(b));
    check(format_args!("{what}"), error, TOLERANCE);
}

fn cells() -> usize {
    SIZES.iter().map(|[n, h, w]| n * h * w).sum()
}

#[test]
fn convolution_agrees_with_the_generic_form() {
    for (kernel, [c, o], relu) in [(3, [5, 7], false), (3, [16, 16], true), (1, [4, 6], true)] {
        let conv = PackedConv {
            sizes: SIZES.to_vec(),
            kernel,
            relu,
        };
        let (x, dy) = (random(&[cells(), c], 1), random(&[cells(), o], 2));
        let (weight, bias) = (random(&[o, c, kernel, kernel], 3), random(&[o], 4));
        let y = Kernels::conv2d(&conv, x.clone(), weight.clone(), bias.clone());
        let generic = Generic::conv2d(&conv, x.clone(), weight.clone(), bias);
        agree("y", &y, &generic);
        for wanted in [[true; 3], [false, true, false], [true, false, false]] {
            // Of one output, so that both gate at the same places.
            let gate = relu.then(|| y.clone());
            let run = |f: Backward| {
                f(
                    &conv,
                    x.clone(),
                    weight.clone(),
                    gate.clone(),
                    dy.clone(),
                    wanted,
                )
            };
            let (ours, theirs) = (run(Kernels::conv2d_backward), run(Generic::conv2d_backward));
            for ((index, a), b) in ours.iter().enumerate().zip(&theirs) {
                assert_eq!([a.is_some(), b.is_some()], [wanted[index]; 2]);
                if let (Some(a), Some(b)) = (a, b) {
                    agree(&format!("gradient {index}"), a, b);
                }
            }
        }
    }
}

#[test]
fn normalisation_agrees_with_the_generic_form() {
    for (scope, relu) in [
        (Scope::Image, false),
        (Scope::Image, true),
        (Scope::Channel, false),
    ] {
        let norm = Norm {
            // One cell has no variance: its result is rounding.
            sizes: SIZES[..2].to_vec(),
            scope,
            relu,
        };
        let rows = 2 * (9 * 11 + 4 * 5);
        let (x, dy) = (random(&[rows, 6], 5), random(&[rows, 6], 6));
        let (ours, theirs) = (
            Kernels::standardize(&norm, x.clone()),
            Generic::standardize(&norm, x.clone()),
        );
        agree("y", &ours, &theirs);
        let ours = Kernels::standardize_backward(&norm, x.clone(), dy.clone());
        agree("dx", &ours, &Generic::standardize_backward(&norm, x, dy));
    }
}

#[test]
fn maps_without_cells_give_nothing_and_no_gradient() {
    let conv = PackedConv {
        sizes: vec![[2, 0, 3]],
        kernel: 3,
        relu: false,
    };
    let (x, weight, bias) = (
        random(&[0, 4], 1),
        random(&[5, 4, 3, 3], 2),
        random(&[5], 3),
    );
    let y = Kernels::conv2d(&conv, x.clone(), weight.clone(), bias);
    assert!(values(&y).is_empty());
    let gradients = Kernels::conv2d_backward(&conv, x, weight, None, y, [true; 3]);
    for gradient in gradients.iter().flatten() {
        assert!(values(gradient).iter().all(|v| *v == 0.0));
    }
}
