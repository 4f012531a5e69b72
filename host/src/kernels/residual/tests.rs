//! Against Burn's operations, which round alike: equal to the bit.

use burn::tensor::{Device, Distribution, Tensor, TensorData, activation};

use super::add_relu;

/// Value, and the gradients of the sum of its squares at both summands, as bits.
fn bits(cells: usize, f: impl Fn(Tensor<2>, Tensor<2>) -> Tensor<2>) -> [Vec<u8>; 3] {
    let device = Device::flex();
    device.seed(5);
    let leaf = || {
        let normal = Distribution::Normal(0.0, 1.0);
        Tensor::<2>::random([cells, 7], normal, &device)
            .autodiff()
            .require_grad()
    };
    let (x, y) = (leaf(), leaf());
    let out = f(x.clone(), y.clone());
    let gradients = out.clone().square().sum().backward();
    let bytes = |t: Tensor<2>| t.into_data().bytes().to_vec();
    [
        bytes(out.inner()),
        bytes(x.grad(&gradients).unwrap()),
        bytes(y.grad(&gradients).unwrap()),
    ]
}

#[test]
fn value_and_gradients_equal_burns_own() {
    // One cell, and more than one task.
    for cells in [1, 6000] {
        let ours = bits(cells, add_relu);
        let theirs = bits(cells, |x, y| activation::relu(x + y));
        assert!(ours == theirs, "{cells} cells");
        assert!(ours[1].iter().any(|&byte| byte != 0));
    }
}

#[test]
fn not_a_number_passes() {
    let row = |values: [f32; 3]| {
        let data = TensorData::from([values]);
        Tensor::<2>::from_data(data, &Device::flex())
    };
    let sum = add_relu(row([f32::NAN, 1.0, -2.0]), row([0.0, 0.5, 1.0]));
    let values: Vec<f32> = sum.into_data().try_into_vec().unwrap();
    assert!(values[0].is_nan());
    assert_eq!(values[1..], [1.5, 0.0]);
}
