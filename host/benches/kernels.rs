//! Our kernels beside Burn's own operations: `cargo bench -p kdhost`, with a word of a name to choose.
//!
//! Each pair computes the same thing on the same extents, forward and all gradients; ours on packed
//! channels-last maps, Burn's on `[N, C, H, W]`.

use std::hint::black_box;
use std::time::Duration;

use burn::tensor::module;
use burn::tensor::ops::{ConvOptions, InterpolateMode, InterpolateOptions, MaxPoolOptions};
use burn::tensor::{Device, Distribution, Tensor, TensorData, activation};
use criterion::{
    BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use kdhost::distill::inject::inject;
use kdhost::engine::optim::{Algorithm, Optimizer};
use kdhost::kernels::conv::Window;
use kdhost::maps::Maps;
use kdhost::model::ops::{self, Activation, ConvOptions2d};

// As the binary has it: without, page faults are what is measured.
#[global_allocator]
static ALLOCATOR: kdhost::kernels::allocator::KeepLarge<mimalloc::MiMalloc> =
    kdhost::kernels::allocator::KeepLarge::new(mimalloc::MiMalloc);

fn leaf<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let normal = Distribution::Normal(0.0, 1.0);
    Tensor::random(shape, normal, &Device::flex())
        .autodiff()
        .require_grad()
}

/// Gradients of `sum(y * upstream)`.
fn backward<const D: usize>(y: Tensor<D>) {
    let upstream = Tensor::ones(y.dims(), &Device::flex());
    black_box(inject(y, upstream).backward());
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300));
    group.measurement_time(Duration::from_secs(1));
    group
}

/// `[n, c, h, w, o, kernel, stride, padding, groups]`.
const CONVOLUTIONS: [(&str, [usize; 9]); 10] = [
    ("3x3 64-64 160", [1, 64, 160, 160, 64, 3, 1, 1, 1]),
    ("3x3 256-256 80", [1, 256, 80, 80, 256, 3, 1, 1, 1]),
    ("1x1 256-64 160", [1, 256, 160, 160, 64, 1, 1, 0, 1]),
    ("1x1 64-256 160", [1, 64, 160, 160, 256, 1, 1, 0, 1]),
    ("7x7 s2 3-64 640", [1, 3, 640, 640, 64, 7, 2, 3, 1]),
    ("3x3 128-128 40 n4", [4, 128, 40, 40, 128, 3, 1, 1, 1]),
    ("3x3 512-512 20", [1, 512, 20, 20, 512, 3, 1, 1, 1]),
    ("1x1 s2 256-512 160", [1, 256, 160, 160, 512, 1, 2, 0, 1]),
    ("3x3 s2 64-64 320", [1, 64, 320, 320, 64, 3, 2, 1, 1]),
    ("depthwise 3x3 256 80", [1, 256, 80, 80, 256, 3, 1, 1, 256]),
];

fn convolutions(criterion: &mut Criterion) {
    for (name, [n, c, h, w, o, kernel, stride, padding, groups]) in CONVOLUTIONS {
        let x = leaf([n, c, h, w]);
        let weight = leaf([o, c / groups, kernel, kernel]);
        let maps = Maps::from_nchw(x.clone().inner());
        let maps = Maps::new(
            maps.cells().clone().autodiff().require_grad(),
            maps.segments().clone(),
        );
        let mut group = group(criterion, &format!("conv {name}"));
        group.bench_function("kdhost", |bencher| {
            let options = ConvOptions2d {
                window: Window::square(kernel, stride, padding),
                groups,
                relu: false,
            };
            bencher.iter(|| {
                backward(
                    ops::conv2d(&maps, weight.clone(), None, options)
                        .cells()
                        .clone(),
                );
            });
        });
        group.bench_function("burn", |bencher| {
            let options = || ConvOptions::new([stride; 2], [padding; 2], [1; 2], groups);
            bencher.iter(|| backward(module::conv2d(x.clone(), weight.clone(), None, options())));
        });
        group.finish();
    }
}

