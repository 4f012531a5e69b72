//! Targets of locations on a small detector.

use super::*;
use crate::config::{Config, ModelConfig};
use crate::data::{ImageMeta, ImageTargets};
use crate::distill::distiller::TeacherModel;
use crate::model::{self, ForwardRequest, Model, map_size};

const INPUT: [usize; 2] = [64, 96];

fn config() -> ModelConfig {
    let mut config = Config::base().student;
    config.tiny_width = 4;
    config.fpn_channels = 8;
    config.head_convs = 1;
    config
}

fn batch() -> Batch {
    let image = |boxes_xyxy: Vec<[f32; 4]>, labels| ImageTargets {
        boxes_xyxy,
        labels,
        ..ImageTargets::default()
    };
    Batch {
        images: vec![],
        shape: [3, 3, INPUT[0], INPUT[1]],
        targets: vec![
            image(
                vec![[8.0, 8.0, 24.0, 24.0], [40.0, 4.0, 90.0, 60.0]],
                vec![2, 0],
            ),
            ImageTargets::default(),
            image(vec![[30.0, 30.0, 50.0, 46.0]], vec![1]),
        ],
        metas: vec![
            ImageMeta {
                image_id: 1,
                original_size: INPUT,
                size: INPUT,
                flipped: false,
            };
            3
        ],
        ..Batch::default()
    }
}

fn ints(target: &Target) -> &[i64] {
    match &target.values {
        TargetValues::I64(values) => values,
        TargetValues::F32(_) => panic!("floats"),
    }
}

fn floats(target: &Target) -> &[f32] {
    match &target.values {
        TargetValues::F32(values) => values,
        TargetValues::I64(_) => panic!("integers"),
    }
}

#[test]
fn labels_indices_and_masks_tell_one_assignment() {
    let detector = model::build_detector(&config(), 3).unwrap();
    let batch = batch();
    let sources = Sources::new(&batch, detector.as_ref());
    let anchors = detector.anchors(INPUT);
    let labels = sources.target("assign.labels");
    let index = sources.target("assign.gt_index");
    assert_eq!(labels.shape, [3, anchors.len()]);
    assert_eq!(index.shape, [3, anchors.len()]);
    let gt_labels = sources.target("gt_labels");
    let gt_batch = sources.target("gt_batch");
    let mut of_object = [0; 3];
    for (place, (&label, &index)) in ints(&labels).iter().zip(ints(&index)).enumerate() {
        assert_eq!(label >= 0, index >= 0);
        assert!(label >= -2 && index >= -1);
        if let Ok(index) = usize::try_from(index) {
            assert_eq!(ints(&gt_labels)[index], label);
            assert_eq!(ints(&gt_batch)[index] as usize, place / anchors.len());
            of_object[index] += 1;
        }
    }
    assert!(of_object.iter().all(|&n| n > 0), "{of_object:?}");
    assert!(ints(&labels).contains(&-2), "some overlap is neither");

    let mut first = 0;
    for level in 3..=7 {
        let mask = sources.target(&format!("assign.fg_mask.p{level}"));
        let [height, width] = map_size(INPUT, 1 << level);
        assert_eq!(mask.shape, [3, 1, height, width]);
        let cells = height * width;
        for (place, &value) in floats(&mask).iter().enumerate() {
            let (image, cell) = (place / cells, place % cells);
            let start = image * anchors.len() + first + cell * 9;
            let any = ints(&labels)[start..start + 9].iter().any(|&l| l >= 0);
            assert_eq!(
                value,
                f32::from(any),
                "p{level}, image {image}, cell {cell}"
            );
        }
        first += cells * 9;
    }
    assert_eq!(first, anchors.len());
}

#[test]
fn masks_of_an_enlarged_pyramid_lie_on_its_grid() {
    let config = ModelConfig {
        pyramid_scale: 2.0,
        ..config()
    };
    let student = model::build_detector(&config, 3).unwrap();
    let batch = batch();
    let sources = Sources::new(&batch, student.as_ref());
    let large = INPUT.map(|extent| 2 * extent);
    let mut foreground = 0.0;
    for level in 3..=7 {
        let mask = sources.target(&format!("assign.fg_mask.p{level}"));
        let [height, width] = map_size(large, 1 << level);
        assert_eq!(mask.shape, [3, 1, height, width], "p{level}");
        foreground += floats(&mask).iter().sum::<f32>();
    }
    assert!(foreground > 0.0);
}

