//! Poolings, resizing and unfolding.

use kd_graph::DType;
use kd_graph::burn_ir::*;

use super::super::build::{Build, I32};
use super::{Seeds, module};

pub(super) fn all(seeds: &mut Seeds, dtype: DType) {
    pools(seeds, dtype);
    resizes(seeds, dtype);
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
