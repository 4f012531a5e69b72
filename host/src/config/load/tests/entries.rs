//! Methods and teachers by name.

use super::super::super::{
    MethodConfig, Moment, TeacherConfig, WeightSchedule, WeightScheduleKind,
};
use super::*;

fn with_plugins(files: &[(&str, &str)], plugins: &[&str]) -> Result<Resolved, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let sources = Sources {
        files: files
            .iter()
            .map(|(name, _)| folder.path().join(name))
            .collect(),
        plugins: plugins.iter().map(|plugin| (*plugin).to_owned()).collect(),
        ..Sources::default()
    };
    sources.resolve()
}

const TWO: &str = "
[distill.methods.first]
plugin = \"libone.so\"
weight = 0.5

[distill.methods.second]
plugin = \"./libtwo.so\"
config = { window = 7 }
";

#[test]
fn entries_take_what_they_leave_out_from_the_embedded_default() {
    let (folder, resolved) = resolve(&[("x.toml", TWO)], &["distill.methods.first.config.k=2"]);
    let resolved = resolved.unwrap();
    let methods = &resolved.config.distill.methods;
    let default = Config::base().distill.single;
    let expected = MethodConfig {
        plugin: "libone.so".into(),
        weight: 0.5,
        config: [("k".to_owned(), serde_json::json!(2))].into(),
        ..default
    };
    assert_eq!(methods["first"], expected);
    let file = folder.path().canonicalize().unwrap().join("libtwo.so");
    assert_eq!(Path::new(&methods["second"].plugin), file);
    assert_eq!(methods["second"].weight, 1.0);
    let of = |key: &str| {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        resolved.origins.of(&path).unwrap().to_string()
    };
    assert!(of("distill.methods.first.weight").ends_with("x.toml"));
    assert_eq!(of("distill.methods.second.weight"), "the embedded default");

    let labels = |config: &Config| {
        let entries = config.distill.entries();
        let keys = entries.iter().map(|entry| entry.key("taps"));
        keys.collect::<Vec<_>>().join(" ")
    };
    let keys = "distill.methods.first.taps distill.methods.second.taps";
    assert_eq!(labels(&resolved.config), keys);
    assert_eq!(
        labels(&ok(&[], &["distill.plugin=libm.so"]).config),
        "distill.taps"
    );
    assert_eq!(labels(&Config::base()), "");
    // What is printed resolves to the same.
    for text in [resolved.config.to_toml(), resolved.to_toml_with_origins()] {
        assert_eq!(ok(&[("again.toml", &text)], &[]).config, resolved.config);
    }
}

#[test]
fn one_form_or_the_other() {
    for (set, key) in [
        ("distill.plugin=libm.so", "distill.plugin"),
        ("distill.weight=2", "distill.weight"),
        ("distill.loss_weights.a=2", "distill.loss_weights"),
        ("distill.taps=[\"neck.p3\"]", "distill.taps"),
    ] {
        let text = message(&[("x.toml", TWO)], &[set]);
        let start = format!("`{key}` in `--set {set}`");
        assert!(text.starts_with(&start), "{text}");
        assert!(text.contains("`distill.methods.first`"), "{text}");
    }
}

#[test]
fn entries_are_checked_where_they_stand() {
    for (set, needle) in [
        (
            "distill.methods.first.plugn=3",
            "unknown key `distill.methods.first.plugn` in `--set distill.methods.first.plugn=3`; did \
             you mean `distill.methods.first.plugin`?",
        ),
        (
            "distill.methods.first.weight=-1",
            "expected a number of at least 0.0, got the integer `-1`",
        ),
        ("distill.methods.third.weight=1", "an entry needs a plugin"),
        ("distill.methods.\"a b\".plugin=x", "the label \"a b\""),
        (
            "distill.methods.first=3",
            "expected a table, got the integer `3`",
        ),
        (
            "distill.methods.first.execution=none",
            "expected one of `\"auto\"`",
        ),
    ] {
        let text = message(&[("x.toml", TWO)], &[set]);
        assert!(text.contains(needle), "{set}: {text}");
    }
}

#[test]
fn plugins_of_the_command_line_become_entries_named_after_their_files() {
    let one = with_plugins(&[], &["libkd_a.so"]).unwrap().config;
    assert_eq!(one.distill.single.plugin, "libkd_a.so");
    assert!(one.distill.methods.is_empty());

    let settings =
        "[distill.methods.a]\nweight = 0.25\n[distill.methods.c]\nplugin = \"libc.so\"\n";
    let several = |plugins: &[&str]| {
        let resolved = with_plugins(&[("x.toml", settings)], plugins);
        resolved.unwrap().config.distill
    };
    let distill = several(&["libkd_b.so", "libkd_a.so"]);
    assert_eq!(distill, several(&["libkd_a.so", "libkd_b.so"]));
    let found: Vec<(&str, &str, f64)> = distill
        .methods
        .iter()
        .map(|(label, method)| (label.as_str(), method.plugin.as_str(), method.weight))
        .collect();
    let expected = [
        ("a", "libkd_a.so", 0.25),
        ("b", "libkd_b.so", 1.0),
        ("c", "libc.so", 1.0),
    ];
    assert_eq!(found, expected);
    assert_eq!(distill.single, Config::base().distill.single);

    let plain = with_plugins(&[("x.toml", TWO)], &["none"]).unwrap().config;
    assert_eq!(plain.distill, Config::base().distill);
}

