//! The C header and the Rust crate describe the same ABI, byte for byte.

use std::fmt::Write as _;
use std::mem::{align_of, offset_of, size_of};
use std::process::Command;

use kd_abi::*;
use kdhost_tests::artifacts::workspace_root;
use kdhost_tests::fixtures::{c_compiler, scratch, write};

/// Every struct with every field: lines as the C program prints them, and that program's
/// statements. A field missing here does not compile; a struct missing here has no other test.
macro_rules! layouts {
    ($($name:ident { $($field:ident),* $(,)? })*) => {{
        let (mut rust, mut c) = (String::new(), String::new());
        $(
            // An exhaustive pattern: a new field must be added to the list.
            let _exhaustive = |value: $name| {
                let $name { $($field: _),* } = value;
            };
            let name = stringify!($name);
            let (size, align) = (size_of::<$name>(), align_of::<$name>());
            writeln!(rust, "{name} {size} {align}").unwrap();
            writeln!(c, "printf(\"{name} %zu %zu\\n\", sizeof({name}), _Alignof({name}));").unwrap();
            $(
                let field = stringify!($field);
                writeln!(rust, "{name}.{field} {}", offset_of!($name, $field)).unwrap();
                writeln!(c, "printf(\"{name}.{field} %zu\\n\", offsetof({name}, {field}));").unwrap();
            )*
        )*
        (rust, c)
    }};
}

macro_rules! constants {
    ($($name:ident)*) => {{
        let (mut rust, mut c) = (String::new(), String::new());
        $(
            let name = stringify!($name);
            writeln!(rust, "{name} {}", i64::from($name)).unwrap();
            writeln!(c, "printf(\"{name} %lld\\n\", (long long){name});").unwrap();
        )*
        (rust, c)
    }};
}

#[test]
fn structs_have_the_same_layout_in_c_and_rust() {
    let (rust, c) = layouts! {
        KdStr { ptr, len }
        KdDType { code, bits, lanes }
        KdDevice { kind, id }
        KdDlTensor { data, device, ndim, dtype, shape, strides, byte_offset }
        KdTensor { dl, span_bytes, flags, slot }
        KdCall {
            struct_size, flags, host, host_ctx, cancel, stage, phase, step, phase_step,
            phase_steps, total_steps, epoch, seed, device, stream,
        }
        KdHost { struct_size, abi_minor, log_enabled, log, set_error, alloc, metric, get_extension }
        KdSpec { name, dtype, ndim, shape, attrs_json }
        KdTap { name, role, dtype, ndim, shape, stride, use_bits }
        KdPlanSink {
            struct_size, reserved, sink, param, buffer, loss, map, tap_use, schedule,
            target_use,
        }
        KdForward {
            struct_size, n_taps, n_params, n_buffers, n_targets, n_losses, n_maps, reserved, taps,
            params, buffers, targets, losses, maps,
        }
        KdBackward {
            struct_size, n_taps, n_params, n_losses, n_maps, reserved, taps, params, d_losses,
            d_maps, d_taps, d_params,
        }
        KdMethod {
            struct_size, flags, id, create, destroy, plan, init_state, forward, backward,
            release_saved, get_extension,
        }
        KdPlugin { struct_size, abi_major, abi_minor, n_methods, methods, init, deinit }
        KdTask { struct_size, num_classes }
        KdMapSize { n, h, w }
        KdConv { struct_size, n_sizes, sizes, c_in, c_out, kernel, flags }
        KdConvTable { struct_size, reserved, forward, backward }
        KdTrace {
            struct_size, flags, n_taps, n_params, n_buffers, n_targets, n_losses, int_dtype,
            bool_bytes, reserved, taps, params, buffers, targets, loss_wanted,
        }
        KdProgramSink { struct_size, reserved, sink, program }
        KdGraphTable { struct_size, flags, format, trace }
    };
    assert_eq!(printed_by_c("layout", &c), rust);
}

