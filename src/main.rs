//! The program.

use std::process::ExitCode;

fn main() -> ExitCode {
    feedline::command::main()
}
