//! Identities that hold whatever the weights are.

use super::*;
