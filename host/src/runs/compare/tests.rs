use serde_json::json;

use super::*;
use crate::config::{Config, Sources, flat};
use crate::engine::environment::PluginFacts;
use crate::engine::train::config_hash;
use crate::runs::measured::Costs;
use crate::runs::state::State;

fn with(set: &[String]) -> Option<Config> {
    let sources = Sources {
        set: set.to_vec(),
        ..Sources::default()
    };
    Some(sources.resolve().ok()?.config)
}

fn run(set: &[&str]) -> Run {
    let set: Vec<String> = set.iter().map(|text| (*text).to_owned()).collect();
    let plugin = PluginFacts {
        path: "libm.so".into(),
        sha256: "aa".into(),
        method: "m".into(),
        manifest: json!({"version": "1.0.0"}),
    };
    Run {
        folder: "r".into(),
        started: None,
        config: with(&set),
        environment: Some(Environment::current([("m".to_owned(), plugin)].into())),
        state: State::Done,
        evaluation: Some(Evaluation {
            iter: None,
            values: vec![("AP".into(), 0.25), ("AP_S".into(), -1.0)],
            protocol: Some("p".into()),
            image_list_hash: Some("h".into()),
        }),
        progress: None,
        costs: Costs {
            parts: vec![("data".into(), 0.25), ("optimizer".into(), 0.5)],
            peak_bytes: Some(8),
        },
    }
}

fn keys(differences: &[KeyDifference]) -> Vec<&str> {
    differences.iter().map(|one| one.key.as_str()).collect()
}

#[test]
fn equal_runs_differ_in_nothing() {
    let comparison = compare(&run(&[]), &run(&[]));
    for group in [
        &comparison.configuration,
        &comparison.without_effect,
        &comparison.environment,
        &comparison.plugins,
        &comparison.data,
    ] {
        assert_eq!(keys(group), [""; 0]);
    }
    assert_eq!(comparison.cautions, [""; 0]);
    assert_eq!(comparison.metrics[0].difference, Some(0.0));
}

#[test]
fn every_group_names_what_differs() {
    let a = run(&[]);
    let mut b = run(&["train.lr=0.5", "output_dir=elsewhere"]);
    let environment = b.environment.as_mut().unwrap();
    environment.threads += 1;
    environment.commit = Some("c0ffee".into());
    let plugin = environment.plugins.get_mut("m").unwrap();
    plugin.sha256 = "bb".into();
    plugin.manifest = json!({"version": "1.1.0"});
    b.evaluation.as_mut().unwrap().values = vec![("AP".into(), 0.5), ("AP50".into(), 0.75)];
    let comparison = compare(&a, &b);
    assert_eq!(keys(&comparison.configuration), ["train.lr"]);
    assert_eq!(keys(&comparison.without_effect), ["output_dir"]);
    assert_eq!(keys(&comparison.environment), ["commit", "threads"]);
    assert_eq!(comparison.environment[0].a, None);
    assert_eq!(keys(&comparison.plugins), ["m.sha256", "m.version"]);
    let said: Vec<_> = comparison
        .metrics
        .iter()
        .map(|pair| (pair.name.as_str(), pair.a, pair.b, pair.difference))
        .collect();
    assert_eq!(
        said,
        [
            ("AP", Some(0.25), Some(0.5), Some(0.25)),
            ("AP_S", None, None, None),
            ("AP50", None, Some(0.75), None),
        ]
    );
    let costs: Vec<&str> = comparison.costs.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(costs, ["data", "optimizer", "total", "peak_bytes"]);
    assert_eq!(comparison.costs[2].a, Some(0.75));
}

#[test]
fn numbers_of_other_images_or_another_protocol_do_not_compare() {
    let a = run(&[]);
    let mut b = run(&[]);
    b.evaluation.as_mut().unwrap().image_list_hash = Some("other".into());
    let comparison = compare(&a, &b);
    assert_eq!(keys(&comparison.data), ["image_list_hash"]);
    assert_eq!(
        comparison.cautions,
        ["the numbers do not compare: the evaluations have different lists of images"]
    );
    b.evaluation.as_mut().unwrap().protocol = Some("q".into());
    let cautions = compare(&a, &b).cautions;
    assert!(
        cautions[0].contains("lists of images and protocols"),
        "{cautions:?}"
    );
}

#[test]
fn a_run_that_has_not_ended_is_said_to_have_no_protocol() {
    let (a, mut b) = (run(&[]), run(&[]));
    let evaluation = b.evaluation.as_mut().unwrap();
    (evaluation.iter, evaluation.protocol) = (Some(40), None);
    evaluation.image_list_hash = None;
    let cautions = compare(&a, &b).cautions;
    assert_eq!(cautions.len(), 1);
    assert!(cautions[0].starts_with("B has not ended: its numbers are those after iter 40"));
}

/// Changes every setting by itself, and asks the hash of the settings that decide a result.
#[test]
fn settings_without_effect_are_those_that_the_hash_of_a_configuration_leaves_out() {
    let methods = [
        "distill.methods.near.plugin=libm.so",
        "distill.methods.a-b.plugin=libn.so",
    ];
    let methods = methods.map(str::to_owned);
    let base = with(&methods).unwrap();
    let hash = config_hash(&base);
    let mut tried = [0, 0];
    for (key, value) in flat(&base) {
        let words = ["fresh", "warn", "elsewhere"].map(|word| format!("\"{word}\""));
        let number = value
            .parse::<f64>()
            .map(|number| (number + 1.0).to_string());
        let whole = value.parse::<i64>().map(|number| (number + 1).to_string());
        let flipped = (value == "true").to_string();
        let changed = [whole.ok(), number.ok(), Some(flipped)]
            .into_iter()
            .flatten();
        let configs = changed.chain(words).filter_map(|value| {
            let set = [&methods[..], &[format!("{key}={value}")]].concat();
            with(&set).filter(|config| *config != base)
        });
        let Some(config) = configs.into_iter().next() else {
            continue;
        };
        if key == "device" {
            continue;
        }
        let has_effect = config_hash(&config) != hash;
        assert_eq!(is_without_effect(&key), !has_effect, "{key}");
        tried[usize::from(has_effect)] += 1;
    }
    assert!(tried[0] >= 8 && tried[1] > 60, "{tried:?}");
}
