use std::sync::Arc;

use serde::Deserialize;

use super::*;
use crate::config::{DataConfig, ResizeMode, Task, TransformConfig};
use crate::data::registry::default_config;
use crate::data::{Batch, Dataset, Loader, LoaderOptions, Part, Split, Transform, open};

/// Made by `tests/golden/data/make_class_crops.py`.
const GOLDEN: &str = include_str!("../../../../tests/golden/data/class_crops.json");

#[derive(Deserialize)]
struct Golden {
    crops: Vec<CropCase>,
    middles: Vec<MiddleCase>,
}

/// Pixels are [`generated`]; of the result a hash of all and the first few.
#[derive(Deserialize)]
struct CropCase {
    size: [usize; 2],
    corner: [usize; 2],
    part: [usize; 2],
    out_size: [usize; 2],
    flip: bool,
    hash: u32,
    head: Vec<u8>,
}

#[derive(Deserialize)]
struct MiddleCase {
    size: [usize; 2],
    short_side: usize,
    out_size: [usize; 2],
    hash: u32,
    head: Vec<u8>,
}

/// The upper bits of a linear congruence, as the generator of the reference makes them.
fn generated(size: [usize; 2]) -> RgbPixels {
    let mut state = (size[0] * 65536 + size[1]) as u32;
    let mut byte = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let data = (0..size[0] * size[1] * 3).map(&mut byte).collect();
    RgbPixels { size, data }
}

/// Normalised so that bytes can be read back.
fn plain() -> TransformConfig {
    TransformConfig {
        mean: [0.0; 3],
        std: [1.0; 3],
        ..default_config().transform
    }
}

/// Interleaved bytes of planes that were made with [`plain`].
fn bytes(planes: &[f32]) -> Vec<u8> {
    let pixels = planes.len() / 3;
    let byte = |i: usize| (planes[i % 3 * pixels + i / 3] * 255.0).round() as u8;
    (0..planes.len()).map(byte).collect()
}

fn assert_is(planes: &[f32], hash: u32, head: &[u8], name: &str) {
    let bytes = bytes(planes);
    assert_eq!(bytes[..head.len()], *head, "{name}");
    let found = bytes.iter().fold(2_166_136_261_u32, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(16_777_619)
    });
    assert_eq!(found, hash, "{name}");
}

fn record(size: [usize; 2]) -> Record {
    Record {
        image_id: 0,
        source: String::new(),
        size,
        objects: Vec::new(),
    }
}

fn spec(scale: [f64; 2]) -> ViewSpec {
    ViewSpec {
        scale,
        mean: [0.0; 3],
        std: [1.0; 3],
        size_divisor: 32,
        frame_scale: None,
    }
}

#[test]
fn both_sizes_of_a_part_equal_pillows() {
    let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
    let large: Vec<&CropCase> = (golden.crops.iter())
        .filter(|case| case.out_size == [224, 224])
        .collect();
    assert!(golden.crops.len() >= 5 * large.len() && large.len() >= 8);
    for case in &golden.crops {
        let pixels = generated(case.size);
        let name = format!("{:?} of {:?}", case.part, case.size);
        let config = TransformConfig {
            size: case.out_size,
            ..plain()
        };
        let transform = Transform::new(&config).unwrap();
        let part = Part {
            corner: case.corner,
            size: case.part,
        };
        let geometry = transform.of_part(part, case.flip);
        let sample = transform.sample(&record(case.size), &pixels, &geometry, None);
        assert_eq!(sample.meta.size, case.out_size);
        assert_is(&sample.image, case.hash, &case.head, &name);
        // The large view of the small image is Pillow's large image, whatever the ratio.
        let maker = ViewMaker::new(&spec(case.out_size.map(|extent| 224.0 / extent as f64)));
        let seen = maker.see(&record(case.size), &pixels, &geometry, &[]);
        let of_same = |other: &&&CropCase| {
            (other.size, other.corner, other.flip) == (case.size, case.corner, case.flip)
        };
        let large = large.iter().find(of_same).unwrap();
        assert_eq!(seen.size, [224, 224]);
        assert_is(&seen.image, large.hash, &large.head, &name);
    }
}

