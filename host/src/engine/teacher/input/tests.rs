use super::*;
use crate::config::Config;
use crate::config::ResizeMode;

fn student(resize: ResizeMode) -> TransformConfig {
    TransformConfig {
        resize,
        size: [89, 60],
        short_side: 100,
        long_side: 167,
        ..Config::base().data.transform
    }
}

fn sized(size: &[usize]) -> TeacherConfig {
    TeacherConfig {
        input_size: size.to_vec(),
        ..Config::base().teacher
    }
}

fn scaled(scale: f64) -> TeacherConfig {
    TeacherConfig {
        input_scale: scale,
        ..Config::base().teacher
    }
}

fn frame(teacher: &TeacherConfig, student: &TransformConfig, grid_scale: f64) -> Option<f64> {
    let view = view_of(teacher, student, grid_scale, 32);
    view.expect("it is not the student's").frame_scale
}

#[test]
fn the_students_own_settings_ask_for_no_view() {
    let student = student(ResizeMode::Fixed);
    let same = TeacherConfig {
        mean: student.mean.to_vec(),
        std: student.std.to_vec(),
        ..sized(&student.size)
    };
    for teacher in [same, sized(&[]), scaled(1.0)] {
        assert_eq!(view_of(&teacher, &student, 1.0, 32), None);
        assert_eq!(teacher.transform(&student), student);
        assert!(!has_own_size(&teacher, &student));
    }
}

#[test]
fn another_normalisation_alone_is_padded_as_the_students() {
    let student = student(ResizeMode::KeepRatio);
    let teacher = TeacherConfig {
        mean: vec![0.5; 3],
        ..sized(&[])
    };
    let view = view_of(&teacher, &student, 1.0, 64).unwrap();
    assert_eq!((view.scale, view.frame_scale), ([1.0, 1.0], Some(1.0)));
    assert_eq!((view.mean, view.std), ([0.5; 3], student.std));
    assert!(!has_own_size(&teacher, &student));
}

#[test]
fn a_scale_multiplies_what_the_resizing_reads() {
    let of = |resize| {
        let mut student = student(resize);
        student.crop_size = vec![33, 50];
        scaled(2.5).transform(&student)
    };
    // 222.5, 150, 250, 417.5, 82.5 and 125, halves away from 0.
    let fixed = of(ResizeMode::Fixed);
    assert_eq!((fixed.size, fixed.short_side), ([223, 150], 100));
    assert_eq!(fixed.crop_size, [83, 125]);
    let ratio = of(ResizeMode::KeepRatio);
    assert_eq!((ratio.short_side, ratio.long_side), (250, 418));
    let centred = of(ResizeMode::CenterCrop);
    assert_eq!((centred.short_side, centred.size), (250, [223, 150]));
    let own = of(ResizeMode::None);
    assert_eq!((own.own_scale, fixed.own_scale), (2.5, 1.0));
    assert!(has_own_size(&scaled(2.5), &student(ResizeMode::None)));
}

#[test]
fn a_size_is_met_exactly() {
    let student = student(ResizeMode::Fixed);
    for height in [33, 89, 90, 223, 224, 225, 500] {
        let teacher = sized(&[height, 151]);
        let own = teacher.transform(&student);
        assert_eq!(own.size, [height, 151]);
        let [vertical, horizontal] = view_of(&teacher, &student, 1.0, 32).unwrap().scale;
        let product = |extent: usize, scale: f64| (extent as f64 * scale).round() as usize;
        assert_eq!(product(89, vertical), height);
        assert_eq!(product(60, horizontal), 151);
    }
}

#[test]
fn padding_is_framed_where_the_grids_are_to_agree() {
    let fixed = student(ResizeMode::Fixed);
    // int(224 / 2.5) = 89, 60 * 2.5 = 150.
    assert_eq!(frame(&sized(&[224, 150]), &fixed, 2.5), Some(2.5));
    assert_eq!(frame(&sized(&[223, 150]), &fixed, 2.5), Some(2.5));
    assert_eq!(frame(&sized(&[230, 150]), &fixed, 2.5), None);
    assert_eq!(frame(&sized(&[224, 150]), &fixed, 1.0), None);
    let ratio = student(ResizeMode::KeepRatio);
    assert_eq!(frame(&scaled(2.0), &ratio, 2.0), Some(2.0));
    assert_eq!(frame(&scaled(2.0), &ratio, 1.0), None);
    assert_eq!(frame(&scaled(1.5), &ratio, 2.0), None);
}
