//! A bounded look at an ELF file before the dynamic linker sees it.
//!
//! The linker maps what the headers say and touches it: a file cut off inside a segment ends the
//! process with SIGBUS, and a file for another processor is reported as "no such file". Here every
//! header is checked against the bytes read, and the manifest note is taken out, without running
//! or mapping anything.

use object::elf::{self, FileHeader64};
use object::read::elf::{
    Dyn as _, FileHeader as _, ProgramHeader as _, SectionHeader as _, Sym as _,
};
use object::{Endianness, pod};

use kd_abi::note::{KD_NOTE_OWNER, KD_NOTE_TYPE};

const NATIVE: Endianness = if cfg!(target_endian = "little") {
    Endianness::Little
} else {
    Endianness::Big
};

#[cfg(target_arch = "x86_64")]
const HOST_MACHINE: (elf::Machine, &str) = (elf::EM_X86_64, "x86-64");
#[cfg(target_arch = "aarch64")]
const HOST_MACHINE: (elf::Machine, &str) = (elf::EM_AARCH64, "AArch64");
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("name this processor's ELF machine number here");

/// Names of symbols shown in messages at most.
const EXPORTED_SHOWN: usize = 12;

/// What the headers of a sound shared object say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElfFacts {
    /// The JSON of the kdhost note, undecoded.
    pub manifest: Option<Vec<u8>>,
    /// Dynamic symbols defined here; `None` if the file has no section table to list them.
    pub exported: Option<Vec<String>>,
    /// Libraries that loading this one loads as well.
    pub needed: Vec<String>,
    /// Functions that run inside `dlopen`.
    pub constructors: u64,
}

impl ElfFacts {
    /// Whether `symbol` is exported; true if that cannot be told without loading.
    #[must_use]
    pub fn may_export(&self, symbol: &str) -> bool {
        match &self.exported {
            Some(names) => names.iter().any(|name| name == symbol),
            None => true,
        }
    }

    /// The first exported symbols, for a message.
    #[must_use]
    pub fn exported_shown(&self) -> Vec<String> {
        let mut names = self.exported.clone().unwrap_or_default();
        if names.len() > EXPORTED_SHOWN {
            let more = names.len() - EXPORTED_SHOWN;
            names.truncate(EXPORTED_SHOWN);
            names.push(format!("and {more} more"));
        }
        names
    }
}

/// Why a file must not be given to the dynamic linker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElfFault {
    /// No ELF magic; the first bytes.
    NotElf(String),
    /// Not a 64-bit file.
    Class(String),
    /// Other byte order.
    Endianness(String),
    /// Other processor: host's name, file's name.
    Machine(&'static str, String),
    /// Not a shared object.
    Type(String),
    /// Part of the file lies beyond its end.
    Extent {
        /// Which part.
        part: String,
        /// Where it ends.
        end: u64,
    },
    /// Headers contradict themselves.
    Malformed(String),
}

/// Checks `bytes` and reads what loading needs to know.
///
/// # Errors
/// See [`ElfFault`]. Never panics and never reads past `bytes`, whatever they hold.
pub fn read(bytes: &[u8]) -> Result<ElfFacts, ElfFault> {
    let header = check_header(bytes)?;
    let segments = check_segments(header, bytes)?;
    check_sections(header, bytes)?;

    let mut facts = ElfFacts {
        manifest: None,
        exported: exported_symbols(header, bytes)?,
        needed: Vec::new(),
        constructors: 0,
    };
    for segment in segments {
        if let Some(json) = manifest_in(segment, bytes)? {
            if facts.manifest.is_some() {
                return Err(ElfFault::Malformed("it has two kdhost notes".to_owned()));
            }
            facts.manifest = Some(json);
        }
    }
    read_dynamic(segments, bytes, &mut facts)?;
    Ok(facts)
}