#[test]
fn the_middle_is_torchvisions() {
    let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
    assert!(golden.middles.len() >= 7);
    for case in golden.middles {
        let config = TransformConfig {
            resize: ResizeMode::CenterCrop,
            size: case.out_size,
            short_side: case.short_side,
            ..plain()
        };
        let transform = Transform::new(&config).unwrap();
        let sample = transform.apply(&record(case.size), &generated(case.size), false);
        assert_eq!(sample.meta.size, case.out_size);
        let name = format!("{:?} of {:?}", case.out_size, case.size);
        assert_is(&sample.image, case.hash, &case.head, &name);
    }
}

/// Batches of `shapes` for training, with further views.
struct Setup {
    config: DataConfig,
    task: Task,
    views: Vec<ViewSpec>,
}

impl Setup {
    fn new(size: [usize; 2], scales: &[f64]) -> Self {
        let mut config = default_config();
        config.transform = TransformConfig { size, ..plain() };
        (config.shapes.num_train, config.shapes.size) = (12, [96, 128]);
        (config.batch_size, config.workers) = (4, 0);
        Setup {
            config,
            task: Task::Detection,
            views: scales.iter().map(|scale| spec([*scale; 2])).collect(),
        }
    }

    fn dataset(&self) -> Arc<dyn Dataset> {
        open(&self.config, self.task, Split::Train).unwrap()
    }

    fn loader(&self) -> Loader {
        let options = LoaderOptions::training(&self.config, 11, 32);
        let options = options.with_views(self.views.clone());
        Loader::new(self.dataset(), options).unwrap()
    }

    fn batches(&self) -> Vec<Batch> {
        self.loader().epoch(1, 0).map(Result::unwrap).collect()
    }
}

/// Rows of one channel of an image in a batch, without padding.
fn plane(
    images: &[f32],
    shape: [usize; 4],
    [image, channel]: [usize; 2],
    size: [usize; 2],
) -> Vec<Vec<f32>> {
    let [_, _, height, width] = shape;
    let plane = &images[(image * 3 + channel) * height * width..][..height * width];
    let rows = plane.chunks_exact(width).take(size[0]);
    rows.map(|row| row[..size[1]].to_vec()).collect()
}

#[test]
fn a_view_of_the_students_size_is_the_students_to_the_bit() {
    let mut setup = Setup::new([48, 64], &[1.0]);
    setup.views[0].frame_scale = Some(1.0);
    for (task, crop) in [
        (Task::Detection, vec![]),
        (Task::Segmentation, vec![40, 50]),
    ] {
        setup.task = task;
        setup.config.transform.crop_size = crop;
        for batch in setup.batches() {
            let view = batch.view(&setup.views[0]).unwrap();
            assert_eq!(view.images, batch.images);
            assert_eq!(view.shape, batch.shape);
            let sizes: Vec<[usize; 2]> = batch.metas.iter().map(|meta| meta.size).collect();
            assert_eq!(view.sizes, sizes);
            for (boxes, targets) in view.boxes_xyxy.iter().zip(&batch.targets) {
                assert_eq!(boxes, &targets.boxes_xyxy);
            }
        }
    }
}

#[test]
fn views_change_nothing_of_the_rest_and_depend_on_neither_workers_nor_resume() {
    let mut setup = Setup::new([48, 64], &[2.0, 1.5]);
    let with = setup.batches();
    setup.config.workers = 3;
    let threaded = setup.batches();
    let resumed = setup.loader().epoch(1, 2).map(Result::unwrap);
    let resumed: Vec<Batch> = resumed.collect();
    for (batch, other) in with
        .iter()
        .zip(&threaded)
        .chain(with[2..].iter().zip(&resumed))
    {
        assert_eq!(batch.views, other.views);
    }
    let views = std::mem::take(&mut setup.views);
    for (batch, plain) in with.iter().zip(setup.batches()) {
        assert_eq!((&batch.images, batch.shape), (&plain.images, plain.shape));
        assert_eq!(
            (&batch.targets, &batch.metas),
            (&plain.targets, &plain.metas)
        );
        assert_eq!((batch.views.len(), plain.views.len()), (2, 0));
        assert!(batch.view(&views[1]).is_some() && plain.view(&views[1]).is_none());
    }
}

