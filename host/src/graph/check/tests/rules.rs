//! A refusal for every rule: a sound operation with one thing changed.

use burn_std::{Distribution, Slice};
use kd_graph::burn_ir::*;
use kd_graph::ops;
use kd_graph::{BoolStore, DType};

use ActivationOperationIr as A;
use BaseOperationIr as B;
use FloatOperationIr as F;
use IntOperationIr as I;
use ModuleOperationIr as M;
use NumericOperationIr as N;
use OperationIr as O;

use super::build::{BOOL, Build, F32, I32, check_own};
use super::seeds;
use crate::graph::check::Limits;

/// The message about the first seed of a pattern after a change.
macro_rules! refused {
    ($($pattern:pat => $change:expr, $text:literal;)+) => {$(
        let mut seeds = seeds::all().into_iter();
        let message = loop {
            let mut program = seeds.next().expect(stringify!($pattern));
            if let Some($pattern) = program.operations.first_mut() {
                $change;
                let checked = check_own(&program, &Limits::default());
                break checked.expect_err(stringify!($change)).to_string();
            }
        };
        assert!(message.starts_with("operation 0 ("), "{message}");
        assert!(message.contains($text), "{message}");
    )+};
}

/// The message about one operation on inputs of one's own.
fn message(build: impl FnOnce(&Build) -> OperationIr) -> String {
    let b = Build::new();
    let op = build(&b);
    b.op(op);
    let checked = check_own(&b.program(), &Limits::default());
    checked.expect_err("it is refused").to_string()
}

fn extents(tensor: &mut TensorIr, extents: &[usize]) {
    tensor.shape = extents.to_vec().into();
}

#[test]
fn moved_elements() {
    refused! {
        O::BaseFloat(B::Reshape(op)) => extents(&mut op.out, &[5, 5]), "`out` is [5, 5] from [2, 3, 4]";
        O::BaseFloat(B::SwapDims(op)) => op.dim2 = 3, "`dim2` is 3, of [2, 3, 4]";
        O::BaseFloat(B::SwapDims(op)) => op.dim2 = 1, "`out` is [4, 3, 2], it must be [3, 2, 4]";
        O::BaseFloat(B::Permute(op)) => op.axes[0] = 1, "`axes` repeats one: [1, 0, 1]";
        O::BaseFloat(B::Permute(op)) => op.axes.truncate(2), "`axes` are [2, 0]";
        O::BaseFloat(B::Flip(op)) => op.axes[0] = 7, "`axes` is 7";
        O::BaseFloat(B::Expand(op)) => extents(&mut op.out, &[5, 2, 2, 4]), "from [1, 3, 1]";
        O::BaseFloat(B::Expand(op)) => extents(&mut op.out, &[3]), "from [1, 3, 1]";
        O::BaseFloat(B::Unfold(op)) => op.step = 0, "step of 0";
        O::BaseFloat(B::Unfold(op)) => op.size = 5, "`size` is 5";
        O::BaseFloat(B::Slice(op)) => op.ranges[0].step = 0, "step: 0";
        O::BaseFloat(B::Slice(op)) => op.ranges[0].start = -3, "start: -3";
        O::BaseFloat(B::Slice(op)) => op.ranges[0].end = Some(isize::MAX), "`ranges` hold";
        O::BaseFloat(B::Slice(op)) => op.ranges.resize(4, Slice::full()), "`ranges` are 4";
        O::BaseFloat(B::SliceAssign(op)) => op.ranges[2].end = Some(4), "`value` is [1, 2, 2]";
        O::BaseFloat(B::Select(op)) => op.dim = 3, "`dim` is 3";
        O::BaseFloat(B::Select(op)) => op.dim = 0, "it must be [5, 3, 4]";
        O::BaseFloat(B::SelectAssign(op)) => op.dim = 0, "`value` is [2, 5, 4]";
        O::BaseFloat(B::Gather(op)) => op.dim = 1, "`indices` is [2, 3, 2], it must be [2, 3, 4]";
        O::BaseFloat(B::Scatter(op)) => op.dim = 2, "`indices`";
        O::BaseFloat(B::MaskWhere(op)) => std::mem::swap(&mut op.mask, &mut op.value), "`mask` is";
        O::BaseFloat(B::MaskFill(op)) => op.value = ScalarIr::Bool(true), "Bool(true)";
        O::BaseInt(B::MaskFill(op)) => op.value = ScalarIr::Float(1.0), "which is no i32";
        O::BaseInt(B::MaskFill(op)) => op.value = ScalarIr::Int(1 << 40), "which is no i32";
        O::BaseFloat(B::Equal(op)) => op.out.dtype = F32, "`out` is f32, it must be a bool";
        O::BaseBool(B::Equal(op)) => op.out.dtype = DType::Bool(BoolStore::U8), "`out` is bool";
        O::BaseFloat(B::RepeatDim(op)) => op.times = 0, "`times` is 0";
        O::BaseFloat(B::RepeatDim(op)) => op.times = usize::MAX, "`times` is 18446744073709551615";
        O::BaseFloat(B::Cat(op)) => op.tensors.clear(), "`tensors` are none";
        O::BaseFloat(B::Cat(op)) => op.dim = 2, "do not join in dimension 2";
        O::BaseFloat(B::Cast(op)) => op.out.dtype = I32, "`out` is i32, it must be a float";
        O::BaseFloat(B::Zeros(op)) => op.out.dtype = I32, "`out` is i32";
        O::BaseFloat(B::All(op)) => extents(&mut op.out, &[2]), "it must be [1]";
        O::BaseFloat(B::AllDim(op)) => op.axis = 9, "`axis` is 9";
    }
}