fn check_header(bytes: &[u8]) -> Result<&FileHeader64<Endianness>, ElfFault> {
    if !bytes.starts_with(&elf::ELFMAG) {
        return Err(ElfFault::NotElf(describe_start(bytes)));
    }
    let size = size_of::<FileHeader64<Endianness>>();
    let class = bytes.get(4).copied();
    let order = bytes.get(5).copied();
    if let Some(class) = class.filter(|c| *c != elf::ELFCLASS64.0) {
        return Err(ElfFault::Class(match class {
            1 => "32-bit".to_owned(),
            other => format!("class-{other}"),
        }));
    }
    let native_order = if NATIVE == Endianness::Little { 1 } else { 2 };
    if let Some(order) = order.filter(|o| *o != native_order) {
        return Err(ElfFault::Endianness(match order {
            1 => "little-endian".to_owned(),
            2 => "big-endian".to_owned(),
            other => format!("of byte order {other}"),
        }));
    }
    let Ok((header, _)) = pod::from_bytes::<FileHeader64<Endianness>>(bytes) else {
        return Err(ElfFault::Extent {
            part: "the file header".to_owned(),
            end: size as u64,
        });
    };
    let machine = header.e_machine(NATIVE);
    if machine != HOST_MACHINE.0 {
        return Err(ElfFault::Machine(HOST_MACHINE.1, machine_name(machine)));
    }
    let kind = header.e_type(NATIVE);
    if kind != elf::ET_DYN {
        return Err(ElfFault::Type(match kind {
            elf::ET_REL => "an object file".to_owned(),
            elf::ET_EXEC => "an executable".to_owned(),
            elf::ET_CORE => "a core dump".to_owned(),
            other => format!("an ELF file of type {}", other.0),
        }));
    }
    Ok(header)
}

type Segment = elf::ProgramHeader64<Endianness>;

fn check_segments<'a>(
    header: &FileHeader64<Endianness>,
    bytes: &'a [u8],
) -> Result<&'a [Segment], ElfFault> {
    let count = u64::from(header.e_phnum(NATIVE));
    if count == 0 {
        return Err(ElfFault::Malformed("it has no program headers".to_owned()));
    }
    if usize::from(header.e_phentsize(NATIVE)) != size_of::<Segment>() {
        return Err(ElfFault::Malformed(
            "its program headers have another size".to_owned(),
        ));
    }
    let table_size = count * size_of::<Segment>() as u64;
    within(bytes, header.e_phoff(NATIVE), table_size, || {
        "the program header table".to_owned()
    })?;
    let segments = header
        .program_headers(NATIVE, bytes)
        .map_err(|e| ElfFault::Malformed(e.to_string()))?;
    for (index, segment) in segments.iter().enumerate() {
        let (offset, size) = segment.file_range(NATIVE);
        within(bytes, offset, size, || format!("segment {index}"))?;
        let loaded = segment.p_type(NATIVE) == elf::PT_LOAD;
        if loaded && segment.p_memsz(NATIVE) < size {
            return Err(ElfFault::Malformed(format!(
                "segment {index} is larger in the file than in memory"
            )));
        }
    }
    if !segments.iter().any(|s| s.p_type(NATIVE) == elf::PT_LOAD) {
        return Err(ElfFault::Malformed("it loads nothing".to_owned()));
    }
    Ok(segments)
}

/// The linker does not need the section table; a file without its end has lost it nevertheless.
fn check_sections(header: &FileHeader64<Endianness>, bytes: &[u8]) -> Result<(), ElfFault> {
    let offset = header.e_shoff(NATIVE);
    if offset == 0 {
        return Ok(());
    }
    let size = u64::from(header.e_shnum(NATIVE)) * u64::from(header.e_shentsize(NATIVE));
    within(bytes, offset, size, || "the section table".to_owned())?;
    let sections = header
        .section_headers(NATIVE, bytes)
        .map_err(|e| ElfFault::Malformed(e.to_string()))?;
    for (index, section) in sections.iter().enumerate() {
        if let Some((offset, size)) = section.file_range(NATIVE) {
            within(bytes, offset, size, || format!("section {index}"))?;
        }
    }
    Ok(())
}

fn within(
    bytes: &[u8],
    offset: u64,
    size: u64,
    part: impl FnOnce() -> String,
) -> Result<(), ElfFault> {
    let end = offset.saturating_add(size);
    if size > 0 && end > bytes.len() as u64 {
        return Err(ElfFault::Extent { part: part(), end });
    }
    Ok(())
}

fn manifest_in(segment: &Segment, bytes: &[u8]) -> Result<Option<Vec<u8>>, ElfFault> {
    let Some(mut notes) = segment
        .notes(NATIVE, bytes)
        .map_err(|e| ElfFault::Malformed(e.to_string()))?
    else {
        return Ok(None);
    };
    let owner = &KD_NOTE_OWNER[..6];
    while let Some(note) = notes
        .next()
        .map_err(|e| ElfFault::Malformed(e.to_string()))?
    {
        if note.name() == owner && note.n_type(NATIVE).0 == KD_NOTE_TYPE {
            return Ok(Some(note.desc().to_vec()));
        }
    }
    Ok(None)
}

