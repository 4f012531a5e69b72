//! PASCAL VOC's folder of XML files (devkit document of VOC2012, "annotation").

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use roxmltree::{Document, Node};

use super::decode::{decode_annotated, stored_size};
use super::{
    Dataset, DatasetEntry, DatasetError, LeftOut, Object, Record, RgbPixels, Split, box_fault,
};
use crate::config::{DataConfig, OnError, Task, VocConfig};

inventory::submit! { DatasetEntry { name: "voc", tasks: &[Task::Detection], open } }

/// Tried in turn for `JPEGImages/<id>.<extension>`, before the XML's own `filename`.
const EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "JPG", "PNG"];

/// A split in PASCAL VOC's format, in the order of `ImageSets/Main/<split>.txt`; image ids count
/// from 1.
///
/// - Pixels are 1-based and corners inclusive in the files; boxes here are continuous:
///   `[xmin - 1, ymin - 1, xmax, ymax]`, clipped to the image. A box over the whole image is then
///   `[0, 0, width, height]`.
/// - Boxes whose corners coincide in an axis (`xmax <= xmin`) are slips of annotation: left out
///   with a counted warning, as are boxes outside their image.
/// - Objects marked `difficult` become crowd regions: evaluation neither asks for them nor counts
///   them as false. With `keep_difficult` the training split has them as ordinary objects.
/// - `area` is the box's.
#[derive(Debug)]
pub struct VocDataset {
    classes: Vec<String>,
    records: Vec<Record>,
    files: Vec<PathBuf>,
    left_out: LeftOut,
}

fn open(config: &DataConfig, _: Task, split: Split) -> Result<Arc<dyn Dataset>, DatasetError> {
    if config.voc.root.as_os_str().is_empty() {
        return Err(DatasetError::Config {
            key: "data.voc.root",
            reason: "is empty; set it to the folder that holds `Annotations`, `ImageSets/Main` \
                     and `JPEGImages`"
                .into(),
        });
    }
    let dataset = VocDataset::open(&config.voc, split, config.on_error)?;
    Ok(Arc::new(dataset))
}

impl VocDataset {
    /// Reads the split's list and all its annotations; images are read later, one by one.
    ///
    /// # Errors
    /// If the list is missing or empty. With `OnError::Error` also if an annotation or image is
    /// missing or malformed or an object's class is unknown.
    pub fn open(config: &VocConfig, split: Split, on_error: OnError) -> Result<Self, DatasetError> {
        let name = match split {
            Split::Train => &config.train_split,
            Split::Val => &config.val_split,
        };
        let mut left_out = LeftOut::default();
        let images = read_split(&config.root, name, on_error, &mut left_out)?;
        let classes = if !config.classes.is_empty() {
            config.classes.clone()
        } else if *name == config.train_split {
            class_names(&images)
        } else {
            let unreported = &mut LeftOut::default();
            let train = read_split(&config.root, &config.train_split, on_error, unreported)?;
            class_names(&train)
        };

        let mut dataset = VocDataset {
            classes,
            records: Vec::new(),
            files: Vec::new(),
            left_out,
        };
        let difficult_is_crowd = split == Split::Val || !config.keep_difficult;
        for image in images {
            dataset.push(image, difficult_is_crowd, on_error)?;
        }
        dataset
            .left_out
            .warn(&list_path(&config.root, name).display().to_string());
        Ok(dataset)
    }

    fn push(
        &mut self,
        image: Annotated,
        difficult_is_crowd: bool,
        on_error: OnError,
    ) -> Result<(), DatasetError> {
        let [height, width] = image.size.map(|s| s as f32);
        let mut objects = Vec::new();
        for (number, object) in image.objects.iter().enumerate() {
            let what = format!("object {} (`{}`)", number + 1, object.class);
            let Some(label) = self.classes.iter().position(|class| *class == object.class) else {
                let reason = format!("unknown class; known: {}", self.classes.join(", "));
                if on_error == OnError::Error {
                    let path = image.xml.display().to_string();
                    return Err(DatasetError::Annotation { path, what, reason });
                }
                let file = image.xml.display();
                self.left_out
                    .boxes
                    .push(format!("`{file}`: {what}: {reason}"));
                continue;
            };
            let [xmin, ymin, xmax, ymax] = object.corners;
            let inclusive = [xmin as f32, ymin as f32, xmax as f32, ymax as f32];
            if let Some(reason) = box_fault(inclusive, [image.size[0] + 1, image.size[1] + 1]) {
                let file = image.xml.display();
                self.left_out
                    .boxes
                    .push(format!("`{file}`: {what}: {reason}"));
                continue;
            }
            let [x1, y1] = [(inclusive[0] - 1.0).max(0.0), (inclusive[1] - 1.0).max(0.0)];
            let [x2, y2] = [inclusive[2].min(width), inclusive[3].min(height)];
            objects.push(Object {
                box_xyxy: [x1, y1, x2, y2],
                label,
                is_crowd: object.difficult && difficult_is_crowd,
                area: f64::from(x2 - x1) * f64::from(y2 - y1),
                mask: None,
            });
        }
        self.records.push(Record {
            image_id: self.records.len() as i64 + 1,
            source: image.file.display().to_string(),
            size: image.size,
            objects,
        });
        self.files.push(image.file);
        Ok(())
    }
}