#[test]
fn arithmetic() {
    refused! {
        O::NumericFloat(_, N::Add(op)) => op.out.dtype = I32, "`out` is i32, it must be f32";
        O::NumericFloat(_, N::AddScalar(op)) => op.rhs = ScalarIr::Bool(true), "`rhs` is Bool";
        O::NumericFloat(_, N::AddScalar(op)) => op.rhs = ScalarIr::Float(1e300), "Float(1e300)";
        O::NumericInt(_, N::DivScalar(op)) => op.rhs = ScalarIr::Int(0), "divides no integer";
        O::NumericFloat(_, N::Clamp(op)) => op.max = ScalarIr::Float(0.0), "`min` is Float(0.5)";
        O::NumericFloat(_, N::Clamp(op)) => op.min = ScalarIr::Float(f64::NAN), "`min` is Float(NaN)";
        O::NumericFloat(_, N::Full(op)) => op.value = ScalarIr::Bool(true), "`value`";
        O::NumericFloat(_, N::Mean(op)) => extents(&mut op.out, &[1, 1]), "it must be [1]";
        O::NumericFloat(_, N::SumDim(op)) => op.axis = 2, "it must be [2, 3, 1]";
        O::NumericFloat(_, N::SumDim(op)) => op.accumulator_len = 2, "`accumulator_len` is 2";
        O::NumericFloat(_, N::SumDims(op)) => op.axes[1] = 2, "repeats one";
        O::NumericFloat(_, N::ArgMax(op)) => op.out.dtype = F32, "it must be an integer";
        O::NumericFloat(_, N::TopK(op)) => op.accumulator_len = 5, "`k` is 5";
        O::NumericFloat(_, N::ArgTopK(op)) => op.accumulator_len = 0, "`k` is 0";
        O::NumericFloat(_, N::TopKWithIndices(op)) => op.k = 3, "it must be [2, 3, 3]";
        O::NumericFloat(_, N::MaxDimWithIndices(op)) => op.dim = 4, "`dim` is 4";
        O::NumericFloat(_, N::Greater(op)) => extents(&mut op.out, &[2, 1, 4]), "it must be [2, 3, 4]";
        O::NumericFloat(_, N::GreaterElem(op)) => op.out.dtype = I32, "it must be a bool";
        O::NumericFloat(_, N::Powi(op)) => std::mem::swap(&mut op.lhs, &mut op.rhs), "`lhs` is i32";
        O::NumericFloat(_, N::PowiScalar(op)) => op.rhs = ScalarIr::Float(2.0), "`rhs` is Float";
        O::NumericInt(_, N::PowiScalar(op)) => op.rhs = ScalarIr::Int(-1), "`rhs` is Int(-1)";
        O::NumericFloat(_, N::CumSum(op)) => op.axis = 3, "`axis` is 3";
        O::NumericFloat(_, N::Sort(op)) => op.dim = 3, "`dim` is 3";
        O::NumericFloat(_, N::ArgSort(op)) => op.out.dtype = F32, "`out` is f32";
        O::NumericFloat(_, N::SortWithIndices(op)) => op.out_indices.dtype = F32, "is f32";
        O::NumericFloat(_, N::Pad(op)) => op.padding.truncate(2), "`padding` are 2";
        O::NumericFloat(_, N::Pad(op)) => op.padding[0].0 = usize::MAX, "`padding` is";
        O::NumericFloat(_, N::Pad(PadOpIr { mode: mode @ PadModeIr::Constant(_), padding, .. }))
            => { *mode = PadModeIr::Reflect; padding[0].0 = 2; }, "`padding` is [(2, 0)";
        O::NumericInt(_, N::Pad(op))
            => op.mode = PadModeIr::Constant(ScalarIr::Int(i64::MAX)), "`mode` is";
        O::NumericInt(_, N::IntRandom(op))
            => op.distribution = Distribution::Uniform(0.0, 1e20), "`distribution` is";
        O::Int(I::BitwiseLeftShiftScalar(op)) => op.rhs = ScalarIr::Int(32), "of 32 bits";
        O::Int(I::IntoFloat(op)) => op.out.dtype = BOOL, "it must be a float";
        O::Int(I::Matmul(op)) => extents(&mut op.out, &[2, 3, 3]), "it must be [2, 3, 2]";
        O::Bool(BoolOperationIr::IntoInt(op)) => op.out.dtype = F32, "it must be an integer";
        O::Bool(BoolOperationIr::Not(op)) => op.out.dtype = I32, "`out` is i32";
        O::Float(_, F::Exp(op)) => extents(&mut op.out, &[24]), "`out` is [24]";
        O::Float(_, F::IsNan(op)) => op.out.dtype = F32, "it must be a bool";
        O::Float(_, F::IntoInt(op)) => op.out.dtype = F32, "it must be an integer";
        O::Float(_, F::PowfScalar(op)) => op.rhs = ScalarIr::Float(f64::INFINITY), "Float(inf)";
        O::Float(_, F::Matmul(op)) => std::mem::swap(&mut op.lhs, &mut op.rhs), "do not multiply";
        O::Float(_, F::Cross(op)) => op.dim = 2, "must be 3";
        O::Float(_, F::Random(op)) => op.distribution = Distribution::Bernoulli(1.5), "Bernoulli";
        O::Float(_, F::Random(op)) => op.distribution = Distribution::Uniform(1.0, 1.0), "Uniform";
        O::Float(_, F::Random(op)) => op.distribution = Distribution::Normal(0.0, -1.0), "Normal";
        O::Float(_, F::Random(op)) => op.distribution = Distribution::Normal(f64::NAN, 1.0), "NaN";
        O::Float(_, F::GridSample2d(op)) => op.options.mode = InterpolateModeIr::Bicubic, "Bicubic";
        O::Float(_, F::GridSample2d(op)) => std::mem::swap(&mut op.tensor, &mut op.grid), "`grid`";
        O::Activation(A::Relu(op)) => op.out.dtype = DType::F16, "`out` is f16";
        O::Activation(A::ReluBackward(op)) => extents(&mut op.out, &[1]), "`out` is [1]";
        O::Activation(A::LeakyRelu(op)) => op.rhs = ScalarIr::Bool(true), "`rhs`";
        O::Activation(A::PRelu(op)) => std::mem::swap(&mut op.lhs, &mut op.rhs), "`out`";
        O::Activation(A::HardSigmoid(op)) => op.beta = ScalarIr::Float(f64::NAN), "`beta`";
        O::Activation(A::Softmax(op)) => op.axis = 3, "`axis` is 3";
    }
}

