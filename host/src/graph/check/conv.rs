//! Rules of convolutions.

use kd_graph::burn_ir::{ModuleOperationIr, TensorIr};

use super::Limits;
use super::rule::{Fault, Kind, MAX_PARAMETER, Rule, dtype, ensure, is, kind, like, shape};
use super::spatial::{Windows, bounded, spatial};

/// The tensors of a convolution, and how many groups of channels it has.
struct Conv<'a, const N: usize> {
    x: &'a TensorIr,
    weight: &'a TensorIr,
    windows: Windows<N>,
    groups: usize,
}

impl<'a, const N: usize> Conv<'a, N> {
    fn new(
        x: &'a TensorIr,
        weight: &'a TensorIr,
        [stride, dilation]: [[usize; N]; 2],
        padding: [(usize, usize); N],
        groups: usize,
    ) -> Result<Self, Fault> {
        kind("x", x, Kind::Float)?;
        dtype("weight", weight, x.dtype)?;
        spatial::<N>("x", &x.shape)?;
        let windows = Windows {
            kernel: spatial("weight", &weight.shape)?,
            stride,
            padding,
            dilation,
        };
        Ok(Conv {
            x,
            weight,
            windows,
            groups,
        })
    }

    /// Both channel counts split into the groups: `count` of `whole` channels.
    fn check_groups(&self, splits: [usize; 2]) -> Rule {
        let groups = self.groups;
        let split = groups >= 1 && splits.iter().all(|count| count.is_multiple_of(groups));
        ensure(split, "groups", || {
            format!("is {groups}, of {} and {}", self.x.shape, self.weight.shape)
        })
    }

    /// Shape of the result; weights are `[out, in / groups, ...]`.
    fn out(&self, limits: &Limits) -> Result<Vec<usize>, Fault> {
        let (batch, channels) = (self.x.shape[0], self.x.shape[1]);
        let out_channels = self.weight.shape[0];
        self.check_groups([channels, out_channels])?;
        let mut expected = self.weight.shape.to_vec();
        expected[1] = channels / self.groups;
        shape("weight", self.weight, &expected)?;

        let counts = (self.windows).count(spatial("x", &self.x.shape)?)?;
        let mut padded = vec![batch, channels];
        for (dim, (before, after)) in self.windows.padding.iter().enumerate() {
            padded.push(self.x.shape[dim + 2] + before + after);
        }
        bounded("padding", &padded, limits)?;
        Ok([&[batch, out_channels], counts.as_slice()].concat())
    }

    /// Shape of the result of the transposed convolution; weights are `[in, out / groups, ...]`.
    fn transposed_out(
        &self,
        padding_out: [usize; N],
        limits: &Limits,
    ) -> Result<Vec<usize>, Fault> {
        let windows = &self.windows;
        windows.check_parameters()?;
        let (batch, channels) = (self.x.shape[0], self.x.shape[1]);
        self.check_groups([channels, channels])?;
        let mut expected = self.weight.shape.to_vec();
        expected[0] = channels;
        shape("weight", self.weight, &expected)?;

        // No overflow: extents are bounded by the limits and parameters by theirs.
        let out_channels = self.weight.shape[1] * self.groups;
        let mut out = vec![batch, out_channels];
        let mut columns = vec![out_channels];
        for dim in 0..N {
            let (extent, extra) = (self.x.shape[dim + 2], padding_out[dim]);
            // As in torch: a result that no window reaches is no convolution's input.
            let below = windows.stride[dim].max(windows.dilation[dim]);
            ensure(
                extra < below && extra <= MAX_PARAMETER,
                "padding_out",
                || format!("is {padding_out:?}, stride and dilation reach to {below}"),
            )?;
            let whole = (extent - 1) * windows.stride[dim] + windows.reach(dim) + extra;
            let cut = 2 * windows.padding[dim].0;
            ensure(whole > cut, "padding", || {
                format!("is {:?}, which leaves nothing of {whole}", windows.padding)
            })?;
            out.push(whole - cut);
            columns.extend([extent, windows.kernel[dim]]);
        }
        bounded("kernel_size", &columns, limits)?;
        Ok(out)
    }

    fn check_bias(&self, bias: Option<&TensorIr>, channels: usize) -> Rule {
        bias.map_or(Ok(()), |bias| is("bias", bias, &[channels], self.x.dtype))
    }

    fn check_out(&self, what: &'static str, out: &TensorIr, expected: &[usize]) -> Rule {
        is(what, out, expected, self.x.dtype)
    }
}

