//! Exit codes of the binary. 101 is Rust's own: a panic, our bug.

use std::error::Error;
use std::io;

use crate::ab::AbError;
use crate::config::ConfigError;
use crate::data::DatasetError;
use crate::device::DeviceError;
use crate::distill::DistillError;
use crate::engine::EngineError;
use crate::model::ModelError;
use crate::plugin::{PluginCallError, PluginLoadError};
use crate::state::StateError;
use crate::visualize::draw::DrawError;

/// Success.
pub const OK: i32 = 0;
/// The run failed: diverged, non-finite loss.
pub const RUN_FAILED: i32 = 1;
/// Wrong command line or configuration.
pub const USAGE: i32 = 2;
/// A plugin could not be loaded: file, manifest, ABI, layout, table.
pub const PLUGIN_LOAD: i32 = 3;
/// A plugin failed while running: error status, panic, non-finite output.
pub const PLUGIN_RUN: i32 = 4;
/// Data set, checkpoint or another file could not be read or written.
pub const DATA: i32 = 5;
/// Interrupted by Ctrl-C; a checkpoint was written. 128 + SIGINT, as shells have it.
pub const INTERRUPTED: i32 = 130;

/// The code for an error: that of the first one in its chain of causes that has one, and
/// [`RUN_FAILED`] where none has.
#[must_use]
pub fn of(error: &anyhow::Error) -> i32 {
    error.chain().find_map(of_cause).unwrap_or(RUN_FAILED)
}