#[test]
fn constants_have_the_same_value_in_c_and_rust() {
    use kd_abi::note::KD_NOTE_TYPE;
    let (rust, c) = constants! {
        KD_ABI_MAJOR KD_ABI_MINOR
        KD_OK KD_E_INVALID_ARG KD_E_UNSUPPORTED KD_E_CONFIG KD_E_SHAPE KD_E_DTYPE KD_E_DEVICE
        KD_E_OOM KD_E_CANCELLED KD_E_NUMERIC KD_E_STATE KD_E_INTERNAL KD_E_PANIC
        KD_T_READ_ONLY KD_T_IS_COPIED KD_T_ACCUMULATE KD_T_ZEROED
        KD_CALL_TRAINING KD_CALL_CHECK KD_CALL_DETERMINISTIC KD_CALL_DETACH_STUDENT
        KD_USE_VALUE KD_USE_GRAD
        KD_DIM_N KD_DIM_H KD_DIM_W KD_DIM_T
        KD_DTYPE_INT KD_DTYPE_UINT KD_DTYPE_FLOAT KD_DTYPE_BFLOAT KD_DTYPE_BOOL
        KD_DEVICE_CPU KD_DEVICE_CUDA
        KD_ALLOC_CALL KD_ALLOC_SAVED
        KD_LOG_ERROR KD_LOG_WARN KD_LOG_INFO KD_LOG_DEBUG KD_LOG_TRACE
        KD_CONV_RELU
        KD_GRAPH_ONLY KD_TRACE_FORWARD KD_TRACE_INIT
        KD_NOTE_TYPE
    };
    assert_eq!(printed_by_c("constants", &c), rust);
}

#[test]
fn the_header_names_every_constant_of_the_crate() {
    let read = |path: &str| std::fs::read_to_string(workspace_root().join(path)).unwrap();
    let header = read("plugin-api/include/kd_plugin.h");
    let constants = read("plugin-api/abi/src/constants.rs");
    let constants = constants + &read("plugin-api/abi/src/extensions.rs");
    let names: Vec<&str> = constants
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split(':').next())
        // The entry is a function in C.
        .filter(|name| *name != "KD_C_ENTRY")
        .collect();
    assert!(names.len() > 40);
    for name in names {
        assert!(header.contains(&format!("#define {name} ")), "{name}");
    }
    assert!(header.contains(&format!("{}(void);", KD_C_ENTRY)));
    assert!(header.contains(&format!("#define KD_EXT_CONV \"{KD_EXT_CONV}\"\n")));
}

#[test]
fn the_header_compiles_cleanly_as_c_and_as_cpp() {
    let source = "#include \"kd_plugin.h\"\nKD_MANIFEST(\"{}\");\n\
                  const KdStr kd_test_text = KD_STR(\"x\");\n";
    let text = write("header_user.c", source.as_bytes());
    for (program, language, standard) in [("cc", "c", "c11"), ("c++", "c++", "c++17")] {
        let mut command = c_compiler(program, standard);
        command
            .args([
                "-Wall",
                "-Wextra",
                "-Werror",
                "-pedantic",
                "-fsyntax-only",
                "-x",
                language,
            ])
            .arg(&text);
        succeeds(&mut command);
    }
}

#[test]
fn the_c_plugin_compiles_without_a_warning() {
    let mut command = c_compiler("cc", "c11");
    command
        .args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"])
        .arg(workspace_root().join("tests/fixtures/c/feature_l2.c"));
    succeeds(&mut command);
}

fn printed_by_c(name: &str, statements: &str) -> String {
    let source = format!(
        "#include \"kd_plugin.h\"\n#include <stddef.h>\n#include <stdio.h>\n\
         int main(void) {{\n{statements}return 0;\n}}\n"
    );
    let file = write(&format!("{name}.c"), source.as_bytes());
    let program = scratch().join(name);
    succeeds(c_compiler("cc", "c11").arg(&file).arg("-o").arg(&program));
    let output = Command::new(&program).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}:\n{stderr}");
}
