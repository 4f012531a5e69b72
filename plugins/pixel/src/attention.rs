//! Attention weights of ViT at two resolutions: both axes of tokens are grids, and are enlarged as such.

use kd_plugin::burn::tensor::Tensor;
use kd_plugin::{Inputs, MethodError, ResizeGrid, Role, TapInfo, Taps};

/// Beginning of the taps: `attn.b1`, …, `[N, heads, T, T]`, the class token first.
const ATTENTION: &str = "attn.";
/// Beginning of those that show the tokens' grid, `[N, D, h, w]`.
const BLOCK: &str = "backbone.";
/// A row of attention weights sums to 1; what is left without the class token is at least this.
const LEAST_SUM: f64 = 1e-12;

/// Blocks whose attention is compared: `b1`, …; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks(Vec<String>);

impl Blocks {
    /// The student's.
    ///
    /// # Errors
    /// If it has none, or the teacher's differ in number of heads, or lack one.
    pub fn of(taps: &Taps) -> Result<Self, MethodError> {
        let is_attention =
            |tap: &&TapInfo| tap.role == Role::Student && tap.name.starts_with(ATTENTION);
        let students: Vec<&TapInfo> = taps.iter().filter(is_attention).collect();
        if students.is_empty() {
            return Err(none());
        }
        for student in &students {
            let teacher = taps.teacher(&student.name)?;
            let heads = [student.channels()?, teacher.channels()?];
            if heads[0] != heads[1] {
                return Err(MethodError::shape(format!(
                    "`{}` has {} heads in the student and {} in the teacher; `attn_weight` compares them \
                     one by one: take equal ones, or set it to 0",
                    student.name, heads[0], heads[1]
                )));
            }
        }
        let block = |tap: &&TapInfo| tap.name[ATTENTION.len()..].to_owned();
        Ok(Blocks(students.iter().map(block).collect()))
    }

    /// Whether the tap of this name is read.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let block = (name.strip_prefix(ATTENTION)).or_else(|| name.strip_prefix(BLOCK));
        block.is_some_and(|block| self.0.iter().any(|known| known == block))
    }

    /// `loss_attn`: mean over blocks of [`distance`].
    ///
    /// # Errors
    /// If tokens are not a grid and a class token.
    pub fn loss(&self, inputs: &Inputs<'_>) -> Result<Tensor<1>, MethodError> {
        let mut total = Tensor::zeros([1], &inputs.device());
        for block in &self.0 {
            let (attention, map) = (format!("{ATTENTION}{block}"), format!("{BLOCK}{block}"));
            let of_student = (inputs.student(&attention)?, inputs.student(&map)?);
            let of_teacher = (inputs.teacher(&attention)?, inputs.teacher(&map)?);
            for (weights, map) in [&of_student, &of_teacher] {
                let ([_, _, _, tokens], [_, _, h, w]) = (weights.dims(), map.dims());
                if tokens != h * w + 1 {
                    return Err(MethodError::shape(format!(
                        "`{attention}` has {tokens} tokens, `{map}` {h} x {w} cells; with the class token \
                         there must be one token more than cells",
                        map = format_args!("{BLOCK}{block}")
                    )));
                }
            }
            let size = |map: &Tensor<4>| [map.dims()[2], map.dims()[3]];
            let grids = [size(&of_student.1), size(&of_teacher.1)];
            total = total + distance(of_student.0, of_teacher.0, grids);
        }
        Ok(total / self.0.len() as f64)
    }
}

/// Whether a model has attention weights at all.
///
/// # Errors
/// If neither student nor teacher has.
pub fn check(taps: &Taps) -> Result<(), MethodError> {
    match taps.iter().any(|tap| tap.name.starts_with(ATTENTION)) {
        true => Ok(()),
        false => Err(none()),
    }
}

fn none() -> MethodError {
    MethodError::config(
        "`attn_weight` compares the student's taps `attn.*`, and it has none: only ViT does; set it to 0",
    )
}

/// Squared distance of two rows of attention weights, summed over keys, mean over images, heads and
/// queries; without the class token, rows scaled to sum 1, the student's weights enlarged to the teacher's
/// grid along queries and keys.
///
/// # Shapes
/// - `student`: `[N, heads, 1 + hw, 1 + hw]`; `teacher`: `[N, heads, 1 + HW, 1 + HW]`
/// - `grids`: `[[h, w], [H, W]]`
/// - result: `[1]`
#[must_use]
pub fn distance(student: Tensor<4>, teacher: Tensor<4>, grids: [[usize; 2]; 2]) -> Tensor<1> {
    let without_class = |x: Tensor<4>| -> Tensor<3> {
        let [n, heads, tokens, _] = x.dims();
        let grid = x.narrow(2, 1, tokens - 1).narrow(3, 1, tokens - 1);
        grid.reshape([n * heads, tokens - 1, tokens - 1])
    };
    let to_one = |x: Tensor<3>| x.clone() / x.sum_dim(2).clamp_min(LEAST_SUM);
    let [from, to] = grids;
    let mut student = without_class(student);
    if from != to {
        let device = student.device().without_autodiff();
        let along = |axis: usize| ResizeGrid::Corners.weights(from[axis], to[axis], &device);
        let (rows, columns) = (along(0), along(1));
        // Kronecker product, [H W, h w].
        let both: Tensor<4> =
            rows.reshape([to[0], 1, from[0], 1]) * columns.reshape([1, to[1], 1, from[1]]);
        let both: Tensor<3> = both.reshape([1, to[0] * to[1], from[0] * from[1]]);
        student = both.clone().matmul(student).matmul(both.transpose());
    }
    let difference = to_one(student) - to_one(without_class(teacher));
    difference.square().sum_dim(2).mean()
}
