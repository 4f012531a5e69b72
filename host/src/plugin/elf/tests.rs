use super::*;

/// Offsets in [`sound_file`], in bytes.
const PROGRAM_HEADERS: usize = 64;
const NOTE: usize = PROGRAM_HEADERS + 3 * 56;
const JSON: &[u8] = b"{\"schema\":1}";

/// The smallest shared object with a note and a dynamic segment: 64-bit, of this machine.
fn sound_file() -> Vec<u8> {
    let mut note = Vec::new();
    for word in [7u32, JSON.len() as u32, KD_NOTE_TYPE] {
        note.extend(word.to_ne_bytes());
    }
    note.extend(KD_NOTE_OWNER);
    note.extend(JSON);
    let strings = b"\0libneeded.so.1\0";
    let dynamic_at = NOTE + note.len();
    let strings_at = dynamic_at + 5 * 16;
    let end = strings_at + strings.len();

    let mut file = Vec::new();
    file.extend(elf::ELFMAG);
    file.extend([2, if cfg!(target_endian = "little") { 1 } else { 2 }, 1, 0]);
    file.extend([0; 8]);
    file.extend(elf::ET_DYN.0.to_ne_bytes());
    file.extend(HOST_MACHINE.0.0.to_ne_bytes());
    file.extend(1u32.to_ne_bytes());
    file.extend(0u64.to_ne_bytes()); // e_entry
    file.extend((PROGRAM_HEADERS as u64).to_ne_bytes());
    file.extend(0u64.to_ne_bytes()); // e_shoff: no section table
    file.extend(0u32.to_ne_bytes());
    for half in [64u16, 56, 3, 64, 0, 0] {
        file.extend(half.to_ne_bytes());
    }
    let mut segment = |kind: elf::ProgramType, at: usize, size: usize, align: u64| {
        file.extend(kind.0.to_ne_bytes());
        file.extend(4u32.to_ne_bytes());
        for word in [at, at, at, size, size] {
            file.extend((word as u64).to_ne_bytes());
        }
        file.extend(align.to_ne_bytes());
    };
    segment(elf::PT_LOAD, 0, end, 4096);
    segment(elf::PT_NOTE, NOTE, note.len(), 4);
    segment(elf::PT_DYNAMIC, dynamic_at, 5 * 16, 8);
    file.extend(note);
    for (tag, value) in [
        (elf::DT_NEEDED, 1),
        (elf::DT_STRTAB, strings_at as u64),
        (elf::DT_STRSZ, strings.len() as u64),
        (elf::DT_INIT_ARRAYSZ, 24),
        (elf::DT_NULL, 0),
    ] {
        file.extend(tag.0.to_ne_bytes());
        file.extend(value.to_ne_bytes());
    }
    file.extend(strings);
    assert_eq!(file.len(), end);
    file
}

#[test]
fn a_sound_file_is_read() {
    let facts = read(&sound_file()).unwrap();
    assert_eq!(facts.manifest.as_deref(), Some(JSON));
    assert_eq!(facts.needed, ["libneeded.so.1"]);
    assert_eq!(facts.constructors, 3);
    // Without a section table the symbols are unknown, which must not refuse the file.
    assert_eq!(facts.exported, None);
    assert!(facts.may_export("anything"));
}

#[test]
fn every_truncation_is_refused() {
    let file = sound_file();
    for length in 0..file.len() {
        match read(&file[..length]) {
            Err(ElfFault::NotElf(_)) => assert!(length < 4, "{length}"),
            Err(ElfFault::Extent { end, .. }) => assert!(end > length as u64, "{length}"),
            other => panic!("cut at {length}: {other:?}"),
        }
    }
}

#[test]
fn damage_never_panics() {
    let file = sound_file();
    for at in 0..file.len() {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut damaged = file.clone();
            damaged[at] = value;
            // Sound or refused, but always an answer.
            let _ = read(&damaged);
        }
    }
}

#[test]
fn other_machines_are_named() {
    let mut file = sound_file();
    let other = if HOST_MACHINE.0 == elf::EM_AARCH64 {
        (elf::EM_X86_64, "x86-64")
    } else {
        (elf::EM_AARCH64, "AArch64")
    };
    file[18..20].copy_from_slice(&other.0.0.to_ne_bytes());
    let expected = ElfFault::Machine(HOST_MACHINE.1, other.1.to_owned());
    assert_eq!(read(&file).unwrap_err(), expected);
}

#[test]
fn class_order_and_type_are_named() {
    let patched = |at: usize, value: u8| {
        let mut file = sound_file();
        file[at] = value;
        read(&file).unwrap_err()
    };
    assert_eq!(patched(4, 1), ElfFault::Class("32-bit".to_owned()));
    let other_order = if cfg!(target_endian = "little") {
        (2, "big-endian")
    } else {
        (1, "little-endian")
    };
    let fault = ElfFault::Endianness(other_order.1.to_owned());
    assert_eq!(patched(5, other_order.0), fault);
    let type_at = if cfg!(target_endian = "little") {
        16
    } else {
        17
    };
    assert_eq!(
        patched(type_at, 2),
        ElfFault::Type("an executable".to_owned())
    );
}

#[test]
fn what_is_no_elf_file_is_shown() {
    let fault = |bytes: &[u8]| match read(bytes) {
        Err(ElfFault::NotElf(start)) => start,
        other => panic!("{other:?}"),
    };
    assert_eq!(fault(b""), "nothing (the file is empty)");
    assert_eq!(fault(b"#!/bin/sh\necho hi"), "\"#!/bin/sh\\nec\"");
    assert_eq!(fault(&[0xca, 0xfe]), "ca fe");
}

#[test]
fn two_notes_are_refused() {
    let mut file = sound_file();
    // Turn PT_DYNAMIC into a second PT_NOTE over the same note.
    let second = PROGRAM_HEADERS + 2 * 56;
    let first = file[PROGRAM_HEADERS + 56..second].to_vec();
    file[second..second + 56].copy_from_slice(&first);
    let expected = ElfFault::Malformed("it has two kdhost notes".to_owned());
    assert_eq!(read(&file).unwrap_err(), expected);
}