#[test]
fn plugins_of_the_command_line_that_cannot_be_meant_are_refused() {
    for (file, plugins, needle) in [
        (
            "",
            &["./x/libkd_a.so", "./y/libkd_a.so"][..],
            "would both be called `a`; name them in a configuration file",
        ),
        ("", &["libkd_a.so", "none"], "`--plugin none`"),
        (
            "[distill]\nplugin = \"libkd_c.so\"\n",
            &["libkd_a.so", "libkd_b.so"],
            "`distill.plugin` in ",
        ),
        (TWO, &["libkd_a.so"], "`distill.methods.first`"),
    ] {
        let text = with_plugins(&[("x.toml", file)], plugins)
            .unwrap_err()
            .to_string();
        assert!(text.contains(needle), "{plugins:?}: {text}");
    }
}

#[test]
fn schedules_of_weights_are_read_and_checked() {
    let table = "
[distill.loss_schedules.loss_fg]
kind = \"linear\"
from = 0.0
to = 1
start = { fraction = 0.0 }
end = { epochs = 1 }

[distill.methods]
";
    let config = ok(&[("x.toml", table)], &[]).config;
    let expected = WeightSchedule {
        kind: WeightScheduleKind::Linear,
        from: Some(0.0),
        to: Some(1.0),
        start: Some(Moment::Fraction(0.0)),
        end: Some(Moment::Epochs(1)),
    };
    assert_eq!(config.distill.single.loss_schedules["loss_fg"], expected);
    assert_eq!(ok(&[("again.toml", &config.to_toml())], &[]).config, config);

    let least = ok(&[], &["distill.loss_schedules.a={ kind = \"cosine\" }"]).config;
    let least = &least.distill.single.loss_schedules["a"];
    assert_eq!((least.from(), least.to(), least.end), (0.0, 1.0, None));

    for (value, needle) in [
        ("{ kind = \"until\" }", "`distill.loss_schedules.a.end`"),
        ("{ kind = \"liner\" }", "did you mean `linear`?"),
        (
            "{ from = 0.5 }",
            "`distill.loss_schedules.a.kind` is missing",
        ),
        (
            "{ kind = \"linear\", to = -1 }",
            "`distill.loss_schedules.a.to`",
        ),
        (
            "{ kind = \"linear\", too = 1 }",
            "distill.loss_schedules.a.to",
        ),
        (
            "{ kind = \"linear\", end = { fraction = 1.5 } }",
            "`fraction` is 1.5, expected 0..=1",
        ),
        (
            "{ kind = \"linear\", start = { epochs = 3 }, end = { epochs = 2 } }",
            "lies before `start`",
        ),
        (
            "{ kind = \"linear\", end = { steps = 2 } }",
            "distill.loss_schedules.a.end",
        ),
    ] {
        let set = format!("distill.loss_schedules.a={value}");
        let text = message(&[], &[&set]);
        assert!(text.contains(needle), "{value}: {text}");
    }
}

#[test]
fn named_teachers_are_as_the_unnamed_one_but_for_what_they_say() {
    let text = "
[teacher]
checkpoint = \"t.safetensors\"
epochs = 3

[teacher.model]
backbone = \"resnet18\"

[teachers.big]
checkpoint = \"\"
mean = [0.5, 0.5, 0.5]

[teachers.big.model]
backbone = \"resnet34\"
";
    let (folder, resolved) = resolve(&[("x.toml", text)], &[]);
    let resolved = resolved.unwrap();
    let config = &resolved.config;
    let unnamed = &config.teacher;
    let file = folder.path().canonicalize().unwrap().join("t.safetensors");
    assert_eq!(unnamed.checkpoint, file);
    let mut expected = TeacherConfig {
        checkpoint: PathBuf::new(),
        mean: vec![0.5; 3],
        ..unnamed.clone()
    };
    expected.model.backbone = "resnet34".into();
    assert_eq!(config.teachers["big"], expected);
    assert_eq!(config.teacher_names(), ["teacher", "big"]);
    assert_eq!(config.teacher_named("teacher"), Some(unnamed));
    assert_eq!(config.teacher_named("small"), None);
    let path = ["teachers", "big", "epochs"].map(str::to_owned);
    let origin = resolved.origins.of(&path).unwrap().to_string();
    assert!(origin.ends_with("x.toml"), "{origin}");
    let again = ok(&[("again.toml", &config.to_toml())], &[]).config;
    assert_eq!(&again, config);
}

#[test]
fn teachers_that_cannot_be_meant_are_refused() {
    for (set, needle) in [
        ("teachers.teacher.epochs=2", "is configured by `[teacher]`"),
        ("teachers.student.epochs=2", "cannot name a teacher"),
        (
            "teachers.big.epoch=2",
            "did you mean `teachers.big.epochs`?",
        ),
        ("teachers.big.mean=[0.5]", "`teachers.big.mean`"),
        ("teacher.std=[0.5, 0, 0.5]", "teacher.std"),
        ("teacher.input_size=[64]", "expected `[height, width]`"),
        (
            "teachers.big.model.trainable_layers=3",
            "`teachers.big.model.trainable_layers`",
        ),
    ] {
        let text = message(&[], &[set]);
        assert!(text.contains(needle), "{set}: {text}");
    }
    for (set, needle) in [
        ("data.transform.resize=keep_ratio", "keep their ratio"),
        (
            "teacher.input_scale=2.0",
            "`teacher.input_size` says it too",
        ),
        (
            "teachers.big.input_scale=2.0",
            "`teachers.big.input_size` says it too",
        ),
    ] {
        let text = message(&[], &["teacher.input_size=[64, 64]", set]);
        assert!(text.contains(needle), "{set}: {text}");
    }
    let text = message(&[], &["teacher.input_scale=-1.0"]);
    assert!(text.contains("teacher.input_scale"), "{text}");
    let ratio = [
        "teacher.input_scale=2.0",
        "data.transform.resize=keep_ratio",
    ];
    assert_eq!(ok(&[], &ratio).config.teacher.input_scale, 2.0);
}
