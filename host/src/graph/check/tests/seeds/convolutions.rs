//! Convolutions and their backwards.

use kd_graph::DType;
use kd_graph::burn_ir::*;

use super::super::build::Build;
use super::{Seeds, module};

pub(super) fn all(seeds: &mut Seeds, dtype: DType) {
    conv1d(seeds, dtype);
    conv2d(seeds, dtype);
    conv3d(seeds, dtype);
    transposed(seeds, dtype);
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
