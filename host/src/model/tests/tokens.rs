//! Operations on tokens: the kernels and the operations of other devices do the same.

use burn::tensor::{Device, Tensor};

use crate::kernels::testing::{check, error, leaf, normal, tensor, values};
use crate::kernels::with_operations;
use crate::model::ops;

/// Two ways to sum in f32, and two approximations of `erf` and `exp`.
const TOLERANCE: f64 = 2e-6;

const SHAPE: [usize; 2] = [70, 24];

/// Output, and the gradient at each input, of `f` on leaves of these shapes.
fn run(
    on_operations: bool,
    shapes: &[Vec<usize>],
    f: impl Fn(Vec<Tensor<1>>) -> Tensor<2>,
) -> Vec<Vec<f32>> {
    with_operations(on_operations, || {
        let leaves: Vec<Tensor<1>> = shapes
            .iter()
            .enumerate()
            .map(|(i, shape)| {
                let len = shape.iter().product();
                leaf(&normal(&format!("input {i}"), len), [len])
            })
            .collect();
        let y = f(leaves.clone());
        let upstream = normal("upstream", y.dims().iter().product());
        let upstream = tensor(&upstream, y.dims(), &Device::flex());
        let gradients = (y.clone() * upstream).sum().backward();
        let gradients = leaves
            .iter()
            .map(|leaf| values(leaf.grad(&gradients).unwrap()));
        std::iter::once(values(y)).chain(gradients).collect()
    })
}

fn both_agree(what: &str, shapes: &[Vec<usize>], f: impl Fn(Vec<Tensor<1>>) -> Tensor<2>) {
    let kernels = run(false, shapes, &f);
    let operations = run(true, shapes, &f);
    assert_eq!(kernels.len(), 1 + shapes.len());
    for (i, (kernels, operations)) in kernels.iter().zip(&operations).enumerate() {
        check(
            format_args!("{what} {i}"),
            error(operations, kernels),
            TOLERANCE,
        );
    }
}

#[test]
fn both_forms_agree() {
    let [rows, channels] = SHAPE;
    let x = vec![rows, channels];
    both_agree(
        "linear",
        &[x.clone(), vec![10, channels], vec![10]],
        |inputs| {
            let [x, weight, bias] = inputs.try_into().unwrap();
            ops::linear(x.reshape(SHAPE), weight.reshape([10, channels]), bias)
        },
    );
    both_agree(
        "layer_norm",
        &[x.clone(), vec![channels], vec![channels]],
        |inputs| {
            let [x, gamma, beta] = inputs.try_into().unwrap();
            ops::layer_norm(x.reshape(SHAPE), gamma, beta, 1e-6)
        },
    );
    both_agree("gelu", std::slice::from_ref(&x), |inputs| {
        ops::gelu(inputs[0].clone().reshape(SHAPE))
    });
    both_agree("softmax", &[x], |inputs| {
        ops::softmax(inputs[0].clone().reshape(SHAPE))
    });
}
