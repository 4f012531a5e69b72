//! Vectors of f32 at the widths that processors have, chosen at run time.
//!
//! A kernel is written once over `Simd` and entered through `simd_entry!`, which compiles it for
//! every level and calls the one asked for. Results depend on the level (fused multiply-add rounds
//! once), never on anything else.

/// What the processor offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Whatever the compiler makes of plain loops.
    Portable,
    /// AVX2 and FMA: 8 lanes, 16 registers.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F: 16 lanes, 32 registers.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The levels that this processor has, slowest first.
    #[must_use]
    pub fn available() -> Vec<Level> {
        #[allow(unused_mut, reason = "not changed on other processors")]
        let mut levels = vec![Level::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2 {
                levels.push(Level::Avx2);
            }
            if avx2 && is_x86_feature_detected!("avx512f") {
                levels.push(Level::Avx512);
            }
        }
        levels
    }

    /// The fastest that this processor has.
    #[must_use]
    pub fn best() -> Level {
        static BEST: std::sync::OnceLock<Level> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| Self::available().pop().unwrap_or(Level::Portable))
    }

    /// Rows of the register tile of a matrix product at this level.
    #[must_use]
    pub fn tile_rows(self) -> usize {
        match self {
            Level::Portable => <Portable as Simd>::TILE_ROWS,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => <Avx2 as Simd>::TILE_ROWS,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => <Avx512 as Simd>::TILE_ROWS,
        }
    }
}

/// Operations on one vector register.
///
/// # Safety
/// All methods: the processor has the level. Loads and stores: the pointer is valid for as many
/// floats as are moved; no alignment is asked for.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// The register.
    type V: Copy;
    /// Floats in it.
    const LANES: usize;
    /// Rows of the register tile of a matrix product whose width is two registers.
    const TILE_ROWS: usize;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    /// The first `n` lanes, at most all; the others are 0.
    unsafe fn load_first(from: *const f32, n: usize) -> Self::V;
    unsafe fn store_first(to: *mut f32, v: Self::V, n: usize);
    /// As many of `n` floats as fit; the other lanes are 0.
    #[inline(always)]
    unsafe fn load_upto(from: *const f32, n: usize) -> Self::V {
        // SAFETY: passed on.
        unsafe {
            if n >= Self::LANES {
                Self::load(from)
            } else {
                Self::load_first(from, n)
            }
        }
    }
    #[inline(always)]
    unsafe fn store_upto(to: *mut f32, v: Self::V, n: usize) {
        // SAFETY: passed on.
        unsafe {
            if n >= Self::LANES {
                Self::store(to, v);
            } else {
                Self::store_first(to, v, n);
            }
        }
    }
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the processor can.
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `max(v, 0)`; NaN stays, as torch's.
    unsafe fn relu(v: Self::V) -> Self::V;
    /// `min(v, bound)`; NaN stays, as torch's.
    unsafe fn cap(v: Self::V, bound: Self::V) -> Self::V;
    /// 0 where `gate <= 0`, else `v`: also where `gate` is NaN.
    unsafe fn gate(v: Self::V, gate: Self::V) -> Self::V;
    /// 0 where `gate >= bound`, else `v`: also where `gate` is NaN.
    unsafe fn gate_below(v: Self::V, gate: Self::V, bound: Self::V) -> Self::V;
}

/// Plain loops.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Portable {
    #[inline(always)]
    fn map(f: impl Fn(usize) -> f32) -> [f32; 8] {
        let mut out = [0.0; 8];
        for (i, out) in out.iter_mut().enumerate() {
            *out = f(i);
        }
        out
    }
}