fn others(criterion: &mut Criterion) {
    let shape = [1, 256, 160, 160];
    let x = leaf(shape);
    let (gamma, beta) = (leaf([256]), leaf([256]));
    let maps = Maps::from_nchw(x.clone().inner());
    let maps = Maps::new(
        maps.cells().clone().autodiff().require_grad(),
        maps.segments().clone(),
    );

    let mut norm = group(criterion, "batch_norm + relu 256 160");
    norm.bench_function("kdhost", |bencher| {
        bencher.iter(|| {
            let relu = Activation::Relu;
            let y = ops::batch_norm_train(&maps, gamma.clone(), beta.clone(), None, relu);
            backward(y.output.cells().clone());
        });
    });
    norm.bench_function("burn", |bencher| {
        bencher.iter(|| {
            let y = module::batch_norm_train(x.clone(), gamma.clone(), beta.clone(), 1e-5);
            backward(activation::relu(y.output));
        });
    });
    norm.finish();

    let mut pool = group(criterion, "max_pool 256 160");
    pool.bench_function("kdhost", |bencher| {
        bencher.iter(|| backward(ops::max_pool_3x3_s2(&maps).cells().clone()));
    });
    pool.bench_function("burn", |bencher| {
        let options = MaxPoolOptions::new([3, 3])
            .with_stride([2, 2])
            .with_padding([1, 1]);
        bencher.iter(|| backward(module::max_pool2d(x.clone(), options.clone())));
    });
    pool.finish();

    let coarse = leaf([1, 256, 80, 80]);
    let coarse_maps = Maps::from_nchw(coarse.clone().inner());
    let coarse_maps = Maps::new(
        coarse_maps.cells().clone().autodiff().require_grad(),
        coarse_maps.segments().clone(),
    );
    let mut upsample = group(criterion, "upsample_add 256 80-160");
    upsample.bench_function("kdhost", |bencher| {
        bencher.iter(|| backward(ops::upsample_add(&maps, &coarse_maps).cells().clone()));
    });
    upsample.bench_function("burn", |bencher| {
        let options =
            InterpolateOptions::new(InterpolateMode::Nearest).with_output_size([160, 160]);
        bencher.iter(|| {
            backward(x.clone() + module::interpolate(coarse.clone(), options.clone()));
        });
    });
    upsample.finish();
}

/// One step of SGD with momentum over a ResNet-50 detector's parameters.
fn optimizer(criterion: &mut Criterion) {
    let algorithm = Algorithm::Sgd { momentum: 0.9 };
    let mut params: Vec<Vec<f32>> = (0..60).map(|_| vec![0.1; 600_000]).collect();
    let grads = params.clone();
    let names: Vec<String> = (0..params.len()).map(|i| i.to_string()).collect();
    let mut group = group(criterion, "sgd 36M");
    group.bench_function("kdhost", |bencher| {
        let mut optimizer = Optimizer::new(algorithm);
        bencher.iter(|| {
            optimizer.begin_step();
            for ((name, param), grad) in names.iter().zip(&mut params).zip(&grads) {
                optimizer.update(name, param, grad, 1e-9, 1e-4);
            }
        });
    });
    group.bench_function("burn, composed", |bencher| {
        let tensor = |values: &Vec<f32>| {
            let data = TensorData::new(values.clone(), [values.len()]);
            Tensor::<1>::from_data(data, &Device::flex())
        };
        let mut state: Vec<[Tensor<1>; 2]> =
            params.iter().map(|p| [tensor(p), tensor(p)]).collect();
        let grads: Vec<Tensor<1>> = grads.iter().map(tensor).collect();
        bencher.iter(|| {
            for ([param, momentum], grad) in state.iter_mut().zip(&grads) {
                let grad = grad.clone() + param.clone() * 1e-4;
                *momentum = momentum.clone() * 0.9 + grad;
                *param = param.clone() - momentum.clone() * 1e-9;
            }
        });
    });
    group.finish();
}

criterion_group!(benches, convolutions, others, optimizer);
criterion_main!(benches);
