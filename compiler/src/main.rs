//! `kasprc`: the compiler's program.
//!
//! Everything is in the library, which `kaspr-exec` uses too; here is the command line alone.

#![forbid(unsafe_code)]

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
