//! What holds for one task and not for another.

use super::*;

#[test]
fn what_one_task_alone_has_is_refused_for_the_other() {
    const COCO: [&str; 4] = [
        "data.coco.train_images=a",
        "data.coco.train_annotations=b",
        "data.coco.val_images=c",
        "data.coco.val_annotations=d",
    ];
    let (segmentation, classification) = ("task=segmentation", "task=classification");
    for (sets, key, word) in [
        (
            &["data.transform.scale_range=[0.5, 2.0]"][..],
            "data.transform.scale_range",
            "only segmentation scales",
        ),
        (
            &["data.transform.crop_size=[64, 64]"],
            "data.transform.crop_size",
            "only segmentation scales",
        ),
        (
            &[segmentation, "data.transform.scale_range=[2.0, 1.0]"],
            "data.transform.scale_range",
            "`[lowest, highest]`",
        ),
        (
            &[segmentation, "data.transform.crop_size=[64]"],
            "data.transform.crop_size",
            "`[height, width]`",
        ),
        (
            &[
                segmentation,
                "data.transform.crop_size=[64, 64]",
                "teacher.input_size=[96, 96]",
            ],
            "teacher.input_size",
            "whole images",
        ),
        (
            &["data.transform.area_range=[0.1, 1.0]"],
            "data.transform.area_range",
            "may miss what is annotated",
        ),
        (
            &[segmentation, "data.transform.resize=center_crop"],
            "data.transform.resize",
            "cuts off",
        ),
        (
            &[classification, "data.transform.crop_size=[64, 64]"],
            "data.transform.crop_size",
            "only segmentation scales",
        ),
        (
            &[classification, "data.transform.area_range=[0.9, 0.1]"],
            "data.transform.area_range",
            "`[lowest, highest]`",
        ),
        (
            &[classification, "data.transform.aspect_range=[2.0, 1.0]"],
            "data.transform.aspect_range",
            "`[lowest, highest]`",
        ),
        (
            &[
                classification,
                "data.transform.area_range=[0.1, 1.0]",
                "data.transform.resize=keep_ratio",
            ],
            "data.transform.area_range",
            "images of one size",
        ),
        (
            &[
                classification,
                "data.transform.resize=center_crop",
                "data.transform.short_side=90",
            ],
            "data.transform.size",
            "`data.transform.short_side` (90)",
        ),
        (
            &[
                classification,
                "data.dataset=coco",
                COCO[0],
                COCO[1],
                COCO[2],
                COCO[3],
            ],
            "data.dataset",
            "`task` is \"classification\"",
        ),
        (
            &[
                "data.dataset=class_folder",
                "data.class_folder.train=here",
                "data.class_folder.val=there",
            ],
            "data.dataset",
            "`task` is \"detection\"",
        ),
        (
            &[classification, "data.class_folder.classes=[\"a\", \"a\"]"],
            "data.class_folder.classes",
            "stands twice",
        ),
        (
            &["data.dataset=cityscapes", "data.cityscapes.root=here"],
            "data.dataset",
            "`task` is \"detection\"",
        ),
        (
            &[segmentation, "data.dataset=voc", "data.voc.root=here"],
            "data.dataset",
            "`task` is \"segmentation\"",
        ),
        (
            &[segmentation, "data.voc_seg.classes=[\"a\", \"a\"]"],
            "data.voc_seg.classes",
            "stands twice",
        ),
        (
            &[segmentation, "data.seg_folder.ignore=[256]"],
            "data.seg_folder.ignore",
            "",
        ),
    ] {
        let found = problems(&[], sets);
        assert_eq!(found.len(), 1, "{sets:?}: {found:?}");
        assert!(found[0].key.starts_with(key), "{sets:?}: {}", found[0]);
        let text = found[0].to_string();
        assert!(text.contains(word), "{sets:?}: {text}");
    }
    let folder = problems(&[], &[classification, "data.dataset=class_folder"]);
    let keys: Vec<&str> = folder.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["data.class_folder.train", "data.class_folder.val"]);
    ok(
        &[],
        &[
            classification,
            "data.transform.area_range=[0.08, 1.0]",
            "data.transform.resize=center_crop",
            "teacher.input_size=[64, 64]",
        ],
    );
    let folder = problems(&[], &[segmentation, "data.dataset=seg_folder"]);
    let keys: Vec<&str> = folder.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "train_images",
            "train_labels",
            "val_images",
            "val_labels",
            "classes"
        ]
        .map(|key| format!("data.seg_folder.{key}"))
    );
}

#[test]
fn groups_of_a_head_divide_its_channels() {
    let groups = "teacher.model.fcos.norm_groups=5";
    // RetinaNet's head has none.
    ok(&[], &[groups]);
    let found = problems(&[], &[groups, "teacher.model.detector=fcos"]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].key, "teacher.model.fcos.norm_groups");
    let text = found[0].to_string();
    assert!(text.contains("`teacher.model.fpn_channels` (32)"), "{text}");
}

#[test]
fn the_aspp_trains_on_more_than_one_image() {
    let single = ["task=segmentation", "data.batch_size=1"];
    let without = [
        "student.deeplab.aspp=false",
        "teacher.model.deeplab.aspp=false",
    ];
    ok(&[], &[&single[..], &without].concat());
    ok(&[], &["data.batch_size=1"]);
    for at in ["student", "teacher.model"] {
        let aspp = format!("{at}.deeplab.aspp=true");
        let found = problems(&[], &[&single[..], &without, &[&aspp]].concat());
        assert_eq!(found.len(), 1, "{at}: {found:?}");
        assert_eq!(found[0].key, "data.batch_size");
        let text = found[0].to_string();
        assert!(text.contains(&format!("`{at}.deeplab.aspp`")), "{text}");
    }
}