#[test]
fn layers() {
    refused! {
        O::Module(M::BatchNorm(op)) => op.epsilon = ScalarIr::Float(f64::NAN), "`epsilon`";
        O::Module(M::BatchNorm(op)) => std::mem::swap(&mut op.x, &mut op.mean), "`x` is [3]";
        O::Module(M::LayerNorm(op)) => op.epsilon = ScalarIr::Float(0.0), "`epsilon` is 0";
        O::Module(M::LayerNorm(op)) => op.gamma = op.input.clone(), "`gamma` is [2, 3, 4]";
        O::Module(M::Linear(op)) => std::mem::swap(&mut op.x, &mut op.weight), "`weight`";
        O::Module(M::LinearXBackward(op)) => extents(&mut op.out, &[2, 3, 5]), "[2, 3, 4]";
        O::Module(M::LinearWeightBackward(op)) => extents(&mut op.out, &[5, 4]), "[4, 5]";
        O::Module(M::LinearBiasBackward(op)) => extents(&mut op.out, &[4]), "[5]";
        O::Module(M::Embedding(op)) => std::mem::swap(&mut op.weights, &mut op.indices), "`weights`";
        O::Module(M::EmbeddingBackward(op)) => extents(&mut op.out, &[5, 4]), "[4, 5]";
        O::Module(M::Attention(op)) => op.value = op.query.clone(), "`value` is [2, 2, 3, 4]";
        O::Module(M::Attention(op)) => op.mask = Some(op.key.clone()), "`mask` is f32";
        O::Module(M::Attention(op)) => op.attn_bias = Some(op.key.clone()), "`attn_bias` is";
        O::Module(M::Attention(op)) => op.options.softcap = Some(ScalarIr::Float(0.0)), "`softcap`";
        O::Module(M::Attention(op)) => op.options.scale = Some(ScalarIr::Int(1)), "`scale`";
        O::Module(M::Conv1d(op)) => op.options.groups = 3, "`groups` is 3";
        O::Module(M::Conv2d(op)) => op.options.groups = 0, "`groups` is 0";
        O::Module(M::Conv2d(op)) => op.options.groups = usize::MAX, "`groups` is";
        O::Module(M::Conv2d(op)) => op.options.stride = [0, 1], "`stride` is [0, 1]";
        O::Module(M::Conv2d(op)) => op.options.dilation = [1, 0], "`dilation` is [1, 0]";
        O::Module(M::Conv2d(op)) => op.options.dilation = [1, 9], "reaches over 19";
        O::Module(M::Conv2d(op)) => op.options.padding[0].1 = usize::MAX, "`padding` is";
        O::Module(M::Conv2d(op)) => op.options.padding = [(65_000, 65_000); 2], "workspace";
        O::Module(M::Conv2d(op)) => op.options.stride = [2, 2], "it must be [2, 5, 4, 3]";
        O::Module(M::Conv2d(op)) => op.bias = Some(op.x.clone()), "`bias` is [2, 4, 7, 6]";
        O::Module(M::Conv2dXBackward(op)) => op.options.stride = [2, 1], "`output_grad`";
        O::Module(M::Conv2dWeightBackward(op)) => extents(&mut op.out, &[5, 4, 9]), "[5, 4, 3, 3]";
        O::Module(M::Conv2dBiasBackward(op)) => op.bias = op.x.clone(), "`bias` is";
        O::Module(M::Conv3d(op)) => op.options.groups = 3, "`groups` is 3";
        O::Module(M::ConvTranspose1d(op)) => op.options.padding_out = [2], "`padding_out` is [2]";
        O::Module(M::ConvTranspose2d(op)) => op.options.padding = [9, 9], "leaves nothing";
        O::Module(M::ConvTranspose2d(op)) => op.options.groups = 3, "`groups` is 3";
        O::Module(M::ConvTranspose2dWeightBackward(op)) => op.options.stride = [3, 1], "`output_grad`";
        O::Module(M::AvgPool1d(op)) => op.kernel_size = 0, "`kernel_size` is [0]";
        O::Module(M::AvgPool2d(op)) => op.stride = [0, 0], "`stride`";
        O::Module(M::AvgPool2d(op)) => op.padding = [2, 0], "`padding` is 2, of a kernel of 3";
        O::Module(M::AvgPool2d(op)) => op.ceil_mode = !op.ceil_mode, "`out` is";
        O::Module(M::MaxPool2d(op)) => op.dilation = [9, 9], "reaches over";
        O::Module(M::MaxPool2dWithIndices(op)) => op.out_indices.dtype = F32, "`indices` is f32";
        O::Module(M::MaxPool2dWithIndicesBackward(op)) => op.stride = [1, 1], "`out` is";
        O::Module(M::AdaptiveAvgPool2d(op)) => op.output_size = [7, 3], "it must be [2, 3, 7, 3]";
        O::Module(M::AdaptiveAvgPool2dBackward(op)) => extents(&mut op.out, &[2, 3]), "`out`";
        O::Module(M::Interpolate(op)) => op.output_size = [3, 10], "it must be [2, 3, 3, 10]";
        O::Module(M::Interpolate(op)) => op.options.mode = InterpolateModeIr::NearestExact, "`mode`";
        O::Module(M::InterpolateBackward(op)) => op.options.mode = InterpolateModeIr::Lanczos3, "`mode`";
        O::Module(M::Unfold4d(op)) => op.kernel_size = [9, 2], "reaches over 9";
        O::Module(M::Unfold4d(op)) => op.options.stride = [2, 2], "it must be";
    }
}

