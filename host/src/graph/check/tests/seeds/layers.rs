//! Activations, norms, tables, attention, and the operations of this format.

use kd_graph::DType;
use kd_graph::burn_ir::*;
use kd_graph::ops;

use super::super::build::{BOOL, Build, F32};
use super::{Seeds, module};

pub(super) fn activations(seeds: &mut Seeds, dtype: DType) {
    use ActivationOperationIr as A;
    let mut add = |build: &dyn Fn(&Build, TensorIr) -> ActivationOperationIr| {
        seeds.add(|b| {
            let x = b.input(&[2, 3, 4], dtype);
            b.op(OperationIr::Activation(build(b, x)));
        });
    };
    for op in [A::Relu, A::Gelu, A::Sigmoid, A::LogSigmoid] {
        add(&|b, x| op(UnaryOpIr::create(x, || b.id())));
    }
    for op in [
        A::ReluBackward,
        A::GeluBackward,
        A::SigmoidBackward,
        A::LogSigmoidBackward,
    ] {
        add(&|b, x| {
            let grad = b.input(&[2, 3, 4], dtype);
            op(BinaryOpIr::create(x, grad, || b.id()))
        });
    }
    add(&|b, x| A::LeakyRelu(ScalarOpIr::create(x, ScalarIr::Float(0.1), || b.id())));
    add(&|b, x| {
        let slope = b.input(&[1, 3, 1], dtype);
        A::PRelu(BinaryOpIr::create(x, slope, || b.id()))
    });
    add(&|b, x| {
        let (alpha, beta) = (ScalarIr::Float(0.2), ScalarIr::Float(0.5));
        A::HardSigmoid(HardSigmoidOpIr::create(x, alpha, beta, || b.id()))
    });
    for op in [A::Softmax, A::LogSoftmax, A::Softmin] {
        for axis in 0..3 {
            add(&|b, x| op(DimOpIr::create(x, axis, || b.id())));
        }
    }
}

pub(super) fn norms_and_tables(seeds: &mut Seeds, dtype: DType) {
    use ModuleOperationIr as M;
    seeds.add(|b| {
        let [g, be, m, v] = [(); 4].map(|()| b.input(&[3], dtype));
        let (x, eps) = (b.input(&[2, 3, 4], dtype), ScalarIr::Float(1e-5));
        module(
            b,
            M::BatchNorm(BatchNormOpIr::create(x, g, be, m, v, eps, || b.id())),
        );
    });
    for with_beta in [false, true] {
        seeds.add(|b| {
            let (x, gamma) = (b.input(&[2, 3, 4], dtype), b.input(&[4], dtype));
            let beta = with_beta.then(|| b.input(&[4], dtype));
            module(
                b,
                M::LayerNorm(LayerNormOpIr::create(x, gamma, beta, 1e-5, || b.id())),
            );
        });
        seeds.add(|b| {
            let (x, w) = (b.input(&[2, 3, 4], dtype), b.input(&[4, 5], dtype));
            let bias = with_beta.then(|| b.input(&[5], dtype));
            module(b, M::Linear(LinearOpIr::create(x, w, bias, || b.id())));
        });
    }
    seeds.add(|b| {
        let (w, g) = (b.input(&[4, 5], dtype), b.input(&[2, 3, 5], dtype));
        module(
            b,
            M::LinearXBackward(LinearXBackwardOpIr::create(w, g, || b.id())),
        );
    });
    seeds.add(|b| {
        let (x, g) = (b.input(&[2, 3, 4], dtype), b.input(&[2, 3, 5], dtype));
        module(
            b,
            M::LinearWeightBackward(LinearWeightBackwardOpIr::create(x, g, || b.id())),
        );
    });
    seeds.add(|b| {
        let g = b.input(&[2, 3, 5], dtype);
        module(
            b,
            M::LinearBiasBackward(LinearBiasBackwardOpIr::create(g, || b.id())),
        );
    });
    seeds.add(|b| {
        let (w, i) = (b.input(&[4, 5], dtype), b.indices(&[2, 3]));
        module(b, M::Embedding(EmbeddingOpIr::create(w, i, || b.id())));
    });
    seeds.add(|b| {
        let (w, i) = (b.input(&[4, 5], dtype), b.indices(&[2, 3]));
        let g = b.input(&[2, 3, 5], dtype);
        module(
            b,
            M::EmbeddingBackward(EmbeddingBackwardOpIr::create(w, g, i, || b.id())),
        );
    });
    for (scale, softcap, is_causal, extra) in [
        (None, None, false, false),
        (Some(0.3), Some(2.0), true, false),
        (None, None, false, true),
    ] {
        seeds.add(|b| {
            let q = b.input(&[2, 2, 3, 4], dtype);
            let (k, v) = (b.input(&[2, 2, 5, 4], dtype), b.input(&[2, 2, 5, 6], dtype));
            let mask = extra.then(|| b.input(&[2, 1, 3, 5], BOOL));
            let bias = extra.then(|| b.input(&[1, 2, 1, 5], dtype));
            let options = AttentionOptionsIr {
                scale: scale.map(ScalarIr::Float),
                softcap: softcap.map(ScalarIr::Float),
                is_causal,
            };
            module(
                b,
                M::Attention(AttentionOpIr::create(q, k, v, mask, bias, options, || {
                    b.id()
                })),
            );
        });
    }
}