#[test]
fn points_are_the_centres_of_anchors() {
    let detector = model::build_detector(&config(), 3).unwrap();
    let batch = batch();
    let sources = Sources::new(&batch, detector.as_ref());
    let (anchors, points) = (sources.target("anchors_xyxy"), sources.target("points_xy"));
    assert_eq!(floats(&anchors), detector.anchors(INPUT).as_flattened());
    assert_eq!(points.shape, [anchors.shape[0], 2]);
    // Cells of the finest level are 8 pixels apart, 9 anchors each; the second is one to the right.
    assert_eq!(floats(&points)[..2], [0.0, 0.0]);
    assert_eq!(floats(&points)[18..20], [8.0, 0.0]);
}

#[test]
fn predictions_are_read_by_role_and_made_once() {
    use crate::engine::weights::ModelWeights;
    use burn::tensor::{Device, Distribution, Tensor};

    let detector = model::build_detector(&config(), 3).unwrap();
    let request = ForwardRequest {
        training: false,
        taps: Vec::new(),
        stop_at_taps: false,
    };
    let images = Tensor::<4>::random([3, 3, 64, 96], Distribution::Default, &Device::flex());
    let heads = [1, 2].map(|seed| {
        let state = model::initial_state(detector.as_ref(), seed);
        let weights = ModelWeights::from_state(detector.as_ref(), &state).unwrap();
        let forward = detector.forward(weights.tensors(), images.clone(), &request);
        forward.head().unwrap().clone()
    });
    let batch = batch();
    let sources = Sources::new(&batch, detector.as_ref())
        .predicted("student", detector.as_ref(), Some(&heads[0]))
        .predicted("teacher", detector.as_ref(), Some(&heads[1]));
    let locations = detector.anchors(INPUT).len();
    for what in ["boxes_xyxy", "loss_cls", "loss_bbox", "task_loss"] {
        let [student, teacher] =
            ["student", "teacher"].map(|role| sources.target(&format!("{role}.{what}")));
        assert_eq!(student.shape[..2], [3, locations], "{what}");
        assert_eq!(student.shape, teacher.shape);
        assert_ne!(student.values, teacher.values, "{what}: two models");
        let again = sources.target(&format!("student.{what}"));
        assert!(std::rc::Rc::ptr_eq(&student, &again), "{what}: made once");
    }
    let (cls, bbox) = (
        sources.target("teacher.loss_cls"),
        sources.target("teacher.loss_bbox"),
    );
    let task = sources.target("teacher.task_loss");
    for ((c, b), t) in floats(&cls).iter().zip(floats(&bbox)).zip(floats(&task)) {
        assert_eq!(c + b, *t);
    }
}

#[test]
fn what_the_models_cannot_give_is_refused_with_its_reason() {
    let student = model::build_detector(&config(), 3).unwrap();
    let other = ModelConfig {
        anchor_ratios: vec![1.0],
        ..config()
    };
    let teacher = model::build_detector(&other, 3).unwrap();
    let refusal = |name: &str, teacher: Option<&dyn Model>| {
        let manifest = serde_json::json!({"id": "m", "targets": [name]});
        let manifest: MethodManifest = serde_json::from_value(manifest).unwrap();
        check_names(&manifest).map_err(|e| e.to_string())?;
        let teachers = teacher.map(|model| {
            let model = TeacherModel {
                model,
                has_own_size: false,
                size: None,
            };
            ("teacher".to_owned(), model)
        });
        let models = Models {
            student: student.as_ref(),
            student_size: None,
            teachers: &teachers.into_iter().collect(),
        };
        let cast = [("teacher".to_owned(), "teacher".to_owned())].into();
        let plan = |read| Plan {
            target_use: vec![read],
            ..Plan::default()
        };
        check_models(&manifest, &plan(false), models, &cast)
            .expect("what is not read is not looked at");
        check_models(&manifest, &plan(true), models, &cast).map_err(|e| e.to_string())
    };
    let same = Some(student.as_ref());
    for (name, teacher, needle) in [
        ("assign.fg_mask.p2", same, "neck.p3"),
        ("assign.mask", same, "assign.fg_mask.<level>"),
        ("teacher.boxes_xyxy", None, "no model in the role `teacher`"),
        ("coach.boxes_xyxy", same, "no model in the role `coach`"),
        ("teacher.task_loss", Some(teacher.as_ref()), "other places"),
    ] {
        let message = refusal(name, teacher.map(|t| t as &dyn Model)).unwrap_err();
        assert!(message.contains(needle), "{name}: {message}");
    }
    assert_eq!(
        refusal("teacher.task_loss", same.map(|t| t as &dyn Model)),
        Ok(())
    );
    assert_eq!(refusal("student.task_loss", None), Ok(()));
}
