//! The part of TensorFlow's `event.proto` and `summary.proto` that scalars need. A field keeps the
//! number that it has there.

use std::collections::BTreeMap;

use prost::Message;

/// `tensorflow.Event`; one of its last two fields is set.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

/// `tensorflow.Summary.Value`.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// The first event of a file: how the others are to be read.
pub(super) fn version(wall_time: f64) -> Vec<u8> {
    let event = Event {
        wall_time,
        file_version: Some("brain.Event:2".to_owned()),
        ..Event::default()
    };
    event.encode_to_vec()
}

/// An event of scalars by tag, in the order of the tags.
pub(super) fn scalars(wall_time: f64, step: u64, values: &BTreeMap<String, f64>) -> Vec<u8> {
    let values = values.iter().map(|(tag, value)| Value {
        tag: tag.clone(),
        simple_value: Some(*value as f32),
    });
    let event = Event {
        wall_time,
        step: step as i64,
        summary: Some(Summary {
            value: values.collect(),
        }),
        ..Event::default()
    };
    event.encode_to_vec()
}