/// Operations of this format on two levels: 2 images of 2 x 3 cells, 2 of 1 x 2.
pub(super) fn customs(seeds: &mut Seeds) {
    let sizes = vec![[2, 2, 3], [2, 1, 2]];
    let custom = |b: &Build, id: &str, inputs: &[TensorIr], outputs: &[TensorIr], scalars| {
        b.op(OperationIr::Custom(CustomOpIr {
            id: id.to_owned(),
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
            scalars,
        }));
    };
    let cells = 16;
    for relu in [0, 1] {
        let sizes = sizes.clone();
        let xwb = |b: &Build| {
            [
                b.f32(&[cells, 4]),
                b.f32(&[5, 4, 3, 3]),
                b.f32(&[5]),
                b.f32(&[cells, 5]),
                b.f32(&[cells, 5]),
            ]
        };
        seeds.add(|b| {
            let [x, w, bias, ..] = xwb(b);
            let options = [relu];
            let scalars = ops::Packing {
                options,
                sizes: sizes.clone(),
            }
            .to_scalars();
            let y = b.tensor(&[cells, 5], F32);
            custom(b, ops::CONV2D, &[x, w, bias], &[y], scalars);
        });
        for wanted in 1..8 {
            seeds.add(|b| {
                let [x, w, bias, y, dy] = xwb(b);
                let options = [relu, wanted];
                let scalars = ops::Packing {
                    options,
                    sizes: sizes.clone(),
                }
                .to_scalars();
                let gradients: Vec<TensorIr> = ([&x, &w, &bias].iter().enumerate())
                    .filter(|(bit, _)| wanted >> bit & 1 == 1)
                    .map(|(_, t)| b.tensor(&t.shape, F32))
                    .collect();
                let y = (relu == 1).then_some(y);
                let inputs: Vec<TensorIr> = [x, w].into_iter().chain(y).chain([dy]).collect();
                custom(b, ops::CONV2D_BACKWARD, &inputs, &gradients, scalars);
            });
        }
        for scope in [ops::SCOPE_IMAGE, ops::SCOPE_CHANNEL] {
            let options = [scope, relu];
            let scalars = ops::Packing {
                options,
                sizes: sizes.clone(),
            }
            .to_scalars();
            seeds.add(|b| {
                let (x, y) = (b.f32(&[cells, 4]), b.tensor(&[cells, 4], F32));
                custom(b, ops::STANDARDIZE, &[x], &[y], scalars.clone());
            });
            seeds.add(|b| {
                let (x, dy) = (b.f32(&[cells, 4]), b.f32(&[cells, 4]));
                let dx = b.tensor(&[cells, 4], F32);
                custom(
                    b,
                    ops::STANDARDIZE_BACKWARD,
                    &[x, dy],
                    &[dx],
                    scalars.clone(),
                );
            });
        }
    }
}