#[test]
fn operations_of_this_format() {
    let int = |v: i64| ScalarIr::Int(v);
    refused! {
        O::Custom(op) => op.id = "kd.conv3d".to_owned(), "the host has no such operation";
        O::Custom(op) => op.scalars[0] = int(2), "`relu` is 2";
        O::Custom(op) => op.scalars[0] = ScalarIr::Bool(true), "`scalars` are";
        O::Custom(op) => op.scalars.truncate(6), "`scalars` are 6";
        O::Custom(op) => op.scalars.truncate(1), "`sizes` have no cells";
        O::Custom(op) => op.scalars[1] = int(-1), "`scalars` are";
        O::Custom(op) => op.scalars[1] = int(0), "`sizes` have no cells";
        O::Custom(op) => op.scalars[1] = int(i64::MAX), "more than can be counted";
        O::Custom(op) => op.scalars[1] = int(3), "`x` is [16, 4], it must be [22, 4]";
        O::Custom(op) => op.inputs.truncate(2), "`inputs` are 2, they must be 3";
        O::Custom(op) => op.outputs.clear(), "`outputs` are 0, they must be 1";
        O::Custom(op) => op.inputs.swap(0, 1), "`x` is [5, 4, 3, 3]";
    }
    let custom = |id: &str, inputs: Vec<TensorIr>, outputs: Vec<TensorIr>, options: [i64; 2]| {
        let sizes = vec![[1, 2, 3]];
        O::Custom(CustomOpIr {
            id: id.to_owned(),
            inputs,
            outputs,
            scalars: ops::Packing { options, sizes }.to_scalars(),
        })
    };
    for (options, text) in [
        ([0, 0], "`wanted` is 0"),
        ([0, 8], "`wanted` is 8"),
        ([1, 1], "`inputs` are 3, they must be 4"),
        ([0, 3], "`outputs` are 1, wanted are 2"),
        ([0, 2], "`dweight` is [6, 4]"),
    ] {
        let found = message(|b| {
            let inputs = vec![b.f32(&[6, 4]), b.f32(&[5, 4, 3, 3]), b.f32(&[6, 5])];
            custom(
                ops::CONV2D_BACKWARD,
                inputs,
                vec![b.tensor(&[6, 4], F32)],
                options,
            )
        });
        assert!(found.contains(text), "{found}");
    }
    let found = message(|b| {
        let inputs = vec![b.f32(&[6, 4]), b.f32(&[5, 4, 2, 2]), b.f32(&[6, 5])];
        custom(
            ops::CONV2D_BACKWARD,
            inputs,
            vec![b.tensor(&[6, 4], F32)],
            [0, 1],
        )
    });
    assert!(found.contains("must be odd"), "{found}");
    for (options, text) in [([2, 0], "`scope` is 2"), ([0, 2], "`relu` is 2")] {
        let found = message(|b| {
            let (x, y) = (b.f32(&[6, 4]), b.tensor(&[6, 4], F32));
            custom(ops::STANDARDIZE, vec![x], vec![y], options)
        });
        assert!(found.contains(text), "{found}");
    }
}

