//! Pictures for people.

pub mod draw;
mod font;

pub use draw::{draw_detections, save_png};
