//! The same numbers as the operations that it stands for.

use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData, activation, module};

use super::*;
use crate::kernels::conv::{Conv, Window, conv2d};

/// Winograd's transforms against plain sums: 2.3e-6 measured; see the kernels' own tests.
const BURN_TOLERANCE: f64 = 1e-5;

fn leaf<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    let data = TensorData::new(values.to_vec(), shape);
    Tensor::from_data(data, &Device::flex().autodiff()).require_grad()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.inner().into_data().try_into_vec::<f32>().unwrap()
}

impl Case {
    /// The four results of `y(x, weight, bias)` `[cells, o]` through the tape.
    fn on_the_tape(&self, f: impl FnOnce(Tensor<2>, Tensor<4>, Tensor<1>) -> Tensor<2>) -> Results {
        let rows = self.x.len() / self.c;
        let x = leaf(&self.x, [rows, self.c]);
        let weight = leaf(&self.weight, [self.o, self.c, self.kernel, self.kernel]);
        let bias = leaf(&self.bias, [self.o]);
        let y = f(x.clone(), weight.clone(), bias.clone());
        let dy = leaf(&self.dy, [rows, self.o]).inner();
        let gradients = (y.clone() * dy).sum().backward();
        Results {
            y: values(y),
            dx: values(x.grad(&gradients).unwrap()),
            dw: values(weight.grad(&gradients).unwrap()),
            db: values(bias.grad(&gradients).unwrap()),
        }
    }

    fn by_the_host(&self) -> Results {
        let conv = Conv {
            window: Window::square(self.kernel, 1, self.kernel / 2),
            groups: 1,
            relu: self.relu,
            input: self.segments(),
        };
        self.on_the_tape(|x, weight, bias| conv2d(x, weight, Some(bias), conv))
    }

    fn by_burn(&self) -> Results {
        let options = ConvOptions::new([1, 1], [self.kernel / 2; 2], [1, 1], 1);
        self.on_the_tape(|x, weight, bias| {
            let (mut start, sizes) = (0, self.segments());
            let maps = sizes.iter().map(|size| {
                let rows = x.clone().narrow(0, start, size.cells());
                start += size.cells();
                let map = rows.reshape([size.n, size.h, size.w, self.c]);
                let map = map.permute([0, 3, 1, 2]);
                let bias = Some(bias.clone());
                let y = module::conv2d(map, weight.clone(), bias, options.clone());
                let y = y.permute([0, 2, 3, 1]).reshape([size.cells(), self.o]);
                if self.relu { activation::relu(y) } else { y }
            });
            Tensor::cat(maps.collect(), 0)
        })
    }
}

/// `‖got − want‖ / ‖want‖`.
fn error(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let pairs = got.iter().zip(want);
    let distance = square(&mut pairs.map(|(a, b)| f64::from(a - b)));
    (distance / square(&mut want.iter().map(|&v| f64::from(v)))).sqrt()
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kernel in [1, 3, 5] {
        // Few channels, and enough for every algorithm.
        for channels in [[3, 5], [17, 33], [64, 32]] {
            for relu in [false, true] {
                cases.push(Case::new(&PYRAMID, channels, kernel, relu));
            }
        }
    }
    cases.push(Case::new(&[[1, 40, 32]], [32, 32], 3, true));
    cases.push(Case::new(&[[1, 1, 1]], [4, 4], 3, true));
    cases
}

#[test]
fn the_extension_gives_the_bits_of_the_hosts_operation() {
    for case in cases() {
        let (ours, host) = (case.run(), case.by_the_host());
        assert!(ours == host, "{:?}, kernel {}", case.sizes, case.kernel);
    }
}

#[test]
fn the_extension_agrees_with_burn() {
    for case in cases() {
        let (ours, burn) = (case.run(), case.by_burn());
        for (name, got, want) in [
            ("y", &ours.y, &burn.y),
            ("dx", &ours.dx, &burn.dx),
            ("dw", &ours.dw, &burn.dw),
            ("db", &ours.db, &burn.db),
        ] {
            let error = error(got, want);
            let (kernel, relu) = (case.kernel, case.relu);
            let what = format!(
                "{name}, [{}, {}] kernel {kernel}, relu {relu}",
                case.c, case.o
            );
            assert!(error < BURN_TOLERANCE, "{what}: off by {error:e}");
        }
    }
}

#[test]
fn a_gradient_does_not_depend_on_which_others_are_wanted() {
    for relu in [false, true] {
        let case = Case::new(&PYRAMID, [17, 33], 3, relu);
        let context = in_call();
        let (_, y) = case.forward(&context);
        let all = case.backward(&context, &y, [true; 3]);
        for choice in 0..8 {
            let wanted = std::array::from_fn(|i| choice >> i & 1 == 1);
            let some = case.backward(&context, &y, wanted);
            for i in 0..3 {
                let untouched = some[i].iter().all(|v| v.is_nan());
                assert!(if wanted[i] {
                    some[i] == all[i]
                } else {
                    untouched
                });
            }
        }
    }
}

#[test]
fn levels_without_cells_are_skipped() {
    let whole = Case::new(&[[2, 5, 4], [2, 1, 1]], [4, 6], 3, true);
    let mut gaps = Case::new(&[[2, 5, 4], [0, 7, 7], [2, 1, 1]], [4, 6], 3, true);
    gaps.sizes[1].w = u64::MAX;
    assert_eq!(whole.run(), gaps.run());
    // Nothing at all: sums over no cell.
    for sizes in [&[][..], &[[0, 3, 3]]] {
        let none = Case::new(sizes, [4, 6], 3, true).run();
        assert!(none.y.is_empty() && none.dx.is_empty());
        assert!(none.dw.iter().chain(&none.db).all(|v| *v == 0.0));
    }
}
