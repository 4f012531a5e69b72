//! Layers: indices into the weight slice, and how to run with them.

use burn::tensor::Tensor;

use super::ops::{self, Activation, ConvOptions2d};
use super::pass::Pass;
use super::{BatchStats, Init, ParamKind, ParamSpec, Part};
use crate::config::NormKind;
use crate::kernels::conv::Window;
use crate::maps::Maps;

/// A 2-D convolution.
#[derive(Clone, Debug)]
pub(super) struct Conv {
    weight: usize,
    bias: Option<usize>,
    /// `[out, in / groups, kernel, kernel]`.
    shape: [usize; 4],
    stride: usize,
    dilation: usize,
    groups: usize,
}

impl Conv {
    /// Maps of `in` channels to `out`, sizes `ceil(H / stride), ceil(W / stride)`; all levels that
    /// share the layer go through it together.
    pub(super) fn forward(&self, pass: &Pass<'_>, x: &Maps, relu: bool) -> Maps {
        let bias = self.bias.map(|index| pass.weight(index));
        ops::conv2d(x, self.kernel(pass), bias, self.options(relu))
    }

    fn options(&self, relu: bool) -> ConvOptions2d {
        let [.., kernel] = self.shape;
        // Half of what the kernel reaches over: only strides change the size of a map.
        let padding = kernel / 2 * self.dilation;
        ConvOptions2d {
            window: Window {
                dilation: [self.dilation; 2],
                ..Window::square(kernel, self.stride, padding)
            },
            groups: self.groups,
            relu,
        }
    }

    fn kernel(&self, pass: &Pass<'_>) -> Tensor<4> {
        pass.weight(self.weight).reshape(self.shape)
    }
}

/// A layer `x Wᵀ + b`.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    weight: usize,
    bias: usize,
    /// `[out, in]`.
    shape: [usize; 2],
}

impl Linear {
    /// `[rows, in]` to `[rows, out]`.
    pub(super) fn forward(&self, pass: &Pass<'_>, x: Tensor<2>) -> Tensor<2> {
        let weight = pass.weight(self.weight).reshape(self.shape);
        ops::linear(x, weight, pass.weight(self.bias))
    }

    /// `[rows, in]` to `count` times `[rows, out / count]`, the outputs in order. Cutting the weight is
    /// cheaper than cutting what comes out.
    pub(super) fn parts<const COUNT: usize>(
        &self,
        pass: &Pass<'_>,
        x: &Tensor<2>,
    ) -> [Tensor<2>; COUNT] {
        let [outputs, inputs] = self.shape;
        let each = outputs / COUNT;
        let (weight, bias) = (pass.weight(self.weight), pass.weight(self.bias));
        std::array::from_fn(|i| {
            let rows = i * each..(i + 1) * each;
            let weight = weight
                .clone()
                .narrow(0, rows.start * inputs, rows.len() * inputs);
            let bias = bias.clone().narrow(0, rows.start, rows.len());
            ops::linear(x.clone(), weight.reshape([each, inputs]), bias)
        })
    }
}

/// Batch normalisation's parameters and buffers.
#[derive(Clone, Debug)]
struct Norm {
    gamma: usize,
    beta: usize,
    mean: usize,
    var: usize,
    kind: NormKind,
}

/// A convolution without bias and the normalisation of its output.
#[derive(Clone, Debug)]
pub(super) struct ConvNorm {
    conv: Conv,
    norm: Norm,
}

impl ConvNorm {
    /// Convolution, normalisation, `residual` if there is one, `activation`. Records the batch's
    /// statistics where they normalise.
    pub(super) fn forward(
        &self,
        pass: &mut Pass<'_>,
        x: &Maps,
        residual: Option<&Maps>,
        activation: Activation,
    ) -> Maps {
        if self.uses_batch_statistics(pass) {
            let y = self.conv.forward(pass, x, false);
            return self.normalise(pass, &y, residual, activation);
        }
        self.forward_folded(pass, x, residual, activation)
    }

    /// [`Self::forward`] without a residual, which offers what the convolution alone gives as the tap
    /// `raw`; `None` if the pass stopped there.
    ///
    /// Where the normalisation is folded into the convolution, that map exists nowhere: a second
    /// convolution makes it for those who ask, so that asking changes no bit of anything else.
    pub(super) fn forward_offering(
        &self,
        raw: &str,
        pass: &mut Pass<'_>,
        x: &Maps,
        activation: Activation,
    ) -> Option<Maps> {
        let normalised_by_batch = self.uses_batch_statistics(pass);
        if normalised_by_batch || pass.wants(raw) {
            let y = self.conv.forward(pass, x, false);
            pass.offer(raw, || y.nchw(0));
            if pass.done() {
                return None;
            }
            if normalised_by_batch {
                return Some(self.normalise(pass, &y, None, activation));
            }
        }
        Some(self.forward_folded(pass, x, None, activation))
    }

