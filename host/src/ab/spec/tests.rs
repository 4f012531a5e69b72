use super::*;

fn arm(text: &str) -> ArmSpec {
    ArmSpec::parse(text).unwrap()
}

#[test]
fn arms_are_files_with_settings_behind_a_colon() {
    assert_eq!(arm("none"), ArmSpec::control());
    let plain = arm("./build/libkd_one.so");
    assert_eq!(plain.name, "one");
    assert_eq!(plain.plugins, ["./build/libkd_one.so"]);
    let set = arm("libkd_one.so:weight=2,k=[1, 2],train.lr=0.1,loss_weights.a=3");
    assert_eq!(
        set.set,
        [
            "distill.weight=2",
            "distill.config.k=[1, 2]",
            "train.lr=0.1",
            "distill.loss_weights.a=3"
        ]
    );
    assert_eq!(
        set.name,
        "one:weight=2,k=[1, 2],train.lr=0.1,loss_weights.a=3"
    );
    assert!(!set.folder().contains(['/', ':', ' ']), "{}", set.folder());
    let named = arm("twice=libkd_one.so+libkd_two.so:methods.one.weight=2");
    assert_eq!(named.name, "twice");
    assert_eq!(named.plugins, ["libkd_one.so", "libkd_two.so"]);
    assert_eq!(named.set, ["distill.methods.one.weight=2"]);
    assert_eq!(arm("libkd_one.so+libkd_two.so").name, "one+two");
}

#[test]
fn arms_of_another_form_are_refused() {
    for text in [
        "",
        "=x.so",
        "x=",
        "x.so:",
        "x.so:weight",
        "none+x.so",
        "x.so+",
        "x.so:=2",
    ] {
        let error = ArmSpec::parse(text).unwrap_err().to_string();
        assert!(error.contains(&format!("`--arm {text}`")), "{error}");
        assert!(error.contains("FILE[:KEY=VALUE"), "{error}");
    }
}

#[test]
fn seeds_are_a_number_or_a_list() {
    assert_eq!(parse_seeds("3").unwrap(), [0, 1, 2]);
    assert_eq!(parse_seeds("7,3").unwrap(), [7, 3]);
    for text in ["0", "x", "3,3", "3,", "-1", "1001"] {
        assert!(parse_seeds(text).is_err(), "{text}");
    }
}

#[test]
fn the_control_comes_first_and_is_added() {
    let spec = |arms: &[&str]| Spec {
        arms: arms.iter().map(|text| arm(text)).collect(),
        ..Spec::empty()
    };
    let names = |spec: Spec| -> Vec<String> {
        let arms = spec.checked().unwrap().arms;
        arms.into_iter().map(|arm| arm.name).collect()
    };
    assert_eq!(names(spec(&["libkd_x.so"])), ["none", "x"]);
    assert_eq!(names(spec(&["libkd_x.so", "none"])), ["none", "x"]);
    for (arms, expected) in [
        (&["none"][..], "nothing to compare"),
        (&["none:train.lr=1", "libkd_x.so"], "same name"),
        (&["libkd_x.so", "a/libkd_x.so"], "same name or folder"),
        (&["none=libkd_x.so"], "plain training without settings"),
    ] {
        let error = spec(arms).checked();
        match error {
            Err(error) => assert!(error.to_string().contains(expected), "{error}"),
            // A control with settings has a name of its own: an arm like any other.
            Ok(spec) => assert_eq!(spec.arms.len(), 3),
        }
    }
    for change in [
        (|spec| spec.threshold = -1.0) as fn(&mut Spec),
        |spec| spec.alpha = 0.7,
        |spec| spec.bootstrap = 10,
        |spec| spec.sd = Some(0.0),
        |spec| (spec.sd, spec.pilot) = (Some(1.0), Some("x".into())),
        |spec| spec.jobs = 0,
    ] {
        let mut spec = spec(&["libkd_x.so"]);
        change(&mut spec);
        assert!(spec.checked().is_err());
    }
}

#[test]
fn a_file_says_the_same_as_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ab.toml");
    std::fs::write(
        &path,
        r#"
        config = "base.toml"
        set = { "train.epochs" = 3 }
        seeds = [4, 2]
        threshold = 0.3
        jobs = 2
        allow_diff = ["train.lr"]
        [[arms]]
        plugin = "none"
        [[arms]]
        name = "mine"
        plugin = "./libkd_x.so"
        set = { weight = 2, k = [1, 2] }
        "#,
    )
    .unwrap();
    let spec = Spec::load(&path).unwrap();
    assert_eq!(spec.config, [folder.path().join("base.toml")]);
    assert_eq!(spec.set, ["train.epochs=3"]);
    assert_eq!((spec.seeds, spec.jobs), (vec![4, 2], 2));
    assert_eq!(spec.arms[0], ArmSpec::control());
    assert_eq!(spec.arms[1].name, "mine");
    assert_eq!(
        spec.arms[1].set,
        ["distill.config.k=[1, 2]", "distill.weight=2"]
    );
    let plugin = folder.path().join("./libkd_x.so");
    assert_eq!(spec.arms[1].plugins, [plugin.to_string_lossy()]);
    std::fs::write(&path, "seed = 3\narms = []").unwrap();
    let error = Spec::load(&path).unwrap_err().to_string();
    assert!(
        error.contains("ab.toml") && error.contains("seed"),
        "{error}"
    );
}
