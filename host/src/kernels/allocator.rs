//! A global allocator that keeps large blocks for the next step.
//!
//! A training step allocates and frees the same large tensors again and again. Allocators hand such
//! blocks back to the kernel, and taking them anew means a fault and a cleared page for every
//! 4 KiB: a fifth of a step's time. This one keeps freed blocks of 256 KiB and more in lists
//! by size, and leaves everything else to the allocator that it wraps. The blocks themselves are
//! mapped from the kernel, so that what is given back is gone.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Smaller blocks are the wrapped allocator's business, which keeps them itself.
const LARGE: usize = 256 * 1024;
/// Size classes per doubling: a block is at most an eighth larger than asked for, and what nobody
/// touches is not resident.
const STEPS: usize = 8;
/// Doublings from [`LARGE`]: blocks up to 64 GiB.
const DOUBLINGS: usize = 18;
const CLASSES: usize = STEPS * DOUBLINGS;
/// A block serves requests of up to so many classes below its own.
const FIT: usize = 6;
/// From here on a large page of 2 MiB wastes little at the ends.
const HUGE: usize = 8 * 1024 * 1024;
/// Before each block lies a page that says its class.
const HEADER: usize = 4096;
/// Used and free blocks together may exceed the most that was lately used by a quarter, or by this.
const SLACK: usize = 32 * 1024 * 1024;

/// Keeps large blocks of `A`.
pub struct KeepLarge<A> {
    inner: A,
    kept: Mutex<Kept>,
}

/// Free blocks: for each class the first of a list, linked through the blocks themselves.
struct Kept {
    first: [*mut u8; CLASSES],
    /// Bytes of all free blocks.
    free: usize,
    /// Bytes of the large blocks in use.
    used: usize,
    /// The most of it lately.
    peak: usize,
    /// Blocks that exist, free or in use.
    mapped: usize,
}

// SAFETY: the blocks of the lists belong to the lists alone.
unsafe impl Send for Kept {}

/// The smallest class that holds the layout; `None` for blocks that are not kept.
fn class_of(layout: Layout) -> Option<usize> {
    if layout.size() < LARGE || layout.align() > HEADER {
        return None;
    }
    let doubling = (layout.size() / LARGE).ilog2() as usize;
    let base = LARGE << doubling;
    let step = base / STEPS;
    let (doubling, part) = match (layout.size() - base).div_ceil(step) {
        STEPS => (doubling + 1, 0),
        part => (doubling, part),
    };
    (doubling < DOUBLINGS).then_some(doubling * STEPS + part)
}

fn size_of_class(class: usize) -> usize {
    let base = LARGE << (class / STEPS);
    base + class % STEPS * (base / STEPS)
}

/// A fresh block of `class`, zeroed, or null.
fn map(class: usize) -> *mut u8 {
    let len = HEADER + size_of_class(class);
    let (access, kind) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a new mapping, anywhere; the header lies in it and is written before anybody reads it.
    unsafe {
        let whole = libc::mmap(ptr::null_mut(), len, access, kind, -1, 0);
        if whole == libc::MAP_FAILED {
            return ptr::null_mut();
        }
        #[cfg(target_os = "linux")]
        if len >= HUGE {
            // Large pages where the kernel has them: advice, not a promise.
            libc::madvise(whole, len, libc::MADV_HUGEPAGE);
        }
        whole.cast::<usize>().write(class);
        whole.cast::<u8>().add(HEADER)
    }
}

/// Gives a block back to the kernel.
///
/// # Safety
/// The block came from [`map`] and nobody uses it.
unsafe fn unmap(block: *mut u8) {
    // SAFETY: the whole mapping, header first, is the block's.
    unsafe {
        let len = HEADER + size_of_class(class_of_block(block));
        // It cannot fail for a mapping of ours, and an allocator has nowhere to say so.
        let _ = libc::munmap(block.sub(HEADER).cast(), len);
    }
}

/// The class of a block in use.
///
/// # Safety
/// The block came from [`KeepLarge`].
unsafe fn class_of_block(block: *mut u8) -> usize {
    // SAFETY: the header lies before it.
    unsafe { block.sub(HEADER).cast::<usize>().read() }
}