#[test]
fn boxes_are_in_each_views_pixels() {
    let mut mirrored = 0;
    for (size, scale) in [
        ([48, 64], 2.0),
        ([24, 32], 4.0),
        ([64, 85], 1.5),
        ([38, 51], 2.5),
    ] {
        for batch in Setup::new(size, &[scale]).batches() {
            let view = &batch.views[0];
            for (image, targets) in batch.targets.iter().enumerate() {
                let own = size.map(|extent| (extent as f64 * scale).round());
                assert_eq!(view.sizes[image].map(|extent| extent as f64), own);
                assert_eq!(view.boxes_xyxy[image].len(), targets.boxes_xyxy.len());
                for (small, large) in targets.boxes_xyxy.iter().zip(&view.boxes_xyxy[image]) {
                    for (side, (small, large)) in small.iter().zip(large).enumerate() {
                        let axis = 1 - side % 2;
                        let ratio = own[axis] / size[axis] as f64;
                        let exact = f64::from(*small) * ratio;
                        // Both are rounded to single precision, at up to 128 pixels.
                        assert!((exact - f64::from(*large)).abs() < 1e-4, "{exact} {large}");
                    }
                }
                mirrored += usize::from(batch.metas[image].flipped);
            }
        }
    }
    // Of 48 images: Binomial(48, 1/2) is outside 8..=40 with a probability under 1e-5.
    assert!((8..=40).contains(&mirrored), "{mirrored}");
}

