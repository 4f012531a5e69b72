//! Layers in torch's layout, with torch's initial values.

use kd_plugin::burn::module::{Module, Param};
use kd_plugin::burn::nn::Initializer;
use kd_plugin::burn::tensor::ops::{ConvOptions, ConvTransposeOptions};
use kd_plugin::burn::tensor::{Device, Tensor, module};
use kd_plugin::burn::{self};
use kd_plugin::{MapSize, Outputs, Packed, torch_default};

const KERNEL: usize = 3;
/// torch's defaults of BatchNorm.
const EPSILON: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// `torch.nn.Conv2d(c_in, c_out, 3, stride, padding=1)`; the stride is the caller's.
#[derive(Module, Debug)]
pub struct Conv {
    /// `[C_out, C_in, 3, 3]`.
    weight: Param<Tensor<4>>,
    /// `[C_out]`.
    bias: Option<Param<Tensor<1>>>,
}

impl Conv {
    /// Without bias, for a layer before a normalisation.
    #[must_use]
    pub fn without_bias(c_in: usize, c_out: usize, device: &Device) -> Self {
        let uniform = torch_default(c_in * KERNEL * KERNEL);
        Conv {
            weight: uniform.init([c_out, c_in, KERNEL, KERNEL], device),
            bias: None,
        }
    }

    /// With bias.
    #[must_use]
    pub fn new(c_in: usize, c_out: usize, device: &Device) -> Self {
        let uniform = torch_default(c_in * KERNEL * KERNEL);
        Conv {
            weight: uniform.init([c_out, c_in, KERNEL, KERNEL], device),
            bias: Some(uniform.init([c_out], device)),
        }
    }

    /// `[N, C_in, H, W]` to `[N, C_out, ceil(H / stride), ceil(W / stride)]`.
    #[must_use]
    pub fn forward(&self, x: Tensor<4>, stride: usize) -> Tensor<4> {
        let bias = self.bias.as_ref().map(Param::val);
        module::conv2d(x, self.weight.val(), bias, window(stride))
    }

    /// [`Self::forward`] on each level, with the level's stride.
    #[must_use]
    pub fn on_levels(&self, x: &Packed, strides: impl Iterator<Item = usize>) -> Packed {
        let levels = x.unpack().into_iter().zip(strides);
        Packed::pack(levels.map(|(map, stride)| self.forward(map, stride)))
    }
}

fn window(stride: usize) -> ConvOptions<2> {
    ConvOptions::new([stride; 2], [KERNEL / 2; 2], [1; 2], 1)
}

/// `torch.nn.ConvTranspose2d(c_in, c_out, 3, stride, padding=1, output_padding)`, the output padding
/// such that the result has the size that a [`Conv`] of this stride was given.
#[derive(Module, Debug)]
pub struct TransposedConv {
    /// `[C_in, C_out, 3, 3]`.
    weight: Param<Tensor<4>>,
    /// `[C_out]`.
    bias: Option<Param<Tensor<1>>>,
}

impl TransposedConv {
    /// Without bias, for a layer before a normalisation.
    #[must_use]
    pub fn without_bias(c_in: usize, c_out: usize, device: &Device) -> Self {
        TransposedConv {
            // What torch takes for the inputs of a transposed weight.
            weight: torch_default(c_out * KERNEL * KERNEL)
                .init([c_in, c_out, KERNEL, KERNEL], device),
            bias: None,
        }
    }

    /// With bias.
    #[must_use]
    pub fn new(c_in: usize, c_out: usize, device: &Device) -> Self {
        let uniform = torch_default(c_out * KERNEL * KERNEL);
        TransposedConv {
            weight: uniform.init([c_in, c_out, KERNEL, KERNEL], device),
            bias: Some(uniform.init([c_out], device)),
        }
    }

