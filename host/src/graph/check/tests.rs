//! Tests of the checks: programs built by hand, one operation each, with burn's own constructors as the
//! second opinion on shapes; refusals of every rule; mutations; and execution of what passes.

mod build;
mod execute;
mod fuzz;
mod interface;
mod rules;
mod seeds;
