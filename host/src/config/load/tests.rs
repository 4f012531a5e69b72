use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// Writes `files` into a fresh folder and resolves the first one with overrides.
fn resolve(
    files: &[(&str, &str)],
    set: &[&str],
) -> (tempfile::TempDir, Result<Resolved, ConfigError>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let sources = Sources {
        files: files
            .first()
            .map(|(name, _)| folder.path().join(name))
            .into_iter()
            .collect(),
        set: set.iter().map(|text| (*text).to_owned()).collect(),
        ..Sources::default()
    };
    let resolved = sources.resolve();
    (folder, resolved)
}

fn ok(files: &[(&str, &str)], set: &[&str]) -> Resolved {
    resolve(files, set).1.unwrap()
}

fn message(files: &[(&str, &str)], set: &[&str]) -> String {
    resolve(files, set).1.unwrap_err().to_string()
}

fn problems(files: &[(&str, &str)], set: &[&str]) -> Vec<Problem> {
    match resolve(files, set).1.unwrap_err() {
        ConfigError::Invalid { problems } => problems,
        other => panic!("expected problems, got: {other}"),
    }
}

fn shipped() -> Vec<PathBuf> {
    fn collect(folder: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("ab") {
                // Comparisons, which are no configurations; the tests of the command read them.
            } else if path.is_dir() {
                collect(&path, out);
            } else if path.extension().is_some_and(|e| e == "toml") {
                out.push(path);
            }
        }
    }
    let mut out = Vec::new();
    collect(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("configs"),
        &mut out,
    );
    out.sort();
    out
}

mod entries;
mod image_size;
mod tasks;

#[test]
fn the_base_resolves_and_says_every_key() {
    let base: toml::Table = toml::from_str(BASE).unwrap();
    let printed: toml::Table = toml::from_str(&Config::base().to_toml()).unwrap();
    assert_eq!(printed, base);
}

#[test]
fn every_shipped_file_resolves_and_prints_back_to_itself() {
    let files = shipped();
    assert!(files.len() >= 7, "{files:?}");
    for file in files {
        let sources = Sources {
            files: vec![file.clone()],
            ..Sources::default()
        };
        let resolved = sources
            .resolve()
            .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        for text in [resolved.config.to_toml(), resolved.to_toml_with_origins()] {
            let again = ok(&[("again.toml", &text)], &[]);
            assert_eq!(again.config, resolved.config, "{}", file.display());
        }
    }
}

#[test]
fn tables_merge_and_everything_else_is_replaced() {
    let config = ok(&[("a.toml", "[train]\nlr = 0.5\nmilestones = [3]\n")], &[]).config;
    let base = Config::base();
    assert_eq!(config.train.lr, 0.5); // the literal above
    assert_eq!(config.train.milestones, [3]);
    assert_eq!(config.train.momentum, base.train.momentum);
    assert_eq!(config.data, base.data);
}

#[test]
fn files_extend_files_in_order() {
    let config = ok(
        &[
            (
                "top.toml",
                "extends = [\"sub/a.toml\", \"sub/b.toml\"]\n[train]\nepochs = 7\n",
            ),
            (
                "sub/a.toml",
                "extends = \"../root.toml\"\nseed = 2\n[train]\nepochs = 5\nlr = 0.5\n",
            ),
            ("sub/b.toml", "[train]\nlr = 0.25\n"),
            ("root.toml", "seed = 1\n[eval]\nmax_images = 9\n"),
        ],
        &[],
    )
    .config;
    assert_eq!((config.seed, config.eval.max_images), (2, 9));
    assert_eq!((config.train.epochs, config.train.lr), (7, 0.25));
}

#[test]
fn a_file_may_be_extended_twice_but_not_in_a_circle() {
    let diamond = [
        ("top.toml", "extends = [\"a.toml\", \"b.toml\"]"),
        ("a.toml", "extends = \"c.toml\""),
        ("b.toml", "extends = \"c.toml\""),
        ("c.toml", "seed = 4"),
    ];
    assert_eq!(ok(&diamond, &[]).config.seed, 4);

    let circle = [
        ("top.toml", "extends = \"a.toml\""),
        ("a.toml", "extends = \"x/../b.toml\""),
        ("b.toml", "extends = \"a.toml\""),
        ("x/unused.toml", ""),
    ];
    match resolve(&circle, &[]).1.unwrap_err() {
        ConfigError::Cycle { chain } => {
            let names: Vec<_> = chain.iter().map(|p| p.file_name().unwrap()).collect();
            assert_eq!(names, ["a.toml", "b.toml", "a.toml"]);
        }
        other => panic!("expected a circle, got: {other}"),
    }
}

#[test]
fn a_missing_file_names_the_file_that_extends_it() {
    let text = message(&[("top.toml", "extends = \"gone.toml\"")], &[]);
    assert!(text.contains("gone.toml, which "), "{text}");
    assert!(text.contains("top.toml extends"), "{text}");
    let text = message(&[("top.toml", "extends = 3")], &[]);
    assert!(
        text.contains("expected a path or a list of paths, got integer `3`"),
        "{text}"
    );
}

