//! Finite differences, and which output reaches what.

use kd_plugin::testkit::gradcheck;

use super::*;

#[test]
fn gradients_agree_with_differences() {
    for config in [
        json!({}),
        json!({"add_context_box": false}),
        json!({"detach_appearance_embed": true}),
        json!({"interact_pattern": "labelGuided"}),
    ] {
        let mut bench = small(&config);
        let options = gradcheck::Options {
            directions: 2,
            elements: 0,
            ..gradcheck::Options::default()
        };
        gradcheck::check(&mut bench, &options).unwrap_or_else(|error| panic!("{config}: {error}"));
    }
}