impl Simd for Portable {
    type V = [f32; 8];
    const LANES: usize = 8;
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        // SAFETY: the caller vouches for 8 floats.
        unsafe { from.cast::<[f32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::V) {
        // SAFETY: the caller vouches for 8 floats.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self::V {
        // SAFETY: the caller vouches for `n` floats.
        Self::map(|i| if i < n { unsafe { *from.add(i) } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store_first(to: *mut f32, v: Self::V, n: usize) {
        for (i, &x) in v.iter().enumerate().take(n) {
            // SAFETY: the caller vouches for `n` floats.
            unsafe { *to.add(i) = x };
        }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        Self::map(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        Self::map(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        Self::map(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        Self::map(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn relu(v: Self::V) -> Self::V {
        Self::map(|i| if v[i] <= 0.0 { 0.0 } else { v[i] })
    }
    #[inline(always)]
    unsafe fn cap(v: Self::V, bound: Self::V) -> Self::V {
        Self::map(|i| if v[i] >= bound[i] { bound[i] } else { v[i] })
    }
    #[inline(always)]
    unsafe fn gate(v: Self::V, gate: Self::V) -> Self::V {
        Self::map(|i| if gate[i] <= 0.0 { 0.0 } else { v[i] })
    }
    #[inline(always)]
    unsafe fn gate_below(v: Self::V, gate: Self::V, bound: Self::V) -> Self::V {
        Self::map(|i| if gate[i] >= bound[i] { 0.0 } else { v[i] })
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Simd;

    /// AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2;

    /// Sliding window: 8 set lanes, then 8 clear ones.
    static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

    /// # Safety
    /// AVX is there.
    #[inline(always)]
    unsafe fn first(n: usize) -> __m256i {
        // SAFETY: 8 values from an index of at most 8 lie in the 16.
        unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - n.min(8)).cast()) }
    }

    // SAFETY of every block below: the trait's contract, level and pointers.
    #[allow(
        clippy::undocumented_unsafe_blocks,
        reason = "one reason for all of them stands above"
    )]
    impl Simd for Avx2 {
        type V = __m256;
        const LANES: usize = 8;
        const TILE_ROWS: usize = 6;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self::V {
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self::V {
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, v: Self::V) {
            unsafe { _mm256_storeu_ps(to, v) }
        }
        #[inline(always)]
        unsafe fn load_first(from: *const f32, n: usize) -> Self::V {
            unsafe { _mm256_maskload_ps(from, first(n)) }
        }
        #[inline(always)]
        unsafe fn store_first(to: *mut f32, v: Self::V, n: usize) {
            unsafe { _mm256_maskstore_ps(to, first(n), v) }
        }
        #[inline(always)]
        unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn relu(v: Self::V) -> Self::V {
            // Of a number and NaN the second is taken.
            unsafe { _mm256_max_ps(_mm256_setzero_ps(), v) }
        }
        #[inline(always)]
        unsafe fn cap(v: Self::V, bound: Self::V) -> Self::V {
            // Of a number and NaN the second is taken.
            unsafe { _mm256_min_ps(bound, v) }
        }
        #[inline(always)]
        unsafe fn gate(v: Self::V, gate: Self::V) -> Self::V {
            unsafe {
                let open = _mm256_cmp_ps::<_CMP_NLE_UQ>(gate, _mm256_setzero_ps());
                _mm256_and_ps(v, open)
            }
        }
        #[inline(always)]
        unsafe fn gate_below(v: Self::V, gate: Self::V, bound: Self::V) -> Self::V {
            unsafe {
                let open = _mm256_cmp_ps::<_CMP_NGE_UQ>(gate, bound);
                _mm256_and_ps(v, open)
            }
        }
    }

    /// AVX-512 F.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512;

    #[inline(always)]
    fn first_mask(n: usize) -> __mmask16 {
        if n >= 16 { u16::MAX } else { (1 << n) - 1 }
    }

    // SAFETY of every block below: the trait's contract, level and pointers.
    #[allow(
        clippy::undocumented_unsafe_blocks,
        reason = "one reason for all of them stands above"
    )]
    impl Simd for Avx512 {
        type V = __m512;
        const LANES: usize = 16;
        const TILE_ROWS: usize = 14;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self::V {
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self::V {
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, v: Self::V) {
            unsafe { _mm512_storeu_ps(to, v) }
        }
        #[inline(always)]
        unsafe fn load_first(from: *const f32, n: usize) -> Self::V {
            unsafe { _mm512_maskz_loadu_ps(first_mask(n), from) }
        }
        #[inline(always)]
        unsafe fn store_first(to: *mut f32, v: Self::V, n: usize) {
            unsafe { _mm512_mask_storeu_ps(to, first_mask(n), v) }
        }
        #[inline(always)]
        unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn relu(v: Self::V) -> Self::V {
            // Of a number and NaN the second is taken.
            unsafe { _mm512_max_ps(_mm512_setzero_ps(), v) }
        }
        #[inline(always)]
        unsafe fn cap(v: Self::V, bound: Self::V) -> Self::V {
            // Of a number and NaN the second is taken.
            unsafe { _mm512_min_ps(bound, v) }
        }
        #[inline(always)]
        unsafe fn gate(v: Self::V, gate: Self::V) -> Self::V {
            unsafe {
                let open = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(gate, _mm512_setzero_ps());
                _mm512_maskz_mov_ps(open, v)
            }
        }
        #[inline(always)]
        unsafe fn gate_below(v: Self::V, gate: Self::V, bound: Self::V) -> Self::V {
            unsafe {
                let open = _mm512_cmp_ps_mask::<_CMP_NGE_UQ>(gate, bound);
                _mm512_maskz_mov_ps(open, v)
            }
        }
    }
}

/// Compiles a generic kernel for every level: `name(level, args…)` runs `kernel::<S>(args…)`, which
/// must be `#[inline(always)]` so that it takes on the level's instructions.
macro_rules! simd_entry {
    ($(#[$doc:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $kernel:ident) => {
        $(#[$doc])*
        #[inline]
        $vis unsafe fn $name(level: $crate::kernels::simd::Level, $($arg: $ty),*) {
            use $crate::kernels::simd;
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2($($arg: $ty),*) {
                // SAFETY: the contract is passed on.
                unsafe { $kernel::<simd::Avx2>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f")]
            unsafe fn avx512($($arg: $ty),*) {
                // SAFETY: the contract is passed on.
                unsafe { $kernel::<simd::Avx512>($($arg),*) }
            }
            // SAFETY: the contract is passed on; a level exists only where the processor has it.
            unsafe {
                match level {
                    simd::Level::Portable => $kernel::<simd::Portable>($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    simd::Level::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    simd::Level::Avx512 => avx512($($arg),*),
                }
            }
        }
    };
}
pub(crate) use simd_entry;
