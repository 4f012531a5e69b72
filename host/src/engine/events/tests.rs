//! Files are read back by a reader that shares nothing with the writer: checksums bit by bit, fields
//! of messages by hand.

use super::*;

/// Masked CRC-32C after RFC 3720, appendix B.4: the reflected polynomial, one bit at a time.
fn masked_crc(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = match crc & 1 {
                1 => (crc >> 1) ^ 0x82f6_3b78,
                _ => crc >> 1,
            };
        }
    }
    let crc = !crc;
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A field of a message: its number, and its bytes (of a number: as a u64).
type Field<'a> = (u64, Result<&'a [u8], u64>);

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (first, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

fn fields(mut bytes: &[u8]) -> Vec<Field<'_>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => Err(varint(&mut bytes)),
            1 => Ok(take(&mut bytes, 8)),
            2 => {
                let length = varint(&mut bytes);
                Ok(take(&mut bytes, length as usize))
            }
            5 => Ok(take(&mut bytes, 4)),
            other => panic!("wire type {other}"),
        };
        found.push((key >> 3, value));
    }
    found
}

#[derive(Debug, Default, PartialEq)]
struct Read {
    wall_time: f64,
    step: u64,
    version: Option<String>,
    values: Vec<(String, f32)>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn event(bytes: &[u8]) -> Read {
    let mut read = Read::default();
    for field in fields(bytes) {
        match field {
            (1, Ok(bytes)) => read.wall_time = f64::from_le_bytes(bytes.try_into().unwrap()),
            (2, Err(step)) => read.step = step,
            (3, Ok(bytes)) => read.version = Some(text(bytes)),
            (5, Ok(summary)) => {
                for field in fields(summary) {
                    let (1, Ok(value)) = field else {
                        panic!("{field:?}")
                    };
                    let [(1, Ok(tag)), (2, Ok(number))] = fields(value)[..] else {
                        panic!("{value:?}")
                    };
                    let number = f32::from_le_bytes(number.try_into().unwrap());
                    read.values.push((text(tag), number));
                }
            }
            other => panic!("{other:?}"),
        }
    }
    read
}

/// Every event of a file; both checksums of each record fit.
fn events(mut bytes: &[u8]) -> Vec<Read> {
    let mut read = Vec::new();
    while !bytes.is_empty() {
        let length = take(&mut bytes, 8);
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        assert_eq!(number(take(&mut bytes, 4)), masked_crc(length));
        let length = u64::from_le_bytes(length.try_into().unwrap());
        let message = take(&mut bytes, length as usize);
        assert_eq!(number(take(&mut bytes, 4)), masked_crc(message));
        read.push(event(message));
    }
    read
}

/// Steps of the events that hold scalars.
pub(in crate::engine) fn steps(bytes: &[u8]) -> Vec<u64> {
    let events = events(bytes).into_iter();
    let scalars = events.filter(|event| !event.values.is_empty());
    scalars.map(|event| event.step).collect()
}

fn path(folder: &Path) -> PathBuf {
    folder.join(FOLDER).join(FILE)
}

fn values(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
    let pairs = pairs.iter().map(|(key, value)| ((*key).into(), *value));
    pairs.collect()
}

#[test]
fn the_reader_knows_the_published_checksum() {
    // RFC 3720, appendix B.4: 32 bytes of zeroes give 8A9136AA.
    let mask = |crc: u32| crc.rotate_right(15).wrapping_add(0xa282_ead8);
    assert_eq!(masked_crc(&[0; 32]), mask(0x8a91_36aa));
}

#[test]
fn a_record_is_a_step_with_every_value_under_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let before = now();
    let mut file = EventFile::create(folder.path()).unwrap();
    // Longer than 127 bytes, so that a length takes two.
    let long = format!("train/{}", "loss_".repeat(40));
    let first = [("train/lr", 0.1), (long.as_str(), -3.5), ("val/AP", 0.0)];
    file.scalars(10, &values(&first)).unwrap();
    file.scalars(1 << 40, &values(&[("time/step", f64::NAN)]))
        .unwrap();
    file.scalars(300, &values(&[("train/a", f64::INFINITY)]))
        .unwrap();
    file.scalars(301, &BTreeMap::new()).unwrap();
    let bytes = fs::read(path(folder.path())).unwrap();
    assert_eq!(file.sync().unwrap(), bytes.len() as u64);
    let read = events(&bytes);
    assert_eq!(read.len(), 4);
    for event in &read {
        assert!((before..=now()).contains(&event.wall_time), "{event:?}");
    }
    assert_eq!(read[0].version.as_deref(), Some("brain.Event:2"));
    assert_eq!(read[1].step, 10);
    let expected = [
        (long, -3.5),
        ("train/lr".into(), 0.1),
        ("val/AP".into(), 0.0),
    ];
    assert_eq!(read[1].values, expected);
    assert_eq!(read[2].step, 1 << 40);
    assert!(read[2].values[0].1.is_nan());
    assert_eq!(read[3].values, [("train/a".into(), f32::INFINITY)]);
}

