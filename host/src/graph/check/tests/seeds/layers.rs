//! Layers, their backwards, and the operations of this format.

use kd_graph::DType;
use kd_graph::burn_ir::*;
use kd_graph::ops;

use super::super::build::{BOOL, Build, F32, I32};
use super::Seeds;

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

pub(super) fn modules(seeds: &mut Seeds, dtype: DType) {
    norms_and_tables(seeds, dtype);
    conv1d(seeds, dtype);
    conv2d(seeds, dtype);
    conv3d(seeds, dtype);
    transposed(seeds, dtype);
    pools(seeds, dtype);
    resizes(seeds, dtype);
}

fn module(b: &Build, op: ModuleOperationIr) {
    b.op(OperationIr::Module(op));
}

fn norms_and_tables(seeds: &mut Seeds, dtype: DType) {
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

fn conv1d(seeds: &mut Seeds, dtype: DType) {
    use ModuleOperationIr as M;
    let options = || Conv1dOptionsIr {
        stride: [2],
        padding: [(1, 2)],
        dilation: [2],
        groups: 2,
    };
    let xw = |b: &Build| (b.input(&[2, 4, 9], dtype), b.input(&[6, 2, 3], dtype));
    let grad = |b: &Build| b.input(&[2, 6, 4], dtype);
    seeds.add(|b| {
        let ((x, w), bias) = (xw(b), Some(b.input(&[6], dtype)));
        module(
            b,
            M::Conv1d(Conv1dOpIr::create(x, w, bias, options(), || b.id())),
        );
    });
    seeds.add(|b| {
        let ((x, w), g) = (xw(b), grad(b));
        module(
            b,
            M::Conv1dXBackward(Conv1dXBackwardOpIr::create(x, w, g, options(), || b.id())),
        );
    });
    seeds.add(|b| {
        let ((x, w), g) = (xw(b), grad(b));
        let op = Conv1dWeightBackwardOpIr::create(x, w, g, options(), || b.id());
        module(b, M::Conv1dWeightBackward(op));
    });
    seeds.add(|b| {
        let ((x, _), g, bias) = (xw(b), grad(b), b.input(&[6], dtype));
        module(
            b,
            M::Conv1dBiasBackward(Conv1dBiasBackwardOpIr::create(x, bias, g, || b.id())),
        );
    });
}

fn conv2d(seeds: &mut Seeds, dtype: DType) {
    use ModuleOperationIr as M;
    // Dense, strided and dilated in groups, per channel: kernels differ.
    for (weight, stride, padding, dilation, groups, out) in [
        (
            [5, 4, 3, 3],
            [1, 1],
            [(1, 1), (1, 1)],
            [1, 1],
            1,
            [2, 5, 7, 6],
        ),
        (
            [6, 2, 3, 2],
            [2, 1],
            [(0, 1), (2, 2)],
            [1, 2],
            2,
            [2, 6, 3, 8],
        ),
        (
            [4, 1, 3, 3],
            [1, 1],
            [(1, 1), (1, 1)],
            [1, 1],
            4,
            [2, 4, 7, 6],
        ),
        (
            [5, 4, 1, 1],
            [1, 1],
            [(0, 0), (0, 0)],
            [1, 1],
            1,
            [2, 5, 7, 6],
        ),
    ] {
        let options = || Conv2dOptionsIr {
            stride,
            padding,
            dilation,
            groups,
        };
        let xw = |b: &Build| (b.input(&[2, 4, 7, 6], dtype), b.input(&weight, dtype));
        seeds.add(|b| {
            let ((x, w), bias) = (xw(b), Some(b.input(&[weight[0]], dtype)));
            module(
                b,
                M::Conv2d(Conv2dOpIr::create(x, w, bias, options(), || b.id())),
            );
        });
        seeds.add(|b| {
            let ((x, w), g) = (xw(b), b.input(&out, dtype));
            let op = Conv2dXBackwardOpIr::create(x, w, g, options(), || b.id());
            module(b, M::Conv2dXBackward(op));
        });
        seeds.add(|b| {
            let ((x, w), g) = (xw(b), b.input(&out, dtype));
            let op = Conv2dWeightBackwardOpIr::create(x, w, g, options(), || b.id());
            module(b, M::Conv2dWeightBackward(op));
        });
        seeds.add(|b| {
            let ((x, _), g) = (xw(b), b.input(&out, dtype));
            let bias = b.input(&[weight[0]], dtype);
            module(
                b,
                M::Conv2dBiasBackward(Conv2dBiasBackwardOpIr::create(x, bias, g, || b.id())),
            );
        });
    }
}

fn conv3d(seeds: &mut Seeds, dtype: DType) {
    use ModuleOperationIr as M;
    let options = || Conv3dOptionsIr {
        stride: [1, 2, 1],
        padding: [1, 0, 1],
        dilation: [1, 1, 1],
        groups: 1,
    };
    let xw = |b: &Build| {
        (
            b.input(&[1, 2, 3, 4, 3], dtype),
            b.input(&[3, 2, 2, 2, 2], dtype),
        )
    };
    let grad = |b: &Build| b.input(&[1, 3, 4, 2, 4], dtype);
    seeds.add(|b| {
        let (x, w) = xw(b);
        module(
            b,
            M::Conv3d(Conv3dOpIr::create(x, w, None, options(), || b.id())),
        );
    });
    seeds.add(|b| {
        let ((x, w), g) = (xw(b), grad(b));
        module(
            b,
            M::Conv3dXBackward(Conv3dXBackwardOpIr::create(x, w, g, options(), || b.id())),
        );
    });
    seeds.add(|b| {
        let ((x, w), g) = (xw(b), grad(b));
        let op = Conv3dWeightBackwardOpIr::create(x, w, g, options(), || b.id());
        module(b, M::Conv3dWeightBackward(op));
    });
    seeds.add(|b| {
        let ((x, _), g, bias) = (xw(b), grad(b), b.input(&[3], dtype));
        module(
            b,
            M::Conv3dBiasBackward(Conv3dBiasBackwardOpIr::create(x, bias, g, || b.id())),
        );
    });
}

fn transposed(seeds: &mut Seeds, dtype: DType) {
    use ModuleOperationIr as M;
    let one = || ConvTranspose1dOptionsIr {
        stride: [2],
        padding: [1],
        padding_out: [1],
        dilation: [1],
        groups: 2,
    };
    let two = || ConvTranspose2dOptionsIr {
        stride: [2, 1],
        padding: [1, 0],
        padding_out: [1, 0],
        dilation: [1, 2],
        groups: 2,
    };
    let three = || ConvTranspose3dOptionsIr {
        stride: [2, 1, 1],
        padding: [0, 0, 1],
        padding_out: [0, 0, 0],
        dilation: [1, 1, 1],
        groups: 1,
    };
    let xw1 = |b: &Build| (b.input(&[2, 4, 5], dtype), b.input(&[4, 3, 3], dtype));
    let xw2 = |b: &Build| (b.input(&[2, 4, 3, 5], dtype), b.input(&[4, 3, 3, 2], dtype));
    let xw3 = |b: &Build| {
        (
            b.input(&[1, 2, 2, 3, 3], dtype),
            b.input(&[2, 3, 2, 2, 2], dtype),
        )
    };
    let g1 = |b: &Build| b.input(&[2, 6, 10], dtype);
    let g2 = |b: &Build| b.input(&[2, 6, 6, 7], dtype);
    let g3 = |b: &Build| b.input(&[1, 3, 4, 4, 2], dtype);
    seeds.add(|b| {
        let ((x, w), bias) = (xw1(b), Some(b.input(&[6], dtype)));
        let op = ConvTranspose1dOpIr::create(x, w, bias, one(), || b.id());
        module(b, M::ConvTranspose1d(op));
    });
    seeds.add(|b| {
        let ((x, w), bias) = (xw2(b), Some(b.input(&[6], dtype)));
        let op = ConvTranspose2dOpIr::create(x, w, bias, two(), || b.id());
        module(b, M::ConvTranspose2d(op));
    });
    seeds.add(|b| {
        let (x, w) = xw3(b);
        let op = ConvTranspose3dOpIr::create(x, w, None, three(), || b.id());
        module(b, M::ConvTranspose3d(op));
    });
    seeds.add(|b| {
        let ((x, w), g) = (xw1(b), g1(b));
        let op = ConvTranspose1dWeightBackwardOpIr::create(x, w, g, one(), || b.id());
        module(b, M::ConvTranspose1dWeightBackward(op));
    });
    seeds.add(|b| {
        let ((x, w), g) = (xw2(b), g2(b));
        let op = ConvTranspose2dWeightBackwardOpIr::create(x, w, g, two(), || b.id());
        module(b, M::ConvTranspose2dWeightBackward(op));
    });
    seeds.add(|b| {
        let ((x, w), g) = (xw3(b), g3(b));
        let op = ConvTranspose3dWeightBackwardOpIr::create(x, w, g, three(), || b.id());
        module(b, M::ConvTranspose3dWeightBackward(op));
    });
    seeds.add(|b| {
        let ((x, _), g, bias) = (xw1(b), g1(b), b.input(&[6], dtype));
        let op = ConvTranspose1dBiasBackwardOpIr::create(x, bias, g, || b.id());
        module(b, M::ConvTranspose1dBiasBackward(op));
    });
    seeds.add(|b| {
        let ((x, _), g, bias) = (xw2(b), g2(b), b.input(&[6], dtype));
        let op = ConvTranspose2dBiasBackwardOpIr::create(x, bias, g, || b.id());
        module(b, M::ConvTranspose2dBiasBackward(op));
    });
    seeds.add(|b| {
        let ((x, _), g, bias) = (xw3(b), g3(b), b.input(&[3], dtype));
        let op = ConvTranspose3dBiasBackwardOpIr::create(x, bias, g, || b.id());
        module(b, M::ConvTranspose3dBiasBackward(op));
    });
}

fn pools(seeds: &mut Seeds, dtype: DType) {
    use ModuleOperationIr as M;
    let line = |b: &Build| b.input(&[2, 3, 8], dtype);
    let map = |b: &Build| b.input(&[2, 3, 8, 7], dtype);
    for ceil in [false, true] {
        let (n, m) = if ceil { (5, 4) } else { (4, 3) };
        let grad1 = |b: &Build| b.input(&[2, 3, n], dtype);
        let grad2 = |b: &Build| b.input(&[2, 3, n, m], dtype);
        seeds.add(|b| {
            let x = line(b);
            module(
                b,
                M::AvgPool1d(AvgPool1dOpIr::create(x, 3, 2, 1, true, ceil, || b.id())),
            );
        });
        seeds.add(|b| {
            let (x, g) = (line(b), grad1(b));
            let op = AvgPool1dBackwardOpIr::create(x, g, 3, 2, 1, false, ceil, || b.id());
            module(b, M::AvgPool1dBackward(op));
        });
        seeds.add(|b| {
            let x = map(b);
            let op = AvgPool2dOpIr::create(x, [3, 2], [2, 2], [1, 0], false, ceil, || b.id());
            module(b, M::AvgPool2d(op));
        });
        seeds.add(|b| {
            let (x, g) = (map(b), grad2(b));
            let (k, s, p) = ([3, 2], [2, 2], [1, 0]);
            let op = AvgPool2dBackwardOpIr::create(x, g, k, s, p, true, ceil, || b.id());
            module(b, M::AvgPool2dBackward(op));
        });
        seeds.add(|b| {
            let x = line(b);
            module(
                b,
                M::MaxPool1d(MaxPool1dOpIr::create(x, 3, 2, 1, 1, ceil, || b.id())),
            );
        });
        seeds.add(|b| {
            let x = line(b);
            let op = MaxPool1dWithIndicesOpIr::create(x, 3, 2, 1, 1, ceil, I32, || b.id());
            module(b, M::MaxPool1dWithIndices(op));
        });
        seeds.add(|b| {
            let (x, g, at) = (line(b), grad1(b), b.indices(&[2, 3, n]));
            let op =
                MaxPool1dWithIndicesBackwardOpIr::create(x, g, at, 3, 2, 1, 1, ceil, || b.id());
            module(b, M::MaxPool1dWithIndicesBackward(op));
        });
        let (k, s, p, d) = ([3, 2], [2, 2], [1, 0], [1, 1]);
        seeds.add(|b| {
            let op = MaxPool2dOpIr::create(map(b), k, s, p, d, ceil, || b.id());
            module(b, M::MaxPool2d(op));
        });
        seeds.add(|b| {
            let op = MaxPool2dWithIndicesOpIr::create(map(b), k, s, p, d, ceil, I32, || b.id());
            module(b, M::MaxPool2dWithIndices(op));
        });
        seeds.add(|b| {
            let (x, g, at) = (map(b), grad2(b), b.indices(&[2, 3, n, m]));
            let op =
                MaxPool2dWithIndicesBackwardOpIr::create(x, g, at, k, s, p, d, ceil, || b.id());
            module(b, M::MaxPool2dWithIndicesBackward(op));
        });
    }
}

fn resizes(seeds: &mut Seeds, dtype: DType) {
    use InterpolateModeIr as I;
    use ModuleOperationIr as M;
    let line = |b: &Build| b.input(&[2, 3, 8], dtype);
    let map = |b: &Build| b.input(&[2, 3, 5, 4], dtype);
    let volume = |b: &Build| b.input(&[1, 2, 3, 4, 5], dtype);
    seeds.add(|b| {
        module(
            b,
            M::AdaptiveAvgPool1d(AdaptiveAvgPool1dOpIr::create(line(b), 3, || b.id())),
        );
    });
    seeds.add(|b| {
        module(
            b,
            M::AdaptiveAvgPool2d(AdaptiveAvgPool2dOpIr::create(map(b), [3, 7], || b.id())),
        );
    });
    seeds.add(|b| {
        let op = AdaptiveAvgPool3dOpIr::create(volume(b), [2, 4, 1], || b.id());
        module(b, M::AdaptiveAvgPool3d(op));
    });
    seeds.add(|b| {
        let (x, g) = (line(b), b.input(&[2, 3, 3], dtype));
        let op = AdaptiveAvgPool1dBackwardOpIr::create(x, g, || b.id());
        module(b, M::AdaptiveAvgPool1dBackward(op));
    });
    seeds.add(|b| {
        let (x, g) = (map(b), b.input(&[2, 3, 3, 7], dtype));
        let op = AdaptiveAvgPool2dBackwardOpIr::create(x, g, || b.id());
        module(b, M::AdaptiveAvgPool2dBackward(op));
    });
    seeds.add(|b| {
        let (x, g) = (volume(b), b.input(&[1, 2, 2, 4, 1], dtype));
        let op = AdaptiveAvgPool3dBackwardOpIr::create(x, g, || b.id());
        module(b, M::AdaptiveAvgPool3dBackward(op));
    });
    for (mode, align_corners) in [
        (I::Nearest, false),
        (I::Bilinear, false),
        (I::Bilinear, true),
        (I::Bicubic, false),
        (I::Lanczos3, false),
    ] {
        let options = || InterpolateOptionsIr {
            mode: mode.clone(),
            align_corners,
        };
        seeds.add(|b| {
            let op = InterpolateOpIr::create(map(b), [10, 3], options(), || b.id());
            module(b, M::Interpolate(op));
        });
        if mode != I::Lanczos3 {
            seeds.add(|b| {
                let (x, g) = (map(b), b.input(&[2, 3, 10, 3], dtype));
                let op = InterpolateBackwardOpIr::create(x, g, [10, 3], options(), || b.id());
                module(b, M::InterpolateBackward(op));
            });
        }
    }
    seeds.add(|b| {
        let options = Unfold4dOptionsIr {
            stride: [1, 2],
            padding: [1, 0],
            dilation: [1, 1],
        };
        let op = Unfold4dOpIr::create(map(b), [3, 2], options, || b.id());
        module(b, M::Unfold4d(op));
    });
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
