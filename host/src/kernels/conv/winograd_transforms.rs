//! The one-dimensional transforms of Winograd's F(4, 3), on vectors of channels.
//!
//! With the points `0, ±a, ±b, ∞` and `f(p)` the product of `p - q` over the other finite points:
//! `Bᵀ` has the coefficients of the polynomials that vanish at the other points, `G` evaluates the
//! kernel at each point over `f`, `Aᵀ` evaluates the powers. Even and odd powers are shared between
//! a point and its negative.

use crate::kernels::simd::Simd;

/// The points ±A, ±B.
const A: f32 = 0.625;
const B: f32 = 1.375;
const A2: f32 = A * A;
const B2: f32 = B * B;

/// `Bᵀ d`.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(super) unsafe fn of_input<S: Simd>(d: [S::V; 6]) -> [S::V; 6] {
    // SAFETY: passed on.
    unsafe {
        let [d0, d1, d2, d3, d4, d5] = d;
        let (product, sum) = (S::splat(A2 * B2), S::splat(-(A2 + B2)));
        let even_a = S::mul_add(S::splat(-B2), d2, d4);
        let odd_a = S::mul(S::splat(A), S::mul_add(S::splat(-B2), d1, d3));
        let even_b = S::mul_add(S::splat(-A2), d2, d4);
        let odd_b = S::mul(S::splat(B), S::mul_add(S::splat(-A2), d1, d3));
        [
            S::mul_add(product, d0, S::mul_add(sum, d2, d4)),
            S::add(even_a, odd_a),
            S::sub(even_a, odd_a),
            S::add(even_b, odd_b),
            S::sub(even_b, odd_b),
            S::mul_add(product, d1, S::mul_add(sum, d3, d5)),
        ]
    }
}

/// `Aᵀ m`.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(super) unsafe fn of_output<S: Simd>(m: [S::V; 6]) -> [S::V; 4] {
    // SAFETY: passed on.
    unsafe {
        let [m0, m1, m2, m3, m4, m5] = m;
        let (even_a, odd_a) = (S::add(m1, m2), S::sub(m1, m2));
        let (even_b, odd_b) = (S::add(m3, m4), S::sub(m3, m4));
        [
            S::add(m0, S::add(even_a, even_b)),
            S::mul_add(S::splat(A), odd_a, S::mul(S::splat(B), odd_b)),
            S::mul_add(S::splat(A2), even_a, S::mul(S::splat(B2), even_b)),
            S::mul_add(
                S::splat(A2 * A),
                odd_a,
                S::mul_add(S::splat(B2 * B), odd_b, m5),
            ),
        ]
    }
}

/// `A g`.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(super) unsafe fn of_gradient<S: Simd>(g: [S::V; 4]) -> [S::V; 6] {
    // SAFETY: passed on.
    unsafe {
        let [g0, g1, g2, g3] = g;
        let even_a = S::mul_add(S::splat(A2), g2, g0);
        let odd_a = S::mul(S::splat(A), S::mul_add(S::splat(A2), g3, g1));
        let even_b = S::mul_add(S::splat(B2), g2, g0);
        let odd_b = S::mul(S::splat(B), S::mul_add(S::splat(B2), g3, g1));
        [
            g0,
            S::add(even_a, odd_a),
            S::sub(even_a, odd_a),
            S::add(even_b, odd_b),
            S::sub(even_b, odd_b),
            g3,
        ]
    }
}

/// Denominators of `G`.
const ZERO: f32 = 1.0 / (A2 * B2);
const AT_A: f32 = 1.0 / (2.0 * A2 * (A2 - B2));
const AT_B: f32 = 1.0 / (2.0 * B2 * (B2 - A2));

/// `G w`.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(super) unsafe fn of_weight<S: Simd>(w: [S::V; 3]) -> [S::V; 6] {
    // SAFETY: passed on.
    unsafe {
        let [w0, w1, w2] = w;
        let even_a = S::mul(S::splat(AT_A), S::mul_add(S::splat(A2), w2, w0));
        let odd_a = S::mul(S::splat(AT_A * A), w1);
        let even_b = S::mul(S::splat(AT_B), S::mul_add(S::splat(B2), w2, w0));
        let odd_b = S::mul(S::splat(AT_B * B), w1);
        [
            S::mul(S::splat(ZERO), w0),
            S::add(even_a, odd_a),
            S::sub(even_a, odd_a),
            S::add(even_b, odd_b),
            S::sub(even_b, odd_b),
            w2,
        ]
    }
}

/// `Gᵀ p`.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(super) unsafe fn to_weight<S: Simd>(p: [S::V; 6]) -> [S::V; 3] {
    // SAFETY: passed on.
    unsafe {
        let [p0, p1, p2, p3, p4, p5] = p;
        let even_a = S::mul(S::splat(AT_A), S::add(p1, p2));
        let odd_a = S::mul(S::splat(AT_A * A), S::sub(p1, p2));
        let even_b = S::mul(S::splat(AT_B), S::add(p3, p4));
        let odd_b = S::mul(S::splat(AT_B * B), S::sub(p3, p4));
        [
            S::mul_add(S::splat(ZERO), p0, S::add(even_a, even_b)),
            S::add(odd_a, odd_b),
            S::mul_add(S::splat(A2), even_a, S::mul_add(S::splat(B2), even_b, p5)),
        ]
    }
}
