//! The binary: parse, run, report, exit code.

use std::process::ExitCode;

use clap::Parser as _;
use kdhost::cli::{self, Cli, report, telemetry};
use kdhost::exit_code;
use kdhost::kernels::allocator::{self, KeepLarge};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: KeepLarge<MiMalloc> = KeepLarge::new(MiMalloc);

fn main() -> ExitCode {
    allocator::keep_system_heap();
    let cli = Cli::parse();
    telemetry::init(cli.is_quiet());
    let code = cli::run(cli).unwrap_or_else(|error| {
        let code = exit_code::of(&error);
        // A reader that stops early, such as `head`, is no error.
        if code != exit_code::OK {
            report::error(&error);
        }
        code
    });
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
