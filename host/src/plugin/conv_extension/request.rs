//! What a plugin asks for, checked.

use std::slice;

use kd_abi::{KD_CONV_RELU, KdConv, KdMapSize};

use crate::kernels::conv::{Conv, Window};
use crate::kernels::maps::{Segment, Shared};

/// A convolution whose tensors can exist, with their lengths in floats.
#[derive(Debug)]
pub(super) struct Request {
    /// Levels without cells are left out.
    pub(super) conv: Conv,
    pub(super) o: usize,
    c: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) weights: usize,
}

impl Request {
    /// # Safety
    /// `conv` must be null or valid for its `struct_size`, and so must its list of sizes.
    pub(super) unsafe fn read(conv: *const KdConv) -> Result<Request, String> {
        if conv.is_null() || !conv.is_aligned() {
            return Err("`conv` is null or not aligned".to_owned());
        }
        // SAFETY: the caller's promise; the size comes first.
        let size = unsafe { conv.cast::<u32>().read() };
        if (size as usize) < size_of::<KdConv>() {
            return Err(format!("`conv` has a struct_size of {size}"));
        }
        // SAFETY: the caller's promise, and it is whole.
        let asked = unsafe { conv.read() };
        if asked.flags & !KD_CONV_RELU != 0 {
            return Err(format!("`conv` has unknown flags {:#x}", asked.flags));
        }
        if asked.c_in == 0 || asked.c_out == 0 {
            return Err("`conv` has no channels".to_owned());
        }
        if asked.kernel.is_multiple_of(2) {
            return Err(format!("a kernel of {} is not odd", asked.kernel));
        }
        let sizes = match asked.n_sizes as usize {
            0 => &[],
            _ if asked.sizes.is_null() || !asked.sizes.is_aligned() => {
                return Err("`sizes` is null or not aligned".to_owned());
            }
            // SAFETY: the caller's promise.
            len => unsafe { slice::from_raw_parts(asked.sizes, len) },
        };
        Request::of(&asked, sizes).ok_or_else(|| "the extents overflow".to_owned())
    }

    fn of(asked: &KdConv, sizes: &[KdMapSize]) -> Option<Request> {
        let extent = |value: u32| usize::try_from(value).ok();
        let (c, o) = (extent(asked.c_in)?, extent(asked.c_out)?);
        let kernel = extent(asked.kernel)?;
        let (mut input, mut cells) = (Vec::with_capacity(sizes.len()), 0usize);
        for size in sizes {
            let [n, h, w] = [size.n, size.h, size.w];
            if n == 0 || h == 0 || w == 0 {
                continue;
            }
            let [n, h, w] = [n, h, w].map(|extent| usize::try_from(extent).ok());
            let segment = Segment::new(n?, h?, w?);
            cells = cells.checked_add(product([segment.n, segment.h, segment.w])?)?;
            input.push(segment);
        }
        let window = Window::square(kernel, 1, kernel / 2);
        // The kernels count in these and in what they add to a map on each side.
        product([cells.checked_add(kernel)?, c.max(o), size_of::<f32>()])?;
        Some(Request {
            conv: Conv {
                window,
                groups: 1,
                relu: asked.flags & KD_CONV_RELU != 0,
                input: input.into(),
            },
            o,
            c,
            inputs: product([cells, c])?,
            outputs: product([cells, o])?,
            weights: product([o, c, kernel, kernel, size_of::<f32>()])? / size_of::<f32>(),
        })
    }

    /// As the kernels take them.
    pub(super) fn channels(&self) -> [usize; 2] {
        [self.o, self.c]
    }

    /// Whether there is no cell.
    pub(super) fn is_empty(&self) -> bool {
        self.conv.input.is_empty()
    }
}

/// The product of some extents, unless it is more than memory can hold.
fn product<const N: usize>(extents: [usize; N]) -> Option<usize> {
    let product = extents
        .into_iter()
        .try_fold(1usize, |product, extent| product.checked_mul(extent))?;
    (product <= isize::MAX as usize).then_some(product)
}

/// A plugin's memory: its address was checked, what lies there is the plugin's promise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floats {
    name: &'static str,
    first: *mut f32,
    len: usize,
}

impl Floats {
    pub(super) fn new(name: &'static str, first: *mut f32, len: usize) -> Result<Floats, String> {
        // Without elements the address means nothing.
        let placed = len == 0 || (!first.is_null() && first.is_aligned());
        let inside = (first as usize).checked_add(len * size_of::<f32>());
        match placed && inside.is_some() {
            true => Ok(Floats { name, first, len }),
            false => Err(format!("`{name}` is null or not aligned")),
        }
    }

    pub(super) fn input(
        name: &'static str,
        first: *const f32,
        len: usize,
    ) -> Result<Floats, String> {
        Floats::new(name, first.cast_mut(), len)
    }

    /// # Safety
    /// The memory holds values, which nobody writes for `'a`.
    pub(super) unsafe fn read<'a>(self) -> &'a [f32] {
        match self.len {
            0 => &[],
            // SAFETY: the caller's promise; the address was checked.
            len => unsafe { slice::from_raw_parts(self.first, len) },
        }
    }

    /// # Safety
    /// The memory is the caller's to write while the result is used.
    pub(super) unsafe fn write(self) -> Shared {
        // SAFETY: the caller's promise.
        unsafe { Shared::unwritten(self.first, self.len) }
    }

    /// Zeros everywhere.
    ///
    /// # Safety
    /// The memory is the caller's to write.
    pub(super) unsafe fn clear(self) {
        // SAFETY: the caller's promise; the address was checked.
        unsafe { self.first.write_bytes(0, self.len) };
    }

    fn overlaps(&self, other: &Floats) -> bool {
        let end = |floats: &Floats| floats.first as usize + floats.len * size_of::<f32>();
        self.len > 0
            && other.len > 0
            && (self.first as usize) < end(other)
            && (other.first as usize) < end(self)
    }
}

/// Refuses an output that overlaps an input or another output.
pub(super) fn apart(inputs: &[Floats], outputs: &[Floats]) -> Result<(), String> {
    for (at, output) in outputs.iter().enumerate() {
        for other in inputs.iter().chain(&outputs[..at]) {
            if output.overlaps(other) {
                return Err(format!("`{}` overlaps `{}`", output.name, other.name));
            }
        }
    }
    Ok(())
}
