//! Names of operations in messages.

use std::fmt::{Debug, Write};

use kd_graph::burn_ir::OperationIr;

/// The name of an operation, `Module::Conv2d`; those of this format by their id, `Custom::kd.conv2d`.
///
/// It formats no more of the operation than the name.
#[must_use]
pub fn op_name(op: &OperationIr) -> String {
    let (family, variant): (&str, &dyn Debug) = match op {
        OperationIr::BaseFloat(op) => ("BaseFloat", op),
        OperationIr::BaseInt(op) => ("BaseInt", op),
        OperationIr::BaseBool(op) => ("BaseBool", op),
        OperationIr::NumericFloat(_, op) => ("NumericFloat", op),
        OperationIr::NumericInt(_, op) => ("NumericInt", op),
        OperationIr::Bool(op) => ("Bool", op),
        OperationIr::Int(op) => ("Int", op),
        OperationIr::Float(_, op) => ("Float", op),
        OperationIr::Module(op) => ("Module", op),
        OperationIr::Activation(op) => ("Activation", op),
        OperationIr::Distributed(op) => ("Distributed", op),
        OperationIr::Custom(op) => return format!("Custom::{}", shortened(&op.id)),
        OperationIr::Init(_) => return "Init".to_owned(),
        OperationIr::Drop(_) => return "Drop".to_owned(),
    };
    format!("{family}::{}", head(variant))
}

/// A plugin's text in a message: its first characters, printable ones alone.
fn shortened(text: &str) -> String {
    (text.chars().take(40))
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// The name of an enum's variant: what its `Debug` writes before the first bracket.
fn head(variant: &dyn Debug) -> String {
    struct Head(String);
    impl Write for Head {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            let name = text.find(['(', '{', ' ']).map_or(text, |end| &text[..end]);
            self.0.push_str(name);
            // An error ends the formatting of all that follows.
            if name.len() == text.len() {
                Ok(())
            } else {
                Err(std::fmt::Error)
            }
        }
    }
    let mut head = Head(String::new());
    let _ = write!(head, "{variant:?}");
    head.0
}
