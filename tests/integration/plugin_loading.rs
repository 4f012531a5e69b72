//! Which files are loaded, and how each wrong one is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kdhost::plugin::catalog;
use kdhost::plugin::{Library, PluginLoadError, SearchPath};
use kdhost_tests::artifacts::artifacts;
use kdhost_tests::fixtures;
use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

/// Loads, expects a refusal of this code, and returns it with its message.
fn refused(path: &Path, code: &str) -> (PluginLoadError, String) {
    let error = Library::load(path).expect_err("the plugin is refused");
    let message = error.to_string();
    assert_eq!(error.code(), code, "{message}");
    (error, message)
}

/// A refusal whose message names the file and contains every one of `parts`.
fn refused_saying(path: &Path, code: &str, parts: &[&str]) -> PluginLoadError {
    let (error, message) = refused(path, code);
    let name = path
        .file_name()
        .expect("a file name")
        .to_str()
        .expect("UTF-8");
    for part in parts.iter().chain(&[name]) {
        assert!(message.contains(part), "`{message}` lacks `{part}`");
    }
    error
}

fn faulty(defines: &[&str]) -> PathBuf {
    fixtures::c_plugin("faulty", defines)
}

#[test]
fn both_doors_open() {
    let c = Library::load(&fixtures::c_plugin("feature_l2", &[])).unwrap();
    assert_eq!(c.manifest().plugin, "c-feature-l2");
    let rust = Library::load(&fixtures::rust_plugin()).unwrap();
    assert_eq!(rust.manifest().plugin, "minimal");
    assert_eq!(rust.abi().to_string(), "1.0");
    assert_eq!(rust.sha256().len(), 64);
}

#[test]
fn two_rust_plugins_are_two_plugins() {
    // abi_stable caches root modules by type: loaded its own way, the second would be the first.
    let stress = Library::load(fixtures::stress_plugin()).unwrap();
    let minimal = Library::load(&fixtures::rust_plugin()).unwrap();
    assert_eq!(stress.manifest().methods[0].id, "stress");
    assert_eq!(minimal.manifest().methods[0].id, "minimal");
}

#[test]
fn same_bytes_are_one_library() {
    let path = faulty(&[]);
    let first = Library::load(&path).unwrap();
    assert!(Arc::ptr_eq(&first, &Library::load(&path).unwrap()));
    let copy = fixtures::write("libcopy.so", &fs::read(&path).unwrap());
    assert!(Arc::ptr_eq(&first, &Library::load(&copy).unwrap()));
}

