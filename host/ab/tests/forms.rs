//! What is written of a report, read back: JSON, its schema, the table to paste, the page.
#![expect(
    clippy::unwrap_used,
    reason = "functions shared by tests fail as tests do"
)]

mod example;

use std::env;
use std::fs;
use std::path::Path;

use kdhost_ab::{html, json, markdown, report};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

fn crate_file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn json_comes_back_as_it_was() {
    for (name, report) in example::all() {
        let text = json::to_string(&report);
        assert!(text.ends_with("}\n"), "{name}");
        assert_eq!(json::from_str(&text).unwrap(), report, "{name}");
    }
}

#[test]
fn what_is_no_report_is_refused_with_the_reason() {
    let whole: Value = serde_json::from_str(&json::to_string(&example::complete())).unwrap();
    let refusal = |change: &dyn Fn(&mut Value)| {
        let mut changed = whole.clone();
        change(&mut changed);
        json::from_str(&changed.to_string())
            .unwrap_err()
            .to_string()
    };
    assert!(
        json::from_str("not JSON")
            .unwrap_err()
            .to_string()
            .contains("report.json")
    );
    let other = refusal(&|r| r["schema"] = json!("kdhost.ab/99"));
    assert!(
        other.contains("kdhost.ab/99") && other.contains("kdhost.ab/1"),
        "{other}"
    );
    let unknown = refusal(&|r| r["design"]["thresold"] = json!(1));
    assert!(unknown.contains("thresold"), "{unknown}");
    let missing = refusal(&|r| drop(r["design"].as_object_mut().unwrap().remove("alpha")));
    assert!(missing.contains("alpha"), "{missing}");
}

#[test]
fn committed_schema_is_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("report.schema.json");
    let now = report::schema();
    if env::var_os("KD_UPDATE_SCHEMA").is_some() {
        fs::write(&file, serde_json::to_string_pretty(&now).unwrap() + "\n").unwrap();
    }
    assert_eq!(now["$id"], report::SCHEMA);
    // As values: whether keys keep their order is decided by whoever else uses serde_json in the same build.
    let committed: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert!(
        committed == now,
        "run with KD_UPDATE_SCHEMA=1 and commit report.schema.json"
    );
}

#[test]
fn schema_takes_reports_and_nothing_else() {
    let schema = jsonschema::validator_for(
        &serde_json::from_str(&crate_file("report.schema.json")).unwrap(),
    )
    .unwrap();
    for (name, report) in example::all() {
        let value = serde_json::to_value(&report).unwrap();
        let errors: Vec<String> = schema
            .iter_errors(&value)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
    let whole = serde_json::to_value(example::complete()).unwrap();
    let mut changed = [(); 4].map(|()| whole.clone());
    changed[0]["comparisons"][0]["verdict"] = json!("splendid");
    changed[1]["arms"][0]["runs"][0]["colour"] = json!("red");
    changed[2]["design"]
        .as_object_mut()
        .unwrap()
        .remove("seeds");
    changed[3]["comparisons"][1]["pairs"][0]["difference"] = json!("0.3");
    for value in changed {
        assert!(!schema.is_valid(&value));
    }
}

#[test]
fn table_of_a_whole_comparison() {
    let text = markdown::table(&example::complete());
    let expected = "\
| arm | AP (n) | difference [95 %] | p (Holm) | verdict | ms/step | peak MiB | training parameters |
|---|---:|---:|---:|---|---:|---:|---:|
| none | 30.22 ± 0.30 (5) | – | – | control | 12.4 ± 0.1 | 211 ± 1 | 0 |
| ssim:weight=2 | 31.60 ± 0.49 (5) | +1.38 [+1.14, +1.62] | 0.0003 | better | 27.5 ± 0.2 | 218 ± 1 | 24832 |
| hint | 30.22 ± 0.26 (5) | 0.00 [-0.06, +0.07] | 0.87 | no difference shown | 29.6 ± 0.2 | 224 ± 1 | 49664 |
| lgd | 30.90 ± 0.81 (4) | +0.57 [-0.80, +1.95] | 0.55 | underpowered | 31.7 ± 0.2 | 231 ± 2 | 74496 |

3 arms against the control (none) in detection, 5 seeds (1–5), paired by seed. Differences are arm − control in points of AP, with Student's 95 % intervals; the smallest that matters is 0.30; α = 0.05 over 3 comparisons (Holm). Evaluated on 300 images of shapes (list f0234678abcd) with coco/1 maxDets 1,10,100 IoU 0.50:0.05:0.95.

Resolution: 5 seeds find a true difference of 2.29 standard deviations of the paired differences with a probability of 80 %, which is 0.92 points at a standard deviation of 0.40 (stated).

**Problems**

- lgd, seed 3: The run failed: loss_cls is NaN at iter 812. Its seed is left out of the comparison.

**Left out**

- lgd, seed 3: lgd/seed-3 failed: loss_cls is NaN at iter 812
";
    assert_eq!(text, expected);
}

#[test]
fn names_cannot_break_the_table() {
    for (name, report) in example::all() {
        let text = markdown::table(&report);
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), report.arms.len() + 2, "{name}");
        for row in rows {
            assert_eq!(
                row.replace("\\|", "").matches('|').count(),
                9,
                "{name}: {row}"
            );
        }
        for line in text.lines() {
            assert!(
                !line.replace("\\<", "").contains('<'),
                "{name}: {line} would be HTML"
            );
        }
    }
}

#[test]
fn page_holds_the_report_and_its_scripts_alone() {
    for (name, report) in example::all() {
        let page = html::render(&report);
        let (_, data) = page
            .split_once("<script id=\"data\" type=\"application/json\">")
            .unwrap();
        let (data, _) = data.split_once("</script>").unwrap();
        assert_eq!(json::from_str(data).unwrap(), report, "{name}");
        // The data, D3, Plot and the page's own.
        assert_eq!(page.matches("<script").count(), 4, "{name}");
        assert_eq!(page.matches("</script").count(), 4, "{name}");
        assert!(
            !page.contains("{{"),
            "{name}: a place of the template is left"
        );
        assert!(!page.contains("sourceMappingURL"), "{name}");
    }
}

#[test]
fn vendored_scripts_are_those_of_their_page() {
    let page = crate_file("assets/vendor/README.md");
    for file in ["d3.min.js", "plot.umd.min.js"] {
        let hash = Sha256::digest(crate_file(&format!("assets/vendor/{file}")));
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| `{file}`")))
            .unwrap();
        assert!(row.contains(&hash), "{file} is {hash}");
    }
}