    /// `[N, C_in, h, w]` to `[N, C_out, H, W]`, where `h = ceil(H / stride)` and `w = ceil(W / stride)`.
    #[must_use]
    pub fn forward(&self, x: Tensor<4>, stride: usize, [height, width]: [usize; 2]) -> Tensor<4> {
        let (weight, bias) = (self.weight.val(), self.bias.as_ref().map(Param::val));
        if stride == 1 {
            // The convolution with the mirrored kernel, for which hosts have fast kernels.
            let mirrored = weight.swap_dims(0, 1).flip([2, 3]);
            return module::conv2d(x, mirrored, bias, window(1));
        }
        let [_, _, h, w] = x.dims();
        let out = [
            height - ((h - 1) * stride + 1),
            width - ((w - 1) * stride + 1),
        ];
        let options = ConvTransposeOptions::new([stride; 2], [KERNEL / 2; 2], out, [1; 2], 1);
        module::conv_transpose2d(x, weight, bias, options)
    }

    /// [`Self::forward`] on each level, with the level's stride and size.
    #[must_use]
    pub fn on_levels(
        &self,
        x: &Packed,
        strides: impl Iterator<Item = usize>,
        sizes: &[MapSize],
    ) -> Packed {
        let levels = x.unpack().into_iter().zip(strides).zip(sizes);
        Packed::pack(
            levels.map(|((map, stride), size)| self.forward(map, stride, [size.h, size.w])),
        )
    }
}

/// `torch.nn.BatchNorm2d`; ε = 1e-5, momentum 0.1. Of several levels, the cells of all are one batch.
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// Factor, `[C]`.
    gamma: Param<Tensor<1>>,
    /// Summand, `[C]`.
    beta: Param<Tensor<1>>,
    /// `[C]`; not learned.
    running_mean: Param<Tensor<1>>,
    /// `[C]`; not learned.
    running_var: Param<Tensor<1>>,
}

impl BatchNorm {
    /// Factor 1, summand 0, running mean 0, running variance 1.
    #[must_use]
    pub fn new(channels: usize, device: &Device) -> Self {
        let buffer = |values: Tensor<1>| Param::from_tensor(values).set_require_grad(false);
        BatchNorm {
            gamma: Initializer::Ones.init([channels], device),
            beta: Initializer::Zeros.init([channels], device),
            running_mean: buffer(Tensor::zeros([channels], device)),
            running_var: buffer(Tensor::ones([channels], device)),
        }
    }

    /// With the batch's statistics (biased variance). Their running means, of the unbiased variance as
    /// torch's, go to `statistics` under `path`.
    #[must_use]
    pub fn learn(&self, x: &Packed, path: &str, statistics: &mut NewStatistics) -> Packed {
        let batch = module::batch_norm_train(x.cells(), self.gamma.val(), self.beta.val(), EPSILON);
        let cells = x.cells().dims()[0] as f64;
        // A single cell has no unbiased variance; torch refuses it, here its 0 stays.
        let unbiased = batch.variance * (cells / (cells - 1.0).max(1.0));
        let moved = |running: &Param<Tensor<1>>, of_batch: Tensor<1>| {
            running.val() * (1.0 - MOMENTUM) + of_batch * MOMENTUM
        };
        statistics.0.extend([
            (
                format!("{path}.running_mean"),
                moved(&self.running_mean, batch.mean),
            ),
            (
                format!("{path}.running_var"),
                moved(&self.running_var, unbiased),
            ),
        ]);
        x.with(batch.output)
    }

    /// With the running statistics.
    #[must_use]
    pub fn frozen(&self, x: &Packed) -> Packed {
        x.with(module::batch_norm(
            x.cells(),
            self.gamma.val(),
            self.beta.val(),
            self.running_mean.val(),
            self.running_var.val(),
            EPSILON,
        ))
    }
}

/// Running statistics after this step, by path.
#[derive(Debug, Default)]
pub struct NewStatistics(Vec<(String, Tensor<1>)>);

impl NewStatistics {
    /// Adds them to what the method returns.
    #[must_use]
    pub fn write(self, outputs: Outputs) -> Outputs {
        (self.0.into_iter()).fold(outputs, |outputs, (path, value)| {
            outputs.buffer(&path, value)
        })
    }
}