impl Dataset for VocDataset {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn records(&self) -> &[Record] {
        &self.records
    }

    fn pixels(&self, index: usize) -> Result<RgbPixels, DatasetError> {
        decode_annotated(&self.files[index], self.records[index].size)
    }

    fn left_out(&self) -> &LeftOut {
        &self.left_out
    }
}

/// One XML file.
struct Annotated {
    xml: PathBuf,
    file: PathBuf,
    size: [usize; 2],
    objects: Vec<AnnotatedObject>,
}

struct AnnotatedObject {
    class: String,
    /// `xmin, ymin, xmax, ymax` as written.
    corners: [f64; 4],
    difficult: bool,
}

fn list_path(root: &Path, split: &str) -> PathBuf {
    root.join("ImageSets")
        .join("Main")
        .join(format!("{split}.txt"))
}

fn file_fault(path: &Path, reason: impl ToString) -> DatasetError {
    DatasetError::File {
        path: path.display().to_string(),
        reason: reason.to_string(),
    }
}

fn class_names(images: &[Annotated]) -> Vec<String> {
    let names: BTreeSet<&String> = images
        .iter()
        .flat_map(|i| &i.objects)
        .map(|o| &o.class)
        .collect();
    names.into_iter().cloned().collect()
}

fn read_split(
    root: &Path,
    split: &str,
    on_error: OnError,
    left_out: &mut LeftOut,
) -> Result<Vec<Annotated>, DatasetError> {
    let list = list_path(root, split);
    let text = fs::read_to_string(&list).map_err(|e| file_fault(&list, e))?;
    let mut images = Vec::new();
    // The class-wise lists of the devkit carry a second column, which is not needed here.
    for id in text
        .lines()
        .filter_map(|line| line.split_whitespace().next())
    {
        match read_image(root, id) {
            Ok(image) => images.push(image),
            Err(error) if on_error == OnError::Skip => left_out.images.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    if images.is_empty() {
        return Err(file_fault(&list, "names no usable image"));
    }
    Ok(images)
}

fn read_image(root: &Path, id: &str) -> Result<Annotated, DatasetError> {
    let xml = root.join("Annotations").join(format!("{id}.xml"));
    let text = fs::read_to_string(&xml).map_err(|e| file_fault(&xml, e))?;
    let document =
        Document::parse(&text).map_err(|e| file_fault(&xml, format!("malformed XML: {e}")))?;
    let annotation = document.root_element();
    let file = find_image(root, id, text_of(annotation, "filename"))
        .ok_or_else(|| file_fault(&xml, format!("no image `{id}` in `JPEGImages`")))?;
    let size = match child(annotation, "size").map(|size| {
        ["height", "width"].map(|name| text_of(size, name).and_then(|t| t.parse().ok()))
    }) {
        // Some tools write 0x0, others nothing: the image itself knows.
        Some([Some(height), Some(width)]) if height > 0 && width > 0 => [height, width],
        _ => stored_size(&file)?,
    };
    let mut objects = Vec::new();
    for node in annotation.children().filter(|n| n.has_tag_name("object")) {
        let object = read_object(node).map_err(|reason| DatasetError::Annotation {
            path: xml.display().to_string(),
            what: format!("object {}", objects.len() + 1),
            reason,
        })?;
        objects.push(object);
    }
    Ok(Annotated {
        xml,
        file,
        size,
        objects,
    })
}

/// Direct children alone: `part` elements of VOC's person layout have a box of their own.
fn read_object(node: Node<'_, '_>) -> Result<AnnotatedObject, String> {
    let class = text_of(node, "name").ok_or("no `name`")?;
    let bounds = child(node, "bndbox").ok_or("no `bndbox`")?;
    let mut corners = [0.0; 4];
    for (corner, name) in corners.iter_mut().zip(["xmin", "ymin", "xmax", "ymax"]) {
        let text = text_of(bounds, name).ok_or_else(|| format!("no `{name}`"))?;
        *corner = text
            .parse()
            .map_err(|_| format!("`{name}` is `{text}`, not a number"))?;
    }
    Ok(AnnotatedObject {
        class: class.into(),
        corners,
        difficult: text_of(node, "difficult") == Some("1"),
    })
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|n| n.has_tag_name(name))
}

fn text_of<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    child(node, name)?
        .text()
        .map(str::trim)
        .filter(|text| !text.is_empty())
}

fn find_image(root: &Path, id: &str, filename: Option<&str>) -> Option<PathBuf> {
    let folder = root.join("JPEGImages");
    EXTENSIONS
        .iter()
        .map(|extension| format!("{id}.{extension}"))
        .chain(filename.map(String::from))
        .map(|name| folder.join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
#[path = "voc/tests.rs"]
mod tests;
