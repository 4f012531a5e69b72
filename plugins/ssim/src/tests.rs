use kd_plugin::testkit::{Bench, TapShape, gradcheck};
use serde_json::json;

use super::*;

fn pair(student: [usize; 4], teacher: [usize; 4]) -> Vec<TapShape> {
    TapShape::pair("neck.p3", student, teacher).to_vec()
}

#[test]
fn gradients_agree_with_differences() {
    for config in [
        json!({}),
        json!({"norm_scope": "channel"}),
        json!({"norm_scope": "tensor"}),
        json!({"alpha": 0.0, "beta": 0.0, "gamma": 1.0}),
        json!({"alpha": 1.0, "beta": 0.0, "gamma": 0.0}),
        json!({"alpha": 2.0, "beta": 1.0, "gamma": 0.5}),
    ] {
        for (student, teacher) in [
            ([2, 3, 8, 9], [2, 3, 8, 9]),
            ([1, 2, 3, 4], [1, 3, 3, 4]),
            ([1, 3, 6, 6], [1, 3, 9, 8]),
        ] {
            let mut bench = Bench::new::<Ssim>(&config, &pair(student, teacher)).unwrap();
            bench.fill(11);
            if student == teacher {
                // Similar maps: the structure term is positive, so that its root has no kink.
                let values = bench.tap_mut(0).to_vec();
                for (teacher, student) in bench.tap_mut(1).iter_mut().zip(values) {
                    *teacher = 0.3 * *teacher + 0.7 * student;
                }
            } else if config["gamma"] == 0.5 {
                continue;
            }
            gradcheck::check(&mut bench, &gradcheck::Options::default())
                .unwrap_or_else(|error| panic!("{config} {student:?}->{teacher:?}: {error}"));
        }
    }
}
