//! Pictures for people.
//!
//! [`draw`]: detections on an image. [`mod@overlay`]: classes of pixels on it. Feature maps: [`feature`]
//! (the numbers), [`heat`] (colours over the image), [`level`] (what is shown of one tap), [`sheet`] (many pictures on one).

mod canvas;
pub mod draw;
pub mod feature;
mod font;
pub mod heat;
pub mod level;
pub mod overlay;
pub mod sheet;

pub use draw::{draw_detections, save_png};
pub use overlay::{overlay, with_class};