#[test]
fn broken_toml_names_the_file_and_the_line() {
    let error = resolve(&[("bad.toml", "seed = 1\n[train\n")], &[])
        .1
        .unwrap_err();
    assert!(
        error.to_string().contains("bad.toml is not valid TOML"),
        "{error}"
    );
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("line 2"), "{source}");
}

#[test]
fn an_unknown_key_names_the_file_and_the_nearest_key() {
    let text = message(
        &[
            ("top.toml", "extends = \"x.toml\""),
            ("x.toml", "[train]\nlrr = 0.1\n"),
        ],
        &[],
    );
    assert!(text.starts_with("unknown key `train.lrr` in "), "{text}");
    assert!(text.ends_with("x.toml; did you mean `train.lr`?"), "{text}");
}

#[test]
fn unknown_keys_at_depth_and_in_the_wrong_table() {
    let text = message(&[], &["teacher.model.focal_gama=3"]);
    assert_eq!(
        text,
        "unknown key `teacher.model.focal_gama` in `--set teacher.model.focal_gama=3`; did you mean \
         `teacher.model.focal_gamma`?"
    );
    let text = message(&[], &["momentum=0.5"]);
    assert!(text.ends_with("did you mean `train.momentum`?"), "{text}");
    let text = message(&[], &["eval.zzzzzz=0.5"]);
    assert!(
        text.ends_with("; known here: batch_size, max_images, oracle"),
        "{text}"
    );
}

#[test]
fn all_problems_are_reported_at_once() {
    let found = problems(
        &[(
            "x.toml",
            "sed = 1\n[train]\nlr = \"fast\"\noptimizer = \"sdg\"\n",
        )],
        &["data.batch_size=0", "train=3"],
    );
    // `--set train=3` replaces the table with both wrong values in it.
    let keys: Vec<&str> = found.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(keys, ["data.batch_size", "sed", "train"]);
    let text = found[0].to_string();
    assert_eq!(
        text,
        "`data.batch_size` in `--set data.batch_size=0`: expected an integer of at least 1, got the \
         integer `0`"
    );
    assert!(
        found[2]
            .to_string()
            .ends_with("expected a table, got the integer `3`")
    );
}

#[test]
fn wrong_types_say_what_is_expected() {
    for (set, expected) in [
        (
            "train.lr=fast",
            "expected a number of more than 0, got the string \"fast\"",
        ),
        (
            "train.epochs=1.5",
            "expected an integer of at least 1, got the float `1.5`",
        ),
        (
            "data.transform.size=[64]",
            "expected a list of 2, each an integer of at least 32, got a list of 1",
        ),
        (
            "data.transform.size=[64, 16]",
            "expected an integer of at least 32, got the integer `16`",
        ),
        (
            "data.voc.keep_difficult=1",
            "expected `true` or `false`, got the integer `1`",
        ),
        (
            "train.optimizer=sdg",
            "expected one of `\"sgd\"`, `\"adamw\"`, got the string \"sdg\"; did you mean `sgd`?",
        ),
        ("train.lr=nan", "expected a finite number, got `nan`"),
        (
            "distill.config.since=1979-05-27",
            "expected a string (put the date in quotes), got `1979-05-27`",
        ),
    ] {
        let text = message(&[], &[set]);
        assert!(text.ends_with(expected), "{set}: {text}");
        assert!(text.contains(&format!("`--set {set}`")), "{text}");
    }
}

#[test]
fn ranges_and_rules() {
    for set in [
        "data.transform.flip_prob=1.5",
        "data.transform.std=[0.2, 0.2, 0]",
        "data.transform.long_side=100",
        "data.workers=-1",
        "student.fg_iou_threshold=0.2",
        "student.anchor_scales=[]",
        "student.anchor_ratios=[-1.0]",
        "student.trainable_layers=3",
        "student.trainable_layers=6",
        "student.fcos.base_size=1",
        "student.fcos.center_sampling_radius=0.0",
        "student.fcos.norm_groups=0",
        "student.backbone=resnet19",
        "student.backbone=mobilenet_v2",
        "student.mobilenet_width=0.0",
        "student.deeplab.aspp_channels=0",
        "student.deeplab.atrous_rates=[1, 0, 2]",
        "teacher.model.deeplab.output_stride=32",
        "teacher.model.focal_alpha=2",
        "train.accumulate=0",
        "train.betas=[0.9, 1.0]",
        "train.ema_decay=1.0",
        "train.milestones=[8, 8]",
        "train.milestones=[0]",
        "train.warmup_factor=-0.1",
        "data.voc.classes=[\"a\", \"b\", \"a\"]",
        "data.dataset=voc",
        "distill.plugin=",
        "output_dir=",
        "seed=-1",
    ] {
        let key = set.split('=').next().unwrap();
        let found = problems(&[], &[set]);
        assert_eq!(found.len(), 1, "{set}: {found:?}");
        // `data.dataset=voc` wants another key; a list's problem names the item.
        let wanted = if key == "data.dataset" {
            "data.voc.root"
        } else {
            key
        };
        let wanted = if key == "student.fg_iou_threshold" {
            "student.bg_iou_threshold"
        } else {
            wanted
        };
        assert!(found[0].key.starts_with(wanted), "{set}: {}", found[0]);
    }
}