#[test]
fn a_picture_of_the_large_size_is_left_alone_and_the_small_one_is_made_of_it() {
    let setup = Setup::new([48, 64], &[2.0]);
    let dataset = setup.dataset();
    for batch in setup.batches() {
        let view = &batch.views[0];
        for (image, meta) in batch.metas.iter().enumerate() {
            let pixels = dataset.pixels(meta.image_id as usize - 1).unwrap();
            let small = crate::data::resize(&pixels, [48, 64]);
            for (pixels, images, shape) in [
                (&pixels, &view.images, view.shape),
                (&small, &batch.images, batch.shape),
            ] {
                let [height, width] = pixels.size;
                for channel in 0..3 {
                    let rows = plane(images, shape, [image, channel], pixels.size);
                    assert_eq!(rows.len(), height);
                    for (y, row) in rows.iter().enumerate() {
                        assert_eq!(row.len(), width);
                        for (x, value) in row.iter().enumerate() {
                            let from = if meta.flipped { width - 1 - x } else { x };
                            let byte = pixels.data[(y * width + from) * 3 + channel];
                            assert_eq!((value * 255.0).round() as u8, byte);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn images_that_keep_their_ratio_are_scaled_after_their_own_size() {
    let mut setup = Setup::new([32, 32], &[2.0, 1.5]);
    setup.config.transform.resize = ResizeMode::KeepRatio;
    (
        setup.config.transform.short_side,
        setup.config.transform.long_side,
    ) = (37, 49);
    for view in &mut setup.views {
        view.frame_scale = Some(view.scale[0]);
    }
    for batch in setup.batches() {
        let [_, _, height, width] = batch.shape;
        for (view, scale) in batch.views.iter().zip([2.0, 1.5]) {
            for (meta, size) in batch.metas.iter().zip(&view.sizes) {
                assert_eq!(meta.size, [36, 49], "of 96 by 128");
                let exact = meta
                    .size
                    .map(|extent| (extent as f64 * scale).round() as usize);
                assert_eq!(*size, exact);
            }
            let frame = [height, width].map(|extent| (extent as f64 * scale) as usize);
            assert_eq!(view.shape[2..], frame, "as many times the padded image");
        }
    }
    setup.config.transform.resize = ResizeMode::None;
    for batch in setup.batches() {
        assert_eq!(batch.views[0].sizes, [[192, 256]; 4]);
    }
    setup.config.transform.own_scale = 0.5;
    for batch in setup.batches() {
        assert_eq!(batch.metas[0].size, [48, 64]);
        assert_eq!(batch.views[0].sizes, [[96, 128]; 4]);
    }
}

#[test]
fn crops_of_segmentation_show_the_same_part() {
    let mut setup = Setup::new([96, 128], &[2.0]);
    setup.task = Task::Segmentation;
    // Large images that are left as they are, and their halves.
    setup.config.transform.resize = ResizeMode::None;
    setup.config.transform.own_scale = 0.5;
    setup.config.transform.crop_size = vec![33, 41];
    let mut corners = std::collections::BTreeSet::new();
    let dataset = setup.dataset();
    for batch in setup.batches() {
        let view = &batch.views[0];
        assert_eq!(view.sizes, [[66, 82]; 4]);
        for (image, meta) in batch.metas.iter().enumerate() {
            let index = meta.image_id as usize - 1;
            let pixels = dataset.pixels(index).unwrap();
            let half = crate::data::resize(&pixels, [48, 64]);
            let small = plane(&batch.images, batch.shape, [image, 0], [33, 41]);
            let large = plane(&view.images, view.shape, [image, 0], [66, 82]);
            let corner = found(&half, &small, meta.flipped);
            assert_eq!(found(&pixels, &large, meta.flipped), corner.map(|c| 2 * c));
            corners.insert(corner);
        }
    }
    assert!(corners.len() > 4, "{corners:?}");
}

/// The only `[top, left]` at which `rows` are the red values of a part of `pixels`.
fn found(pixels: &RgbPixels, rows: &[Vec<f32>], flip: bool) -> [usize; 2] {
    let [height, width] = pixels.size;
    let columns = rows[0].len();
    let matches = |top: usize, left: usize| {
        rows.iter().enumerate().all(|(y, row)| {
            row.iter().enumerate().all(|(x, value)| {
                let x = if flip { columns - 1 - x } else { x };
                let byte = pixels.data[((top + y) * width + left + x) * 3];
                (value * 255.0).round() as u8 == byte
            })
        })
    };
    let tops = 0..=height - rows.len();
    let all = tops.flat_map(|top| (0..=width - columns).map(move |left| [top, left]));
    let fitting: Vec<[usize; 2]> = all.filter(|[top, left]| matches(*top, *left)).collect();
    assert_eq!(fitting.len(), 1, "{fitting:?}");
    fitting[0]
}

#[test]
fn padding_is_the_views_own_or_the_batchs_times_a_factor() {
    let sizes = [[64, 96], [70, 90]];
    let own = spec([2.0; 2]);
    assert_eq!(own.padded([32, 64], [70, 96]).unwrap(), [96, 96]);
    let framed = ViewSpec {
        frame_scale: Some(2.5),
        ..spec([2.5; 2])
    };
    assert_eq!(framed.padded([32, 64], [70, 96]).unwrap(), [80, 160]);
    let message = framed.padded([32, 32], sizes[1]).unwrap_err().to_string();
    assert!(
        message.contains("`teacher.input_size`") && message.contains("[80, 80]"),
        "{message}"
    );
}

#[test]
fn a_view_has_its_own_numbers() {
    let mut setup = Setup::new([48, 64], &[1.0]);
    (setup.views[0].mean, setup.views[0].std) = ([0.5, 0.25, 0.0], [0.5, 2.0, 1.0]);
    let batch = setup.batches().remove(0);
    let view = &batch.views[0];
    for channel in 0..3 {
        let at = |images: &[f32], shape| plane(images, shape, [1, channel], [48, 64]).concat();
        let plain = at(&batch.images, batch.shape);
        let own = at(&view.images, view.shape);
        for (value, own) in plain.into_iter().zip(own) {
            let spec = &view.spec;
            assert_eq!(own, (value - spec.mean[channel]) / spec.std[channel]);
        }
        // 48 rows are padded to 64, with zeros and not with the mean.
        let padded = plane(&view.images, view.shape, [1, channel], [64, 64]);
        assert!(padded[48..].iter().flatten().all(|value| *value == 0.0));
    }
}
