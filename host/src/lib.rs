//! kdhost: trains object detectors; every distillation method is a shared library.
//!
//! Modules in reading order. Data flows one way:
//! `cli → engine → {distill, model, data, eval} → {detection, boxes, state, values, rng, graph} → {maps, kernels}`;
//! [`device`] says where, and is used by [`config`], [`engine`] and [`cli`];
//! [`plugin`] (the loader) is used by [`distill`] and [`cli`] alone;
//! [`runs`] reads what [`engine`] left, for [`cli`].

pub mod ab;
pub mod boxes;
pub mod classification;
pub mod config;
pub mod data;
pub mod detection;
pub mod device;
pub mod distill;
pub mod engine;
pub mod eval;
pub mod exit_code;
pub mod graph;
mod host_values;
pub mod kernels;
mod known_gradient;
pub mod maps;
pub mod model;
pub mod plugin;
pub mod runs;
pub mod segmentation;
pub mod state;
pub mod values;
pub mod visualize;

pub mod cli;

pub use kdhost_rng as rng;
