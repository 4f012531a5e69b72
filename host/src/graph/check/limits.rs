//! How large a program may be.

/// Bounds of a program. They keep a broken plugin from taking the machine; a method never meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Operations of both parts; inputs, constants and outputs each.
    pub operations: usize,
    /// Dimensions of a tensor. The CPU's kernels know eight.
    pub rank: usize,
    /// Elements of one tensor, of a padded input and of the columns of a convolution; the extent of
    /// one dimension as well, which is otherwise free in a tensor without elements.
    pub elements: usize,
    /// Bytes of all tensors that live at once. Views count as if they were copies.
    pub live_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            operations: 100_000,
            rank: 8,
            elements: 1 << 31,
            live_bytes: 64 << 30,
        }
    }
}