#[test]
fn set_takes_toml_values_or_strings() {
    let config = ok(
        &[],
        &[
            "student.backbone=resnet18",
            "teacher.model.backbone = \"resnet34\"",
            "train.lr=1",
            "train.milestones=[2, 4]",
            "data.voc.train_split=a=b",
            "distill.loss_weights.\"kd/x.y\"=2.5",
            "distill.config={ window = 7 }",
            "distill.config.deep.er=true",
            "train.epochs=3",
            "train.epochs=4",
        ],
    )
    .config;
    assert_eq!(config.student.backbone, "resnet18");
    assert_eq!(config.teacher.model.backbone, "resnet34");
    assert_eq!(config.train.lr, 1.0);
    assert_eq!(config.train.milestones, [2, 4]);
    assert_eq!(config.data.voc.train_split, "a=b");
    assert_eq!(config.distill.single.loss_weights["kd/x.y"], 2.5);
    assert_eq!(config.distill.single.config["window"], 7);
    assert_eq!(
        config.distill.single.config["deep"],
        serde_json::json!({"er": true})
    );
    assert_eq!(config.train.epochs, 4);
}

#[test]
fn malformed_overrides_are_refused() {
    for set in ["train.lr", "=3", "train..lr=3", "a\nb=3", "train lr=3"] {
        let error = resolve(&[], &[set]).1.unwrap_err();
        assert!(
            matches!(error, ConfigError::SetForm { .. }),
            "{set:?}: {error}"
        );
    }
}

#[test]
fn flags_win_over_everything_and_are_named() {
    let sources = |value: i64| Sources {
        set: vec!["seed=5".to_owned()],
        flags: vec![Flag {
            name: "--seed",
            key: "seed",
            value: Value::Integer(value),
        }],
        ..Sources::default()
    };
    assert_eq!(sources(6).resolve().unwrap().config.seed, 6);
    let text = sources(-1).resolve().unwrap_err().to_string();
    assert!(text.starts_with("`seed` in `--seed`: "), "{text}");
}

#[test]
fn paths_are_relative_to_the_file_that_sets_them() {
    let (folder, resolved) = resolve(
        &[
            (
                "top.toml",
                "extends = \"sub/a.toml\"\noutput_dir = \"out\"\n[distill]\nplugin = \"libm.so\"\n",
            ),
            (
                "sub/a.toml",
                "[data.voc]\nroot = \"../d\"\n[student]\nweights = \"./w.safetensors\"\n\
                 [teacher.model]\nweights = \"/abs/w\"\n[distill]\nplugin = \"./libm.so\"\n",
            ),
        ],
        &["teacher.checkpoint=t.safetensors"],
    );
    let config = resolved.unwrap().config;
    let root = folder.path().canonicalize().unwrap();
    assert_eq!(config.data.voc.root, root.join("d"));
    assert_eq!(config.student.weights, root.join("sub/w.safetensors"));
    assert_eq!(config.teacher.model.weights, Path::new("/abs/w"));
    let here = std::env::current_dir().unwrap();
    assert_eq!(config.teacher.checkpoint, here.join("t.safetensors"));
    assert_eq!(config.output_dir, Path::new("out"));
    // A bare file name is searched, not joined.
    assert_eq!(config.distill.single.plugin, "libm.so");

    let (folder, resolved) = resolve(&[("p.toml", "[distill]\nplugin = \"./libm.so\"\n")], &[]);
    let plugin = folder.path().canonicalize().unwrap().join("libm.so");
    assert_eq!(
        Path::new(&resolved.unwrap().config.distill.single.plugin),
        plugin
    );
}

#[test]
fn every_key_knows_who_set_it() {
    let resolved = ok(&[("x.toml", "[train]\nlr = 0.5\n")], &["train.epochs=3"]);
    let of = |key: &str| {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        resolved.origins.of(&path).unwrap().to_string()
    };
    assert!(of("train.lr").ends_with("x.toml"));
    assert_eq!(of("train.epochs"), "`--set train.epochs=3`");
    assert_eq!(of("train.gamma"), "the embedded default");
    assert_eq!(of("distill.config"), "the embedded default");
    let text = resolved.to_toml_with_origins();
    let line = text
        .lines()
        .find(|l| l.starts_with("train.epochs = 3"))
        .unwrap();
    assert!(line.ends_with("# `--set train.epochs=3`"), "{line}");
    assert!(text.contains("student.score_threshold = 0.05 "), "{text}");
}