/// Makes the C library keep its heap too: plugins allocate there, and their maps come and go every
/// step like ours. To be called before they do.
pub fn keep_system_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets numbers of the allocator; refused ones leave it as it was.
    unsafe {
        // No mappings of their own for large blocks, nothing trimmed, growth in large steps.
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        libc::mallopt(libc::M_TOP_PAD, 32 << 20);
    }
}

impl<A> KeepLarge<A> {
    /// Around `inner`.
    pub const fn new(inner: A) -> Self {
        KeepLarge {
            inner,
            kept: Mutex::new(Kept {
                first: [ptr::null_mut(); CLASSES],
                free: 0,
                used: 0,
                peak: 0,
                mapped: 0,
            }),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// A free block for a request of `class`, the smallest that is there.
    fn take(&mut self, class: usize) -> Option<*mut u8> {
        let found = (class..CLASSES.min(class + FIT + 1)).find_map(|class| self.pop(class));
        if let Some(block) = found {
            // SAFETY: it is one of our blocks.
            self.count(unsafe { class_of_block(block) });
        }
        found
    }

    /// A block of `class` is in use from now on.
    fn count(&mut self, class: usize) {
        self.used += size_of_class(class);
        self.peak = self.peak.max(self.used);
    }

    fn pop(&mut self, class: usize) -> Option<*mut u8> {
        let block = self.first[class];
        if block.is_null() {
            return None;
        }
        // SAFETY: a listed block begins with the pointer that `put` wrote.
        self.first[class] = unsafe { block.cast::<*mut u8>().read() };
        self.free -= size_of_class(class);
        Some(block)
    }

    /// Lists a block that is free from now on.
    ///
    /// # Safety
    /// The block is one of ours and nobody uses it.
    unsafe fn put(&mut self, block: *mut u8) {
        // SAFETY: blocks are larger than a pointer, aligned to pages, and this one is ours now.
        let class = unsafe {
            let class = class_of_block(block);
            block.cast::<*mut u8>().write(self.first[class]);
            class
        };
        self.first[class] = block;
        self.free += size_of_class(class);
        self.used -= size_of_class(class);
    }

    /// The largest free block, if there is too much memory; the caller frees it.
    fn surplus(&mut self) -> Option<*mut u8> {
        if self.free + self.used <= self.peak + SLACK.max(self.peak / 4) {
            return None;
        }
        let class = self.first.iter().rposition(|block| !block.is_null())?;
        self.pop(class)
    }
}

impl<A: GlobalAlloc> KeepLarge<A> {
    /// A block for a request of `class`, and whether it is fresh, that is zeroed.
    fn block(&self, class: usize) -> (*mut u8, bool) {
        let mut kept = self.kept();
        if let Some(block) = kept.take(class) {
            return (block, false);
        }
        // The most of a phase that is over, such as loading, is forgotten by and by; where every
        // request is served, nothing is.
        kept.peak -= (kept.peak - kept.used) / 16;
        kept.count(class);
        // Nothing of this size: what is kept may be of sizes that are no longer asked for.
        while let Some(block) = kept.surplus() {
            kept.mapped -= 1;
            // SAFETY: nobody uses a listed block.
            unsafe { unmap(block) };
        }
        let block = map(class);
        if block.is_null() {
            kept.used -= size_of_class(class);
        } else {
            kept.mapped += 1;
        }
        (block, true)
    }
}

// SAFETY: a block holds every layout that it is handed out for, and a listed block is handed out once;
// smaller ones are `inner`'s from first to last.
unsafe impl<A: GlobalAlloc> GlobalAlloc for KeepLarge<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class_of(layout) {
            Some(class) => self.block(class).0,
            // SAFETY: passed on.
            None => unsafe { self.inner.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class_of(layout) else {
            // SAFETY: passed on.
            return unsafe { self.inner.alloc_zeroed(layout) };
        };
        let (block, fresh) = self.block(class);
        if !fresh && !block.is_null() {
            // SAFETY: the block is at least as large as the layout.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match class_of(layout) {
            // SAFETY: the caller gives back a block of ours: its layout is that of a large one.
            Some(_) => unsafe { self.kept().put(block) },
            // SAFETY: passed on.
            None => unsafe { self.inner.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that size and alignment make a layout.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        match (class_of(layout), class_of(new)) {
            // SAFETY: passed on.
            (None, None) => unsafe { self.inner.realloc(block, layout, new_size) },
            (Some(old), Some(new)) if old == new => block,
            // SAFETY: a new block, the shorter length copied, the old one given back.
            _ => unsafe {
                let moved = self.alloc(new);
                if !moved.is_null() {
                    ptr::copy_nonoverlapping(block, moved, layout.size().min(new_size));
                    self.dealloc(block, layout);
                }
                moved
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;

    use super::*;

    fn pool() -> KeepLarge<System> {
        KeepLarge::new(System)
    }

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 16).unwrap()
    }

    #[test]
    fn a_class_holds_its_sizes_with_little_waste() {
        let mut last = (0, 0);
        for size in (LARGE..LARGE * 40).step_by(4099) {
            let class = class_of(layout(size)).unwrap();
            let block = size_of_class(class);
            assert!(
                block >= size && block - size <= size / STEPS,
                "{size}: {block}"
            );
            assert!((class, block) >= last, "classes ascend with sizes");
            last = (class, block);
        }
        assert_eq!(class_of(layout(LARGE)), Some(0));
        assert_eq!(size_of_class(0), LARGE);
        assert_eq!(class_of(layout(LARGE - 1)), None);
    }

    #[test]
    fn a_freed_block_serves_the_next_of_its_class() {
        let pool = pool();
        // SAFETY: blocks are used within their layouts and given back once.
        unsafe {
            let first = pool.alloc(layout(LARGE * 3));
            first.write_bytes(7, LARGE * 3);
            pool.dealloc(first, layout(LARGE * 3));
            // Smaller, but not by so much that the block would be wasted on it.
            let second = pool.alloc_zeroed(layout(LARGE * 5 / 2));
            assert_eq!(first, second);
            let bytes = std::slice::from_raw_parts(second, LARGE * 5 / 2);
            assert!(bytes.iter().all(|&byte| byte == 0));
            let third = pool.alloc(layout(LARGE * 3));
            assert_ne!(second, third);
            pool.dealloc(second, layout(LARGE * 5 / 2));
            assert_ne!(pool.alloc(layout(LARGE)), second);
            assert_eq!(pool.kept().mapped, 3);
        }
    }

    #[test]
    fn growing_keeps_the_values() {
        let pool = pool();
        // SAFETY: as above.
        unsafe {
            let mut size = 1000;
            let mut block = pool.alloc(layout(size));
            block.write_bytes(3, size);
            for next in [LARGE, LARGE + 1, LARGE * 2 + 5, 4000] {
                block = pool.realloc(block, layout(size), next);
                let kept = std::slice::from_raw_parts(block, 1000);
                assert!(kept.iter().all(|&byte| byte == 3), "{next}");
                size = next;
            }
            pool.dealloc(block, layout(size));
        }
    }

    #[test]
    fn sizes_that_are_no_longer_asked_for_are_given_back() {
        let pool = pool();
        let block = 8 << 20;
        // SAFETY: as above.
        unsafe {
            let many: Vec<*mut u8> = (0..20).map(|_| pool.alloc(layout(block))).collect();
            for &block_at in &many {
                pool.dealloc(block_at, layout(block));
            }
            // All of it again in another size: no more than the peak and the slack exist.
            let others: Vec<*mut u8> = (0..50).map(|_| pool.alloc(layout(3 << 20))).collect();
            let blocks = pool.kept().mapped;
            let kept = blocks - others.len();
            assert!(
                50 * (3 << 20) + kept * block <= 20 * block + SLACK,
                "{kept} kept"
            );
            for other in others {
                pool.dealloc(other, layout(3 << 20));
            }
            // What recurs is never given back.
            for _ in 0..3 {
                let again: Vec<*mut u8> = (0..50).map(|_| pool.alloc(layout(3 << 20))).collect();
                assert_eq!(pool.kept().mapped, blocks);
                for block in again {
                    pool.dealloc(block, layout(3 << 20));
                }
            }
        }
    }
}