#[test]
fn operations_without_a_rule() {
    let unary = |b: &Build| UnaryOpIr::create(b.f32(&[2]), || b.id());
    let cases: Vec<(&str, String)> = vec![
        (
            "Init",
            message(|b| O::Init(InitOperationIr::create([2].into(), F32, || b.id()))),
        ),
        (
            "BaseInt::Cast",
            message(|b| {
                let x = b.input(&[2], I32);
                O::BaseInt(B::Cast(CastOpIr::create(x, DType::I64, || b.id())))
            }),
        ),
        (
            "BaseBool::Select",
            message(|b| {
                let x = b.input(&[2], BOOL);
                let at = b.indices(&[1]);
                O::BaseBool(B::Select(SelectOpIr::create(x, 0, at, || b.id())))
            }),
        ),
        (
            "BaseFloat::Empty",
            message(|b| O::BaseFloat(B::Empty(CreationOpIr::create([2].into(), F32, || b.id())))),
        ),
        (
            "BaseFloat::GatherNd",
            message(|b| {
                let (x, at) = (b.f32(&[2, 3]), b.indices(&[1, 1]));
                O::BaseFloat(B::GatherNd(GatherNdOpIr::create(x, at, || b.id())))
            }),
        ),
        (
            "NumericInt::ArgMax",
            message(|b| {
                let x = b.input(&[2], I32);
                O::NumericInt(I32, N::ArgMax(ReduceDimOpIr::create(x, 0, 1, || b.id())))
            }),
        ),
        (
            "Float::Dequantize",
            message(|b| {
                let x = b.f32(&[2]);
                O::Float(
                    F32,
                    F::Dequantize(DequantizeOpIr::create(x, F32, || b.id())),
                )
            }),
        ),
        (
            "BaseInt::Reshape",
            message(|b| {
                let x = b.f32(&[2]);
                O::BaseInt(B::Reshape(ShapeOpIr::reshape(x, [2, 1].into(), || b.id())))
            }),
        ),
        (
            "Float::Exp",
            message(|b| {
                let out = TensorIr {
                    shape: [0].into(),
                    ..b.tensor(&[1], F32)
                };
                O::Float(F32, F::Exp(UnaryOpIr { out, ..unary(b) }))
            }),
        ),
        (
            "NumericFloat::Max",
            message(|b| {
                let x = b.f32(&[0, 3]);
                O::NumericFloat(F32, N::Max(ReduceOpIr::create(x, || b.id())))
            }),
        ),
    ];
    for (name, found) in cases {
        assert!(
            found.starts_with(&format!("operation 0 ({name})")),
            "{found}"
        );
    }
    let mut program = seeds::training();
    let dropped = program.operations[0].outputs().next().cloned().unwrap();
    program.operations.push(O::Drop(dropped));
    let found = check_own(&program, &Limits::default())
        .unwrap_err()
        .to_string();
    assert!(found.contains("(Drop): not supported"), "{found}");
}