    /// Whether the batch's own statistics normalise, and not the running ones.
    fn uses_batch_statistics(&self, pass: &Pass<'_>) -> bool {
        pass.training() && self.norm.kind == NormKind::Batch
    }

    /// What follows the convolution's `y` where the batch's statistics normalise.
    fn normalise(
        &self,
        pass: &mut Pass<'_>,
        y: &Maps,
        residual: Option<&Maps>,
        activation: Activation,
    ) -> Maps {
        let (gamma, beta) = (pass.weight(self.norm.gamma), pass.weight(self.norm.beta));
        let normalized = ops::batch_norm_train(y, gamma, beta, residual, activation);
        pass.record(BatchStats {
            mean_index: self.norm.mean,
            var_index: self.norm.var,
            mean: normalized.mean,
            var: normalized.var,
        });
        normalized.output
    }

    /// Where running statistics normalise.
    fn forward_folded(
        &self,
        pass: &Pass<'_>,
        x: &Maps,
        residual: Option<&Maps>,
        activation: Activation,
    ) -> Maps {
        let (gamma, beta) = (pass.weight(self.norm.gamma), pass.weight(self.norm.beta));
        let (mean, var) = (pass.weight(self.norm.mean), pass.weight(self.norm.var));
        let (scale, shift) = ops::fold_norm(gamma, beta, mean, var);
        let [out, ..] = self.conv.shape;
        let kernel = self.conv.kernel(pass) * scale.reshape([out, 1, 1, 1]);
        let rectified = activation != Activation::None;
        let options = self.conv.options(rectified && residual.is_none());
        let y = ops::conv2d(x, kernel, Some(shift), options);
        let y = match residual {
            Some(residual) if rectified => ops::add_relu(&y, residual),
            Some(residual) => ops::add(&y, residual),
            None => y,
        };
        match activation {
            Activation::Relu6 => ops::capped(&y, activation.bound()),
            Activation::None | Activation::Relu => y,
        }
    }
}

/// Group normalisation (arXiv 1803.08494): no buffers, the same in training and evaluation.
#[derive(Clone, Debug)]
pub(super) struct GroupNorm {
    gamma: usize,
    beta: usize,
    groups: usize,
}

impl GroupNorm {
    /// Every image of every level is normalised by itself; ReLU follows if `relu`.
    pub(super) fn forward(&self, pass: &Pass<'_>, x: &Maps, relu: bool) -> Maps {
        let (gamma, beta) = (pass.weight(self.gamma), pass.weight(self.beta));
        ops::group_norm(x, gamma, beta, self.groups, relu)
    }
}

/// What a convolution looks like.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConvShape {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    /// Cells from one of the kernel's to the next.
    pub(super) dilation: usize,
    /// Groups of channels; as many as channels: depthwise.
    pub(super) groups: usize,
}

impl ConvShape {
    /// A `kernel`×`kernel` convolution that keeps the size of its map.
    pub(super) fn new(inputs: usize, outputs: usize, kernel: usize) -> Self {
        ConvShape {
            inputs,
            outputs,
            kernel,
            stride: 1,
            dilation: 1,
            groups: 1,
        }
    }

    /// PyTorch's own start of a convolution: `kaiming_uniform_` with `a = sqrt(5)`.
    pub(super) fn default_init(&self) -> Init {
        let fan_in = self.inputs / self.groups * self.kernel * self.kernel;
        Init::Uniform {
            bound: (fan_in as f32).sqrt().recip(),
        }
    }
}

/// Where a normalised convolution stands, and how it starts and learns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) part: Part,
    /// Of the convolution; normalisation starts as the identity.
    pub(super) init: Init,
    pub(super) norm: NormKind,
    pub(super) trainable: bool,
}

/// Collects the parameters of an architecture in forward order and hands out their indices.
#[derive(Debug, Default)]
pub(super) struct Builder {
    specs: Vec<ParamSpec>,
}

impl Builder {
    /// A convolution with bias under torchvision's `name`, padded by half its kernel; all biases start
    /// at `bias`.
    pub(super) fn conv(
        &mut self,
        name: &str,
        shape: ConvShape,
        part: Part,
        init: Init,
        bias: f32,
    ) -> Conv {
        self.conv_with_bias(name, shape, part, [init, Init::Constant(bias)])
    }