/// The rule of a convolution; `None` if it is none.
pub(super) fn rule(op: &ModuleOperationIr, limits: &Limits) -> Option<Rule> {
    use ModuleOperationIr as M;
    // Options of one convolution as `Conv::new` takes them.
    macro_rules! conv {
        ($op:expr, $padding:expr) => {{
            let o = &$op.options;
            Conv::new(
                &$op.x,
                &$op.weight,
                [o.stride, o.dilation],
                $padding,
                o.groups,
            )
        }};
    }
    macro_rules! forward {
        ($op:expr, $padding:expr) => {
            conv!($op, $padding).and_then(|conv| {
                let out = conv.out(limits)?;
                conv.check_bias($op.bias.as_ref(), out[1])?;
                conv.check_out("out", &$op.out, &out)
            })
        };
    }
    macro_rules! backward {
        ($op:expr, $padding:expr, $of:ident) => {
            conv!($op, $padding).and_then(|conv| {
                let out = conv.out(limits)?;
                conv.check_out("output_grad", &$op.output_grad, &out)?;
                like("out", &$op.out, &$op.$of)
            })
        };
    }
    macro_rules! transposed {
        ($op:expr) => {
            conv!($op, $op.options.padding.map(|p| (p, p))).and_then(|conv| {
                let out = conv.transposed_out($op.options.padding_out, limits)?;
                conv.check_bias($op.bias.as_ref(), out[1])?;
                conv.check_out("out", &$op.out, &out)
            })
        };
    }
    macro_rules! transposed_weight {
        ($op:expr) => {
            conv!($op, $op.options.padding.map(|p| (p, p))).and_then(|conv| {
                let out = conv.transposed_out($op.options.padding_out, limits)?;
                conv.check_out("output_grad", &$op.output_grad, &out)?;
                like("out", &$op.out, &$op.weight)
            })
        };
    }
    macro_rules! bias {
        ($op:expr, $rank:expr) => {
            bias_backward([&$op.x, &$op.bias, &$op.output_grad, &$op.out], $rank)
        };
    }
    Some(match op {
        M::Conv1d(op) => forward!(op, op.options.padding),
        M::Conv2d(op) => forward!(op, op.options.padding),
        M::Conv3d(op) => forward!(op, op.options.padding.map(|p| (p, p))),
        M::Conv1dXBackward(op) => backward!(op, op.options.padding, x),
        M::Conv2dXBackward(op) => backward!(op, op.options.padding, x),
        M::Conv3dXBackward(op) => backward!(op, op.options.padding.map(|p| (p, p)), x),
        M::Conv1dWeightBackward(op) => backward!(op, op.options.padding, weight),
        M::Conv2dWeightBackward(op) => backward!(op, op.options.padding, weight),
        M::Conv3dWeightBackward(op) => backward!(op, op.options.padding.map(|p| (p, p)), weight),
        M::Conv1dBiasBackward(op) => bias!(op, 3),
        M::Conv2dBiasBackward(op) => bias!(op, 4),
        M::Conv3dBiasBackward(op) => bias!(op, 5),
        M::ConvTranspose1d(op) => transposed!(op),
        M::ConvTranspose2d(op) => transposed!(op),
        M::ConvTranspose3d(op) => transposed!(op),
        M::ConvTranspose1dWeightBackward(op) => transposed_weight!(op),
        M::ConvTranspose2dWeightBackward(op) => transposed_weight!(op),
        M::ConvTranspose3dWeightBackward(op) => transposed_weight!(op),
        M::ConvTranspose1dBiasBackward(op) => bias!(op, 3),
        M::ConvTranspose2dBiasBackward(op) => bias!(op, 4),
        M::ConvTranspose3dBiasBackward(op) => bias!(op, 5),
        M::DeformableConv2d(_) | M::DeformableConv2dBackward(_) => {
            Err(Fault::Unsupported("use GridSample2d"))
        }
        _ => return None,
    })
}

/// The sum of a gradient over all but the channels.
fn bias_backward([x, bias, grad, out]: [&TensorIr; 4], rank: usize) -> Rule {
    kind("x", x, Kind::Float)?;
    super::rule::rank("x", x, rank)?;
    super::rule::rank("output_grad", grad, rank)?;
    dtype("output_grad", grad, x.dtype)?;
    let [batch, channels] = [x.shape[0], grad.shape[1]];
    ensure(grad.shape[0] == batch, "output_grad", || {
        format!("is {}, of {}", grad.shape, x.shape)
    })?;
    is("bias", bias, &[channels], x.dtype)?;
    like("out", out, bias)
}
