//! Host extension `kd.task/1`: what the models are trained for.

use abi_stable::StableAbi;

/// Id of the extension: `get_extension` gives a `*const KdTask`, valid until the entry returns.
pub const KD_EXT_TASK: &str = "kd.task/1";

/// Facts of the task that hold for the whole run.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, StableAbi)]
pub struct KdTask {
    /// Size of this struct.
    pub struct_size: u32,
    /// Classes of the data set, background excluded; labels are below it.
    pub num_classes: u32,
}

const _: () = assert!(core::mem::size_of::<KdTask>() == 8);