    /// A convolution with bias as PyTorch starts one: both uniform with bound `1 / sqrt(fan_in)`.
    pub(super) fn default_conv(&mut self, name: &str, shape: ConvShape, part: Part) -> Conv {
        let init = shape.default_init();
        self.conv_with_bias(name, shape, part, [init, init])
    }

    fn conv_with_bias(
        &mut self,
        name: &str,
        shape: ConvShape,
        part: Part,
        [weight, bias]: [Init; 2],
    ) -> Conv {
        let mut conv = self.conv_weight(name, shape, part, weight, true);
        conv.bias = Some(self.push(ParamSpec {
            name: format!("{name}.bias"),
            shape: vec![shape.outputs],
            kind: ParamKind::Bias,
            part,
            init: bias,
            trainable: true,
        }));
        conv
    }

    /// A linear layer of `[out, in]` under `name`, with the start of weight and bias.
    pub(super) fn linear(
        &mut self,
        name: &str,
        shape: [usize; 2],
        part: Part,
        [weight, bias]: [Init; 2],
    ) -> Linear {
        let [outputs, _] = shape;
        let mut entry = |suffix, kind, extents: &[usize], init| {
            self.push(ParamSpec {
                name: format!("{name}.{suffix}"),
                shape: extents.to_vec(),
                kind,
                part,
                init,
                trainable: true,
            })
        };
        Linear {
            weight: entry("weight", ParamKind::Weight, &shape, weight),
            bias: entry("bias", ParamKind::Bias, &[outputs], bias),
            shape,
        }
    }

    /// A linear layer as PyTorch starts one: both uniform with bound `1 / sqrt(in)`.
    pub(super) fn default_linear(&mut self, name: &str, shape: [usize; 2], part: Part) -> Linear {
        let [outputs, inputs] = shape;
        let init = ConvShape::new(inputs, outputs, 1).default_init();
        self.linear(name, shape, part, [init, init])
    }

    /// A convolution `conv` without bias, and the normalisation `norm` of its output.
    pub(super) fn conv_norm(
        &mut self,
        [conv, norm]: [&str; 2],
        shape: ConvShape,
        place: Place,
    ) -> ConvNorm {
        let Place {
            part,
            init,
            norm: kind,
            trainable,
        } = place;
        let conv = self.conv_weight(conv, shape, part, init, trainable);
        let affine = trainable && kind == NormKind::Batch;
        let mut entry = |suffix, kind, start, trainable| {
            self.push(ParamSpec {
                name: format!("{norm}.{suffix}"),
                shape: vec![shape.outputs],
                kind,
                part,
                init: Init::Constant(start),
                trainable,
            })
        };
        let norm = Norm {
            gamma: entry("weight", ParamKind::NormWeight, 1.0, affine),
            beta: entry("bias", ParamKind::NormBias, 0.0, affine),
            mean: entry("running_mean", ParamKind::RunningMean, 0.0, false),
            var: entry("running_var", ParamKind::RunningVar, 1.0, false),
            kind,
        };
        ConvNorm { conv, norm }
    }

    /// Group normalisation of `channels` under torchvision's `name`.
    pub(super) fn group_norm(
        &mut self,
        name: &str,
        channels: usize,
        groups: usize,
        part: Part,
    ) -> GroupNorm {
        let mut entry = |suffix, kind, start| {
            self.push(ParamSpec {
                name: format!("{name}.{suffix}"),
                shape: vec![channels],
                kind,
                part,
                init: Init::Constant(start),
                trainable: true,
            })
        };
        GroupNorm {
            gamma: entry("weight", ParamKind::NormWeight, 1.0),
            beta: entry("bias", ParamKind::NormBias, 0.0),
            groups,
        }
    }

    /// All parameters, in the order of their indices.
    pub(super) fn finish(self) -> Vec<ParamSpec> {
        self.specs
    }

    fn conv_weight(
        &mut self,
        name: &str,
        shape: ConvShape,
        part: Part,
        init: Init,
        trainable: bool,
    ) -> Conv {
        let ConvShape { kernel, groups, .. } = shape;
        let extents = [shape.outputs, shape.inputs / groups, kernel, kernel];
        let weight = self.push(ParamSpec {
            name: format!("{name}.weight"),
            shape: extents.to_vec(),
            kind: ParamKind::Weight,
            part,
            init,
            trainable,
        });
        Conv {
            weight,
            bias: None,
            shape: extents,
            stride: shape.stride,
            dilation: shape.dilation,
            groups,
        }
    }

    /// A parameter of any other kind; gives its index.
    pub(super) fn push(&mut self, spec: ParamSpec) -> usize {
        self.specs.push(spec);
        self.specs.len() - 1
    }
}
