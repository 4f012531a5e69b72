//! Against PyTorch, finite differences, and what can be seen by eye.

mod golden;

use kd_plugin::testkit::{Bench, TapShape, gradcheck};
use serde_json::{Value, json};

use super::*;