fn exported_symbols(
    header: &FileHeader64<Endianness>,
    bytes: &[u8],
) -> Result<Option<Vec<String>>, ElfFault> {
    if header.e_shoff(NATIVE) == 0 {
        return Ok(None);
    }
    let malformed = |e: object::Error| ElfFault::Malformed(e.to_string());
    let sections = header.sections(NATIVE, bytes).map_err(malformed)?;
    let table = sections
        .symbols(NATIVE, bytes, elf::SHT_DYNSYM)
        .map_err(malformed)?;
    let mut names = Vec::new();
    for symbol in table.iter() {
        let global = matches!(symbol.st_bind(), elf::STB_GLOBAL | elf::STB_WEAK);
        if global && !symbol.is_undefined(NATIVE) {
            let name = table.symbol_name(NATIVE, symbol).map_err(malformed)?;
            names.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    names.sort();
    Ok(Some(names))
}

fn read_dynamic(segments: &[Segment], bytes: &[u8], facts: &mut ElfFacts) -> Result<(), ElfFault> {
    let malformed = |e: object::Error| ElfFault::Malformed(e.to_string());
    let mut entries: Option<&[elf::Dyn64<Endianness>]> = None;
    for segment in segments {
        if let Some(found) = segment.dynamic(NATIVE, bytes).map_err(malformed)? {
            entries = Some(found);
        }
    }
    let Some(entries) = entries else {
        return Err(ElfFault::Malformed("it has no dynamic segment".to_owned()));
    };
    let live = || {
        entries
            .iter()
            .take_while(|entry| entry.tag(NATIVE) != elf::DT_NULL)
    };
    let value = |wanted| {
        live()
            .find(|entry| entry.tag(NATIVE) == wanted)
            .map(|entry| entry.val(NATIVE))
    };
    let pointer = size_of::<u64>() as u64;
    facts.constructors = value(elf::DT_INIT_ARRAYSZ).unwrap_or(0) / pointer;

    let strings = match (value(elf::DT_STRTAB), value(elf::DT_STRSZ)) {
        (Some(address), Some(size)) => segments
            .iter()
            .filter(|s| s.p_type(NATIVE) == elf::PT_LOAD)
            .find_map(|s| s.data_range(NATIVE, bytes, address, size).ok().flatten()),
        _ => None,
    };
    let Some(strings) = strings else {
        return Err(ElfFault::Malformed(
            "its dynamic string table lies outside its segments".to_owned(),
        ));
    };
    for entry in live().filter(|entry| entry.tag(NATIVE) == elf::DT_NEEDED) {
        let tail = usize::try_from(entry.val(NATIVE))
            .ok()
            .and_then(|start| strings.get(start..));
        let name = tail.and_then(|tail| tail.split(|b| *b == 0).next());
        let Some(name) = name else {
            return Err(ElfFault::Malformed(
                "a needed library has no name".to_owned(),
            ));
        };
        facts
            .needed
            .push(String::from_utf8_lossy(name).into_owned());
    }
    Ok(())
}

fn describe_start(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "nothing (the file is empty)".to_owned();
    }
    let start = &bytes[..bytes.len().min(12)];
    match std::str::from_utf8(start) {
        Ok(text) if !text.contains(|c: char| c.is_control() && c != '\n') => format!("{text:?}"),
        _ => {
            let hex: Vec<String> = start.iter().map(|b| format!("{b:02x}")).collect();
            hex.join(" ")
        }
    }
}

fn machine_name(machine: elf::Machine) -> String {
    match machine {
        elf::EM_X86_64 => "x86-64".to_owned(),
        elf::EM_AARCH64 => "AArch64".to_owned(),
        elf::EM_386 => "32-bit x86".to_owned(),
        elf::EM_ARM => "32-bit Arm".to_owned(),
        elf::EM_RISCV => "RISC-V".to_owned(),
        elf::EM_PPC64 => "PowerPC 64".to_owned(),
        elf::EM_S390 => "s390x".to_owned(),
        other => format!("ELF machine {}", other.0),
    }
}

#[cfg(test)]
mod tests;
