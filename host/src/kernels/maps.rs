//! Feature maps as the kernels see them: channels last, maps of several sizes one after another.

/// The images of one size: `[n, h, w]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Images.
    pub n: usize,
    /// Height.
    pub h: usize,
    /// Width.
    pub w: usize,
}

impl Segment {
    /// `n` maps of `h` times `w` cells.
    #[must_use]
    pub fn new(n: usize, h: usize, w: usize) -> Self {
        Segment { n, h, w }
    }

    /// Cells of all images.
    #[must_use]
    pub fn cells(&self) -> usize {
        self.n * self.h * self.w
    }
}

/// Cells of all segments.
#[must_use]
pub fn cells(segments: &[Segment]) -> usize {
    segments.iter().map(Segment::cells).sum()
}

/// Channels `offset..offset + channels` of a matrix whose rows are `pitch` floats apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channels {
    pub(crate) pitch: usize,
    pub(crate) offset: usize,
    pub(crate) channels: usize,
}

impl Channels {
    /// All `channels` of a matrix.
    pub(crate) fn all(channels: usize) -> Self {
        Channels {
            pitch: channels,
            offset: 0,
            channels,
        }
    }
}

/// A stretch of cells of one image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    /// Index of the segment.
    pub(crate) segment: usize,
    pub(crate) image: usize,
    /// First cell within the image, row-major.
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// Cuts every image of `segments` into stretches of about `len` cells; depends on nothing else.
pub(crate) fn stretches(segments: &[Segment], len: usize) -> Vec<Stretch> {
    let mut all = Vec::new();
    for (segment, s) in segments.iter().enumerate() {
        let cells = s.h * s.w;
        if cells == 0 {
            continue;
        }
        let parts = cells.div_ceil(len.max(1));
        let len = cells.div_ceil(parts);
        for image in 0..s.n {
            for start in (0..cells).step_by(len) {
                all.push(Stretch {
                    segment,
                    image,
                    start,
                    len: len.min(cells - start),
                });
            }
        }
    }
    all
}

/// Rows of every map of every image, in order.
pub(crate) fn images(segments: &[Segment]) -> Vec<std::ops::Range<usize>> {
    let cells = segments
        .iter()
        .flat_map(|segment| std::iter::repeat_n(segment.h * segment.w, segment.n));
    let mut start = 0;
    cells
        .map(|cells| {
            start += cells;
            start - cells..start
        })
        .collect()
}

/// The output of a kernel: memory that tasks share, each writing its own part of it.
#[derive(Clone, Copy)]
pub(crate) struct Shared {
    first: *mut f32,
    len: usize,
}
// SAFETY: every use writes disjoint ranges from different tasks and says why.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(values: &mut [f32]) -> Self {
        Shared {
            first: values.as_mut_ptr(),
            len: values.len(),
        }
    }

    /// Memory that may never have been written.
    ///
    /// # Safety
    /// `first` is valid for writes of `len` floats, and for reads of what was written, for as long as
    /// a copy of the result is used.
    pub(crate) unsafe fn unwritten(first: *mut f32, len: usize) -> Self {
        Shared { first, len }
    }

    /// Memory that is only read, for a kernel that may also work in place.
    pub(crate) fn reading(values: &[f32]) -> Self {
        Shared {
            first: values.as_ptr().cast_mut(),
            len: values.len(),
        }
    }

    /// `len` floats from `start` on.
    ///
    /// # Panics
    /// If they are not all in it.
    pub(crate) fn part(self, start: usize, len: usize) -> Self {
        assert!(start <= self.len && len <= self.len - start);
        Shared {
            // SAFETY: the offset was checked.
            first: unsafe { self.first.add(start) },
            len,
        }
    }

    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// # Safety
    /// `start` is at most the length.
    pub(crate) unsafe fn at(self, start: usize) -> *mut f32 {
        debug_assert!(start <= self.len);
        // SAFETY: the caller promises an offset inside the allocation.
        unsafe { self.first.add(start) }
    }

    /// # Safety
    /// `start + len` is at most the length, the range is initialised or only written, and no other
    /// task touches it while the result lives.
    pub(crate) unsafe fn slice<'a>(self, start: usize, len: usize) -> &'a mut [f32] {
        debug_assert!(start + len <= self.len);
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(start), len) }
    }
}

/// `len` floats that `write` sets; saves the pass that would clear them first.
///
/// # Safety
/// `write` sets every float.
pub(crate) unsafe fn filled(len: usize, write: impl FnOnce(Shared)) -> Vec<f32> {
    let mut values = Vec::<f32>::with_capacity(len);
    write(Shared {
        first: values.as_mut_ptr(),
        len,
    });
    // SAFETY: the capacity is there, the caller promises the values.
    unsafe { values.set_len(len) };
    values
}