fn of_cause(error: &(dyn Error + 'static)) -> Option<i32> {
    if let Some(error) = error.downcast_ref::<ConfigError>() {
        return Some(match error {
            ConfigError::Schema { .. } => PLUGIN_LOAD,
            _ => USAGE,
        });
    }
    if let Some(error) = error.downcast_ref::<DeviceError>() {
        return Some(match error {
            DeviceError::Failed { .. } => RUN_FAILED,
            _ => USAGE,
        });
    }
    if error.is::<PluginLoadError>() {
        return Some(PLUGIN_LOAD);
    }
    if let Some(error) = error.downcast_ref::<PluginCallError>() {
        return Some(match error {
            PluginCallError::UnknownMethod { .. } => USAGE,
            _ => PLUGIN_RUN,
        });
    }
    if let Some(error) = error.downcast_ref::<DatasetError>() {
        return Some(match error {
            DatasetError::Config { .. }
            | DatasetError::Unknown { .. }
            | DatasetError::NoImage { .. } => USAGE,
            _ => DATA,
        });
    }
    if let Some(error) = error.downcast_ref::<ModelError>() {
        return Some(match error {
            ModelError::Unknown { .. } | ModelError::Config { .. } => USAGE,
            ModelError::Weights { .. } | ModelError::NoClasses => DATA,
        });
    }
    if error.is::<StateError>() || error.is::<DrawError>() {
        return Some(DATA);
    }
    if let Some(error) = error.downcast_ref::<EngineError>() {
        return of_engine(error);
    }
    if let Some(error) = error.downcast_ref::<AbError>() {
        return of_comparison(error);
    }
    if let Some(error) = error.downcast_ref::<DistillError>() {
        return of_distill(error);
    }
    let io_error = error.downcast_ref::<io::Error>()?;
    Some(match io_error.kind() {
        // The reader of standard output has what it wanted.
        io::ErrorKind::BrokenPipe => OK,
        _ => DATA,
    })
}

fn of_comparison(error: &AbError) -> Option<i32> {
    Some(match error {
        AbError::Spec { .. } | AbError::Unequal { .. } | AbError::Other { .. } => USAGE,
        AbError::Locked { .. } | AbError::File { .. } => DATA,
        AbError::Predictions(_) | AbError::Eval(_) => DATA,
        AbError::Interrupted { .. } => INTERRUPTED,
        AbError::Arm { source, .. } => of_cause(source)?,
        AbError::Config(inner) => of_cause(inner)?,
        AbError::Engine(inner) => of_engine(inner)?,
        AbError::Data(inner) => of_cause(inner)?,
    })
}

/// A transparent error shows its inner error's causes but hides the inner error itself.
fn of_engine(error: &EngineError) -> Option<i32> {
    Some(match error {
        EngineError::Config(inner) => of_cause(inner)?,
        EngineError::Data(inner) => of_cause(inner)?,
        EngineError::Model(inner) => of_cause(inner)?,
        EngineError::Device(inner) => of_cause(inner)?,
        EngineError::Distill(inner) => of_distill(inner)?,
        EngineError::NoBatches { .. }
        | EngineError::NoMaps { .. }
        | EngineError::Choose { .. }
        | EngineError::NoStage { .. }
        | EngineError::OfStages { .. }
        | EngineError::ResumeMismatch { .. }
        | EngineError::UnknownTap { .. } => USAGE,
        EngineError::PluginChanged { .. } => PLUGIN_LOAD,
        EngineError::Interrupted { .. } => INTERRUPTED,
        EngineError::State(_)
        | EngineError::Checkpoint(_)
        | EngineError::RunDir(_)
        | EngineError::Optimizer(_)
        | EngineError::Weights(_)
        | EngineError::Ema(_)
        | EngineError::Metrics(_)
        | EngineError::Eval(_)
        | EngineError::Classes { .. }
        | EngineError::NotExported { .. }
        | EngineError::Case { .. }
        | EngineError::NoTeacher { .. }
        | EngineError::Pretrained { .. }
        | EngineError::Result { .. } => DATA,
        EngineError::Gradient(_)
        | EngineError::Interrupt(_)
        | EngineError::NonFiniteLoss { .. }
        | EngineError::TeacherChanged { .. }
        | EngineError::Gate { .. } => RUN_FAILED,
    })
}

fn of_distill(error: &DistillError) -> Option<i32> {
    Some(match error {
        DistillError::Load(inner) => of_cause(inner)?,
        DistillError::Call(inner) => of_cause(inner)?,
        DistillError::Config(inner) => of_cause(inner)?,
        DistillError::OfEntry { source, .. } | DistillError::Alone { source, .. } => {
            of_distill(source)?
        }
        DistillError::UnusedTap { .. }
        | DistillError::UnknownMethod { .. }
        | DistillError::UnknownLoss { .. }
        | DistillError::Target { .. }
        | DistillError::LossSchedule { .. }
        | DistillError::UnknownRole { .. }
        | DistillError::UnusedRole { .. }
        | DistillError::TwoSchedules { .. }
        | DistillError::Stage { .. }
        | DistillError::SameName { .. } => USAGE,
        DistillError::UnknownTap { .. } | DistillError::UnknownTarget { .. } => PLUGIN_LOAD,
        DistillError::BrokenBuffer { .. }
        | DistillError::Schedule { .. }
        | DistillError::Plan { .. }
        | DistillError::Program { .. }
        | DistillError::Execution { .. } => PLUGIN_RUN,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::ComputeDevice;

    #[test]
    fn typed_errors_have_their_codes_below_any_context() {
        let cases: [(anyhow::Error, i32); 10] = [
            (
                ConfigError::SetForm {
                    text: "x".to_owned(),
                }
                .into(),
                USAGE,
            ),
            (
                ConfigError::Schema {
                    method: "m".to_owned(),
                    reason: "r".to_owned(),
                }
                .into(),
                PLUGIN_LOAD,
            ),
            (
                DeviceError::NotBuilt {
                    device: ComputeDevice::Cuda(0),
                }
                .into(),
                USAGE,
            ),
            (
                EngineError::from(DeviceError::Absent {
                    device: ComputeDevice::Cuda(1),
                    found: 1,
                })
                .into(),
                USAGE,
            ),
            (
                PluginLoadError::NotFound {
                    name: "x".to_owned(),
                    searched: Vec::new(),
                    suggestion: None,
                }
                .into(),
                PLUGIN_LOAD,
            ),
            (
                DatasetError::File {
                    path: "p".to_owned(),
                    reason: "r".to_owned(),
                }
                .into(),
                DATA,
            ),
            (
                DatasetError::Unknown {
                    name: "n".to_owned(),
                    known: String::new(),
                }
                .into(),
                USAGE,
            ),
            (
                ModelError::Weights {
                    report: "r".to_owned(),
                }
                .into(),
                DATA,
            ),
            (io::Error::from(io::ErrorKind::BrokenPipe).into(), OK),
            (anyhow::anyhow!("diverged"), RUN_FAILED),
        ];
        for (error, code) in cases {
            let error = error.context("outer");
            assert_eq!(of(&error), code, "{error:#}");
        }
    }
}