#[test]
fn it_is_continued_where_a_record_ends_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = EventFile::create(folder.path()).unwrap();
    let write = |file: &mut EventFile, iter| {
        file.scalars(iter, &values(&[("train/loss", 0.5)])).unwrap();
    };
    write(&mut file, 1);
    let position = file.sync().unwrap();
    write(&mut file, 2);
    let whole = fs::read(path(folder.path())).unwrap();
    // The process died within a record.
    fs::write(path(folder.path()), &whole[..whole.len() - 3]).unwrap();
    for wrong in [
        0,
        1,
        position - 1,
        position + 1,
        whole.len() as u64,
        1 << 50,
    ] {
        assert!(
            EventFile::resume(folder.path(), wrong).unwrap().is_none(),
            "{wrong}"
        );
    }
    let mut file = EventFile::resume(folder.path(), position).unwrap().unwrap();
    write(&mut file, 3);
    let bytes = fs::read(path(folder.path())).unwrap();
    assert_eq!(file.sync().unwrap(), bytes.len() as u64);
    let steps: Vec<u64> = events(&bytes).iter().map(|event| event.step).collect();
    assert_eq!(steps, [0, 1, 3]);
    // A bit of a length flips.
    let mut damaged = bytes;
    damaged[1] ^= 1;
    fs::write(path(folder.path()), damaged).unwrap();
    assert!(
        EventFile::resume(folder.path(), position)
            .unwrap()
            .is_none()
    );
}

#[test]
fn it_is_made_anew_from_the_logs() {
    let folder = tempfile::tempdir().unwrap();
    let logs = ["metrics.jsonl", "timing.jsonl"].map(|name| folder.path().join(name));
    let metrics = "{\"schema\":\"kdhost.metrics\",\"version\":1}\n\
                   {\"iter\":1,\"epoch\":0,\"train/loss\":0.5}\n\
                   {\"iter\":2,\"epoch\":1,\"val/AP\":null}\n";
    fs::write(&logs[0], metrics).unwrap();
    fs::write(&logs[1], "{\"iter\":1,\"epoch\":0,\"time/data\":0.25}\n").unwrap();
    fs::create_dir(folder.path().join(FOLDER)).unwrap();
    fs::write(path(folder.path()), b"something else").unwrap();
    let mut file = EventFile::rebuild(folder.path(), [&logs[0], &logs[1]]).unwrap();
    file.scalars(3, &values(&[("train/loss", 0.25)])).unwrap();
    let read = events(&fs::read(path(folder.path())).unwrap());
    let said: Vec<String> = read[1..]
        .iter()
        .map(|event| format!("{} {:?}", event.step, event.values))
        .collect();
    assert_eq!(
        said,
        [
            "1 [(\"train/loss\", 0.5)]",
            "2 [(\"val/AP\", NaN)]",
            "1 [(\"time/data\", 0.25)]",
            "3 [(\"train/loss\", 0.25)]"
        ]
    );
}

#[test]
fn tensorboards_own_writer_gives_the_same_bytes() {
    let golden = include_bytes!("../../../../tests/golden/tensorboard/events.tfevents");
    let mut written = record::framed(&message::version(1.5));
    for (step, values) in sample() {
        let event = message::scalars(1.5 + step as f64, step, &values);
        written.extend(record::framed(&event));
    }
    assert!(written == golden, "{:?}", events(&written));
    let steps: Vec<u64> = events(golden).iter().map(|event| event.step).collect();
    assert_eq!(steps, [0, 1, 200, 70_000]);
}

/// What `make_events_golden.py` wrote.
fn sample() -> [(u64, BTreeMap<String, f64>); 3] {
    [
        (1, values(&[("train/loss_cls", 0.75), ("train/lr", 0.001)])),
        (
            200,
            values(&[("train/loss_cls", f64::NAN), ("time/data", 1e-9)]),
        ),
        (
            70_000,
            values(&[("train/loss_cls", f64::INFINITY), ("val/AP", -1.0)]),
        ),
    ]
}
