//! Pictures for people.

pub mod draw;
mod font;
