//! Feature distillation: the student's maps, enlarged, against the teacher's.

use kd_plugin::burn::tensor::Tensor;
use kd_plugin::{
    Connector, Connectors, Inputs, Levels, MethodError, ResizeGrid, Role, TapInfo, Taps,
    resize_bilinear_on,
};

use crate::options::{Config, Mode, Reduction};
use crate::padding::{Frame, mask};
use crate::task::Task;

/// Added to a deviation.
const DEVIATION_EPS: f64 = 1e-6;
/// Least variance that has a root.
const LEAST_VARIANCE: f64 = 1e-12;

/// Names of the maps that are compared, the same in student and teacher; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features(Vec<String>);

impl Features {
    /// Those that the options choose.
    ///
    /// # Errors
    /// If the student or the teacher lacks one, or their channels differ and no adapter is allowed.
    pub fn of(config: &Config, task: Task, taps: &Taps) -> Result<Self, MethodError> {
        let patterns = patterns(config, task);
        let is_chosen = |tap: &&TapInfo| {
            let fits = patterns.iter().any(|pattern| covers(pattern, &tap.name));
            tap.role == Role::Student && is_feature(&tap.name) && fits
        };
        let students: Vec<&TapInfo> = taps.iter().filter(is_chosen).collect();
        for pattern in &patterns {
            if !students.iter().any(|tap| covers(pattern, &tap.name)) {
                return Err(no_such_tap(pattern, taps));
            }
        }
        for student in &students {
            let teacher = taps.teacher(&student.name)?;
            let channels = [student.channels()?, teacher.channels()?];
            if channels[0] != channels[1] && config.adapter == Connectors::Never {
                return Err(MethodError::shape(format!(
                    "`{}` has {} channels in the student and {} in the teacher; `fkd` compares channel by \
                     channel: give both the same width, or set `adapter = \"auto\"`",
                    student.name, channels[0], channels[1]
                )));
            }
        }
        Ok(Features(
            students.iter().map(|tap| tap.name.clone()).collect(),
        ))
    }

    /// Whether the tap of this name is one.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|known| known == name)
    }

    /// Their adapters, where needed.
    ///
    /// # Errors
    /// If a tap has no fixed number of channels.
    pub fn adapters(
        &self,
        config: &Config,
        taps: &Taps,
        device: &kd_plugin::burn::tensor::Device,
    ) -> Result<Levels<Connector>, MethodError> {
        let pair = |name: &String| Ok((taps.student(name)?, taps.teacher(name)?));
        let pairs = self
            .0
            .iter()
            .map(pair)
            .collect::<Result<_, MethodError>>()?;
        config.adapter.plan_pairs(pairs, device)
    }

    /// `loss_fkd`: for each pair the student's map, adapted, enlarged to the teacher's size, against it.
    ///
    /// # Errors
    /// If a student's map is larger than the teacher's.
    pub fn loss(
        &self,
        config: &Config,
        task: Task,
        adapters: &Levels<Connector>,
        inputs: &Inputs<'_>,
        frame: Option<&Frame>,
    ) -> Result<Tensor<1>, MethodError> {
        let grid = match task {
            Task::Detection => ResizeGrid::Cells(config.k),
            Task::Classification | Task::Segmentation => ResizeGrid::Corners,
        };
        let mut total = Tensor::zeros([1], &inputs.device());
        for name in &self.0 {
            let (student, teacher) = (inputs.student(name)?, inputs.teacher(name)?);
            let ([_, _, h, w], [n, _, height, width]) = (student.dims(), teacher.dims());
            if h > height || w > width {
                return Err(MethodError::shape(format!(
                    "`{name}`: the student's map is {h} x {w}, the teacher's {height} x {width}; the \
                     teacher must see images at least as large as the student's"
                )));
            }
            let student = match adapters.get(name) {
                Some(adapter) => adapter.forward(student),
                None => student,
            };
            let student = resize_bilinear_on(student, [height, width], grid);
            if student.dims() != teacher.dims() || n == 0 {
                return Err(MethodError::shape(format!(
                    "`{name}`: student {:?}, teacher {:?} (both at the teacher's size); `fkd` compares \
                     channel by channel",
                    student.dims(),
                    teacher.dims()
                )));
            }
            let mask = mask(frame, &teacher);
            total = total
                + match config.standardises(task) {
                    true => standardised(student, teacher, mask),
                    false => mean_square(student - teacher, mask),
                };
        }
        Ok(match config.fkd_reduction {
            Reduction::Mean => total / self.0.len() as f64,
            Reduction::Sum => total,
        })
    }
}

