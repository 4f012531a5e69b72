use super::*;
use crate::engine::metrics_log::LogPosition;
use crate::state::Array;

fn state(values: &[f32]) -> StateDict {
    let mut state = StateDict::default();
    let array = Array {
        shape: vec![values.len()],
        data: values.to_vec(),
    };
    state.entries.insert("w".into(), array);
    state.metadata.insert("step".into(), "7".into());
    state
}

fn snapshot(iter: u64) -> Snapshot {
    Snapshot {
        progress: Progress {
            iter,
            epoch: 1,
            batch_in_epoch: 3,
            pretrain: None,
            seed: 42,
            config_hash: "c0".into(),
            plugins: BTreeMap::new(),
            finished: false,
            metrics: BTreeMap::from([("val/AP".into(), 0.1 + iter as f64 / 3.0)]),
            best: Some(Best {
                metric: "val/AP".into(),
                value: 1.0 / 3.0,
                iter: 10,
            }),
            log: LogPosition {
                metrics_bytes: 100 + iter,
                timing_bytes: 200,
                event_bytes: 300,
            },
        },
        student: state(&[iter as f32, -0.0, 1e-30]),
        optimizer: state(&[0.1]),
        method_optimizer: None,
        pretrain_optimizer: None,
        method: None,
        ema: Some(state(&[5.0])),
    }
}

fn store(folder: &tempfile::TempDir) -> CheckpointStore {
    CheckpointStore::open(folder.path(), KEEP_LAST).unwrap()
}

fn newest(store: &CheckpointStore) -> Snapshot {
    store.latest().unwrap().unwrap().1
}

#[test]
fn what_was_saved_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    assert!(store.latest().unwrap().is_none());
    let path = store.save(&snapshot(20)).unwrap();
    assert!(path.ends_with("checkpoints/iter_00000020"));
    let (found, loaded) = store.latest().unwrap().unwrap();
    assert_eq!((found, loaded), (path.clone(), snapshot(20)));
    assert_eq!(load(&path).unwrap(), snapshot(20));
    let latest = fs::read_to_string(folder.path().join("checkpoints/latest")).unwrap();
    assert_eq!(latest, "iter_00000020\n");
}

#[test]
fn a_metric_without_a_value_is_kept_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    let mut odd = snapshot(1);
    odd.progress.metrics.insert("val/AP_S".into(), f64::NAN);
    store.save(&odd).unwrap();
    assert!(newest(&store).progress.metrics["val/AP_S"].is_nan());
}

#[test]
fn the_last_ones_and_the_final_ones_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    for iter in [10, 20, 30, 100_000_000, 100_000_001] {
        let mut next = snapshot(iter);
        next.progress.finished = iter == 20;
        store.save(&next).unwrap();
    }
    let names = store.complete().unwrap();
    assert_eq!(names, ["iter_00000020", "iter_100000000", "iter_100000001"]);
    assert_eq!(newest(&store).progress.iter, 100_000_001);
}

#[test]
fn one_of_the_same_step_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    store.save(&snapshot(20)).unwrap();
    let mut evaluated = snapshot(20);
    evaluated.progress.finished = true;
    evaluated.method = Some(state(&[8.0]));
    store.save(&evaluated).unwrap();
    assert_eq!(newest(&store), evaluated);
    assert_eq!(store.complete().unwrap().len(), 1);
}

#[test]
fn an_interrupted_write_is_ignored_and_cleaned() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(&folder);
    first.save(&snapshot(20)).unwrap();
    // Died while writing step 30: some files whole, one cut, no progress yet.
    let partial = first.folder.join(".partial-iter_00000030");
    fs::create_dir(&partial).unwrap();
    fs::write(partial.join(STUDENT_FILE), b"half").unwrap();
    assert_eq!(newest(&first).progress.iter, 20);
    let again = store(&folder);
    assert!(!partial.exists());
    assert_eq!(newest(&again).progress.iter, 20);
    // The same name is free again.
    again.save(&snapshot(30)).unwrap();
    assert_eq!(newest(&again), snapshot(30));
}

#[test]
fn a_replacement_that_was_cut_short_is_undone_or_finished() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(&folder);
    let path = first.save(&snapshot(20)).unwrap();
    let replaced = first.folder.join(".replaced-iter_00000020");
    // Died between the two renames: only the old one is there, under its other name.
    fs::rename(&path, &replaced).unwrap();
    assert_eq!(newest(&store(&folder)), snapshot(20));
    assert!(!replaced.exists());
    // Died after both: the new one counts.
    fs::rename(&path, &replaced).unwrap();
    let mut new = snapshot(20);
    new.progress.epoch = 9;
    write_folder(&path, &new).unwrap();
    assert_eq!(newest(&store(&folder)), new);
    assert!(!replaced.exists());
}

#[test]
fn damage_is_named_and_the_older_one_is_offered_not_taken() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 6] = [
        (STUDENT_FILE, |path| flip_byte(path, 5)),
        (EMA_FILE, |path| fs::remove_file(path).unwrap()),
        (OPTIMIZER_FILE, |path| fs::write(path, b"").unwrap()),
        (PROGRESS_FILE, |path| fs::remove_file(path).unwrap()),
        (PROGRESS_FILE, |path| flip_byte(path, 0)),
        (PROGRESS_FILE, |path| {
            let text = fs::read_to_string(path).unwrap();
            fs::write(path, text.replace("\"seed\": 42", "\"seed\": 43")).unwrap();
        }),
    ];
    for (name, damage) in cases {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        store.save(&snapshot(20)).unwrap();
        let newest_folder = store.save(&snapshot(30)).unwrap();
        damage(&newest_folder.join(name));
        let error = store.latest().unwrap_err();
        let message = error.to_string();
        let CheckpointError::Damaged { path, previous, .. } = error else {
            panic!("{message}");
        };
        assert_eq!(path, newest_folder.join(name), "{message}");
        assert_eq!(previous.as_deref(), Some("iter_00000020"));
        assert!(
            message.contains("to continue from `iter_00000020`"),
            "{message}"
        );
        // What the message says to do works.
        fs::remove_dir_all(&newest_folder).unwrap();
        assert_eq!(newest(&store), snapshot(20));
    }
}

#[test]
fn another_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    let path = store.save(&snapshot(20)).unwrap().join(PROGRESS_FILE);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"schema\": 2", "\"schema\": 1")).unwrap();
    let error = store.latest().unwrap_err();
    assert!(
        matches!(error, CheckpointError::Schema { got: 1, .. }),
        "{error}"
    );
}

fn flip_byte(path: &Path, index: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[index] ^= 0x20;
    fs::write(path, bytes).unwrap();
}
