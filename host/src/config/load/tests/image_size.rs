//! Sizes of the images of vision transformers.

use super::*;

const VIT: &str = "
task = \"classification\"
student.classifier = \"vit\"
teacher.model.classifier = \"vit\"
data.transform.size = [96, 56]
";

#[test]
fn a_size_that_is_left_out_is_that_of_the_images() {
    let text = format!("{VIT}[teachers.second]\ninput_size = []\ninput_scale = 1.5\n");
    let resolved = ok(&[("x.toml", &text)], &["teacher.input_size=[224, 224]"]);
    let config = &resolved.config;
    assert_eq!(config.student.vit.image_size, [96, 56]);
    assert_eq!(config.teacher.model.vit.image_size, [224, 224]);
    let second = &config.teachers["second"].model;
    assert_eq!(second.vit.image_size, [144, 84]);
    // Who set it is who set the size of the images.
    let origin = |path: &str| {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        resolved.origins.of(&path).unwrap().to_string()
    };
    assert!(origin("student.vit.image_size").ends_with("x.toml"));
    assert!(origin("teacher.model.vit.image_size").contains("--set"));
    // What is printed has the value, and reads as the same.
    let printed = config.to_toml();
    assert!(printed.contains("image_size = [96, 56]"), "{printed}");
    assert_eq!(ok(&[("again.toml", &printed)], &[]).config, *config);
}

#[test]
fn other_models_have_none() {
    for text in [
        "",
        "task = \"classification\"",
        "student.classifier = \"vit\"",
    ] {
        let config = ok(&[("x.toml", text)], &[]).config;
        assert!(config.student.vit.image_size.is_empty(), "{text}");
        assert!(config.teacher.model.vit.image_size.is_empty(), "{text}");
    }
}

#[test]
fn what_cannot_be_is_refused_at_its_key() {
    for (set, key, words) in [
        (
            "data.transform.resize=\"keep_ratio\"",
            "student.vit.image_size",
            "images of one size",
        ),
        (
            "student.vit.image_size=[96, 64]",
            "student.vit.image_size",
            "the images of this model have the size [96, 56]",
        ),
        (
            "student.vit.image_size=[96]",
            "student.vit.image_size",
            "expected `[height, width]`",
        ),
        (
            "student.vit.patch_size=64",
            "student.vit.image_size",
            "each at least `student.vit.patch_size` (64)",
        ),
        (
            "teacher.model.vit.image_size=[32, 32]",
            "teacher.model.vit.image_size",
            "the images of this model have the size [96, 56]",
        ),
        (
            "student.trainable_layers=3",
            "student.trainable_layers",
            "no stages to count, got 3",
        ),
        ("student.vit.heads=5", "student.vit.dim", "multiple of"),
    ] {
        let text = message(&[("x.toml", VIT)], &[set]);
        assert!(text.contains(key) && text.contains(words), "{set}: {text}");
    }
}

#[test]
fn a_part_out_of_the_middle_has_one_size() {
    let set = [
        "data.transform.resize=\"center_crop\"",
        "data.transform.short_side=110",
    ];
    let config = ok(&[("x.toml", VIT)], &set).config;
    assert_eq!(config.student.vit.image_size, [96, 56]);
}

/// Images that have no size in common are taken at the given one.
#[test]
fn a_given_size_stands_where_images_have_none() {
    let set = [
        "data.transform.resize=\"none\"",
        "student.vit.image_size=[64, 64]",
        "teacher.model.classifier=\"convnet\"",
    ];
    let config = ok(&[("x.toml", VIT)], &set).config;
    assert_eq!(config.student.vit.image_size, [64, 64]);
}

#[test]
fn derived_settings_are_fitted_to_their_images() {
    let mut config = ok(&[("x.toml", VIT)], &[]).config;
    config.data.transform.size = [48, 32];
    config.teacher.input_size = vec![96, 64];
    config.fit_image_sizes();
    assert_eq!(config.student.vit.image_size, [48, 32]);
    assert_eq!(config.teacher.model.vit.image_size, [96, 64]);
}