/// Whether the bound student and teacher are the ones between which features are compared, which holds
/// in every stage of a detector and in a single stage; the model's compression of others has two
/// architectures, and features do not count there.
#[must_use]
pub fn must_fit(config: &Config, task: Task) -> bool {
    config.mode == Mode::Vanilla || task == Task::Detection
}

/// Mean of squares over channels and the cells where `mask` is 1.
///
/// # Shapes
/// - `x`: `[N, C, H, W]`; `mask`: `[N, 1, H, W]`; result: `[1]`
#[must_use]
pub fn mean_square(x: Tensor<4>, mask: Tensor<4>) -> Tensor<1> {
    let channels = x.dims()[1] as f64;
    let count = (mask.clone().sum() * channels).clamp_min(1.0);
    (x.square() * mask).sum() / count
}

/// PKD (arXiv 2207.02039): half of [`mean_square`] between maps whose channels have mean 0 and deviation
/// 1 over the batch's cells where `mask` is 1. `(x − mean) / (deviation + 1e-6)`, the deviation unbiased.
#[must_use]
pub fn standardised(student: Tensor<4>, teacher: Tensor<4>, mask: Tensor<4>) -> Tensor<1> {
    let cells = mask.clone().sum().reshape([1, 1, 1, 1]);
    let over_cells = |x: Tensor<4>| x.sum_dim(3).sum_dim(2).sum_dim(0);
    let standardise = |x: Tensor<4>| {
        let mean = over_cells(x.clone() * mask.clone()) / cells.clone().clamp_min(1.0);
        let centred = (x - mean) * mask.clone();
        let square = over_cells(centred.clone().square());
        let variance = square / (cells.clone() - 1.0).clamp_min(1.0);
        centred / (variance.clamp_min(LEAST_VARIANCE).sqrt() + DEVIATION_EPS)
    };
    mean_square(standardise(student) - standardise(teacher), mask.clone()) * 0.5
}

fn patterns(config: &Config, task: Task) -> Vec<String> {
    if !config.fkd_taps.is_empty() {
        return config.fkd_taps.clone();
    }
    let all = match task {
        Task::Detection => "neck.*",
        Task::Classification | Task::Segmentation => "backbone.*",
    };
    vec![all.to_owned()]
}

/// Whether every pattern of the user is one of a tap that student or teacher has: a misspelt one is found
/// before the stage that reads it.
///
/// # Errors
/// If not.
pub fn check_names(config: &Config, taps: &Taps) -> Result<(), MethodError> {
    let known = |pattern: &String| {
        (taps.iter()).any(|tap| is_feature(&tap.name) && covers(pattern, &tap.name))
    };
    match config.fkd_taps.iter().find(|pattern| !known(pattern)) {
        Some(pattern) => Err(no_such_tap(pattern, taps)),
        None => Ok(()),
    }
}

fn no_such_tap(pattern: &str, taps: &Taps) -> MethodError {
    let bound = taps.iter().filter(|tap| tap.role == Role::Student);
    let names: Vec<&str> = (bound.map(|tap| tap.name.as_str()))
        .filter(|name| is_feature(name))
        .collect();
    MethodError::config(format!(
        "`fkd` compares the student's taps `{pattern}`, and it has none; there are: [{}]; name some in \
         `fkd_taps`",
        names.join(", ")
    ))
}

/// Whether the tap is one that features are taken from.
fn is_feature(name: &str) -> bool {
    name.starts_with("neck.") || name.starts_with("backbone.") || name == "feat.last"
}

/// Whether `pattern`, a name or a beginning before `*`, covers `name`.
fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    }
}