#[test]
fn a_file_replaced_after_loading_is_refused() {
    let path = fixtures::scratch().join("libreplaced.so");
    fs::copy(faulty(&["LOSS_VALUE=1.0f"]), &path).unwrap();
    Library::load(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::copy(faulty(&["LOSS_VALUE=2.0f"]), &path).unwrap();
    refused_saying(&path, "E_CHANGED", &["start kdhost again"]);
}

#[test]
fn what_is_no_shared_library() {
    let text = fixtures::write("libtext.so", b"GROUP ( libkd_ssim.so.1 )\n");
    refused_saying(&text, "E_NOT_ELF", &["\"GROUP ( libk\"", "7f 45 4c 46"]);
    let empty = fixtures::write("libempty.so", b"");
    refused_saying(&empty, "E_NOT_ELF", &["the file is empty"]);
    let folder = fixtures::scratch().join("libfolder.so");
    fs::create_dir_all(&folder).unwrap();
    refused_saying(&folder, "E_NOT_FILE", &["a folder"]);
    refused_saying(Path::new("/dev/null"), "E_NOT_FILE", &["device"]);
    refused_saying(Path::new("nowhere/libx.so"), "E_NOT_FOUND", &[]);
}

#[test]
fn executables_are_refused() {
    // The host's own binary is a position-independent executable: ET_DYN, but without a note.
    refused_saying(artifacts().kdhost(), "E_NO_NOTE", &["not a plugin"]);
    let fixed = fixtures::patched(&faulty(&[]), "libexec.so", 16, &[2, 0]);
    refused_saying(&fixed, "E_ELF_TYPE", &["an executable", "-shared"]);
}

#[test]
fn other_machines_classes_and_byte_orders() {
    let good = faulty(&[]);
    let (machine, name) = if cfg!(target_arch = "aarch64") {
        (elf::EM_X86_64, "a plugin for x86-64 on a host for AArch64")
    } else {
        (elf::EM_AARCH64, "a plugin for AArch64 on a host for x86-64")
    };
    let other = fixtures::patched(&good, "libmachine.so", 18, &machine.0.to_le_bytes());
    refused_saying(&other, "E_ELF_MACHINE", &[name, "rebuild"]);
    let class = fixtures::patched(&good, "libclass.so", 4, &[1]);
    refused_saying(&class, "E_ELF_CLASS", &["32-bit", "64-bit"]);
    let order = fixtures::patched(&good, "liborder.so", 5, &[2]);
    refused_saying(&order, "E_ELF_ENDIAN", &["big-endian"]);
}

#[test]
fn truncation_never_reaches_the_linker() {
    // In this process: a SIGBUS inside dlopen would end the test binary.
    for (name, plugin) in [
        ("c", faulty(&[])),
        ("rust", fixtures::stress_plugin().to_path_buf()),
    ] {
        let bytes = fs::read(&plugin).unwrap();
        let mut cuts = vec![0, 1, 4, 5, 20, 63, 64, 100, 500];
        cuts.extend((1..8).map(|eighth| bytes.len() * eighth / 8));
        cuts.push(bytes.len() - 1);
        let header = FileHeader64::<Endianness>::parse(bytes.as_slice()).unwrap();
        let endian = header.endian().unwrap();
        for segment in header.program_headers(endian, bytes.as_slice()).unwrap() {
            let (offset, size) = segment.file_range(endian);
            cuts.push((offset + size / 2) as usize);
            cuts.push((offset + size).saturating_sub(1) as usize);
        }
        assert!(cuts.len() >= 12);
        for cut in cuts {
            let cut_file = fixtures::write(&format!("libcut_{name}.so"), &bytes[..cut]);
            let error = Library::load(&cut_file).unwrap_err();
            let expected = if cut < 4 { "E_NOT_ELF" } else { "E_ELF_EXTENT" };
            assert_eq!(error.code(), expected, "cut at {cut}: {error}");
            if cut >= 4 {
                assert!(error.to_string().contains("is cut off"), "{error}");
            }
        }
    }
}

#[test]
fn damaged_headers_are_answered_and_never_panic() {
    let bytes = fs::read(faulty(&[])).unwrap();
    let header = FileHeader64::<Endianness>::parse(bytes.as_slice()).unwrap();
    let sections = header.e_shoff.get(header.endian().unwrap()) as usize;
    // File header, program headers, notes and dynamic symbols; then the section table.
    let places = (0..1200).chain(sections..bytes.len());
    let mut refused = 0;
    for at in places {
        for value in [0x00, 0x7f, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            refused += usize::from(kdhost::plugin::elf::read(&damaged).is_err());
        }
    }
    assert!(refused > 100, "only {refused} kinds of damage were seen");
}

#[test]
fn libraries_without_a_manifest() {
    refused_saying(
        &faulty(&["NO_NOTE"]),
        "E_NO_NOTE",
        &["KD_MANIFEST", "kd_plugin_v1"],
    );
}

#[test]
fn manifests_that_are_wrong() {
    let path = faulty(&["NOTE_DOOR=trapdoor"]);
    refused_saying(&path, "E_MANIFEST", &["trapdoor"]);
    let path = faulty(&["NOTE_METHOD=second", "TWO_METHODS_NOTED"]);
    refused_saying(&path, "E_MANIFEST", &["method id `second` is given twice"]);
}

#[test]
fn other_abi_versions() {
    let path = faulty(&["NOTE_ABI_MAJOR=2"]);
    refused_saying(
        &path,
        "E_ABI_MAJOR",
        &["wants ABI 2.0, this host speaks 1.0"],
    );
    let path = faulty(&["NOTE_ABI_MINOR=9"]);
    refused_saying(&path, "E_ABI_MINOR", &["wants ABI 1.9", "update kdhost"]);
    // A manifest that lies about its table gets past the note, not past the table.
    let path = faulty(&["TABLE_ABI_MAJOR=2"]);
    refused_saying(
        &path,
        "E_TABLE",
        &["the ABI version", "manifest 1.0, table 2.0"],
    );
}

#[test]
fn libraries_without_the_door() {
    let path = faulty(&["NO_ENTRY"]);
    refused_saying(
        &path,
        "E_NO_ENTRY",
        &["`kd_plugin_v1`", "it exports kd_plugin_v0"],
    );
    let path = faulty(&["NOTE_DOOR=abi_stable"]);
    refused_saying(
        &path,
        "E_NO_ENTRY",
        &["`abi_stable`", "it exports kd_plugin_v1"],
    );
}

#[test]
fn undefined_symbols_fail_at_load_and_not_at_the_first_call() {
    let path = faulty(&["UNDEFINED_SYMBOL"]);
    refused_saying(
        &path,
        "E_DLOPEN",
        &["undefined symbol: nobody_defines_this"],
    );
}

#[test]
fn layouts_are_compared() {
    let error = refused_saying(
        &fixtures::mismatched_plugin(),
        "E_LAYOUT",
        &["another layout", "KdTap", "rebuild it"],
    );
    let PluginLoadError::Layout {
        type_name,
        problem,
        report,
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(type_name, "KdTap");
    assert_eq!(problem, "field `use_bits` where `stride` is expected");
    assert!(report.contains("stride") && report.contains("use_bits"));
}

#[test]
fn layouts_must_be_there_to_compare() {
    let path = fixtures::opted_out_plugin();
    refused_saying(&path, "E_LAYOUT_OPTOUT", &["unsafe_no_layout_constant"]);
}

#[test]
fn null_functions_are_named() {
    for entry in [
        "create",
        "destroy",
        "plan",
        "init_state",
        "forward",
        "backward",
        "release_saved",
        "get_extension",
    ] {
        let define = format!("NULL_ENTRY_{}", entry.to_uppercase());
        let expected = format!("`{entry}` in KdMethod of `faulty`");
        refused_saying(
            &faulty(&[&define]),
            "E_NULL_POINTER",
            &[&expected, "is null"],
        );
    }
    let path = faulty(&["NULL_INIT"]);
    refused_saying(&path, "E_NULL_POINTER", &["`init` in KdPlugin"]);
    let path = faulty(&["NULL_METHODS"]);
    refused_saying(&path, "E_NULL_POINTER", &["`methods` in KdPlugin"]);
    let path = faulty(&["NULL_METHOD"]);
    refused_saying(&path, "E_NULL_POINTER", &["the table itself", "KdMethod"]);
    let path = faulty(&["NULL_TABLE"]);
    refused_saying(&path, "E_NULL_POINTER", &["the table itself", "KdPlugin"]);
}

#[test]
fn tables_have_the_size_of_the_header() {
    let path = faulty(&["TABLE_SIZE=48"]);
    refused_saying(&path, "E_STRUCT_SIZE", &["struct_size 48, expected 40"]);
    let path = faulty(&["METHOD_SIZE=0"]);
    refused_saying(&path, "E_STRUCT_SIZE", &["struct_size 0, expected 88"]);
}

#[test]
fn manifest_and_table_agree() {
    let path = faulty(&["NOTE_METHOD=other"]);
    refused_saying(&path, "E_TABLE", &["manifest `other`, table `faulty`"]);
    let path = faulty(&["TWO_METHODS_NOTED"]);
    refused_saying(
        &path,
        "E_TABLE",
        &["number of methods: manifest 2, table 1"],
    );
}

#[test]
fn init_may_refuse() {
    let path = faulty(&["INIT_FAILS"]);
    refused_saying(&path, "E_INIT", &["KD_E_UNSUPPORTED", "needs a lucky day"]);
}

#[test]
fn idle_libraries_are_deinitialised_once_and_come_back() {
    let trace = fixtures::scratch().join("deinit-trace");
    let define = format!("DEINIT_TRACE=\"{}\"", trace.display());
    let path = faulty(&[&define]);
    // The plugin adds a byte on each deinit.
    let count = || fs::read(&trace).map_or(0, |bytes| bytes.len());
    let used = Library::load(&path).unwrap();
    Library::deinit_idle();
    assert_eq!(count(), 0);
    drop(used);
    Library::deinit_idle();
    Library::deinit_idle();
    assert_eq!(count(), 1);
    drop(Library::load(&path).unwrap());
    Library::deinit_idle();
    assert_eq!(count(), 2);
}

#[test]
fn inspection_shows_what_loading_would_do() {
    let plugin = catalog::inspect(&fixtures::c_plugin("feature_l2", &[])).unwrap();
    assert_eq!(plugin.exported, ["kd_plugin_v1"]);
    // The C runtime's own frame registration.
    assert_eq!(plugin.constructors, 1);
    let text = plugin.to_string();
    for part in [
        "c-feature-l2 1.0.0",
        "student neck.*, gradient",
        "losses     l2",
        &plugin.sha256,
    ] {
        assert!(text.contains(part), "{text}\nlacks {part}");
    }
    // A plugin of another ABI cannot be loaded and is still no stranger.
    let error = catalog::inspect(&faulty(&["NOTE_ABI_MAJOR=2"])).unwrap_err();
    assert_eq!(error.code(), "E_ABI_MAJOR");
}

#[test]
fn listing_shows_sound_and_broken_plugins_and_no_strangers() {
    let folder = tempfile::tempdir().unwrap();
    let put = |from: PathBuf, name: &str| fs::copy(from, folder.path().join(name)).unwrap();
    put(fixtures::c_plugin("feature_l2", &[]), "liba.so");
    put(faulty(&["NOTE_ABI_MAJOR=2"]), "libb.so");
    put(faulty(&["NO_NOTE"]), "libstranger.so");
    fs::write(folder.path().join("notes.txt"), "not a library").unwrap();
    let entries = catalog::list(&SearchPath::new(vec![folder.path().to_path_buf()]));
    let lines: Vec<String> = entries.iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("liba.so: c-feature-l2 1.0.0 (door c, methods c_l2)"));
    assert!(lines[1].contains("libb.so: E_ABI_MAJOR"));
}
