//! Where the student follows the teacher: where the teacher is better. Constant.

use kd_plugin::burn::tensor::Tensor;
use kd_plugin::burn::tensor::activation::sigmoid;
use kd_plugin::{Inputs, MethodError, Surprise};

use crate::locations::{Locations, fits};
use crate::options::{BetterBy, Config, GateKind, GateOn};

/// What the gate decided, `[N, L]` each.
#[derive(Clone, Debug)]
pub struct Gate {
    /// How far foreground follows the teacher, in [0, 1].
    pub fg: Tensor<2>,
    /// How far background does.
    pub bg: Tensor<2>,
    /// 1 where the teacher is strictly better, whatever the options.
    pub teacher_better: Tensor<2>,
}

impl Gate {
    /// From what both are worth at each location.
    ///
    /// # Errors
    /// If a target is missing or does not fit.
    pub fn new(
        config: &Config,
        inputs: &Inputs<'_>,
        locations: &Locations,
        student: &Surprise,
        teacher: &Surprise,
    ) -> Result<Self, MethodError> {
        let of_student = price(config, inputs, locations, student, "student")?;
        let of_teacher = price(config, inputs, locations, teacher, "teacher")?;
        let teacher_better = of_teacher.clone().lower(of_student.clone()).float();
        let [images, count] = of_student.dims();
        let gate = match config.gate {
            GateKind::Location if config.margin == 0.0 => teacher_better.clone(),
            GateKind::Location => of_teacher.lower(of_student - config.margin).float(),
            GateKind::Soft => {
                sigmoid((of_student - of_teacher - config.margin) / config.soft_scale)
            }
            GateKind::Image => {
                let (student, teacher) = (of_student.sum_dim(1), of_teacher.sum_dim(1));
                let better = teacher.lower(student - config.margin).float();
                better.expand([images, count])
            }
            GateKind::Off => teacher_better.ones_like(),
        };
        let (fg, bg) = match config.gate_on {
            GateOn::Both => (gate.clone(), gate),
            GateOn::Fg => (gate.clone(), gate.ones_like()),
            GateOn::Bg => (gate.ones_like(), gate),
        };
        Ok(Gate {
            fg,
            bg,
            teacher_better,
        })
    }
}

/// What one network pays at each location, `[N, L]`; 0 where it is neither foreground nor background.
fn price(
    config: &Config,
    inputs: &Inputs<'_>,
    locations: &Locations,
    of: &Surprise,
    who: &str,
) -> Result<Tensor<2>, MethodError> {
    let at_bg = || {
        let price: Tensor<2> = of.if_absent.clone().sum_dim(2).squeeze_dim(2);
        price * locations.bg.clone()
    };
    let at_fg = || {
        let class = locations.classes.clone().unsqueeze_dim::<3>(2);
        let price: Tensor<2> = of.if_present.clone().gather(2, class).squeeze_dim(2);
        price * locations.fg.clone()
    };
    let box_error = || locations.box_error(inputs, &format!("{who}.boxes_xyxy"));
    let price = match config.better_by {
        BetterBy::Score => at_fg() + at_bg(),
        BetterBy::Iou => box_error()? + at_bg(),
        BetterBy::TaskLoss => {
            let name = format!("{who}.task_loss");
            let loss: Tensor<2> = inputs.target(&name)?;
            fits(&name, loss.dims(), locations.fg.dims())?;
            loss * (locations.fg.clone() + locations.bg.clone())
        }
    };
    match config.gate_box {
        true => Ok(price + box_error()?),
        false => Ok(price),
    }
}
