//! `kdhost bench op`.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use burn::tensor::{Device, Distribution, Tensor};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::{follow, json};
use crate::distill::inject::inject;
use crate::exit_code;
use crate::kernels::conv::Window;
use crate::kernels::focal::{Anchors, BACKGROUND, Focal, focal_loss};
use crate::maps::{Maps, Segment};
use crate::model::ops::{self, Activation, ConvOptions2d};

/// Arguments of `bench op`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Every line of standard input is an operation, for example
  {\"op\":\"conv2d\",\"x\":[1,64,160,160],\"out_channels\":64,\"kernel\":3,\"padding\":1}
and is answered by one line with the times of its forward and backward pass in milliseconds.
`tests/bench/side_by_side.py` asks this way, and compares with PyTorch.")]
pub struct OpArgs {
    /// Answer standard input; the only way so far.
    #[arg(long, required = true)]
    pub follow: bool,
}

/// An operation and its extents; `x` is `[N, C, H, W]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Spec {
    Conv2d {
        x: [usize; 4],
        out_channels: usize,
        kernel: usize,
        #[serde(default = "one")]
        stride: usize,
        #[serde(default)]
        padding: usize,
        #[serde(default = "one")]
        dilation: usize,
        #[serde(default = "one")]
        groups: usize,
        #[serde(default = "yes")]
        input_gradient: bool,
    },
    BatchNorm {
        x: [usize; 4],
    },
    MaxPool {
        x: [usize; 4],
    },
    Interpolate {
        x: [usize; 4],
        size: [usize; 2],
    },
    FocalLoss {
        x: [usize; 4],
        num_classes: usize,
    },
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

#[derive(Serialize)]
struct Times {
    forward_ms: f64,
    backward_ms: f64,
}

/// Times operations.
///
/// # Errors
/// If a line is no operation.
pub fn run(_: &OpArgs) -> anyhow::Result<i32> {
    let mut current: Option<(Spec, Op)> = None;
    follow(|line| {
        let spec: Spec = serde_json::from_str(line).with_context(|| {
            format!("`{line}` is no operation; `kdhost bench op --help` shows one")
        })?;
        if current.as_ref().is_none_or(|(known, _)| *known != spec) {
            let op = Op::new(&spec)?;
            current = Some((spec, op));
        }
        let (_, op) = current.as_mut().expect("set above");
        Ok(json(&op.time()))
    })?;
    Ok(exit_code::OK)
}

/// An operation with its inputs.
enum Op {
    Maps {
        forward: Box<dyn Fn() -> Maps>,
        upstream: Tensor<2>,
    },
    Focal {
        focal: Focal,
        logits: Vec<f32>,
        classes: Vec<i32>,
    },
}

fn random(cells: usize, channels: usize, leaf: bool) -> Tensor<2> {
    let normal = Distribution::Normal(0.0, 1.0);
    let x = Tensor::random([cells, channels], normal, &Device::flex());
    if leaf { x.autodiff().require_grad() } else { x }
}

fn maps([n, c, h, w]: [usize; 4], leaf: bool) -> Maps {
    Maps::new(random(n * h * w, c, leaf), [Segment::new(n, h, w)])
}

impl Op {
    fn new(spec: &Spec) -> anyhow::Result<Self> {
        let forward: Box<dyn Fn() -> Maps> = match *spec {
            Spec::Conv2d {
                x,
                out_channels,
                kernel,
                stride,
                padding,
                dilation,
                groups,
                input_gradient,
            } => {
                let channels = x[1];
                ensure!(
                    groups > 0 && channels % groups == 0 && out_channels % groups == 0,
                    "groups {groups} do not divide {channels} and {out_channels} channels"
                );
                let weight = random(out_channels * channels / groups, kernel * kernel, true);
                let x = maps(x, input_gradient);
                let options = ConvOptions2d {
                    window: Window {
                        kernel: [kernel; 2],
                        stride: [stride; 2],
                        padding: [padding; 2],
                        dilation: [dilation; 2],
                    },
                    groups,
                    relu: false,
                };
                let shape = [out_channels, channels / groups, kernel, kernel];
                Box::new(move || ops::conv2d(&x, weight.clone().reshape(shape), None, options))
            }
            Spec::BatchNorm { x } => {
                let parameter = || {
                    random(1, x[1], false)
                        .reshape([x[1]])
                        .autodiff()
                        .require_grad()
                };
                let (gamma, beta) = (parameter(), parameter());
                let x = maps(x, true);
                Box::new(move || {
                    let (gamma, beta) = (gamma.clone(), beta.clone());
                    ops::batch_norm_train(&x, gamma, beta, None, Activation::None).output
                })
            }
            Spec::MaxPool { x } => {
                let x = maps(x, true);
                Box::new(move || ops::max_pool_3x3_s2(&x))
            }
            Spec::Interpolate { x, size } => {
                let [n, c, ..] = x;
                let fine = maps([n, c, size[0], size[1]], false);
                let x = maps(x, true);
                Box::new(move || ops::upsample_add(&fine, &x))
            }
            Spec::FocalLoss {
                x: [n, c, h, w],
                num_classes,
            } => {
                ensure!(
                    num_classes > 0 && c % num_classes == 0,
                    "{c} channels are no multiple of {num_classes} classes"
                );
                let anchors = c / num_classes * h * w;
                let class = |i: usize| match i % 100 {
                    0 => (i % num_classes) as i32,
                    _ => BACKGROUND,
                };
                let logits = random(n * h * w, c, false).into_data();
                return Ok(Op::Focal {
                    focal: Focal {
                        num_classes,
                        foreground: 0.25,
                        background: 0.75,
                        gamma: 2.0,
                    },
                    logits: logits.try_into_vec().expect("drawn as f32"),
                    classes: (0..n).flat_map(|_| (0..anchors).map(class)).collect(),
                });
            }
        };
        let [cells, channels] = forward().cells().dims();
        Ok(Op::Maps {
            forward,
            upstream: random(cells, channels, false),
        })
    }

    fn time(&self) -> Times {
        let start = Instant::now();
        match self {
            Op::Maps { forward, upstream } => {
                let y = forward();
                let forward_ms = 1e3 * start.elapsed().as_secs_f64();
                // The gradients of sum(y * upstream), without its arithmetic.
                let loss = inject(y.cells().clone(), upstream.clone());
                drop(y);
                let start = Instant::now();
                let gradients = loss.backward();
                let backward_ms = 1e3 * start.elapsed().as_secs_f64();
                drop(gradients);
                Times {
                    forward_ms,
                    backward_ms,
                }
            }
            Op::Focal {
                focal,
                logits,
                classes,
            } => {
                let weight = 1.0;
                let found = focal_loss(focal, logits, &[Anchors { classes, weight }]);
                std::hint::black_box(found);
                // The gradient comes with the value.
                Times {
                    forward_ms: 1e3 * start.elapsed().as_secs_f64(),
                    backward_ms: 0.0,
                }
            }
        }
    }
}
